//! `netlaunch [OPTIONS] [-- QEMU [ARGS]...]`: runs a guest, serves a network, or prints a plan.
//!
//! ```text
//! run ─ facts ─ plan ─┬─▶ show (--print)
//!                     └─▶ begin: launch ─▶ ready ─▶ supervise ─▶ exit status
//! ```
//!
//! A signal that comes before QEMU runs drops `begin`, which undoes everything that was begun.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::args::PrintFormat;
use super::caller_socket;
use super::control::CommandReceiver;
use super::environment::Environment;
use super::guest_port::HostPorts;
use super::launch_log::LaunchLog;
use super::launch_target;
use super::plan_shell::{change, shell};
use super::plan_xml::{missing_in_xml, xml};
use super::request::Job;
use super::{Failure, daemonize, events, print, print_json, print_text, qemu_end, ready};
use crate::launcher::guest_port::{BoxFuture, GuestPorts};
use crate::launcher::plan::{self, Origin, Plan, PlanError};
use crate::launcher::probe::Programs;
use crate::launcher::{
    CommandSource, LaunchContext, Outcome, Peer, Running, SupervisorCommand, config_files, launch,
    machine,
};
use crate::sys::file_pages;
use crate::sys::process::signals::SignalNumber;
use crate::sys::process::{ForegroundLink, WatchedForeground};
use crate::types::facts::{Facts, Qemu};
use crate::types::{Setting, shell_line};

/// The descriptors that the caller of netlaunch gives it by number.
pub(super) struct GivenFds {
    /// Gets a line when the network serves (`--ready-fd`).
    pub(super) ready: Option<OwnedFd>,
    /// The socket for passt (`--listen-fd`); the request has its kind.
    pub(super) socket: Option<OwnedFd>,
}

/// Carries `job` out; the exit status is QEMU's. If QEMU daemonizes, `foreground` leads to the
/// process that ends when QEMU is ready.
pub(super) async fn run(
    mut job: Job,
    environment: &Environment,
    qemu_fd: RawFd,
    given: GivenFds,
    foreground: Option<ForegroundLink>,
    launch_log: &LaunchLog,
) -> Result<u8, Failure> {
    let GivenFds { ready, socket } = given;
    job.request.config_files = config_files(&job.request);
    let job = job;
    if let Some(format) = job.print {
        return show(&job, environment, qemu_fd, format).await;
    }
    let foreground = foreground.map(ForegroundLink::watch).transpose();
    let foreground = foreground.map_err(Failure::system("wait for descriptors"))?.map(Arc::new);
    let mut receiver =
        CommandReceiver::take(foreground.clone()).map_err(Failure::system("take signals"))?;
    let ports = HostPorts::new(job.request.added(), environment)?;
    let mut context = context(environment, qemu_fd);
    context.mask = Some(receiver.mask_before());
    context.detached = job.detach;
    context.ports = Some(Arc::clone(&ports) as Arc<dyn GuestPorts>);
    if ports.bindings().is_some() {
        receiver.rebuild_on_hangup();
    }

    let mut rebuild = false;
    let begun = {
        let mut begin = Box::pin(begin(&job, environment, &context, socket));
        tokio::select! {
            biased;
            begun = &mut begin => Ok(begun?),
            signal = end(&mut receiver, &mut rebuild) => Err(signal),
        }
    };
    let begun = match begun {
        Ok(begun) => begun,
        Err(signal) => return Ok(ended_early(signal, &ports).await),
    };
    match begun {
        Begun::Done(plan) => {
            report(&plan);
            events::chosen(&plan);
            serve(&plan, ready, environment)?;
            events::ready(&plan, None);
            Ok(0)
        }
        Begun::Running(running, qemu) => {
            let running = *running;
            launch_log.open(&running.plan().dir);
            report(running.plan());
            events::chosen(running.plan());
            if environment.is_root()
                && let Err(error) = running.give_up_privileges()
            {
                tracing::warn!("netlaunch keeps its privileges while QEMU runs: {error}");
            }
            let (running, _offered) =
                caller_socket::offer(running, &environment.launch_root()).await?;
            let with_qemu = running.plan().qemu.program.is_some();
            let mut commands = Commands { receiver, with_qemu, rebuild, signalled: false };
            let (moved, begun) = (qemu_end::moved(running.plan()), Instant::now());
            let outcome =
                supervise(running, &mut commands, ready, foreground, job.detach, environment)
                    .await?;
            if let Some(status) = outcome.qemu {
                let signalled = commands.signalled;
                qemu_end::explain(status, signalled, &job.request, &qemu, environment).await;
                qemu_end::explain_moved(status, begun.elapsed(), moved);
            }
            for left in &outcome.left {
                tracing::warn!("{left}");
            }
            Ok(outcome.code())
        }
    }
}

/// Cleans up after a launch that a signal has ended before QEMU ran, and returns the exit status.
/// The port is gone, but the rules of its filter and of its published ports may have been set.
async fn ended_early(signal: SignalNumber, ports: &HostPorts) -> u8 {
    tracing::debug!(signal = %signal, "ended before QEMU was started");
    ports.collect().await;
    128 + signal.as_raw() as u8
}

/// Plans the launch and starts nothing.
fn planned(job: &Job, facts: &Facts, context: &LaunchContext) -> Result<Plan, Failure> {
    let launch_ids = context.launch_ids(&job.request)?;
    Ok(plan::plan(&job.request, facts, &launch_ids)?)
}

/// Probes the host, plans and starts.
async fn begin(
    job: &Job,
    environment: &Environment,
    context: &LaunchContext,
    socket: Option<OwnedFd>,
) -> Result<Begun, Failure> {
    let facts = facts(job, environment).await?;
    if job.request.command.is_none() {
        // slirp is inside QEMU, and QEMU starts the bridge helper: there is nothing to serve but
        // the arguments.
        let plan = planned(job, &facts, context)?;
        if plan.nics.iter().all(|nic| nic.passt.is_none()) {
            return Ok(Begun::Done(Box::new(plan)));
        }
    }
    let mut context = context.clone();
    if let (Some(socket), Some(kind)) = (socket, &job.request.socket) {
        context.peer = Some(Peer::new(caller_socket::connection(socket, kind).await?));
    }
    let running = Box::new(launch(&job.request, &facts, &context).await?);
    Ok(Begun::Running(running, Box::new(facts.qemu)))
}

/// Returns the signal that ends the launch before it runs. A request for new rules is noted in
/// `rebuild`; it is carried out once the launch runs.
async fn end(receiver: &mut CommandReceiver, rebuild: &mut bool) -> SignalNumber {
    loop {
        match receiver.next(false).await {
            SupervisorCommand::RebuildRules => *rebuild = true,
            SupervisorCommand::Signal(signal) => return signal,
            SupervisorCommand::Stop(signal) => return signal.into(),
            SupervisorCommand::PowerDown => return Signal::SIGTERM.into(),
            SupervisorCommand::Kill => return Signal::SIGKILL.into(),
        }
    }
}

/// The commands for the supervisor of a launch that runs.
struct Commands {
    receiver: CommandReceiver,
    with_qemu: bool,
    /// Whether the first command sets the rules again.
    rebuild: bool,
    /// Whether a signal was passed on.
    signalled: bool,
}

impl CommandSource for Commands {
    fn next(&mut self) -> BoxFuture<'_, SupervisorCommand> {
        Box::pin(async {
            if std::mem::take(&mut self.rebuild) {
                return SupervisorCommand::RebuildRules;
            }
            let command = self.receiver.next(self.with_qemu).await;
            self.signalled |= command != SupervisorCommand::RebuildRules;
            command
        })
    }
}

enum Begun {
    /// Nothing runs; there are only arguments to print.
    Done(Box<Plan>),
    /// A launch runs, with this QEMU.
    Running(Box<Running>, Box<Qemu>),
}

/// Reports that the network serves, and supervises to the end. With a foreground process the report
/// comes when QEMU has daemonized, or with `detach` when it is ready.
async fn supervise(
    mut running: Running,
    commands: &mut Commands,
    ready: Option<OwnedFd>,
    foreground: Option<Arc<WatchedForeground>>,
    detach: bool,
    environment: &Environment,
) -> Result<Outcome, Failure> {
    match foreground {
        Some(foreground) if detach => {
            let (plan, record) = (running.plan().clone(), running.record().clone());
            running.set_events(events::sink(&plan));
            let with_qemu = commands.with_qemu;
            let report = || {
                if with_qemu {
                    print(format!("{}\n", record.name).as_bytes())?;
                    ready::signal(&plan, ready, environment.notify_socket())?;
                } else {
                    serve(&plan, ready, environment)?;
                }
                events::ready(&plan, Some(&record));
                Ok(())
            };
            return daemonize::supervise_detached(running, commands, &foreground, report).await;
        }
        Some(foreground) => {
            let notify = environment.notify_socket();
            daemonize::report_readiness(&mut running, foreground, ready, notify);
            return Ok(running.supervise(commands).await);
        }
        None => {}
    }
    let reported = if commands.with_qemu {
        ready::signal(running.plan(), ready, environment.notify_socket())
    } else {
        serve(running.plan(), ready, environment)
    };
    if let Err(failure) = reported {
        running.stop().await;
        return Err(failure);
    }
    running.set_events(events::sink(running.plan()));
    events::ready(running.plan(), Some(running.record()));
    if let Err(error) = file_pages::release() {
        tracing::debug!("the pages of the program stay in memory: {error}");
    }
    Ok(running.supervise(commands).await)
}

/// Probes the host for the request, with the programs that the command line names.
pub(super) async fn facts(job: &Job, environment: &Environment) -> Result<Facts, Failure> {
    let named = job.programs.qemu.as_deref().map(|path| path.as_os_str());
    let command = job.request.command.as_ref().map(|command| command.program.as_os_str());
    let passt = job.programs.passt.as_deref().map(|path| path.as_os_str());
    let prober = environment.prober();
    let machine = machine(&job.request);
    let programs = match command {
        Some(_) => Programs { qemu: command, emulator: named, passt, machine: machine.as_ref() },
        None => Programs { qemu: named, passt, ..Programs::default() },
    };
    let mut facts = prober.facts_of(programs).await;
    if let Some(why) = &facts.host.unknown {
        tracing::warn!("the host's routes are not known: {why}; mount /proc");
    }
    if let Some(name) = &job.request.nic.interface {
        launch_target::interface_exists(name).await?;
    }
    let mut targets = Vec::new();
    for nic in job.request.added() {
        targets.extend(launch_target::target(nic, job, environment).await?);
    }
    if !targets.is_empty() {
        facts.bridge = prober.bridge();
        facts.further_targets = targets.split_off(1);
        facts.target = targets.pop();
    }
    match facts.qemu.problem.clone() {
        // If the command line names no QEMU, serve mode needs no answer of one.
        Some(problem) if named.is_some() => {
            let is_named = command.is_none();
            let problem = if is_named { problem.about(&[Setting::Qemu]) } else { problem };
            Err(Failure::Launch(
                match facts.qemu.path {
                    None => PlanError::QemuMissing(problem),
                    Some(_) => PlanError::QemuUnusable(problem),
                }
                .into(),
            ))
        }
        _ => Ok(facts),
    }
}

/// The context of a launch that is on no bridge.
pub(super) fn context(environment: &Environment, qemu_fd: RawFd) -> LaunchContext {
    LaunchContext {
        env: environment.for_children(),
        qemu_fd,
        is_root: environment.is_root(),
        ..LaunchContext::new(environment.launch_root())
    }
}

/// Prints the plan.
async fn show(
    job: &Job,
    environment: &Environment,
    qemu_fd: RawFd,
    format: PrintFormat,
) -> Result<u8, Failure> {
    let facts = facts(job, environment).await?;
    let plan = &planned(job, &facts, &context(environment, qemu_fd))?;
    match format {
        PrintFormat::Shell => print_text(&shell(plan))?,
        PrintFormat::Json => print_json(&plan::json(plan))?,
        PrintFormat::Xml => {
            print(xml(plan).as_bytes())?;
            for line in missing_in_xml(plan) {
                tracing::warn!("{line}");
            }
        }
    }
    Ok(0)
}

/// Logs fallbacks and warnings, and with -v the other decisions of the plan.
fn report(plan: &Plan) {
    for nic in &plan.nics {
        match (&nic.origin, &nic.fallback) {
            (Origin::Left { written, .. }, Some(why)) => {
                tracing::warn!("{written} stays on slirp: {why}");
            }
            (_, Some(why)) => tracing::warn!("using {} instead of passt: {why}", nic.backend),
            (_, None) => {}
        }
    }
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    for note in &plan.notes {
        tracing::info!("{note}");
    }
    for change in plan.nics.iter().filter_map(change) {
        tracing::debug!("{change}");
    }
    let passts = || plan.nics.iter().filter_map(|nic| nic.passt.as_ref());
    if passts().any(|passt| !passt.publish.is_empty()) {
        tracing::debug!(
            "published ports answer from the guest's first packet on, such as its DHCP request: passt learns the guest's MAC address from that"
        );
    }
    for passt in passts() {
        tracing::debug!("passt: {}", shell_line(&passt.argv));
    }
    if let Some(argv) = plan.qemu.argv() {
        tracing::debug!("QEMU: {}", shell_line(&argv));
    }
}

/// Prints the arguments for QEMU and reports that the network serves.
fn serve(plan: &Plan, ready: Option<OwnedFd>, environment: &Environment) -> Result<(), Failure> {
    print(format!("{}\n", shell_line(&plan.qemu.args)).as_bytes())?;
    ready::signal(plan, ready, environment.notify_socket())
}
