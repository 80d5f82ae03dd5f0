//! A started program: its number, its signals, its end.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;

use super::guard::EXITED;
use super::output;

/// A running program under its guard. Dropping it kills the program and waits until it is gone.
#[derive(Debug)]
pub struct Child {
    guard: Pid,
    pid: Pid,
    socket: AsyncFd<OwnedFd>,
    status: Option<ExitStatus>,
    /// The file in memory that has the program's standard error, where that is kept.
    output: Option<File>,
}

impl Child {
    /// The guard `guard` at the other end of `socket`, and its file in memory.
    pub(super) fn new(guard: Pid, socket: OwnedFd, output: Option<File>) -> io::Result<Self> {
        // SAFETY: the descriptor is owned by the AsyncFd from here to its end.
        match unsafe { AsyncFd::register(socket) } {
            Ok(socket) => Ok(Child { guard, pid: guard, socket, status: None, output }),
            Err(error) => {
                let (socket, error) = error.into_parts();
                drop(socket); // which tells the guard to leave
                let _ = waitpid(guard, None);
                Err(error)
            }
        }
    }

    pub(super) fn with_socket<T>(&self, read: impl FnOnce(&OwnedFd) -> T) -> T {
        read(self.socket.get_ref())
    }

    pub(super) fn set_pid(&mut self, pid: Pid) {
        self.pid = pid;
    }

    /// The program's process number as we see it, whatever namespace it lives in.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The beginning and the end of what the program has printed on standard error, where that is
    /// kept ([`Spawn::keep_output`](super::Spawn::keep_output)); all of it once the program has ended.
    pub fn output(&self) -> Vec<u8> {
        self.output.as_ref().map(output::text).unwrap_or_default()
    }

    /// Sends a signal to the program; one that has ended already is none the wiser.
    pub fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let order = [signal as i32 as u8];
            let _ = again(|| send(self.socket.as_raw_fd(), &order, flags));
        }
    }

    /// Waits for the program's end; may be called again and be cancelled at any time.
    pub async fn wait(&mut self) -> ExitStatus {
        if let Some(status) = self.status {
            return status;
        }
        let status = loop {
            let Ok(mut ready) = self.socket.readable().await else { break lost() };
            let mut message = [0u8; 8];
            match ready.try_io(|socket| {
                let flags = MsgFlags::MSG_DONTWAIT;
                Ok(again(|| recv(socket.as_raw_fd(), &mut message, flags))?)
            }) {
                Ok(Ok(5)) if message[0] == EXITED => {
                    let [_, a, b, c, d, ..] = message;
                    break ExitStatus::from_raw(i32::from_ne_bytes([a, b, c, d]));
                }
                // The guard was killed, and the program with it.
                Ok(Ok(0) | Err(_)) => break lost(),
                Ok(Ok(_)) | Err(_) => {}
            }
        };
        let _ = waitpid(self.guard, None);
        self.status = Some(status);
        status
    }

    /// Asks the program to end with `signal`, kills it when it is still there after `patience`.
    pub async fn stop(&mut self, signal: Signal, patience: Duration) -> ExitStatus {
        self.signal(signal);
        match tokio::time::timeout(patience, self.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.signal(Signal::SIGKILL);
                self.wait().await
            }
        }
    }
}

/// Makes a call on a guard's socket again while the kernel is short of memory for it, or a signal
/// came between. A message that cannot be read for now is still there, and its sender runs: to take
/// the error for its end would kill a tool in the middle of its work.
pub(super) fn again<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    const ATTEMPTS: usize = 100;
    for _ in 0..ATTEMPTS {
        match call() {
            Err(Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM) => {}
            other => return other,
        }
    }
    call()
}

/// The status of a program whose guard was killed.
fn lost() -> ExitStatus {
    ExitStatus::from_raw(libc::SIGKILL)
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_none() {
            // The guard kills the program when its socket ends; a message could be lost.
            let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
            let _ = waitpid(self.guard, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;

    use super::*;
    use crate::process::{Isolation, Spawn, SpawnError, Stdio};

    fn shell(script: &str) -> Spawn {
        let argv = ["sh", "-c", script].map(OsString::from);
        Spawn::new(Path::new("/bin/sh"), &argv).stdio(Stdio::Null, Stdio::Null, Stdio::Null)
    }

    /// Whether a process, or one of its process group, still runs. A zombie does not: whoever
    /// inherits our orphans may take its time to collect them.
    fn alive(pid: Pid) -> bool {
        procfs::process::all_processes().unwrap().flatten().any(|process| {
            let Ok(stat) = process.stat() else { return false };
            (stat.pid == pid.as_raw() || stat.pgrp == pid.as_raw()) && !"ZX".contains(stat.state)
        })
    }

    /// Whether a process and its process group are gone within 1 s.
    async fn dies(pid: Pid) -> bool {
        for _ in 0..100 {
            if !alive(pid) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Whether the process executes `name` within 5 s.
    async fn becomes(pid: Pid, name: &str) -> bool {
        for _ in 0..500 {
            let now = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if now.trim() == name {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    #[tokio::test]
    async fn the_status_comes_through_the_guard() {
        assert_eq!(shell("exit 7").start().unwrap().wait().await.code(), Some(7));
        let mut child = shell("kill -TERM $$").start().unwrap();
        assert_eq!(child.wait().await.signal(), Some(15));
        assert_eq!(child.wait().await.signal(), Some(15), "asking again gives the same");
    }

    #[tokio::test]
    async fn the_number_is_the_programs_own() {
        let mut child = shell("exec sleep 60").start().unwrap();
        assert!(becomes(child.pid(), "sleep").await);
        assert_eq!(child.stop(Signal::SIGTERM, Duration::from_secs(5)).await.signal(), Some(15));
        assert!(!alive(child.pid()));
    }

    #[tokio::test]
    async fn a_program_that_ignores_the_signal_is_killed() {
        let (ready, end) = nix::unistd::pipe().unwrap();
        let argv = ["sh", "-c", "trap '' TERM; echo; while :; do sleep 60 & wait; done"];
        let mut child = Spawn::new(Path::new("/bin/sh"), &argv.map(OsString::from))
            .stdio(Stdio::Null, Stdio::Fd(end), Stdio::Null)
            .own_group()
            .start()
            .unwrap();
        assert_eq!(nix::unistd::read(&ready, &mut [0u8; 1]), Ok(1));
        let status = child.stop(Signal::SIGTERM, Duration::from_millis(50)).await;
        assert_eq!(status.signal(), Some(9));
    }

    #[tokio::test]
    async fn kept_output_is_whole_at_the_end_and_never_blocks_the_program() {
        for isolation in [Isolation::Guard, Isolation::PidNamespace] {
            let script = "yes | head -c 40000000 >&2; echo last words >&2; exit 3";
            let spawn = shell(script).isolation(isolation).keep_output(None);
            // Nothing here runs meanwhile: the guard alone reads the pipe.
            let Ok(mut child) = spawn.start() else {
                assert_eq!(isolation, Isolation::PidNamespace, "needs root");
                continue;
            };
            while alive(child.pid()) {
                std::thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(child.wait().await.code(), Some(3));
            let text = child.output();
            assert!(text.starts_with(b"y\ny\n") && text.ends_with(b"y\nlast words\n"));
            assert!(text.len() <= output::LIMIT, "{}", text.len());
        }
    }

    #[tokio::test]
    async fn a_closed_output_does_not_keep_the_guard_busy() {
        let child = shell("exec sleep 60 2>&-").keep_output(None).start().unwrap();
        assert!(becomes(child.pid(), "sleep").await);
        // The first number is the time on a processor in nanoseconds (proc_pid_schedstat(5)).
        let time = || -> u64 {
            let path = format!("/proc/{}/schedstat", child.guard);
            let text = std::fs::read_to_string(path).unwrap();
            text.split(' ').next().unwrap().parse().unwrap()
        };
        let before = time();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(time() - before < 50_000_000);
        assert_eq!(child.output(), b"");
    }

    #[tokio::test]
    async fn dropping_kills_the_program_and_its_helpers() {
        let child = shell("sleep 60 & sleep 60").own_group().start().unwrap();
        let (pid, guard) = (child.pid(), child.guard);
        drop(child);
        assert!(!alive(guard));
        // The helpers are killed with it, and nobody waits for their end.
        assert!(dies(pid).await);
    }

    #[tokio::test]
    async fn killing_the_guard_kills_the_program() {
        for isolation in [Isolation::Guard, Isolation::PidNamespace] {
            let mut child = shell("exec sleep 60").isolation(isolation).start().unwrap();
            let pid = child.pid();
            nix::sys::signal::kill(child.guard, Signal::SIGKILL).unwrap();
            assert_eq!(child.wait().await.signal(), Some(9));
            assert!(dies(pid).await, "{isolation:?}");
        }
    }

    #[tokio::test]
    async fn a_pid_namespace_has_its_own_proc_and_we_know_the_outer_number() {
        let script = "test $$ = 2 && test \"$(cat /proc/self/stat | cut -d' ' -f5)\" -lt 9 && exec sleep 60; exit 1";
        let mut child = shell(script).isolation(Isolation::PidNamespace).start().unwrap();
        assert!(becomes(child.pid(), "sleep").await);
        assert_eq!(child.stop(Signal::SIGTERM, Duration::from_secs(5)).await.signal(), Some(15));
    }

    #[tokio::test]
    async fn a_failed_execve_says_so() {
        for (program, errno) in [("/nonexistent/x", libc::ENOENT), ("/etc/passwd", libc::EACCES)] {
            match Spawn::new(Path::new(program), &["x".into()]).start() {
                Err(SpawnError::Exec { source, .. }) => {
                    assert_eq!(source.raw_os_error(), Some(errno));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn only_a_program_that_inherits_gets_the_callers_descriptors() {
        let (read, _write) = nix::unistd::pipe().unwrap();
        // Without close-on-exec, as a caller of netlaunch leaves it.
        let inherited = nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_DUPFD(70)).unwrap();
        let script = format!("test -e /proc/self/fd/{inherited}");
        assert!(shell(&script).inherit().start().unwrap().wait().await.success());
        for isolation in [Isolation::Guard, Isolation::PidNamespace] {
            let Ok(mut child) = shell(&script).isolation(isolation).start() else {
                assert_eq!(isolation, Isolation::PidNamespace, "needs root");
                continue;
            };
            assert_eq!(child.wait().await.code(), Some(1), "{isolation:?}");
        }
        nix::unistd::close(inherited).unwrap();
    }

    #[tokio::test]
    async fn descriptors_arrive_under_their_numbers() {
        // The numbers are likely ones of ours, which must not get in the way.
        for number in [3, 4, 5, 9] {
            let (read, write) = nix::unistd::pipe().unwrap();
            let mut child =
                shell(&format!("printf hello >&{number}")).fd(write, number).start().unwrap();
            assert!(child.wait().await.success());
            let mut text = [0u8; 16];
            assert_eq!(nix::unistd::read(&read, &mut text), Ok(5));
            assert_eq!(nix::unistd::read(&read, &mut text), Ok(0), "no copy is left open");
        }
    }
}
