//! Filters on ports: put in force, changed, put back, taken away.
//!
//! # Theory of operation
//!
//! Each port that has a filter has a [`Status`] below the state directory. A change of any number
//! of ports is made in this order:
//!
//! 1. every port's rules are compiled and rendered; a mistake ends here;
//! 2. the statuses say what removes the old rules and the new ones; that of a port that is new, or
//!    that loses its filter, is not complete;
//! 3. the firewall takes all of it as one transaction ([`PortPlan::apply`]);
//! 4. the statuses say what removes the new rules, and those of ports without a filter are removed.
//!
//! So whatever was cut short is known, and the next command removes it. A change that fails in 3
//! leaves the rules of before; the statuses are put back.
//!
//! Rules and definitions cannot change in one step together. So a change of ports that have rules
//! leaves a mark in the directory until all of it is done, and a command that finds the mark first
//! makes all ports' rules anew, of the definitions and addresses that are there ([`unsettled`]).
//!
//! Every command first collects what has no port any more and what was cut short, in the same
//! transaction as its own work. A port is its interface's number: the kernel does not use one again,
//! so an interface of the old name is a new port without a filter.
//!
//! All commands hold one [`lock`], so that those at the same time come one after the other; definitions
//! of filters that are in use change under it, too ([`Bindings::commit`]), together with the rules
//! of every port that uses them, or not at all.
//!
//! # Learnt addresses
//!
//! A filter may need the guest's address where nobody said it ([`meaning`]). Then
//! [`Bindings::create`] begins to listen to the port, puts the rules in force that it takes to get an
//! address, and hands a [`Learning`] to its caller, who goes on with it for as long as the port is
//! there: the supervisor of a launch, or a process of its own ([`learning`]). One process does so for
//! a port, the one that has its [`seat`].
//!
//! What was learnt is written down first ([`crate::learn::LeaseDir`]) and then put in force, by a
//! change like any other: so every change, a redefinition or a reload, makes the rules with the
//! address that is known by then. Whether a port learns is settled when it is bound; a filter that
//! asks for an address later, of a guest that has long had one, is refused.

mod bind;
mod change;
mod collect;
mod error;
mod in_force;
mod learning;
mod learnt;
mod lock;
mod meaning;
mod ports;
mod redefine;
mod seat;
mod status;
mod unsettled;

use std::collections::BTreeMap;
use std::path::{self, PathBuf};
use std::time::Duration;

use crate::firewall::port_nft::Extras;
use crate::firewall::{
    Backend, Counters, PortCounts, PortFilter, PortPlan, PortRecorded, Script, Tools, Unwritable,
};
use crate::learn::{Clock, Kept, LeaseDir, UnixTime};
use crate::nwfilter::{Binding, Compiler, FilterStore, Filters};
use crate::state::LOCK_LIMIT;
use crate::types::InterfaceName;

use change::Wanted;
pub use error::{BindingError, Tried};
pub use learning::{Learning, Told};
use meaning::{Known, meaning};
use ports::Statuses;
use seat::Seats;
pub use status::{Damaged, Status};

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

/// The filters on this host's ports.
#[derive(Debug, Clone)]
pub struct Bindings {
    settings: BindingSettings,
    store: FilterStore,
    tools: Tools,
    leases: LeaseDir,
    seats: Seats,
    lock_limit: Duration,
}

/// A filter that was put on a port.
#[derive(Debug)]
pub struct Created {
    /// What the caller should know, a sentence each.
    pub notes: Vec<String>,
    /// The guest's address is still to be learnt: [`Learning::next`], again and again, or
    /// [`Learning::hand_over`].
    pub learning: Option<Learning>,
}

/// A port that has a filter, and what its document says.
type Bound = (Status, Binding);

/// Who learns the address of a port's guest, and what was learnt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learner {
    /// The process; `None` when there is none any more, which the next `firewall reload` mends.
    pub pid: Option<u32>,
    /// The address that the port's rules are made with; `None` while it is not known.
    pub address: Option<std::net::Ipv4Addr>,
    /// When it is over, as the wall clock is set now; `None` is never, or no address.
    pub until: Option<UnixTime>,
    /// Why its rules could not be made with what was learnt last; then it is off.
    pub failed: Option<String>,
    /// The address that was refused last, and why.
    pub refused: Option<String>,
}

impl Bindings {
    /// The driver; nothing is looked at or made yet.
    pub fn new(settings: BindingSettings) -> Self {
        Bindings {
            store: FilterStore::new(&settings.config_dir),
            tools: Tools::find(&settings.path),
            leases: LeaseDir::new(&settings.state_dir),
            seats: Seats::new(&settings.state_dir),
            settings,
            lock_limit: LOCK_LIMIT,
        }
    }

    /// The same; it gives up when another command has held the lock for `limit`.
    pub fn lock_limit(self, limit: Duration) -> Self {
        Bindings { lock_limit: limit, ..self }
    }

    /// The filters' definitions.
    pub fn store(&self) -> &FilterStore {
        &self.store
    }

    /// The directory of its state.
    pub fn state_dir(&self) -> &path::Path {
        &self.settings.state_dir
    }

    fn dir(&self) -> PathBuf {
        self.settings.state_dir.join("nwfilter").join("bindings")
    }

    /// The ports that have a filter, by name.
    ///
    /// # Errors
    /// [`BindingError::Status`] when the directory cannot be read. A status that cannot be used is left
    /// out; see [`damaged`](Self::damaged).
    pub fn list(&self) -> Result<Vec<Status>, BindingError> {
        Ok(self.statuses()?.live)
    }

    /// The filter of a port.
    ///
    /// # Errors
    /// [`BindingError::Unbound`] when it has none, [`BindingError::Damaged`] when its status cannot be
    /// used.
    pub fn get(&self, port: &InterfaceName) -> Result<Status, BindingError> {
        let Statuses { live, damaged, .. } = self.statuses()?;
        let known = Statuses { live, damaged, ..Statuses::default() };
        known.port(port)?.ok_or_else(|| BindingError::Unbound(port.clone()))
    }

    /// The ports that have a filter, by name, and the statuses that cannot be used: damaged, not
    /// readable, or of a newer version. All commands leave these, and their ports, as they are.
    ///
    /// # Errors
    /// [`BindingError::Status`] when the directory cannot be read.
    pub fn list_all(&self) -> Result<(Vec<Status>, Vec<Damaged>), BindingError> {
        let Statuses { live, damaged, .. } = self.statuses()?;
        Ok((live, damaged))
    }

    /// A status whose document cannot be read because of `error`.
    pub fn damaged(&self, status: &Status, error: BindingError) -> Damaged {
        status.damaged(&self.dir(), error)
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
    pub async fn counts<'a>(
        &self,
        ports: impl Iterator<Item = &'a Status>,
    ) -> BTreeMap<u32, PortCounts> {
        let objects: Vec<_> = ports
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

    /// The process that learns the address of a port's guest, where it is learnt. A lease that cannot
    /// be read has no end here, which is a warning.
    pub fn learner(&self, status: &Status) -> Option<Learner> {
        if !status.learns {
            return None;
        }
        let clock = Clock::now();
        let kept = self.leases.read(&status.port, &clock).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            None
        });
        let kept = kept.filter(|kept| kept.index == status.index);
        let lease = kept.and_then(|kept| kept.lease);
        Some(Learner {
            pid: self.seats.holder(status.index),
            address: status.address,
            until: lease
                .filter(|is| Some(is.address) == status.address)
                .and_then(|is| is.until)
                .map(|until| clock.wall_of(until)),
            failed: status.failed.clone(),
            refused: status.refused.clone(),
        })
    }

    /// The ports whose guests' addresses nobody learns any more: whoever did was killed. A
    /// [`Bindings::resume`] for each mends that.
    ///
    /// # Errors
    /// [`BindingError::Status`].
    pub fn unattended(&self) -> Result<Vec<InterfaceName>, BindingError> {
        // Mostly no address was ever learnt here.
        if !self.seats.were_taken() {
            return Ok(Vec::new());
        }
        let unattended = |status: &Status| status.learns && !self.seats.is_held(status.index);
        let live = match self.list() {
            Ok(live) => live.into_iter(),
            // Those are learnt there.
            Err(BindingError::Elsewhere(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        Ok(live.filter(unattended).map(|status| status.port).collect())
    }

    /// Whether the filter of a binding makes rules, which need not be known before there is a port.
    ///
    /// # Errors
    /// The filter makes no rules.
    pub fn check(&self, binding: &Binding) -> Result<(), BindingError> {
        let filters = self.store.tree(&binding.filter)?;
        meaning(binding, &mut Compiler::new(&filters), Known::NotYet).map(drop)
    }

    /// What putting a filter on a port runs, on a host where nothing of ours is there yet. Runs
    /// nothing; the port's number is 0, since there is no port.
    ///
    /// # Errors
    /// The filter makes no rules.
    pub fn scripts(&self, binding: &Binding) -> Result<Vec<Script>, BindingError> {
        let filters = self.store.tree(&binding.filter)?;
        let rules = meaning(binding, &mut Compiler::new(&filters), Known::NotYet)?.rules;
        let extras = self.extras();
        let mut tried = Vec::new();
        let port = binding.port.clone();
        for backend in self.settings.firewall_backend.map_or(Backend::ORDER.to_vec(), |b| vec![b]) {
            let filter = PortFilter { index: 0, port: port.clone(), rules: rules.clone(), backend };
            match PortPlan::new(&[filter], extras) {
                Ok(plan) => return Ok(plan.scripts()),
                Err(Unwritable { port, error }) => {
                    tried.push(Tried { backend, ports: vec![port], error });
                }
            }
        }
        Err(BindingError::NoBackend(tried))
    }

    fn extras(&self) -> Extras {
        Extras {
            trace: self.settings.enable_trace,
            counters: self.settings.enable_counters,
            reject: true,
        }
    }

    fn filters(&self) -> Result<Filters, BindingError> {
        let (definitions, broken) = self.store.list()?;
        for broken in broken {
            tracing::warn!("{}", broken.error);
        }
        Ok(definitions.into_iter().map(|d| (d.filter.name.clone(), d.filter)).collect())
    }

    /// Ports with what their documents say, and those whose document cannot be read, which is a
    /// warning. These keep the rules that they have.
    fn bound(&self, live: Vec<Status>) -> (Vec<Bound>, Vec<Status>) {
        let (mut bound, mut others) = (Vec::new(), Vec::new());
        for status in live {
            match self.binding(&status) {
                Ok(binding) => bound.push((status, binding)),
                Err(error) => {
                    tracing::warn!("{error}");
                    others.push(status);
                }
            }
        }
        (bound, others)
    }

    fn wanted(&self, bound: &[Bound], filters: &Filters) -> Result<Vec<Wanted>, BindingError> {
        let mut compiler = Compiler::new(filters);
        let wanted = |(status, binding): &Bound| {
            let known = match status.learns {
                true => known(self.kept(status, binding)?.as_ref()),
                false => Known::Unlearnt,
            };
            let made = meaning(binding, &mut compiler, known)?;
            Ok(Wanted::new(status.clone(), made.rules, made.to_come, known))
        };
        bound.iter().map(wanted).collect()
    }

    fn seat_error(&self, port: &InterfaceName, source: std::io::Error) -> BindingError {
        let dir = self.settings.state_dir.join("nwfilter");
        BindingError::Seat { port: port.clone(), dir, source }
    }
}

/// What the rules are to be made with.
fn known(kept: Option<&Kept>) -> Known {
    kept.and_then(|kept| kept.lease).map_or(Known::NotYet, |lease| Known::Is(lease.address))
}
