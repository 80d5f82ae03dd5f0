//! Sets, changes and removes the filters of ports.
//!
//! # How it works
//!
//! Each port that has a filter has a [`PortStatus`] file below the state directory. One transaction
//! changes any number of ports, in this order:
//!
//! 1. The rules of all ports are compiled and rendered. An error in a filter ends the command here.
//! 2. The status files are written with records that remove both the old and the new rules. The
//!    status of a port that is new, or that loses its filter, is [`PortState::Changing`].
//! 3. The firewall applies all rules as one transaction
//!    ([`PortPlan::apply`](crate::firewall::PortPlan::apply)).
//! 4. The status files are written with records that remove the new rules only, and the status
//!    files of ports without a filter are removed.
//!
//! So every interrupted command leaves a record, and the next command removes its rules. If step 3
//! fails, the old rules stay, and the old status files are restored.
//!
//! Rules and definitions cannot change in one atomic step. So a change of ports that already have
//! rules first writes a marker into the directory and removes it at the end. A command that finds
//! the marker rebuilds the rules of all ports from the current definitions and addresses
//! ([`unfinished`]).
//!
//! Every command first collects garbage: the rules of interfaces that are gone, and the rules that
//! an interrupted command left. Its own change and the removal of this garbage are one transaction.
//! A port is identified by its interface index. The kernel does not use an index again, so an
//! interface with the name of an earlier one is a new port without a filter.
//!
//! A change of one port needs only a few facts of the others, which it reads from one file, the
//! [`index`].
//!
//! All commands hold one [`lock`], so they run one after the other. A filter definition that is in
//! use changes under the same lock ([`Bindings::commit`]): the definition and the rules of every
//! port that uses it change together, or neither changes.
//!
//! # Learned addresses
//!
//! If a filter needs the guest's address and the binding does not set it, netlaunch learns the
//! address (`compile_port`). Then [`Bindings::create`] opens a capture on the port, sets the
//! rules that let the guest get an address, and returns a [`Learning`]. The caller drives it for as
//! long as the port exists: the supervisor of a launch does so, or a separate process
//! ([`learning`]). Only one process learns for a port: the process that holds the port's learner
//! lock ([`learner_lock`]).
//!
//! A learned lease is saved first ([`crate::nwfilter::learn::LeaseDir`]). Then a normal change
//! builds the rules from the saved lease. So every later change, such as a redefinition or a
//! reload, uses the address that is known at that time. Whether a port learns is decided when it is
//! bound. If a filter is redefined later so that it needs the address, and the port does not learn,
//! the redefinition is refused, since the guest may have its address already.

mod bind;
mod bridge;
mod check_ports;
mod compile_port;
mod desired_port;
mod dhcp_only;
mod dry_run;
mod error;
mod garbage;
mod guard;
mod guest_mac;
mod in_force;
mod index;
mod interface_names;
mod learned_rules;
mod learner_lock;
mod learner_report;
mod learning;
mod lock;
mod port_wait;
mod redefine;
mod saved_lease;
mod status;
mod status_file;
mod summary;
mod swap;
mod table_choice;
mod transaction;
mod unfinished;

use std::path::{self, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use crate::firewall::FirewallBackend;
use crate::firewall::port_nft::Extras;
use crate::firewall::{AppliedTexts, Tools};
use crate::nwfilter::learn::LeaseDir;
use crate::nwfilter::{Binding, Compiler, FilterStore, Filters};
use crate::sys::state_file::{LOCK_LIMIT, StateFileError};
use crate::types::{InterfaceName, error_text};

pub use bridge::{NotOnBridge, Site, find as site_of};
pub use check_ports::{FilterState, PortCheck, PortProblem};
use compile_port::{LearnedAddresses, compile_port};
use desired_port::DesiredPort;
pub use error::{BindingError, FailedPorts};
pub use garbage::Reloaded;
pub use guard::{PortGuard, WatchLock};
pub use guest_mac::{GuestMac, MacSource, NoGuestMac};
pub use in_force::{PortInForce, PortRuleCounts};
use interface_names::Ports;
use learner_lock::LearnerLocks;
pub use learner_report::{LearnerReport, ShownAddress6};
pub use learning::{Learning, LearningEvent};
pub use port_wait::wait_for_bridge;
pub use status::{Damaged, PortState, PortStatus};
use summary::PortSummary;

/// The settings of [`Bindings`].
#[derive(Debug, Clone)]
pub struct BindingSettings {
    /// The configuration directory, with the definitions below it.
    pub config_dir: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// The directories of PATH.
    pub path: Vec<PathBuf>,
    /// The firewall backend that nwfilter.conf sets. With `None`, the first backend that can carry
    /// out the rules is used.
    pub firewall_backend: Option<FirewallBackend>,
    /// Whether `nft monitor trace` shows the frames of bound ports.
    pub enable_trace: bool,
    /// Whether rules and ports have counters.
    pub enable_counters: bool,
}

/// The filters of the ports of this host.
#[derive(Debug, Clone)]
pub struct Bindings {
    settings: BindingSettings,
    store: FilterStore,
    tools: Tools,
    leases: LeaseDir,
    locks: LearnerLocks,
    lock_limit: Duration,
}

/// The result of binding a filter to a port.
#[derive(Debug)]
#[non_exhaustive]
pub struct Created {
    /// Notes for the user, one sentence each.
    pub notes: Vec<String>,
    /// The learner of the guest's address, if the port learns it. The caller either calls
    /// [`Learning::next`] in a loop or hands it to another process with [`Learning::hand_over`].
    pub learning: Option<Learning>,
}

/// The status of a port and its parsed binding.
type Bound = (PortStatus, Binding);

impl Bindings {
    /// Returns the manager of port filters; reads no state and creates no file.
    pub fn new(settings: BindingSettings) -> Self {
        Bindings {
            store: FilterStore::new(&settings.config_dir),
            tools: Tools::find(&settings.path),
            leases: LeaseDir::new(&settings.state_dir),
            locks: LearnerLocks::new(&settings.state_dir),
            settings,
            lock_limit: LOCK_LIMIT,
        }
    }

    /// Sets how long a command waits for the lock that another command holds.
    pub fn lock_limit(self, limit: Duration) -> Self {
        Bindings { lock_limit: limit, ..self }
    }

    /// Makes a reload leave out each text that nft applied in the last reload, if nothing has
    /// changed a rule since.
    pub fn applying(mut self, applied: Option<Arc<AppliedTexts>>) -> Self {
        self.tools.applied = applied;
        self
    }

    /// Reads the texts of the last reload; `None` if no port has ever had a filter here.
    pub fn applied_texts(&self) -> Option<AppliedTexts> {
        self.dir().exists().then(|| AppliedTexts::read(&self.applied_path()))
    }

    fn applied_path(&self) -> PathBuf {
        self.dir().join(".applied")
    }

    /// Returns the store of filter definitions.
    pub fn store(&self) -> &FilterStore {
        &self.store
    }

    /// Returns the state directory.
    pub fn state_dir(&self) -> &path::Path {
        &self.settings.state_dir
    }

    /// Returns the directory of the status files.
    pub(crate) fn dir(&self) -> PathBuf {
        self.settings.state_dir.join("nwfilter").join("bindings")
    }

    /// Returns the status of every port that has a filter, sorted by name.
    ///
    /// # Errors
    /// [`BindingError::PortStatus`] if the directory cannot be read. Unusable status files are left
    /// out; see [`list_all`](Self::list_all).
    pub fn list(&self) -> Result<Vec<PortStatus>, BindingError> {
        Ok(self.ports()?.live)
    }

    /// Returns the status of one port.
    ///
    /// # Errors
    /// [`BindingError::Unbound`] if the port has no filter, [`BindingError::Damaged`] if its status
    /// file cannot be used.
    pub fn get(&self, port: &InterfaceName) -> Result<PortStatus, BindingError> {
        self.live(port)?.ok_or_else(|| BindingError::Unbound(port.clone()))
    }

    /// Returns the ports that have a filter, sorted by name, and the status files that cannot be
    /// used: damaged, not readable, or of a newer version. No command changes them or their ports.
    ///
    /// # Errors
    /// [`BindingError::PortStatus`] if the directory cannot be read.
    pub fn list_all(&self) -> Result<(Vec<PortStatus>, Vec<Damaged>), BindingError> {
        let Ports { live, damaged, .. } = self.ports()?;
        Ok((live, damaged))
    }

    /// Returns the `Damaged` entry for a status whose binding XML cannot be parsed because of
    /// `error`.
    pub fn damaged(&self, status: &PortStatus, error: BindingError) -> Damaged {
        let path = status::path(&self.dir(), &status.port);
        let error = match error {
            BindingError::PortStatus(error) => error,
            other => StateFileError::Damaged { path: path.clone(), what: error_text(&other) },
        };
        Damaged { port: Some(status.port.clone()), path, error: Arc::new(error) }
    }

    /// Parses the binding XML of a status.
    ///
    /// # Errors
    /// [`BindingError::PortStatus`] if the XML is damaged.
    pub fn binding(&self, status: &PortStatus) -> Result<Binding, BindingError> {
        Ok(status.binding(&self.dir())?)
    }

    /// Returns the ports that learn but whose learner process was killed. [`Bindings::resume`] for
    /// each port starts a new learner.
    ///
    /// # Errors
    /// [`BindingError::PortStatus`].
    pub fn unattended(&self) -> Result<Vec<InterfaceName>, BindingError> {
        // Fast path: on most hosts no port learns, so the directory does not exist.
        if !self.locks.any_exist() {
            return Ok(Vec::new());
        }
        let live = match self.indexed() {
            Some(live) => live,
            None => match self.list() {
                Ok(live) => self.summaries(&live),
                // The learners of these ports run in the other network namespace.
                Err(BindingError::OtherNamespace(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            },
        };
        let unattended = |port: &PortSummary| port.learns() && !self.locks.is_held(port.index);
        Ok(live.into_iter().filter(unattended).map(|port| port.port).collect())
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
        log(broken.into_iter().map(|broken| broken.error));
        Ok(definitions.into_iter().map(|d| (d.filter.name.clone(), d.filter)).collect())
    }

    /// Parses the bindings of these ports. The second list holds the ports whose XML cannot be
    /// parsed; each is logged as a warning and keeps its current rules.
    fn bound(&self, live: Vec<PortStatus>) -> (Vec<Bound>, Vec<PortStatus>) {
        let (mut bound, mut others) = (Vec::new(), Vec::new());
        for status in live {
            match self.binding(&status) {
                Ok(binding) => bound.push((status, binding)),
                Err(error) => {
                    tracing::warn!("{}", error_text(&error));
                    others.push(status);
                }
            }
        }
        (bound, others)
    }

    fn wanted(&self, bound: &[Bound], filters: &Filters) -> Result<Vec<DesiredPort>, BindingError> {
        let mut compiler = Compiler::new(filters);
        let wanted = |(status, binding): &Bound| {
            let addresses = if status.learns {
                let saved = self.saved_lease(status, binding)?;
                LearnedAddresses::of(saved.as_ref(), status.learns4(), status.learns6)
            } else {
                LearnedAddresses::NONE
            };
            let compiled = compile_port(binding, &mut compiler, &addresses)?;
            Ok(DesiredPort::new(status.clone(), compiled.rules, compiled.pending_rules, addresses))
        };
        bound.iter().map(wanted).collect()
    }

    fn lock_error(&self, port: &InterfaceName, source: std::io::Error) -> BindingError {
        let dir = self.settings.state_dir.join("nwfilter");
        BindingError::LearnerLock { port: port.clone(), dir, source }
    }
}

/// Logs errors that do not stop the command.
fn log<E: std::error::Error>(errors: impl IntoIterator<Item = E>) {
    errors.into_iter().for_each(|error| tracing::warn!("{}", error_text(&error)));
}
