//! A launch that runs, before and during its supervision.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::event::{EventSink, LaunchEvent};
use super::guest_port::{AddressFollower, AddressLearner, GuestPort, GuestPorts, PortWatch};
use super::launch_dir::{LaunchDir, LaunchDirError};
use super::passt::PasstSpawn;
use super::qemu_process::QemuProcess;
use super::record::{Program, Record};
use crate::launcher::plan::Plan;
use crate::sys::file_limit::FileLimit;
use crate::sys::process::Child;
#[cfg(feature = "cli")]
use crate::sys::process::Cleaner;
use crate::types::error_text;

/// How long QEMU may take to end after SIGTERM.
pub(super) const QEMU_END_LIMIT: Duration = Duration::from_secs(5);
/// How long passt may take to end after SIGTERM; measured: 4 to 23 ms.
pub(super) const PASST_END_LIMIT: Duration = Duration::from_secs(1);
/// How often the end of a cancelled restart is looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A launch that runs. Dropping it ends it without blocking an executor: the guards of QEMU and
/// passt kill them, a task waits for the guards ([`Child`]), and the launch directory is removed
/// after passt is gone. The rules of a guest's filter then stay for a later command to remove.
#[derive(Debug)]
pub(crate) struct Running {
    // The fields drop in this order: QEMU, the NICs, and only then the things that they use.
    pub(super) qemu: Option<QemuProcess>,
    /// The NICs, in the order of the plan's.
    pub(super) nics: Vec<RunningNic>,
    pub(super) dir: Option<Arc<LaunchDir>>,
    pub(super) record: Record,
    pub(super) plan: Plan,
    pub(super) ports: Option<Arc<dyn GuestPorts>>,
    pub(super) events: Arc<EventSink>,
    /// Removes the rules of published ports if this process is killed. The guard of QEMU does the
    /// same, but only while QEMU runs.
    #[cfg(feature = "cli")]
    pub(super) cleaner: Option<Cleaner>,
    /// The output of a QEMU in the background; `None` for a QEMU that has the caller's terminal.
    pub(super) qemu_log: Option<File>,
    /// The caller's limit of open files, if this process has raised its own.
    pub(super) file_limit: Option<FileLimit>,
}

/// One NIC of a launch that runs.
#[derive(Debug, Default)]
pub(super) struct RunningNic {
    /// passt; `None` on the other backends, and while no passt serves.
    pub(super) passt: Option<Child>,
    /// The guest's port on a bridge; `None` on the other backends.
    pub(super) port: Option<Box<dyn GuestPort>>,
    /// The learner of the guest's address; it ends before the rules of the filter are removed.
    pub(super) learner: Option<Box<dyn AddressLearner>>,
    /// The follower of the guest's address; it ends before the published ports are removed.
    pub(super) follower: Option<Box<dyn AddressFollower>>,
    /// The watch of the port's place.
    pub(super) watch: Option<Box<dyn PortWatch>>,
    /// The sockets that keep the published ports of a guest on a bridge from other programs.
    pub(super) held_ports: Vec<OwnedFd>,
    /// The start of passt; `None` on the other backends.
    pub(super) passt_spawn: Option<PasstSpawn>,
    /// Whether QEMU connects again after a restart of passt.
    pub(super) reconnects: bool,
}

impl Running {
    /// Returns the plan that was carried out.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns what `netlaunch ps` shows of it.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Returns the output of a QEMU in the background, opened at its beginning.
    #[cfg(feature = "cli")]
    pub(crate) fn qemu_log(&self) -> Option<File> {
        self.qemu_log.as_ref().and_then(|log| log.try_clone().ok())
    }

    /// Sends the events from now on to `sink`.
    pub(crate) fn set_events(&mut self, sink: EventSink) {
        self.events = Arc::new(sink);
    }

    /// Ends what still runs, last started first, and removes the rest; goes on after errors.
    /// Returns one line for each thing that could not be removed.
    pub(super) async fn end(&mut self) -> Vec<String> {
        let has_released = match self.qemu.take() {
            Some(mut qemu) => qemu.stop(Signal::SIGTERM, QEMU_END_LIMIT).await,
            None => true,
        };
        let mut left = Vec::new();
        for nic in self.nics.iter_mut().rev() {
            left.extend(nic.end(has_released).await);
        }
        if let Some(Err(error)) = self.remove_dir().await {
            left.push(error_text(&error));
        }
        #[cfg(feature = "cli")]
        if let Some(cleaner) = self.cleaner.take() {
            cleaner.dismiss();
        }
        left
    }

    /// Removes the launch directory. A passt whose restart was cancelled is killed by its guard and
    /// holds the directory until then.
    async fn remove_dir(&mut self) -> Option<Result<(), LaunchDirError>> {
        let mut dir = self.dir.take()?;
        loop {
            match Arc::try_unwrap(dir) {
                Ok(dir) => return Some(dir.remove()),
                Err(held) => dir = held,
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Adds a started passt to the NIC at `place`, and to the record of the launch.
    pub(super) fn passt_started(&mut self, place: usize, child: Child) {
        let Some(nic) = self.nics.get_mut(place) else { return };
        let spawn = nic.passt_spawn.as_ref();
        let path = spawn.map(|spawn| spawn.plan.program.clone()).unwrap_or_default();
        self.record.set_passt(place, Program { pid: child.pid().as_raw(), path });
        nic.passt = Some(child);
    }

    /// Records the daemon that QEMU has become.
    pub(super) fn qemu_daemonized(&mut self) {
        let (Some(child), Some(qemu)) = (&self.qemu, &mut self.record.qemu) else { return };
        qemu.pid = child.pid().as_raw();
        let pid = qemu.pid.unsigned_abs();
        let _ = self.record.write();
        self.events.send(LaunchEvent::Daemonized { pid });
    }
}

impl RunningNic {
    /// Ends passt and removes the guest's port, or turns it off if QEMU may still have its tap;
    /// goes on after errors. Returns one line for each thing that could not be removed.
    async fn end(&mut self, has_released: bool) -> Vec<String> {
        if let Some(mut passt) = self.passt.take() {
            passt.stop(Signal::SIGTERM, PASST_END_LIMIT).await;
        }
        self.passt_spawn = None;
        drop((self.learner.take(), self.follower.take(), self.watch.take()));
        // The guest is gone, and no other tap can have the name of its tap yet.
        let left = match self.port.take() {
            Some(port) if has_released => port.remove().await,
            Some(port) => port.turn_off().await,
            None => Vec::new(),
        };
        self.held_ports.clear();
        left
    }
}
