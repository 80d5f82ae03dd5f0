//! Forks a process that runs a command if this process is killed.
//!
//! A killed process cannot undo its changes. The *cleaner* is a child that waits for the end of its
//! parent, on a socket whose other end only the parent has. If the parent has dismissed it before
//! ([`Cleaner::dismiss`]), it ends. Otherwise it waits until the parent's other descriptors are
//! closed, too, and executes the command. It has no other descriptor, leads a session of its own,
//! and keeps the privileges that the parent has at the fork.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::SigSet;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, execv, fork, setsid};

use super::pidfd::pidfd_open;
use super::process_identity::check_one_thread;

/// How long the descriptors of a killed process may take to close, in milliseconds.
const END_LIMIT: u16 = 10_000;

/// A process that runs a command if this process ends without dismissing it.
#[derive(Debug)]
pub(crate) struct Cleaner {
    pid: Pid,
    socket: OwnedFd,
}

/// Forks the cleaner, which executes `argv`, the path of the program first.
///
/// # Errors
/// The kernel's error, this process has another thread, or a word has a NUL byte.
pub(crate) fn fork_cleaner(argv: &[OsString]) -> io::Result<Cleaner> {
    let words: Vec<CString> =
        argv.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<_, _>>()?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let (mine, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let parent = pidfd_open(Pid::this()).ok();
    check_one_thread()?;
    // SAFETY: the process has one thread, this one, so no other thread can hold a lock or be in the
    // middle of a change that the child would never see completed. The child may therefore do
    // everything that its parent may do.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Cleaner { pid: child, socket: mine }),
        ForkResult::Child => {
            drop(mine);
            let Err(_) = wait_and_clean(&null, &theirs, parent.as_ref(), &words);
            // SAFETY: _exit ends this process, which has no work left. No exit handler may run: it
            // would flush buffers that belong to the parent.
            unsafe { libc::_exit(1) }
        }
    }
}

/// Waits for the end of the parent and executes the command, or ends this process.
fn wait_and_clean(
    null: &File,
    socket: &OwnedFd,
    parent: Option<&OwnedFd>,
    words: &[CString],
) -> io::Result<Infallible> {
    setsid()?;
    dup2_stdin(null)?;
    dup2_stdout(null)?;
    dup2_stderr(null)?;
    let kept = [Some(socket), parent];
    close_all_but(&kept.map(|fd| fd.map_or(-1, AsRawFd::as_raw_fd)));
    let mut byte = [0u8];
    loop {
        match recv(socket.as_raw_fd(), &mut byte, MsgFlags::empty()) {
            Err(Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM) => {}
            // SAFETY: as in `fork_cleaner`.
            Ok(1..) => unsafe { libc::_exit(0) },
            Ok(0) | Err(_) => break,
        }
    }
    if let Some(parent) = parent {
        wait_for_end(parent);
    }
    SigSet::empty().thread_set_mask()?;
    let program = words.first().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(execv(program, words)?)
}

/// Waits until the process of a pidfd has ended. The kernel closes the descriptors of a killed
/// process one after the other, and a tap only when it gets the lock of all interfaces, so the
/// socket can be closed long before: the command would find a tap that is about to go.
fn wait_for_end(parent: &OwnedFd) {
    let mut polled = [PollFd::new(parent.as_fd(), PollFlags::POLLIN)];
    while poll(&mut polled, END_LIMIT) == Err(Errno::EINTR) {}
}

/// Closes every descriptor above the standard ones but `kept`.
fn close_all_but(kept: &[i32]) {
    let Ok(fds) = procfs::process::Process::myself().and_then(|process| process.fd()) else {
        return;
    };
    let numbers: Vec<i32> = fds.flatten().map(|fd| fd.fd).collect();
    for fd in numbers.into_iter().filter(|fd| *fd > 2 && !kept.contains(fd)) {
        // SAFETY: the values that own these descriptors are those of the parent. The child uses
        // none of them, and drops none: it ends by _exit or execve.
        unsafe { libc::close(fd) };
    }
}

impl Cleaner {
    /// Ends the cleaner without running its command.
    pub(crate) fn dismiss(self) {
        let sent = send(self.socket.as_raw_fd(), b"d", MsgFlags::MSG_NOSIGNAL);
        if sent.is_ok() {
            while waitpid(self.pid, None) == Err(Errno::EINTR) {}
        }
    }
}
