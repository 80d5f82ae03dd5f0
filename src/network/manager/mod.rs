//! Starts and ends virtual networks: bridge, addresses, kernel settings, firewall and dnsmasq.
//!
//! # How it works
//!
//! A running network has a directory `networks/NAME` below the state directory, with dnsmasq's
//! files and a [`NetworkStatus`] file. The status file holds the definition that the network was
//! started with, and a record that undoes each step of the start, in the format of the netlaunch
//! version that made it. [`Manager::start`] writes the record of a step before it does the step,
//! and undoing a step that was not done has no effect. So if a start or an end is killed at any
//! moment, the next command undoes the remaining steps.
//!
//! A start changes the settings of the host. Then it makes the bridge with its addresses, which
//! stays off, and sets the firewall rules at the same time. When the rules are in force, it goes on
//! in this order: firewalld's zone, bridge on, routes, dnsmasq. If a step fails, the earlier steps
//! are undone, and the host is as before. An undo, after a failed start or at a destroy, ends
//! dnsmasq and removes the links, at the same time. The rules go when the bridge is off, and zone
//! and settings go last. It continues after a failure, and the status file keeps the failed steps
//! for the next command. All commands hold one lock, so they run one after the other.
//!
//! A change of a running network (`live`) is recorded in the status file before its first step as
//! well, and the next command completes or undoes a change that was killed.
//!
//! A status file belongs to the network namespace in which its network was started
//! ([`NetworkNamespace`]). Commands in another namespace do not change it.
//!
//! A kernel setting that several networks need is changed by the first of them. When that network
//! ends, its record passes to another network that still needs the setting. The last network
//! restores the old value, unless other interfaces could use forwarding by then (`forwarding`).
//!
//! A network on a bridge of the host (`existing`) has none of these steps: its status file only
//! says that it runs.
//!
//! Other programs can remove parts of a network while it runs. `inspect` compares the host with the
//! status file and names each [`Fault`], `routing` asks the kernel where packets go, and a reload
//! (`reload`, `repair`) restores the missing parts.

mod active;
mod config;
mod conflicts;
mod end;
mod error;
mod existing;
mod fault;
mod forwarding;
mod inspect;
mod live;
mod live_part;
mod namespace;
mod port;
mod ports;
mod published;
mod publishing;
mod reload;
mod repair;
mod routing;
mod rules;
mod space_reserve;
mod start;
mod status;
mod statuses;
mod step;
mod together;
mod watch;
mod zone;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use crate::firewall::FirewallBackend;
use crate::firewall::{AppliedTexts, LockedTools, Tools, scripts};
use crate::network::{self, Network, NetworkName, NetworkStore};
use crate::sys::netlink::Netlink;
use crate::sys::netlink::sysctl::Sysctls;
use crate::sys::state_file;
use crate::types::facts::{RulesOf, TargetBridge};
use crate::types::printable::steers;
use crate::types::{PortGroupName, PortSettings};

use statuses::Statuses;

pub use config::ConfigError;
pub use conflicts::{Checked, ConflictsError};
pub use error::ManagerError;
pub use fault::{BridgeProperty, Fault};
pub use inspect::{Active, Survey};
pub use live::{PendingChange, UpdateScope, Updated};
pub use namespace::{NetworkLocation, NetworkNamespace};
pub use ports::{NetworkPort, NetworkPorts, PortGuest};
pub use published::{GuestAddress, PublishedGuest};
pub use status::{Damaged, NetworkStatus};
pub use watch::{NetworkWatch, WatchError};
pub use zone::ZoneError;

/// The directories and settings of a [`Manager`].
#[derive(Debug, Clone)]
pub struct ManagerSettings {
    /// The configuration directory, with the definitions below it.
    pub config_dir: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// The directories of PATH.
    pub path: Vec<PathBuf>,
    /// The address of the D-Bus system bus, on which firewalld is reached if it runs.
    pub system_bus: String,
    /// The firewall backend that network.conf sets. With `None`, the first usable backend is used.
    pub firewall_backend: Option<FirewallBackend>,
}

/// Starts and ends virtual networks.
#[derive(Debug, Clone)]
pub struct Manager {
    settings: ManagerSettings,
    store: NetworkStore,
    tools: Tools,
    sysctls: Sysctls,
    lock_limit: Duration,
}

impl Manager {
    /// Returns a manager; reads no state and creates no file.
    pub fn new(settings: ManagerSettings) -> Self {
        Manager {
            store: NetworkStore::new(&settings.config_dir),
            tools: Tools::find(&settings.path),
            sysctls: Sysctls::new(Path::new("/proc/sys")),
            settings,
            lock_limit: state_file::LOCK_LIMIT,
        }
    }

    /// Sets how long a command waits for the lock that another command holds.
    pub fn lock_limit(self, limit: Duration) -> Self {
        Manager { lock_limit: limit, ..self }
    }

    /// Makes a reload leave out each text that nft applied in the last reload, if nothing has
    /// changed a rule since.
    pub fn applying(mut self, applied: Option<Arc<AppliedTexts>>) -> Self {
        self.tools.applied = applied;
        self
    }

    fn dir(&self) -> PathBuf {
        self.settings.state_dir.join("networks")
    }

    /// Takes the lock and reads the status files, which only the holder of the lock changes.
    async fn lock(&self) -> Result<(LockedTools, Statuses), ManagerError> {
        let dir = self.dir();
        let locked = state_file::lock(&dir, self.lock_limit).await;
        let locked = locked.and_then(|lock| LockedTools::new(&self.tools, lock));
        let tools = locked.map_err(|source| match source.downcast() {
            Ok(timeout) => ManagerError::Locked(timeout),
            Err(source) => ManagerError::State { dir, source },
        })?;
        Ok((tools, self.statuses()?))
    }

    /// Reads the status files of all networks.
    fn statuses(&self) -> Result<Statuses, ManagerError> {
        Ok(Statuses::read(&self.dir())?)
    }

    /// Returns the running networks, including those in other network namespaces
    /// ([`NetworkStatus::location`]). A network whose status file cannot be used is left out; see
    /// [`damaged`](Self::damaged).
    ///
    /// # Errors
    /// [`ManagerError::StatusFile`] if the directory cannot be read.
    pub fn active(&self) -> Result<Vec<NetworkStatus>, ManagerError> {
        Ok(self.statuses()?.active().into_iter().map(|(status, _)| status).collect())
    }

    /// Returns the status files that cannot be used: damaged, not readable, or of a newer version.
    /// No command changes these files or the parts of their networks.
    ///
    /// # Errors
    /// [`ManagerError::StatusFile`] if the directory cannot be read.
    pub fn damaged(&self) -> Result<Vec<Damaged>, ManagerError> {
        Ok(self.statuses()?.take_damaged())
    }

    /// Returns the data that a guest needs to join a network. Ordinary users can call this, too.
    ///
    /// # Errors
    /// [`ManagerError`]: there is no such network, it does not run, its status cannot be read, its
    /// bridge is gone, or it has no such port group.
    pub async fn target(
        &self,
        name: &NetworkName,
        group: Option<&PortGroupName>,
    ) -> Result<TargetBridge, ManagerError> {
        let unknown = |source| ManagerError::BridgeUnknown { name: name.clone(), source };
        let named = |status: &NetworkStatus| {
            status.complete && status.name == *name && status.location() != NetworkLocation::Gone
        };
        let (mut status, mut damaged) = (None, None);
        for one in status::all(&self.dir()).map_err(unknown)? {
            match one {
                Ok(one) if named(&one) => status = Some(one),
                Err(one) if one.name.as_ref() == Some(name) => damaged = Some(one.error),
                _ => {}
            }
        }
        let Some(status) = status else {
            if let Some(error) = damaged {
                return Err(unknown(error));
            }
            self.store.get(name)?;
            return Err(ManagerError::Inactive(name.clone()));
        };
        if let NetworkLocation::OtherNamespace(file) = status.location() {
            let entry = entry(file.as_deref());
            return Err(ManagerError::OtherNamespace { name: name.clone(), entry });
        }
        let network = status.network();
        let port = match &network {
            Some(network) => port::settings(network, group)?,
            None => PortSettings::default(),
        };
        let link = Netlink::open()?.bridge(&status.bridge).await?;
        let scripts = match (status.backend, network) {
            (Some(backend), Some(network)) => {
                scripts(backend, &self.rulesets(&network, &status.published)?)
            }
            _ => Vec::new(),
        };
        let firewall = scripts.into_iter().map(|script| script.shown(RulesOf::Network));
        let (bridge, firewall) = (status.bridge, firewall.collect());
        Ok(TargetBridge { bridge, mtu: link.mtu, port, firewall })
    }
}

/// Returns the shell command that enters a network namespace. It leaves out a path that cannot be
/// printed exactly.
fn entry(file: Option<&Path>) -> String {
    match file.and_then(Path::to_str).filter(|file| !file.contains(steers)) {
        Some(file) => format!("nsenter --net={}", shell_words::quote(file)),
        None => "nsenter".to_owned(),
    }
}

/// Parses the definition in a status file.
fn parse(xml: &str) -> Option<Network> {
    network::parse(xml.as_bytes(), None).ok().map(|parsed| parsed.network)
}
