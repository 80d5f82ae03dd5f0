//! Carries a plan out: launch directory, passt or port of each NIC, QEMU, in this order.
//!
//! If a step fails, the steps before it are undone, the last one first, and nothing is left.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::context::{LaunchContext, Peer};
use super::error::StartError;
use super::event::EventSink;
use super::guest_port::{GuestPorts, PortDescriptors, PortRequest};
use super::kept_logs::QEMU_LOG;
use super::passt::{self, PasstSpawn};
use super::passt_again::start_before_qemu;
use super::ports::{self, PublishError};
use super::qemu_files::daemonizes;
use super::qemu_process::QemuProcess;
use super::qmp_socket;
use super::record::{Program, Record};
use super::running::{Running, RunningNic};
use crate::launcher::plan::{BridgePlan, NicPlan, Plan, TapOwner, Transport};
use crate::sys::privileges::Account;
#[cfg(feature = "cli")]
use crate::sys::process::{Cleaner, fork_cleaner};
use crate::sys::process::{Spawn, Stdio};
#[cfg(feature = "cli")]
use crate::types::error_text;
use crate::types::{Mac, Publish, tap_name};

/// Carries `plan` out and returns once passt serves and QEMU, unless in serve mode, executes.
///
/// # Errors
/// [`StartError`]; then nothing is left running and no file is left.
pub(crate) async fn start(plan: Plan, context: &LaunchContext) -> Result<Running, StartError> {
    let account = plan.user.as_ref().map(Account::find).transpose()?;
    if let Some(account) = account.as_ref().filter(|account| is_shared(account)) {
        tracing::warn!(
            "QEMU runs as {}, whose processes can all stop, trace and replace each other: use a user that runs nothing else",
            account.name
        );
    }
    ports::check(&plan.published())
        .map_err(|error| StartError::from(name_launch(error, context)).with_forward(&plan))?;
    let file_limit = ports::make_room(&plan)?;
    let dir = Arc::new(context.root.create(&plan.dir, plan.name.as_deref())?);
    let record = Record::new(&plan);
    #[cfg(feature = "cli")]
    let record = match &context.guest {
        Some(guest) => record.of_attachment(guest),
        None => record,
    };
    record.write().map_err(StartError::Prepare)?;
    let starts = Arc::default();
    let nic = |nic: &NicPlan| RunningNic {
        passt_spawn: nic.passt.as_ref().map(|passt| PasstSpawn {
            plan: passt.clone(),
            dir: Arc::clone(&dir),
            starts: Arc::clone(&starts),
            env: context.env.clone(),
            mask: context.mask,
            root: context.is_root,
        }),
        reconnects: nic.reconnects,
        ..RunningNic::default()
    };
    let mut running = Running {
        qemu: None,
        nics: plan.nics.iter().map(nic).collect(),
        dir: Some(dir),
        record,
        plan,
        ports: context.ports.clone(),
        events: Arc::new(EventSink::default()),
        #[cfg(feature = "cli")]
        cleaner: None,
        qemu_log: None,
        file_limit,
    };
    let plan = running.plan.clone();
    match running.start_all(context, account).await {
        Ok(()) => Ok(running),
        Err(error) => {
            for left in running.end().await {
                tracing::warn!("{left}");
            }
            Err(error.with_forward(&plan))
        }
    }
}

impl Running {
    /// Forks a cleaner if ports are published by rules. An attachment has one already. A process
    /// with several threads gets none, because only system calls can follow its fork.
    #[cfg(feature = "cli")]
    fn fork_cleaner(&self, context: &LaunchContext) -> Option<Cleaner> {
        let ports = self.ports.as_ref().filter(|_| context.guest.is_none())?;
        let forked = fork_cleaner(&ports.cleanup()?).inspect_err(|error| {
            tracing::debug!(
                "a killed launch would keep its ports until the next command: {}",
                error_text(error)
            );
        });
        forked.ok()
    }

    /// Starts everything: the NICs in their order, then QEMU. After an error, [`Running::end`] ends
    /// what was started.
    async fn start_all(
        &mut self,
        context: &LaunchContext,
        account: Option<Account>,
    ) -> Result<(), StartError> {
        #[cfg(feature = "cli")]
        {
            self.cleaner = self.fork_cleaner(context);
        }
        let mut qemu_ends = Vec::new();
        for place in 0..self.nics.len() {
            qemu_ends.extend(self.start_nic(place, context).await?);
        }
        #[cfg(feature = "cli")]
        if let Some(guest) = &context.guest {
            self.record.write().map_err(StartError::Prepare)?;
            self.qemu = Some(QemuProcess::OfLaunch(Arc::clone(guest)));
            return Ok(guest.plug(self.plan.nics.first(), qemu_ends)?);
        }
        if let Some(qmp) = &self.plan.qemu.qmp {
            qemu_ends.extend(qmp_socket::make(qmp).map_err(StartError::Prepare)?);
            self.record.qmp = Some(qmp.socket.clone());
        }
        #[cfg(feature = "cli")]
        if let (Some(main), Some(program)) = (&context.main, &self.plan.qemu.program) {
            let pid = main.process().pid().as_raw();
            self.record.qemu = Some(Program { pid, path: program.clone() });
            self.record.write().map_err(StartError::Prepare)?;
            // The last step: from here on QEMU runs in the caller's process.
            main.release(&qemu_ends).map_err(StartError::Prepare)?;
            self.qemu = Some(QemuProcess::Main(Arc::clone(main)));
            return Ok(());
        }
        let qemu = &self.plan.qemu;
        if let (Some(program), Some(argv)) = (&qemu.program, qemu.supervised_argv()) {
            let mut spawn = Spawn::new(program, &argv).env(&context.env).inherit();
            if context.detached {
                let log = qemu_log(&self.plan.dir).map_err(StartError::Prepare)?;
                self.qemu_log = Some(log.try_clone().map_err(StartError::Prepare)?);
                spawn = spawn.stdio(Stdio::Null, Stdio::Null, Stdio::Null);
                spawn = spawn.keep_both_outputs(log);
            }
            spawn = spawn.file_limit(self.file_limit);
            if let Some(account) = account {
                spawn = spawn.account(account);
            }
            if let Some(mask) = context.mask {
                spawn = spawn.mask(mask);
            }
            for (end, number) in qemu_ends {
                spawn = spawn.fd(end, number);
            }
            if let Some(cleanup) = self.ports.as_ref().and_then(|ports| ports.cleanup()) {
                spawn = spawn.cleanup(&cleanup);
            }
            if daemonizes(argv.get(1..).unwrap_or_default()) {
                spawn = spawn.daemonizes();
            }
            let child = spawn.start().map_err(StartError::Qemu)?;
            self.record.qemu = Some(Program { pid: child.pid().as_raw(), path: program.clone() });
            self.qemu = Some(QemuProcess::Child(child));
        }
        self.record.write().map_err(StartError::Prepare)
    }

    /// Starts passt, or makes the port, of the NIC at `place`. Returns the descriptors that QEMU
    /// inherits, each with its number: its end of the fd transport, or those of the tap.
    async fn start_nic(
        &mut self,
        place: usize,
        context: &LaunchContext,
    ) -> Result<Vec<(OwnedFd, RawFd)>, StartError> {
        // The running NICs are in the order of the plan's.
        let nic = &self.plan.nics[place];
        if let Some(passt_spawn) = &self.nics[place].passt_spawn {
            let caller_socket = context.peer.as_ref().and_then(Peer::take);
            let (passt_end, qemu_end) = match nic.transport {
                Some(Transport::Fd) if caller_socket.is_some() => (caller_socket, None),
                Some(Transport::Fd) => {
                    let (passt_end, qemu_end) = pair().map_err(StartError::Prepare)?;
                    (Some(passt_end), Some(qemu_end))
                }
                _ => (None, None),
            };
            let number = nic.fd;
            let child = match passt_end {
                None => start_before_qemu(passt_spawn).await?,
                Some(end) => passt::start(passt_spawn, Some(end)).await?,
            };
            self.passt_started(place, child);
            return Ok(qemu_end.zip(number).into_iter().collect());
        }
        let by_netlaunch = |bridge: &&BridgePlan| bridge.tap_owner == TapOwner::Netlaunch;
        let (Some(bridge), Some(mac)) = (nic.bridge.as_ref().filter(by_netlaunch), nic.mac) else {
            return Ok(Vec::new());
        };
        let ports = self.ports.clone().ok_or(StartError::NoPorts)?;
        let bridge = bridge.clone();
        let publish = nic.publish.clone();
        let made = self.make_port(place, ports.as_ref(), &bridge, mac, &publish).await?;
        let queues = made.queues.into_iter().zip(bridge.queue_fds);
        let vhosts = made.vhosts.into_iter().zip(bridge.vhost_fds);
        Ok(queues.chain(vhosts).collect())
    }

    /// Makes the guest's port with the rules of its filter, turns it on, publishes the guest's
    /// ports, and returns QEMU's descriptors.
    async fn make_port(
        &mut self,
        place: usize,
        guest_ports: &dyn GuestPorts,
        bridge: &BridgePlan,
        mac: Mac,
        publish: &[Publish],
    ) -> Result<PortDescriptors, StartError> {
        let request = PortRequest {
            launch: self.record.name.clone(),
            tap: self.plan.name.as_ref().and_then(|name| tap_name(name, place)),
            bridge: bridge.bridge.clone(),
            network: bridge.network.clone(),
            mac,
            port: bridge.port.clone(),
            filter: bridge.filter.clone(),
            publish: publish.to_vec(),
            queues: bridge.queue_fds.len(),
            vhosts: bridge.vhost_fds.len(),
        };
        let port = guest_ports.make(request).await.map_err(StartError::Bridge)?;
        self.record.set_tap(place, port.name());
        let nic = &mut self.nics[place];
        let port = nic.port.insert(port);
        self.record.write().map_err(StartError::Prepare)?;
        if let Some(filter) = &bridge.filter {
            let set = port.set_rules().await.map_err(StartError::Filter)?;
            set.notes.iter().for_each(|note| tracing::warn!("{note}"));
            self.record.set_filter(place, &filter.name, set.learner.is_some());
            nic.learner = set.learner;
        }
        port.up().await.map_err(StartError::Bridge)?;
        if !publish.is_empty() {
            nic.held_ports = ports::hold(publish)?;
            let published = port.publish(&nic.held_ports).await;
            nic.follower = Some(published.map_err(StartError::Publishing)?);
        }
        nic.watch = port.watch();
        port.descriptors().map_err(StartError::Bridge)
    }
}

/// Names the launch that has a busy port. The kernel's tables show this program as the holder, or
/// no program for a TCP socket that only keeps a port from others ([`ports::hold`]).
#[cfg(feature = "cli")]
fn name_launch(mut error: PublishError, context: &LaunchContext) -> PublishError {
    let PublishError::Busy {
        publish: crate::types::PublishRequest::Ports(publish),
        port,
        holder,
        ..
    } = &mut error
    else {
        return error;
    };
    let records = super::record::running(&context.root).unwrap_or_default();
    let has = |nic: &super::record::NicRecord| {
        nic.bridge.is_some() && nic.publish.iter().any(|other| other.needs(publish, *port))
    };
    let found = records.into_iter().find(|record| record.nics.iter().any(has));
    if let Some(record) = found
        && holder.as_ref().is_none_or(|(_, pid)| *pid == record.pid)
    {
        *holder = Some((format!("the launch {}", record.name), record.pid));
    }
    error
}

#[cfg(not(feature = "cli"))]
fn name_launch(error: PublishError, _: &LaunchContext) -> PublishError {
    error
}

/// Makes the file for the output of a QEMU in the background. passt's user can make files in the
/// directory while root's passt starts.
fn qemu_log(dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600).open(dir.join(QEMU_LOG))
}

/// Whether a user is one that several services have at the same time, by Debian's base-passwd and
/// systemd's UIDS-GIDS document.
fn is_shared(account: &Account) -> bool {
    account.uid.as_raw() == 65_534 || ["nobody", "daemon"].contains(&account.name.as_str())
}

/// The two ends of the fd transport. netlaunch closes its copies once both programs have inherited
/// their ends. Then passt ends when QEMU closes its end.
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?)
}
