//! Waits for the guards of dropped children, without blocking an executor.
//!
//! A guard kills its program when its socket ends, and then ends. That takes as long as the kernel
//! needs to remove the program: milliseconds, or seconds for a QEMU with much memory. In a tokio
//! runtime a task waits for the guard, on a pidfd. Outside of a runtime there is no executor to
//! block, so the thread of the drop waits. The thread that shuts a runtime down waits for the
//! guards of its tasks. All these waits end, because the guard kills the program with SIGKILL.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::runtime::Handle;

use super::pidfd::pidfd_open;
use super::signals::watch;

/// The time between two polls for the end of a guard without a pidfd.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A guard that is about to end, and a value that is dropped after its end.
struct EndingGuard {
    guard: Pid,
    _held: Option<Arc<dyn Any + Send + Sync>>,
    reaped: bool,
}

/// Waits for a guard whose socket has ended, and then drops `held`. In a runtime, returns at once.
pub(super) fn reap(guard: Pid, held: Option<Arc<dyn Any + Send + Sync>>) {
    let mut ending = EndingGuard { guard, _held: held, reaped: false };
    if ending.has_ended() {
        return;
    }
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(ending.wait());
    }
}

impl EndingGuard {
    /// Returns whether the guard has ended, and reaps it.
    fn has_ended(&mut self) -> bool {
        let status = waitpid(self.guard, Some(WaitPidFlag::WNOHANG));
        self.reaped = !matches!(status, Ok(WaitStatus::StillAlive));
        self.reaped
    }

    async fn wait(mut self) {
        // The guard has not been reaped, so no other process has its number.
        if let Ok(Ok(guard)) = pidfd_open(self.guard).map(watch) {
            // A pidfd becomes readable when the process is a zombie.
            drop(guard.readable().await);
        }
        while !self.has_ended() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

impl Drop for EndingGuard {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = waitpid(self.guard, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;
    use std::time::Instant;

    use nix::sys::signal::{Signal, kill};

    use super::*;
    use crate::sys::process::{Child, Spawn, Stdio};

    fn sleeping() -> Child {
        let argv = ["sleep", "60"].map(OsString::from);
        let spawn = Spawn::new(Path::new("/bin/sleep"), &argv);
        spawn.stdio(Stdio::Null, Stdio::Null, Stdio::Null).start().unwrap()
    }

    fn exists(pid: Pid) -> bool {
        kill(pid, None).is_ok()
    }

    #[tokio::test]
    async fn dropping_a_child_does_not_wait_for_its_guard() {
        let mut child = sleeping();
        let (guard, held) = (child.guard(), Arc::new(()));
        child.hold(held.clone());
        // A stopped guard stands for one whose program takes long to end.
        kill(guard, Signal::SIGSTOP).unwrap();
        let begun = Instant::now();
        drop(child);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(exists(guard) && Arc::strong_count(&held) == 2, "the guard has not ended");
        kill(guard, Signal::SIGCONT).unwrap();
        let begun = Instant::now();
        while Arc::strong_count(&held) == 2 && begun.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(Arc::strong_count(&held), 1, "it is dropped after the guard has ended");
        assert!(!exists(guard), "the guard is reaped");
    }

    #[test]
    fn a_runtime_that_ends_waits_for_the_guards() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
        let guard = runtime().unwrap().block_on(async { sleeping().guard() });
        assert!(!exists(guard));
    }

    #[test]
    fn a_child_outlives_the_thread_that_started_it() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_keep_alive(Duration::from_millis(1))
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut child = tokio::task::spawn_blocking(sleeping).await.unwrap();
            // The thread ends 1 ms after its last work.
            let waited = tokio::time::timeout(Duration::from_millis(500), child.wait()).await;
            assert!(waited.is_err(), "it has ended: {waited:?}");
            child.stop(Signal::SIGTERM, Duration::from_secs(5)).await;
        });
    }
}
