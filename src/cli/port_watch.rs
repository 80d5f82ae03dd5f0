//! Watches the place of a running guest's tap: whether it is on its bridge.
//!
//! A bridge can be removed under its guests (`network destroy --force`, netplan, NetworkManager),
//! and a tap can be taken off it. The user gets a warning in both cases. If the bridge was removed
//! and one with its name exists again, the tap is put back in the way of a reload: only with the
//! rules of its filter in the kernel. A tap that was taken off a bridge which still exists stays as
//! it is, because an administrator may have done that; a reload puts it back.
//!
//! Another program can also remove the limits of the tap's traffic (`tc qdisc del`). The watch sets
//! them again, with a warning.

use super::environment::Environment;
use super::{network, nwfilter, rejoin};
use crate::launcher::guest_port::{BoxFuture, GuestPortError, PortWatch, WatchEvent, WatchStep};
use crate::sys::netlink::link_events::{ChangedLink, LinkEvents};
use crate::sys::netlink::{GuestTap, Link, LinkError, Netlink, ifb_name};
use crate::sys::traffic;
use crate::types::{Bandwidth, InterfaceName, error_text};

/// The watch of one tap.
#[derive(Debug)]
pub(super) struct TapWatch {
    events: LinkEvents,
    environment: Environment,
    tap: u32,
    bridge: InterfaceName,
    place: PortPlace,
    limits: Bandwidth,
    /// Whether limits are gone that could not be set again.
    unlimited: bool,
}

/// The place of the tap at the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortPlace {
    /// It is on its bridge.
    OnBridge,
    /// Its bridge was removed.
    BridgeGone,
    /// It is not on its bridge, which exists.
    Elsewhere,
}

impl TapWatch {
    /// Watches a tap that is on its bridge. Call it in a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// The kernel does not report changes of interfaces.
    pub(super) fn new(
        tap: u32,
        bridge: &InterfaceName,
        limits: &Bandwidth,
        environment: &Environment,
    ) -> Result<Self, LinkError> {
        let events = if limits.is_unlimited() {
            LinkEvents::open()?
        } else {
            LinkEvents::open_with_queues()?
        };
        let (environment, bridge, limits) = (environment.clone(), bridge.clone(), *limits);
        let place = PortPlace::OnBridge;
        Ok(TapWatch { events, environment, tap, bridge, place, limits, unlimited: false })
    }

    /// Sets the limits of the tap's traffic again if parts of them are gone.
    async fn restore_limits(&mut self) -> Result<Option<WatchEvent>, LinkError> {
        if self.limits.is_unlimited() {
            return Ok(None);
        }
        let netlink = Netlink::open()?;
        let Some(tap) = netlink.link_by_index(self.tap).await? else { return Ok(None) };
        if traffic::has_limits(&netlink, self.tap, &self.limits).await? {
            self.unlimited = false;
            return Ok(None);
        }
        let Ok(name) = tap.name.parse() else { return Ok(None) };
        let path = self.environment.path();
        let set = traffic::limit_again(&netlink, &path, &name, self.tap, &self.limits).await;
        let before = std::mem::replace(&mut self.unlimited, set.is_err());
        Ok(match set {
            Ok(()) => Some(WatchEvent::Back(format!(
                "another program removed limits of the traffic of {name}; they are set again"
            ))),
            Err(_) if before => None,
            Err(error) => Some(WatchEvent::Lost(format!(
                "another program removed limits of the traffic of {name}: {}",
                error_text(&error)
            ))),
        })
    }

    /// Compares the place of the tap with that of the last look. Returns an event if it changed,
    /// and whether the tap exists.
    async fn look(&mut self) -> Result<(Option<WatchEvent>, bool), LinkError> {
        let links = Netlink::open()?.links().await?;
        let Some(tap) = links.iter().find(|link| link.index == self.tap) else {
            return Ok((None, false));
        };
        let now = place(tap, &links, &self.bridge);
        let before = std::mem::replace(&mut self.place, now);
        if before == PortPlace::BridgeGone && now == PortPlace::Elsewhere && tap.master.is_none() {
            // Until it is put back, the tap still waits for its bridge.
            self.place = PortPlace::BridgeGone;
            return Ok((self.put_back(tap).await, true));
        }
        let (name, bridge) = (&tap.name, &self.bridge);
        let event = match (before, now) {
            (before, now) if before == now => None,
            (_, PortPlace::OnBridge) => {
                Some(WatchEvent::Back(format!("the tap {name} is on the bridge {bridge} again")))
            }
            (PortPlace::OnBridge, PortPlace::BridgeGone) => Some(WatchEvent::Lost(format!(
                "the bridge {bridge} is gone, so the guest has no network; the tap {name} is put back when the bridge exists again"
            ))),
            (PortPlace::OnBridge, _) => Some(WatchEvent::Lost(format!(
                "the tap {name} was taken off the bridge {bridge}, so the guest is not on its network; netlaunch firewall reload puts it back"
            ))),
            _ => None,
        };
        Ok((event, true))
    }

    /// Puts the tap on the bridge that exists again, if its network runs and the rules of its
    /// filter are set.
    async fn put_back(&mut self, tap: &Link) -> Option<WatchEvent> {
        let done = async {
            let config_dir = self.environment.config_dir().ok().flatten()?;
            let manager = network::manager(&config_dir, &self.environment).ok()?;
            let bindings = nwfilter::bindings(&config_dir, &self.environment).ok()?;
            let tap = GuestTap::of(tap)?;
            // A network that starts has its bridge before it is active. The start puts the tap
            // back.
            if !rejoin::has_network(&manager, &tap) {
                return None;
            }
            Some(rejoin::attach(&manager, &bindings, vec![tap]).await)
        };
        let note = done.await?.pop()?;
        self.place = PortPlace::OnBridge;
        Some(WatchEvent::Back(note))
    }
}

/// Returns the number of an interface; `None` if it is gone.
async fn ifb_index(name: &InterfaceName) -> Option<u32> {
    Some(Netlink::open().ok()?.link(name).await.ok()?.index)
}

/// Returns the place of a tap that belongs to this bridge.
fn place(tap: &Link, links: &[Link], bridge: &InterfaceName) -> PortPlace {
    let found = links.iter().find(|link| link.bridge && link.name == bridge.as_str());
    match found {
        Some(found) if tap.master == Some(found.index) => PortPlace::OnBridge,
        Some(_) => PortPlace::Elsewhere,
        None => PortPlace::BridgeGone,
    }
}

impl PortWatch for TapWatch {
    fn next(mut self: Box<Self>) -> BoxFuture<'static, WatchStep> {
        Box::pin(async move {
            loop {
                match self.look().await {
                    Ok((_, false)) => return (WatchEvent::Ended(None), None),
                    Ok((Some(event), true)) => return (event, Some(self as Box<dyn PortWatch>)),
                    Ok((None, true)) => {}
                    Err(error) => {
                        return (WatchEvent::Ended(Some(GuestPortError::new(error))), None);
                    }
                }
                match self.restore_limits().await {
                    Ok(Some(event)) => return (event, Some(self as Box<dyn PortWatch>)),
                    Ok(None) => {}
                    Err(error) => {
                        let error = error_text(&error);
                        tracing::debug!("the limits of the traffic are not checked: {error}");
                    }
                }
                // Without this choice, each of many launches would list all interfaces whenever
                // another guest starts or ends.
                let (tap, bridge) = (self.tap, self.bridge.clone());
                // The frames from the guest pass a device whose name has the tap's number.
                let ifb = ifb_name(tap).filter(|_| self.limits.outbound.is_some());
                let ifb = match ifb {
                    Some(name) => Some((ifb_index(&name).await, name)),
                    None => None,
                };
                let is_meant = |link: &ChangedLink| {
                    let is = |name: &InterfaceName| link.name.as_deref() == Some(name.as_str());
                    let is_ifb =
                        ifb.as_ref().is_some_and(|(at, name)| *at == Some(link.index) || is(name));
                    link.index == tap || is(&bridge) || is_ifb
                };
                if !self.events.changed_among(is_meant).await {
                    return (WatchEvent::Ended(None), None);
                }
            }
        })
    }
}

/// Starts the watch of a tap. Without it the guest runs nevertheless.
pub(super) fn watch(
    tap: u32,
    bridge: &InterfaceName,
    limits: &Bandwidth,
    environment: &Environment,
) -> Option<Box<dyn PortWatch>> {
    match TapWatch::new(tap, bridge, limits, environment) {
        Ok(watch) => Some(Box::new(watch)),
        Err(error) => {
            tracing::debug!("the place of the tap is not watched: {}", error_text(&error));
            None
        }
    }
}
