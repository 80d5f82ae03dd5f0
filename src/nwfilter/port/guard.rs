//! The guard of ports: closes ports with certain names until they have a filter.
//!
//! The record `nwfilter/guard.json` below the state directory has the rules of the guard and the
//! backend that holds them. It is written before the guard is set, and removed after the guard is
//! removed. While it exists, every filter of a port is in the backend of the guard, because the
//! guard of one backend does not see the filters of the other. A reload sets the guard again, and
//! moves it to the backend that nwfilter.conf sets.
//!
//! No end of a process removes the guard: ports without a filter stay closed until
//! [`Bindings::remove_guard`].

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::interface_names::Ports;
use super::lock::Lock;
use super::{BindingError, Bindings, PortStatus};
use crate::firewall::FirewallBackend;
use crate::firewall::port_guard::{self, GuardRule};
use crate::sys::flock::{Flock, FlockArg};
use crate::sys::state_file::{self, StateFileError};
use crate::types::{InterfaceName, error_text};

/// The version of the file format.
const VERSION: u32 = 1;

/// The record of the guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortGuard {
    version: u32,
    /// The rules.
    pub rules: Vec<GuardRule>,
    /// The backend of the guard.
    pub backend: FirewallBackend,
    /// Whether the other backend may have a guard as well, while the guard moves.
    #[serde(default)]
    moves: bool,
}

/// Shows that a process watches ports. The lock is free once the process has ended.
#[derive(Debug)]
pub struct WatchLock {
    _lock: Flock<OwnedFd>,
}

impl PortGuard {
    /// Returns whether a port without a filter is closed; `bridge` is its bridge.
    pub fn closes(&self, port: &InterfaceName, bridge: Option<&InterfaceName>) -> bool {
        let is_about = |rule: &GuardRule| {
            rule.port.matches(port.as_str())
                && rule.bridge.as_ref().is_none_or(|own| Some(own) == bridge)
        };
        self.rules.iter().any(is_about)
    }
}

impl Bindings {
    pub(super) fn guard_path(&self) -> PathBuf {
        self.settings.state_dir.join("nwfilter").join("guard.json")
    }

    /// Returns the guard of ports; `None` if there is none.
    ///
    /// # Errors
    /// [`BindingError::GuardRecord`] or [`BindingError::PortStatus`] if the record cannot be used.
    pub fn guard(&self) -> Result<Option<PortGuard>, BindingError> {
        match state_file::read_version(&self.guard_path(), VERSION) {
            Err(StateFileError::Damaged { path, what }) => {
                Err(BindingError::GuardRecord { path, what })
            }
            read => Ok(read?),
        }
    }

    /// Returns the guard, and whether its record is damaged. Then both backends may have a guard:
    /// its names are known, and its rules are not.
    fn guard_or_damage(&self) -> Result<(Option<PortGuard>, bool), BindingError> {
        match self.guard() {
            Err(BindingError::GuardRecord { .. }) => Ok((None, true)),
            guard => Ok((guard?, false)),
        }
    }

    /// Returns the guard for a change of ports; an unusable record is logged, and counts as a guard
    /// that keeps the tables.
    pub(super) fn guard_of_change(&self) -> (bool, Option<FirewallBackend>) {
        match self.guard() {
            Ok(guard) => (guard.is_some(), guard.map(|guard| guard.backend)),
            Err(error) => {
                tracing::warn!("{}", error_text(&error));
                (true, None)
            }
        }
    }

    /// Closes the ports that these rules name until they have a filter, in place of an earlier
    /// guard, and sets the rules of all ports again. Every filter is then in the backend of the
    /// guard: the one that nwfilter.conf sets, or nftables.
    ///
    /// # Errors
    /// [`BindingError`]; an earlier guard then stays.
    pub async fn set_guard(&self, rules: &[GuardRule]) -> Result<(), BindingError> {
        let (lock, ports) = self.lock().await?;
        let ports = self.complete_interrupted(&lock, ports).await?;
        let backend = self.settings.firewall_backend.unwrap_or(FirewallBackend::Nftables);
        let failed = |error| BindingError::Guard { error };
        port_guard::check_guard(&lock, backend, rules).await.map_err(failed)?;
        let (old, is_damaged) = self.guard_or_damage()?;
        let moves =
            is_damaged || old.as_ref().is_some_and(|old| old.moves || old.backend != backend);
        let guard = PortGuard { version: VERSION, rules: rules.to_vec(), backend, moves };
        self.write_guard(&guard)?;
        // First the guard: a filter whose rules cannot be set must leave no port open.
        if let Err(error) = self.rebuild_guard(&lock).await {
            let is_as_before =
                matches!(&error, BindingError::Guard { error } if error.left_as_before());
            if is_as_before && !is_damaged {
                self.restore_guard(old.as_ref())?;
            }
            return Err(error);
        }
        self.rebuild(&lock, ports).await.map(drop)
    }

    /// Sets the guard of the record again, after the rules of all ports were set. The caller holds
    /// the lock.
    pub(super) async fn rebuild_guard(&self, lock: &Lock) -> Result<(), BindingError> {
        let Some(guard) = self.guard()? else { return Ok(()) };
        let backend = self.settings.firewall_backend.unwrap_or(guard.backend);
        let moves = guard.moves || backend != guard.backend;
        let guard = PortGuard { backend, moves, ..guard };
        if moves {
            self.write_guard(&guard)?;
        }
        let Ports { live, .. } = self.ports()?;
        let failed = |error| BindingError::Guard { error };
        let bound = in_backend(&live, backend);
        let set = port_guard::set_guard(lock, backend, &guard.rules, &bound, true);
        set.await.map_err(failed)?;
        if moves {
            let other = other(backend);
            let is_used = lock.has_damaged() || !in_backend(&live, other).is_empty();
            port_guard::set_guard(lock, other, &[], &[], is_used).await.map_err(failed)?;
            self.write_guard(&PortGuard { moves: false, ..guard })?;
        }
        Ok(())
    }

    /// Holds a lock while this process watches ports: the guard cannot be removed meanwhile,
    /// because later ports would be open until this process binds them.
    ///
    /// # Errors
    /// [`BindingError::StateDir`].
    pub fn hold_guard(&self) -> Result<WatchLock, BindingError> {
        self.watch_lock(FlockArg::LockShared)
    }

    fn watch_lock(&self, how: FlockArg) -> Result<WatchLock, BindingError> {
        let dir = self.settings.state_dir.join("nwfilter");
        let opened = state_file::lock_file_named(&dir, "watch.lock");
        let locked = opened
            .and_then(|file| Flock::lock(file, how).map_err(|(_, errno)| io::Error::from(errno)));
        match locked {
            Ok(lock) => Ok(WatchLock { _lock: lock }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(BindingError::Watched),
            Err(source) => Err(BindingError::StateDir { dir, source }),
        }
    }

    /// Removes the guard of ports: a port without a filter is open then. Returns whether there was
    /// one.
    ///
    /// # Errors
    /// [`BindingError::Watched`] while a process watches ports, or another [`BindingError`]; the
    /// guard may stay, and the command can be repeated.
    pub async fn remove_guard(&self) -> Result<bool, BindingError> {
        let (guard, is_damaged) = self.guard_or_damage()?;
        let backend = match &guard {
            Some(guard) => guard.backend,
            None if is_damaged => FirewallBackend::Nftables,
            None => return Ok(false),
        };
        let _no_watcher = self.watch_lock(FlockArg::LockExclusiveNonblock)?;
        let (lock, ports) = self.lock().await?;
        let Ports { live, stale, .. } = self.complete_interrupted(&lock, ports).await?;
        let backends = [backend, other(backend)];
        let count = if guard.is_none_or(|guard| guard.moves) { 2 } else { 1 };
        for backend in backends.into_iter().take(count) {
            let is_used = lock.has_damaged()
                || !in_backend(&live, backend).is_empty()
                || !in_backend(&stale, backend).is_empty();
            let removed = port_guard::set_guard(&lock, backend, &[], &[], is_used);
            removed.await.map_err(|error| BindingError::Guard { error })?;
        }
        let path = self.guard_path();
        state_file::remove(&path).map_err(StateFileError::io("remove", &path))?;
        Ok(true)
    }

    /// Returns a clause about the part of the guard that the kernel lacks; `None` if the guard is
    /// complete, or if there is none.
    ///
    /// # Errors
    /// [`BindingError`] if the record or the rules cannot be read.
    pub async fn missing_guard(&self) -> Result<Option<String>, BindingError> {
        let Some(guard) = self.guard()? else { return Ok(None) };
        let bound = in_backend(&self.list()?, guard.backend);
        let missing = port_guard::missing_guard(&self.tools, guard.backend, &guard.rules, &bound);
        missing.await.map_err(|error| BindingError::Guard { error })
    }

    /// Restores the record of the guard that is still set.
    fn restore_guard(&self, old: Option<&PortGuard>) -> Result<(), BindingError> {
        let path = self.guard_path();
        match old {
            Some(old) => self.write_guard(old),
            None => Ok(state_file::remove(&path).map_err(StateFileError::io("remove", &path))?),
        }
    }

    fn write_guard(&self, guard: &PortGuard) -> Result<(), BindingError> {
        Ok(state_file::write(&self.guard_path(), guard)?)
    }
}

fn other(backend: FirewallBackend) -> FirewallBackend {
    match backend {
        FirewallBackend::Nftables => FirewallBackend::Iptables,
        FirewallBackend::Iptables => FirewallBackend::Nftables,
    }
}

/// Returns the ports that have rules in this backend.
fn in_backend(ports: &[PortStatus], backend: FirewallBackend) -> Vec<InterfaceName> {
    let is_in =
        |status: &&PortStatus| status.recorded.iter().any(|recorded| recorded.backend() == backend);
    ports.iter().filter(is_in).map(|status| status.port.clone()).collect()
}
