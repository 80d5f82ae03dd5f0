//! The status files of all networks, as one command knows them.
//!
//! Only the command that holds the lock changes status files. So it reads each file once, keeps
//! this value up to date with its own writes, and asks this value instead of the files. The
//! namespace of each network, and whether its dnsmasq can be reached, are also found out once.

use std::path::Path;

use super::namespace::NetworkLocation;
use super::status::{self, Damaged, NetworkStatus};
use super::{ManagerError, entry};
use crate::firewall::FirewallBackend;
use crate::network::NetworkName;
use crate::sys::state_file::StateFileError;
use crate::types::InterfaceName;

/// A status file that can be used.
#[derive(Debug)]
struct Entry {
    status: NetworkStatus,
    location: NetworkLocation,
    out_of_reach: bool,
}

impl Entry {
    fn new(status: NetworkStatus) -> Self {
        let location = status.location();
        let out_of_reach = location == NetworkLocation::Here && status.hides_its_dnsmasq();
        Entry { status, location, out_of_reach }
    }

    fn runs_here(&self) -> bool {
        self.status.complete && self.location == NetworkLocation::Here
    }
}

/// The status files that garbage collection works on.
pub(super) struct Garbage {
    /// Incomplete networks of this network namespace, which are undone.
    pub(super) incomplete: Vec<NetworkStatus>,
    /// Networks of network namespaces that are gone, whose status files are removed.
    pub(super) gone: Vec<NetworkStatus>,
}

/// The status files of all networks.
#[derive(Debug)]
pub(super) struct Statuses {
    entries: Vec<Entry>,
    damaged: Vec<Damaged>,
    /// The bridges of the networks that were taken out as garbage.
    ending: Vec<InterfaceName>,
}

impl Statuses {
    /// Reads every status file below `dir`.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn read(dir: &Path) -> Result<Self, StateFileError> {
        let (mut entries, mut damaged) = (Vec::new(), Vec::new());
        for one in status::all(dir)? {
            match one {
                Ok(status) => entries.push(Entry::new(status)),
                Err(one) => damaged.push(one),
            }
        }
        Ok(Statuses { entries, damaged, ending: Vec::new() })
    }

    /// Returns the networks that run in this network namespace.
    pub(super) fn running(&self) -> impl Iterator<Item = &NetworkStatus> {
        self.entries.iter().filter(|entry| entry.runs_here()).map(|entry| &entry.status)
    }

    /// Returns the networks that run in this network namespace, mutably.
    pub(super) fn running_mut(&mut self) -> impl Iterator<Item = &mut NetworkStatus> {
        self.entries.iter_mut().filter(|entry| entry.runs_here()).map(|entry| &mut entry.status)
    }

    /// Returns the networks that run in any network namespace, each with its namespace.
    pub(super) fn active(self) -> Vec<(NetworkStatus, NetworkLocation)> {
        let runs = |entry: &Entry| entry.status.complete && entry.location != NetworkLocation::Gone;
        self.entries.into_iter().filter(runs).map(|entry| (entry.status, entry.location)).collect()
    }

    /// Returns the status files that cannot be used.
    pub(super) fn damaged(&self) -> &[Damaged] {
        &self.damaged
    }

    /// Returns the status files that cannot be used, by value.
    pub(super) fn take_damaged(&mut self) -> Vec<Damaged> {
        std::mem::take(&mut self.damaged)
    }

    /// Returns the networks that run in another network namespace, each with the command that
    /// enters it.
    pub(super) fn elsewhere(&self) -> impl Iterator<Item = (&NetworkName, String)> {
        self.entries.iter().filter(|entry| entry.status.complete).filter_map(|one| {
            match &one.location {
                NetworkLocation::OtherNamespace(file) => {
                    Some((&one.status.name, entry(file.as_deref())))
                }
                _ => None,
            }
        })
    }

    /// Returns the networks of this network namespace whose dnsmasq no command in this PID
    /// namespace can end. No command changes them.
    pub(super) fn out_of_reach(&self) -> impl Iterator<Item = &NetworkName> {
        self.entries.iter().filter(|one| one.out_of_reach).map(|one| &one.status.name)
    }

    /// Refuses to act on a network whose status file cannot be used, that runs in another network
    /// namespace, or whose dnsmasq runs in another PID namespace.
    pub(super) fn check(&mut self, name: &NetworkName) -> Result<(), ManagerError> {
        let is = |damaged: &Damaged| damaged.name.as_ref() == Some(name);
        if let Some(at) = self.damaged.iter().position(is) {
            return Err(self.damaged.swap_remove(at).error.into());
        }
        let Some(one) = self.entries.iter().find(|one| one.status.name == *name) else {
            return Ok(());
        };
        match &one.location {
            NetworkLocation::OtherNamespace(file) => Err(ManagerError::OtherNamespace {
                name: name.clone(),
                entry: entry(file.as_deref()),
            }),
            _ if one.out_of_reach => Err(ManagerError::OutOfReach(name.clone())),
            _ => Ok(()),
        }
    }

    /// Returns whether networks other than the changed one have, or may have, rules in nftables.
    /// The tables must then stay.
    pub(super) fn in_nft(&self, changed: Option<&NetworkName>) -> bool {
        // A failed read of the network's own status file says nothing about the other networks.
        let is_other = |name: Option<&NetworkName>| name.is_none() || name != changed;
        let others = self.running().filter(|status| is_other(Some(&status.name)));
        let mut rules = others.flat_map(NetworkStatus::rules);
        rules.any(|rules| rules.backend() == FirewallBackend::Nftables)
            || self.damaged.iter().any(|one| is_other(one.name.as_ref()))
            || self.out_of_reach().any(|name| is_other(Some(name)))
    }

    /// Returns the backend of the rules of an incomplete network of this network namespace.
    pub(super) fn unfinished_backend(&self) -> Option<FirewallBackend> {
        let left = self.entries.iter().filter(|one| !one.status.complete);
        let here = left.filter(|one| one.location == NetworkLocation::Here);
        here.flat_map(|one| one.status.rules()).map(|rules| rules.backend()).next()
    }

    /// Takes out the status files that [`Manager::collect`](super::Manager::collect) works on.
    pub(super) fn take_garbage(&mut self) -> Garbage {
        let mut garbage = Garbage { incomplete: Vec::new(), gone: Vec::new() };
        for one in std::mem::take(&mut self.entries) {
            match one.location {
                NetworkLocation::Gone => garbage.gone.push(one.status),
                NetworkLocation::Here if !one.status.complete && !one.out_of_reach => {
                    self.ending.push(one.status.bridge.clone());
                    garbage.incomplete.push(one.status);
                }
                _ => self.entries.push(one),
            }
        }
        garbage
    }

    /// Returns the bridges of incomplete networks, which their undo removes. A bridge stays in this
    /// list after its undo.
    pub(super) fn ending(&self) -> &[InterfaceName] {
        &self.ending
    }

    /// Takes out a network that runs in this network namespace.
    pub(super) fn take(&mut self, name: &NetworkName) -> Option<NetworkStatus> {
        let is = |one: &Entry| one.runs_here() && one.status.name == *name;
        let at = self.entries.iter().position(is)?;
        Some(self.entries.swap_remove(at).status)
    }

    /// Adds a status of this network namespace that was taken out and still exists.
    pub(super) fn put(&mut self, status: NetworkStatus) {
        self.entries.push(Entry { status, location: NetworkLocation::Here, out_of_reach: false });
    }
}
