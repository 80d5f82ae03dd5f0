//! Examines namespaces: whether this process may make one, the ones that a process is in, and
//! whether one still exists.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
#[cfg(feature = "cli")]
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, write};

use super::process::fork::raw_fork;

/// A kind of namespace.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// A user namespace, as an ordinary program makes it.
    User,
    /// A PID namespace with a mount namespace, as the guard of passt makes them for root.
    Pid,
}

/// Tries to make a namespace of this kind, in a child process that ends at once.
///
/// # Errors
/// The kernel's error: EPERM if the namespace is not allowed, ENOSPC if too many exist.
#[cfg(feature = "cli")]
pub(crate) fn try_namespace(kind: Namespace) -> io::Result<()> {
    let flags = match kind {
        Namespace::User => libc::CLONE_NEWUSER,
        Namespace::Pid => libc::CLONE_NEWPID | libc::CLONE_NEWNS,
    };
    // SAFETY: the fork only calls _exit.
    let pid = unsafe {
        let pid = raw_fork(flags);
        if pid == 0 {
            libc::_exit(0);
        }
        pid
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    match waitpid(Pid::from_raw(pid as i32), None) {
        Ok(WaitStatus::Exited(_, 0)) => Ok(()),
        Ok(other) => Err(io::Error::other(format!("the test process ended with {other:?}"))),
        Err(error) => Err(error.into()),
    }
}

/// The inode number of the host's PID namespace (PROC_PID_INIT_INO in linux/proc_ns.h).
const HOST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The socket option of asm-generic/socket.h, which libc defines for some systems only.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The place where a network namespace was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamespaceLocation {
    /// This file is the namespace, and nsenter(1) can enter it. It is a mount that this process
    /// sees, or /proc/PID/ns/net; no other user has chosen the path.
    At(PathBuf),
    /// This open file of a process refers to the namespace, and no process is in it. The process
    /// can replace the file.
    Open(PathBuf),
    /// No process, no open file and no mount that this process can see refers to the namespace, and
    /// this process sees all of them.
    Gone,
    /// This process sees only a part of the host, and the namespace is not in that part. Or only a
    /// mount in another mount namespace refers to it, and another user may have chosen its path.
    Unknown,
}

/// Returns the identity of this thread's network namespace: its device and inode number, which
/// distinguish namespaces (namespaces(7)).
///
/// # Errors
/// The kernel's error, for example without /proc.
pub(crate) fn network_namespace() -> io::Result<String> {
    identity(Path::new("/proc/thread-self/ns/net"))
}

/// Returns the cookie of this thread's network namespace; `None` before Linux 5.14.
///
/// The kernel gives a cookie to no other namespace until the next boot, whereas it uses inode
/// numbers again.
pub(crate) fn network_namespace_cookie() -> Option<u64> {
    use std::os::fd::AsRawFd;
    let socket = std::os::unix::net::UnixDatagram::unbound().ok()?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: getsockopt writes at most `length` bytes, which is the size of `cookie`.
    let answer = unsafe {
        let place = (&raw mut cookie).cast();
        let (level, option) = (libc::SOL_SOCKET, SO_NETNS_COOKIE);
        libc::getsockopt(socket.as_raw_fd(), level, option, place, &mut length)
    };
    (answer == 0 && length as usize == size_of::<u64>()).then_some(cookie)
}

/// A network namespace that a file refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundNamespace {
    /// Its device and inode number, as [`network_namespace`] returns them.
    pub(crate) identity: String,
    /// Its cookie; `None` if this process cannot enter it, and before Linux 5.14.
    pub(crate) cookie: Option<u64>,
}

/// Returns the network namespace that this file is now; `None` if the file cannot be opened. Both
/// parts of the answer are of the same open file, since a path can lead to another namespace later:
/// a process ends, and a new one gets its number.
pub(crate) fn network_namespace_at(file: &Path) -> Option<FoundNamespace> {
    // Another process may have replaced the file by a FIFO, and opening a FIFO would block.
    let mut options = fs::OpenOptions::new();
    let file =
        options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(file).ok()?;
    let is = file.metadata().ok()?;
    let identity = format!("{}:{}", is.dev(), is.ino());
    Some(FoundNamespace { identity, cookie: cookie_of(&file) })
}

/// Returns the cookie of the network namespace that an open file is. A child process enters it, so
/// that this process keeps its own namespace.
fn cookie_of(file: &fs::File) -> Option<u64> {
    let (mut answer, child_end) = io::pipe().ok()?;
    // SAFETY: the fork makes system calls only: setns, socket, getsockopt, write and _exit. None of
    // these functions allocates.
    let pid = unsafe {
        let pid = raw_fork(0);
        if pid == 0 {
            if setns(file, CloneFlags::CLONE_NEWNET).is_ok()
                && let Some(cookie) = network_namespace_cookie()
            {
                let _ = write(&child_end, &cookie.to_ne_bytes());
            }
            libc::_exit(0);
        }
        pid
    };
    drop(child_end);
    if pid < 0 {
        return None;
    }
    let mut cookie = [0; 8];
    let answered = answer.read_exact(&mut cookie);
    while waitpid(Pid::from_raw(pid as i32), None) == Err(Errno::EINTR) {}
    answered.ok().map(|()| u64::from_ne_bytes(cookie))
}

/// Returns the identity of a process's network namespace, as [`network_namespace`] does.
///
/// # Errors
/// The process has ended, or this process may not examine it (ptrace(2)).
pub(crate) fn network_namespace_of(pid: Pid) -> io::Result<String> {
    identity(Path::new(&format!("/proc/{pid}/ns/net")))
}

/// Returns the identity of this process's PID namespace, as [`network_namespace`] does.
///
/// # Errors
/// The kernel's error, for example without /proc.
pub(crate) fn pid_namespace() -> io::Result<String> {
    identity(Path::new("/proc/self/ns/pid"))
}

/// Returns whether this process is in the host's PID namespace, in which every process has a
/// number.
pub(crate) fn is_host_pid_namespace() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|is| is.ino() == HOST_PID_NAMESPACE)
}

/// Returns the identity of a process's PID namespace, as [`network_namespace`] does.
///
/// # Errors
/// The process has ended, or this process may not examine it (ptrace(2)).
pub(crate) fn pid_namespace_of(pid: Pid) -> io::Result<String> {
    identity(Path::new(&format!("/proc/{pid}/ns/pid")))
}

/// Returns the random identity of this boot (proc_sys_kernel(5)).
///
/// # Errors
/// The kernel's error, for example without /proc.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn identity(path: &Path) -> io::Result<String> {
    let file = fs::metadata(path)?;
    Ok(format!("{}:{}", file.dev(), file.ino()))
}

/// Looks for a network namespace by its identity ([`network_namespace`]), in everything that keeps
/// a namespace alive: the processes and threads in it, open files, and mounts in every mount
/// namespace.
///
/// If only a socket keeps the namespace alive, and the socket's process is in another one, the
/// namespace counts as gone: no program could enter it.
pub(crate) fn find_network_namespace(of: &str) -> NamespaceLocation {
    let mut search = Search { of, whole: true, seen: BTreeSet::new(), open: None, mounted: false };
    let own = Path::new("/proc/self");
    if let Some(point) = search.mount_point(own)
        && search.is(&point)
    {
        return NamespaceLocation::At(point);
    }
    let host = is_host_pid_namespace();
    let Ok(processes) = fs::read_dir("/proc") else { return NamespaceLocation::Unknown };
    for entry in processes.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let before = search.whole;
        if let Some(found) = search.process(&path) {
            return NamespaceLocation::At(found);
        }
        // The host's init process is in the host's namespace, and root without CAP_SYS_PTRACE
        // cannot examine it.
        search.whole |= before && host && name == "1";
    }
    match search.open {
        _ if search.mounted => NamespaceLocation::Unknown,
        Some(file) => NamespaceLocation::Open(file),
        None if search.whole && host => NamespaceLocation::Gone,
        None => NamespaceLocation::Unknown,
    }
}

/// A search for a network namespace.
struct Search<'a> {
    of: &'a str,
    /// Whether all objects so far could be examined.
    whole: bool,
    /// The mount namespaces whose mounts were examined.
    seen: BTreeSet<PathBuf>,
    /// An open file that refers to the namespace.
    open: Option<PathBuf>,
    /// Whether another mount namespace has a mount of the namespace.
    mounted: bool,
}

impl Search<'_> {
    /// Examines a process by its directory in /proc. Returns the file of the namespace if the
    /// process or one of its threads is in the namespace; notes open files and mounts.
    fn process(&mut self, dir: &Path) -> Option<PathBuf> {
        if self.is(&dir.join("ns/net")) {
            return Some(dir.join("ns/net"));
        }
        for task in self.entries(&dir.join("task")) {
            if self.is(&task.join("ns/net")) {
                return Some(task.join("ns/net"));
            }
        }
        for fd in self.entries(&dir.join("fd")) {
            let link = fs::read_link(&fd);
            if link.is_ok_and(|to| to.as_os_str().as_encoded_bytes().starts_with(b"net:["))
                && self.is(&fd)
            {
                self.open = Some(fd);
            }
        }
        let mounts = fs::read_link(dir.join("ns/mnt"));
        let mounts = self.note(mounts)?;
        if self.seen.insert(mounts) {
            self.mounted |= self.mount_point(dir).is_some();
        }
        None
    }

    /// Returns the path at which a process sees the namespace mounted (proc_pid_mountinfo(5)).
    fn mount_point(&mut self, dir: &Path) -> Option<PathBuf> {
        let text = fs::read(dir.join("mountinfo"));
        let text = self.note(text)?;
        let (_, inode) = self.of.split_once(':')?;
        let root = format!("net:[{inode}]");
        text.split(|byte| *byte == b'\n').find_map(|line| {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            let is_it = fields.get(3) == Some(&root.as_bytes());
            is_it.then(|| unescaped(fields.get(4).copied().unwrap_or_default()))
        })
    }

    /// Returns whether a file is the namespace.
    fn is(&mut self, path: &Path) -> bool {
        let identity = identity(path);
        self.note(identity).is_some_and(|is| is == self.of)
    }

    fn entries(&mut self, dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir);
        let entries = self.note(entries);
        entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }

    /// Notes a refused access. A process that has ended in the meantime is not a refusal.
    fn note<T>(&mut self, looked: io::Result<T>) -> Option<T> {
        if let Err(error) = &looked {
            // The kernel returns EINVAL for the mounts of a zombie.
            let ended = [libc::ENOENT, libc::ESRCH, libc::EINVAL];
            self.whole &= error.raw_os_error().is_some_and(|errno| ended.contains(&errno));
        }
        looked.ok()
    }
}

/// Returns a path of mountinfo, in which the kernel writes blanks and backslashes as three octal
/// digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                path.push(byte);
                rest = &rest[4..];
            }
            None => {
                path.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_read_back_from_its_octal_form() {
        for (field, path) in [("/a\\040b\\134c", "/a b\\c"), ("/a\\9", "/a\\9"), ("/a", "/a")] {
            assert_eq!(unescaped(field.as_bytes()), Path::new(path));
        }
    }

    #[test]
    fn the_own_namespace_is_found_and_an_invented_one_is_gone() {
        let here = network_namespace().unwrap();
        assert!(matches!(find_network_namespace(&here), NamespaceLocation::At(_)));
        let never = find_network_namespace("4:1");
        let host = fs::metadata("/proc/self/ns/pid").unwrap().ino() == HOST_PID_NAMESPACE;
        let all = nix::unistd::geteuid().is_root() && host;
        assert_eq!(never, if all { NamespaceLocation::Gone } else { NamespaceLocation::Unknown });
        assert_eq!(network_namespace_of(Pid::this()).unwrap(), here);
        assert_eq!(network_namespace_cookie(), network_namespace_cookie());
        let found = network_namespace_at(Path::new("/proc/thread-self/ns/net")).unwrap();
        assert_eq!(found.identity, here);
        assert_eq!(found.cookie, network_namespace_cookie().filter(|_| found.cookie.is_some()));
        assert_eq!(network_namespace_at(Path::new("/proc/self/ns/none")), None);
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
