//! Tests attacks on paths by another user.
//!
//! Only root can make files that belong to another user, so the tests that need such files run as
//! root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::PathBuf;

use super::*;

/// A user id without an account.
const OTHER: u32 = 54_321;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn dir(&self, path: &str, mode: u32) -> PathBuf {
        let at = self.at(path);
        fs::create_dir(&at).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
        at
    }

    fn others_dir(&self, path: &str, mode: u32) -> PathBuf {
        let at = self.dir(path, mode);
        chown(&at, Some(OTHER), Some(OTHER)).unwrap();
        at
    }

    fn others_link(&self, to: &Path, path: &str) {
        symlink(to, self.at(path)).unwrap();
        lchown(self.at(path), Some(OTHER), Some(OTHER)).unwrap();
    }

    fn refused(&self, path: &str, trust: Trust) -> String {
        let error = Dir::open(&self.at(path), trust).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{path}");
        error.to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn is_root(test: &str) -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("skipped {test}: it makes files of another user, which needs root (./tests/run)");
    }
    root
}

#[test]
fn links_of_other_users_are_not_followed() {
    if !is_root("links_of_other_users_are_not_followed") {
        return;
    }
    let place = Place::new();
    let real = place.dir("real", 0o700);
    place.dir("real/below", 0o700);
    place.others_link(&real, "theirs");
    for trust in
        [Trust::LinksOnly, Trust::LastDirectory, Trust::WholePath, Trust::WholePathNoLastLink]
    {
        let expected = format!("theirs is a symbolic link of user {OTHER}");
        assert_eq!(place.refused("theirs", trust), expected);
        assert_eq!(place.refused("theirs/below", trust), expected);
        assert_eq!(
            place.refused("real/../theirs", trust).split('/').next_back().unwrap(),
            expected
        );
    }
    symlink(&real, place.at("own")).unwrap();
    symlink("real/../own", place.at("relative")).unwrap();
    for trust in [Trust::LinksOnly, Trust::LastDirectory, Trust::WholePath] {
        Dir::open(&place.at("own"), trust).unwrap();
        let below = Dir::open(&place.at("relative/below"), trust).unwrap();
        let named = fs::metadata(place.at("real/below")).unwrap();
        assert_eq!(below.stat().unwrap().st_ino, std::os::unix::fs::MetadataExt::ino(&named));
    }
    assert_eq!(place.refused("own", Trust::WholePathNoLastLink), "own is a symbolic link");
    Dir::open(&place.at("own/below"), Trust::WholePathNoLastLink).unwrap();
    symlink("loop", place.at("loop")).unwrap();
    let error = Dir::open(&place.at("loop"), Trust::LinksOnly).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
}

#[test]
fn directories_that_other_users_own_or_can_write_are_refused() {
    if !is_root("directories_that_other_users_own_or_can_write_are_refused") {
        return;
    }
    let place = Place::new();
    place.others_dir("theirs", 0o700);
    place.dir("theirs/own", 0o700);
    let expected = format!("theirs belongs to user {OTHER}");
    for trust in [Trust::LastDirectory, Trust::WholePath, Trust::WholePathNoLastLink] {
        assert_eq!(place.refused("theirs", trust), expected);
    }
    Dir::open(&place.at("theirs"), Trust::LinksOnly).unwrap();
    Dir::open(&place.at("theirs/own"), Trust::LastDirectory).unwrap();
    assert_eq!(place.refused("theirs/own", Trust::WholePath), expected);
    // The new file is in another user's directory, but the caller owns the file.
    Dir::make(&place.at("theirs/new"), Trust::LastDirectory, Modes::all(0o700)).unwrap();

    for (name, mode, open) in
        [("group", 0o770, true), ("all", 0o777, true), ("sticky", 0o1777, false)]
    {
        let at = place.dir(name, mode);
        chown(&at, None, Some(OTHER)).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
        let opened = Dir::open(&at, Trust::LastDirectory);
        assert_eq!(opened.is_err(), open, "{name}");
        if open {
            assert_eq!(
                place.refused(name, Trust::WholePath),
                format!("{name} can be written by other users")
            );
        }
    }
}

/// The owner of a directory on the path exchanges the last directory and a link again and again.
#[test]
fn a_directory_that_is_exchanged_for_a_link_does_not_lead_elsewhere() {
    if !is_root("a_directory_that_is_exchanged_for_a_link_does_not_lead_elsewhere") {
        return;
    }
    let place = Place::new();
    let victim = place.dir("victim", 0o755);
    fs::create_dir(victim.join("launch-aaaaaaaa")).unwrap();
    fs::write(victim.join("launch-aaaaaaaa/file"), "").unwrap();
    place.others_dir("theirs", 0o755);
    let at = place.dir("theirs/state", 0o700);
    place.others_link(&victim, "theirs/link");
    let link = place.at("theirs/link");
    let done = std::sync::atomic::AtomicBool::new(false);
    let (mut opened, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                crate::sys::exchange::exchange(&at, &link).unwrap();
            }
        });
        for _ in 0..3000 {
            match Dir::make(&at, Trust::LastDirectory, Modes::all(0o700)) {
                Ok(dir) => {
                    opened += 1;
                    dir.replace("file".as_ref(), b"", Mode::S_IRUSR, false).unwrap();
                    dir.remove_all("launch-aaaaaaaa".as_ref()).unwrap();
                }
                Err(_) => refused += 1,
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(opened > 0 && refused > 0, "{opened} {refused}");
    assert!(victim.join("launch-aaaaaaaa/file").exists());
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    assert_eq!(fs::metadata(&victim).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn removal_follows_no_link() {
    let place = Place::new();
    let kept = place.dir("kept", 0o700);
    fs::write(kept.join("file"), "").unwrap();
    place.dir("gone", 0o700);
    place.dir("gone/a", 0o700);
    place.dir("gone/a/b", 0o700);
    symlink(&kept, place.at("gone/a/link")).unwrap();
    fs::hard_link(kept.join("file"), place.at("gone/a/b/hard")).unwrap();
    symlink(&kept, place.at("link")).unwrap();
    let dir = Dir::open(place.0.path(), Trust::LinksOnly).unwrap();
    dir.remove_all("gone".as_ref()).unwrap();
    dir.remove_all("gone".as_ref()).unwrap();
    dir.remove_all("link".as_ref()).unwrap_err();
    assert_eq!(dir.names().unwrap(), ["kept", "link"]);
    assert!(kept.join("file").exists());
}

#[test]
fn only_regular_files_up_to_the_limit_are_read() {
    let place = Place::new();
    let dir = Dir::open(place.0.path(), Trust::LinksOnly).unwrap();
    nix::unistd::mkfifo(&place.at("fifo"), Mode::S_IRWXU).unwrap();
    symlink("/dev/zero", place.at("link")).unwrap();
    fs::write(place.at("file"), "12345").unwrap();
    dir.read("fifo".as_ref(), 5).unwrap_err();
    dir.read("link".as_ref(), 5).unwrap_err();
    dir.read("file".as_ref(), 4).unwrap_err();
    assert_eq!(dir.read("file".as_ref(), 5).unwrap().unwrap(), b"12345");
    assert_eq!(dir.read("none".as_ref(), 5).unwrap(), None);
}
