//! The port of a guest on a bridge: its tap, with the rules of its filter.
//!
//! The order matters. The tap gets its settings while it is down and on no bridge, so that the
//! bridge never sees a tap that is not ready. It is turned on last, so that the rules of the
//! guest's filter are set before its first frame:
//!
//! ```text
//! make: tap, MTU, address, no IPv6, limits, on the bridge, VLANs, isolation ─▶ rules ─▶ up ─▶ QEMU
//! end:  QEMU has ended ─▶ down ─▶ rules removed ─▶ tap removed
//! ```
//!
//! The tap belongs to its descriptor, which QEMU inherits and this process keeps. So the tap
//! outlives QEMU until the port is dropped, and no other tap gets its name before its rules are
//! removed. A process that QEMU has started may have the descriptor as well and outlive QEMU.
//! Therefore the tap is turned off before its rules are removed, and is removed even if another
//! process has it open. If this process is killed, the guard kills QEMU, both copies of the
//! descriptor are closed, and the kernel removes the tap.

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::Failure;
use super::environment::Environment;
use super::guest_tap::attach;
use super::nwfilter;
use super::nwfilter_error::NwfilterError;
use super::port_learner::PortLearner;
use super::port_watch;
use super::published::{FollowedGuest, Publisher};
use crate::launcher::guest_port::{
    AddressFollower, AddressLearner, BoxFuture, GuestPort, GuestPortError, GuestPorts,
    PortDescriptors, PortRequest, PortWatch, RulesSet,
};
use crate::launcher::plan::NicRequest;
use crate::nwfilter::port::Bindings;
use crate::nwfilter::{Binding, Owner};
use crate::sys::netlink::sysctl::SysctlError;
use crate::sys::netlink::{LinkError, Netlink, Undo};
use crate::sys::tap::{self, Tap, TapError, VHOST_NET};
use crate::sys::traffic::TrafficError;
use crate::types::facts::TargetBridge;
use crate::types::{InterfaceName, PortSettings, Uuid, error_text};

/// Why a guest cannot be on its bridge. Nothing of its tap is left.
#[derive(Debug, thiserror::Error)]
pub(super) enum BridgeError {
    /// The tap cannot be made.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The tap cannot be set up or attached.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The traffic of the tap cannot be limited.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// IPv6 cannot be turned off on the tap.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// Ports of a guest on a bridge without a network cannot be published.
    #[error(
        "ports of a guest on {0} can be published only through a network; define one for that bridge"
    )]
    NoNetwork(InterfaceName),
    /// There is no descriptor for QEMU.
    #[error("cannot hand the tap {tap} to QEMU; raise the limit of open files")]
    Descriptor {
        /// The tap.
        tap: InterfaceName,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Lets `?` turn errors about a tap into a [`GuestPortError`].
macro_rules! guest_port_error_from {
    ($($error:ty),+) => {
        $(impl From<$error> for GuestPortError {
            fn from(error: $error) -> Self {
                GuestPortError::new(BridgeError::from(error))
            }
        })+
    };
}

guest_port_error_from! { BridgeError, TapError, LinkError, TrafficError }

/// Finds out about a bridge of this host.
///
/// # Errors
/// There is no such interface, or it is no bridge.
pub(super) async fn target(bridge: &InterfaceName) -> Result<TargetBridge, LinkError> {
    let link = Netlink::open()?.bridge(bridge).await?;
    let port = PortSettings::default();
    Ok(TargetBridge { bridge: bridge.clone(), mtu: link.mtu, port, firewall: Vec::new() })
}

/// Makes the ports of this host's bridges.
#[derive(Debug)]
pub(super) struct HostPorts {
    environment: Environment,
    /// The filters of ports, if the guest has one.
    bindings: Option<Bindings>,
    /// Publishes ports, if a guest has some.
    publisher: Option<Publisher>,
}

impl HostPorts {
    /// Returns the ports for these NICs.
    ///
    /// # Errors
    /// nwfilter.conf or network.conf cannot be used.
    pub(super) fn new(
        nics: &[NicRequest],
        environment: &Environment,
    ) -> Result<Arc<Self>, Failure> {
        let is_filtered = nics.iter().any(|nic| nic.filter.is_some());
        let publishes = |nic: &NicRequest| nic.attachment.is_some() && nic.publishes();
        let bindings = is_filtered.then(|| bindings(environment)).transpose()?;
        let publisher = nics.iter().any(publishes).then(|| Publisher::new(environment));
        let publisher = publisher.transpose()?;
        Ok(Arc::new(HostPorts { environment: environment.clone(), bindings, publisher }))
    }

    /// Removes the parts of ports that were dropped: the rules of their filters and of their
    /// published ports, and the devices that delayed their frames.
    pub(super) async fn collect(&self) {
        if let Some(bindings) = &self.bindings
            && let Err(error) = bindings.collect().await
        {
            tracing::warn!("{}", error_text(&error));
        }
        if let Some(publisher) = &self.publisher
            && let Err(error) = publisher.collect().await
        {
            tracing::warn!("{}", error_text(&error));
        }
        remove_stale_ifbs().await;
    }

    /// Returns the filters of ports; `None` if the guest has no filter.
    pub(super) fn bindings(&self) -> Option<&Bindings> {
        self.bindings.as_ref()
    }
}

/// Removes the devices that delayed the frames of taps which are gone.
async fn remove_stale_ifbs() {
    if let Ok(netlink) = Netlink::open() {
        netlink.remove_stale_ifbs().await;
    }
}

/// The filters of this host's ports, as nwfilter.conf sets them now.
fn bindings(environment: &Environment) -> Result<Bindings, Failure> {
    let config_dir = environment.config_dir()?.ok_or(NwfilterError::NoDirectory)?;
    Ok(nwfilter::bindings(&config_dir, environment)?)
}

impl GuestPorts for HostPorts {
    fn make(
        &self,
        request: PortRequest,
    ) -> BoxFuture<'_, Result<Box<dyn GuestPort>, GuestPortError>> {
        Box::pin(async move {
            let tap = match attach(&request, &self.environment.path()).await {
                Ok(tap) => tap,
                Err(error) => {
                    // The tap is gone, and the device that delays its frames may be left.
                    remove_stale_ifbs().await;
                    return Err(error.into());
                }
            };
            let (bindings, publisher) = (self.bindings.clone(), self.publisher.clone());
            let environment = self.environment.clone();
            let learned = watch::Sender::new(None);
            let port =
                TapPort { tap, request, bindings, bound: false, publisher, environment, learned };
            Ok(Box::new(port) as Box<dyn GuestPort>)
        })
    }

    fn rebuild_rules(&self) -> BoxFuture<'static, Result<Vec<String>, GuestPortError>> {
        let environment = self.environment.clone();
        Box::pin(async move {
            let bindings = bindings(&environment).map_err(GuestPortError::new)?;
            bindings.reload().await.map_err(GuestPortError::new)
        })
    }

    fn cleanup(&self) -> Option<Vec<OsString>> {
        self.publisher.as_ref().map(Publisher::cleanup)
    }
}

/// A port of a bridge with a guest's tap in it. Dropping it closes this process's copy of the tap.
#[derive(Debug)]
struct TapPort {
    tap: Tap,
    request: PortRequest,
    environment: Environment,
    bindings: Option<Bindings>,
    /// Whether there may be rules of the port's filter.
    bound: bool,
    publisher: Option<Publisher>,
    /// The address that the filter has learned, for the published ports.
    learned: watch::Sender<Option<Ipv4Addr>>,
}

impl TapPort {
    /// The filter of the guest on this port. netlaunch does not know the guest's UUID, so it makes
    /// one.
    fn binding(&self) -> Option<Binding> {
        let filter = self.request.filter.as_ref()?;
        let name = self.request.launch.parse().ok();
        Some(Binding {
            owner: name.map(|name| Owner { name, uuid: Some(Uuid::random(&mut rand::rng())) }),
            port: self.tap.name().clone(),
            mac: self.request.mac,
            filter: filter.name.clone(),
            parameters: filter.parameters.clone(),
        })
    }

    /// Turns the tap off: no frame passes any more. Done already if the tap is gone.
    async fn down(&self) -> Result<(), BridgeError> {
        let undo = Undo::Up { name: self.tap.name().clone(), index: self.tap.index() };
        Ok(Netlink::open()?.undo(&undo).await?)
    }

    /// Removes the tap, even if another process has it open, and the device that delays its frames.
    async fn remove_tap(&self) -> Result<(), BridgeError> {
        let netlink = Netlink::open()?;
        let undo = Undo::Link { name: self.tap.name().clone(), index: self.tap.index() };
        netlink.undo(&undo).await?;
        if self.request.port.bandwidth.outbound.is_some() {
            netlink.remove_stale_ifbs().await;
        }
        Ok(())
    }
}

impl GuestPort for TapPort {
    fn name(&self) -> &InterfaceName {
        self.tap.name()
    }

    fn set_rules(&mut self) -> BoxFuture<'_, Result<RulesSet, GuestPortError>> {
        Box::pin(async move {
            let (Some(binding), Some(bindings)) = (self.binding(), self.bindings.clone()) else {
                return Ok(RulesSet { notes: Vec::new(), learner: None });
            };
            self.bound = true;
            let created = bindings.create(&binding).await.map_err(GuestPortError::new)?;
            let learned = self.learned.clone();
            let learner = created.learning.map(|learning| {
                Box::new(PortLearner { learning, learned }) as Box<dyn AddressLearner>
            });
            Ok(RulesSet { notes: created.notes, learner })
        })
    }

    fn up(&self) -> BoxFuture<'_, Result<(), GuestPortError>> {
        Box::pin(async {
            Netlink::open()?.up(self.tap.name()).await?;
            Ok(())
        })
    }

    fn publish<'a>(
        &'a mut self,
        held: &'a [OwnedFd],
    ) -> BoxFuture<'a, Result<Box<dyn AddressFollower>, GuestPortError>> {
        Box::pin(async {
            let (Some(publisher), Some(network)) = (&self.publisher, &self.request.network) else {
                return Err(BridgeError::NoNetwork(self.request.bridge.clone()).into());
            };
            let guest = FollowedGuest {
                network: network.clone(),
                request: &self.request,
                tap: &self.tap,
                learned: self.learned.subscribe(),
            };
            let follower = publisher.publish(guest, held).await?;
            Ok(Box::new(follower) as Box<dyn AddressFollower>)
        })
    }

    fn watch(&self) -> Option<Box<dyn PortWatch>> {
        let limits = &self.request.port.bandwidth;
        port_watch::watch(self.tap.index(), &self.request.bridge, limits, &self.environment)
    }

    fn descriptors(&self) -> Result<PortDescriptors, GuestPortError> {
        let error = |source| BridgeError::Descriptor { tap: self.tap.name().clone(), source };
        let copied = self.tap.queues().map(|queue| queue.try_clone_to_owned());
        let queues = copied.collect::<io::Result<Vec<_>>>().map_err(error)?;
        let vhosts = (0..self.request.vhosts).map(|_| tap::open_vhost(Path::new(VHOST_NET)));
        let vhosts = vhosts.collect::<Result<Vec<_>, _>>()?;
        Ok(PortDescriptors { queues, vhosts })
    }

    fn rules_dir(&self) -> Option<&Path> {
        let bindings = self.bindings.as_ref().filter(|_| self.bound).map(Bindings::state_dir);
        let publisher = self.publisher.as_ref().filter(|_| !self.request.publish.is_empty());
        bindings.or(publisher.map(Publisher::state_dir))
    }

    /// A port that cannot be turned off keeps its rules until its tap is gone.
    fn remove(self: Box<Self>) -> BoxFuture<'static, Vec<String>> {
        Box::pin(async move {
            let bindings = self.bindings.as_ref().filter(|_| self.bound);
            let mut left = Vec::new();
            match (self.down().await, bindings) {
                (Err(error), _) => left.push(error_text(&error)),
                (Ok(()), Some(bindings)) => {
                    if let Err(error) = bindings.delete(self.tap.name()).await {
                        let error = error_text(&error);
                        tracing::debug!("the rules are removed after the port: {error}");
                    }
                }
                (Ok(()), None) => {}
            }
            if let (Some(publisher), Some(network)) = (&self.publisher, &self.request.network)
                && !self.request.publish.is_empty()
                && let Err(error) = publisher.unpublish(network, &self.tap).await
            {
                left.push(error_text(&error));
            }
            left.extend(self.remove_tap().await.err().map(|error| error_text(&error)));
            let bindings = bindings.cloned();
            drop(self);
            // Removes the saved lease of the port, and the rules that could not be removed before.
            if let Some(bindings) = bindings {
                left.extend(bindings.collect().await.err().map(|error| error_text(&error)));
            }
            left
        })
    }
}
