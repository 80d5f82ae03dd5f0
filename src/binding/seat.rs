//! Who learns the address of a port: one process, which holds the port's *seat*.
//!
//! A seat is the FIFO `nwfilter/learners/INDEX.seat` below the state directory, INDEX being the
//! interface's number. Whoever learns has it open for reading and writing, with a lock of the open
//! file description (fcntl(2), F_OFD_SETLK), which can be handed to another process with its
//! descriptor, and which goes with the last of those that have it, however they end. So a FIFO
//! without a lock means that nobody learns any more.
//!
//! Removing the FIFO asks its holder to leave; that is the request, and a byte in the FIFO wakes the
//! holder to see it. The byte waits in the FIFO for a process to which the seat is just being handed
//! over. The lock's end says that the holder has left. (inotify(7) would need no byte, but an
//! instance for each port, of which a user may have 128.)
//!
//! Nobody else can open a seat, since a lock needs no more than that. So that everyone can be told
//! who learns, the file `INDEX` beside it says the process's number and when it was started.
//!
//! Both files are made, signed and removed under the directory's own lock, which nobody keeps for
//! longer than that: what is removed is never what another has just made.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep};

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
        let lock = state::lock(&self.0)?;
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
        // One that cannot be made smaller serves as well.
        let _ = fcntl(&file, FcntlArg::F_SETPIPE_SZ(ROOM));
        self.sit_down(index, file.into()).map(Some)
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
        let statement = fs::read_to_string(self.statement(index)).ok()?;
        let (pid, at) = statement.trim().split_once(' ')?;
        let pid: u32 = pid.parse().ok()?;
        let is_held = match self.is_locked(index) {
            // Who may not ask for the lock can still look at the process.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                still_runs(Pid::from_raw(pid.try_into().ok()?), at.parse().ok()?)
            }
            asked => asked.unwrap_or(false),
        };
        is_held.then_some(pid)
    }

    /// Whether somebody holds the seat of the interface with this number.
    pub(super) fn is_held(&self, index: u32) -> bool {
        self.is_locked(index).unwrap_or(false)
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
        let Some(mut file) = self.ask(index)? else { return Ok(true) };
        match file.write(&[0]) {
            // So many bytes wait there that none is needed.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => drop(written?),
        }
        let until = Instant::now() + PATIENCE;
        while is_locked(&file) {
            if Instant::now() > until {
                return Ok(false);
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(true)
    }

    /// Removes a seat. Returns it where somebody has it open.
    fn ask(&self, index: u32) -> io::Result<Option<File>> {
        let _lock = self.lock()?;
        let file = match open(&self.path(index), OpenOptions::new().write(true)) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // Nobody reads.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => None,
            Err(error) => return Err(error),
        };
        self.remove(index)?;
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
        while is_at(&self.seats.path(self.index), &self.fifo)? {
            self.fifo.readable().await?;
            match self.fifo.try_read(&mut [0; 64]) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
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
mod tests {
    use super::*;

    /// What has to come comes within this.
    const LIMIT: Duration = Duration::from_secs(20);

    /// More than the inotify instances that a user may have.
    const MANY: u32 = 140;

    async fn is_dismissed(seat: &Seat) {
        tokio::time::timeout(LIMIT, seat.dismissed()).await.unwrap().unwrap();
    }

    fn names(seats: &Seats) -> Vec<std::ffi::OsString> {
        let names = state::names(&seats.0).unwrap();
        names.into_iter().filter(|name| name != ".lock").collect()
    }

    #[tokio::test]
    async fn one_of_many_is_dismissed() {
        let place = tempfile::tempdir().unwrap();
        let seats = Seats::new(place.path());
        let mut taken: Vec<Seat> =
            (1..=MANY).map(|index| seats.take(index).unwrap().unwrap()).collect();
        assert!((1..=MANY).all(|index| seats.holder(index) == Some(std::process::id())));
        assert!(seats.take(9).unwrap().is_none(), "it is taken");
        let ninth = taken.remove(8);
        let leaves = async {
            is_dismissed(&ninth).await;
            drop(ninth);
        };
        let (left, ()) = tokio::join!(seats.dismiss(9), leaves);
        assert!(left.unwrap());
        assert!(!seats.is_held(9) && seats.holder(9).is_none());
        for others in &taken {
            let waits = tokio::time::timeout(Duration::ZERO, others.dismissed()).await;
            assert!(waits.is_err(), "nobody asked it");
        }
        seats.collect().unwrap();
        assert_eq!(seats.holder(MANY), Some(std::process::id()), "it is in use");
        drop(taken);
        assert_eq!(names(&seats), [""; 0]);
    }

    #[tokio::test]
    async fn whom_it_is_handed_to_is_dismissed() {
        let place = tempfile::tempdir().unwrap();
        let seats = Seats::new(place.path());
        // Nobody is there.
        assert!(seats.dismiss(1).await.unwrap());
        let handed = |seats: &Seats| seats.take(1).unwrap().unwrap().hand_over().unwrap();
        // Before it has taken over; whoever dismisses still waits then.
        let fifo = handed(&seats);
        assert!(seats.is_held(1) && seats.take(1).unwrap().is_none());
        let adopts = async {
            while seats.is_held(1) {
                tokio::task::yield_now().await;
            }
            assert!(seats.adopt(1, fifo).unwrap().is_none());
        };
        let (left, ()) = tokio::join!(seats.dismiss(1), adopts);
        assert!(left.unwrap());
        // And afterwards.
        let seat = seats.adopt(1, handed(&seats)).unwrap().unwrap();
        let leaves = async {
            is_dismissed(&seat).await;
            drop(seat);
        };
        let (left, ()) = tokio::join!(seats.dismiss(1), leaves);
        assert!(left.unwrap());
        assert_eq!(names(&seats), [""; 0]);
    }

    #[tokio::test]
    async fn a_seat_that_is_dismissed_is_anothers() {
        let place = tempfile::tempdir().unwrap();
        let seats = Seats::new(place.path());
        let first = seats.take(1).unwrap().unwrap();
        seats.ask(1).unwrap().unwrap();
        let second = seats.take(1).unwrap().unwrap();
        // What the first one leaves is not the second one's.
        is_dismissed(&first).await;
        drop(first);
        assert!(seats.is_held(1));
        assert_eq!(seats.holder(1), Some(std::process::id()));
        drop(second);
        assert!(!seats.is_held(1));
    }

    #[tokio::test]
    async fn what_nobody_holds_is_collected() {
        let place = tempfile::tempdir().unwrap();
        let seats = Seats::new(place.path());
        seats.collect().unwrap();
        // Whoever was to take over was killed.
        drop(seats.take(1).unwrap().unwrap().hand_over().unwrap());
        assert_eq!(names(&seats), ["1", "1.seat"]);
        assert!(!seats.is_held(1) && seats.holder(1).is_none());
        fs::write(seats.statement(2), "what an earlier version left").unwrap();
        seats.collect().unwrap();
        assert_eq!(names(&seats), [""; 0]);
    }
}
