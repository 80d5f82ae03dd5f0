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
    let dir = root.create(&path, None).unwrap();
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
    let live = root.create(&root.fresh(), None).unwrap();
    let second = root.create(&root.fresh(), None).unwrap();
    assert!(!dead.exists());
    assert!(live.path.exists() && second.path.exists() && other.exists());
    assert!(link.symlink_metadata().is_ok());
    let mut both = [live.path.clone(), second.path.clone()];
    both.sort();
    assert_eq!(root.live().unwrap(), both);
}

#[test]
fn one_name_belongs_to_one_live_launch() {
    let base = tempfile::tempdir().unwrap();
    let root = root(base.path().join("netlaunch"));
    let web = root.create(&root.fresh(), Some("web")).unwrap();
    let other = root.create(&root.fresh(), Some("web-1")).unwrap();
    let refused = root.create(&root.fresh(), Some("web")).unwrap_err();
    let LaunchDirError::NameInUse { dir, .. } = &refused else { panic!("{refused}") };
    assert_eq!(*dir, web.path);
    assert_eq!(root.live().unwrap().len(), 2, "the refused one leaves no directory");
    web.remove().unwrap();
    root.create(&root.fresh(), Some("web")).unwrap().remove().unwrap();
    // The directory of a launch that was killed does not keep its name.
    let dead = root.fresh();
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("name"), "web").unwrap();
    root.create(&root.fresh(), Some("web")).unwrap().remove().unwrap();
    other.remove().unwrap();
}

#[test]
fn of_many_starts_with_one_name_one_wins() {
    let base = tempfile::tempdir().unwrap();
    let root = root(base.path().join("netlaunch"));
    let keeper = root.create(&root.fresh(), None).unwrap();
    let barrier = std::sync::Barrier::new(8);
    let won = std::thread::scope(|scope| {
        let start = || {
            barrier.wait();
            root.create(&root.fresh(), Some("web")).ok()
        };
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        starts.into_iter().filter_map(|start| start.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(won.len(), 1);
    drop(keeper);
}

#[test]
fn many_starts_at_once_do_not_remove_each_others_directories() {
    let base = tempfile::tempdir().unwrap();
    let root = root(base.path().join("netlaunch"));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..40 {
                    let dir = root.create(&root.fresh(), None).unwrap();
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
    assert!(matches!(root.create(&root.fresh(), None), Err(LaunchDirError::Foreign(_))));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(root.create(&root.fresh(), None).is_ok());
}

#[test]
fn other_users_cannot_open_a_locked_root() {
    let base = tempfile::tempdir().unwrap();
    let root = root(base.path().join("netlaunch"));
    let mode = || fs::metadata(&root.dir).unwrap().permissions().mode() & 0o7777;
    fs::create_dir(&root.dir).unwrap();
    fs::set_permissions(&root.dir, fs::Permissions::from_mode(0o755)).unwrap();
    let dir = root.create(&root.fresh(), None).unwrap();
    assert_eq!(mode(), 0o711);
    dir.remove().unwrap();
    // netlaunch does not change a root that the caller has chosen.
    fs::create_dir(&root.dir).unwrap();
    fs::set_permissions(&root.dir, fs::Permissions::from_mode(0o755)).unwrap();
    let theirs = LaunchRoot { own: false, ..root.clone() };
    drop(theirs.create(&theirs.fresh(), None).unwrap());
    assert_eq!(mode(), 0o755);
}

#[test]
fn an_impossible_root_is_named() {
    let root = root("/proc/netlaunch".into());
    let text = root.create(&root.fresh(), None).unwrap_err().to_string();
    assert!(text.starts_with("cannot use /proc/netlaunch for launch directories"), "{text}");
}
