//! Turns signals and the end of the parent process into commands for the supervisor.

use std::io;
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getpid, getsid};

use crate::launcher::SupervisorCommand;
use crate::sys::process::WatchedForeground;
use crate::sys::process::signals::{Parent, Received, Signals};

/// The source of the supervisor's commands.
#[derive(Debug)]
pub(super) struct CommandReceiver {
    signals: Signals,
    parent: Option<Parent>,
    /// The foreground process, if this process is the supervisor of a daemon.
    foreground: Option<Arc<WatchedForeground>>,
    rebuilds: bool,
    /// Whether each signal does to QEMU exactly what it would do without netlaunch.
    passes_on: bool,
}

impl CommandReceiver {
    /// Takes the signals and watches the parent.
    ///
    /// A launch ends with the process that started it, however that process ends. It runs on if
    /// SIGHUP is ignored (nohup), or if it leads a session of its own (setsid, a service). With a
    /// `foreground` process it ends with that one until QEMU is ready.
    pub(super) fn take(foreground: Option<Arc<WatchedForeground>>) -> io::Result<Self> {
        let signals = Signals::take()?;
        let leads = getsid(None) == Ok(getpid());
        let lives_on = signals.ignores_hangup() || leads || Pid::parent().as_raw() <= 1;
        let parent = if lives_on { None } else { Parent::watch() };
        Ok(CommandReceiver { signals, parent, foreground, rebuilds: false, passes_on: false })
    }

    /// Takes the signals for a stand-in, which does to QEMU exactly what a signal would do without
    /// netlaunch: QEMU has any time after SIGTERM, and the end of the parent ends nothing. With a
    /// `foreground` process the launch ends with that one until QEMU is ready.
    pub(super) fn take_for_stand_in(
        foreground: Option<Arc<WatchedForeground>>,
    ) -> io::Result<Self> {
        let signals = Signals::take()?;
        Ok(CommandReceiver { signals, parent: None, foreground, rebuilds: false, passes_on: true })
    }

    /// Makes SIGHUP set the rules again instead of ending the launch. Then SIGHUP also counts if it
    /// was ignored at the start.
    pub(super) fn rebuild_on_hangup(&mut self) {
        self.rebuilds = true;
    }

    /// Returns the signal mask for child processes.
    pub(super) fn mask_before(&self) -> SigSet {
        self.signals.mask_before()
    }

    /// Waits for the next command. With `shared_terminal` QEMU is in the process group of
    /// netlaunch, so the terminal sends it the signal of a key as well.
    pub(super) async fn next(&mut self, shared_terminal: bool) -> SupervisorCommand {
        loop {
            let ended = async {
                match &self.parent {
                    Some(parent) => parent.ended().await,
                    None => std::future::pending().await,
                }
            };
            let abandoned = async {
                match &self.foreground {
                    Some(foreground) => foreground.ended().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = self.signals.next() => {
                    if let Some(command) = self.command(received, shared_terminal) {
                        return command;
                    }
                }
                () = abandoned => {
                    self.foreground = None;
                    return SupervisorCommand::Stop(Signal::SIGTERM);
                }
                () = ended => {
                    self.parent = None;
                    tracing::info!("the process that started netlaunch has ended, and the launch ends with it; start netlaunch with nohup or setsid to let the launch live on");
                    return SupervisorCommand::PowerDown;
                }
            }
        }
    }

    /// Returns the command of a signal; `None` for a signal that does nothing here.
    ///
    /// The kernel also sends a signal to netlaunch alone, such as the SIGALRM of a timer of the
    /// caller, which is passed on.
    fn command(&self, received: Received, shared_terminal: bool) -> Option<SupervisorCommand> {
        let Received { signal, from_kernel } = received;
        let has_qemu = from_kernel && shared_terminal && signal.is_of_terminal();
        if self.passes_on && !has_qemu {
            return Some(SupervisorCommand::Signal(signal));
        }
        match signal.named() {
            Some(Signal::SIGTERM) => Some(SupervisorCommand::PowerDown),
            Some(Signal::SIGHUP) if self.signals.ignores_hangup() && !self.rebuilds => None,
            _ if has_qemu => None,
            Some(Signal::SIGHUP) if self.rebuilds => Some(SupervisorCommand::RebuildRules),
            _ => Some(SupervisorCommand::Signal(signal)),
        }
    }
}
