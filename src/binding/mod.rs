//! Filters on ports: put in force, changed, put back, taken away.
//!
//! # Theory of operation
//!
//! Each port that has a filter has a [`Status`] below the state directory. A change of any number
//! of ports is made in this order:
//!
//! 1. every port's rules are compiled and rendered; a mistake ends here;
//! 2. the statuses say what removes the old rules and the new ones; that of a new port is not
//!    complete;
//! 3. the firewall takes all of it as one transaction ([`PortPlan::apply`]);
//! 4. the statuses say what removes the new rules.
//!
//! So whatever was cut short is known, and the next command removes it. A change that fails in 3
//! leaves the rules of before; the statuses are put back.
//!
//! Every command first collects what has no port any more and what was cut short, in the same
//! transaction as its own work. A port is its interface's number: the kernel does not use one again,
//! so an interface of the old name is a new port without a filter.
//!
//! All commands hold one lock, so that those at the same time come one after the other; definitions
//! of filters that are in use change under it, too ([`Bindings::commit`]), together with the rules
//! of every port that uses them, or not at all.

mod change;
mod error;
mod status;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::fcntl::Flock;
use nix::net::if_::if_nametoindex;

use crate::firewall::port_nft::Extras;
use crate::firewall::{
    Backend, Counters, PortCounts, PortFilter, PortPlan, PortRecorded, Script, Tools,
};
use crate::nwfilter::{
    Binding, Change, Compiled, Compiler, FilterName, FilterStore, Filters, RulesError,
    VariableName, Warning, reachable,
};
use crate::process::Interfaces;
use crate::state;
use crate::types::InterfaceName;

use change::Wanted;
pub use error::BindingError;
pub use status::Status;

/// What the driver of filters is told.
#[derive(Debug, Clone)]
pub struct BindingSettings {
    /// The configuration directory, with the definitions below it.
    pub config_dir: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// The directories of PATH.
    pub path: Vec<PathBuf>,
    /// The firewall backend that nwfilter.conf names; `None` is the first that can do it.
    pub firewall_backend: Option<Backend>,
    /// Frames of bound ports are shown by `nft monitor trace`.
    pub enable_trace: bool,
    /// Rules and ports count.
    pub enable_counters: bool,
}

/// A port, and the binding that its status has as a document.
type BoundPort = (Status, Binding);

/// The filters on this host's ports.
#[derive(Debug, Clone)]
pub struct Bindings {
    settings: BindingSettings,
    store: FilterStore,
    tools: Tools,
}

impl Bindings {
    /// The driver; nothing is looked at or made yet.
    pub fn new(settings: BindingSettings) -> Self {
        Bindings {
            store: FilterStore::new(&settings.config_dir),
            tools: Tools::find(&settings.path),
            settings,
        }
    }

    /// The filters' definitions.
    pub fn store(&self) -> &FilterStore {
        &self.store
    }

    fn dir(&self) -> PathBuf {
        self.settings.state_dir.join("nwfilter").join("bindings")
    }

    /// One command at a time.
    fn lock(&self) -> Result<Flock<OwnedFd>, BindingError> {
        let dir = self.dir();
        state::lock(&dir).map_err(|source| BindingError::State { dir, source })
    }

    /// The ports that have a filter, by name.
    ///
    /// # Errors
    /// [`BindingError::Status`] when one's status cannot be read.
    pub fn list(&self) -> Result<Vec<Status>, BindingError> {
        Ok(self.statuses()?.0)
    }

    /// The filter of a port.
    ///
    /// # Errors
    /// [`BindingError::Unbound`] when it has none.
    pub fn get(&self, port: &InterfaceName) -> Result<Status, BindingError> {
        let found = self.list()?.into_iter().find(|status| status.port == *port);
        found.ok_or_else(|| BindingError::Unbound(port.clone()))
    }

    /// The bindings of statuses.
    ///
    /// # Errors
    /// [`BindingError::Status`] when one is damaged.
    pub fn binding(&self, status: &Status) -> Result<Binding, BindingError> {
        Ok(status.binding(&self.dir())?)
    }

    /// What the filters of these ports counted, by their interfaces' numbers. Ports without counters
    /// are left out, and so are all when nft cannot tell, which is a warning. nft runs once, or not
    /// at all where no port has any.
    pub async fn counts(&self, ports: &[Status]) -> BTreeMap<u32, PortCounts> {
        let objects: Vec<_> = ports
            .iter()
            .flat_map(|status| &status.recorded)
            .filter_map(|recorded| match recorded {
                PortRecorded::Nftables(objects) => Some(objects),
                PortRecorded::Iptables { .. } => None,
            })
            .filter(|objects| !objects.counters.is_empty())
            .collect();
        if objects.is_empty() {
            return BTreeMap::new();
        }
        match Counters::read(&self.tools).await {
            Ok(counters) => objects
                .into_iter()
                .filter_map(|objects| Some((objects.index, counters.of(objects)?)))
                .collect(),
            Err(error) => {
                tracing::warn!("what the ports' filters counted cannot be read: {error}");
                BTreeMap::new()
            }
        }
    }

    /// Puts a filter on a port. Returns what the caller should know, a sentence each.
    ///
    /// # Errors
    /// [`BindingError`]; then the port is as it was before.
    pub async fn create(&self, binding: &Binding) -> Result<Vec<String>, BindingError> {
        let port = &binding.port;
        let index =
            if_nametoindex(port.as_str()).map_err(|_| BindingError::NoPort(port.clone()))?;
        let _lock = self.lock()?;
        let (live, stale) = self.statuses()?;
        if live.iter().any(|status| status.port == *port) {
            return Err(BindingError::Bound(port.clone()));
        }
        let filters = self.store.tree(&binding.filter)?;
        let (rules, warnings) = self.rules(binding, &filters, &mut Compiler::new(&filters))?;
        let status = Status {
            version: 1,
            port: port.clone(),
            index,
            xml: binding.to_xml(),
            complete: false,
            backend: self.settings.firewall_backend.unwrap_or(Backend::Nftables),
            recorded: Vec::new(),
        };
        self.change(vec![Wanted { status, rules }], &stale, &live).await?;
        Ok(warnings.iter().map(Warning::to_string).collect())
    }

    /// Takes a port's filter away.
    ///
    /// # Errors
    /// [`BindingError`]; then it still has it.
    pub async fn delete(&self, port: &InterfaceName) -> Result<(), BindingError> {
        let _lock = self.lock()?;
        let (mut live, mut stale) = self.statuses()?;
        let known = live.iter().chain(&stale).any(|status| status.port == *port);
        if !known {
            return Err(BindingError::Unbound(port.clone()));
        }
        if let Some(at) = live.iter().position(|status| status.port == *port) {
            stale.push(live.remove(at));
        }
        self.change(Vec::new(), &stale, &live).await
    }

    /// Takes away what was cut short and what has no port any more.
    ///
    /// # Errors
    /// [`BindingError`].
    pub async fn collect(&self) -> Result<(), BindingError> {
        if !self.dir().exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let (live, stale) = self.statuses()?;
        if stale.is_empty() { Ok(()) } else { self.change(Vec::new(), &stale, &live).await }
    }

    /// What putting a filter on a port runs, on a host where nothing of ours is there yet. Runs
    /// nothing; the port's number is 0, since there is no port.
    ///
    /// # Errors
    /// The filter makes no rules.
    pub fn scripts(&self, binding: &Binding) -> Result<Vec<Script>, BindingError> {
        let filters = self.store.tree(&binding.filter)?;
        let (rules, _) = self.rules(binding, &filters, &mut Compiler::new(&filters))?;
        let extras = self.extras();
        let mut tried = Vec::new();
        let port = binding.port.clone();
        for backend in self.settings.firewall_backend.map_or(Backend::ORDER.to_vec(), |b| vec![b]) {
            let filter = PortFilter { index: 0, port: port.clone(), rules: rules.clone(), backend };
            match PortPlan::new(&[filter], extras) {
                Ok(plan) => return Ok(plan.scripts()),
                Err(error) => tried.push((backend, error)),
            }
        }
        Err(BindingError::NoBackend { ports: vec![port], tried })
    }

    fn extras(&self) -> Extras {
        Extras {
            trace: self.settings.enable_trace,
            counters: self.settings.enable_counters,
            reject: true,
        }
    }

    /// Puts every port's rules back, by the backend that the settings name now. Returns what was put
    /// back, a sentence each.
    ///
    /// # Errors
    /// [`BindingError`]; then the rules are as they were before.
    pub async fn reload(&self) -> Result<Vec<String>, BindingError> {
        if !self.dir().exists() {
            return Ok(Vec::new());
        }
        let _lock = self.lock()?;
        let (live, stale) = self.statuses()?;
        let filters = self.filters()?;
        let bound = self.bound(live)?;
        let wanted = self.wanted(&bound, &filters)?;
        let notes = bound
            .iter()
            .map(|(status, _)| format!("the filter of the port {} is there", status.port))
            .collect();
        self.change(wanted, &stale, &[]).await?;
        Ok(notes)
    }

    /// Makes a change of definitions, together with the rules of all ports that use the filter.
    /// `plan` is asked under the lock.
    ///
    /// # Errors
    /// What `plan` says, or [`BindingError`]; then definition and rules are as they were before.
    pub async fn commit<E: From<BindingError>>(
        &self,
        plan: impl FnOnce(&FilterStore) -> Result<Change, E>,
    ) -> Result<Change, E> {
        // Made where it is missing: the first port may be bound meanwhile. Where it cannot be made,
        // nobody with our rights binds one.
        let _lock = match self.lock() {
            Ok(lock) => Some(lock),
            Err(_) if !self.dir().exists() => None,
            Err(error) => return Err(error.into()),
        };
        let locked = self.store.lock().map_err(BindingError::from)?;
        let change = plan(&self.store)?;
        let (live, stale) = self.statuses()?;
        let (affected, others) = self.affected(live, &change)?;
        if let (Some((status, _)), None) = (affected.first(), &change.new) {
            let (filter, port) = (change.name.clone(), status.port.clone());
            return Err(BindingError::InUse { filter, port }.into());
        }
        if change.is_same_filter() || affected.is_empty() {
            locked.commit(&change).map_err(BindingError::from)?;
            return Ok(change);
        }
        let wanted = self.wanted(&affected, &change.filters)?;
        self.change(wanted, &stale, &others).await?;
        if let Err(error) = locked.commit(&change) {
            // The rules must not say what the definition does not. What is there now, the statuses
            // know.
            let (live, stale) = self.statuses()?;
            let (affected, others) = self.affected(live, &change)?;
            let wanted = self.wanted(&affected, &self.filters()?)?;
            self.change(wanted, &stale, &others).await?;
            return Err(BindingError::from(error).into());
        }
        Ok(change)
    }

    /// The statuses of ports that are there, and those of which only rules are left.
    fn statuses(&self) -> Result<(Vec<Status>, Vec<Status>), BindingError> {
        let dir = self.dir();
        let failed = |source| BindingError::State { dir: dir.clone(), source };
        let interfaces = Interfaces::open().map_err(failed)?;
        let (mut live, mut stale) = (Vec::new(), Vec::new());
        for status in status::all(&dir)? {
            // Whether the interface is still the one that was bound.
            let index = interfaces.number(&status.port).map_err(failed)?;
            match status.complete && index == Some(status.index) {
                true => live.push(status),
                false => stale.push(status),
            }
        }
        Ok((live, stale))
    }

    fn filters(&self) -> Result<Filters, BindingError> {
        let (definitions, broken) = self.store.list()?;
        for broken in broken {
            tracing::warn!("{}", broken.error);
        }
        Ok(definitions.into_iter().map(|d| (d.filter.name.clone(), d.filter)).collect())
    }

    /// The ports whose rules a change of definitions changes, and the others.
    fn affected(
        &self,
        live: Vec<Status>,
        change: &Change,
    ) -> Result<(Vec<BoundPort>, Vec<Status>), BindingError> {
        let (mut affected, mut others) = (Vec::new(), Vec::new());
        // Ports mostly share their filters.
        let mut known: BTreeMap<FilterName, bool> = BTreeMap::new();
        for (status, binding) in self.bound(live)? {
            let uses = *known.entry(binding.filter.clone()).or_insert_with(|| {
                let mut filters = change.filters.clone();
                if let Some(old) = &change.old {
                    filters.entry(change.name.clone()).or_insert_with(|| old.filter.clone());
                }
                reachable(&binding.filter, &filters).contains(&change.name)
            });
            match uses {
                true => affected.push((status, binding)),
                false => others.push(status),
            }
        }
        Ok((affected, others))
    }

    fn bound(&self, live: Vec<Status>) -> Result<Vec<BoundPort>, BindingError> {
        let bound = |status: Status| self.binding(&status).map(|binding| (status, binding));
        live.into_iter().map(bound).collect()
    }

    fn wanted(&self, bound: &[BoundPort], filters: &Filters) -> Result<Vec<Wanted>, BindingError> {
        let mut compiler = Compiler::new(filters);
        let wanted = |(status, binding): &BoundPort| {
            let (rules, _) = self.rules(binding, filters, &mut compiler)?;
            Ok(Wanted { status: status.clone(), rules })
        };
        bound.iter().map(wanted).collect()
    }

    /// What a binding's filter means for its port.
    fn rules(
        &self,
        binding: &Binding,
        filters: &Filters,
        compiler: &mut Compiler<'_>,
    ) -> Result<Compiled, BindingError> {
        let port = || binding.port.clone();
        let variables = binding.variables();
        if let Ok(name) = "CTRL_IP_LEARNING".parse::<VariableName>() {
            for value in variables.get(&name).unwrap_or_default() {
                if !["any", "dhcp", "none"].contains(&value.as_str()) {
                    return Err(BindingError::Learning(value.to_string()));
                }
            }
        }
        let Some(filter) = filters.get(&binding.filter) else {
            return Err(crate::nwfilter::StoreError::Unknown(binding.filter.clone()).into());
        };
        compiler.rules(filter, &variables).map_err(|error| match error {
            RulesError::Tree(error) => BindingError::Tree { port: port(), error },
            RulesError::Compile(error) => BindingError::Compile { port: port(), error },
        })
    }
}
