//! QEMU's process, as a launch supervises it: a child, the process beside a sidecar, or the QEMU of
//! another launch.

#[cfg(feature = "cli")]
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

#[cfg(feature = "cli")]
use super::attach::TargetGuest;
#[cfg(feature = "cli")]
use crate::sys::process::MainLink;
use crate::sys::process::signals::SignalNumber;
use crate::sys::process::{Child, Progress};

/// The longest wait for the end of another launch's QEMU in one call.
#[cfg(feature = "cli")]
const LONG: Duration = Duration::from_secs(86400);

/// QEMU's process.
#[derive(Debug)]
pub(super) enum QemuProcess {
    /// A child under its guard. Dropping it ends QEMU.
    Child(Child),
    /// The main process of a sidecar. Its caller alone learns its exit status. Dropping it does
    /// nothing.
    #[cfg(feature = "cli")]
    Main(Arc<MainLink>),
    /// The QEMU of another launch, which has got the NIC of this one. It gets no signal from here,
    /// and stopping it takes the NIC away. Dropping it does nothing.
    #[cfg(feature = "cli")]
    OfLaunch(Arc<TargetGuest>),
}

impl QemuProcess {
    /// Returns the process number.
    pub(super) fn pid(&self) -> Pid {
        match self {
            QemuProcess::Child(child) => child.pid(),
            #[cfg(feature = "cli")]
            QemuProcess::Main(link) => link.process().pid(),
            #[cfg(feature = "cli")]
            QemuProcess::OfLaunch(guest) => guest.process().pid(),
        }
    }

    /// Returns whether a signal to netlaunch is for QEMU.
    pub(super) fn takes_signals(&self) -> bool {
        match self {
            QemuProcess::Child(_) => true,
            #[cfg(feature = "cli")]
            QemuProcess::Main(_) => true,
            #[cfg(feature = "cli")]
            QemuProcess::OfLaunch(_) => false,
        }
    }

    /// Sends a signal, without effect if QEMU has ended.
    pub(super) fn signal(&self, signal: SignalNumber) {
        match self {
            QemuProcess::Child(child) => child.signal(signal),
            #[cfg(feature = "cli")]
            QemuProcess::Main(link) => {
                let _ = link.process().signal(signal);
            }
            #[cfg(feature = "cli")]
            QemuProcess::OfLaunch(_) => {}
        }
    }

    /// Waits for the next change. The future may be dropped, and the call repeated.
    pub(super) async fn next(&mut self) -> Progress {
        match self {
            QemuProcess::Child(child) => child.next().await,
            #[cfg(feature = "cli")]
            QemuProcess::Main(link) => {
                link.ended().await;
                Progress::Ended(std::process::ExitStatus::default())
            }
            #[cfg(feature = "cli")]
            QemuProcess::OfLaunch(guest) => {
                while !guest.process().ended(LONG).await {}
                Progress::Ended(std::process::ExitStatus::default())
            }
        }
    }

    /// Sends `signal`, and SIGKILL if QEMU still runs after `patience`. Takes a NIC away from the
    /// QEMU of another launch. Returns whether QEMU has no part of the NICs any more.
    pub(super) async fn stop(&mut self, signal: Signal, patience: Duration) -> bool {
        match self {
            QemuProcess::Child(child) => {
                child.stop(signal, patience).await;
                true
            }
            #[cfg(feature = "cli")]
            QemuProcess::Main(link) => {
                let process = link.process();
                let _ = process.signal(signal);
                if !process.ended(patience).await {
                    let _ = process.signal(Signal::SIGKILL);
                    process.ended(patience).await;
                }
                true
            }
            #[cfg(feature = "cli")]
            QemuProcess::OfLaunch(guest) => guest.end().await,
        }
    }
}
