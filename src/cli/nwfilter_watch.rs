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
use super::learn::{self, BindingChange};
use super::nwfilter_config::{self, WatchRule};
use super::nwfilter_error::NwfilterError;
use super::nwfilter_watch_mac::{first_source, raise_file_limit};
use super::nwfilter_watch_place::{Candidate, WatchedPlace};
use super::nwfilter_watch_removals::{removals, removed};
use super::nwfilter_watch_rules::{
    refuse_rules_for_the_host, report_bad_rules, warn_of_other_bindings,
};
use super::nwfilter_watch_taken::address_user;
use super::{ready, runtime};
use crate::firewall::port_guard::GuardRule;
use crate::nwfilter::port::{BindingError, Bindings, PortStatus};
use crate::sys::file_events::FileEvents;
use crate::sys::netlink::{Link, LinkError, LinkEvents, Netlink};
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
    let settings = nwfilter_config::read(&path)?;
    let (rules, backend) = (settings.watch, settings.firewall_backend);
    if rules.is_empty() {
        return Err(NwfilterError::NoWatchRules { path }.into());
    }
    let most_awaited = raise_file_limit();
    runtime()?.block_on(async {
        refuse_rules_for_the_host(&rules, &path, backend).await?;
        report_bad_rules(&rules, &path, bindings);
        let _held = bindings.hold_guard()?;
        // The events count from before the first look.
        let events = LinkEvents::open()?;
        let guard: Vec<GuardRule> = rules.iter().map(WatchRule::guard).collect();
        let set = bindings.set_guard(&guard).await;
        learn::restart_missing(bindings, environment);
        set?;
        for WatchRule { port, filter, .. } in &rules {
            tracing::info!("ports {port} are closed until they have the filter {filter}");
        }
        let removals = removals(bindings);
        let mut watcher = Watcher::new(bindings, environment, &rules, most_awaited);
        watcher.look().await?;
        warn_of_other_bindings(&rules, &path, bindings, &watcher.links);
        if let Err(error) = ready::notify(environment.notify_socket()) {
            tracing::warn!("cannot tell the service manager that the ports are watched: {error}");
        }
        Ok(watcher.follow(events, removals.as_ref()).await?)
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

/// The source address of the first frame of the port with this index.
type FirstFrame = (u32, io::Result<Option<Mac>>);

struct Watcher<'a> {
    bindings: &'a Bindings,
    environment: &'a Environment,
    rules: &'a [WatchRule],
    /// The indexes of ports with a filter, at the last look.
    bound: BTreeSet<u32>,
    /// The bridges of all interfaces, at the last look.
    masters: BTreeMap<u32, Option<u32>>,
    /// The addresses from first frames, by the index of the port.
    learned: BTreeMap<u32, Mac>,
    /// The interfaces at the last look.
    links: Vec<Link>,
    /// The most ports whose first frame can be awaited at a time: each needs a descriptor.
    most_awaited: usize,
    /// Whether the command has reported that ports wait for a descriptor.
    has_warned: bool,
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
    fn new(
        bindings: &'a Bindings,
        environment: &'a Environment,
        rules: &'a [WatchRule],
        most_awaited: usize,
    ) -> Self {
        Watcher {
            bindings,
            environment,
            rules,
            bound: BTreeSet::new(),
            masters: BTreeMap::new(),
            learned: BTreeMap::new(),
            links: Vec::new(),
            most_awaited,
            has_warned: false,
            awaited: BTreeSet::new(),
            frames: JoinSet::new(),
            refused: BTreeMap::new(),
            turned_off: BTreeSet::new(),
            has_looked: false,
            retry: None,
        }
    }

    /// Looks again after each change, until the kernel reports no more changes.
    async fn follow(
        &mut self,
        mut events: LinkEvents,
        removals: Option<&FileEvents>,
    ) -> Result<(), NwfilterError> {
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
                () = removed(removals, self.bindings, &self.bound) => {}
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
        let is_open = |index: &u32| exists(index) && !self.bound.contains(index);
        self.refused.retain(|index, _| is_open(index));
        self.turned_off.retain(exists);
        self.links = links;
        self.compare_moved(&statuses).await?;
        let unbound = self.links.iter().filter(|link| !self.bound.contains(&link.index));
        let candidate = |link: &Link| {
            Some((link.index, Candidate::of(link, &self.links, self.rules, &self.learned)?))
        };
        let candidates: Vec<(u32, Candidate)> = unbound.filter_map(candidate).collect();
        let mut silent = Vec::new();
        for (index, candidate) in candidates {
            match candidate.mac {
                Some(mac) => self.bind(index, &candidate, mac).await,
                None => silent.push(index),
            }
        }
        self.await_frames(silent);
        self.has_looked = true;
        Ok(())
    }

    /// Warns of addresses that two ports of a bridge have, after a port has come from another one.
    async fn compare_moved(&mut self, statuses: &[PortStatus]) -> Result<(), BindingError> {
        // A port may have been bound since the last look.
        let masters = self.links.iter().map(|link| (link.index, link.master)).collect();
        let before = std::mem::replace(&mut self.masters, masters);
        let has_moved = |(index, now): (&u32, &Option<u32>)| {
            self.bound.contains(index) && before.get(index).is_some_and(|earlier| earlier != now)
        };
        if self.masters.iter().any(has_moved) {
            let shared = self.bindings.shared_addresses(statuses).await?;
            shared.iter().for_each(|shared| tracing::warn!("{shared}"));
        }
        Ok(())
    }

    /// Awaits the first frame of each of these ports, as far as there are descriptors.
    fn await_frames(&mut self, silent: Vec<u32>) {
        let mut without = 0;
        for index in silent {
            if self.awaited.contains(&index) {
                continue;
            }
            if self.awaited.len() >= self.most_awaited {
                without += 1;
                continue;
            }
            self.awaited.insert(index);
            self.frames.spawn(async move { (index, first_source(index).await) });
        }
        if without > 0 && !self.has_warned {
            tracing::warn!(
                "{without} ports stay closed until another port has sent its first frame: this process may not have enough open files for all silent ports; raise its limit (LimitNOFILE= of the unit, ulimit -n), or write their MAC addresses in the rules"
            );
        }
        self.has_warned = without > 0;
    }

    /// Binds the filter of the first rule with this port, bridge and address. Reports a port that
    /// stays closed, once for each reason.
    async fn bind(&mut self, index: u32, candidate: &Candidate, mac: Mac) {
        if candidate.is_open_macvtap && self.has_looked {
            self.turn_off(index, candidate).await;
        }
        let Err(why) = self.try_bind(index, candidate, mac).await else {
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

    async fn try_bind(&self, index: u32, candidate: &Candidate, mac: Mac) -> Result<(), String> {
        let Candidate { port, place, .. } = candidate;
        let is_meant = |rule: &&WatchRule| rule.is_for(port.as_str(), place, mac);
        let Some(rule) = self.rules.iter().find(is_meant) else {
            return Err(format!("no rule has the guest's MAC address {mac}"));
        };
        if let Some(holder) = self.holder(mac, place) {
            return Err(format!(
                "the guest's MAC address {mac} is that of the port {holder} {}",
                match place {
                    WatchedPlace::Bridge(_) => "of the same bridge",
                    WatchedPlace::Above(_) => "above the same interface",
                }
            ));
        }
        if candidate.mac_of_frame {
            self.refuse_used(index, mac).await?;
        }
        let binding = rule.binding(port, mac);
        let bound =
            learn::bind(self.bindings, &binding, BindingChange::Create, false, self.environment)
                .await;
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

    /// Refuses the address of a guest's first frame if another machine or the host has it.
    async fn refuse_used(&self, index: u32, mac: Mac) -> Result<(), String> {
        let entries = async { Netlink::open()?.bridge_entries().await }.await;
        let entries = entries.map_err(|error| error_text(&error))?;
        match address_user(mac, index, &self.links, &entries) {
            Some(user) => Err(format!(
                "the MAC address {mac} of the guest's first frame {user}; write the guest's address as mac in the rule"
            )),
            None => Ok(()),
        }
    }

    /// Returns the bound port at this place whose guest has this address.
    fn holder(&self, mac: Mac, place: &WatchedPlace) -> Option<InterfaceName> {
        let statuses = self.bindings.list().unwrap_or_default();
        // The port may have moved to another bridge since it was bound.
        let is_at_place = |status: &PortStatus| {
            let link = self.links.iter().find(|link| link.index == status.index);
            link.and_then(|link| WatchedPlace::of(link, &self.links)).as_ref() == Some(place)
        };
        let holds = |status: &&PortStatus| {
            is_at_place(status)
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
