//! Turns IP forwarding on for a network, and restores it when no network needs it.
//!
//! Forwarding is a setting of the whole host, and a write to it changes other settings. For IPv4
//! the kernel sets `forwarding` of every interface and flips `accept_redirects`. For IPv6 it sets
//! `forwarding` of every interface, and an interface whose `accept_ra` is 1 then ignores router
//! advertisements (ip-sysctl.txt in the kernel). A host that has its own IPv6 from a router would
//! lose it, at once or when its routes expire. So before the write, a start records each value that
//! the write or the later restore changes. It also raises each `accept_ra` of 1 to 2: of all
//! existing interfaces, whether they have received an advertisement or not, and of `default`, which
//! later interfaces get.
//!
//! At the end of a network, forwarding is turned off only if three conditions are true: no other
//! network needs it, its value is still the one that the start wrote, and no two other interfaces
//! could forward to each other. Another program that found forwarding on, such as docker, relies on
//! it without saying so. If forwarding stays on, the values that depend on it stay as well. An
//! interface is identified by its index, which a rename does not change.

use super::statuses::Statuses;
use super::step::StartInProgress;
use super::{Manager, ManagerError, NetworkStatus, config};
use crate::network::{Forward, Network};
use crate::sys::netlink::sysctl::{Key, Restore, SettingChange};
use crate::sys::netlink::{HostNet, Link, Netlink};
use crate::types::{InterfaceName, error_text};

/// Why settings are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UndoReason {
    /// A start has just failed, so no program can rely on its changes yet.
    FailedStart,
    /// A network ends, or a command was killed earlier.
    End,
}

impl StartInProgress<'_> {
    /// Turns forwarding on if the network needs it. Returns the settings that were off, one phrase
    /// each.
    pub(super) fn settings(
        &self,
        network: &Network,
        status: &mut NetworkStatus,
    ) -> Result<Vec<String>, ManagerError> {
        let mut done = Vec::new();
        for key in config::settings(network, &status.published) {
            if self.forward(&key, status)? {
                done.push(format!("{key} was not 1"));
            }
            // A new bridge has the value of `default`, which can differ from the setting of the
            // whole host.
            let of = |name: &InterfaceName| match key {
                Key::Ipv4Forwarding => Key::Ipv4ForwardingOf(name.clone()),
                _ => Key::Ipv6ForwardingOf(name.clone()),
            };
            if self.of_the_bridge(&of(&network.bridge.name), "1")? {
                done.push(format!("{} was not 1", of(&network.bridge.name)));
            }
        }
        Ok(done)
    }

    /// Records all changes, then turns forwarding on. Returns whether it was off.
    fn forward(&self, key: &Key, status: &mut NetworkStatus) -> Result<bool, ManagerError> {
        let sysctls = &self.manager.sysctls;
        let Some(change) = sysctls.plan(key, "1")? else { return Ok(false) };
        let side_effects = self.side_effects(key, &change.before)?;
        let is_new =
            |change: &&SettingChange| !status.settings.iter().any(|one| one.key == change.key);
        let all: Vec<SettingChange> =
            side_effects.iter().chain([&change]).filter(is_new).cloned().collect();
        if !all.is_empty() {
            status.settings.extend(all);
            status.write()?;
        }
        for one in side_effects.iter().filter(|one| matches!(one.key, Key::AcceptRa(_))) {
            sysctls.make(one)?;
        }
        sysctls.make(&change)?;
        Ok(true)
    }

    /// Returns the other settings that the kernel changes when netlaunch writes the setting `key`,
    /// and those that netlaunch must change with it.
    fn side_effects(&self, key: &Key, before: &str) -> Result<Vec<SettingChange>, ManagerError> {
        let sysctls = &self.manager.sysctls;
        let mut changes = Vec::new();
        let newest = self.host.links.iter().map(|link| link.index).max();
        let mut names: Vec<(InterfaceName, Option<u32>)> = Vec::new();
        names.extend("default".parse().ok().map(|name| (name, newest)));
        let name = |link: &Link| Some((link.name.parse().ok()?, Some(link.index)));
        names.extend(self.host.links.iter().filter_map(name));
        for (name, index) in names {
            // Restoring the setting of the whole host sets forwarding of each interface to the same
            // value.
            let (own, after) = match key {
                Key::Ipv4Forwarding => (Key::Ipv4ForwardingOf(name.clone()), before),
                _ => (Key::Ipv6ForwardingOf(name.clone()), before),
            };
            let value = sysctls.get(&own)?.filter(|value| value != after);
            let kept = value.map(|value| (own, value, after));
            let raised = match key {
                Key::Ipv6Forwarding => {
                    let own = Key::AcceptRa(name);
                    let value = sysctls.get(&own)?.filter(|value| value == "1");
                    value.map(|value| (own, value, "2"))
                }
                _ => None,
            };
            changes.extend([kept, raised].into_iter().flatten().map(|(key, before, after)| {
                SettingChange { key, before, after: after.to_owned(), index }
            }));
        }
        if *key == Key::Ipv4Forwarding {
            let value = sysctls.get(&Key::AcceptRedirects)?.filter(|value| value != "1");
            let after = "1".to_owned();
            changes.extend(value.map(|before| SettingChange {
                key: Key::AcceptRedirects,
                before,
                after,
                index: None,
            }));
        }
        Ok(changes)
    }
}

impl Manager {
    /// Restores the kernel settings that a network changed, or hands their records to a network
    /// that needs them. Returns the failures, one sentence each, and warns of settings that stay.
    pub(super) async fn restore(
        &self,
        status: &mut NetworkStatus,
        statuses: &mut Statuses,
        undoing: UndoReason,
    ) -> Vec<String> {
        let mut changes = std::mem::take(&mut status.settings);
        if changes.is_empty() {
            return Vec::new();
        }
        let host = match Netlink::open() {
            Ok(netlink) => netlink.host().await,
            Err(error) => Err(error),
        };
        let host = match host {
            Ok(host) => host,
            Err(error) => {
                status.settings = changes;
                return vec![error_text(&error)];
            }
        };
        // Restore in reverse order, but the settings of the whole host before those that depend on
        // them.
        changes.reverse();
        changes.sort_by_key(|change| change.key.follows().is_some());
        let (mut failures, mut kept) = (Vec::new(), Vec::new());
        for change in changes {
            let root = change.key.follows().unwrap_or_else(|| change.key.clone());
            let heir = statuses.running_mut().find(|other| {
                other.network().is_some_and(|network| {
                    config::settings(&network, &other.published).contains(&root)
                })
            });
            let done = match heir {
                _ if kept.iter().any(|kept: &SettingChange| kept.key == root) => Err(None),
                Some(heir) => heir.inherit(&change).map_err(|error| Some(error_text(&error))),
                None => match self.users(&change.key, &host, status, statuses) {
                    Some(users) if undoing == UndoReason::End && self.is_on(&change) => {
                        stays(&change.key, &users);
                        Ok(())
                    }
                    _ => self.put_back(&change, &root, &host).map_err(Some),
                },
            };
            if let Err(error) = done {
                failures.extend(error);
                kept.push(change);
            }
        }
        kept.reverse();
        status.settings = kept;
        failures
    }

    /// Returns whether a setting still has the value that a start wrote.
    fn is_on(&self, change: &SettingChange) -> bool {
        self.sysctls.get(&change.key).is_ok_and(|now| now.as_ref() == Some(&change.after))
    }

    /// Restores one setting. Returns the reason of a failure.
    fn put_back(&self, change: &SettingChange, root: &Key, host: &HostNet) -> Result<(), String> {
        let failed = |error: crate::sys::netlink::sysctl::SysctlError| error_text(&error);
        if change.key.follows().is_some()
            && self.sysctls.get(root).map_err(failed)?.is_some_and(|value| value != "0")
        {
            // Forwarding stays on, so keep the values without which the host would lose IPv6.
            return Ok(());
        }
        let mut change = change.clone();
        if let Some(index) = change.index.filter(|_| !change.key.is_default()) {
            let link = host.links.iter().find(|link| link.index == index);
            match link.and_then(|link| link.name.parse().ok()) {
                Some(name) => change.key = change.key.of(name),
                // The interface is gone, and another interface may have its name.
                None => return Ok(()),
            }
        }
        let restored = self.sysctls.undo(&change, false).map_err(failed)?;
        match (restored, change.index) {
            (Restore::Write(before), Some(newest))
                if matches!(change.key, Key::AcceptRa(_)) && change.key.is_default() =>
            {
                let later = host.links.iter().filter(|link| link.index > newest);
                for name in later.filter_map(|link| link.name.parse().ok()) {
                    let key = change.key.of(name);
                    let now = self.sysctls.get(&key).map_err(failed)?;
                    if now.is_some_and(|now| now == change.after) {
                        self.sysctls.write(&key, before).map_err(failed)?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Returns the interfaces that could forward to each other: two or more that are up and have an
    /// address or a route, without those of isolated networks. Returns `None` if there are fewer,
    /// and for other settings.
    fn users(
        &self,
        key: &Key,
        host: &HostNet,
        status: &NetworkStatus,
        statuses: &Statuses,
    ) -> Option<Vec<String>> {
        let v6 = match key {
            Key::Ipv4Forwarding => false,
            Key::Ipv6Forwarding => true,
            _ => return None,
        };
        let isolated = |other: &&NetworkStatus| {
            other.network().is_some_and(|network| network.forward == Forward::Isolated)
        };
        let mut without = vec!["lo".to_owned(), status.bridge.to_string()];
        // The undo of the other incomplete networks removes these bridges as well.
        without.extend(statuses.ending().iter().map(ToString::to_string));
        without.extend(statuses.running().filter(isolated).map(|other| other.bridge.to_string()));
        let is_own = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V4(_) => v6,
            std::net::IpAddr::V6(address) => !v6 || address.is_unicast_link_local(),
        };
        let uses = |link: &&Link| {
            let addresses = host.addresses.iter().filter(|one| one.link == link.index);
            let routes = host.routes.iter().chain(&host.other_routes);
            let routes = routes.filter(|route| route.links.contains(&link.index));
            link.up
                && !without.contains(&link.name)
                && (addresses.into_iter().any(|one| !is_own(one.address.addr()))
                    || routes.into_iter().any(|route| route.to.addr().is_ipv6() == v6))
        };
        let users: Vec<String> =
            host.links.iter().filter(uses).map(|link| link.name.clone()).collect();
        (users.len() > 1).then_some(users)
    }
}

/// Warns that forwarding is left on.
fn stays(key: &Key, users: &[String]) {
    let version = if *key == Key::Ipv4Forwarding { "IPv4" } else { "IPv6" };
    tracing::warn!(
        "{version} forwarding stays on, since {} could use it; if nothing does, turn it off with \
         'sysctl -w {key}=0'",
        users.join(" and ")
    );
}
