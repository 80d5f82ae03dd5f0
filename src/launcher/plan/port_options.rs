//! Checks the settings of a guest's port on a bridge, and takes them from the request or from the
//! bridge's network.
//!
//! A network can have port groups with VLANs, isolation and limits of traffic. The facts have the
//! settings of the requested group; the request can replace its limits.

use super::bridge::TapOwner;
use super::request::{Attachment, NicRequest};
use super::request_error::RequestError;
use crate::types::facts::{Facts, Problem};
use crate::types::{PortSettings, Setting};

impl NicRequest {
    /// Checks the limits of traffic and the port group.
    pub(super) fn check_port(&self) -> Result<(), RequestError> {
        if let Some(group) = &self.port_group
            && !matches!(self.attachment, Some(Attachment::Network(_)))
        {
            return Err(RequestError::GroupNeedsNetwork(group.clone()));
        }
        match &self.bandwidth {
            Some(_) if self.attachment.is_none() => Err(RequestError::BandwidthNeedsBridge),
            Some(bandwidth) => Ok(bandwidth.check()?),
            None => Ok(()),
        }
    }
}

/// Returns the settings of the NIC's port.
pub(super) fn port_settings(nic: &NicRequest, facts: &Facts) -> PortSettings {
    let mut port = facts.target.as_ref().map(|target| target.port.clone()).unwrap_or_default();
    if let Some(bandwidth) = nic.bandwidth {
        port.bandwidth = bandwidth;
    }
    port
}

/// Checks that the program that makes the tap can give it these settings.
pub(super) fn check(owner: &TapOwner, nic: &NicRequest, facts: &Facts) -> Result<(), Problem> {
    if *owner == TapOwner::Netlaunch {
        return Ok(());
    }
    let port = port_settings(nic, facts);
    let what = match () {
        () if nic.bandwidth.is_some() => "limits of traffic are",
        () if port.vlan.is_some() => "the VLANs of the network's ports are",
        () if port.isolated => "the isolation of the network's ports is",
        () if !port.bandwidth.is_unlimited() => "the limits of the network's ports are",
        () => return Ok(()),
    };
    let why =
        format!("{what} for root to set, and QEMU's bridge helper would make this guest's tap");
    Err(match nic.bandwidth {
        Some(_) => Problem::new(why, "let netlaunch start QEMU, as root, or drop the bandwidth")
            .about(&[Setting::Bandwidth]),
        None => Problem::new(why, "let netlaunch start QEMU, as root").about(&[Setting::Network]),
    })
}
