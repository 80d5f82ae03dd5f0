//! Exchanges the names of two files in one step, by renameat2(2).
//!
//! The call goes to the kernel directly. nix offers renameat2 for glibc only, and the musl of older
//! Rust releases has no such function.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Gives each of two existing files the name of the other.
///
/// # Errors
/// The kernel's error: EINVAL if the file system cannot exchange names.
pub(crate) fn exchange(first: &Path, second: &Path) -> io::Result<()> {
    let first = CString::new(first.as_os_str().as_bytes())?;
    let second = CString::new(second.as_os_str().as_bytes())?;
    // SAFETY: both pointers are to strings that end with NUL and live until the call returns, and
    // the kernel only reads them. The other arguments are integers of the widths in renameat2(2).
    let status = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            first.as_ptr(),
            libc::AT_FDCWD,
            second.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
