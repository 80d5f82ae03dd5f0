//! Forks a sidecar: a supervisor beside a program that this process becomes.
//!
//! Some callers depend on the process that they started: they wrote its number into a pid file
//! before execve(2), trace it, or hold locks and descriptors that it inherits. So this process, the
//! *main process*, executes the program itself, and the *sidecar* supervises it from outside:
//!
//! ```text
//! caller ── main process, later the program
//!                  │ socket until execve(2)
//!              sidecar ── ...
//! ```
//!
//! 1. [`fork_sidecar`] forks twice, so the program has no child that it does not know. The sidecar
//!    is in a session of its own, has /dev/null as standard descriptors, and has closed every
//!    descriptor of the caller: a pipe or a lock of the caller ends with the program.
//! 2. The main process blocks in [`MainProcess::wait`], with the caller's signal mask, so a signal
//!    does to it what it does to the program.
//! 3. The sidecar sends the program's further descriptors ([`MainLink::release`]), or the reason
//!    why there is nothing to supervise ([`MainLink::refuse`]).
//!
//! [`MainLink::process`] means the main process before and after it has become the program.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, getpid, setsid};

use super::descriptors::move_to_numbers;
use super::inherited_fd::close_inherited;
use super::pidfd::ProcessHandle;
use super::process_identity::{check_one_thread, proc_unreadable, started};

/// The first byte of a message with descriptors; their numbers follow.
const RELEASE: u8 = b'+';
/// The first byte of a message with a reason.
const REFUSE: u8 = b'-';
/// The longest message; a longer reason is cut.
const LONGEST: usize = 4096;
/// The longest wait for the end of the main process in one call.
const LONG: Duration = Duration::from_secs(86400);
/// The most descriptors in one message (SCM_MAX_FD in the kernel).
const MOST_FDS: usize = 253;

/// The two processes after the fork.
#[derive(Debug)]
pub(crate) enum SidecarFork {
    /// This is the main process.
    Main(MainProcess),
    /// This is the sidecar.
    Sidecar(MainLink),
}

/// The main process before it becomes the program.
#[derive(Debug)]
pub(crate) struct MainProcess {
    socket: OwnedFd,
}

/// The sidecar's link to the main process.
#[derive(Debug)]
pub(crate) struct MainLink {
    socket: OwnedFd,
    process: ProcessHandle,
}

/// The descriptors that the program inherits, each with its number.
#[derive(Debug, Default)]
pub(crate) struct ProgramFds(Vec<(OwnedFd, RawFd)>);

/// Forks the sidecar.
///
/// # Errors
/// The kernel's error, or this process has another thread. Only the main process returns an error.
pub(crate) fn fork_sidecar() -> io::Result<SidecarFork> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let (mine, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    check_one_thread()?;
    let main = getpid();
    let process = started(main).map(|at| ProcessHandle::open(main, at)).transpose()?.flatten();
    let process = process.ok_or_else(proc_unreadable)?;
    // SAFETY: the process has one thread, this one, so no other thread can hold a lock or be in the
    // middle of a change that the child would never see completed. The child may therefore do
    // everything that its parent may do.
    if let ForkResult::Parent { child } = unsafe { fork() }? {
        drop((theirs, null, process));
        // It ends at once. An error means that the caller ignores SIGCHLD.
        while waitpid(child, None) == Err(Errno::EINTR) {}
        return Ok(SidecarFork::Main(MainProcess { socket: mine }));
    }
    drop(mine);
    let link = MainLink { socket: theirs, process };
    if let Err(error) = become_sidecar(&null) {
        // This process must not return to the caller, which would run the program in it.
        link.refuse(&format!("a process cannot become the sidecar: {error}"));
        end();
    }
    Ok(SidecarFork::Sidecar(link))
}

/// Makes a child of the main process the sidecar: a child of the init process, in a session of its
/// own, without the caller's descriptors. The process that calls this function ends.
fn become_sidecar(null: &File) -> io::Result<()> {
    setsid()?;
    // SAFETY: the process is the child of a fork with one thread, and has one thread, too.
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        end();
    }
    dup2_stdin(null)?;
    dup2_stdout(null)?;
    dup2_stderr(null)?;
    close_inherited()
}

/// Ends this process.
fn end() -> ! {
    // SAFETY: _exit ends this process, which has no work left. No exit handler may run: it would
    // flush buffers that belong to the main process.
    unsafe { libc::_exit(0) }
}

impl MainProcess {
    /// Waits for the sidecar and returns the program's further descriptors.
    ///
    /// # Errors
    /// The reason why the sidecar supervises no launch; the sidecar has removed everything.
    pub(crate) fn wait(self) -> Result<ProgramFds, String> {
        let mut bytes = [0u8; LONGEST];
        let mut space = nix::cmsg_space!([RawFd; MOST_FDS]);
        let mut data = [IoSliceMut::new(&mut bytes)];
        let (length, fds) = loop {
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.socket.as_raw_fd(), &mut data, Some(&mut space), flags) {
                Err(Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM) => {}
                Err(errno) => return Err(format!("the sidecar cannot be heard: {errno}")),
                Ok(message) => break (message.bytes, received(message.cmsgs())),
            }
        };
        match bytes.get(..length).and_then(|message| message.split_first()) {
            Some((&RELEASE, numbers)) => {
                let numbers: Vec<RawFd> = numbers
                    .as_chunks()
                    .0
                    .iter()
                    .map(|number| RawFd::from_ne_bytes(*number))
                    .collect();
                if numbers.len() != fds.len() {
                    return Err("the kernel did not deliver all descriptors".to_owned());
                }
                Ok(ProgramFds(fds.into_iter().zip(numbers).collect()))
            }
            Some((_, reason)) => Err(String::from_utf8_lossy(reason).into_owned()),
            None => Err("the sidecar has ended".to_owned()),
        }
    }
}

/// Takes over the descriptors of a received message.
fn received<'a>(
    messages: nix::Result<impl Iterator<Item = ControlMessageOwned> + 'a>,
) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    for message in messages.into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            // SAFETY: the kernel made these descriptors for this message, and each message is read
            // once, so no other value owns them.
            fds.extend(numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    fds
}

impl ProgramFds {
    /// Moves the descriptors to their numbers, for the program that this process executes next.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn inherit(self) -> io::Result<()> {
        move_to_numbers(self.0)
    }
}

impl MainLink {
    /// Returns the main process, which later is the program.
    pub(crate) fn process(&self) -> &ProcessHandle {
        &self.process
    }

    /// Waits until the main process, or the program that it has become, has ended.
    pub(crate) async fn ended(&self) {
        while !self.process.ended(LONG).await {}
    }

    /// Lets the main process execute the program, which inherits `fds`, each with its number.
    ///
    /// # Errors
    /// The kernel's error, for example because the main process has ended.
    pub(crate) fn release(&self, fds: &[(OwnedFd, RawFd)]) -> io::Result<()> {
        let mut message = vec![RELEASE];
        message.extend(fds.iter().flat_map(|(_, number)| number.to_ne_bytes()));
        let raw: Vec<RawFd> = fds.iter().map(|(fd, _)| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        self.send(&message, if raw.is_empty() { &[] } else { &rights })
    }

    /// Lets the main process go on alone, for this reason. Without effect if it has ended.
    pub(crate) fn refuse(&self, reason: &str) {
        let mut message = vec![REFUSE];
        message.extend(reason.bytes().take(LONGEST - 1));
        let _ = self.send(&message, &[]);
    }

    fn send(&self, message: &[u8], control: &[ControlMessage<'_>]) -> io::Result<()> {
        let data = [IoSlice::new(message)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.socket.as_raw_fd(), &data, control, flags, None)?;
        Ok(())
    }
}
