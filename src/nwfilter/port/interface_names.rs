//! Which interfaces the statuses are about.
//!
//! A port is its interface's number; its name may change. nftables' rules in the bridge's table go
//! with the number and stay. Those of iptables know names alone, and so does the ingress hook of
//! link-local frames since Linux 6.16. So the next command that takes the lock writes the new name
//! down and makes all rules anew ([`super::unsettled`]).
//!
//! Numbers are those of one network namespace, and so is the state directory: the file that is locked
//! names the namespace. Another one has a directory of its own.

use std::fs;

use super::status::{self, Damaged, Status};
use super::{BindingError, Bindings};
use crate::learn::Clock;
use crate::process::{Interfaces, network_namespace};
use crate::state::{LOCK, StatusError};
use crate::types::InterfaceName;

/// All statuses at one moment.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    /// Those of ports that are there, under the names that they have now.
    pub(super) live: Vec<Status>,
    /// Those of which only rules are left.
    pub(super) stale: Vec<Status>,
    /// Those that cannot be used. Nothing of them is changed.
    pub(super) damaged: Vec<Damaged>,
}

impl Statuses {
    /// The status of a port, complete or not.
    ///
    /// # Errors
    /// [`BindingError::Damaged`].
    pub(super) fn port(self, port: &InterfaceName) -> Result<Option<Status>, BindingError> {
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
    /// Reads all statuses.
    pub(super) fn statuses(&self) -> Result<Statuses, BindingError> {
        let (all, damaged) = self.all()?;
        self.sorted(all, damaged)
    }

    fn sorted(&self, all: Vec<Status>, damaged: Vec<Damaged>) -> Result<Statuses, BindingError> {
        let failed = |source| BindingError::State { dir: self.dir(), source };
        let interfaces = Interfaces::open().map_err(failed)?;
        let (mut live, mut stale) = (Vec::new(), Vec::new());
        for status in all {
            match interfaces.name(status.index).map_err(failed)? {
                Some(port) if status.complete => live.push(Status { port, ..status }),
                _ => stale.push(status),
            }
        }
        live.sort_by(|a, b| a.port.cmp(&b.port));
        Ok(Statuses { live, stale, damaged })
    }

    /// The status of a port, complete or not.
    pub(super) fn status(&self, port: &InterfaceName) -> Result<Option<Status>, BindingError> {
        self.statuses()?.port(port)
    }

    /// Every status as it is written, and those that cannot be used.
    fn all(&self) -> Result<(Vec<Status>, Vec<Damaged>), BindingError> {
        let (all, damaged) = status::all(&self.dir())?;
        match all.is_empty() && damaged.is_empty() || self.is_here()? {
            true => Ok((all, damaged)),
            false => Err(BindingError::Elsewhere(self.settings.state_dir.clone())),
        }
    }

    /// Whether the statuses are about this network namespace.
    fn is_here(&self) -> Result<bool, BindingError> {
        let failed = |source| BindingError::State { dir: self.dir(), source };
        match fs::read_to_string(self.dir().join(LOCK)) {
            Ok(of) => Ok(of.is_empty() || of == network_namespace().map_err(failed)?),
            // An ordinary user's, who changes nothing.
            Err(_) => Ok(true),
        }
    }

    /// For a command that has just got the lock: makes the directory this namespace's, where it is
    /// not another's, and writes down what ports are called now. Returns the statuses. A full disk
    /// stops neither: ports are known by their numbers, and what is there can be taken away.
    pub(super) fn settle_names(&self) -> Result<Statuses, BindingError> {
        let dir = self.dir();
        let (all, damaged) = self.all()?;
        if all.is_empty() && damaged.is_empty() {
            let path = dir.join(LOCK);
            let named = fs::read_to_string(&path).and_then(|said| {
                let here = network_namespace()?;
                if said == here { Ok(()) } else { fs::write(&path, here) }
            });
            if let Err(error) = named {
                let error = StatusError::io("write", &path)(error);
                tracing::warn!("{error}");
            }
        }
        match self.write_names(&all, &damaged) {
            Ok(false) => return self.sorted(all, damaged),
            Ok(true) => {}
            Err(error) => {
                tracing::warn!("new names of ports could not be written down: {error}");
            }
        }
        let (all, damaged) = status::all(&dir)?;
        self.sorted(all, damaged)
    }

    /// Writes down what ports are called now; tells whether any name is new.
    fn write_names(&self, all: &[Status], damaged: &[Damaged]) -> Result<bool, BindingError> {
        let dir = self.dir();
        let failed = |source| BindingError::State { dir: dir.clone(), source };
        let interfaces = Interfaces::open().map_err(failed)?;
        let mut moved = Vec::new();
        for status in all.iter().filter(|status| status.complete) {
            match interfaces.name(status.index).map_err(failed)? {
                // The file of another port has that name, and is not to be replaced.
                Some(name) if damaged.iter().any(|d| d.port.as_ref() == Some(&name)) => {}
                Some(name) if name != status.port => moved.push((status, name)),
                _ => {}
            }
        }
        if moved.is_empty() {
            return Ok(false);
        }
        self.unsettle()?;
        let clock = Clock::now();
        let kept = self.leases.all(&clock)?;
        for (status, name) in &moved {
            let mut binding = status.binding(&dir)?;
            binding.port = name.clone();
            let renamed = Status { port: name.clone(), xml: binding.to_xml(), ..(*status).clone() };
            renamed.write(&dir)?;
            for kept in kept.iter().filter(|kept| kept.index == status.index) {
                let kept = crate::learn::Kept { port: name.clone(), ..kept.clone() };
                self.leases.write(&kept, &clock)?;
            }
            tracing::info!("the port {} is called {name} now", status.port);
        }
        // Two may have exchanged their names.
        let taken = |old: &InterfaceName| moved.iter().any(|(_, name)| name == old);
        for (status, _) in moved.iter().filter(|(status, _)| !taken(&status.port)) {
            status.remove(&dir)?;
            self.leases.remove(&status.port)?;
        }
        Ok(true)
    }
}
