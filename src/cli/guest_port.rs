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
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Failure;
use super::environment::Environment;
use super::nwfilter;
use super::nwfilter_error::NwfilterError;
use super::port_learner::PortLearner;
use super::port_watch;
use super::published::Publisher;
use crate::launcher::guest_port::{
    AddressFollower, AddressLearner, BoxFuture, GuestPort, GuestPortError, GuestPorts,
    PortDescriptors, PortRequest, PortWatch, RulesSet,
};
use crate::launcher::plan::NicRequest;
use crate::nwfilter::port::Bindings;
use crate::nwfilter::{Binding, Owner};
use crate::sys::netlink::sysctl::{Key, SysctlError, Sysctls};
use crate::sys::netlink::{LinkError, Netlink, TapHome, Undo};
use crate::sys::tap::{self, TUN, Tap, TapError, TapName, VHOST_NET};
use crate::sys::traffic::{self, TrafficError};
use crate::types::{InterfaceName, Uuid, error_text};

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
        HostPorts::with(is_filtered, nics.iter().any(publishes), environment).map(Arc::new)
    }

    /// Returns the ports for NICs that have filters or published ports, or neither.
    ///
    /// # Errors
    /// nwfilter.conf or network.conf cannot be used.
    pub(super) fn with(
        is_filtered: bool,
        publishes: bool,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let bindings = is_filtered.then(|| bindings(environment)).transpose()?;
        let publisher = publishes.then(|| Publisher::new(environment)).transpose()?;
        Ok(HostPorts { environment: environment.clone(), bindings, publisher })
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
            let port = TapPort { tap, request, bindings, bound: false, publisher, environment };
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

/// Makes a tap for the guest, attaches it to the bridge, and records where it belongs; the tap is
/// down. On a network of netlaunch no guest takes part in the spanning tree. Ports of other bridges
/// have what their administrator sets. `path` is the list of directories for the program tc.
async fn attach(request: &PortRequest, path: &[PathBuf]) -> Result<Tap, BridgeError> {
    let netlink = Netlink::open()?;
    // A launch that was killed may have left a device.
    netlink.remove_stale_ifbs().await;
    let bridge = &request.bridge;
    let mtu = netlink.bridge(bridge).await?.mtu;
    let tap = open_tap(request)?;
    let name = tap.name();
    netlink.set_mac(name, request.mac.host_side()).await?;
    if mtu != 0 {
        netlink.set_mtu(name, mtu).await?;
    }
    // The host's end of the link is the bridge; a port must not have an address of its own.
    let sysctls = Sysctls::new(Path::new("/proc/sys"));
    let ipv6 = Key::Ipv6Disabled(name.clone());
    if sysctls.get(&ipv6)?.is_some() {
        sysctls.set(&ipv6, "1")?;
    }
    traffic::limit(&netlink, path, name, tap.index(), &request.port.bandwidth).await?;
    let home = TapHome {
        launch: Some(request.launch.clone()),
        bridge: bridge.clone(),
        network: request.network.as_ref().map(ToString::to_string),
        mac: Some(request.mac),
        once: false,
        vlan: request.port.vlan.clone(),
        isolated: request.port.isolated,
        hairpin: !request.publish.is_empty(),
    };
    netlink.attach(name, bridge).await?;
    if request.network.is_some() {
        netlink.guard_spanning_tree(name).await?;
    }
    netlink.keep_apart(name, &home).await?;
    if !request.publish.is_empty() {
        // The guest must not get its own broadcasts back: it would take its address for a
        // duplicate (RFC 4862, 5.4).
        tap.ignore_own_multicasts(request.mac)?;
        netlink.allow_hairpin(name).await?;
    }
    // Last: a reload at the same time must not attach a tap that is not ready.
    netlink.set_home(name, &home).await?;
    Ok(tap)
}

/// Makes the tap with the name that the launch wants. If another interface has that name, the
/// kernel numbers the tap.
fn open_tap(request: &PortRequest) -> Result<Tap, TapError> {
    let open = |name: &TapName| Tap::open_queues(Path::new(TUN), name, request.queues);
    let Some(name) = &request.tap else { return open(&TapName::Numbered) };
    match open(&TapName::Exact(name.clone())) {
        Err(TapError::InUse(name)) => {
            tracing::warn!("an interface has the name {name}, so the guest's tap gets another one");
            open(&TapName::Numbered)
        }
        other => other,
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
            let learner = created
                .learning
                .map(|learning| Box::new(PortLearner(learning)) as Box<dyn AddressLearner>);
            Ok(RulesSet { notes: created.notes, learner })
        })
    }

    fn up(&self) -> BoxFuture<'_, Result<(), GuestPortError>> {
        Box::pin(async {
            Netlink::open()?.up(self.tap.name()).await?;
            Ok(())
        })
    }

    fn publish(&mut self) -> BoxFuture<'_, Result<Box<dyn AddressFollower>, GuestPortError>> {
        Box::pin(async {
            let (Some(publisher), Some(network)) = (&self.publisher, &self.request.network) else {
                return Err(BridgeError::NoNetwork(self.request.bridge.clone()).into());
            };
            let follower = publisher.publish(network, &self.request, &self.tap).await;
            Ok(Box::new(follower.map_err(GuestPortError::new)?) as Box<dyn AddressFollower>)
        })
    }

    fn watch(&self) -> Option<Box<dyn PortWatch>> {
        port_watch::watch(self.tap.index(), &self.request.bridge, &self.environment)
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

    fn turn_off(self: Box<Self>) -> BoxFuture<'static, Vec<String>> {
        Box::pin(async move {
            let turned =
                async { Netlink::open()?.turn_off(self.tap.name(), self.tap.index()).await };
            let error: Option<LinkError> = turned.await.err();
            error.map(|error| error_text(&error)).into_iter().collect()
        })
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
