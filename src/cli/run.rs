//! `netlaunch [OPTIONS] [-- QEMU [ARGS]...]`: run, serve, print.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use nix::sys::signal::Signal;

use super::args::PrintFormat;
use super::environment::Environment;
use super::nwfilter::{self, Filtered};
use super::nwfilter_error::NwfilterError;
use super::orders::Orders;
use super::request::Job;
use super::{Failure, network, print, print_json, print_text, ready};
use crate::binding::Bindings;
use crate::facts::Facts;
use crate::launch::{self, LaunchError, Order, Outcome, Running, Surroundings, launch};
use crate::plan::{self, Attachment, Backend, Plan, PlanError, Request};

/// Carries `job` out; the exit status is QEMU's. `ready` is told when the network serves.
pub(super) async fn run(
    job: Job,
    environment: &Environment,
    qemu_fd: RawFd,
    ready: Option<OwnedFd>,
) -> Result<u8, Failure> {
    if let Some(format) = job.print {
        let facts = facts(&job, environment).await?;
        let around = surroundings(environment, qemu_fd, None, None);
        let plan =
            plan::plan(&job.request, &facts, &around.particulars()).map_err(LaunchError::from)?;
        return show(&job.request, &plan, format);
    }
    let mut orders = Orders::take().map_err(Failure::system("take signals"))?;
    let bindings = bindings(&job, environment)?;
    let around = surroundings(environment, qemu_fd, Some(&orders), bindings);

    let mut begin = Box::pin(async {
        let facts = facts(&job, environment).await?;
        if job.request.command.is_none() {
            // slirp is inside QEMU, and its bridge helper is QEMU's: there is nothing to serve but
            // the arguments.
            let plan = plan::plan(&job.request, &facts, &around.particulars())
                .map_err(LaunchError::from)?;
            if plan.backend != Backend::Passt {
                return Ok(Begun::Done(Box::new(plan)));
            }
        }
        Ok::<_, Failure>(Begun::Running(Box::new(launch(&job.request, &facts, &around).await?)))
    });
    if around.bindings.is_some() {
        orders.rebuild_on_hangup();
    }
    let mut asked = None;
    let begun = tokio::select! {
        biased;
        begun = &mut begin => begun?,
        signal = end(&mut orders, &mut asked, &job, environment) => {
            tracing::debug!(signal = signal.as_str(), "ended before QEMU was started");
            // Which undoes what was begun.
            drop(begin);
            // The port is gone; its filter may have been set.
            if let Some(bindings) = &around.bindings
                && let Err(error) = bindings.collect().await
            {
                tracing::warn!("{error}");
            }
            return Ok(128 + signal as i32 as u8);
        }
    };
    match begun {
        Begun::Done(plan) => {
            report(&plan);
            serve(&plan, ready, environment)?;
            Ok(0)
        }
        Begun::Running(running) => {
            let running = *running;
            report(running.plan());
            if environment.is_root()
                && let Err(error) = running.give_up_privileges()
            {
                tracing::warn!("netlaunch keeps its privileges while QEMU runs: {error}");
            }
            let outcome = supervise(running, orders, asked, ready, &job, environment).await?;
            for left in &outcome.left {
                tracing::warn!("{left}");
            }
            Ok(outcome.code())
        }
    }
}

/// The signal that ends what was begun. Rules that are `asked` for meanwhile come once it runs.
async fn end(
    orders: &mut Orders,
    asked: &mut Option<Box<Bindings>>,
    job: &Job,
    environment: &Environment,
) -> Signal {
    loop {
        match next(orders, false, job, environment).await {
            Order::Rebuild(bindings) => *asked = Some(bindings),
            Order::Signal(signal) | Order::Stop(signal) => return signal,
        }
    }
}

/// The next order. With filters a SIGHUP has rules made anew, as nwfilter.conf says by then.
async fn next(
    orders: &mut Orders,
    shared_terminal: bool,
    job: &Job,
    environment: &Environment,
) -> Order {
    loop {
        let order = orders.next(shared_terminal).await;
        if !matches!(order, Order::Signal(Signal::SIGHUP)) {
            return order;
        }
        match bindings(job, environment) {
            Ok(None) => return order,
            Ok(Some(bindings)) => return Order::Rebuild(Box::new(bindings)),
            Err(error) => tracing::error!("{error}"),
        }
    }
}

enum Begun {
    /// Only arguments to print.
    Done(Box<Plan>),
    /// Something runs.
    Running(Box<Running>),
}

async fn supervise(
    running: Running,
    mut orders: Orders,
    mut asked: Option<Box<Bindings>>,
    ready: Option<OwnedFd>,
    job: &Job,
    environment: &Environment,
) -> Result<Outcome, Failure> {
    let with_qemu = running.plan().qemu.program.is_some();
    let told = match with_qemu {
        true => signal_ready(ready, environment),
        false => serve(running.plan(), ready, environment),
    };
    if let Err(failure) = told {
        running.stop().await;
        return Err(failure);
    }
    let orders = async || match asked.take() {
        Some(bindings) => Order::Rebuild(bindings),
        None => next(&mut orders, with_qemu, job, environment).await,
    };
    Ok(running.supervise(orders).await)
}

/// What the host offers, asked of the programs that were named.
async fn facts(job: &Job, environment: &Environment) -> Result<Facts, Failure> {
    let named = job.programs.qemu.as_deref().map(|path| path.as_os_str());
    let command = job.request.command.as_ref().map(|command| command.program.as_os_str());
    let passt = job.programs.passt.as_deref().map(|path| path.as_os_str());
    let prober = environment.prober();
    let mut facts = prober.facts(command.or(named), passt).await;
    if let Some(why) = &facts.host.unknown {
        tracing::warn!("the host's routes are not known: {why}; mount /proc");
    }
    if let Some(attachment) = &job.request.attachment {
        facts.bridge = prober.bridge();
        facts.target = Some(match attachment {
            Attachment::Network(name) => network::target(name, environment).await?,
            Attachment::Bridge(name) => launch::target(name).await.map_err(Failure::Link)?,
        });
    }
    if let (Some(target), Some(filter)) = (&mut facts.target, &job.request.filter)
        && let Some(filtered) = Filtered::new(filter, job.request.mac, environment)?
    {
        match job.print {
            Some(_) => target.firewall.extend(filtered.scripts()?),
            // Mistakes are told before anything is started.
            None => filtered.check()?,
        }
    }
    match facts.qemu.problem.clone() {
        // Without one that was named, serve mode does without asking QEMU.
        Some(problem) if named.is_some() => Err(Failure::Launch(
            match facts.qemu.path {
                None => PlanError::QemuMissing(problem),
                Some(_) => PlanError::QemuUnusable(problem),
            }
            .into(),
        )),
        _ => Ok(facts),
    }
}

fn surroundings(
    environment: &Environment,
    qemu_fd: RawFd,
    orders: Option<&Orders>,
    bindings: Option<Bindings>,
) -> Surroundings {
    Surroundings {
        root: environment.launch_root(),
        env: environment.for_children(),
        mask: orders.map(Orders::mask_before),
        qemu_fd,
        is_root: environment.is_root(),
        bindings,
    }
}

/// The filters of ports, where the guest is to have one.
fn bindings(job: &Job, environment: &Environment) -> Result<Option<Bindings>, Failure> {
    if job.request.filter.is_none() {
        return Ok(None);
    }
    let config_dir = environment.config_dir()?.ok_or(NwfilterError::NoDirectory)?;
    Ok(Some(nwfilter::bindings(&config_dir, environment)?))
}

fn show(request: &Request, plan: &Plan, format: PrintFormat) -> Result<u8, Failure> {
    match format {
        PrintFormat::Shell => print_text(&plan::shell(plan))?,
        PrintFormat::Json => print_json(&plan::json(plan))?,
        PrintFormat::Xml => {
            print(plan::xml(request, plan).as_bytes())?;
            for option in plan::unsaid(request, plan) {
                tracing::warn!("{option} is not in this XML: libvirt's format has nothing for it");
            }
        }
    }
    Ok(0)
}

/// Says once what the user would not expect, and with -v everything.
fn report(plan: &Plan) {
    if let Some(why) = &plan.fallback {
        tracing::warn!("using {} instead of passt: {why}", plan.backend);
    }
    for note in &plan.notes {
        tracing::info!("{note}");
    }
    if let Some(passt) = &plan.passt {
        tracing::debug!("passt: {}", plan::shell_line(&passt.argv));
    }
    if let Some(argv) = plan.qemu.argv() {
        tracing::debug!("QEMU: {}", plan::shell_line(&argv));
    }
}

/// Prints the arguments for QEMU and says that they can be used.
fn serve(plan: &Plan, ready: Option<OwnedFd>, environment: &Environment) -> Result<(), Failure> {
    print(format!("{}\n", plan::shell_line(&plan.qemu.args)).as_bytes())?;
    signal_ready(ready, environment)
}

/// Reports that the network serves: a line to `--ready-fd`, a message to the service manager.
fn signal_ready(ready: Option<OwnedFd>, environment: &Environment) -> Result<(), Failure> {
    match ready.map(ready::report) {
        Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            tracing::warn!("--ready-fd is full and not read: readiness is not reported there");
        }
        // A reader that has gone does not wait for the line.
        Some(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Failure::system("tell --ready-fd that the network serves")(error));
        }
        _ => {}
    }
    if let Err(error) = ready::notify(environment.notify_socket()) {
        tracing::warn!("cannot tell the service manager that the network serves: {error}");
    }
    Ok(())
}
