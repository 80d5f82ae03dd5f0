//! QEMU's process, as a launch supervises it: a child, or the process beside a sidecar.

#[cfg(feature = "cli")]
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

#[cfg(feature = "cli")]
use crate::sys::process::MainLink;
use crate::sys::process::signals::SignalNumber;
use crate::sys::process::{Child, Progress};

/// QEMU's process.
#[derive(Debug)]
pub(super) enum QemuProcess {
    /// A child under its guard. Dropping it ends QEMU.
    Child(Child),
    /// The main process of a sidecar. Its caller alone learns its exit status. Dropping it does
    /// nothing.
    #[cfg(feature = "cli")]
    Main(Arc<MainLink>),
}

impl QemuProcess {
    /// Returns the process number.
    pub(super) fn pid(&self) -> Pid {
        match self {
            QemuProcess::Child(child) => child.pid(),
            #[cfg(feature = "cli")]
            QemuProcess::Main(link) => link.process().pid(),
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
        }
    }

    /// Sends `signal`, and SIGKILL if QEMU still runs after `patience`.
    pub(super) async fn stop(&mut self, signal: Signal, patience: Duration) {
        match self {
            QemuProcess::Child(child) => {
                child.stop(signal, patience).await;
            }
            #[cfg(feature = "cli")]
            QemuProcess::Main(link) => {
                let process = link.process();
                let _ = process.signal(signal);
                if !process.ended(patience).await {
                    let _ = process.signal(Signal::SIGKILL);
                    process.ended(patience).await;
                }
            }
        }
    }
}
