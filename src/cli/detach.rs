//! `netlaunch detach`: takes an attached NIC away from a guest that runs.
//!
//! This command has the guest give up the card and QEMU remove the netdev. Then it ends the
//! supervisor of the attachment, which turns the port off, removes its rules and then its tap. So a
//! guest that keeps the card keeps its network, and the command can say so.

use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::args::DetachArgs;
use super::attach::Target;
use super::attach_error::AttachError;
use super::collect_attachment::collect_left;
use super::environment::Environment;
use super::{Failure, runtime};
use crate::launcher::attach::{TargetGuest, unplug};
use crate::launcher::record::{Attached, Record, running};
use crate::sys::process::{ProcessHandle, started};

/// How long a guest may take to give up a card by default, in seconds.
const GUEST_LIMIT: u32 = 10;
/// How long the supervisor may take to remove the port and its rules. One of its tools may take
/// 30 s.
const END_LIMIT: Duration = Duration::from_secs(60);

/// Detaches a NIC.
pub(super) fn detach(args: &DetachArgs, environment: &Environment) -> Result<u8, Failure> {
    runtime()?.block_on(run(args, environment))?;
    Ok(0)
}

async fn run(args: &DetachArgs, environment: &Environment) -> Result<(), Failure> {
    let collected = collect_left(environment).await?;
    let target = Target::find(&args.launch, environment)?;
    let (launch, id) = (&target.record.name, &args.id);
    let is_meant = |record: &Record| {
        record.attached_to.as_ref().is_some_and(|to| to.dir == target.record.dir)
            && record.nics.iter().any(|nic| nic.id.as_ref() == Some(id))
    };
    if collected.iter().any(is_meant) {
        return Ok(());
    }
    let limit = environment.lock_limit;
    let lock = TargetGuest::lock(&target.record.dir, limit).await.map_err(AttachError::Lock)?;
    // Another command may have detached it meanwhile.
    let target = Target::find(&args.launch, environment)?;
    let nic = target.record.nics.iter().find(|nic| nic.id.as_ref() == Some(id));
    let attached = match nic.map(|nic| &nic.attached) {
        Some(Some(attached)) => attached,
        Some(None) => {
            return Err(AttachError::FromStart { launch: launch.clone(), id: id.clone() }.into());
        }
        None => return Err(AttachError::NoNic { launch: launch.clone(), id: id.clone() }.into()),
    };
    let limit = Duration::from_secs(args.timeout.unwrap_or(GUEST_LIMIT).into());
    unplug(&target.socket, id, limit, args.force).map_err(|error| match error {
        error if args.force => AttachError::Unplug(error),
        error => AttachError::Stays { id: id.clone(), error },
    })?;
    // The supervisor asks QEMU as well, and finds nothing left there.
    drop(lock);
    end_supervisor(args, attached, environment).await
}

/// Ends the supervisor of the attachment and waits until nothing of it is left.
async fn end_supervisor(
    args: &DetachArgs,
    attached: &Attached,
    environment: &Environment,
) -> Result<(), Failure> {
    let pid = Pid::from_raw(attached.pid);
    let failed = Failure::system("end the supervisor of the attachment");
    let process = started(pid).map(|at| ProcessHandle::open(pid, at)).transpose();
    let Some(process) = process.map_err(failed)?.flatten() else { return Ok(()) };
    // While the attachment lives, its supervisor has this process number.
    let lives = running(&environment.launch_root())?
        .iter()
        .any(|launch| launch.nics.iter().any(|nic| nic.attached.as_ref() == Some(attached)));
    if !lives {
        return Ok(());
    }
    let sent = process.signal(Signal::SIGTERM);
    sent.map_err(Failure::system("end the supervisor of the attachment"))?;
    if process.ended(END_LIMIT).await {
        return Ok(());
    }
    Err(AttachError::Supervisor { pid: attached.pid, id: args.id.clone() }.into())
}
