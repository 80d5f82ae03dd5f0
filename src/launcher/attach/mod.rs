//! Gives a guest that runs another NIC, and takes it away again.
//!
//! An *attachment* is a launch of its own whose QEMU runs already: it has a launch directory, one
//! NIC with its passt or its port on a bridge, and a supervisor. In place of starting QEMU,
//! [`TargetGuest::plug`] hands the NIC to the QEMU of the other launch, over its QMP socket:
//!
//! ```text
//! port down ─▶ rules of the filter ─▶ port up ─▶ getfd ─▶ netdev_add ─▶ device_add
//! device_del ─▶ DEVICE_DELETED ─▶ netdev_del ─▶ port down ─▶ rules removed ─▶ tap removed
//! ```
//!
//! So the supervisor of the launch needs no privileges for it and stays as small as it is. A step
//! that fails undoes those before it, and the guest is as it was.
//!
//! QEMU aborts if its tap is removed before its netdev (TUNSETVNETHDRSZ fails at the next reset of
//! the card, measured with 10.0.2). So a tap that QEMU may still have is never removed: if QEMU
//! does not answer, the port is turned off and taken off its bridge, and the kernel removes the tap
//! when QEMU ends.
//!
//! QEMU talks to one client at a time. [`TargetGuest::lock`] serializes the clients of netlaunch,
//! and it is held from the first question to the last command.

mod arguments;
mod guest;

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::unistd::Pid;
use serde_json::{Value, json};

pub use arguments::ArgumentsError;
pub(crate) use guest::{machine, network_names};

use crate::launcher::plan::NicPlan;
use crate::launcher::qmp::{Qmp, QmpError};
use crate::sys::flock::Flock;
use crate::sys::process::{ProcessHandle, started};
use crate::sys::state_file;
use crate::types::Id;

/// How long QEMU may take for each answer.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long a guest may take to give up a card when its attachment ends by a signal.
const GUEST_LIMIT: Duration = Duration::from_secs(5);
/// The directory with the lock, in the launch directory.
const LOCK_DIR: &str = "attach";

/// Why a guest cannot get a NIC.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlugError {
    /// The NIC cannot be described to QEMU.
    #[error(transparent)]
    Arguments(#[from] ArgumentsError),
    /// QEMU refused it, or does not answer.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The machine has no slot to which a card can be added while it runs.
    #[error(
        "the guest has no free slot for a card: {why}; give QEMU an empty port when it starts, such as -device pcie-root-port,id=rp0,chassis=1"
    )]
    NoSlot {
        /// QEMU's words.
        why: String,
    },
    /// QEMU adds a card of this model only when it starts.
    #[error(
        "a card of this model cannot be added while the guest runs: {why}; use another model, such as virtio-net-pci, or give QEMU the card when it starts"
    )]
    NoHotplug {
        /// QEMU's words.
        why: String,
    },
}

/// Why a guest keeps a NIC.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnplugError {
    /// QEMU refused it, or does not answer.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The guest does not give the card up.
    #[error("the guest did not give up the card of {id} within {} s", limit.as_secs())]
    NoAnswer {
        /// The id of the NIC.
        id: Id,
        /// The time limit.
        limit: Duration,
    },
    /// The guest has said that the card stays.
    #[error("the guest refused to give up the card of {0}")]
    GuestRefused(Id),
}

/// The guest of a launch that runs, and the id of the NIC that it gets.
#[derive(Debug)]
pub(crate) struct TargetGuest {
    /// The name of the launch.
    pub(crate) launch: String,
    /// The launch directory.
    pub(crate) dir: PathBuf,
    /// QEMU's QMP socket.
    pub(crate) socket: PathBuf,
    /// The id of the NIC.
    pub(crate) id: Id,
    /// QEMU's process.
    process: ProcessHandle,
    /// Whether QEMU may have the NIC.
    has_nic: AtomicBool,
}

impl TargetGuest {
    /// Opens the guest of a launch whose QEMU has the process number `qemu`. The caller must see
    /// afterwards that the launch still runs: until then its QEMU has this number. `None` if QEMU
    /// has ended.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn open(
        launch: String,
        dir: PathBuf,
        socket: PathBuf,
        id: Id,
        qemu: i32,
    ) -> io::Result<Option<Self>> {
        let pid = Pid::from_raw(qemu);
        let Some(at) = started(pid) else { return Ok(None) };
        let process = ProcessHandle::open(pid, at)?;
        Ok(process.map(|process| {
            let has_nic = AtomicBool::new(false);
            TargetGuest { launch, dir, socket, id, process, has_nic }
        }))
    }

    /// Returns QEMU's process.
    pub(crate) fn process(&self) -> &ProcessHandle {
        &self.process
    }

    /// Takes the lock of the clients of a launch's QMP socket, for at most `limit` of one holder.
    ///
    /// # Errors
    /// The kernel's error, or `TimedOut` with a [`state_file::LockTimeout`].
    pub(crate) async fn lock(dir: &Path, limit: Duration) -> io::Result<Flock<OwnedFd>> {
        // A launch that has ended gets no directory again, except in the moment of its end.
        if !dir.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        state_file::lock(&dir.join(LOCK_DIR), limit).await
    }

    /// Hands a NIC to QEMU; `fds` are the descriptors that the NIC's arguments name by number. The
    /// caller holds the lock.
    ///
    /// # Errors
    /// [`PlugError`]; the guest is as it was. A QEMU that stops answering in the middle undoes the
    /// rest when it runs again.
    pub(crate) fn plug(&self, nic: &NicPlan, fds: Vec<(OwnedFd, RawFd)>) -> Result<(), PlugError> {
        let netdev = arguments::netdev(arguments::value(&nic.args, "-netdev")?)?;
        let card = arguments::value(&nic.args, "-device")?;
        let card = arguments::device(card, &card_id(&self.id))?;
        let mut plug =
            Plug { qmp: Qmp::connect(&self.socket, ANSWER_LIMIT)?, id: &self.id, undo: Vec::new() };
        self.has_nic.store(true, Ordering::Relaxed);
        let done = plug.carry_out(netdev, &card, &fds);
        if done.is_err() && plug.undo() {
            self.has_nic.store(false, Ordering::Relaxed);
        }
        done
    }

    /// Takes the NIC away at the end of its attachment: for a moment the guest may give up the
    /// card, and then the card loses its network. Returns whether QEMU has no part of the NIC any
    /// more.
    pub(crate) async fn end(&self) -> bool {
        if !self.has_nic.load(Ordering::Relaxed) || !self.process.is_running() {
            return true;
        }
        let ended = async {
            let _lock = TargetGuest::lock(&self.dir, GUEST_LIMIT).await?;
            unplug(&self.socket, &self.id, GUEST_LIMIT, true).map_err(io::Error::other)
        };
        match ended.await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!("QEMU keeps {} without a network until it ends: {error}", self.id);
                !self.process.is_running()
            }
        }
    }
}

/// Returns the id of the card of a NIC.
fn card_id(id: &Id) -> String {
    format!("{id}-card")
}

/// Returns whether QEMU's words mean that no place takes the card while the guest runs: the model
/// or its bus, such as ISA, is not made for that.
fn is_fixed(why: &str) -> bool {
    let is_about =
        |what: &str| why.starts_with(what) && why.contains("does not support hotplugging");
    is_about("Device '") || is_about("Bus 'isa") || why.contains("No 'ISA' bus")
}

/// Returns whether QEMU's words mean that another place could take the card.
fn has_no_slot(why: &str) -> bool {
    ["does not support hotplugging", "no slot", "no free slot", "No 'PCI' bus", "is full"]
        .iter()
        .any(|words| why.contains(words))
}

/// The steps with which QEMU gets a NIC.
struct Plug<'a> {
    qmp: Qmp,
    id: &'a Id,
    /// The commands that undo the steps so far, the first step's first.
    undo: Vec<(&'static str, Value)>,
}

impl Plug<'_> {
    /// Carries out all steps.
    fn carry_out(
        &mut self,
        netdev: Value,
        card: &Value,
        fds: &[(OwnedFd, RawFd)],
    ) -> Result<(), PlugError> {
        for (fd, number) in fds {
            let name = arguments::fd_name(*number);
            self.qmp.pass(&name, fd.as_fd())?;
            self.undo.push(("closefd", json!({ "fdname": name })));
        }
        self.step("netdev_add", netdev, "netdev_del", json!({ "id": self.id }))?;
        let refused = match self.add_card(card.clone()) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let why = match refused.refusal() {
            Some(why) if is_fixed(why) => return Err(PlugError::NoHotplug { why: why.to_owned() }),
            Some(why) if has_no_slot(why) => why.to_owned(),
            _ => return Err(refused.into()),
        };
        // A PCI Express port takes one card, and only the caller of QEMU can add ports.
        for port in guest::empty_ports(&mut self.qmp)? {
            let mut card = card.clone();
            card["bus"] = port.into();
            match self.add_card(card) {
                Ok(()) => return Ok(()),
                Err(error) if error.refusal().is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(PlugError::NoSlot { why })
    }

    fn add_card(&mut self, card: Value) -> Result<(), QmpError> {
        let undo = json!({ "id": card["id"] });
        self.step("device_add", card, "device_del", undo)
    }

    /// Runs a command, and records the one that undoes it unless QEMU refused. A QEMU that does not
    /// answer may still run it.
    fn step(
        &mut self,
        command: &str,
        arguments: Value,
        undo: &'static str,
        undo_arguments: Value,
    ) -> Result<(), QmpError> {
        let done = self.qmp.execute(command, arguments);
        if done.as_ref().err().is_none_or(|error| error.refusal().is_none()) {
            self.undo.push((undo, undo_arguments));
        }
        done.map(drop)
    }

    /// Undoes the steps, the last one first. If QEMU does not answer, it finds the commands behind
    /// those that it may still carry out. Returns whether all of them were carried out.
    fn undo(mut self) -> bool {
        let mut answers = true;
        while let Some((command, arguments)) = self.undo.pop() {
            if answers {
                let done = self.qmp.execute(command, arguments);
                answers = matches!(done, Ok(_) | Err(QmpError::Refused { .. }));
            } else {
                self.qmp.ask(command, arguments);
            }
        }
        answers
    }
}

/// Takes a NIC away from the QEMU behind `socket`. The guest may take `limit` to give up the card.
/// If it does not and `force` is set, the card stays without a network. The caller holds the lock.
///
/// # Errors
/// [`UnplugError`]; the guest has the NIC, unless `force` is set.
pub(crate) fn unplug(
    socket: &Path,
    id: &Id,
    limit: Duration,
    force: bool,
) -> Result<(), UnplugError> {
    let mut qmp = Qmp::connect(socket, ANSWER_LIMIT)?;
    let given_up = give_up_card(&mut qmp, id, limit);
    if let (Err(error), false) = (&given_up, force) {
        tracing::debug!("{id} stays: {error}");
        return given_up;
    }
    match qmp.execute("netdev_del", json!({ "id": id })) {
        Err(error) if !is_gone(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Has the guest give up the card of a NIC.
fn give_up_card(qmp: &mut Qmp, id: &Id, limit: Duration) -> Result<(), UnplugError> {
    let card = card_id(id);
    match qmp.execute("device_del", json!({ "id": card })) {
        Ok(_) => {}
        Err(error) if is_gone(&error) => return Ok(()),
        // An earlier detach has asked the guest.
        Err(error)
            if error.refusal().is_some_and(|why| why.contains("in the process of unplug")) => {}
        Err(error) => return Err(error.into()),
    }
    let names = ["DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR"];
    let event = qmp.wait_for(limit, |event| {
        names.contains(&event.name.as_str()) && event.data["device"] == *card
    })?;
    match event {
        Some(event) if event.name == "DEVICE_DELETED" => Ok(()),
        Some(_) => Err(UnplugError::GuestRefused(id.clone())),
        None => Err(UnplugError::NoAnswer { id: id.clone(), limit }),
    }
}

/// Returns whether QEMU's error means that the card or the netdev is gone already.
fn is_gone(error: &QmpError) -> bool {
    error.is_not_found() || error.refusal().is_some_and(|why| why.contains("not found"))
}
