//! Who learns the address of a port: one process, which holds the port's *seat*.
//!
//! A seat is the FIFO `nwfilter/learners/INDEX.seat` below the state directory, INDEX being the
//! interface's number. Whoever learns has it open for reading and writing, with a lock of the open
//! file description (fcntl(2), F_OFD_SETLK), which can be handed to another process with its
//! descriptor, and which goes with the last of those that have it, however they end. So a FIFO
//! without a lock means that nobody learns any more.
//!
//! A byte in the FIFO asks its holder to leave; it waits there for a process to which the seat is just
//! being handed over. Whoever writes it then removes the FIFO, so that the seat is free for another;
//! killed in between, it leaves that to the holder. The lock's end says that the holder has left.
//! (inotify(7) would tell of the removal itself, but takes an instance for each port, of which a user
//! may have 128.)
//!
//! Nobody else can open a seat, since a lock needs no more than that. So that everyone can be told
//! who learns, the file `INDEX` beside it says the process's number and when it was started.
//!
//! Both files are made, signed and removed under the directory's own lock, which nobody keeps for
//! longer than that: what is removed is never what another has just made.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep};

use crate::flock::Flock;
use crate::process::{started, still_runs};
use crate::state::{self, Readers, remove};

/// How long the holder of a seat may take to leave. It acts at once, unless it is just changing
/// rules.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often to look whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// What a seat's name ends with.
const SEAT: &str = ".seat";
/// What a FIFO is to hold, in bytes: as little as can be, since the kernel counts what a user's hold
/// together (pipe(7)).
const ROOM: i32 = 4096;

/// The seats of all ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seats(PathBuf);

/// The right to learn the address of a port. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    index: u32,
    fifo: Receiver,
    handed_over: bool,
}

impl Seats {
    /// Those below this state directory; nothing is made yet.
    pub(super) fn new(state_dir: &Path) -> Self {
        Seats(state_dir.join("nwfilter").join("learners"))
    }

    fn path(&self, index: u32) -> PathBuf {
        self.0.join(format!("{index}{SEAT}"))
    }

    /// The file that says who holds the seat.
    fn statement(&self, index: u32) -> PathBuf {
        self.0.join(index.to_string())
    }

    /// Whether there was ever one.
    pub(super) fn were_taken(&self) -> bool {
        self.0.exists()
    }

    /// The right to make, sign and remove files; to be dropped at once.
    fn lock(&self) -> io::Result<Flock<OwnedFd>> {
        let path = self.0.join(state::LOCK);
        let lock = state::lock_blocking(&path, state::lock_file(&self.0)?, state::LOCK_LIMIT)?;
        state::clean(&self.0);
        Ok(lock)
    }

    /// Takes the seat of the interface with this number; nothing where another has it. Needs a
    /// tokio runtime with I/O enabled.
    pub(super) fn take(&self, index: u32) -> io::Result<Option<Seat>> {
        let path = self.path(index);
        let _lock = self.lock()?;
        match mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let file = open(&path, OpenOptions::new().read(true).write(true))?;
        if !try_lock(&file)? {
            return Ok(None);
        }
        // Who was asked to leave was killed before it saw that.
        empty(&file)?;
        // One that cannot be made smaller serves as well.
        let _ = fcntl(&file, FcntlArg::F_SETPIPE_SZ(ROOM));
        let seat = self.sit_down(index, file.into());
        if seat.is_err() {
            // As on a full disk: nothing is left of it.
            let _ = self.remove(index);
        }
        seat.map(Some)
    }

    /// Goes on with a seat that another process took and handed over; nothing where somebody has
    /// asked its holder to leave. Needs a tokio runtime with I/O enabled.
    pub(super) fn adopt(&self, index: u32, fifo: OwnedFd) -> io::Result<Option<Seat>> {
        let _lock = self.lock()?;
        match is_at(&self.path(index), &fifo)? {
            true => self.sit_down(index, fifo).map(Some),
            false => Ok(None),
        }
    }

    /// Says that a seat that is locked is this process's. The caller holds the directory's lock.
    fn sit_down(&self, index: u32, fifo: OwnedFd) -> io::Result<Seat> {
        let fifo = Receiver::from_owned_fd(fifo)?;
        let pid = Pid::this();
        let at = started(pid).ok_or_else(|| io::Error::other("/proc does not show us"))?;
        let statement = format!("{pid} {at}\n");
        state::replace(&self.statement(index), statement.as_bytes(), Readers::Everyone)?;
        Ok(Seat { seats: self.clone(), index, fifo, handed_over: false })
    }

    /// The number of the process that holds the seat of the interface with this number.
    pub(super) fn holder(&self, index: u32) -> Option<u32> {
        let (pid, _) = self.stated(index)?;
        if self.is_held(index) { pid.as_raw().try_into().ok() } else { None }
    }

    /// Whether somebody holds the seat of the interface with this number.
    pub(super) fn is_held(&self, index: u32) -> bool {
        match self.is_locked(index) {
            // Who may not ask for the lock can still look at the process.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.stated(index).is_some_and(|(pid, at)| still_runs(pid, at))
            }
            asked => asked.unwrap_or(false),
        }
    }

    /// The process that sat down last, and when it was started.
    fn stated(&self, index: u32) -> Option<(Pid, u64)> {
        let statement = fs::read_to_string(self.statement(index)).ok()?;
        let (pid, at) = statement.trim().split_once(' ')?;
        Some((Pid::from_raw(pid.parse().ok()?), at.parse().ok()?))
    }

    fn is_locked(&self, index: u32) -> io::Result<bool> {
        match open(&self.path(index), OpenOptions::new().read(true)) {
            Ok(file) => Ok(is_locked(&file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks the holder of a seat to leave, and waits until it has. Returns whether it has.
    pub(super) async fn dismiss(&self, index: u32) -> io::Result<bool> {
        if !self.were_taken() {
            return Ok(true);
        }
        let Some(file) = self.ask(index)? else { return Ok(true) };
        let until = Instant::now() + PATIENCE;
        while is_locked(&file) {
            if Instant::now() > until {
                return Ok(false);
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(true)
    }

    /// Asks the holder of a seat to leave, and removes the seat. Returns it where somebody has it
    /// open.
    fn ask(&self, index: u32) -> io::Result<Option<File>> {
        let _lock = self.lock()?;
        let file = match open(&self.path(index), OpenOptions::new().write(true)) {
            Ok(mut file) => match file.write(&[0]) {
                // As many wait there as it can hold.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => Some(file),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // Nobody reads.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => None,
            Err(error) => return Err(error),
        };
        match self.remove(index) {
            // Its holder has the request, and the next command removes the files.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
            removed => removed?,
        }
        Ok(file)
    }

    /// Removes the files of a seat. The caller holds the directory's lock.
    fn remove(&self, index: u32) -> io::Result<()> {
        remove(&self.path(index))?;
        remove(&self.statement(index))
    }

    /// Removes what nobody holds.
    pub(super) fn collect(&self) -> io::Result<()> {
        if !self.were_taken() {
            return Ok(());
        }
        let _lock = self.lock()?;
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let Ok(index) = name.strip_suffix(SEAT).unwrap_or(&name).parse() else { continue };
            if !self.is_locked(index)? {
                self.remove(index)?;
            }
        }
        Ok(())
    }
}

impl Seat {
    /// Waits until somebody asks us to leave.
    pub(super) async fn dismissed(&self) -> io::Result<()> {
        // Somebody may have removed it by hand.
        while is_at(&self.seats.path(self.index), &self.fifo)? {
            self.fifo.readable().await?;
            match self.fifo.try_read(&mut [0; 64]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
        Ok(())
    }

    /// The lock, for another process to hold; nobody can take the seat in between.
    pub(super) fn hand_over(mut self) -> io::Result<OwnedFd> {
        let fifo = self.fifo.as_fd().try_clone_to_owned()?;
        self.handed_over = true;
        Ok(fifo)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.handed_over {
            return;
        }
        // What stays is in nobody's way; the next command collects it.
        let Ok(_lock) = self.seats.lock() else { return };
        if is_at(&self.seats.path(self.index), &self.fifo).unwrap_or(false) {
            let _ = self.seats.remove(self.index);
        }
    }
}

/// Opens a FIFO without waiting for its other end.
fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)
}

/// Takes out what is in a FIFO.
fn empty(mut file: &File) -> io::Result<()> {
    loop {
        match file.read(&mut [0; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Whether a path leads to this file.
fn is_at(path: &Path, file: &impl AsFd) -> io::Result<bool> {
    let ours = nix::sys::stat::fstat(file)?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok(there.ino() == ours.st_ino && there.dev() == ours.st_dev),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The lock of a whole file, exclusive.
fn whole() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Locks a file, unless another has.
fn try_lock(file: &File) -> io::Result<bool> {
    match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&whole())) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether another has locked a file. Asking takes no lock.
fn is_locked(file: &File) -> bool {
    let mut lock = whole();
    let asked = fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock));
    asked.is_ok() && lock.l_type != libc::F_UNLCK as libc::c_short
}

#[cfg(test)]
mod tests;
