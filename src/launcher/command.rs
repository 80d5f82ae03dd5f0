//! Commands for the supervisor of a launch.

use nix::sys::signal::Signal;
use tokio::sync::mpsc::UnboundedReceiver;

use super::guest_port::BoxFuture;
use crate::sys::process::signals::SignalNumber;

/// A command for the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SupervisorCommand {
    /// Sends this signal to QEMU. In serve mode, where the caller starts QEMU, it ends the launch.
    Signal(SignalNumber),
    /// Sets the rules of all ports' filters again.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the command line sends it"))]
    RebuildRules,
    /// Ends the launch: this signal for QEMU, and SIGKILL if QEMU still runs 5 s later.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the command line sends it"))]
    Stop(Signal),
    /// Asks the guest to power down, and ends the launch as [`SupervisorCommand::Stop`] with
    /// SIGTERM after the stop timeout. Without a stop timeout, and at the second time, it is that
    /// command.
    PowerDown,
    /// Ends the launch at once: SIGKILL for QEMU.
    Kill,
}

/// Where a supervisor gets its commands.
pub(crate) trait CommandSource: Send {
    /// Waits for the next command. The future may be dropped before it is done, and must not lose
    /// a command then.
    fn next(&mut self) -> BoxFuture<'_, SupervisorCommand>;
}

/// A channel as a source. After its sender is gone no further command comes.
#[derive(Debug)]
pub(super) struct Channel(pub(super) UnboundedReceiver<SupervisorCommand>);

impl CommandSource for Channel {
    fn next(&mut self) -> BoxFuture<'_, SupervisorCommand> {
        Box::pin(async {
            match self.0.recv().await {
                Some(command) => command,
                None => std::future::pending().await,
            }
        })
    }
}

/// Gives the command to stop with a signal, and then no further command.
#[cfg(feature = "cli")]
#[derive(Debug)]
pub(super) struct Once(Option<SupervisorCommand>);

#[cfg(feature = "cli")]
impl Once {
    pub(super) fn new(signal: Signal) -> Self {
        Once(Some(SupervisorCommand::Stop(signal)))
    }
}

#[cfg(feature = "cli")]
impl CommandSource for Once {
    fn next(&mut self) -> BoxFuture<'_, SupervisorCommand> {
        let next = self.0.take();
        Box::pin(async move {
            match next {
                Some(command) => command,
                None => std::future::pending().await,
            }
        })
    }
}
