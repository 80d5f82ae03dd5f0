//! `netlaunch attach`: gives the guest of a launch another NIC while it runs.
//!
//! ```text
//! foreground process ── supervisor of the attachment ── cleaner
//! ```
//!
//! The supervisor does all the work, and the command that the caller waits for is the foreground
//! process ([`crate::sys::process`]), which ends when the guest has the NIC. Everything that can be
//! refused is refused before the first change: the launch and its QMP socket, the id, the MAC
//! address and the subnet, the network, the filter with its variables, and the published ports.
//!
//! The supervisor lives until the QEMU of the launch ends, or until a signal detaches the NIC. If
//! it is killed, the cleaner runs `netlaunch collect-attachment`, which turns the port off first.
//! Until then the rules of the filter stay in force, because they belong to the tap, which QEMU
//! still has. If the cleaner was killed, too, the next attach or detach does its work.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::args::{AttachArgs, LaunchArgs};
use super::attach_error::AttachError;
use super::collect_attachment::collect_left;
use super::config::Config;
use super::control::CommandReceiver;
use super::environment::Environment;
use super::guest_port::HostPorts;
use super::request::{self, Job};
use super::running_launch::find;
use super::{Failure, print, run, runtime};
use crate::launcher::attach::{ANSWER_LIMIT, TargetGuest, machine, network_names};
use crate::launcher::guest_port::{BoxFuture, GuestPorts};
use crate::launcher::plan::{
    AddressChoice, Backend, NicRequest, Plan, PresentNics, Transport, plan,
};
use crate::launcher::qmp::Qmp;
use crate::launcher::record::{NicRecord, Program, Record, running};
use crate::launcher::{CommandSource, LaunchContext, Outcome, Running, SupervisorCommand, start};
use crate::sys::file_pages;
use crate::sys::process::{ForegroundLink, Side, WatchedForeground, fork_cleaner, fork_supervisor};
use crate::types::{Device, Id, LaunchName};

/// Attaches a NIC.
pub(super) fn attach(
    args: &AttachArgs,
    config: &Config,
    environment: &Environment,
    free_fd: RawFd,
) -> Result<u8, Failure> {
    let link = match fork_supervisor().map_err(Failure::system("start a supervisor"))? {
        Side::Foreground(foreground) => {
            let qemu = Some(foreground.wait());
            return Ok(Outcome { qemu, ..Outcome::default() }.code());
        }
        Side::Supervisor(link) => link,
    };
    let dir = environment.launch_root().fresh();
    let program = environment.own_program().map_err(Failure::system("find its own program"))?;
    let clean: [OsString; 3] = [program.into(), "collect-attachment".into(), dir.clone().into()];
    let cleaner = fork_cleaner(&clean).map_err(Failure::system("start a process"))?;
    let attachment = Attachment { args, config, environment, free_fd, dir };
    let ended = runtime().and_then(|runtime| runtime.block_on(attachment.supervise(link)));
    cleaner.dismiss();
    ended
}

/// An attachment that begins.
struct Attachment<'a> {
    args: &'a AttachArgs,
    config: &'a Config,
    environment: &'a Environment,
    free_fd: RawFd,
    /// Its launch directory.
    dir: PathBuf,
}

impl Attachment<'_> {
    /// Attaches the NIC, lets the foreground process end, and supervises the NIC to its end.
    async fn supervise(&self, link: ForegroundLink) -> Result<u8, Failure> {
        let failed = Failure::system("wait for descriptors");
        let foreground = Arc::new(link.watch().map_err(failed)?);
        let receiver = CommandReceiver::take(Some(Arc::clone(&foreground)));
        let mut receiver = receiver.map_err(Failure::system("take signals"))?;
        let (running, id) = self.begin(&mut receiver).await?;
        let mut commands = Commands { receiver, first: None };
        tokio::select! {
            biased;
            // A signal has come before the NIC was there.
            command = commands.receiver.next(false) => commands.first = Some(command),
            () = std::future::ready(()) => report(&foreground, &id)?,
        }
        if self.environment.is_root()
            && let Err(error) = running.give_up_privileges()
        {
            tracing::debug!("the attachment keeps its privileges: {error}");
        }
        if let Err(error) = file_pages::release() {
            tracing::debug!("the pages of the program stay in memory: {error}");
        }
        let outcome = running.supervise(&mut commands).await;
        for left in &outcome.left {
            tracing::warn!("{left}");
        }
        Ok(outcome.code())
    }

    /// Checks everything, makes the NIC and hands it to QEMU. A signal waits meanwhile, since each
    /// step has a time limit, and QEMU must not be left with half of a NIC.
    async fn begin(&self, receiver: &mut CommandReceiver) -> Result<(Running, Id), Failure> {
        let AttachArgs { launch: name, net } = self.args;
        if net.device == Device::None {
            return Err(AttachError::NoCard.into());
        }
        collect_left(self.environment).await?;
        let target = Target::find(name, self.environment)?;
        let limit = self.environment.lock_limit;
        let _lock =
            TargetGuest::lock(&target.record.dir, limit).await.map_err(AttachError::Lock)?;
        // Another attachment may have been made meanwhile.
        let target = Target::find(name, self.environment)?;
        let (nic, machine) = target.fitting(net)?;
        let guest = target.guest(&nic.id, self.environment)?;
        let job = self.job(&target.record, nic.clone(), machine)?;
        let ports = HostPorts::new(job.request.added(), self.environment)?;
        let context = LaunchContext {
            mask: Some(receiver.mask_before()),
            ports: Some(Arc::clone(&ports) as Arc<dyn GuestPorts>),
            guest: Some(Arc::new(guest)),
            ..run::context(self.environment, self.free_fd)
        };
        if ports.bindings().is_some() {
            receiver.rebuild_on_hangup();
        }
        let plan = self.plan(&job, &context).await?;
        Ok((start(plan, &context).await?, nic.id))
    }

    /// Returns the request for the NIC, as a launch of the same QEMU would have it.
    fn job(
        &self,
        record: &Record,
        nic: NicRequest,
        machine: Option<String>,
    ) -> Result<Job, Failure> {
        let program = record.qemu.as_ref().map(|qemu| qemu.path.clone().into_os_string());
        let machine = machine.map(|machine| ["-machine".into(), OsString::from(machine)]);
        let command = program.into_iter().chain(machine.into_iter().flatten()).collect();
        let user = record.user.clone();
        let args = LaunchArgs { net: vec![nic], command, user, ..LaunchArgs::default() };
        let mut job = request::job(&args, self.config)?;
        for nic in &mut job.request.nics {
            // The memory of a guest that runs cannot become shareable.
            nic.transport = nic.transport.filter(|transport| *transport != Transport::VhostUser);
        }
        let used = record.nics.iter().filter_map(|nic| nic.guest.address);
        job.request.present = PresentNics {
            subnets: used.map(|address| address.subnet()).collect(),
            has_dhcpv6: record.nics.iter().any(|nic| nic.backend == Backend::Passt),
            has_global_mtu: record.nics.iter().any(NicRecord::has_global_mtu),
        };
        Ok(job)
    }

    /// Plans the NIC.
    async fn plan(&self, job: &Job, context: &LaunchContext) -> Result<Plan, Failure> {
        let facts = run::facts(job, self.environment).await?;
        let mut launch_ids = context.launch_ids(&job.request)?;
        launch_ids.dir.clone_from(&self.dir);
        let mut plan = plan(&job.request, &facts, &launch_ids)?;
        // QEMU runs already, as its user.
        plan.user = None;
        plan.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        plan.notes.iter().for_each(|note| tracing::info!("{note}"));
        Ok(plan)
    }
}

/// Prints the id of the NIC and lets the foreground process end.
fn report(foreground: &WatchedForeground, id: &Id) -> Result<(), Failure> {
    print(format!("{id}\n").as_bytes())?;
    if let Err(error) = foreground.release(0) {
        tracing::debug!("cannot release the foreground process: {error}");
    }
    Ok(())
}

/// A launch whose guest gets or loses a NIC.
pub(super) struct Target {
    pub(super) record: Record,
    /// QEMU's QMP socket.
    pub(super) socket: PathBuf,
    qemu: Program,
}

impl Target {
    /// Finds the launch with this name, or with a launch directory of this name.
    ///
    /// # Errors
    /// There is none or several, or its QEMU has no QMP socket.
    pub(super) fn find(name: &LaunchName, environment: &Environment) -> Result<Self, Failure> {
        let record = find(name, environment)?;
        let Some(qemu) = record.qemu.clone() else {
            return Err(AttachError::NoQemu(record.name).into());
        };
        let Some(socket) = record.qmp.clone() else {
            return Err(AttachError::NoSocket(record.name).into());
        };
        Ok(Target { record, socket, qemu })
    }

    /// Returns the NIC with an id that the guest does not have, and the type of the guest's
    /// machine.
    fn fitting(&self, net: &NicRequest) -> Result<(NicRequest, Option<String>), AttachError> {
        let launch = || self.record.name.clone();
        let mut qmp = Qmp::connect(&self.socket, ANSWER_LIMIT)?;
        let names = network_names(&mut qmp)?;
        let nics = &self.record.nics;
        let is_used = |id: &Id| {
            let card = format!("{id}-card");
            nics.iter().any(|nic| nic.id.as_ref() == Some(id))
                || names.iter().any(|name| name == id.as_str() || *name == card)
        };
        if net.id_named && is_used(&net.id) {
            return Err(AttachError::SameId { launch: launch(), id: net.id.clone() });
        }
        if let Some(mac) = net.mac
            && nics.iter().any(|nic| nic.guest.mac == Some(mac))
        {
            return Err(AttachError::SameMac { launch: launch(), mac });
        }
        if let AddressChoice::Fixed(address) = net.address {
            let subnet = address.subnet();
            let mut used = nics.iter().filter_map(|nic| nic.guest.address);
            if used
                .any(|other| subnet.contains(&other.subnet()) || other.subnet().contains(&subnet))
            {
                return Err(AttachError::SameSubnet { launch: launch(), subnet });
            }
        }
        let numbered = (0..=u32::MAX).filter_map(|number| format!("net{number}").parse().ok());
        let id = net.id_named.then(|| net.id.clone());
        let id = id.or_else(|| numbered.into_iter().find(|id| !is_used(id))).unwrap_or_default();
        Ok((NicRequest { id, id_named: true, ..net.clone() }, machine(&mut qmp)?))
    }

    /// Opens the guest.
    fn guest(&self, id: &Id, environment: &Environment) -> Result<TargetGuest, Failure> {
        let Record { name, dir, .. } = &self.record;
        let socket = self.socket.clone();
        let guest = TargetGuest::open(name.clone(), dir.clone(), socket, id.clone(), self.qemu.pid);
        let guest = guest.map_err(Failure::system("open the process of QEMU"))?;
        // While the launch lives, its QEMU has had this process number.
        let lives = running(&environment.launch_root())?.iter().any(|other| {
            other.dir == *dir && other.qemu.as_ref().is_some_and(|qemu| qemu.pid == self.qemu.pid)
        });
        match guest {
            Some(guest) if lives => Ok(guest),
            _ => Err(AttachError::Ended(name.clone()).into()),
        }
    }
}

/// The commands for the supervisor of an attachment: the signals.
struct Commands {
    receiver: CommandReceiver,
    /// The command that came before the supervisor began.
    first: Option<SupervisorCommand>,
}

impl CommandSource for Commands {
    fn next(&mut self) -> BoxFuture<'_, SupervisorCommand> {
        Box::pin(async {
            match self.first.take() {
                Some(command) => command,
                None => self.receiver.next(false).await,
            }
        })
    }
}
