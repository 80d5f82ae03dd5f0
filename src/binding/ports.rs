//! Which interfaces the statuses are about.
//!
//! A port is its interface's number; its name may change. nftables' rules go with the number and
//! stay; those of iptables know names alone, so the next command that changes something writes the
//! new name down and makes all rules anew ([`super::unsettled`]).
//!
//! Numbers are those of one network namespace, and so is the state directory: the file that is locked
//! names the namespace. Another one has a directory of its own.

use std::fs;

use super::status::{self, Status};
use super::{BindingError, Bindings, now};
use crate::process::{Interfaces, network_namespace};
use crate::state::LOCK;
use crate::types::InterfaceName;

impl Bindings {
    /// The statuses of ports that are there, under the names that they have now, and those of which
    /// only rules are left.
    pub(super) fn statuses(&self) -> Result<(Vec<Status>, Vec<Status>), BindingError> {
        let dir = self.dir();
        let failed = |source| BindingError::State { dir: dir.clone(), source };
        let interfaces = Interfaces::open().map_err(failed)?;
        let (mut live, mut stale) = (Vec::new(), Vec::new());
        for status in self.all()? {
            match interfaces.name(status.index).map_err(failed)? {
                Some(port) if status.complete => live.push(Status { port, ..status }),
                _ => stale.push(status),
            }
        }
        live.sort_by(|a, b| a.port.cmp(&b.port));
        Ok((live, stale))
    }

    /// The status of a port, complete or not.
    pub(super) fn status(&self, port: &InterfaceName) -> Result<Option<Status>, BindingError> {
        let (live, stale) = self.statuses()?;
        Ok(live.into_iter().chain(stale).find(|status| status.port == *port))
    }

    /// Every status as it is written.
    fn all(&self) -> Result<Vec<Status>, BindingError> {
        let all = status::all(&self.dir())?;
        match all.is_empty() || self.is_here()? {
            true => Ok(all),
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

    /// For whoever has just got the lock: makes the directory this namespace's, where it is not
    /// another's, and writes down what ports are called now.
    pub(super) fn settle_names(&self) -> Result<(), BindingError> {
        let dir = self.dir();
        let failed = |source| BindingError::State { dir: dir.clone(), source };
        let all = self.all()?;
        if all.is_empty() {
            let path = dir.join(LOCK);
            let here = network_namespace().map_err(failed)?;
            if fs::read_to_string(&path).map_err(failed)? != here {
                fs::write(path, here).map_err(failed)?;
            }
        }
        let interfaces = Interfaces::open().map_err(failed)?;
        let mut moved = Vec::new();
        for status in all.into_iter().filter(|status| status.complete) {
            match interfaces.name(status.index).map_err(failed)? {
                Some(name) if name != status.port => moved.push((status, name)),
                _ => {}
            }
        }
        if moved.is_empty() {
            return Ok(());
        }
        self.unsettle()?;
        let kept = self.leases.all(now())?;
        for (status, name) in &moved {
            let mut binding = status.binding(&dir)?;
            binding.port = name.clone();
            Status { port: name.clone(), xml: binding.to_xml(), ..status.clone() }.write(&dir)?;
            for kept in kept.iter().filter(|kept| kept.index == status.index) {
                self.leases.write(&crate::learn::Kept { port: name.clone(), ..kept.clone() })?;
            }
            tracing::info!("the port {} is called {name} now", status.port);
        }
        // Two may have exchanged their names.
        let taken = |old: &InterfaceName| moved.iter().any(|(_, name)| name == old);
        for (status, _) in moved.iter().filter(|(status, _)| !taken(&status.port)) {
            status.remove(&dir)?;
            self.leases.remove(&status.port)?;
        }
        Ok(())
    }
}
