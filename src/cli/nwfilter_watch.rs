//! `netlaunch nwfilter watch`: gives ports that come their filters, by the rules in nwfilter.conf.
//!
//! Events about interfaces come too late to filter the first frame of a port. So the command first
//! sets the guard ([`Bindings::set_guard`]): the ports that a rule names are closed until they have
//! a filter. Then it binds each port of a rule that is on a bridge and whose guest's MAC address is
//! known, at each change of an interface.
//!
//! The address is that of the rule, if the rule has a whole one; else that which the launch of the
//! tap has recorded; else that of the other end of a veth; else the source of the first frame that
//! the guest sends ([`super::nwfilter_watch_mac`]). The first rule with this port, bridge and
//! address counts. A port stays closed if no rule has its address, if another bound port of the
//! bridge has the address, or if its filter cannot be bound.
//!
//! A macvtap or macvlan is on no bridge, and the guard does not see its frames. So the command
//! binds it as soon as the kernel reports it, for the address that the interface has, and turns it
//! off while it has no filter: a macvtap that comes while the command runs before the bind, and any
//! other one after a failed bind.
//!
//! A launch of netlaunch binds the filter of its tap before it turns the tap on. So a tap of a
//! launch counts once it is on and has no filter.
//!
//! The process blocks no signal, since a learner process would inherit the mask. Its end at any
//! point leaves the guard, and the next command completes an interrupted change.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::environment::Environment;
use super::failure::Failure;
use super::learn::{self, Change};
use super::nwfilter_bind::owner;
use super::nwfilter_config::{self, WatchRule};
use super::nwfilter_error::NwfilterError;
use super::nwfilter_watch_mac::first_source;
use super::{ready, runtime};
use crate::firewall::port_guard::GuardRule;
use crate::nwfilter::Binding;
use crate::nwfilter::port::{BindingError, Bindings, PortStatus, Site, site_of};
use crate::sys::netlink::{GuestTap, Link, LinkError, LinkEvents, Netlink};
use crate::types::{InterfaceName, Mac, error_text};

/// The pause before a port whose filter could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Watches until a signal ends the process.
pub(super) fn watch(
    config_dir: &Path,
    bindings: &Bindings,
    environment: &Environment,
) -> Result<(), Failure> {
    let path = config_dir.join(nwfilter_config::FILE_NAME);
    let rules = nwfilter_config::read(&path)?.watch;
    if rules.is_empty() {
        return Err(NwfilterError::NoWatchRules { path }.into());
    }
    runtime()?.block_on(async {
        // The events count from before the first look.
        let events = LinkEvents::open()?;
        let guard: Vec<GuardRule> = rules.iter().map(WatchRule::guard).collect();
        let set = bindings.set_guard(&guard).await;
        learn::restart_missing(bindings, environment);
        set?;
        for WatchRule { port, filter, .. } in &rules {
            tracing::info!("ports {port} are closed until they have the filter {filter}");
        }
        let mut watcher = Watcher::new(bindings, environment, &rules);
        watcher.look().await?;
        if let Err(error) = ready::notify(environment.notify_socket()) {
            tracing::warn!("cannot tell the service manager that the ports are watched: {error}");
        }
        Ok(watcher.follow(events).await?)
    })
}

/// Removes the guard.
pub(super) fn stop_watch(bindings: &Bindings, environment: &Environment) -> Result<(), Failure> {
    let removed = runtime()?.block_on(bindings.remove_guard());
    learn::restart_missing(bindings, environment);
    if removed? {
        tracing::info!("ports without a filter are open");
    } else {
        tracing::info!("no guard closes ports");
    }
    Ok(())
}

impl WatchRule {
    /// Returns the rule of the guard, which the guest's address does not narrow: a guest can forge
    /// the address.
    fn guard(&self) -> GuardRule {
        GuardRule { port: self.port.clone(), bridge: self.bridge.clone() }
    }

    /// Returns whether the rule is about a port of this bridge, or of none.
    fn is_about(&self, port: &str, bridge: Option<&str>) -> bool {
        let is_own = |own: &InterfaceName| bridge == Some(own.as_str());
        self.port.matches(port) && self.bridge.as_ref().is_none_or(is_own)
    }
}

/// A port that a rule is about, without a filter.
struct Candidate {
    port: InterfaceName,
    place: Place,
    /// The guest's address; `None` if only its first frame shows it.
    mac: Option<Mac>,
    /// Whether it is the tap of a launch, which has no filter of its own.
    of_launch: bool,
    /// Whether it is a macvtap that is on.
    is_open_macvtap: bool,
}

/// The interface that a port shares with other ports.
#[derive(PartialEq, Eq)]
enum Place {
    Bridge(InterfaceName),
    /// The interface below a macvtap or macvlan; `None` if it is in another network namespace.
    Above(Option<InterfaceName>),
}

impl Place {
    fn of_status(status: &PortStatus) -> Self {
        match &status.bridge {
            Some(bridge) => Place::Bridge(bridge.clone()),
            None => Place::Above(status.lower.clone()),
        }
    }

    fn bridge(&self) -> Option<&str> {
        match self {
            Place::Bridge(bridge) => Some(bridge.as_str()),
            Place::Above(_) => None,
        }
    }
}

/// The source address of the first frame of the port with this index.
type FirstFrame = (u32, io::Result<Option<Mac>>);

struct Watcher<'a> {
    bindings: &'a Bindings,
    environment: &'a Environment,
    rules: &'a [WatchRule],
    /// The indexes of ports with a filter, at the last look.
    bound: BTreeSet<u32>,
    /// The addresses from first frames, by the index of the port.
    learned: BTreeMap<u32, Mac>,
    /// The ports whose first frame is awaited.
    awaited: BTreeSet<u32>,
    frames: JoinSet<FirstFrame>,
    /// The ports that stay closed, with the reason that was reported last.
    refused: BTreeMap<u32, String>,
    /// The macvtaps and macvlans that this process has turned off until they have a filter.
    turned_off: BTreeSet<u32>,
    /// Whether a look is over: a macvtap that was there before has passed frames already.
    has_looked: bool,
    /// The time of the next look although nothing changes.
    retry: Option<Instant>,
}

impl<'a> Watcher<'a> {
    fn new(bindings: &'a Bindings, environment: &'a Environment, rules: &'a [WatchRule]) -> Self {
        Watcher {
            bindings,
            environment,
            rules,
            bound: BTreeSet::new(),
            learned: BTreeMap::new(),
            awaited: BTreeSet::new(),
            frames: JoinSet::new(),
            refused: BTreeMap::new(),
            turned_off: BTreeSet::new(),
            has_looked: false,
            retry: None,
        }
    }

    /// Looks again after each change, until the kernel reports no more changes.
    async fn follow(&mut self, mut events: LinkEvents) -> Result<(), NwfilterError> {
        loop {
            let retry = self.retry;
            let wait = async {
                match retry {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                more = events.changed() => if !more {
                    return Err(NwfilterError::NoEvents);
                },
                Some(frame) = self.frames.join_next() => self.took(frame),
                () = wait => {}
            }
            // A failed look is repeated: another command may have held the lock for too long.
            if let Err(error) = self.look().await {
                tracing::error!("{error}");
                self.retry = Some(Instant::now() + RETRY);
            }
        }
    }

    fn took(&mut self, frame: Result<FirstFrame, tokio::task::JoinError>) {
        let Ok((index, source)) = frame else { return };
        self.awaited.remove(&index);
        match source {
            Ok(Some(mac)) => drop(self.learned.insert(index, mac)),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!("the port {index} shows no frame: {error}");
                self.retry = Some(Instant::now() + RETRY);
            }
        }
    }

    /// Binds each port that can be bound, and collects the filters of ports that are gone.
    async fn look(&mut self) -> Result<(), NwfilterError> {
        self.retry = None;
        let links = Netlink::open()?.links().await?;
        let exists = |index: &u32| links.iter().any(|link| link.index == *index);
        if !self.bound.iter().all(exists) {
            self.bindings.collect().await?;
        }
        let statuses = self.bindings.list()?;
        self.bound = statuses.iter().map(|status| status.index).collect();
        self.learned.retain(|index, _| exists(index));
        self.refused.retain(|index, _| exists(index));
        self.turned_off.retain(exists);
        for link in &links {
            if self.bound.contains(&link.index) {
                self.refused.remove(&link.index);
                continue;
            }
            let Some(candidate) = self.candidate(link, &links) else { continue };
            match candidate.mac {
                Some(mac) => self.bind(link.index, &candidate, mac).await,
                None if self.awaited.insert(link.index) => {
                    let index = link.index;
                    self.frames.spawn(async move { (index, first_source(index).await) });
                }
                None => {}
            }
        }
        self.has_looked = true;
        Ok(())
    }

    /// Returns the interface as a port that a rule is about.
    fn candidate(&self, link: &Link, links: &[Link]) -> Option<Candidate> {
        let site = site_of(link, links).ok()?;
        let place = match site {
            Site::Bridge(bridge) => Place::Bridge(bridge.name.parse().ok()?),
            Site::Interface(lower) => Place::Above(lower.and_then(|lower| lower.name.parse().ok())),
        };
        let mut rules = self.rules.iter().filter(|rule| rule.is_about(&link.name, place.bridge()));
        let first = rules.next()?;
        let launch = GuestTap::of(link);
        // The launch binds its own filter before it turns the tap on.
        if launch.is_some() && !link.up {
            return None;
        }
        let peer = links
            .iter()
            .find(|other| Some(other.index) == link.peer && link.kind.as_deref() == Some("veth"));
        let of_rule = first.mac.as_ref().and_then(crate::types::MacPrefix::whole);
        let of_launch = launch.is_some();
        let of_interface = match place {
            Place::Bridge(_) => None,
            // The kernel gives the interface the frames for this address.
            Place::Above(_) => Mac::new(link.mac?).ok(),
        };
        let mac = of_rule
            .or(of_interface)
            .or_else(|| launch.and_then(|tap| tap.home.mac))
            .or_else(|| Mac::new(peer?.mac?).ok())
            .or_else(|| self.learned.get(&link.index).copied());
        let is_macvtap = place.bridge().is_none() && link.kind.as_deref() == Some("macvtap");
        let port = link.name.parse().ok()?;
        Some(Candidate { port, place, mac, of_launch, is_open_macvtap: is_macvtap && link.up })
    }

    /// Binds the filter of the first rule with this port, bridge and address. Reports a port that
    /// stays closed, once for each reason.
    async fn bind(&mut self, index: u32, candidate: &Candidate, mac: Mac) {
        if candidate.is_open_macvtap && self.has_looked {
            self.turn_off(index, candidate).await;
        }
        let Err(why) = self.try_bind(candidate, mac).await else {
            self.bound.insert(index);
            self.refused.remove(&index);
            if self.turned_off.remove(&index)
                && let Err(error) = turn(&candidate.port, true).await
            {
                tracing::warn!("{}", error_text(&error));
            }
            return;
        };
        // The guest may send from another address, which counts then.
        self.learned.remove(&index);
        self.retry = Some(Instant::now() + RETRY);
        if candidate.place.bridge().is_none() {
            self.turn_off(index, candidate).await;
        }
        if self.refused.get(&index) != Some(&why) {
            tracing::error!("the port {} stays closed: {why}", candidate.port);
            self.refused.insert(index, why);
        }
    }

    /// Turns a port without a bridge off, which no guard closes.
    async fn turn_off(&mut self, index: u32, Candidate { port, .. }: &Candidate) {
        match turn(port, false).await {
            Ok(true) => drop(self.turned_off.insert(index)),
            Ok(false) => {}
            Err(error) => tracing::error!("the port {port} is open: {}", error_text(&error)),
        }
    }

    async fn try_bind(&self, candidate: &Candidate, mac: Mac) -> Result<(), String> {
        let Candidate { port, place, .. } = candidate;
        let is_meant = |rule: &&WatchRule| {
            rule.is_about(port.as_str(), place.bridge())
                && rule.mac.as_ref().is_none_or(|prefix| prefix.matches(mac))
        };
        let Some(rule) = self.rules.iter().find(is_meant) else {
            return Err(format!("no rule has the guest's MAC address {mac}"));
        };
        if let Some(holder) = self.holder(mac, place) {
            return Err(format!(
                "the guest's MAC address {mac} is that of the port {holder} {}",
                match place {
                    Place::Bridge(_) => "of the same bridge",
                    Place::Above(_) => "above the same interface",
                }
            ));
        }
        let binding = Binding {
            owner: owner(port),
            port: port.clone(),
            linkdev: None,
            mac,
            filter: rule.filter.clone(),
            parameters: rule.parameters.clone(),
        };
        let bound =
            learn::bind(self.bindings, &binding, Change::Create, false, self.environment).await;
        match bound {
            Ok(_) => {
                let filter = &rule.filter;
                let of =
                    if candidate.of_launch { ", the tap of a launch without one," } else { "" };
                tracing::info!("the port {port}{of} has the filter {filter}, for the guest {mac}");
                Ok(())
            }
            // Another command was first, or the port is gone: the next look shows the result.
            Err(NwfilterError::Binding(
                BindingError::Bound(_)
                | BindingError::NoPort(_)
                | BindingError::NotOnBridge { .. }
                | BindingError::AnotherName { .. },
            )) => Ok(()),
            Err(error) => Err(error_text(&error)),
        }
    }

    /// Returns the bound port at this place whose guest has this address.
    fn holder(&self, mac: Mac, place: &Place) -> Option<InterfaceName> {
        let statuses = self.bindings.list().unwrap_or_default();
        let holds = |status: &&PortStatus| {
            Place::of_status(status) == *place
                && self.bindings.binding(status).is_ok_and(|binding| binding.mac == mac)
        };
        statuses.iter().find(holds).map(|status| status.port.clone())
    }
}

/// Turns a port on or off. Returns whether the port was not so before.
async fn turn(port: &InterfaceName, on: bool) -> Result<bool, LinkError> {
    let netlink = Netlink::open()?;
    if netlink.link(port).await?.up == on {
        return Ok(false);
    }
    if on {
        netlink.up(port).await.map(drop)?
    } else {
        netlink.down(port).await?
    }
    Ok(true)
}
