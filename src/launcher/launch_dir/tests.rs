//! Launch directories on a real file system.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

fn root(dir: PathBuf) -> LaunchRoot {
    LaunchRoot { dir, shared_parent: false, own: true }
}

#[test]
fn a_directory_lives_as_long_as_its_owner() {
    let base = tempfile::tempdir().unwrap();
    let root = root(base.path().join("netlaunch"));
    let path = root.fresh();
    let dir = root.create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(root.live().unwrap(), std::slice::from_ref(&path));
    fs::write(path.join("passt.pid"), "1").unwrap();
    dir.remove().unwrap();
    assert!(!root.dir.exists(), "the empty root is removed as well");
    assert_eq!(root.live().unwrap(), [] as [PathBuf; 0]);
}

#[test]
fn the_next_start_removes_stale_directories_and_nothing_else() {
    let base = tempfile::tempdir().unwrap();
    let root = root(base.path().to_owned());
    let dead = root.fresh();
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("passt.sock"), "").unwrap();
    let other = base.path().join("network");
    fs::create_dir(&other).unwrap();
    let link = base.path().join("launch-linklink");
    std::os::unix::fs::symlink(&other, &link).unwrap();
    let live = root.create(&root.fresh()).unwrap();
    let second = root.create(&root.fresh()).unwrap();
    assert!(!dead.exists());
    assert!(live.path.exists() && second.path.exists() && other.exists());
    assert!(link.symlink_metadata().is_ok());
    let mut both = [live.path.clone(), second.path.clone()];
    both.sort();
    assert_eq!(root.live().unwrap(), both);
}

#[test]
fn many_starts_at_once_do_not_remove_each_others_directories() {
    let base = tempfile::tempdir().unwrap();
    let root = root(base.path().join("netlaunch"));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..40 {
                    let dir = root.create(&root.fresh()).unwrap();
                    fs::write(dir.path.join("launch.json"), "{}").unwrap();
                    assert!(dir.path.join("launch.json").exists());
                    dir.remove().unwrap();
                }
            });
        }
    });
    assert!(!root.dir.exists());
}

#[test]
fn a_root_in_a_shared_place_must_be_private() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("netlaunch-0");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let root = LaunchRoot { dir: dir.clone(), shared_parent: true, own: true };
    assert!(matches!(root.create(&root.fresh()), Err(LaunchDirError::Foreign(_))));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(root.create(&root.fresh()).is_ok());
}

#[test]
fn other_users_cannot_open_a_locked_root() {
    let base = tempfile::tempdir().unwrap();
    let root = root(base.path().join("netlaunch"));
    let mode = || fs::metadata(&root.dir).unwrap().permissions().mode() & 0o7777;
    fs::create_dir(&root.dir).unwrap();
    fs::set_permissions(&root.dir, fs::Permissions::from_mode(0o755)).unwrap();
    let dir = root.create(&root.fresh()).unwrap();
    assert_eq!(mode(), 0o711);
    dir.remove().unwrap();
    // netlaunch does not change a root that the caller has chosen.
    fs::create_dir(&root.dir).unwrap();
    fs::set_permissions(&root.dir, fs::Permissions::from_mode(0o755)).unwrap();
    let theirs = LaunchRoot { own: false, ..root.clone() };
    drop(theirs.create(&theirs.fresh()).unwrap());
    assert_eq!(mode(), 0o755);
}

#[test]
fn an_impossible_root_is_named() {
    let root = root("/proc/netlaunch".into());
    let text = root.create(&root.fresh()).unwrap_err().to_string();
    assert!(text.starts_with("cannot use /proc/netlaunch for launch directories"), "{text}");
}
