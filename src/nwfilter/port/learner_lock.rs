//! The learner lock of a port: only the process that holds it learns the address of the guest.
//!
//! The lock of a port is on the FIFO `nwfilter/learners/INDEX.seat` below the state directory,
//! where INDEX is the interface index. The learner has the FIFO open for reading and writing and
//! holds a lock of the open file description (fcntl(2), F_OFD_SETLK). The lock passes to another
//! process with the descriptor. The kernel releases it when the last process with the descriptor
//! ends, for whatever reason. So an unlocked FIFO means that no process learns any more.
//!
//! A byte in the FIFO asks the holder to leave. While the lock is being handed over, the byte waits
//! in the FIFO for the new holder. The process that writes the byte then removes the FIFO, so that
//! another process can take the lock of this port. If that process is killed before the removal,
//! the holder removes the FIFO. The end of the lock shows that the holder has left. (inotify(7)
//! could report the removal itself, but it needs an instance for each port, and a user may have
//! only 128.)
//!
//! The FIFO has mode 0600: any process that can open the file could lock it. So that all users can
//! see which process learns, the file `INDEX` beside the FIFO contains its process ID and its start
//! time.
//!
//! Both files are created, written and removed under the lock of the directory, which a process
//! holds only for that moment. So a process never removes a file that another process has just
//! created.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep};

use crate::sys::flock::Flock;
use crate::sys::process::{started, still_runs};
use crate::sys::state_file::{self, Readers, remove};

/// How long the holder of a learner lock may take to leave. It leaves at once unless it is changing
/// rules.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// How often to check whether the holder has left.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// The suffix of the FIFO's name.
const FIFO_SUFFIX: &str = ".seat";
/// The capacity of a FIFO in bytes: the smallest possible, since the kernel limits the sum over all
/// pipes of a user (pipe(7)).
const FIFO_SIZE: i32 = 4096;

/// The learner locks of all ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LearnerLocks(PathBuf);

/// The held learner lock of one port. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct LearnerLock {
    locks: LearnerLocks,
    index: u32,
    fifo: Receiver,
    handed_over: bool,
}

impl LearnerLocks {
    /// Returns the locks below this state directory; creates no file.
    pub(super) fn new(state_dir: &Path) -> Self {
        LearnerLocks(state_dir.join("nwfilter").join("learners"))
    }

    fn path(&self, index: u32) -> PathBuf {
        self.0.join(format!("{index}{FIFO_SUFFIX}"))
    }

    /// The file with the process ID and the start time of the holder.
    fn holder_file(&self, index: u32) -> PathBuf {
        self.0.join(index.to_string())
    }

    /// Returns whether any learner lock was ever taken here.
    pub(super) fn any_exist(&self) -> bool {
        self.0.exists()
    }

    /// Takes the lock of the directory, which protects all its files. The caller must drop it at
    /// once.
    fn lock(&self) -> io::Result<Flock<OwnedFd>> {
        let file = state_file::lock_file(&self.0)?;
        state_file::lock_blocking(&self.0, file, state_file::LOCK_LIMIT)
    }

    /// Takes the learner lock of the interface with this index; returns `None` if another process
    /// holds it. Needs a tokio runtime with I/O enabled.
    pub(super) fn take(&self, index: u32) -> io::Result<Option<LearnerLock>> {
        let path = self.path(index);
        let _lock = self.lock()?;
        match mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR) {
            // The umask does not apply to this mode.
            Ok(()) => fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?,
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let file = open(&path, OpenOptions::new().read(true).write(true))?;
        if !try_lock(&file)? {
            return Ok(None);
        }
        // An earlier holder was killed before it read the request to leave.
        discard_bytes(&file)?;
        // A FIFO that cannot be made smaller works as well.
        let _ = fcntl(&file, FcntlArg::F_SETPIPE_SZ(FIFO_SIZE));
        let lock = self.hold(index, file.into());
        if lock.is_err() {
            // This happens on a full disk, for example. Leave no files behind.
            let _ = self.remove(index);
        }
        lock.map(Some)
    }

    /// Takes over a lock that another process handed over; returns `None` if a process has asked
    /// the holder to leave. Needs a tokio runtime with I/O enabled.
    pub(super) fn adopt(&self, index: u32, fifo: OwnedFd) -> io::Result<Option<LearnerLock>> {
        let _lock = self.lock()?;
        if is_same_file(&self.path(index), &fifo)? {
            self.hold(index, fifo).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Writes this process as the holder of a locked FIFO. The caller holds the directory's lock.
    fn hold(&self, index: u32, fifo: OwnedFd) -> io::Result<LearnerLock> {
        let fifo = Receiver::from_owned_fd(fifo)?;
        let pid = Pid::this();
        let at = started(pid).ok_or_else(|| io::Error::other("/proc does not show us"))?;
        let holder = format!("{pid} {at}\n");
        state_file::replace(&self.holder_file(index), holder.as_bytes(), Readers::Everyone)?;
        Ok(LearnerLock { locks: self.clone(), index, fifo, handed_over: false })
    }

    /// Returns the ID of the process that holds the lock of the interface with this index.
    pub(super) fn holder(&self, index: u32) -> Option<u32> {
        let (pid, _) = self.read_holder(index)?;
        if self.is_held(index) { pid.as_raw().try_into().ok() } else { None }
    }

    /// Returns whether a process holds the lock of the interface with this index.
    pub(super) fn is_held(&self, index: u32) -> bool {
        match self.is_locked(index) {
            // Without the permission to open the FIFO, /proc still shows that the process runs.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.read_holder(index).is_some_and(|(pid, at)| still_runs(pid, at))
            }
            asked => asked.unwrap_or(false),
        }
    }

    /// Reads the process ID and the start time of the last holder.
    fn read_holder(&self, index: u32) -> Option<(Pid, u64)> {
        let holder = fs::read_to_string(self.holder_file(index)).ok()?;
        let (pid, at) = holder.trim().split_once(' ')?;
        Some((Pid::from_raw(pid.parse().ok()?), at.parse().ok()?))
    }

    fn is_locked(&self, index: u32) -> io::Result<bool> {
        match open(&self.path(index), OpenOptions::new().read(true)) {
            Ok(file) => Ok(is_locked(&file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks the holder to leave and waits until the lock is free. Returns `false` if the holder has
    /// not left within [`LEAVE_LIMIT`].
    pub(super) async fn dismiss(&self, index: u32) -> io::Result<bool> {
        if !self.any_exist() {
            return Ok(true);
        }
        let Some(file) = self.ask(index)? else { return Ok(true) };
        let until = Instant::now() + LEAVE_LIMIT;
        while is_locked(&file) {
            if Instant::now() > until {
                return Ok(false);
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(true)
    }

    /// Asks the holder to leave and removes the files of the lock. Returns the FIFO if a process
    /// has it open.
    fn ask(&self, index: u32) -> io::Result<Option<File>> {
        let _lock = self.lock()?;
        let file = match open(&self.path(index), OpenOptions::new().write(true)) {
            Ok(mut file) => match file.write(&[0]) {
                // A full FIFO already holds enough requests to leave.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => Some(file),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // No process has the FIFO open for reading, so there is no holder.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => None,
            Err(error) => return Err(error),
        };
        match self.remove(index) {
            // The holder has the request, and a later command removes the files.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
            removed => removed?,
        }
        Ok(file)
    }

    /// Removes the files of one lock. The caller holds the directory's lock.
    fn remove(&self, index: u32) -> io::Result<()> {
        remove(&self.path(index))?;
        remove(&self.holder_file(index))
    }

    /// Removes the files of all locks that no process holds, except those of the interfaces that
    /// `is_bound` names.
    pub(super) fn collect(&self, is_bound: impl Fn(u32) -> bool) -> io::Result<()> {
        if !self.any_exist() {
            return Ok(());
        }
        let _lock = self.lock()?;
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let Ok(index) = name.strip_suffix(FIFO_SUFFIX).unwrap_or(&name).parse() else {
                continue;
            };
            if !is_bound(index) && !self.is_locked(index)? {
                self.remove(index)?;
            }
        }
        Ok(())
    }
}

impl LearnerLock {
    /// Waits until a process asks this holder to leave.
    pub(super) async fn dismissed(&self) -> io::Result<()> {
        // An administrator may have removed the FIFO by hand, which also ends the holder.
        while is_same_file(&self.locks.path(self.index), &self.fifo)? {
            self.fifo.readable().await?;
            match self.fifo.try_read(&mut [0; 64]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
        Ok(())
    }

    /// Returns whether this is still the learner lock of the port: no process has removed the FIFO
    /// after it asked the holder to leave.
    pub(super) fn is_current(&self) -> bool {
        is_same_file(&self.locks.path(self.index), &self.fifo).unwrap_or(false)
    }

    /// Returns the locked descriptor for another process. No third process can take the lock in
    /// between, since the descriptor keeps it.
    pub(super) fn hand_over(mut self) -> io::Result<OwnedFd> {
        let fifo = self.fifo.as_fd().try_clone_to_owned()?;
        self.handed_over = true;
        Ok(fifo)
    }
}

impl Drop for LearnerLock {
    fn drop(&mut self) {
        if self.handed_over {
            return;
        }
        // Files that stay block no other process; the next command removes them.
        let Ok(_lock) = self.locks.lock() else { return };
        if is_same_file(&self.locks.path(self.index), &self.fifo).unwrap_or(false) {
            let _ = self.locks.remove(self.index);
        }
    }
}

/// Opens a FIFO without waiting for a process at its other end.
fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)
}

/// Discards all bytes in a FIFO.
fn discard_bytes(mut file: &File) -> io::Result<()> {
    loop {
        match file.read(&mut [0; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Returns whether a path names this open file.
fn is_same_file(path: &Path, file: &impl AsFd) -> io::Result<bool> {
    let ours = nix::sys::stat::fstat(file)?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok(there.ino() == ours.st_ino && there.dev() == ours.st_dev),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// An exclusive lock of a whole file.
fn whole() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Locks a file; returns `false` if another open file description has the lock.
fn try_lock(file: &File) -> io::Result<bool> {
    match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&whole())) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns whether another open file description has the lock. Does not take the lock.
fn is_locked(file: &File) -> bool {
    let mut lock = whole();
    let asked = fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock));
    asked.is_ok() && lock.l_type != libc::F_UNLCK as libc::c_short
}

#[cfg(test)]
mod tests;
