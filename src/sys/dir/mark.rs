//! Recognises whether an entry of a directory was made, replaced, renamed or removed.
//!
//! Each such change sets the two times of the directory, mtime and ctime, to the same value. The
//! value alone is no proof: before Linux 6.13, all changes within one tick of up to 10 ms get the
//! same one. So [`Dir::set_mark`] sets mtime a second back, and the two times differ until the next
//! change of an entry makes them equal, whatever the clock says. They can become different again
//! only if a process sets mtime. So a process that has remembered a mark forgets it before it sets
//! the next one.
//!
//! A write into a file does not change the directory of the file, and so it leaves the mark.

use std::ffi::OsStr;

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};

use super::Dir;

/// The identity and the times of a marked directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirMark {
    device: u64,
    inode: u64,
    /// The times in seconds and nanoseconds.
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Dir {
    /// Returns the mark of the directory; `None` if an entry has changed since the mark was set.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn mark(&self) -> nix::Result<Option<DirMark>> {
        let is = self.stat()?;
        let (mtime, ctime) = ((is.st_mtime, is.st_mtime_nsec), (is.st_ctime, is.st_ctime_nsec));
        let mark = DirMark { device: is.st_dev, inode: is.st_ino, mtime, ctime };
        Ok(Some(mark).filter(|_| mtime != ctime))
    }

    /// Marks the directory. Returns `None` if its file system does not keep the mark.
    ///
    /// # Errors
    /// The kernel's error: EPERM if the directory belongs to another user.
    pub(crate) fn set_mark(&self) -> nix::Result<Option<DirMark>> {
        let is = self.stat()?;
        let back = TimeSpec::new(is.st_ctime - 1, is.st_ctime_nsec);
        let (kept, itself) = (TimeSpec::UTIME_OMIT, OsStr::new("."));
        utimensat(&self.0, itself, &kept, &back, UtimensatFlags::NoFollowSymlink)?;
        self.mark()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sys::dir::Trust;

    #[test]
    fn each_change_of_an_entry_removes_the_mark() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        fs::write(path("a"), "").unwrap();
        let dir = Dir::open(place.path(), Trust::LinksOnly).unwrap();
        let changes: [(&str, &dyn Fn()); 6] = [
            ("create", &|| fs::write(path("b"), "").unwrap()),
            ("replace", &|| fs::rename(path("b"), path("a")).unwrap()),
            ("rename", &|| fs::rename(path("a"), path("c")).unwrap()),
            ("link", &|| fs::hard_link(path("c"), path("d")).unwrap()),
            ("remove", &|| fs::remove_file(path("c")).unwrap()),
            ("rename again", &|| fs::rename(path("d"), path("a")).unwrap()),
        ];
        // Without a pause between them, many of these changes are within one tick.
        for (what, change) in changes.iter().cycle().take(600) {
            let mark = dir.set_mark().unwrap().expect("a file system that keeps a mark");
            assert_eq!(dir.mark().unwrap(), Some(mark), "{what}");
            change();
            assert_eq!(dir.mark().unwrap(), None, "{what}");
        }
        // A write in place is no change of an entry.
        let mark = dir.set_mark().unwrap();
        fs::write(path("a"), "b").unwrap();
        assert_eq!(dir.mark().unwrap(), mark);
    }

    #[test]
    fn another_directory_has_another_mark() {
        let place = tempfile::tempdir().unwrap();
        let mark = |name: &str| {
            let path = place.path().join(name);
            fs::create_dir_all(&path).unwrap();
            Dir::open(&path, Trust::LinksOnly).unwrap().set_mark().unwrap().unwrap()
        };
        assert_ne!(mark("a"), mark("b"));
    }
}
