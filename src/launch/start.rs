//! Carrying a plan out: directory, passt or tap, QEMU, in that order; undone last first.

use std::ffi::OsString;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use nix::sys::signal::SigSet;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::bridge::{BridgeError, Port};
use super::passt::{self, PasstError, Setting};
use super::ports::{self, PortError};
use super::record::{Program, Record};
use super::runtime::{LaunchDir, LaunchRoot, RuntimeError};
use crate::binding::{BindingError, Bindings, Learning};
use crate::nwfilter::{Binding, Owner};
use crate::plan::{GuestFilter, Plan, Transport, Way};
use crate::process::{Account, AccountError, Child, Spawn, SpawnError};
use crate::types::{InterfaceName, Uuid};

/// What a launch takes from around it. Nothing else is read from the environment.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Where launch directories are made.
    pub root: LaunchRoot,
    /// The environment of QEMU and passt.
    pub env: Vec<(OsString, OsString)>,
    /// The signal mask of QEMU and passt; `None` is the calling thread's.
    pub mask: Option<SigSet>,
    /// A descriptor number that QEMU does not inherit, for the fd transport or a tap.
    pub qemu_fd: RawFd,
    /// Whether we are root.
    pub is_root: bool,
    /// The filters of this host's ports, for a guest that has one.
    pub bindings: Option<Bindings>,
}

/// Why a plan could not be carried out. Everything begun was undone.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A published port cannot be had.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The launch directory cannot be had.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A file in the launch directory cannot be written.
    #[error("cannot prepare the launch: {0}")]
    Prepare(#[source] io::Error),
    /// passt does not serve.
    #[error("{0}")]
    Passt(#[source] PasstError),
    /// The guest cannot be on its bridge.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    /// There is no such user to run QEMU as.
    #[error(transparent)]
    User(#[from] AccountError),
    /// The guest's filter cannot be put on its port.
    #[error(transparent)]
    Filter(#[from] BindingError),
    /// QEMU cannot be executed.
    #[error(transparent)]
    Qemu(SpawnError),
}

/// A launch that runs. Dropping it ends it and removes all of it.
#[derive(Debug)]
pub struct Running {
    // In this order they are dropped: QEMU, passt, and only then what they use.
    pub(super) qemu: Option<Child>,
    pub(super) passt: Option<Child>,
    pub(super) port: Option<Port>,
    /// What learns the guest's address; it ends before the filter goes.
    pub(super) learning: Option<Learning>,
    /// What filters the port.
    pub(super) filtered: Option<Bindings>,
    pub(super) dir: Option<LaunchDir>,
    pub(super) record: Record,
    pub(super) plan: Plan,
    pub(super) setting: Option<Setting>,
}

impl Running {
    /// The plan that was carried out.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What `netlaunch ps` shows of it.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

/// Carries `plan` out and returns once passt serves and QEMU, unless in serve mode, executes.
///
/// # Errors
/// [`StartError`]; then nothing is left running and no file is left.
pub async fn start(plan: Plan, surroundings: &Surroundings) -> Result<Running, StartError> {
    let account = plan.user.as_ref().map(Account::find).transpose()?;
    if let Some(account) = account.as_ref().filter(|account| is_shared(account)) {
        tracing::warn!(
            "QEMU runs as {}, whose processes can all stop, trace and replace each other: use a user that runs nothing else",
            account.name
        );
    }
    ports::check(&plan.publish)?;
    let dir = surroundings.root.create(&plan.dir)?;
    let record = Record::new(&plan);
    record.write().map_err(StartError::Prepare)?;
    let setting = plan.passt.as_ref().map(|passt| Setting {
        plan: passt.clone(),
        env: surroundings.env.clone(),
        mask: surroundings.mask,
        root: surroundings.is_root,
    });
    let mut running = Running {
        qemu: None,
        passt: None,
        port: None,
        learning: None,
        filtered: None,
        dir: Some(dir),
        record,
        plan,
        setting,
    };
    match running.start_all(surroundings, account).await {
        Ok(()) => Ok(running),
        Err(error) => {
            // Dropping the rest needs nobody to wait.
            for left in running.remove_port().await {
                tracing::warn!("{left}");
            }
            Err(error)
        }
    }
}

impl Running {
    async fn start_all(
        &mut self,
        around: &Surroundings,
        account: Option<Account>,
    ) -> Result<(), StartError> {
        let mut qemu_end = None;
        if let Some(setting) = &self.setting {
            let mut passt_end = None;
            if self.plan.transport == Some(Transport::Fd) {
                let (a, b) = pair().map_err(StartError::Prepare)?;
                (passt_end, qemu_end) = (Some(a), Some(b));
            }
            let child = passt::start(setting, passt_end).await.map_err(StartError::Passt)?;
            self.passt_started(child);
        }
        if let Some(bridge) = self.plan.bridge.as_ref().filter(|bridge| bridge.way == Way::Tap) {
            let port =
                Port::attach(&bridge.bridge, bridge.network.is_some(), self.plan.mac).await?;
            self.record.tap_made(port.name());
            self.record.write().map_err(StartError::Prepare)?;
            let port = self.port.insert(port);
            // The tap has its name and its place, and nothing passes through it yet.
            if let (Some(filter), Some(bindings)) = (&bridge.filter, &around.bindings) {
                let binding = binding(&self.plan, &self.record, port.name(), filter);
                // Whatever of it there is goes with the port.
                self.filtered = Some(bindings.clone());
                let created = bindings.create(&binding).await?;
                created.notes.iter().for_each(|note| tracing::warn!("{note}"));
                self.record.filtered(&filter.name, created.learning.is_some());
                self.learning = created.learning;
            }
            port.up().await?;
            qemu_end = Some(port.descriptor()?);
        }
        let qemu = &self.plan.qemu;
        if let (Some(program), Some(argv)) = (&qemu.program, qemu.argv()) {
            let mut spawn = Spawn::new(program, &argv).env(&around.env).inherit();
            if let Some(account) = account {
                spawn = spawn.account(account);
            }
            if let Some(mask) = around.mask {
                spawn = spawn.mask(mask);
            }
            if let (Some(end), Some(number)) = (qemu_end, qemu.fd) {
                spawn = spawn.fd(end, number);
            }
            let child = spawn.start().map_err(StartError::Qemu)?;
            self.record.qemu = Some(Program { pid: child.pid().as_raw(), path: program.clone() });
            self.qemu = Some(child);
        }
        self.record.write().map_err(StartError::Prepare)
    }

    /// Takes the guest's port away, as [`super::bridge`] describes; returns what could not be done.
    /// A port that cannot be turned off keeps its filter until it is gone.
    pub(super) async fn remove_port(&mut self) -> Vec<String> {
        drop(self.learning.take());
        let Some(port) = self.port.take() else { return Vec::new() };
        let bindings = self.filtered.take();
        let mut left = Vec::new();
        match (port.down().await, &bindings) {
            (Err(error), _) => left.push(error.to_string()),
            (Ok(()), Some(bindings)) => {
                if let Err(error) = bindings.delete(port.name()).await {
                    tracing::debug!("the filter's end is tried again without the port: {error}");
                }
            }
            (Ok(()), None) => {}
        }
        left.extend(port.remove().await.err().map(|error| error.to_string()));
        // What was learnt about the port goes with it, and what could not be removed before.
        if let Some(bindings) = bindings {
            left.extend(bindings.collect().await.err().map(|error| error.to_string()));
        }
        left
    }

    /// Takes a started passt in, also into the record.
    pub(super) fn passt_started(&mut self, child: Child) {
        let path = self.plan.passt.as_ref().map(|p| p.program.clone()).unwrap_or_default();
        self.record.passt = Some(Program { pid: child.pid().as_raw(), path });
        self.passt = Some(child);
    }
}

/// Whether a user is one that several services have at the same time, by Debian's base-passwd and
/// systemd's UIDS-GIDS document.
fn is_shared(account: &Account) -> bool {
    account.uid.as_raw() == 65_534 || ["nobody", "daemon"].contains(&account.name.as_str())
}

/// The filter of a launch's guest on its port. The guest has no UUID that we know, so it gets one.
fn binding(plan: &Plan, record: &Record, port: &InterfaceName, filter: &GuestFilter) -> Binding {
    let name = record.name.parse().ok();
    Binding {
        owner: name.map(|name| Owner { name, uuid: Some(Uuid::random(&mut rand::rng())) }),
        port: port.clone(),
        mac: plan.mac,
        filter: filter.name.clone(),
        parameters: filter.parameters.clone(),
    }
}

/// The two ends of the fd transport. Ours are closed as soon as both programs have theirs: passt
/// ends when QEMU's, then the only other one, is closed.
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?)
}
