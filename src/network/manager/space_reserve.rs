//! Reserves disk space for a status file, so that it can be replaced on a full file system.
//!
//! An atomic replacement writes a complete new file, which needs space. The spare is a file as
//! large as any later status file, written while there is space. On a full file system the new
//! status is written over the bytes of the spare, which needs no new space. Then the two files
//! exchange their names in one step. The earlier status file becomes the next spare, so no other
//! program can take the space in between. Spaces pad the text to the size of the spare: JSON allows
//! them, and a shorter file would free space.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::sys::exchange::exchange;

/// Returns whether the error means that the file system is full or a quota is used up.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Creates a spare for status files of at most twice this length.
pub(super) fn reserve(spare: &Path, length: usize) -> io::Result<()> {
    const BLOCK: usize = 4096;
    let wanted = (2 * length).div_ceil(BLOCK) * BLOCK;
    if fs::metadata(spare).is_ok_and(|is| is.len() >= wanted as u64) {
        return Ok(());
    }
    let made = options(true).open(spare).and_then(|mut file| {
        // The umask does not apply to this mode.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(&vec![b' '; wanted])
    });
    if made.is_err() {
        let _ = fs::remove_file(spare);
    }
    made
}

/// Replaces the status file with this text in the space of the spare.
///
/// # Errors
/// There is no spare, or the spare is too small.
pub(super) fn write(status: &Path, spare: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = options(false).open(spare)?;
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if size < text.len() {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let mut padded = text.to_vec();
    padded.resize(size, b' ');
    file.write_all(&padded)?;
    match exchange(spare, status) {
        // Some file systems cannot exchange names; then there is no next spare.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => fs::rename(spare, status),
        done => done,
    }
}

fn options(create: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(create).truncate(create).mode(0o644);
    options.custom_flags(libc::O_NOFOLLOW);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spare_and_the_status_exchange_their_space() {
        let dir = tempfile::tempdir().unwrap();
        let (status, spare) = (dir.path().join("status.json"), dir.path().join("status.spare"));
        fs::write(&status, "[1,2,3]").unwrap();
        write(&status, &spare, b"[1]").unwrap_err();
        reserve(&spare, 7).unwrap();
        for (text, is) in [("[1,2]", vec![1, 2]), ("[1]", vec![1]), ("[]", vec![])] {
            write(&status, &spare, text.as_bytes()).unwrap();
            let read: Vec<u8> = serde_json::from_slice(&fs::read(&status).unwrap()).unwrap();
            assert_eq!(read, is);
        }
        let (a, b) = (fs::metadata(&status).unwrap().len(), fs::metadata(&spare).unwrap().len());
        assert_eq!([a.min(b), a.max(b)], [7, 4096], "no space was given back");
        write(&status, &spare, &[b' '; 4097]).unwrap_err();
    }
}
