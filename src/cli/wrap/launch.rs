//! Runs a guest whose networks netlaunch moves, behind a stand-in.
//!
//! This process becomes QEMU, and a sidecar starts and supervises everything else
//! ([`crate::sys::process`]). So the process number, the parent, the exit status, the signals, the
//! descriptors and the locks of QEMU are those that the caller would see without netlaunch. If the
//! sidecar is killed, its passt ends with it, and QEMU goes on without a network.
//!
//! A QEMU that daemonizes is a child instead, because the sidecar must learn of its readiness.
//!
//! Any failure before QEMU runs is the reason to run the caller's line untouched.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;

use nix::sys::signal::Signal;
use tracing::Level;

use super::super::args::{LaunchArgs, LogFormat};
use super::super::config::ConfigError;
use super::super::control::CommandReceiver;
use super::super::daemonize::{self, Process};
use super::super::failure::FAILED;
use super::super::request::JobError;
use super::super::request::{self, Job};
use super::super::{Failure, log as messages, run, runtime, wrap_config};
use super::StandIn;
use crate::launcher::guest_port::BoxFuture;
use crate::launcher::plan::{NicPlan, Origin, Plan, plan};
use crate::launcher::{
    CommandSource, LaunchContext, LaunchError, Outcome, SupervisorCommand, config_files,
    daemonizes, start,
};
use crate::sys::process::signals::SignalNumber;
use crate::sys::process::{
    ForegroundLink, InheritedFds, ProgramFds, SidecarFork, fill_closed_standard, fork_sidecar,
};

/// The end of a launch.
pub(super) enum Ended {
    /// The caller's line stays as it is; the reason.
    Unchanged(String),
    /// QEMU was not started, and nothing is left of the launch.
    NotStarted(Reason),
    /// QEMU's exit status.
    Status(u8),
    /// The signal that ended QEMU, or the launch before QEMU ran.
    Signal(SignalNumber),
    /// This process becomes QEMU now.
    Becomes(Qemu),
}

/// Why a launch did not start.
pub(super) struct Reason {
    pub(super) why: String,
    /// The exit status if the caller's line must not run instead.
    pub(super) status: u8,
}

impl From<String> for Reason {
    fn from(why: String) -> Self {
        Reason { why, status: FAILED }
    }
}

impl From<&ConfigError> for Reason {
    fn from(error: &ConfigError) -> Self {
        Reason { why: error.to_string(), status: error.status() }
    }
}

impl From<JobError> for Reason {
    fn from(error: JobError) -> Self {
        Failure::from(error).into()
    }
}

impl From<Failure> for Reason {
    fn from(failure: Failure) -> Self {
        Reason { why: failure.to_string(), status: failure.status() }
    }
}

/// The QEMU that this process becomes.
pub(super) struct Qemu {
    /// Its arguments, its name first.
    pub(super) argv: Vec<OsString>,
    /// Its further descriptors.
    pub(super) fds: ProgramFds,
    /// Its NICs, for the log.
    pub(super) nics: String,
}

impl Ended {
    /// The end of a launch whose QEMU ran.
    fn of(outcome: &Outcome) -> Self {
        let ended_by =
            outcome.qemu.and_then(|status| SignalNumber::try_from(status.signal()?).ok());
        ended_by.map_or(Ended::Status(outcome.code()), Ended::Signal)
    }
}

/// Launches the guest and waits for its end.
///
/// The plan is made, and its runtime has ended, before anything is started: a launch that does not
/// happen leaves a process with one thread and without children, which can become QEMU.
pub(super) fn launch(
    stand_in: &StandIn,
    options: Option<&LaunchArgs>,
    inherited: &InheritedFds,
) -> Ended {
    let job = match job(stand_in, options) {
        Ok(job) => job,
        Err(reason) => return Ended::NotStarted(reason),
    };
    if let Err(error) = fill_closed_standard() {
        return not_started(format!("a standard descriptor is closed: {error}"));
    }
    if stand_in.log.is_kept() {
        let settings = messages::Settings { format: LogFormat::Text, level: Level::WARN };
        let subscriber = messages::subscriber(settings, stand_in.log.clone());
        // An error means that an earlier call has set the destination.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }
    let environment = &stand_in.environment;
    let mut context = LaunchContext {
        env: stand_in.wrapper_environment().unwrap_or_else(|| environment.variables().to_vec()),
        ..run::context(environment, inherited.first_free())
    };
    let planned =
        runtime().and_then(|runtime| runtime.block_on(plan_moves(stand_in, &job, &context)));
    let plan = match planned {
        Ok(plan) => plan,
        Err(failure) => return Ended::NotStarted(failure.into()),
    };
    // A stand-in adds no NIC.
    if plan.nics.iter().any(|nic| matches!(nic.origin, Origin::Added)) {
        return Ended::Unchanged("it has no user-mode network".to_owned());
    }
    let argv = plan.qemu.argv().unwrap_or_default();
    if argv.get(1..) == Some(stand_in.call.arguments()) {
        return Ended::Unchanged(nics(&plan));
    }
    if plan.nics.iter().all(|nic| nic.passt.is_none()) {
        let fds = ProgramFds::default();
        return Ended::Becomes(Qemu { argv, fds, nics: nics(&plan) });
    }
    if !daemonizes(stand_in.call.arguments()) {
        let argv = plan.qemu.supervised_argv().unwrap_or_default();
        return beside(stand_in, plan, argv, context);
    }
    let link = match daemonize::fork(stand_in.call.arguments(), false) {
        Ok(Process::Launching(link)) => link,
        Ok(Process::Foreground(outcome)) => return Ended::of(&outcome),
        Err(failure) => return Ended::NotStarted(failure.into()),
    };
    match runtime() {
        Ok(runtime) => runtime.block_on(guest(stand_in, plan, &mut context, link)),
        Err(failure) => Ended::NotStarted(failure.into()),
    }
}

fn not_started(why: String) -> Ended {
    Ended::NotStarted(why.into())
}

/// Forks the sidecar; `argv` are the arguments of the QEMU that this process becomes. In the
/// sidecar, returns when nothing of the launch is left.
fn beside(
    stand_in: &StandIn,
    plan: Plan,
    argv: Vec<OsString>,
    mut context: LaunchContext,
) -> Ended {
    let link = match fork_sidecar() {
        Ok(SidecarFork::Main(main)) => {
            return match main.wait() {
                Ok(fds) => Ended::Becomes(Qemu { argv, fds, nics: nics(&plan) }),
                Err(why) => not_started(why),
            };
        }
        Ok(SidecarFork::Sidecar(link)) => Arc::new(link),
        Err(error) => return not_started(format!("cannot start a sidecar: {error}")),
    };
    context.main = Some(Arc::clone(&link));
    let ended = match runtime() {
        Ok(runtime) => runtime.block_on(guest(stand_in, plan, &mut context, None)),
        Err(failure) => Ended::NotStarted(failure.into()),
    };
    if let Ended::NotStarted(reason) = ended {
        link.refuse(&reason.why);
    }
    Ended::Status(0)
}

/// Returns the launch that the call, the settings and the options of a call by hand ask for.
fn job(stand_in: &StandIn, options: Option<&LaunchArgs>) -> Result<Job, Reason> {
    let config = stand_in.config.read(&stand_in.environment)?;
    let program = stand_in.real.path.clone().into_os_string();
    let command = [program].into_iter().chain(stand_in.call.arguments().iter().cloned());
    let args = LaunchArgs { command: command.collect(), ..options.cloned().unwrap_or_default() };
    let mut job = request::job(&args, &wrap_config::stand_in(config))?;
    job.request.config_files = config_files(&job.request);
    Ok(job)
}

/// Starts the guest and supervises it. If QEMU daemonizes, `link` leads to the process that ends
/// when QEMU is ready.
async fn guest(
    stand_in: &StandIn,
    plan: Plan,
    context: &mut LaunchContext,
    link: Option<ForegroundLink>,
) -> Ended {
    let foreground = match link.map(ForegroundLink::watch).transpose() {
        Ok(foreground) => foreground.map(Arc::new),
        Err(error) => return not_started(format!("cannot wait for descriptors: {error}")),
    };
    let mut receiver = match CommandReceiver::take_for_stand_in(foreground.clone()) {
        Ok(receiver) => receiver,
        Err(error) => return not_started(format!("cannot take signals: {error}")),
    };
    context.mask = Some(receiver.mask_before());
    let main = context.main.clone();
    let abandoned = async {
        match &main {
            Some(main) => main.ended().await,
            None => std::future::pending().await,
        }
    };
    let begun = tokio::select! {
        biased;
        begun = start(plan, context) => begun,
        () = abandoned => return Ended::Signal(Signal::SIGKILL.into()),
        command = receiver.next(false) => return Ended::Signal(match command {
            SupervisorCommand::Signal(signal) => signal,
            SupervisorCommand::Stop(signal) => signal.into(),
            SupervisorCommand::PowerDown => Signal::SIGTERM.into(),
            SupervisorCommand::Kill | SupervisorCommand::RebuildRules => Signal::SIGKILL.into(),
        }),
    };
    let mut running = match begun {
        Ok(running) => running,
        Err(error) => {
            return Ended::NotStarted(Failure::from(LaunchError::from(error)).into());
        }
    };
    if main.is_none() {
        stand_in.log_moves(&nics(running.plan()));
    }
    if let Some(foreground) = foreground {
        daemonize::report_readiness(&mut running, foreground, None, None);
    }
    let outcome = running.supervise(&mut Commands(receiver)).await;
    for left in &outcome.left {
        tracing::warn!("{left}");
    }
    Ended::of(&outcome)
}

/// Probes the host and plans the launch.
async fn plan_moves(
    stand_in: &StandIn,
    job: &Job,
    context: &LaunchContext,
) -> Result<Plan, Failure> {
    let facts = run::facts(job, &stand_in.environment).await?;
    let mut plan = plan(&job.request, &facts, &context.launch_ids(&job.request)?)?;
    plan.qemu.name = stand_in.call.argv.first().cloned();
    Ok(plan)
}

/// Describes each NIC of a plan, for the log.
fn nics(plan: &Plan) -> String {
    let describe = |nic: &NicPlan| match &nic.origin {
        Origin::Added => "a NIC is added".to_owned(),
        Origin::Adopted { written, change } => {
            format!("{written} moved to {} ({change})", nic.backend)
        }
        Origin::Left { written, why } => format!("{written} stays on slirp: {why}"),
    };
    plan.nics.iter().map(describe).collect::<Vec<_>>().join("; ")
}

/// The commands for the supervisor: the signals.
struct Commands(CommandReceiver);

impl CommandSource for Commands {
    fn next(&mut self) -> BoxFuture<'_, SupervisorCommand> {
        Box::pin(self.0.next(true))
    }
}
