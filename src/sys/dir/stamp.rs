//! Recognises whether an entry of a directory was made, replaced, renamed or removed.
//!
//! Each such change sets the two times of the directory, mtime and ctime, to the same value. The
//! value alone is no proof: before Linux 6.13, all changes within one tick of up to 10 ms get the
//! same one. So [`Dir::set_stamp`] sets mtime a second back, and the two times differ until the
//! next change of an entry makes them equal, whatever the clock says. They can become different
//! again only if a process sets mtime. So a process that has remembered a stamp forgets it before
//! it sets the next one.
//!
//! A write into a file does not change the directory of the file, and so it leaves the stamp.

use std::ffi::OsStr;

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};

use super::Dir;

/// The identity and the times of a stamped directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirStamp {
    device: u64,
    inode: u64,
    /// The times in seconds and nanoseconds.
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Dir {
    /// Returns the stamp of the directory; `None` if an entry has changed since the stamp was set.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn stamp(&self) -> nix::Result<Option<DirStamp>> {
        let is = self.stat()?;
        let (mtime, ctime) = ((is.st_mtime, is.st_mtime_nsec), (is.st_ctime, is.st_ctime_nsec));
        let stamp = DirStamp { device: is.st_dev, inode: is.st_ino, mtime, ctime };
        Ok(Some(stamp).filter(|_| mtime != ctime))
    }

    /// Stamps the directory. Returns `None` if its file system does not keep the stamp.
    ///
    /// # Errors
    /// The kernel's error: EPERM if the directory belongs to another user.
    pub(crate) fn set_stamp(&self) -> nix::Result<Option<DirStamp>> {
        let is = self.stat()?;
        let back = TimeSpec::new(is.st_ctime - 1, is.st_ctime_nsec);
        let (kept, itself) = (TimeSpec::UTIME_OMIT, OsStr::new("."));
        utimensat(&self.0, itself, &kept, &back, UtimensatFlags::NoFollowSymlink)?;
        self.stamp()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sys::dir::Trust;

    #[test]
    fn each_change_of_an_entry_removes_the_stamp() {
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
            let stamp = dir.set_stamp().unwrap().expect("a file system that keeps a stamp");
            assert_eq!(dir.stamp().unwrap(), Some(stamp), "{what}");
            change();
            assert_eq!(dir.stamp().unwrap(), None, "{what}");
        }
        // A write in place is no change of an entry.
        let stamp = dir.set_stamp().unwrap();
        fs::write(path("a"), "b").unwrap();
        assert_eq!(dir.stamp().unwrap(), stamp);
    }

    #[test]
    fn another_directory_has_another_stamp() {
        let place = tempfile::tempdir().unwrap();
        let stamp = |name: &str| {
            let path = place.path().join(name);
            fs::create_dir_all(&path).unwrap();
            Dir::open(&path, Trust::LinksOnly).unwrap().set_stamp().unwrap().unwrap()
        };
        assert_ne!(stamp("a"), stamp("b"));
    }
}
