//! `netlaunch stop`: powers the guest of a launch down, and waits until the launch has ended.
//!
//! ```text
//! power button by QMP ─ stop timeout ─▶ SIGTERM to QEMU ─ 5 s ─▶ SIGKILL ─▶ launch directory gone
//! ```
//!
//! This command asks the guest itself, and does not send SIGTERM to the netlaunch of the launch: so
//! it has a stop timeout of its own, and it stops a stand-in and a launch of a library as well,
//! whose process goes on. QEMU's end ends the launch, with QEMU's status.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::args::StopArgs;
use super::environment::Environment;
use super::failure::usage_if;
use super::running_launch::find;
use super::{Failure, runtime};
use crate::launcher::attach::TargetGuest;
use crate::launcher::power_down;
use crate::launcher::record::{Program, Record};
use crate::sys::process::{ProcessHandle, started};
use crate::types::error_text;

/// How long the guest gets by default if the launch has no stop timeout, in seconds.
const GUEST_LIMIT: u64 = 60;
/// How long QEMU gets to end after SIGTERM, and after SIGKILL.
const QEMU_LIMIT: Duration = Duration::from_secs(5);
/// How long the launch gets to remove everything after QEMU's end. One of its tools may take 30 s.
const END_LIMIT: Duration = Duration::from_secs(60);
/// The pause between two looks at the launch directory.
const PAUSE: Duration = Duration::from_millis(10);

/// Why a launch was not stopped. The text is one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StopError {
    #[error(
        "netlaunch does not run the QEMU of {name}, so it cannot stop the guest: power the guest down, or end the launch with a SIGTERM to its process {pid}"
    )]
    NoQemu { name: String, pid: i32 },
    #[error(
        "the guest of {0} cannot be asked to power down, since its QEMU has no QMP socket (a script started it, or the path of its launch directory is too long): --stop-timeout 0 ends QEMU at once"
    )]
    NoSocket(String),
    #[error("cannot take the lock of the QMP socket: {}", error_text(.0))]
    Lock(io::Error),
    #[error("QEMU of {name}, process {pid}, does not end after SIGKILL: it waits for the kernel")]
    QemuStays { name: String, pid: i32 },
    #[error("QEMU of {name} has ended, and its netlaunch, process {pid}, has not")]
    LaunchStays { name: String, pid: i32 },
}

impl StopError {
    /// Returns the exit status: 2 for a mistake of the caller.
    pub(super) fn status(&self) -> u8 {
        usage_if(matches!(self, StopError::NoQemu { .. }))
    }
}

/// Stops a launch.
pub(super) fn stop(args: &StopArgs, environment: &Environment) -> Result<u8, Failure> {
    runtime()?.block_on(run(args, environment))?;
    Ok(0)
}

async fn run(args: &StopArgs, environment: &Environment) -> Result<(), Failure> {
    let record = find(&args.launch, environment)?;
    let (name, pid) = (record.name.clone(), record.pid);
    let Some(Program { pid: qemu_pid, .. }) = record.qemu else {
        return Err(StopError::NoQemu { name, pid }.into());
    };
    let failed = || Failure::system("open a process of the launch");
    let open = |pid: i32| {
        let pid = Pid::from_raw(pid);
        started(pid).map_or(Ok(None), |at| ProcessHandle::open(pid, at)).map_err(failed())
    };
    let (qemu, netlaunch) = (open(qemu_pid)?, open(pid)?);
    // While the launch lives, its processes have had these numbers.
    let lives = find(&args.launch, environment).is_ok_and(|other| {
        (&other.dir, other.pid, &other.qemu) == (&record.dir, pid, &record.qemu)
    });
    if let Some(qemu) = qemu.filter(|_| lives) {
        let seconds = args.stop_timeout.map(u64::from).or(record.stop_timeout);
        let limit = Duration::from_secs(seconds.unwrap_or(GUEST_LIMIT));
        if !power_off(&record, &qemu, limit, environment).await? {
            end_qemu(&name, &qemu).await?;
        }
    }
    let deadline = Instant::now() + END_LIMIT;
    let runs = || netlaunch.as_ref().is_some_and(ProcessHandle::is_running);
    while record.dir.exists() && runs() {
        if Instant::now() > deadline {
            return Err(StopError::LaunchStays { name, pid }.into());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Asks the guest to power down, and waits for at most `limit`. Returns whether QEMU has ended.
async fn power_off(
    record: &Record,
    qemu: &ProcessHandle,
    limit: Duration,
    environment: &Environment,
) -> Result<bool, Failure> {
    if limit.is_zero() {
        return Ok(false);
    }
    let name = &record.name;
    let socket = record.qmp.clone().ok_or_else(|| StopError::NoSocket(name.clone()))?;
    let lock = TargetGuest::lock(&record.dir, environment.lock_limit).await;
    let lock = match lock {
        Err(_) if !qemu.is_running() => return Ok(true),
        lock => lock.map_err(StopError::Lock)?,
    };
    let begun = Instant::now();
    let asked = tokio::time::timeout(limit, power_down(socket)).await;
    drop(lock);
    if let Ok(Err(error)) = &asked
        && !qemu.ended(Duration::ZERO).await
    {
        let error = error_text(error);
        tracing::warn!("the guest of {name} cannot be asked to power down, so QEMU ends: {error}");
        return Ok(false);
    }
    if qemu.ended(limit.saturating_sub(begun.elapsed())).await {
        tracing::info!("the guest of {name} has powered down");
        return Ok(true);
    }
    let limit = limit.as_secs();
    tracing::warn!("the guest of {name} did not power down within {limit} s, so QEMU ends");
    Ok(false)
}

/// Ends QEMU with SIGTERM, and with SIGKILL if it still runs afterwards.
async fn end_qemu(name: &str, qemu: &ProcessHandle) -> Result<(), Failure> {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        qemu.signal(signal).map_err(Failure::system("end QEMU"))?;
        if qemu.ended(QEMU_LIMIT).await {
            return Ok(());
        }
    }
    Err(StopError::QemuStays { name: name.to_owned(), pid: qemu.pid().as_raw() }.into())
}
