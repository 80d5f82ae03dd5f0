//! Changes to another user with few privileges or none, and gives up privileges of root that are
//! not needed.
//!
//! Root can run a program as another user ([`Account`]). The program starts with that user's
//! groups, without a capability in any set, and with `no_new_privs`, so that no setuid program
//! gives it one (capabilities(7), prctl(2)). Its guard stays root, so that the user cannot end the
//! guard, and keeps CAP_KILL alone, because a guard must signal another user's program.
//!
//! [`keep_only`] gives up the capabilities of the calling thread. Capabilities belong to a thread,
//! so only a program with one thread may rely on it.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use libc::{c_int, c_uint, c_ulong};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, Gid, Uid, User, faccessat, getgrouplist};

use crate::types::UserName;

/// A user for a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// The name.
    pub name: UserName,
    /// The user's number.
    pub uid: Uid,
    /// The number of the user's primary group.
    pub gid: Gid,
    /// All groups of the user.
    pub groups: Vec<Gid>,
}

/// The reason why a user cannot be looked up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The user does not exist.
    #[error("there is no user {0} on this host; name one that 'getent passwd' lists")]
    Unknown(UserName),
    /// The user database cannot be read.
    #[error("cannot look up the user {name}; see whether 'getent passwd {name}' works")]
    Lookup {
        /// The user.
        name: UserName,
        /// The system's error.
        source: io::Error,
    },
}

impl Account {
    /// Looks up a user in the host's database.
    ///
    /// # Errors
    /// [`AccountError`].
    pub(crate) fn find(name: &UserName) -> Result<Self, AccountError> {
        let failed = |source| AccountError::Lookup { name: name.clone(), source };
        let user = User::from_name(name.as_str()).map_err(|errno| failed(errno.into()))?;
        let user = user.ok_or_else(|| AccountError::Unknown(name.clone()))?;
        let c_name = CString::new(name.as_str()).map_err(|e| failed(e.into()))?;
        let groups = getgrouplist(&c_name, user.gid).map_err(|errno| failed(errno.into()))?;
        Ok(Account { name: name.clone(), uid: user.uid, gid: user.gid, groups })
    }
}

/// Returns those of `wanted` that this thread does not have in effect. If the sets cannot be read,
/// returns none: then the kernel's later refusal is the error.
pub(crate) fn missing(wanted: &[Capability]) -> Vec<Capability> {
    let Ok(has) = caps::read(None, CapSet::Effective) else { return Vec::new() };
    wanted.iter().copied().filter(|capability| !has.contains(capability)).collect()
}

/// Gives up every capability of this thread except those in `kept`. Programs that it executes as
/// root from now on get at most those in `passed_on`. A capability that the thread lacks is
/// ignored.
///
/// # Errors
/// The kernel's error; then the thread may have given up some capabilities.
pub(crate) fn keep_only(kept: &[Capability], passed_on: &[Capability]) -> io::Result<()> {
    let failed = |error: caps::errors::CapsError| io::Error::other(error.to_string());
    let may = caps::read(None, CapSet::Effective).map_err(failed)?;
    // Without CAP_SETPCAP the bounding set stays. It gives capabilities only to programs of root.
    if may.contains(&Capability::CAP_SETPCAP) {
        let bounding = caps::read(None, CapSet::Bounding).map_err(failed)?;
        for capability in bounding.into_iter().filter(|c| !passed_on.contains(c)) {
            caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
        }
    }
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let kept: CapsHashSet = kept.iter().copied().filter(|c| permitted.contains(c)).collect();
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)
}

/// Does the same as [`keep_only`] for a caller that later writes in these directories.
///
/// If another user has closed one of them to root's plain permissions, the thread also keeps
/// CAP_DAC_OVERRIDE, which it does not pass on.
///
/// # Errors
/// The errors of [`keep_only`].
pub(crate) fn keep_only_for(kept: &[Capability], dirs: &[&Path]) -> io::Result<()> {
    let mut all = kept.to_vec();
    if !usable_without_override(dirs)? {
        all.push(Capability::CAP_DAC_OVERRIDE);
    }
    keep_only(&all, kept)
}

/// Returns whether this process can make and remove files in these directories without
/// CAP_DAC_OVERRIDE. For a missing directory, the nearest existing one above it counts.
///
/// The calling thread drops its effective capabilities for the check. A new thread for the check
/// could fail to start on a host that is short of processes.
fn usable_without_override(dirs: &[&Path]) -> io::Result<bool> {
    let failed = |error: caps::errors::CapsError| io::Error::other(error.to_string());
    let effective = caps::read(None, CapSet::Effective).map_err(failed)?;
    caps::clear(None, CapSet::Effective).map_err(failed)?;
    let write = AccessFlags::W_OK | AccessFlags::X_OK;
    let usable = |dir: &Path| faccessat(AT_FDCWD, dir, write, AtFlags::AT_EACCESS).is_ok();
    let there = |dir: &Path| dir.ancestors().find(|dir| dir.exists()).map(Path::to_owned);
    let all = dirs.iter().all(|dir| there(dir).is_none_or(|dir| usable(&dir)));
    caps::set(None, CapSet::Effective, &effective).map_err(failed)?;
    Ok(all)
}

/// Returns whether a program file gives capabilities to the process that executes it (setcap(8)).
pub(crate) fn has_file_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let name = c"security.capability".as_ptr();
    // SAFETY: both strings end with a NUL byte. Without a buffer, getxattr only returns the size.
    unsafe { libc::getxattr(path.as_ptr(), name, std::ptr::null_mut(), 0) > 0 }
}

/// The numbers of a user, prepared before a fork.
#[derive(Debug, Clone, Copy)]
pub(super) struct TargetUser {
    pub(super) uid: libc::uid_t,
    pub(super) gid: libc::gid_t,
    pub(super) groups: *const libc::gid_t,
    pub(super) groups_len: usize,
    /// The capabilities that the program keeps; bit N is capability N of the first 32.
    pub(super) keeps: u32,
}

// On 32-bit systems, the system calls with the plain names take 16-bit numbers.
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::{SYS_setgroups as SETGROUPS, SYS_setresgid as SETRESGID, SYS_setresuid as SETRESUID};
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::{
    SYS_setgroups32 as SETGROUPS, SYS_setresgid32 as SETRESGID, SYS_setresuid32 as SETRESUID,
};

/// Changes to the user, with the capabilities that the user keeps and no way to get another one.
/// Returns `false` after an error, with errno set.
///
/// # Safety
/// The process is a new fork (one thread); `user.groups` is valid for `user.groups_len` numbers.
pub(super) unsafe fn become_user(user: &TargetUser) -> bool {
    let (on, unused): (c_ulong, c_ulong) = (1, 0);
    // SAFETY: system calls on numbers and on an array that the caller vouches for. The C library's
    // wrappers would also signal other threads, and a fork has no other threads; the raw calls
    // change the calling thread only.
    unsafe {
        drop_bounding(user.keeps);
        // Without this flag, the change of the user would empty the permitted set. execve(2)
        // clears the flag.
        libc::prctl(libc::PR_SET_KEEPCAPS, on, unused, unused, unused) == 0
            && libc::syscall(SETGROUPS, user.groups_len, user.groups) == 0
            && libc::syscall(SETRESGID, user.gid, user.gid, user.gid) == 0
            && libc::syscall(SETRESUID, user.uid, user.uid, user.uid) == 0
            && set_capabilities(user.keeps, user.keeps)
            && raise_ambient(user.keeps)
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, unused, unused, unused) == 0
    }
}

/// Gives up every capability except CAP_KILL. A program that the process executes can get those of
/// `bounding`; bit N is capability N.
///
/// # Safety
/// The process is a new fork (one thread).
pub(super) unsafe fn keep_kill(bounding: u32) -> bool {
    // SAFETY: the caller promises the condition of both functions.
    unsafe {
        drop_bounding(bounding);
        set_capabilities(1 << Capability::CAP_KILL.index(), 0)
    }
}

/// Removes all capabilities except `keeps` from the bounding set, so that no program that is
/// executed later gets another one. Without CAP_SETPCAP the set stays, and programs of root get its
/// capabilities.
///
/// # Safety
/// The process is a new fork (one thread).
unsafe fn drop_bounding(keeps: u32) {
    // 64 is more than there are. The kernel refuses the other numbers.
    for number in (0..64 as c_ulong).filter(|n| u64::from(keeps) & (1 << n) == 0) {
        // SAFETY: a system call on numbers.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number) };
    }
}

/// `struct __user_cap_header_struct` of linux/capability.h.
#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

/// `struct __user_cap_data_struct` of linux/capability.h; the first of two has capabilities 0 to
/// 31.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Adds `keeps` to the ambient set, so that a program of an ordinary user has these capabilities
/// (capabilities(7)). A capability that the process lacks is left out.
///
/// # Safety
/// The process is a new fork (one thread), and [`set_capabilities`] has made `keeps` inheritable.
unsafe fn raise_ambient(keeps: u32) -> bool {
    let (raise, unused) = (libc::PR_CAP_AMBIENT_RAISE as c_ulong, 0 as c_ulong);
    (0..32 as c_ulong).filter(|number| keeps & (1 << number) != 0).all(|number| {
        // SAFETY: system calls on numbers. EPERM means that this process lacks the capability.
        unsafe {
            libc::prctl(libc::PR_CAP_AMBIENT, raise, number, unused, unused) == 0
                || *libc::__errno_location() == libc::EPERM
        }
    })
}

/// Sets the effective and permitted capabilities of this process to `keep`, and the inheritable
/// ones to `inherit`, as far as the process has them. Bit N is capability N of the first 32.
///
/// # Safety
/// The process is a new fork (one thread).
unsafe fn set_capabilities(keep: u32, inherit: u32) -> bool {
    const VERSION_3: c_uint = 0x2008_0522;
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut sets = [Sets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 reads and writes a header and two sets, which are local.
    unsafe {
        if libc::syscall(libc::SYS_capget, &mut header, sets.as_mut_ptr()) != 0 {
            return false;
        }
        let has = sets[0].permitted;
        sets = [Sets { effective: 0, permitted: 0, inheritable: 0 }; 2];
        (sets[0].effective, sets[0].permitted) = (has & keep, has & keep);
        sets[0].inheritable = has & inherit;
        libc::syscall(libc::SYS_capset, &mut header, sets.as_ptr()) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_the_numbers_of_the_user_database() {
        let root = Account::find(&"root".parse().unwrap()).unwrap();
        assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 0));
        assert!(root.groups.contains(&Gid::from_raw(0)));
        let error = Account::find(&"nl-nobody-has-this".parse().unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("there is no user nl-nobody-has-this"), "{error}");
    }

    #[test]
    fn a_plain_file_gives_no_capabilities() {
        assert!(!has_file_capabilities(Path::new("/etc/passwd")));
        assert!(!has_file_capabilities(Path::new("/nonexistent")));
    }

    #[test]
    fn a_thread_gives_up_all_capabilities_that_it_does_not_keep() {
        let sets = || {
            [CapSet::Effective, CapSet::Permitted, CapSet::Bounding]
                .map(|set| caps::read(None, set).unwrap())
        };
        let before = sets();
        std::thread::spawn(move || {
            let kept = [Capability::CAP_NET_ADMIN];
            keep_only(&kept, &[]).unwrap();
            let has: CapsHashSet = kept.into_iter().filter(|c| before[1].contains(c)).collect();
            let [effective, permitted, bounding] = sets();
            assert_eq!((&effective, &permitted), (&has, &has));
            if before[0].contains(&Capability::CAP_SETPCAP) {
                assert!(bounding.is_empty(), "{bounding:?}");
            }
            keep_only(&[], &[]).unwrap();
            assert!(sets()[1].is_empty());
        })
        .join()
        .unwrap();
    }
}
