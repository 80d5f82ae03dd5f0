//! Namespaces: whether this process may make one, which one it is in, and whether one still exists.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
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
    /// This file is the namespace: nsenter(1) can enter it there.
    At(PathBuf),
    /// No process, no open file and no mount that this process can see refers to the namespace, and
    /// this process sees all of them.
    Gone,
    /// This process sees only a part of the host, and the namespace is not in that part.
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
    let file = fs::File::open(file).ok()?;
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
    let mut search = Search { of, whole: true, seen: BTreeSet::new() };
    let host = fs::metadata("/proc/self/ns/pid").is_ok_and(|is| is.ino() == HOST_PID_NAMESPACE);
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
    if search.whole && host { Elsewhere::Gone } else { Elsewhere::Unknown }
}

/// A search for a network namespace.
struct Search<'a> {
    of: &'a str,
    /// Whether everything could be looked at so far.
    whole: bool,
    /// The mount namespaces whose mounts were looked at.
    seen: BTreeSet<PathBuf>,
}

impl Search<'_> {
    /// Looks at a process, given its directory in /proc.
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
                return Some(fd);
            }
        }
        let mounts = fs::read_link(dir.join("ns/mnt"));
        let mounts = self.note(mounts)?;
        if self.seen.insert(mounts) { self.mounted(dir) } else { None }
    }

    /// Looks at the mounts that a process sees (proc_pid_mountinfo(5)).
    fn mounted(&mut self, dir: &Path) -> Option<PathBuf> {
        let text = fs::read(dir.join("mountinfo"));
        let text = self.note(text)?;
        let (_, inode) = self.of.split_once(':')?;
        let root = format!("net:[{inode}]");
        let line = String::from_utf8_lossy(&text);
        let mut lines = line.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let found = lines.find(|fields| fields.get(3) == Some(&root.as_str()))?;
        let point = found.get(4)?.trim_start_matches('/');
        Some(dir.join("root").join(point))
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

#[cfg(test)]
mod tests {
    use super::*;

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
