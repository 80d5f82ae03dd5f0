//! Publishes ports of the host to the guests of running networks.
//!
//! The rules of a network follow from its definition and the list of published ports in its status
//! file, so every command that sets or removes the rules of a network includes the published ports.
//! A change of the list is one transaction that replaces the network's rules. The new list and the
//! records that remove the old and the new rules are written before it. If a launch is killed, the
//! next command finds its entry without a tap and removes the entry.
//!
//! A port on a loopback address of the host is in the list, too, but has no rules: the launch
//! relays its connections (`relay`).

use std::error::Error;

use super::published::{PublishedGuest, check_versions, needs_forwarding, subnets};
use super::status;
use super::statuses::Statuses;
use super::step::StartInProgress;
use super::{Manager, ManagerError, NetworkStatus};
use crate::firewall::{LockedTools, forget_connections};
use crate::network::{Network, NetworkName};
use crate::sys::netlink::Netlink;
use crate::types::{InterfaceName, Publish, error_text, overlap};

impl Manager {
    /// Publishes a guest's ports, or changes its entry. Does nothing if the entry is there already.
    ///
    /// # Errors
    /// [`ManagerError`]; the entry is then as before.
    pub async fn publish(
        &self,
        name: &NetworkName,
        guest: &PublishedGuest,
    ) -> Result<(), ManagerError> {
        let (tools, mut statuses) = self.lock().await?;
        self.collect_published(&tools, &mut statuses).await;
        statuses.check(name)?;
        let Some(mut status) = statuses.take(name) else {
            return Err(ManagerError::Inactive(name.clone()));
        };
        let network = status.network().ok_or_else(|| status::broken(&status.dir))?;
        check_versions(&network.name, &guest.publish, &subnets(&network).await?)?;
        let others = statuses.running().flat_map(|other| &other.published);
        let others = others.chain(&status.published);
        let is_other = |other: &&PublishedGuest| !other.is_on(&guest.tap, guest.index);
        check_others(guest, others.filter(is_other))?;
        let before = status.published.clone();
        let mut wanted = before.clone();
        wanted.retain(|other| !other.is_on(&guest.tap, guest.index));
        wanted.push(guest.clone());
        if wanted == before && !status.publishing {
            return Ok(());
        }
        let changed = self.change_published(&tools, &statuses, &mut status, wanted).await;
        if changed.is_err() && status.published != before {
            let undone = self.change_published(&tools, &statuses, &mut status, before).await;
            if let Err(error) = undone {
                tracing::warn!("{}", error_text(&error));
            }
        }
        changed
    }

    /// Removes the published ports of the guest on this tap, and those of all guests that are gone.
    ///
    /// # Errors
    /// [`ManagerError`]; a later command removes them.
    pub async fn unpublish(
        &self,
        name: &NetworkName,
        tap: &InterfaceName,
        index: u32,
    ) -> Result<(), ManagerError> {
        let (tools, mut statuses) = self.lock().await?;
        self.collect_published(&tools, &mut statuses).await;
        let Some(mut status) = statuses.take(name) else { return Ok(()) };
        let mut wanted = status.published.clone();
        wanted.retain(|guest| !guest.is_on(tap, index));
        if wanted == status.published {
            return Ok(());
        }
        self.change_published(&tools, &statuses, &mut status, wanted).await
    }

    /// Removes the published ports of guests that are gone.
    ///
    /// # Errors
    /// [`ManagerError`] if the lock cannot be taken or the status files cannot be read.
    pub async fn unpublish_gone(&self) -> Result<(), ManagerError> {
        if !self.statuses()?.running().any(has_published) {
            return Ok(());
        }
        let (tools, mut statuses) = self.lock().await?;
        self.collect_published(&tools, &mut statuses).await;
        Ok(())
    }

    /// Removes the published ports of guests that are gone, and completes a change that was
    /// interrupted. A failure is logged, and a later command tries again.
    pub(super) async fn collect_published(&self, tools: &LockedTools, statuses: &mut Statuses) {
        let names: Vec<NetworkName> = statuses
            .running()
            .filter(|status| has_published(status))
            .map(|status| status.name.clone())
            .collect();
        if names.is_empty() {
            return;
        }
        let links = match async { Netlink::open()?.links().await }.await {
            Ok(links) => links,
            Err(error) => {
                tracing::warn!("{}", error_text(&error));
                return;
            }
        };
        let is_there = |guest: &PublishedGuest| {
            links.iter().any(|link| link.index == guest.index && link.name == guest.tap.as_str())
        };
        for name in names {
            let Some(mut status) = statuses.take(&name) else { continue };
            let wanted: Vec<_> =
                status.published.iter().filter(|guest| is_there(guest)).cloned().collect();
            if wanted != status.published || status.publishing {
                tracing::debug!("removing the ports published to guests of {name} that are gone");
                let changed = self.change_published(tools, statuses, &mut status, wanted).await;
                if let Err(error) = changed {
                    tracing::warn!(
                        "ports published to guests of the network {name} that are gone still have \
                         rules: {}",
                        error_text(&error)
                    );
                }
            }
            statuses.put(status);
        }
    }

    /// Replaces the list of published ports of a network, its rules and the settings that the ports
    /// need.
    async fn change_published(
        &self,
        tools: &LockedTools,
        statuses: &Statuses,
        status: &mut NetworkStatus,
        wanted: Vec<PublishedGuest>,
    ) -> Result<(), ManagerError> {
        let network = status.network().ok_or_else(|| status::broken(&status.dir))?;
        let rulesets = self.rulesets(&network, &wanted)?;
        // Ports on loopback addresses, and those of a guest without an address, have no rules.
        let same = !status.publishing && rulesets == self.rulesets(&network, &status.published)?;
        let (list, before) = (std::mem::replace(&mut status.published, wanted), status.rules());
        let unruled = before.is_empty() && rulesets.is_empty();
        if !(same || unruled) {
            status.publishing = true;
            if let Err(error) = self.replace_rules(tools, statuses, status, rulesets).await {
                if error.left_as_before() {
                    (status.published, status.publishing) = (list, false);
                    status.write()?;
                }
                return Err(error);
            }
            forget_udp_clients(&list, &status.published).await;
        }
        status.publishing = false;
        if status.firewall.is_none() {
            status.backend = None;
        }
        status.write()?;
        // An error leaves the reserved space of before, which is enough for a destroy.
        if let Err(error) = status.reserve() {
            tracing::debug!("{}", error_text(&error));
        }
        self.forward_published(&network, status).await
    }

    /// Turns forwarding on if the published ports need it. It stays on until the network ends.
    async fn forward_published(
        &self,
        network: &Network,
        status: &mut NetworkStatus,
    ) -> Result<(), ManagerError> {
        if !needs_forwarding(&status.published, false) && !needs_forwarding(&status.published, true)
        {
            return Ok(());
        }
        let netlink = Netlink::open()?;
        let host = netlink.host().await?;
        let start = StartInProgress { manager: self, netlink: &netlink, host: &host };
        start.settings(network, status)?;
        Ok(())
    }
}

/// Makes the kernel forget the UDP clients of these guests' ports, so that their next packet begins
/// a new connection, which the new rules translate.
async fn forget_udp_clients(before: &[PublishedGuest], after: &[PublishedGuest]) {
    let ports: Vec<Publish> =
        before.iter().chain(after).flat_map(|guest| guest.publish.clone()).collect();
    let forgotten = async {
        let host = Netlink::open()?.host().await?;
        let local: Vec<_> = host.addresses.iter().map(|one| one.address.addr()).collect();
        forget_connections(&ports, &local).map_err(|error| error_text(&error).into())
    };
    let forgotten: Result<usize, Box<dyn Error>> = forgotten.await;
    if let Err(error) = forgotten {
        tracing::warn!(
            "UDP clients of published ports may not reach the guest until they pause: {error}"
        );
    }
}

fn has_published(status: &NetworkStatus) -> bool {
    !status.published.is_empty() || status.publishing
}

/// Checks that no other guest has one of the ports.
fn check_others<'a>(
    guest: &PublishedGuest,
    others: impl Iterator<Item = &'a PublishedGuest>,
) -> Result<(), ManagerError> {
    for other in others {
        let both: Vec<Publish> = other.publish.iter().chain(&guest.publish).cloned().collect();
        if let Some((_, publish, port)) = overlap(&both) {
            let (publish, launch) = (publish.clone(), other.launch.clone());
            return Err(ManagerError::PublishedTwice { publish, port, launch });
        }
    }
    Ok(())
}
