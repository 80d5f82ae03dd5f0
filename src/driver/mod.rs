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
//! zone and settings. It collects what fails and goes on. All commands hold one lock, so that those
//! at the same time come one after the other.
//!
//! A kernel setting that several networks need was changed by the first of them; when that one goes
//! its record is handed to one that still needs it, and the last one puts the old value back.

mod config;
mod conflicts;
mod error;
mod rules;
mod status;
mod step;
mod zone;

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::Flock;

use crate::dnsmasq::{self, Dnsmasq, Files, Leases};
use crate::facts::{FirewallScript, Target};
use crate::firewall::{Backend, Tools, Transaction, scripts, transact};
use crate::link::Netlink;
use crate::link::sysctl::{Restore, Sysctls};
use crate::network::{self, Network, NetworkName, NetworkStore, check_against};
use crate::probe::program::find;
use crate::rules::for_network;
use crate::state;
use zone::Zones;

pub use config::ConfigError;
pub use conflicts::{Checked, ConflictsError};
pub use error::DriverError;
pub use rules::Untaken;
pub use status::Status;
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
}

impl Driver {
    /// A driver; nothing is looked at or made yet.
    pub fn new(settings: DriverSettings) -> Self {
        Driver {
            store: NetworkStore::new(&settings.config_dir),
            tools: Tools::find(&settings.path),
            sysctls: Sysctls::new(Path::new("/proc/sys")),
            settings,
        }
    }

    fn dir(&self) -> PathBuf {
        self.settings.state_dir.join("networks")
    }

    /// One command at a time.
    fn lock(&self) -> Result<Flock<OwnedFd>, DriverError> {
        let dir = self.dir();
        state::lock(&dir).map_err(|source| DriverError::State { dir, source })
    }

    /// The networks that run.
    ///
    /// # Errors
    /// [`DriverError::Status`] when one's status cannot be read.
    pub fn active(&self) -> Result<Vec<Status>, DriverError> {
        let all = status::all(&self.dir())?;
        Ok(all.into_iter().filter(|status| status.complete).collect())
    }

    /// What a guest that joins a network has to know. For ordinary users, too.
    ///
    /// # Errors
    /// [`DriverError`]: there is no such network, it does not run, its status cannot be read, or its
    /// bridge is gone.
    pub async fn target(&self, name: &NetworkName) -> Result<Target, DriverError> {
        let active = status::all(&self.dir())
            .map_err(|source| DriverError::BridgeUnknown { name: name.clone(), source })?;
        let named = |status: &Status| status.complete && status.name == *name;
        let Some(status) = active.into_iter().find(named) else {
            self.store.get(name)?;
            return Err(DriverError::Inactive(name.clone()));
        };
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

    /// Starts a network. Returns what the caller should know, a sentence each.
    ///
    /// # Errors
    /// [`DriverError`]; then the host is as it was before.
    pub async fn start(&self, name: &NetworkName) -> Result<Vec<String>, DriverError> {
        let _lock = self.lock()?;
        let mut notes = self.collect().await?;
        let network = self.store.get(name)?.network;
        let others = self.active()?;
        if others.iter().any(|status| status.name == *name) {
            return Err(DriverError::Active(name.clone()));
        }
        let netlink = Netlink::open()?;
        let host = netlink.host().await?;
        self.check(&network, &others, &host)?;
        let rulesets = self.rulesets(&network)?;
        let files = Files::in_dir(&self.dir().join(name.as_str()));
        let served = config::served(&network, files.clone())?;
        let dnsmasq = served.as_ref().map(|_| self.dnsmasq()).transpose()?;
        let mut zones = Zones::ready(&self.settings.system_bus).await?;
        let zone = match &mut zones {
            Some(zones) => zones.change(&network).await?,
            None => zone::without_firewalld(&network)?,
        };

        let mut status = Status::new(&network, &self.dir().join(name.as_str()));
        let begun = step::Begun { driver: self, netlink: &netlink, host: &host };
        let done = async {
            status.write()?;
            begun.link(&network, &mut status).await?;
            if let (Some(zones), Some(zone)) = (&mut zones, zone) {
                zones.put(zone, &mut status).await?;
            }
            begun.settings(&network, &mut status)?;
            if !rulesets.is_empty() {
                let add = [rulesets];
                let transaction = Transaction { remove: &[], add: &add, others: in_nft(&others) };
                let backends = self.backends(&others);
                let record = |backend, mut added: Vec<_>| {
                    (status.backend, status.firewall) = (Some(backend), added.pop());
                    status.write()
                };
                if let Err(error) = self.set_rules(&backends, &transaction, record).await {
                    if error.is_refusal() {
                        status.firewall = None;
                    }
                    return Err(error);
                }
            }
            if let (Some(program), Some(config)) = (dnsmasq, served) {
                status.dnsmasq = true;
                status.write()?;
                Dnsmasq::start(&program, &config).await?;
            }
            status.complete = true;
            status.write()?;
            Ok(())
        };
        match done.await {
            Ok(()) => Ok(notes),
            Err(error) => {
                notes.extend(self.undo(&status, &others).await);
                for note in notes {
                    tracing::warn!("{note}");
                }
                Err(error)
            }
        }
    }

    fn check(
        &self,
        network: &Network,
        others: &[Status],
        host: &crate::link::HostNet,
    ) -> Result<(), DriverError> {
        let name = &network.name;
        let running: Vec<Network> = others.iter().filter_map(Status::network).collect();
        check_against(network, &running)
            .map_err(|problem| DriverError::Beside { name: name.clone(), what: problem.what })?;
        let bridge = &network.bridge.name;
        if host.link(bridge).is_some() {
            return Err(DriverError::Bridge { name: name.clone(), bridge: bridge.clone() });
        }
        for subnet in network.subnets() {
            if subnet.addr().is_ipv6() && !self.has_ipv6()? {
                return Err(DriverError::NoIpv6 { name: name.clone(), subnet });
            }
            if let Some(conflict) = host.conflict(subnet, None) {
                return Err(DriverError::Subnet { name: name.clone(), subnet, conflict });
            }
        }
        Ok(())
    }

    fn dnsmasq(&self) -> Result<PathBuf, DriverError> {
        let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let dirs: Vec<PathBuf> = self.settings.path.iter().cloned().chain(system).collect();
        let name = OsStr::new("dnsmasq");
        let lookup = find(name, &dirs);
        match lookup.problem(name, dnsmasq::INSTALL) {
            Some(problem) => Err(DriverError::NoDnsmasq(problem)),
            None => Ok(lookup.found().unwrap_or_else(|| name.into())),
        }
    }

    /// Ends a network. Returns what could not be undone, a sentence each.
    ///
    /// # Errors
    /// [`DriverError`] when it does not run, or nothing could be begun.
    pub async fn destroy(&self, name: &NetworkName) -> Result<Vec<String>, DriverError> {
        let _lock = self.lock()?;
        let mut left = self.collect().await?;
        let (mut mine, others): (Vec<_>, Vec<_>) =
            self.active()?.into_iter().partition(|status| status.name == *name);
        let Some(mut status) = mine.pop() else { return Err(DriverError::Inactive(name.clone())) };
        // From here on it is for the next command to go on, where this one is killed.
        status.complete = false;
        status.write()?;
        left.extend(self.undo(&status, &others).await);
        Ok(left)
    }

    /// Takes back what starts that were killed left. Returns what could not be undone.
    async fn collect(&self) -> Result<Vec<String>, DriverError> {
        let (complete, broken): (Vec<_>, Vec<_>) =
            status::all(&self.dir())?.into_iter().partition(|status| status.complete);
        let mut left = Vec::new();
        for status in &broken {
            tracing::info!("the start of the network {} was cut short, and is undone", status.name);
            left.extend(self.undo(status, &complete).await);
        }
        status::sweep(&self.dir())?;
        Ok(left)
    }

    /// Undoes a network's steps, last first; goes on over failures and returns them.
    async fn undo(&self, status: &Status, others: &[Status]) -> Vec<String> {
        let mut left = Vec::new();
        if status.dnsmasq {
            let files = Files::in_dir(&status.dir);
            left.extend(
                Dnsmasq::stop(&files, Leases::Remove).await.iter().map(ToString::to_string),
            );
        }
        // The links first: from then on the guests reach nothing, whatever the rules say.
        match Netlink::open() {
            Ok(netlink) => {
                let failed = netlink.undo_all(&status.links).await;
                left.extend(failed.iter().map(ToString::to_string));
            }
            Err(error) => left.push(error.to_string()),
        }
        let remove = status.rules();
        if let Some(backend) = remove.last().map(|recorded| recorded.backend()) {
            let transaction = Transaction { remove: &remove, add: &[], others: in_nft(others) };
            if let Err(error) = transact(&self.tools, backend, &transaction).await {
                left.push(error.to_string());
            }
        }
        if let Err(error) = zone::undo(&self.settings.system_bus, status).await {
            left.push(error.to_string());
        }
        for change in status.settings.iter().rev() {
            let heir = others.iter().find(|other| {
                other.network().is_some_and(|n| config::settings(&n).contains(&change.key))
            });
            match self.sysctls.undo(change, heir.is_some()) {
                Ok(Restore::HandOver) => {
                    if let Some(Err(error)) = heir.map(|heir| heir.inherit(change)) {
                        left.push(error.to_string());
                    }
                }
                Ok(_) => {}
                Err(error) => left.push(error.to_string()),
            }
        }
        if let Err(error) = status.remove() {
            left.push(error.to_string());
        }
        left
    }

    /// Starts every network that is marked for it and does not run.
    pub async fn autostart(&self) -> Vec<Result<NetworkName, DriverError>> {
        let (defined, broken) = match self.store.list() {
            Ok(list) => list,
            Err(error) => return vec![Err(error.into())],
        };
        let mut results: Vec<_> =
            broken.into_iter().map(|broken| Err(DriverError::Store(broken.error))).collect();
        for definition in defined.into_iter().filter(|definition| definition.autostart) {
            let name = definition.network.name;
            match self.start(&name).await {
                Ok(notes) => {
                    for note in notes {
                        tracing::info!("{note}");
                    }
                    results.push(Ok(name));
                }
                Err(DriverError::Active(_)) => {}
                Err(error) => results.push(Err(error)),
            }
        }
        results
    }

    /// Puts back the rules of all running networks in one transaction, by the backend that the
    /// settings name now, a dnsmasq that is gone, and firewalld's zones. Returns what was put back, a
    /// sentence each.
    ///
    /// # Errors
    /// [`DriverError`]; the rules are as they were before, or they are there and what it names is
    /// not.
    pub async fn reload(&self) -> Result<Vec<String>, DriverError> {
        let _lock = self.lock()?;
        let mut notes = self.collect().await?;
        let mut running = self.active()?;
        // First: a firewalld that is not done with its start or reload may remove rules yet.
        let zones = match running.is_empty() {
            true => Ok(None),
            false => Zones::ready(&self.settings.system_bus).await,
        };
        let (mut ruled, mut rulesets) = (Vec::new(), Vec::new());
        for status in &mut running {
            let network = status.network().ok_or_else(|| status::broken(&status.dir))?;
            let own = self.rulesets(&network)?;
            // An open network has none.
            if !own.is_empty() {
                ruled.push(status);
                rulesets.push(own);
            }
        }
        if !ruled.is_empty() {
            // What works is found out anew, the first first.
            let backends = self.backends(&[]);
            let before: Vec<_> = ruled.iter().map(|status| status.rules()).collect();
            let remove = before.concat();
            let transaction = Transaction { remove: &remove, add: &rulesets, others: false };
            let record = |backend, added: Vec<_>| {
                for ((status, added), before) in ruled.iter_mut().zip(added).zip(&before) {
                    status.replaced = before.iter().filter(|b| **b != added).cloned().collect();
                    (status.backend, status.firewall) = (Some(backend), Some(added));
                    status.write()?;
                }
                Ok(())
            };
            let backend = match self.set_rules(&backends, &transaction, record).await {
                Ok(backend) => backend,
                Err(error) if error.is_refusal() => {
                    for (status, before) in ruled.into_iter().zip(before) {
                        status.restore(before)?;
                    }
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            for status in ruled {
                if !status.replaced.is_empty() {
                    status.replaced.clear();
                    status.write()?;
                }
                notes.push(format!(
                    "the rules of the network {} are there ({backend})",
                    status.name
                ));
            }
        }
        let zoned = match zones {
            Ok(Some(mut zones)) => zones.put_back(&mut running).await,
            Ok(None) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        };
        for status in running.iter().filter(|status| status.dnsmasq) {
            let files = Files::in_dir(&status.dir);
            if Dnsmasq::find(&files).is_some() {
                continue;
            }
            let network = status.network().ok_or_else(|| status::broken(&status.dir))?;
            if let Some(config) = config::served(&network, files)? {
                Dnsmasq::start(&self.dnsmasq()?, &config).await?;
                notes.push(format!(
                    "dnsmasq of the network {} was gone and runs again",
                    status.name
                ));
            }
        }
        notes.extend(zoned?);
        Ok(notes)
    }
}

/// Whether these networks have rules in nftables, whose tables must stay then.
fn in_nft(others: &[Status]) -> bool {
    others.iter().flat_map(Status::rules).any(|rules| rules.backend() == Backend::Nftables)
}

/// The definition in a status, as XML.
fn parse(xml: &str) -> Option<Network> {
    network::parse(xml.as_bytes(), None).ok().map(|parsed| parsed.network)
}
