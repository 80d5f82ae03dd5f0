//! A cache for the results of probing a program.
//!
//! Probing QEMU and passt takes about a tenth of a second, each launch needs the results, and they
//! change only when the program's file changes. So a result is stored under the program's canonical
//! path, with the size and the modification time of the file. A failure is not stored, so the next
//! launch tries again. Only results for ELF files are stored, because a script can start another
//! program later without a change of its own file.
//!
//! The cache is one JSON file, and a writer replaces it with rename(2), so each reader sees a valid
//! file. If two writers race, one of the new results may be lost, and a later launch probes again.
//! A file or directory that belongs to another user, or that others may write, is not used:
//! otherwise another user could decide which features a program seems to have. An error of the
//! cache never fails a probe.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::geteuid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sys::dir::{Dir, Modes, Trust};
use crate::types::os_text;

/// The name of the cache's file in its directory.
const FILE: &str = "probe.json";
/// The version of the format; a file of another version is replaced.
///
/// It must grow with each change of the stored values, and with each change of the way in which
/// they are found.
pub(super) const VERSION: u32 = 1;
/// The largest number of entries; the latest ones are kept.
const ENTRIES: usize = 32;
/// The size of the largest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;
/// The first bytes of an ELF file.
const ELF: [u8; 4] = *b"\x7fELF";

/// The key of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    /// The kind of result, such as "passt".
    kind: String,
    /// The program's canonical path.
    #[serde(with = "os_text::path")]
    path: PathBuf,
    /// The size of the program's file in bytes.
    size: u64,
    /// The modification time of the file: seconds since 1970 and nanoseconds.
    modified: (i64, i64),
}

impl Key {
    /// Makes the key for a result of this kind about the program at `path`.
    ///
    /// # Errors
    /// The file cannot be read, it is not an ELF file, or its path is not UTF-8.
    pub(super) fn new(kind: &str, path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
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

    /// Returns whether a new entry under this key makes an entry under `other` useless.
    fn replaces(&self, other: &Key) -> bool {
        self.kind == other.kind && self.path == other.path
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    key: Key,
    value: Value,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Contents {
    version: u32,
    entries: Vec<Entry>,
}

/// The cache: the entries of its file when it was opened, and the entries added since.
#[derive(Debug, Default)]
pub(super) struct Cache {
    dir: Option<PathBuf>,
    stored: Vec<Entry>,
    added: Vec<Entry>,
}

impl Cache {
    /// Reads the cache in `dir`; it is empty if there is no directory or no usable file.
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

    /// Returns the result under this key.
    pub(super) fn get<T: DeserializeOwned>(&self, key: &Key) -> Option<T> {
        let entry = self.added.iter().chain(&self.stored).find(|entry| entry.key == *key)?;
        T::deserialize(&entry.value).ok()
    }

    /// Adds a result; [`Cache::save`] stores it.
    pub(super) fn put<T: Serialize>(&mut self, key: Key, value: &T) {
        match serde_json::to_value(value) {
            Ok(value) => {
                self.added.retain(|entry| !key.replaces(&entry.key));
                self.added.push(Entry { key, value });
            }
            Err(error) => tracing::debug!(%error, "a probe result cannot be cached"),
        }
    }

    /// Stores the added results, if there are any. A failure costs only time at the next launch.
    pub(super) fn save(self) {
        let Some(dir) = self.dir.filter(|_| !self.added.is_empty()) else { return };
        if let Err(error) = write(&dir, self.added) {
            tracing::debug!(dir = %dir.display(), %error, "probe results are not cached");
        }
    }
}

fn read(dir: &Path) -> io::Result<Vec<Entry>> {
    entries(&Dir::open(dir, Trust::WholePath)?)
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
    parse(&text)
}

/// Parses the content of the cache's file.
pub(super) fn parse(text: &[u8]) -> io::Result<Vec<Entry>> {
    let contents: Contents = serde_json::from_slice(text)?;
    if contents.version != VERSION {
        return Err(io::Error::other(format!("format version {}", contents.version)));
    }
    Ok(contents.entries)
}

/// Refuses a file or directory that belongs to another user or that another user may write.
fn check_owner(stat: &FileStat) -> io::Result<()> {
    let is_own = stat.st_uid == geteuid().as_raw();
    if is_own && stat.st_mode & 0o022 == 0 {
        return Ok(());
    }
    let reason = if is_own { "others may write it" } else { "it belongs to another user" };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

/// Adds entries to the file in `dir`, and makes the directory if it is missing.
///
/// Under `sudo`, HOME can still be the calling user's directory. A directory of root there would
/// prevent that user's own cache, and a symbolic link there could lead root to another place. So
/// nothing is made below another user's directory.
fn write(dir: &Path, added: Vec<Entry>) -> io::Result<()> {
    let dir = Dir::make(dir, Trust::WholePath, Modes::all(0o700))?;
    check_owner(&dir.stat()?)?;
    // The file is read again, because another process may have stored entries since.
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

    struct Setup(tempfile::TempDir);

    impl Setup {
        fn new() -> Self {
            let setup = Setup(tempfile::tempdir().unwrap());
            fs::write(setup.program(), b"\x7fELF and so on").unwrap();
            setup
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
    fn a_result_is_returned_until_the_programs_file_changes() {
        let setup = Setup::new();
        assert_eq!(setup.stored(), None);
        setup.store(setup.key(), "answer");
        assert_eq!(setup.stored().as_deref(), Some("answer"));
        let other = Key::new("other", &setup.program()).unwrap();
        assert_eq!(setup.open().get::<String>(&other), None, "another question");
        assert_eq!(setup.open().get::<u32>(&setup.key()), None, "another type");

        let link = setup.0.path().join("link");
        symlink(setup.program(), &link).unwrap();
        assert_eq!(Key::new("kind", &link).unwrap(), setup.key(), "the file counts, not the link");

        let file = OpenOptions::new().write(true).open(setup.program()).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_001))
            .unwrap();
        assert_eq!(setup.stored(), None, "modified");
        setup.store(setup.key(), "newer");
        assert_eq!(setup.stored().as_deref(), Some("newer"));
        assert_eq!(setup.open().stored.len(), 1, "the older answer is gone");
        fs::write(setup.program(), b"\x7fELF").unwrap();
        assert_eq!(setup.stored(), None, "another size");
    }

    #[test]
    fn a_result_for_a_script_is_not_cached() {
        let setup = Setup::new();
        for text in ["#!/bin/sh\nexec qemu\n", ""] {
            fs::write(setup.program(), text).unwrap();
            assert!(Key::new("kind", &setup.program()).is_err());
        }
    }

    #[test]
    fn a_damaged_cache_file_is_ignored_and_replaced() {
        for damage in [
            "",
            "{",
            "[]",
            "\0\0\0\0",
            r#"{"version":1}"#,
            r#"{"version":999,"entries":[]}"#,
            r#"{"version":1,"entries":[{"kind":1}]}"#,
        ] {
            let setup = Setup::new();
            setup.store(setup.key(), "answer");
            fs::write(setup.file(), damage).unwrap();
            assert_eq!(setup.stored(), None, "{damage}");
            setup.store(setup.key(), "again");
            assert_eq!(setup.stored().as_deref(), Some("again"), "{damage}");
        }
    }

    #[test]
    fn a_link_a_pipe_and_a_file_that_others_may_write_are_not_read() {
        let setup = Setup::new();
        setup.store(setup.key(), "answer");
        let elsewhere = setup.0.path().join("elsewhere");
        fs::rename(setup.file(), &elsewhere).unwrap();
        symlink(&elsewhere, setup.file()).unwrap();
        assert_eq!(setup.stored(), None, "a link");
        fs::remove_file(setup.file()).unwrap();
        nix::unistd::mkfifo(&setup.file(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(setup.stored(), None, "a pipe");
        fs::remove_file(setup.file()).unwrap();
        fs::copy(&elsewhere, setup.file()).unwrap();
        assert_eq!(setup.stored().as_deref(), Some("answer"));
        fs::set_permissions(setup.file(), Permissions::from_mode(0o666)).unwrap();
        assert_eq!(setup.stored(), None, "writable by all");
        if geteuid().is_root() {
            fs::set_permissions(setup.file(), Permissions::from_mode(0o600)).unwrap();
            chown(setup.file(), Some(65534), None).unwrap();
            assert_eq!(setup.stored(), None, "another user's");
            chown(setup.file(), Some(0), None).unwrap();
            chown(setup.dir(), Some(65534), None).unwrap();
            assert_eq!(setup.stored(), None, "in another user's directory");
            setup.store(setup.key(), "again");
            assert_eq!(fs::read_dir(setup.dir()).unwrap().count(), 1, "nothing written there");
        }
    }

    #[test]
    fn a_link_in_another_users_directory_is_not_followed() {
        if !geteuid().is_root() {
            eprintln!("skipped a_link_in_another_users_directory_is_not_followed: it needs root");
            return;
        }
        let setup = Setup::new();
        setup.store(setup.key(), "answer");
        let roots = setup.0.path().join("roots");
        let theirs = setup.0.path().join("theirs");
        fs::rename(setup.dir(), &roots).unwrap();
        fs::remove_file(roots.join(FILE)).unwrap();
        fs::create_dir(&theirs).unwrap();
        chown(&theirs, Some(54_321), Some(54_321)).unwrap();
        symlink(&roots, theirs.join("netlaunch")).unwrap();
        // Root owns the link, but another user owns its directory and could have moved it there.
        let mut cache = Cache::open(Some(&theirs.join("netlaunch")));
        cache.put(setup.key(), &"answer");
        cache.save();
        assert_eq!(fs::read_dir(&roots).unwrap().count(), 0, "nothing was written there");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_not_an_error() {
        let setup = Setup::new();
        for dir in [PathBuf::from("/proc/nothing/here"), setup.program().join("x")] {
            let mut cache = Cache::open(Some(&dir));
            cache.put(setup.key(), &"answer");
            cache.save();
        }
        let mut cache = Cache::open(None);
        cache.put(setup.key(), &"answer");
        assert_eq!(cache.get::<String>(&setup.key()).as_deref(), Some("answer"));
        cache.save();
    }

    #[test]
    fn the_file_has_a_limited_number_of_entries_and_mode_0600() {
        let setup = Setup::new();
        for n in 0..ENTRIES + 5 {
            setup.store(Key { kind: format!("kind{n}"), ..setup.key() }, "answer");
        }
        let kept = setup.open().stored;
        assert_eq!((kept.len(), kept[0].key.kind.as_str()), (ENTRIES, "kind5"));
        assert_eq!(fs::metadata(setup.file()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(setup.dir()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(setup.dir()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn writers_that_race_leave_a_valid_file() {
        let setup = Setup::new();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let setup = &setup;
                scope.spawn(move || {
                    for _ in 0..20 {
                        setup.store(Key { kind: format!("kind{n}"), ..setup.key() }, "answer");
                        assert!(read(&setup.dir()).is_ok());
                    }
                });
            }
        });
        assert!(!read(&setup.dir()).unwrap().is_empty());
    }
}
