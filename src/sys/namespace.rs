//! Namespaces: whether this process may make one, which one it is in, and whether one still exists.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, write};

use super::guard::raw_fork;

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// User namespaces, as an ordinary program makes them.
    User,
    /// PID and mount namespaces, as [`super::Isolation::PidNamespace`] makes them.
    Pid,
}

/// Makes a namespace of this kind in a child that ends at once.
///
/// # Errors
/// What the kernel answered: EPERM where the namespace is not allowed, ENOSPC where too many exist.
pub fn try_namespace(kind: Namespace) -> io::Result<()> {
    let flags = match kind {
        Namespace::User => libc::CLONE_NEWUSER,
        Namespace::Pid => libc::CLONE_NEWPID | libc::CLONE_NEWNS,
    };
    // SAFETY: the child only calls _exit.
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

/// The inode number of the first PID namespace, the host's (PROC_PID_INIT_INO in linux/proc_ns.h).
const HOST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// asm-generic/socket.h; libc has it for some systems only.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// What is known about a network namespace that this process is not in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Elsewhere {
    /// This file is the namespace: nsenter(1) can enter it there. It is a mount that this process
    /// sees, or /proc/PID/ns/net; no other user has chosen the path.
    At(PathBuf),
    /// Only open files refer to the namespace, of which this is one. Its process can exchange it.
    Open(PathBuf),
    /// No process, no open file and no mount that this process can see refers to the namespace, and
    /// this process sees all of them.
    Gone,
    /// This process sees only a part of the host, and the namespace is not in that part; or only a
    /// mount in another mount namespace refers to the namespace, whose owner chose the path.
    Unknown,
}

/// The network namespace of this thread, as the kernel tells namespaces apart (namespaces(7)): the
/// device and the inode number.
///
/// # Errors
/// There is no /proc.
pub fn network_namespace() -> io::Result<String> {
    identity(Path::new("/proc/thread-self/ns/net"))
}

/// A number that the kernel gives to the network namespace of this thread and to no other one until
/// the next boot, while inode numbers are used again; `None` before Linux 5.14.
pub fn network_namespace_cookie() -> Option<u64> {
    use std::os::fd::AsRawFd;
    let socket = std::os::unix::net::UnixDatagram::unbound().ok()?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which `cookie` has.
    let answer = unsafe {
        let place = (&raw mut cookie).cast();
        let (level, option) = (libc::SOL_SOCKET, SO_NETNS_COOKIE);
        libc::getsockopt(socket.as_raw_fd(), level, option, place, &mut length)
    };
    (answer == 0 && length as usize == size_of::<u64>()).then_some(cookie)
}

/// The cookie of the network namespace that this file is; `None` where this process cannot enter it.
/// A child enters, so that this process stays where it is.
pub fn network_namespace_cookie_of(file: &Path) -> Option<u64> {
    // The file of another process may have become a FIFO, which would block.
    let mut options = fs::OpenOptions::new();
    let file =
        options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(file).ok()?;
    let (mut answer, child_end) = io::pipe().ok()?;
    // SAFETY: the child makes system calls alone, allocates nothing, and ends by _exit.
    let pid = unsafe {
        let pid = raw_fork(0);
        if pid == 0 {
            if setns(&file, CloneFlags::CLONE_NEWNET).is_ok()
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

/// The network namespace of a process, in the form of [`network_namespace`].
///
/// # Errors
/// The process has ended, or this process may not know that (ptrace(2)).
pub fn network_namespace_of(pid: Pid) -> io::Result<String> {
    identity(Path::new(&format!("/proc/{pid}/ns/net")))
}

/// The PID namespace of this process, in the form of [`network_namespace`].
///
/// # Errors
/// There is no /proc.
pub fn pid_namespace() -> io::Result<String> {
    identity(Path::new("/proc/self/ns/pid"))
}

/// Whether this process is in the host's PID namespace, in which all processes have a number.
pub fn is_host_pid_namespace() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|is| is.ino() == HOST_PID_NAMESPACE)
}

/// The PID namespace of a process, in the form of [`network_namespace`].
///
/// # Errors
/// The process has ended, or this process may not know that (ptrace(2)).
pub fn pid_namespace_of(pid: Pid) -> io::Result<String> {
    identity(Path::new(&format!("/proc/{pid}/ns/pid")))
}

/// A number that the kernel draws at each boot (proc_sys_kernel(5)).
///
/// # Errors
/// There is no /proc.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn identity(path: &Path) -> io::Result<String> {
    let file = fs::metadata(path)?;
    Ok(format!("{}:{}", file.dev(), file.ino()))
}

/// Looks for a network namespace, named as by [`network_namespace`], in all that keeps one alive: the
/// processes and threads in it, open files, and mounts in every mount namespace.
///
/// A namespace that only a socket keeps alive, whose process is elsewhere, counts as gone: no
/// program could enter it.
pub fn find_network_namespace(of: &str) -> Elsewhere {
    let mut search = Search { of, whole: true, seen: BTreeSet::new(), open: None, mounted: false };
    let own = Path::new("/proc/self");
    if let Some(point) = search.mount_point(own)
        && search.is(&point)
    {
        return Elsewhere::At(point);
    }
    let host = is_host_pid_namespace();
    let Ok(processes) = fs::read_dir("/proc") else { return Elsewhere::Unknown };
    for entry in processes.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let before = search.whole;
        if let Some(found) = search.process(&path) {
            return Elsewhere::At(found);
        }
        // The host's init is in the first namespace; root without CAP_SYS_PTRACE cannot look.
        search.whole |= before && host && name == "1";
    }
    match search.open {
        _ if search.mounted => Elsewhere::Unknown,
        Some(file) => Elsewhere::Open(file),
        None if search.whole && host => Elsewhere::Gone,
        None => Elsewhere::Unknown,
    }
}

/// A search for a network namespace.
struct Search<'a> {
    of: &'a str,
    /// Whether everything could be looked at so far.
    whole: bool,
    /// The mount namespaces whose mounts were looked at.
    seen: BTreeSet<PathBuf>,
    /// An open file that is the namespace.
    open: Option<PathBuf>,
    /// Whether another mount namespace has a mount of the namespace.
    mounted: bool,
}

impl Search<'_> {
    /// Looks at a process, given its directory in /proc. Returns the file of the namespace if the
    /// process or a thread is in that; notes open files and mounts.
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

    /// Where a process sees the namespace mounted (proc_pid_mountinfo(5)).
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

    /// Whether a file is the namespace.
    fn is(&mut self, path: &Path) -> bool {
        let identity = identity(path);
        self.note(identity).is_some_and(|is| is == self.of)
    }

    fn entries(&mut self, dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir);
        let entries = self.note(entries);
        entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }

    /// Notes where a look was refused; a process that has ended in the meantime refuses nothing.
    fn note<T>(&mut self, looked: io::Result<T>) -> Option<T> {
        if let Err(error) = &looked {
            // EINVAL is the answer for the mounts of a zombie.
            let ended = [libc::ENOENT, libc::ESRCH, libc::EINVAL];
            self.whole &= error.raw_os_error().is_some_and(|errno| ended.contains(&errno));
        }
        looked.ok()
    }
}

/// A path in mountinfo, where the kernel writes blanks and backslashes as three octal digits.
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
    fn the_own_namespace_is_found_and_one_that_never_was_is_gone() {
        let here = network_namespace().unwrap();
        assert!(matches!(find_network_namespace(&here), Elsewhere::At(_)));
        let never = find_network_namespace("4:1");
        let host = fs::metadata("/proc/self/ns/pid").unwrap().ino() == HOST_PID_NAMESPACE;
        let all = nix::unistd::geteuid().is_root() && host;
        assert_eq!(never, if all { Elsewhere::Gone } else { Elsewhere::Unknown });
        assert_eq!(network_namespace_of(Pid::this()).unwrap(), here);
        assert_eq!(network_namespace_cookie(), network_namespace_cookie());
        let entered = network_namespace_cookie_of(Path::new("/proc/self/ns/net"));
        assert_eq!(entered, network_namespace_cookie().filter(|_| entered.is_some()));
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
