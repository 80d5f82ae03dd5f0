//! Ends a network, and undoes starts and ends that were killed or failed.
//!
//! The undo clears each step in the status file when it is undone. If a step fails, the status file
//! keeps that step, and every later command tries it again. A status file that cannot be written
//! does not stop the undo: the file on disk then names more steps than are left, and undoing a step
//! twice has no effect.

use super::forwarding::UndoReason;
use super::status::{self, NetworkStatus};
use super::statuses::Statuses;
use super::{Manager, ManagerError, zone};
use crate::firewall::{ApplyError, LockedTools, RemovalRecord, Transaction, transact};
use crate::network::NetworkName;
use crate::network::dnsmasq::{Dnsmasq, DnsmasqError, Files, Leases};
use crate::sys::netlink::{GuestTap, Link, Netlink, TapHome, Undo};
use crate::types::error_text;

/// The treatment of ports on the bridge of a network that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ports {
    /// Refuse to end the network while its bridge has ports.
    Refuse,
    /// Remove the bridge; the ports are then on no bridge.
    Leave,
}

/// The steps of a network that could not be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UndoFailures {
    pub(super) name: NetworkName,
    /// The failures, one sentence each; empty if everything is undone.
    pub(super) failed: Vec<String>,
}

impl UndoFailures {
    /// Returns one sentence for each step.
    pub(super) fn sentences(&self) -> Vec<String> {
        self.failed.iter().map(|what| format!("the network {}: {what}", self.name)).collect()
    }
}

impl From<UndoFailures> for ManagerError {
    fn from(UndoFailures { name, failed }: UndoFailures) -> Self {
        ManagerError::UndoFailures { name, failed }
    }
}

impl Manager {
    /// Ends a network that has no ports on its bridge. Returns the steps that could not be undone,
    /// one sentence each.
    ///
    /// # Errors
    /// [`ManagerError`] if the network does not run or no step could begin,
    /// [`ManagerError::Attached`] if its bridge has ports.
    pub async fn destroy(&self, name: &NetworkName) -> Result<Vec<String>, ManagerError> {
        self.end(name, Ports::Refuse).await
    }

    /// Ends a network like [`destroy`](Self::destroy), even if its bridge has ports. These are then
    /// on no bridge.
    ///
    /// # Errors
    /// [`ManagerError`] if the network does not run or no step could begin.
    pub async fn destroy_with_ports(
        &self,
        name: &NetworkName,
    ) -> Result<Vec<String>, ManagerError> {
        self.end(name, Ports::Leave).await
    }

    async fn end(&self, name: &NetworkName, ports: Ports) -> Result<Vec<String>, ManagerError> {
        let (tools, mut statuses) = self.lock().await?;
        let collected = self.collect(&tools, &mut statuses).await?;
        statuses.check(name)?;
        for other in collected.iter().filter(|failures| failures.name != *name) {
            other.sentences().iter().for_each(|what| tracing::warn!("{what}"));
        }
        if let Some(mine) = collected.into_iter().find(|failures| failures.name == *name) {
            return Ok(mine.failed);
        }
        let Some(mut status) = statuses.take(name) else {
            return Err(ManagerError::Inactive(name.clone()));
        };
        match (ports, attached(&status).await) {
            (Ports::Refuse, attached) => refuse(&status, &attached?)?,
            (Ports::Leave, Ok(attached)) => remember(&status, &attached).await,
            (Ports::Leave, Err(error)) => tracing::warn!("{}", error_text(&error)),
        }
        // If this command is killed, the next one continues from here.
        status.complete = false;
        if let Err(error) = status.write() {
            tracing::warn!(
                "{}; ending the network {name} without a record of that",
                error_text(&error)
            );
        }
        Ok(self.undo(&tools, &mut status, &mut statuses, UndoReason::End).await)
    }

    /// Undoes the networks whose start or end was killed or failed, completes or undoes changes
    /// that were killed, and removes the status files of network namespaces that are gone. Also
    /// removes the published ports of guests that are gone. Returns each network that it worked on,
    /// with the steps that are left.
    pub(super) async fn collect(
        &self,
        tools: &LockedTools,
        statuses: &mut Statuses,
    ) -> Result<Vec<UndoFailures>, ManagerError> {
        statuses
            .damaged()
            .iter()
            .for_each(|damaged| tracing::warn!("{}", error_text(&damaged.error)));
        let garbage = statuses.take_garbage();
        for status in garbage.gone {
            tracing::info!("the network namespace of the network {} is gone", status.name);
            if let Err(error) = status.remove() {
                tracing::warn!("{}", error_text(&error));
            }
        }
        let mut collected = Vec::new();
        for mut status in garbage.incomplete {
            tracing::info!("undoing the network {}, which is incomplete", status.name);
            let failed = self.undo(tools, &mut status, statuses, UndoReason::End).await;
            collected.push(UndoFailures { name: status.name.clone(), failed });
            if !status.is_undone() {
                statuses.put(status);
            }
        }
        self.finish_pending(tools, statuses).await;
        self.collect_published(tools, statuses).await;
        if let Err(error) = status::sweep(&self.dir()) {
            tracing::warn!("{}", error_text(&error));
        }
        Ok(collected)
    }

    /// Undoes a network's steps in an order that cuts the guests off first. Continues after
    /// failures and returns them. The status file keeps the steps that failed.
    pub(super) async fn undo(
        &self,
        tools: &LockedTools,
        status: &mut NetworkStatus,
        statuses: &mut Statuses,
        undoing: UndoReason,
    ) -> Vec<String> {
        let links = std::mem::take(&mut status.links);
        let (remove, others) = (status.rules(), statuses.in_nft(Some(&status.name)));
        // The rules go when the bridge is off: then the guests reach nothing, whatever the rules
        // allow. nft starts before the kernel removes the links, so both wait at the same time.
        let of_guests = async {
            if !remove.is_empty() && turn_off(&links).await {
                tokio::join!(remove_rules(tools, &remove, others), unlink(links))
            } else {
                let unlinked = unlink(links).await;
                (remove_rules(tools, &remove, others).await, unlinked)
            }
        };
        // dnsmasq gets its signal first. The kernel then waits at the same time until no packet
        // uses its sockets (20 ms), the bridge (40 ms) and the rules (15 ms) any more.
        let (mut failures, (rules, unlinked)) = tokio::join!(end_server(status), of_guests);
        let (left, failed) = unlinked;
        status.links = left;
        failures.extend(failed);
        match rules {
            Ok(()) => {
                status.firewall = None;
                status.replaced.clear();
            }
            Err(error) => failures.push(error_text(&error)),
        }
        match zone::undo(&self.settings.system_bus, status).await {
            Ok(()) => status.zone = None,
            Err(error) => failures.push(error_text(&error)),
        }
        failures.extend(self.restore(status, statuses, undoing).await);
        let kept = if status.is_undone() {
            status.remove()
        } else {
            status.complete = false;
            status.write()
        };
        failures.extend(kept.err().map(|error| error_text(&error)));
        failures
    }
}

/// Returns the ports of a network's bridge. If another program made a bridge with the same name,
/// the end does not touch it or its ports.
async fn attached(status: &NetworkStatus) -> Result<Vec<Link>, ManagerError> {
    let own = |undo: &Undo| match undo {
        Undo::Link { name, index } if *name == status.bridge => Some(*index),
        _ => None,
    };
    let Some(bridge) = status.links.iter().find_map(own) else { return Ok(Vec::new()) };
    let mut links = Netlink::open()?.links().await?;
    links.retain(|link| link.master == Some(bridge));
    Ok(links)
}

/// Refuses the end of a network whose bridge has ports.
fn refuse(status: &NetworkStatus, attached: &[Link]) -> Result<(), ManagerError> {
    let named = |link: &Link| match GuestTap::of(link).and_then(|tap| tap.home.launch) {
        Some(launch) => format!("{} (the launch {launch})", link.name),
        None => link.name.clone(),
    };
    let ports: Vec<String> = attached.iter().map(named).collect();
    if ports.is_empty() {
        return Ok(());
    }
    Err(ManagerError::Attached { name: status.name.clone(), ports })
}

/// Records this network in the alias of taps without one, such as those of QEMU's bridge helper, so
/// that the next start puts them back on the bridge.
async fn remember(status: &NetworkStatus, attached: &[Link]) {
    let home = TapHome {
        launch: None,
        bridge: status.bridge.clone(),
        network: Some(status.name.to_string()),
        mac: None,
        once: true,
        vlan: None,
        isolated: false,
        hairpin: false,
    };
    let is_strange = |link: &&Link| link.kind.as_deref() == Some("tun") && link.alias.is_none();
    for link in attached.iter().filter(is_strange) {
        let Ok(name) = link.name.parse() else { continue };
        let recorded = async { Netlink::open()?.set_home(&name, &home).await };
        if let Err(error) = recorded.await {
            tracing::warn!("{}; the next start leaves {name} on no bridge", error_text(&error));
        }
    }
}

/// Ends a network's dnsmasq and removes its files. Returns the failures.
async fn end_server(status: &mut NetworkStatus) -> Vec<String> {
    if !status.dnsmasq {
        return Vec::new();
    }
    let (files, record) = (Files::in_dir(&status.dir), status.served.as_ref());
    let failed = Dnsmasq::stop(record, &files, Leases::Remove).await;
    // A file that stays is reported when the directory is removed.
    if failed.iter().all(|error| matches!(error, DnsmasqError::File { .. })) {
        (status.dnsmasq, status.served) = (false, None);
        return Vec::new();
    }
    failed.iter().map(|error| error_text(error)).collect()
}

/// Removes a network's rules.
async fn remove_rules(
    tools: &LockedTools,
    remove: &[RemovalRecord],
    others: bool,
) -> Result<(), ApplyError> {
    let Some(backend) = remove.last().map(RemovalRecord::backend) else { return Ok(()) };
    let transaction = Transaction { remove, add: &[], others };
    transact(tools, backend, &transaction).await.map(drop)
}

/// Turns off the bridge that these records remove. Returns whether it is off now.
async fn turn_off(links: &[Undo]) -> bool {
    let bridge = links.iter().find_map(|undo| match undo {
        Undo::Link { name, index } => Some(Undo::Up { name: name.clone(), index: *index }),
        _ => None,
    });
    match (bridge, Netlink::open()) {
        (Some(bridge), Ok(netlink)) => netlink.undo(&bridge).await.is_ok(),
        _ => false,
    }
}

/// Removes a network's links with their routes and addresses. Returns the changes that are left,
/// and the failures.
async fn unlink(mut links: Vec<Undo>) -> (Vec<Undo>, Vec<String>) {
    let netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(_) if links.is_empty() => return (links, Vec::new()),
        Err(error) => return (links, vec![error_text(&error)]),
    };
    // The kernel removes everything else with the link.
    if let Some(at) = links.iter().position(|undo| matches!(undo, Undo::Link { .. }))
        && netlink.undo(&links[at]).await.is_ok()
    {
        let made = links.remove(at);
        links.retain(|undo| !undo.goes_with(&made));
    }
    let mut failures = Vec::new();
    // A route that could not be removed may be gone with its link, which the second round finds.
    for _ in 0..2 {
        failures.clear();
        for undo in std::mem::take(&mut links).into_iter().rev() {
            if let Err(error) = netlink.undo(&undo).await {
                failures.push(error_text(&error));
                links.insert(0, undo);
            }
        }
    }
    netlink.remove_stale_ifbs().await;
    (links, failures)
}
