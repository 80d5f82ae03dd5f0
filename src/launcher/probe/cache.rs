//! What probing a program found, kept for the next launch.
//!
//! Asking QEMU and passt costs about a tenth of a second, a launch needs the answers each time,
//! and they only change when the program's file does. So an answer is stored under what it was
//! about, the program's canonical path, and what would change with the file: its size and its time
//! of modification. Only answers are stored; a failure is tried again each time. Only ELF files are
//! cached: a script may start a different program tomorrow without a change of its own.
//!
//! The cache is one JSON file, replaced as a whole by rename(2), so that readers and concurrent
//! writers always see a valid one; of two that write at once, one may lose its entry and asks
//! again next time. A file or a directory that is not our user's own is not used, as it would let
//! others say what our programs can do. Whatever is wrong with the cache, probing goes on without.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::geteuid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dir::{Dir, Modes, Trust};

/// The cache's file in its directory.
const FILE: &str = "probe.json";
/// The format's version: a file of any other is replaced. To be raised with every change of what
/// is stored, or of how it is found out.
const VERSION: u32 = 1;
/// The most entries kept, the latest ones.
const ENTRIES: usize = 32;
/// The longest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;
/// How an executable file of the usual kind starts.
const ELF: [u8; 4] = *b"\x7fELF";

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    /// What was asked for, such as "passt".
    kind: String,
    /// The program's canonical path.
    path: PathBuf,
    /// Its size in bytes.
    size: u64,
    /// When it was modified: seconds since 1970 and nanoseconds.
    modified: (i64, i64),
}

impl Key {
    /// The key for asking the program at `path` for what `kind` names.
    ///
    /// # Errors
    /// The file cannot be read, or its kind cannot be cached.
    pub(super) fn new(kind: &str, path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        if path.to_str().is_none() {
            return Err(io::Error::other("its name is not UTF-8"));
        }
        let mut file = File::open(&path)?;
        let meta = file.metadata()?;
        let mut start = [0; ELF.len()];
        file.read_exact(&mut start)?;
        if start != ELF {
            return Err(io::Error::other("it is a script"));
        }
        let modified = (meta.mtime(), meta.mtime_nsec());
        Ok(Key { kind: kind.to_owned(), path, size: meta.size(), modified })
    }

    /// Whether an entry under `other` has no use beside one under this key.
    fn replaces(&self, other: &Key) -> bool {
        self.kind == other.kind && self.path == other.path
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    key: Key,
    value: Value,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Contents {
    version: u32,
    entries: Vec<Entry>,
}

/// The cache: what was stored when it was opened, and what has been added since.
#[derive(Debug, Default)]
pub(super) struct Cache {
    dir: Option<PathBuf>,
    stored: Vec<Entry>,
    added: Vec<Entry>,
}

impl Cache {
    /// Reads the cache in `dir`; without a directory, or a usable file, it is empty.
    pub(super) fn open(dir: Option<&Path>) -> Self {
        let stored = match dir.map(read) {
            None => Vec::new(),
            Some(Ok(entries)) => entries,
            Some(Err(error)) => {
                tracing::debug!(dir = %dir.unwrap_or(Path::new("")).display(), %error, "no cached probe results");
                Vec::new()
            }
        };
        Cache { dir: dir.map(Path::to_owned), stored, added: Vec::new() }
    }

    /// What was stored under this key.
    pub(super) fn get<T: DeserializeOwned>(&self, key: &Key) -> Option<T> {
        let entry = self.added.iter().chain(&self.stored).find(|entry| entry.key == *key)?;
        T::deserialize(&entry.value).ok()
    }

    /// Adds an answer, to be stored by [`Cache::save`].
    pub(super) fn put<T: Serialize>(&mut self, key: Key, value: &T) {
        match serde_json::to_value(value) {
            Ok(value) => {
                self.added.retain(|entry| !key.replaces(&entry.key));
                self.added.push(Entry { key, value });
            }
            Err(error) => tracing::debug!(%error, "a probe result cannot be cached"),
        }
    }

    /// Stores what was added, if anything was. A failure costs only time at the next launch.
    pub(super) fn save(self) {
        let Some(dir) = self.dir.filter(|_| !self.added.is_empty()) else { return };
        if let Err(error) = write(&dir, self.added) {
            tracing::debug!(dir = %dir.display(), %error, "probe results are not cached");
        }
    }
}

fn read(dir: &Path) -> io::Result<Vec<Entry>> {
    entries(&Dir::open(dir, Trust::Way)?)
}

fn entries(dir: &Dir) -> io::Result<Vec<Entry>> {
    check_owner(&dir.stat()?)?;
    let file = dir.open_file(FILE.as_ref())?.ok_or(io::ErrorKind::NotFound)?;
    check_owner(&fstat(&file)?)?;
    if file.metadata()?.size() > LONGEST {
        return Err(io::Error::other("not a cache file"));
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    let contents: Contents = serde_json::from_slice(&text)?;
    if contents.version != VERSION {
        return Err(io::Error::other(format!("format version {}", contents.version)));
    }
    Ok(contents.entries)
}

/// Refuses what belongs to another user, or what another user may write.
fn check_owner(stat: &FileStat) -> io::Result<()> {
    let ours = stat.st_uid == geteuid().as_raw();
    if ours && stat.st_mode & 0o022 == 0 {
        return Ok(());
    }
    let what = if ours { "others may write it" } else { "it belongs to another user" };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
}

/// Writes into the directory, and makes it where it is missing.
///
/// Under `sudo`, HOME may still be the calling user's: a directory of root's there would keep that
/// user from having a cache, and a link there would lead root elsewhere, so nothing is made below
/// another user's directory.
fn write(dir: &Path, added: Vec<Entry>) -> io::Result<()> {
    let dir = Dir::make(dir, Trust::Way, Modes::all(0o700))?;
    check_owner(&dir.stat()?)?;
    // Read again: another process may have stored something since.
    let mut entries = entries(&dir).unwrap_or_default();
    entries.retain(|old| !added.iter().any(|new| new.key.replaces(&old.key)));
    entries.extend(added);
    entries.drain(..entries.len().saturating_sub(ENTRIES));
    let text = serde_json::to_vec(&Contents { version: VERSION, entries })?;
    dir.replace(FILE.as_ref(), &text, Mode::S_IRUSR | Mode::S_IWUSR, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{OpenOptions, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::time::{Duration, SystemTime};

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Place(tempfile::tempdir().unwrap());
            fs::write(place.program(), b"\x7fELF and so on").unwrap();
            place
        }

        fn program(&self) -> PathBuf {
            self.0.path().join("program")
        }

        fn dir(&self) -> PathBuf {
            self.0.path().join("cache/netlaunch")
        }

        fn file(&self) -> PathBuf {
            self.dir().join(FILE)
        }

        fn key(&self) -> Key {
            Key::new("kind", &self.program()).unwrap()
        }

        fn open(&self) -> Cache {
            Cache::open(Some(&self.dir()))
        }

        fn store(&self, key: Key, value: &str) {
            let mut cache = self.open();
            cache.put(key, &value);
            cache.save();
        }

        fn stored(&self) -> Option<String> {
            self.open().get(&self.key())
        }
    }

    #[test]
    fn an_answer_comes_back_until_the_program_changes() {
        let place = Place::new();
        assert_eq!(place.stored(), None);
        place.store(place.key(), "answer");
        assert_eq!(place.stored().as_deref(), Some("answer"));
        let other = Key::new("other", &place.program()).unwrap();
        assert_eq!(place.open().get::<String>(&other), None, "another question");
        assert_eq!(place.open().get::<u32>(&place.key()), None, "another type");

        let link = place.0.path().join("link");
        symlink(place.program(), &link).unwrap();
        assert_eq!(Key::new("kind", &link).unwrap(), place.key(), "the file counts, not the link");

        let file = OpenOptions::new().write(true).open(place.program()).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_001))
            .unwrap();
        assert_eq!(place.stored(), None, "modified");
        place.store(place.key(), "newer");
        assert_eq!(place.stored().as_deref(), Some("newer"));
        assert_eq!(place.open().stored.len(), 1, "the older answer is gone");
        fs::write(place.program(), b"\x7fELF").unwrap();
        assert_eq!(place.stored(), None, "another size");
    }

    #[test]
    fn scripts_are_not_cached() {
        let place = Place::new();
        for text in ["#!/bin/sh\nexec qemu\n", ""] {
            fs::write(place.program(), text).unwrap();
            assert!(Key::new("kind", &place.program()).is_err());
        }
    }

    #[test]
    fn a_useless_cache_is_no_cache_and_is_replaced() {
        for damage in [
            "",
            "{",
            "[]",
            "\0\0\0\0",
            r#"{"version":1}"#,
            r#"{"version":999,"entries":[]}"#,
            r#"{"version":1,"entries":[{"kind":1}]}"#,
        ] {
            let place = Place::new();
            place.store(place.key(), "answer");
            fs::write(place.file(), damage).unwrap();
            assert_eq!(place.stored(), None, "{damage}");
            place.store(place.key(), "again");
            assert_eq!(place.stored().as_deref(), Some("again"), "{damage}");
        }
    }

    #[test]
    fn links_pipes_and_what_others_may_write_are_not_read() {
        let place = Place::new();
        place.store(place.key(), "answer");
        let elsewhere = place.0.path().join("elsewhere");
        fs::rename(place.file(), &elsewhere).unwrap();
        symlink(&elsewhere, place.file()).unwrap();
        assert_eq!(place.stored(), None, "a link");
        fs::remove_file(place.file()).unwrap();
        nix::unistd::mkfifo(&place.file(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(place.stored(), None, "a pipe");
        fs::remove_file(place.file()).unwrap();
        fs::copy(&elsewhere, place.file()).unwrap();
        assert_eq!(place.stored().as_deref(), Some("answer"));
        fs::set_permissions(place.file(), Permissions::from_mode(0o666)).unwrap();
        assert_eq!(place.stored(), None, "writable by all");
        if geteuid().is_root() {
            fs::set_permissions(place.file(), Permissions::from_mode(0o600)).unwrap();
            chown(place.file(), Some(65534), None).unwrap();
            assert_eq!(place.stored(), None, "another user's");
            chown(place.file(), Some(0), None).unwrap();
            chown(place.dir(), Some(65534), None).unwrap();
            assert_eq!(place.stored(), None, "in another user's directory");
            place.store(place.key(), "again");
            assert_eq!(fs::read_dir(place.dir()).unwrap().count(), 1, "nothing written there");
        }
    }

    #[test]
    fn another_users_link_leads_to_no_cache() {
        if !geteuid().is_root() {
            eprintln!("skipped another_users_link_leads_to_no_cache: it needs root");
            return;
        }
        let place = Place::new();
        place.store(place.key(), "answer");
        let roots = place.0.path().join("roots");
        let theirs = place.0.path().join("theirs");
        fs::rename(place.dir(), &roots).unwrap();
        fs::remove_file(roots.join(FILE)).unwrap();
        fs::create_dir(&theirs).unwrap();
        chown(&theirs, Some(54_321), Some(54_321)).unwrap();
        symlink(&roots, theirs.join("netlaunch")).unwrap();
        // The link is root's, as one that was renamed; the directory that it is in is not.
        let mut cache = Cache::open(Some(&theirs.join("netlaunch")));
        cache.put(place.key(), &"answer");
        cache.save();
        assert_eq!(fs::read_dir(&roots).unwrap().count(), 0, "nothing was written there");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_no_error() {
        let place = Place::new();
        for dir in [PathBuf::from("/proc/nothing/here"), place.program().join("x")] {
            let mut cache = Cache::open(Some(&dir));
            cache.put(place.key(), &"answer");
            cache.save();
        }
        let mut cache = Cache::open(None);
        cache.put(place.key(), &"answer");
        assert_eq!(cache.get::<String>(&place.key()).as_deref(), Some("answer"));
        cache.save();
    }

    #[test]
    fn the_file_stays_small_and_private() {
        let place = Place::new();
        for n in 0..ENTRIES + 5 {
            place.store(Key { kind: format!("kind{n}"), ..place.key() }, "answer");
        }
        let kept = place.open().stored;
        assert_eq!((kept.len(), kept[0].key.kind.as_str()), (ENTRIES, "kind5"));
        assert_eq!(fs::metadata(place.file()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(place.dir()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(place.dir()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn concurrent_writers_leave_a_valid_file() {
        let place = Place::new();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let place = &place;
                scope.spawn(move || {
                    for _ in 0..20 {
                        place.store(Key { kind: format!("kind{n}"), ..place.key() }, "answer");
                        assert!(read(&place.dir()).is_ok());
                    }
                });
            }
        });
        assert!(!read(&place.dir()).unwrap().is_empty());
    }
}
