//! Bringing virtual networks up and down: bridge, addresses, kernel settings, firewall, dnsmasq.
//!
//! # Theory of operation
//!
//! A network that runs has a directory `networks/NAME` below the state directory, with dnsmasq's
//! files and a [`Status`]: the definition it was started with, and everything that takes back what
//! was done, in the words of the netlaunch that did it. [`Driver::start`] writes into the status what
//! takes a step back before it does the step, and undoing what was not done does nothing; so
//! whenever a start or an end is killed, the next command takes back what is left.
//!
//! A start does its steps in the order bridge, addresses, routes, firewalld's zone, settings,
//! firewall, dnsmasq; when one fails those before it are undone, and the host is as it was. Undoing,
//! then and at a destroy, ends dnsmasq, removes the links, and then what only guests needed: rules,
//! zone and settings. It goes on over failures, and the status keeps the steps that failed, for the
//! next command. All commands hold one lock, so that those at the same time come one after the other.
//!
//! A status belongs to the network namespace in which its network was started ([`Place`]). Commands
//! in another one leave it alone.
//!
//! A kernel setting that several networks need was changed by the first of them; when that one goes
//! its record is handed to one that still needs it, and the last one puts the old value back.

mod config;
mod conflicts;
mod end;
mod error;
mod place;
mod reload;
mod rules;
mod spare;
mod start;
mod status;
mod step;
mod zone;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::facts::{FirewallScript, Target};
use crate::firewall::{Backend, LockedTools, Tools, scripts};
use crate::link::Netlink;
use crate::link::sysctl::Sysctls;
use crate::network::{self, Network, NetworkName, NetworkStore};
use crate::printable::steers;
use crate::rules::for_network;
use crate::state;

pub use config::ConfigError;
pub use conflicts::{Checked, ConflictsError};
pub use error::DriverError;
pub use place::{Place, Whereabouts};
pub use rules::Untaken;
pub use status::{Damaged, Status};
pub use zone::ZoneError;

/// Where a driver finds everything.
#[derive(Debug, Clone)]
pub struct DriverSettings {
    /// The configuration directory, with the definitions below it.
    pub config_dir: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// The directories of PATH.
    pub path: Vec<PathBuf>,
    /// The address of D-Bus's system bus, on which firewalld is, where it runs.
    pub system_bus: String,
    /// The firewall backend that network.conf names; `None` is the first usable one.
    pub firewall_backend: Option<Backend>,
}

/// Starts and ends virtual networks.
#[derive(Debug, Clone)]
pub struct Driver {
    settings: DriverSettings,
    store: NetworkStore,
    tools: Tools,
    sysctls: Sysctls,
    lock_limit: Duration,
}

impl Driver {
    /// A driver; nothing is looked at or made yet.
    pub fn new(settings: DriverSettings) -> Self {
        Driver {
            store: NetworkStore::new(&settings.config_dir),
            tools: Tools::find(&settings.path),
            sysctls: Sysctls::new(Path::new("/proc/sys")),
            settings,
            lock_limit: state::LOCK_LIMIT,
        }
    }

    /// The same; it gives up when another command has held the lock for `limit`.
    pub fn lock_limit(self, limit: Duration) -> Self {
        Driver { lock_limit: limit, ..self }
    }

    fn dir(&self) -> PathBuf {
        self.settings.state_dir.join("networks")
    }

    /// One command at a time.
    async fn lock(&self) -> Result<LockedTools, DriverError> {
        let dir = self.dir();
        let locked = state::lock(&dir, self.lock_limit).await;
        let locked = locked.and_then(|lock| LockedTools::new(&self.tools, lock));
        locked.map_err(|source| match source.downcast() {
            Ok(timeout) => DriverError::Locked(timeout),
            Err(source) => DriverError::State { dir, source },
        })
    }

    /// The networks that run, those in other network namespaces included
    /// ([`Status::whereabouts`]). A network whose status cannot be used is left out; see
    /// [`damaged`](Self::damaged).
    ///
    /// # Errors
    /// [`DriverError::Status`] when the directory cannot be read.
    pub fn active(&self) -> Result<Vec<Status>, DriverError> {
        let all = status::all(&self.dir())?;
        let runs = |status: &Status| status.complete && status.whereabouts() != Whereabouts::Gone;
        Ok(all.into_iter().flatten().filter(runs).collect())
    }

    /// The networks that run in this network namespace.
    fn here(&self) -> Result<Vec<Status>, DriverError> {
        let all = status::all(&self.dir())?.into_iter().flatten();
        let runs = |status: &Status| status.complete && status.whereabouts() == Whereabouts::Here;
        Ok(all.filter(runs).collect())
    }

    /// The statuses that cannot be used: damaged, not readable, or of a newer version. All commands
    /// leave these, and what their networks have, as they are.
    ///
    /// # Errors
    /// [`DriverError::Status`] when the directory cannot be read.
    pub fn damaged(&self) -> Result<Vec<Damaged>, DriverError> {
        Ok(status::all(&self.dir())?.into_iter().filter_map(Result::err).collect())
    }

    /// Refuses to act on a network whose status cannot be used.
    fn check_status(&self, name: &NetworkName) -> Result<(), DriverError> {
        let mut damaged = self.damaged()?.into_iter();
        match damaged.find(|damaged| damaged.name.as_ref() == Some(name)) {
            Some(damaged) => Err(damaged.error.into()),
            None => Ok(()),
        }
    }

    /// Whether networks other than the changed one have, or may have, rules in nftables, whose
    /// tables must stay then.
    fn in_nft(&self, changed: Option<&NetworkName>, others: &[Status]) -> bool {
        // A read of its own status that fails tells nothing about the other networks.
        let is_other = |name: Option<&NetworkName>| name.is_none() || name != changed;
        let rules = || others.iter().flat_map(Status::rules);
        rules().any(|rules| rules.backend() == Backend::Nftables)
            || self.damaged().is_ok_and(|all| all.iter().any(|one| is_other(one.name.as_ref())))
            || self.out_of_reach().is_ok_and(|all| all.iter().any(|name| is_other(Some(name))))
    }

    /// The networks of this network namespace whose dnsmasq no command in this PID namespace can
    /// end. All commands leave them as they are.
    fn out_of_reach(&self) -> Result<Vec<NetworkName>, DriverError> {
        let all = status::all(&self.dir())?.into_iter().flatten();
        Ok(all.filter(Status::is_out_of_reach).map(|status| status.name).collect())
    }

    /// Refuses to change a network that another network namespace has, or whose dnsmasq another PID
    /// namespace has.
    fn check_reach(&self, name: &NetworkName) -> Result<(), DriverError> {
        self.not_elsewhere(name)?;
        match self.out_of_reach()?.contains(name) {
            true => Err(DriverError::OutOfReach(name.clone())),
            false => Ok(()),
        }
    }

    /// Refuses a network that another network namespace has, or parts of it.
    fn not_elsewhere(&self, name: &NetworkName) -> Result<(), DriverError> {
        let all = status::all(&self.dir())?;
        match all.iter().flatten().find(|status| status.name == *name).map(Status::whereabouts) {
            Some(Whereabouts::Elsewhere(file)) => {
                Err(DriverError::Elsewhere { name: name.clone(), entry: entry(file.as_deref()) })
            }
            _ => Ok(()),
        }
    }

    /// What a guest that joins a network has to know. For ordinary users, too.
    ///
    /// # Errors
    /// [`DriverError`]: there is no such network, it does not run, its status cannot be read, or its
    /// bridge is gone.
    pub async fn target(&self, name: &NetworkName) -> Result<Target, DriverError> {
        let unknown = |source| DriverError::BridgeUnknown { name: name.clone(), source };
        let named = |status: &Status| {
            status.complete && status.name == *name && status.whereabouts() != Whereabouts::Gone
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
            return Err(DriverError::Inactive(name.clone()));
        };
        self.not_elsewhere(name)?;
        let link = Netlink::open()?.bridge(&status.bridge).await?;
        let scripts = match (status.backend, status.network()) {
            (Some(backend), Some(network)) => {
                scripts(backend, &for_network(&config::rules(&network))?)
            }
            _ => Vec::new(),
        };
        let firewall = scripts.into_iter().map(FirewallScript::from);
        Ok(Target { bridge: status.bridge, mtu: link.mtu, firewall: firewall.collect() })
    }
}

/// The shell command that enters a network namespace. A path that cannot be shown as it is, is left
/// out.
fn entry(file: Option<&Path>) -> String {
    match file.and_then(Path::to_str).filter(|file| !file.contains(steers)) {
        Some(file) => format!("nsenter --net={}", shell_words::quote(file)),
        None => "nsenter".to_owned(),
    }
}

/// The definition in a status, as XML.
fn parse(xml: &str) -> Option<Network> {
    network::parse(xml.as_bytes(), None).ok().map(|parsed| parsed.network)
}
