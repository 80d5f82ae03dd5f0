//! Finds the bridge that a NIC of a launch joins, and the host interface that a request names.

use super::Failure;
use super::environment::Environment;
use super::nwfilter::Filtered;
use super::request::Job;
use super::{network, published};
use crate::launcher::plan::{Attachment, NicRequest};
use crate::sys::netlink::{LinkError, Netlink};
use crate::types::facts::TargetBridge;
use crate::types::{InterfaceName, PortSettings};

/// Returns the bridge of a NIC, with the firewall rules to print; `None` for a user-mode NIC.
pub(super) async fn target(
    nic: &NicRequest,
    job: &Job,
    environment: &Environment,
) -> Result<Option<TargetBridge>, Failure> {
    let Some(attachment) = &nic.attachment else { return Ok(None) };
    let mut target = match attachment {
        Attachment::Network(name) => {
            let mut target = network::target(name, &nic.port_group, environment).await?;
            if job.print.is_some() && !nic.publish.is_empty() {
                target.firewall = published::scripts(name, nic, environment).await?;
            }
            target
        }
        Attachment::Bridge(name) => bridge(name).await.map_err(Failure::Link)?,
    };
    if let Some(filter) = &nic.filter
        && let Some(filtered) = Filtered::new(filter, nic.mac, environment)?
    {
        match job.print {
            Some(_) => target.firewall.extend(filtered.scripts()?),
            // A mistake in a filter is reported before anything is started.
            None => filtered.check()?,
        }
    }
    Ok(Some(target))
}

/// Finds out about a bridge of this host.
///
/// # Errors
/// There is no such interface, or it is no bridge.
async fn bridge(bridge: &InterfaceName) -> Result<TargetBridge, LinkError> {
    let link = Netlink::open()?.bridge(bridge).await?;
    let port = PortSettings::default();
    Ok(TargetBridge { bridge: bridge.clone(), mtu: link.mtu, port, firewall: Vec::new() })
}

/// Refuses an interface that the host does not have. If netlaunch cannot ask the kernel, the
/// interface is accepted, and passt reports whether it exists.
pub(super) async fn interface_exists(name: &InterfaceName) -> Result<(), Failure> {
    let found = match Netlink::open() {
        Ok(netlink) => netlink.link(name).await,
        Err(error) => Err(error),
    };
    match found {
        Err(error @ LinkError::Missing(_)) => Err(Failure::Link(error)),
        _ => Ok(()),
    }
}
