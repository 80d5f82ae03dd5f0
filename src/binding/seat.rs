//! Who learns the address of a port: one process, which holds the port's *seat*.
//!
//! A seat is the file `nwfilter/learners/INDEX` below the state directory, INDEX being the
//! interface's number, with the process's number in it. Whoever learns holds a lock on it of the
//! open file description (fcntl(2), F_OFD_SETLK), which can be handed to another process with its
//! descriptor, and which goes with the last of those that have it, however they end. So a file
//! without a lock means that nobody learns any more.
//!
//! Removing the file asks its holder to leave; the lock's end says that this is done.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use tokio::time::{Instant, sleep};

use crate::process::FileWatch;
use crate::state::remove;

/// How long the holder of a seat may take to leave. It acts at once, unless it is just changing
/// rules.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often to look whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The seats of all ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seats(PathBuf);

/// The right to learn the address of a port. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Seat {
    file: File,
    path: PathBuf,
    watch: FileWatch,
}

impl Seats {
    /// Those below this state directory; nothing is made yet.
    pub(super) fn new(state_dir: &Path) -> Self {
        Seats(state_dir.join("nwfilter").join("learners"))
    }

    fn path(&self, index: u32) -> PathBuf {
        self.0.join(index.to_string())
    }

    /// Whether there was ever one.
    pub(super) fn were_taken(&self) -> bool {
        self.0.exists()
    }

    /// Takes the seat of the interface with this number; nothing where another has it.
    pub(super) fn take(&self, index: u32) -> io::Result<Option<Seat>> {
        fs::create_dir_all(&self.0)?;
        let path = self.path(index);
        loop {
            let mut options = OpenOptions::new();
            let file = options.create(true).truncate(false).read(true).write(true).open(&path)?;
            if !try_lock(&file)? {
                return Ok(None);
            }
            if let Some(seat) = Seat::new(file, path.clone())? {
                seat.file.set_permissions(fs::Permissions::from_mode(0o644))?;
                seat.sign()?;
                return Ok(Some(seat));
            }
            // Removed between opening and locking.
        }
    }

    /// Goes on with a seat that another process took and handed over; nothing where somebody has
    /// asked its holder to leave.
    pub(super) fn adopt(&self, index: u32, file: OwnedFd) -> io::Result<Option<Seat>> {
        let seat = Seat::new(File::from(file), self.path(index))?;
        seat.as_ref().map(Seat::sign).transpose()?;
        Ok(seat)
    }

    /// The number of the process that holds the seat of the interface with this number.
    pub(super) fn holder(&self, index: u32) -> Option<u32> {
        let mut file = File::open(self.path(index)).ok()?;
        if !is_locked(&file) {
            return None;
        }
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    /// Whether somebody holds the seat of the interface with this number.
    pub(super) fn is_held(&self, index: u32) -> bool {
        File::open(self.path(index)).is_ok_and(|file| is_locked(&file))
    }

    /// Asks the holder of a seat to leave, and waits until it has. Returns whether it has.
    pub(super) async fn dismiss(&self, index: u32) -> io::Result<bool> {
        let path = self.path(index);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        remove(&path)?;
        let until = Instant::now() + PATIENCE;
        while is_locked(&file) {
            if Instant::now() > until {
                return Ok(false);
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(true)
    }

    /// Removes what nobody holds.
    pub(super) fn collect(&self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if File::open(&path).is_ok_and(|file| !is_locked(&file)) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

impl Seat {
    /// The seat of a file that is locked; nothing where the path is not that file's any more.
    fn new(file: File, path: PathBuf) -> io::Result<Option<Seat>> {
        let watch = match FileWatch::new(&path) {
            Ok(watch) => watch,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let seat = Seat { file, path, watch };
        Ok(seat.is_ours()?.then_some(seat))
    }

    /// Writes our process's number over that of who had the seat before: as long as any, so that
    /// who reads meanwhile reads one of the two.
    fn sign(&self) -> io::Result<()> {
        self.file.write_all_at(format!("{:<10}\n", std::process::id()).as_bytes(), 0)
    }

    /// Whether the path still leads to our file.
    fn is_ours(&self) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(there) => Ok(there.ino() == ours.ino() && there.dev() == ours.dev()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until somebody asks us to leave.
    pub(super) async fn dismissed(&self) -> io::Result<()> {
        while self.is_ours()? {
            self.watch.changed().await?;
        }
        Ok(())
    }

    /// The lock, for another process to hold; nobody can take the seat in between.
    pub(super) fn hand_over(mut self) -> io::Result<OwnedFd> {
        // Not the file's end: what is dropped here has no path to remove.
        self.path = PathBuf::new();
        Ok(OwnedFd::from(self.file.try_clone()?))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        // While we hold the lock, nobody else makes the file anew.
        if self.is_ours().unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
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
