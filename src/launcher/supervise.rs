//! Supervises a launch: carries out commands, restarts passt, learns the guest's address, and
//! removes everything at the end.
//!
//! [`Running::supervise`] waits in one loop for whatever happens first: the end of QEMU, a command,
//! or an event of a NIC ([`super::nic_work`]). Each has a handler of its own in [`Supervisor`]. The
//! loop ends with QEMU; in serve mode it ends with a passt, with a signal, or when a passt cannot
//! be started again.
//!
//! The learner of the guest's address ends before the rules of its filter are removed, and the
//! launch directory is removed last.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::Outcome;
use super::command::{CommandSource, SupervisorCommand};
use super::event::LaunchEvent;
use super::guest_port::{BoxFuture, GuestPortError, LearnerEvent, WatchEvent};
use super::nic_work::{NicEvent, NicWork, first_event, pending, report_following};
use super::passt::describe;
use super::passt_failure::passt_failure;
use super::qemu_process::QemuProcess;
use super::record::NicRecord;
use super::recovery::{PasstEnd, RestartResult};
use super::running::{Running, RunningNic};
use super::stopping::{StopStep, Stopping};
use crate::sys::process::Progress;
use crate::sys::process::signals::SignalNumber;
use crate::types::error_text;

/// The rules of every port being set again.
type Rebuild = BoxFuture<'static, Result<Vec<String>, GuestPortError>>;

/// Whether the loop goes on after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    GoesOn,
    Ends,
}

impl Running {
    /// Ends QEMU and passt and removes everything.
    #[cfg(feature = "cli")]
    pub(crate) async fn stop(self) -> Outcome {
        self.supervise(&mut super::command::Once::new(Signal::SIGTERM)).await
    }

    /// Supervises until QEMU ends (in serve mode until passt has served, or a command ends it), and
    /// removes everything.
    pub(crate) async fn supervise(self, commands: &mut dyn CommandSource) -> Outcome {
        let mut supervisor = Supervisor::new(self);
        loop {
            let event = supervisor.next(commands).await;
            if supervisor.handle(event) == Next::Ends {
                return supervisor.end().await;
            }
        }
    }
}

/// An event that a supervisor waits for.
enum Event {
    QemuDaemonized,
    QemuEnded(ExitStatus),
    Command(SupervisorCommand),
    /// An event of the NIC at this place.
    Nic(usize, NicEvent),
    Rebuilt(Result<Vec<String>, GuestPortError>),
    /// A step towards the end of QEMU.
    Stop(StopStep),
}

/// A supervised launch, and everything that is in flight for it.
struct Supervisor {
    running: Running,
    outcome: Outcome,
    /// The work of each NIC, in the order of the running NICs.
    work: Vec<NicWork>,
    rebuild: Option<Rebuild>,
    /// Whether another rebuild follows the one in flight.
    rebuild_again: bool,
    stopping: Stopping,
}

impl Supervisor {
    fn new(mut running: Running) -> Self {
        Supervisor {
            work: running.nics.iter_mut().map(NicWork::new).collect(),
            running,
            outcome: Outcome::default(),
            rebuild: None,
            rebuild_again: false,
            stopping: Stopping::default(),
        }
    }

    /// Waits for the next event. If several are ready, the first one in this order is returned: an
    /// end of QEMU comes before a command for it.
    async fn next(&mut self, commands: &mut dyn CommandSource) -> Event {
        tokio::select! {
            biased;
            progress = progress(&mut self.running.qemu) => match progress {
                Progress::Daemonized => Event::QemuDaemonized,
                Progress::Ended(status) => Event::QemuEnded(status),
            },
            command = commands.next() => Event::Command(command),
            (place, event) = first_event(&mut self.work, &mut self.running.nics) => {
                Event::Nic(place, event)
            }
            result = pending(&mut self.rebuild) => Event::Rebuilt(result),
            step = self.stopping.next() => Event::Stop(step),
        }
    }

    fn handle(&mut self, event: Event) -> Next {
        match event {
            Event::QemuDaemonized => self.running.qemu_daemonized(),
            Event::QemuEnded(status) => {
                self.outcome.qemu = Some(status);
                return Next::Ends;
            }
            Event::Command(command) => return self.handle_command(command),
            Event::Nic(place, NicEvent::PasstEnded(status)) => {
                return self.handle_passt_end(place, status);
            }
            Event::Nic(place, NicEvent::Restarted(result)) => {
                return self.handle_restart(place, result);
            }
            Event::Nic(place, NicEvent::Learning((event, learner))) => {
                if let Some(work) = self.work.get_mut(place) {
                    work.learning = learner.map(|learner| learner.next());
                }
                self.running.handle_learning_event(place, event);
            }
            Event::Nic(place, NicEvent::Following((event, follower))) => {
                if let Some(work) = self.work.get_mut(place) {
                    work.following = Some(follower.next());
                }
                report_following(event);
            }
            Event::Nic(place, NicEvent::Watched((event, watch))) => {
                if let Some(work) = self.work.get_mut(place) {
                    work.watching = watch.map(|watch| watch.next());
                }
                self.report_place(place, event);
            }
            Event::Nic(place, NicEvent::Resolvers(servers)) => {
                if let Some((nic, work)) = self.nic(place) {
                    work.restart = nic.use_resolvers(&servers);
                }
            }
            Event::Rebuilt(result) => {
                match result {
                    Ok(notes) => notes.iter().for_each(|note| tracing::info!("{note}")),
                    Err(error) => tracing::error!("{}", error_text(&error)),
                }
                let again = std::mem::take(&mut self.rebuild_again);
                self.rebuild = again.then(|| self.running.rebuild_rules()).flatten();
            }
            Event::Stop(step) => self.handle_stop(step),
        }
        Next::GoesOn
    }

    /// Returns the NIC at `place` with its work; `None` if there is no such NIC.
    fn nic(&mut self, place: usize) -> Option<(&mut RunningNic, &mut NicWork)> {
        self.running.nics.get_mut(place).zip(self.work.get_mut(place))
    }

    fn is_serve_mode(&self) -> bool {
        self.running.qemu.is_none()
    }

    fn signal_qemu(&self, signal: impl Into<SignalNumber>) {
        if let Some(qemu) = &self.running.qemu {
            qemu.signal(signal.into());
        }
    }

    fn handle_command(&mut self, command: SupervisorCommand) -> Next {
        tracing::debug!("command: {command:?}");
        let signal: SignalNumber = match command {
            SupervisorCommand::RebuildRules => {
                match self.rebuild {
                    Some(_) => self.rebuild_again = true,
                    None => self.rebuild = self.running.rebuild_rules(),
                }
                return Next::GoesOn;
            }
            SupervisorCommand::PowerDown if self.power_down() => return Next::GoesOn,
            SupervisorCommand::PowerDown => Signal::SIGTERM.into(),
            SupervisorCommand::Signal(signal) => signal,
            SupervisorCommand::Stop(signal) => signal.into(),
            SupervisorCommand::Kill => Signal::SIGKILL.into(),
        };
        let takes_signals = self.running.qemu.as_ref().is_some_and(QemuProcess::takes_signals);
        if !takes_signals {
            self.outcome.signal = Some(signal.as_raw());
            return Next::Ends;
        }
        self.signal_qemu(signal);
        if matches!(command, SupervisorCommand::Stop(_) | SupervisorCommand::PowerDown) {
            self.stopping.signalled();
        }
        Next::GoesOn
    }

    /// Begins to ask the guest to power down. Returns false if QEMU must end at once: the launch
    /// has no stop timeout, its QEMU has no QMP socket, or an end has begun.
    fn power_down(&mut self) -> bool {
        let takes_signals = self.running.qemu.as_ref().is_some_and(QemuProcess::takes_signals);
        let limit = self.running.plan.stop_timeout.filter(|_| takes_signals);
        let Some(limit) = limit.filter(|_| self.stopping.is_idle()) else { return false };
        let Some(socket) = self.running.record.qmp.clone() else {
            tracing::warn!("the guest cannot be asked to power down: its QEMU has no QMP socket");
            return false;
        };
        self.stopping = Stopping::power_down(socket, limit);
        true
    }

    fn handle_stop(&mut self, step: StopStep) {
        match step {
            StopStep::Asked(Ok(())) => {
                tracing::info!("the guest is asked to power down; a second signal ends QEMU");
                return;
            }
            StopStep::Asked(Err(error)) => {
                let error = error_text(&error);
                tracing::warn!("the guest cannot be asked to power down, so QEMU ends: {error}");
            }
            StopStep::GuestOverdue(limit) => {
                let limit = limit.as_secs();
                tracing::warn!("the guest did not power down within {limit} s, so QEMU ends");
            }
            StopStep::QemuOverdue => {
                tracing::warn!("QEMU does not end on SIGTERM and is killed");
                return self.signal_qemu(Signal::SIGKILL);
            }
        }
        self.signal_qemu(Signal::SIGTERM);
        self.stopping.signalled();
    }

    fn handle_passt_end(&mut self, place: usize, status: ExitStatus) -> Next {
        let is_serve_mode = self.is_serve_mode();
        let nic = self.running.nics.get_mut(place);
        let words = nic.and_then(|nic| nic.passt.take()).map(|passt| passt_failure(&passt));
        if is_serve_mode && status.success() {
            return Next::Ends; // QEMU came and has left.
        }
        let (how, words) = (describe(&status), words.unwrap_or_default());
        let reason = match (&self.running.record.nics[..], self.running.record.nics.get(place)) {
            ([_, _, ..], Some(NicRecord { id: Some(id), .. })) => {
                format!("passt of {id} {how} ({words})")
            }
            _ => format!("passt {how} ({words})"),
        };
        self.recover(PasstEnd { nic: place, reason, left: status.success() });
        Next::GoesOn
    }

    /// Begins to start a passt again.
    fn recover(&mut self, end: PasstEnd) {
        let (serve_mode, events) = (self.is_serve_mode(), Arc::clone(&self.running.events));
        if let Some((nic, work)) = self.nic(end.nic) {
            let restart = nic.recover(end, serve_mode, events, &mut work.history);
            work.restart = Some(restart);
        }
    }

    fn handle_restart(&mut self, place: usize, result: RestartResult) -> Next {
        match result {
            RestartResult::Serves(child) => {
                let Some(work) = self.work.get_mut(place) else { return Next::GoesOn };
                let attempt = work.history.serves(Instant::now());
                let id = self.running.plan.nics.get(place).and_then(|nic| nic.id.as_ref());
                let id = id.map(|id| id.as_str().to_owned());
                let pid = child.pid().as_raw();
                self.running.passt_started(place, child);
                let _ = self.running.record.write();
                tracing::info!(
                    target: "netlaunch::event",
                    event = "passt-restarted",
                    nic = id,
                    pid,
                    attempt,
                    "passt serves again"
                );
                let pid = pid.unsigned_abs();
                self.running.events.send(LaunchEvent::PasstRestarted { nic: place, pid, attempt });
            }
            RestartResult::Failed(reason) => {
                self.recover(PasstEnd { nic: place, reason, left: false })
            }
            RestartResult::Lost => {
                self.outcome.backend_lost = true;
                self.running.events.send(LaunchEvent::BackendLost { nic: place });
                if self.is_serve_mode() {
                    return Next::Ends;
                }
            }
        }
        Next::GoesOn
    }

    /// Reports whether the port of the NIC at `place` is on its bridge.
    fn report_place(&self, place: usize, event: WatchEvent) {
        match event {
            WatchEvent::Lost(what) => {
                tracing::warn!("{what}");
                self.running.events.send(LaunchEvent::BackendLost { nic: place });
            }
            WatchEvent::Back(what) => tracing::warn!("{what}"),
            WatchEvent::Ended(Some(error)) => {
                tracing::debug!("the bridge is not watched any more: {}", error_text(&error));
            }
            WatchEvent::Ended(None) => {}
        }
    }

    /// Ends and removes everything.
    async fn end(self) -> Outcome {
        let Supervisor { mut running, mut outcome, work, rebuild, .. } = self;
        // The restarts end, and the learners and followers end before their rules are removed.
        drop((work, rebuild));
        outcome.left = running.end().await;
        running.events.send(LaunchEvent::Ended(outcome.clone()));
        outcome
    }
}

impl Running {
    /// Records what is known of the guest's address on the NIC at `place`.
    fn handle_learning_event(&mut self, place: usize, event: LearnerEvent) {
        let (address, addresses6) = match event {
            LearnerEvent::Learned { address, addresses6 } => {
                let v6 = addresses6.iter().map(Ipv6Addr::to_string);
                let all: Vec<String> = address.iter().map(Ipv4Addr::to_string).chain(v6).collect();
                match all.as_slice() {
                    [] => tracing::info!("the guest has no address any more"),
                    [address] => tracing::info!("the guest has the address {address}"),
                    all => tracing::info!("the guest has the addresses {}", all.join(", ")),
                }
                (address, addresses6)
            }
            LearnerEvent::Failed(error) => {
                tracing::error!("{}", error_text(&error));
                (None, Vec::new())
            }
            LearnerEvent::Ended(Some(error)) => {
                let error = error_text(&error);
                tracing::error!("the guest's address is not learned any more: {error}");
                return;
            }
            LearnerEvent::Ended(None) => {
                tracing::debug!("the guest's port has no filter any more");
                return;
            }
        };
        self.record.set_learned(place, address, addresses6.clone());
        let _ = self.record.write();
        self.events.send(LaunchEvent::AddressLearned { nic: place, address, addresses6 });
    }

    fn rebuild_rules(&self) -> Option<Rebuild> {
        self.ports.as_ref().map(|ports| ports.rebuild_rules())
    }
}

/// Waits until QEMU daemonizes or ends. In serve mode there is no QEMU, and the wait has no end.
async fn progress(qemu: &mut Option<QemuProcess>) -> Progress {
    match qemu {
        Some(qemu) => qemu.next().await,
        None => std::future::pending().await,
    }
}
