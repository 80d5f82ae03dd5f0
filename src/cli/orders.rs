//! Signals and the parent's end as orders for the supervisor.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getpid, getsid};

use crate::launch::Order;
use crate::process::signals::{Parent, Received, Signals};

/// Where orders come from.
#[derive(Debug)]
pub(super) struct Orders {
    signals: Signals,
    parent: Option<Parent>,
    rebuilds: bool,
}

impl Orders {
    /// Takes the signals and watches the parent.
    ///
    /// A launch ends with the process that started it, whatever way that goes, unless it was
    /// started to live longer: with SIGHUP ignored (nohup), or as the leader of a session of its
    /// own (setsid, a daemon's start).
    pub(super) fn take() -> io::Result<Self> {
        let signals = Signals::take()?;
        let leads = getsid(None) == Ok(getpid());
        let lives_on = signals.ignores_hangup() || leads || Pid::parent().as_raw() <= 1;
        let parent = if lives_on { None } else { Parent::watch() };
        Ok(Orders { signals, parent, rebuilds: false })
    }

    /// From now on SIGHUP ends nothing, but has rules put back; so it counts also where it was
    /// ignored at the start.
    pub(super) fn rebuild_on_hangup(&mut self) {
        self.rebuilds = true;
    }

    /// The signal mask that children get.
    pub(super) fn mask_before(&self) -> SigSet {
        self.signals.mask_before()
    }

    /// The next order. With `shared_terminal` QEMU is in our process group and has a key's signal
    /// from the terminal already.
    pub(super) async fn next(&mut self, shared_terminal: bool) -> Order {
        loop {
            let ended = async {
                match &self.parent {
                    Some(parent) => parent.ended().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Received { signal, from_kernel } = self.signals.next() => match signal {
                    Signal::SIGTERM => return Order::Stop(signal),
                    Signal::SIGHUP if self.signals.ignores_hangup() && !self.rebuilds => {}
                    _ if from_kernel && shared_terminal => {}
                    _ => return Order::Signal(signal),
                },
                () = ended => {
                    self.parent = None;
                    tracing::info!("the process that started netlaunch has ended, and the launch ends with it; to let it live on, start it with nohup or setsid");
                    return Order::Stop(Signal::SIGTERM);
                }
            }
        }
    }
}
