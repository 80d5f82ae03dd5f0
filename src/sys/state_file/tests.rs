//! Tests of the files about running ports, networks and launches.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_write_replaces_the_whole_status_file_and_every_user_may_read_it() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("made/port.json");
    assert_eq!(read::<Vec<u8>>(&path).unwrap(), None);
    for status in [vec![1, 2, 3], vec![4]] {
        write(&path, &status).unwrap();
        assert_eq!(read(&path).unwrap(), Some(status));
        assert_eq!(mode(&path), 0o644);
    }
    assert_eq!(names(&place.path().join("made")).unwrap(), ["port.json"]);
    fs::write(&path, "[4").unwrap();
    assert!(matches!(read::<Vec<u8>>(&path), Err(StateFileError::Damaged { .. })));
}

#[test]
fn the_version_of_a_file_is_known_before_the_rest_is_read() {
    for (text, version) in [
        ("{\n  \"version\": 1,\n  \"x\": 2\n}", Some(1)),
        (" { \"version\" : 12 }", Some(12)),
        ("{\"x\": 2, \"version\": 1}", None),
        ("{\"version\": \"1\"}", None),
        ("{\"version\": 1.5}", None),
        ("{\"version\": [1,2]}", None),
        ("{\"version\": 1", None),
        ("", None),
    ] {
        assert_eq!(leading_version(text.as_bytes()), version, "{text}");
    }
    let read = |text: &str| {
        let read = parse_version::<serde_json::Value>(Path::new("x"), text.as_bytes(), 1);
        read.map(|value| value.is_some()).map_err(|error| error.to_string())
    };
    assert_eq!(read("{\"x\": 2, \"version\": 1}"), Ok(true));
    assert!(read("{\"version\": 2, \"x\": 2}").unwrap_err().contains("version is 2"));
    assert!(read("{\"version\": 2, \"x\"").unwrap_err().contains("is damaged"));
    assert!(read("{\"version\": 1, \"x\"").unwrap_err().contains("is damaged"));
}

#[test]
fn a_failed_replace_keeps_the_old_file_and_leaves_no_new_one() {
    let place = tempfile::tempdir().unwrap();
    let secret = place.path().join("secret");
    replace(&secret, b"old", Readers::Owner).unwrap();
    assert_eq!(mode(&secret), 0o600);
    let taken = place.path().join("taken");
    fs::create_dir(&taken).unwrap();
    replace(&taken, b"new", Readers::Owner).unwrap_err();
    assert_eq!(names(place.path()).unwrap(), ["secret", "taken"]);
    // A missing directory, such as that of a launch that has ended, is not made again.
    let gone = place.path().join("gone");
    replace(&gone.join("file"), b"new", Readers::Owner).unwrap_err();
    assert!(!gone.exists());
}

#[test]
fn a_state_that_another_user_can_change_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped a_state_that_another_user_can_change_is_refused: it needs root");
        return;
    }
    const OTHER: Option<u32> = Some(54_321);
    let place = tempfile::tempdir().unwrap();
    let (mine, theirs) = (place.path().join("mine"), place.path().join("theirs"));
    let file = |dir: &Path| dir.join("made/port.json");
    for dir in [&mine, &theirs] {
        write(&file(dir), &1).unwrap();
    }
    let refused = |dir: &Path, why: &str| {
        let error = crate::types::error_text(&read::<u8>(&file(dir)).unwrap_err());
        assert!(error.contains(why), "{error}");
        lock_file(&dir.join("made")).unwrap_err();
        write(&file(dir), &2).unwrap_err();
        names(&dir.join("made")).unwrap_err();
        remove(&file(dir)).unwrap_err();
    };
    std::os::unix::fs::chown(theirs.join("made"), OTHER, OTHER).unwrap();
    refused(&theirs, "made belongs to user 54321");
    fs::set_permissions(mine.join("made"), fs::Permissions::from_mode(0o777)).unwrap();
    refused(&mine, "made can be written by other users");
    fs::set_permissions(mine.join("made"), fs::Permissions::from_mode(0o755)).unwrap();
    let link = place.path().join("link");
    std::os::unix::fs::symlink(&mine, &link).unwrap();
    std::os::unix::fs::lchown(&link, OTHER, OTHER).unwrap();
    refused(&link, "link is a symbolic link of user 54321");
    assert_eq!(read(&file(&mine)).unwrap(), Some(1));
}

#[test]
fn only_the_owner_can_open_the_lock_file() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("state/made");
    drop(lock_file(&dir).unwrap());
    assert_eq!(mode(&dir.join(LOCK)), 0o600);
    // Launches lock the upper directory. Every user reads the files in the lower one.
    assert_eq!([mode(&place.path().join("state")), mode(&dir)], [0o711, 0o755]);
    // Earlier releases made the file with this mode.
    fs::set_permissions(dir.join(LOCK), fs::Permissions::from_mode(0o644)).unwrap();
    drop(lock_file(&dir).unwrap());
    assert_eq!(mode(&dir.join(LOCK)), 0o600);
    let open = |name: &str| Dir::open(&dir, Trust::LastDirectory).unwrap().lock_file(name.as_ref());
    let file = dir.join("file");
    fs::write(&file, "").unwrap();
    open("file").unwrap();
    std::os::unix::fs::symlink(&file, dir.join("link")).unwrap();
    open("link").unwrap_err();
    // `lock_file` sets the mode of a file, and with a hard link that file is elsewhere.
    fs::hard_link(&file, dir.join("hard")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    open("hard").unwrap_err();
    assert_eq!(mode(&file), 0o644);
}

#[test]
fn incomplete_files_are_removed_from_a_directory_that_has_changed_since_its_stamp() {
    let place = tempfile::tempdir().unwrap();
    let incomplete = place.path().join(format!("{UNFINISHED}1"));
    fs::write(place.path().join("port.json"), "").unwrap();
    for is_stamped in [false, true, true] {
        if is_stamped {
            Dir::open(place.path(), Trust::LinksOnly).unwrap().set_stamp().unwrap();
        }
        fs::write(&incomplete, "").unwrap();
        clean(place.path());
        assert_eq!(names(place.path()).unwrap(), ["port.json"], "{is_stamped}");
    }
}
