//! Reads the status files and matches them with the interfaces of the host.
//!
//! A port is identified by its interface index; its name may change. nftables rules in the bridge
//! table match the index and stay valid. iptables rules match names only, and since Linux 6.16 the
//! ingress hook for link-local frames does so, too. So the next command that takes the lock writes
//! the new name into the status file and rebuilds all rules ([`super::unfinished`]).
//!
//! Interface indexes belong to one network namespace, and so does the state directory: the lock
//! file contains the identity of the namespace. Each other namespace needs a state directory of its
//! own.

use std::fs;

use super::status::{self, Damaged, PortStatus};
use super::{BindingError, Bindings};
use crate::nwfilter::learn::Clock;
use crate::sys::interfaces::Interfaces;
use crate::sys::namespace::network_namespace;
use crate::sys::state_file::{LOCK, StateFileError};
use crate::types::{InterfaceName, error_text};

/// All status files, as read at one moment.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// The complete status files of existing ports, with the current names.
    pub(super) live: Vec<PortStatus>,
    /// The status files whose interface is gone, or whose bind or removal was interrupted.
    pub(super) stale: Vec<PortStatus>,
    /// The status files that cannot be used. No command changes them.
    pub(super) damaged: Vec<Damaged>,
}

impl Ports {
    /// Returns the status of a port, complete or not.
    ///
    /// # Errors
    /// [`BindingError::Damaged`] if its status file cannot be used.
    pub(super) fn port(self, port: &InterfaceName) -> Result<Option<PortStatus>, BindingError> {
        let mut all = self.live.into_iter().chain(self.stale);
        if let Some(status) = all.find(|status| status.port == *port) {
            return Ok(Some(status));
        }
        match self.damaged.into_iter().find(|damaged| damaged.port.as_ref() == Some(port)) {
            Some(damaged) => Err(BindingError::Damaged(damaged.error)),
            None => Ok(None),
        }
    }
}

impl Bindings {
    /// Reads all status files and sorts them into live, stale and damaged.
    pub(super) fn ports(&self) -> Result<Ports, BindingError> {
        let (all, damaged) = self.all()?;
        self.sorted(all, damaged)
    }

    fn sorted(&self, all: Vec<PortStatus>, damaged: Vec<Damaged>) -> Result<Ports, BindingError> {
        let failed = |source| BindingError::StateDir { dir: self.dir(), source };
        let interfaces = Interfaces::open().map_err(failed)?;
        let (mut live, mut stale) = (Vec::new(), Vec::new());
        for status in all {
            match interfaces.name(status.index).map_err(failed)? {
                Some(port) if status.is_bound() => {
                    let renamed_from = (port != status.port).then(|| status.port.clone());
                    live.push(PortStatus { port, renamed_from, ..status });
                }
                _ => stale.push(status),
            }
        }
        live.sort_by(|a, b| a.port.cmp(&b.port));
        Ok(Ports { live, stale, damaged })
    }

    /// Returns the status of a port, complete or not, also if its interface is gone.
    pub(super) fn status(&self, port: &InterfaceName) -> Result<Option<PortStatus>, BindingError> {
        match self.status_in_own_file(port)? {
            Some(status) => Ok(Some(status)),
            None => self.ports()?.port(port),
        }
    }

    /// Returns the status of a port that has a filter and whose interface is there.
    pub(super) fn live(&self, port: &InterfaceName) -> Result<Option<PortStatus>, BindingError> {
        match self.status_in_own_file(port)? {
            Some(status) => Ok(Some(status).filter(PortStatus::is_bound)),
            None => Ports { stale: Vec::new(), ..self.ports()? }.port(port),
        }
    }

    /// Reads the status file with the name of a port. Returns `None` if the file does not belong to
    /// the interface with this name, because an interface was renamed or removed.
    fn status_in_own_file(&self, port: &InterfaceName) -> Result<Option<PortStatus>, BindingError> {
        let Ok(Some(status)) = status::read(&self.dir(), port) else { return Ok(None) };
        let is_own =
            status.port == *port && self.is_here()? && self.has_index(port, status.index)?;
        Ok(Some(status).filter(|_| is_own))
    }

    /// Returns whether the interface with this name has this index.
    fn has_index(&self, port: &InterfaceName, index: u32) -> Result<bool, BindingError> {
        let failed = |source| BindingError::StateDir { dir: self.dir(), source };
        let interfaces = Interfaces::open().map_err(failed)?;
        interfaces.has(index, port).map_err(failed)
    }

    /// Reads every status file as it is on disk, and those that cannot be used.
    fn all(&self) -> Result<(Vec<PortStatus>, Vec<Damaged>), BindingError> {
        let (all, damaged) = status::all(&self.dir())?;
        if self.is_unused(&all, &damaged) || self.is_here()? {
            Ok((all, damaged))
        } else {
            Err(BindingError::OtherNamespace(self.settings.state_dir.clone()))
        }
    }

    /// Returns whether the directory belongs to no network namespace: it has no status file, and
    /// there is no guard of ports.
    fn is_unused(&self, all: &[PortStatus], damaged: &[Damaged]) -> bool {
        all.is_empty() && damaged.is_empty() && !self.guard_path().exists()
    }

    /// Returns whether the status files belong to this network namespace.
    pub(super) fn is_here(&self) -> Result<bool, BindingError> {
        let failed = |source| BindingError::StateDir { dir: self.dir(), source };
        match fs::read_to_string(self.dir().join(LOCK)) {
            Ok(of) => Ok(of.is_empty() || of == network_namespace().map_err(failed)?),
            // An ordinary user cannot read the lock file, and changes nothing.
            Err(_) => Ok(true),
        }
    }

    /// Assigns the directory to this network namespace if it belongs to none, and writes the
    /// current names of ports into the status files. The caller has just taken the lock. Returns
    /// the status files. A failed write, as on a full disk, is only a warning: ports are identified
    /// by their indexes, so rules can still be removed.
    pub(super) fn update_names(&self) -> Result<Ports, BindingError> {
        let dir = self.dir();
        let (all, damaged) = self.all()?;
        if self.is_unused(&all, &damaged) {
            let path = dir.join(LOCK);
            let named = fs::read_to_string(&path).and_then(|said| {
                let here = network_namespace()?;
                if said == here { Ok(()) } else { fs::write(&path, here) }
            });
            if let Err(error) = named {
                let error = StateFileError::io("write", &path)(error);
                tracing::warn!("{}", error_text(&error));
            }
        }
        let ports = self.sorted(all, damaged)?;
        if ports.live.iter().all(|status| status.renamed_from.is_none()) {
            return Ok(ports);
        }
        let (all, damaged) = status::all(&dir)?;
        if let Err(error) = self.write_names(&all, &damaged) {
            tracing::warn!("the new names of ports could not be recorded: {}", error_text(&error));
        }
        self.ports()
    }

    /// Writes the current names of ports into the status files.
    fn write_names(&self, all: &[PortStatus], damaged: &[Damaged]) -> Result<(), BindingError> {
        let dir = self.dir();
        let failed = |source| BindingError::StateDir { dir: dir.clone(), source };
        let interfaces = Interfaces::open().map_err(failed)?;
        let mut moved = Vec::new();
        for status in all.iter().filter(|status| status.is_bound()) {
            match interfaces.name(status.index).map_err(failed)? {
                // A damaged file has that name, and must not be overwritten.
                Some(name) if damaged.iter().any(|d| d.port.as_ref() == Some(&name)) => {}
                Some(name) if name != status.port => moved.push((status, name)),
                _ => {}
            }
        }
        if moved.is_empty() {
            return Ok(());
        }
        self.write_marker()?;
        let clock = Clock::now();
        let saved = self.leases.all(&clock)?;
        for (status, name) in &moved {
            let mut binding = status.binding(&dir)?;
            binding.port = name.clone();
            let renamed =
                PortStatus { port: name.clone(), xml: binding.to_xml(), ..(*status).clone() };
            renamed.write(&dir)?;
            for saved in saved.iter().filter(|saved| saved.index == status.index) {
                let saved =
                    crate::nwfilter::learn::SavedLease { port: name.clone(), ..saved.clone() };
                self.leases.write(&saved, &clock)?;
            }
            tracing::info!("the port {} now has the name {name}", status.port);
        }
        // Two ports may have exchanged their names; keep a file that was just written.
        let taken = |old: &InterfaceName| moved.iter().any(|(_, name)| name == old);
        for (status, _) in moved.iter().filter(|(status, _)| !taken(&status.port)) {
            status.remove(&dir)?;
            self.leases.remove(&status.port)?;
        }
        Ok(())
    }
}
