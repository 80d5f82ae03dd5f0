//! A small disk that a test can fill or make unwritable.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A small file system over a directory, for as long as this lives.
pub struct Small(PathBuf);

impl Small {
    pub fn over(dir: PathBuf) -> Self {
        let none: Option<&str> = None;
        mount(none, &dir, Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=0755")).unwrap();
        Small(dir)
    }

    /// Leaves no room but for one small file.
    pub fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.filler()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        let size = file.metadata().unwrap().len();
        file.set_len(size - 4096).unwrap();
    }

    /// Leaves no room at all.
    pub fn fill_up(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.filler()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    /// Makes it readable only, or writable again.
    pub fn read_only(&self, is: bool) {
        let none: Option<&str> = None;
        let flag = if is { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        mount(none, &self.0, none, MsFlags::MS_REMOUNT | flag, Some("size=64k")).unwrap();
    }

    pub fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
