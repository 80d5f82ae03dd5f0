//! Becoming another user with few privileges or none, and giving up those of root's that are not
//! needed.
//!
//! Root's programs can be run as another user ([`Account`]): they start with that user's groups,
//! with no capability in any set and with `no_new_privs`, so that no setuid program gives them any
//! (capabilities(7), prctl(2)). Their guard stays root's, so that the user cannot end it, and keeps
//! CAP_KILL alone, without which it could not signal a program of another user's.
//!
//! [`keep_only`] does for ourselves what is done for the guard. Capabilities belong to a thread;
//! it is for programs with one.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use libc::{c_int, c_uint, c_ulong};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, Gid, Uid, User, faccessat, getgrouplist};

use crate::types::UserName;

/// A user as whom a program can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name.
    pub name: UserName,
    /// The user's number.
    pub uid: Uid,
    /// The number of the user's own group.
    pub gid: Gid,
    /// All groups the user is in.
    pub groups: Vec<Gid>,
}

/// Why a user cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// No such user.
    #[error("there is no user {0} on this host; name one that 'getent passwd' lists")]
    Unknown(UserName),
    /// The user database cannot be asked.
    #[error("cannot look up the user {name}: {source}; see whether 'getent passwd {name}' works")]
    Lookup {
        /// The user.
        name: UserName,
        /// What the system said.
        source: io::Error,
    },
}

impl Account {
    /// Looks up a user in the host's database.
    ///
    /// # Errors
    /// [`AccountError`].
    pub fn find(name: &UserName) -> Result<Self, AccountError> {
        let failed = |source| AccountError::Lookup { name: name.clone(), source };
        let user = User::from_name(name.as_str()).map_err(|errno| failed(errno.into()))?;
        let user = user.ok_or_else(|| AccountError::Unknown(name.clone()))?;
        let c_name = CString::new(name.as_str()).map_err(|e| failed(e.into()))?;
        let groups = getgrouplist(&c_name, user.gid).map_err(|errno| failed(errno.into()))?;
        Ok(Account { name: name.clone(), uid: user.uid, gid: user.gid, groups })
    }
}

/// Gives up every capability of this thread but those in `kept`; programs that it executes as root
/// from now on get those in `passed_on` at most. What it has not got is no error.
///
/// # Errors
/// The kernel's error; some may then have been given up.
pub fn keep_only(kept: &[Capability], passed_on: &[Capability]) -> io::Result<()> {
    let failed = |error: caps::errors::CapsError| io::Error::other(error.to_string());
    let may = caps::read(None, CapSet::Effective).map_err(failed)?;
    // Without it the bounding set stays, which gives nothing to a program without root's number.
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

/// The same, for who goes on using these directories: CAP_DAC_OVERRIDE is kept, but not passed on,
/// where one of them lies in another user's, who may have closed it to everybody else.
///
/// # Errors
/// As [`keep_only`].
pub fn keep_only_for(kept: &[Capability], dirs: &[&Path]) -> io::Result<()> {
    let mut all = kept.to_vec();
    if !usable_without_override(dirs)? {
        all.push(Capability::CAP_DAC_OVERRIDE);
    }
    keep_only(&all, kept)
}

/// Whether files in these directories, or in what is there above them, can be made and removed
/// without CAP_DAC_OVERRIDE. The calling thread has no effective capability while it asks; a thread
/// of its own could fail to start on a host that is short of processes.
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

/// Whether a file gives capabilities to whoever executes it (setcap(8)).
pub fn has_file_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let name = c"security.capability".as_ptr();
    // SAFETY: both strings are NUL-terminated; without a buffer the kernel only tells the size.
    unsafe { libc::getxattr(path.as_ptr(), name, std::ptr::null_mut(), 0) > 0 }
}

/// A user's numbers, laid out before a fork.
#[derive(Debug, Clone, Copy)]
pub(super) struct Become {
    pub(super) uid: libc::uid_t,
    pub(super) gid: libc::gid_t,
    pub(super) groups: *const libc::gid_t,
    pub(super) groups_len: usize,
    /// The capabilities that the program keeps, by number; the first 32 only.
    pub(super) keeps: u32,
}

// 32-bit systems have system calls of the plain names for 16-bit numbers.
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::{SYS_setgroups as SETGROUPS, SYS_setresgid as SETRESGID, SYS_setresuid as SETRESUID};
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::{
    SYS_setgroups32 as SETGROUPS, SYS_setresgid32 as SETRESGID, SYS_setresuid32 as SETRESUID,
};

/// Becomes that user, with the capabilities that it keeps and no way to another one.
///
/// # Safety
/// In a forked process with one thread; `user.groups` is valid for its length.
pub(super) unsafe fn become_user(user: &Become) -> bool {
    let (on, unused): (c_ulong, c_ulong) = (1, 0);
    // SAFETY: plain system calls on numbers and a valid array. The raw ones change this thread
    // only, where the C library would signal other threads, of which a forked process has none.
    unsafe {
        drop_bounding(user.keeps);
        // Without it the change of the user would empty the permitted set; execve clears it.
        libc::prctl(libc::PR_SET_KEEPCAPS, on, unused, unused, unused) == 0
            && libc::syscall(SETGROUPS, user.groups_len, user.groups) == 0
            && libc::syscall(SETRESGID, user.gid, user.gid, user.gid) == 0
            && libc::syscall(SETRESUID, user.uid, user.uid, user.uid) == 0
            && set_capabilities(user.keeps, user.keeps)
            && raise_ambient(user.keeps)
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, unused, unused, unused) == 0
    }
}

/// Leaves this process CAP_KILL, where it has that, and nothing else.
///
/// # Safety
/// As [`become_user`].
pub(super) unsafe fn keep_kill() -> bool {
    // SAFETY: as there.
    unsafe {
        drop_bounding(0);
        set_capabilities(1 << Capability::CAP_KILL.index(), 0)
    }
}

/// Takes everything but `keeps` out of the bounding set: nothing executed from now on gets more.
/// Without CAP_SETPCAP it stays, and with it what a program of root's own would get.
///
/// # Safety
/// As [`become_user`].
unsafe fn drop_bounding(keeps: u32) {
    // More than there are; the kernel refuses a number that is none.
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

/// `struct __user_cap_data_struct` of linux/capability.h; the first has capabilities 0 to 31.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Puts those of `keeps` that this process has into its ambient set, so that a program that it
/// executes has them without being root's (capabilities(7)).
///
/// # Safety
/// As [`become_user`], after [`set_capabilities`] has made them inheritable.
unsafe fn raise_ambient(keeps: u32) -> bool {
    let (raise, unused) = (libc::PR_CAP_AMBIENT_RAISE as c_ulong, 0 as c_ulong);
    (0..32 as c_ulong).filter(|number| keeps & (1 << number) != 0).all(|number| {
        // SAFETY: system calls on numbers. EPERM: this process has not got that one itself.
        unsafe {
            libc::prctl(libc::PR_CAP_AMBIENT, raise, number, unused, unused) == 0
                || *libc::__errno_location() == libc::EPERM
        }
    })
}

/// Sets the effective and permitted capabilities of this process to `keep`, and the inheritable ones
/// to `inherit`, as far as it has them. Bits are numbers of capabilities, the first 32.
///
/// # Safety
/// As [`become_user`].
unsafe fn set_capabilities(keep: u32, inherit: u32) -> bool {
    const VERSION_3: c_uint = 0x2008_0522;
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut sets = [Sets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 reads and writes a header and two sets, which outlive the calls.
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
    fn accounts() {
        let root = Account::find(&"root".parse().unwrap()).unwrap();
        assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 0));
        assert!(root.groups.contains(&Gid::from_raw(0)));
        let error = Account::find(&"nl-nobody-has-this".parse().unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("there is no user nl-nobody-has-this"), "{error}");
    }

    #[test]
    fn plain_files_have_no_capabilities() {
        assert!(!has_file_capabilities(Path::new("/etc/passwd")));
        assert!(!has_file_capabilities(Path::new("/nonexistent")));
    }

    #[test]
    fn what_is_not_kept_is_gone_for_this_thread_alone() {
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
