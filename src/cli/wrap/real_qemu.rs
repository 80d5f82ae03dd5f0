//! Finds the real QEMU of a stand-in.
//!
//! `$NETLAUNCH_QEMU` names it, as a path or as a name to look up in PATH. Otherwise it is the first
//! program in PATH with the name of the call that is not netlaunch.
//!
//! A real program may be a script that calls QEMU by its name, and so comes back to the stand-in.
//! The stand-in passes the paths of such scripts on in [`SCRIPTS`], and leaves them out of its
//! search. So each call of this kind has fewer programs left, and ends.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::own_copy::{Kind, kind};
use crate::sys::program::{Lookup, find};

/// The variable with the scripts that led to this call, as in PATH.
pub(super) const SCRIPTS: &str = "NETLAUNCH_WRAP_SCRIPTS";

/// The real program of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RealQemu {
    /// Its path.
    pub(super) path: PathBuf,
    /// Whether it is a script.
    pub(super) is_script: bool,
}

/// Why there is no real program. The text is one line, with the fix.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RealQemuError {
    /// No directory of PATH has it.
    #[error(
        "no {} besides netlaunch itself is in PATH; install QEMU, or set NETLAUNCH_QEMU to the real program",
        .0.display()
    )]
    Missing(OsString),
    /// The named program does not exist.
    #[error("{} does not exist; correct that path of QEMU, or NETLAUNCH_QEMU", .0.display())]
    Absent(PathBuf),
    /// This user may not execute it.
    #[error("{} is not a program that this user can execute; change its permissions, or set NETLAUNCH_QEMU to another program", .0.display())]
    NotExecutable(PathBuf),
    /// The program of `$NETLAUNCH_QEMU` is netlaunch.
    #[error("NETLAUNCH_QEMU: {} is netlaunch itself; set it to the real program", .0.display())]
    Itself(PathBuf),
}

impl RealQemuError {
    /// Returns the exit status that a shell gives: 127 for a missing program, 126 for one that
    /// cannot be executed.
    pub(super) fn status(&self) -> u8 {
        match self {
            RealQemuError::Missing(_) | RealQemuError::Absent(_) => 127,
            RealQemuError::NotExecutable(_) | RealQemuError::Itself(_) => 126,
        }
    }
}

/// The values of the environment that a search needs.
#[derive(Debug, Clone)]
pub(super) struct Search<'a> {
    /// `$NETLAUNCH_QEMU`.
    pub(super) named: Option<&'a OsStr>,
    /// The directories of PATH. An empty one is the current directory.
    pub(super) path: Vec<PathBuf>,
    /// The scripts that led to this call.
    pub(super) scripts: Vec<PathBuf>,
}

impl Search<'_> {
    /// Finds the real program of a call as `name`. A name with a `/` is the program itself, unless
    /// it is netlaunch.
    pub(super) fn find(&self, name: &OsStr) -> Result<RealQemu, RealQemuError> {
        let mut name = name;
        if name.as_bytes().contains(&b'/') {
            match self.at_path(Path::new(name)) {
                Err(RealQemuError::Itself(_)) => name = Path::new(name).file_name().unwrap_or(name),
                other => return other,
            }
        }
        let named = self.named.filter(|named| !self.scripts.iter().any(|script| script == named));
        match named {
            Some(named) if named.as_bytes().contains(&b'/') => self.at_path(Path::new(named)),
            Some(named) => self.in_path(named),
            None => self.in_path(name),
        }
    }

    fn at_path(&self, path: &Path) -> Result<RealQemu, RealQemuError> {
        match find(path.as_os_str(), &[]) {
            Lookup::Found(path) => match kind(&path) {
                Kind::Netlaunch => Err(RealQemuError::Itself(path)),
                kind => Ok(RealQemu { path, is_script: kind == Kind::Script }),
            },
            other => match other.existing_path() {
                Some(place) => Err(RealQemuError::NotExecutable(place)),
                None => Err(RealQemuError::Absent(path.to_owned())),
            },
        }
    }

    fn in_path(&self, name: &OsStr) -> Result<RealQemu, RealQemuError> {
        let mut not_executable = None;
        for dir in &self.path {
            match find(name, std::slice::from_ref(dir)) {
                Lookup::Found(path) if !self.scripts.contains(&path) => match kind(&path) {
                    Kind::Netlaunch => {}
                    kind => return Ok(RealQemu { path, is_script: kind == Kind::Script }),
                },
                Lookup::NotExecutable(path) => {
                    not_executable.get_or_insert(path);
                }
                _ => {}
            }
        }
        Err(match not_executable {
            Some(path) => RealQemuError::NotExecutable(path),
            None => RealQemuError::Missing(name.to_owned()),
        })
    }

    /// Returns the value of [`SCRIPTS`] for a script: the former ones and `path`. It is `None` for
    /// a path that such a list cannot have.
    pub(super) fn scripts_with(&self, path: &Path) -> Option<OsString> {
        let all = self.scripts.iter().map(PathBuf::as_path).chain([path]);
        std::env::join_paths(all).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::own_copy::OWN_PROGRAM;
    use super::*;
    use std::fs::{create_dir, hard_link, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    const NAME: &str = "qemu-system-x86_64";

    /// Makes the directories a (netlaunch by a link), b (not executable), c (a script) and d.
    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for (dir, content, mode) in [
            ("b", "x", 0o644),
            ("c", "#!/bin/sh\nexec qemu-system-x86_64\n", 0o755),
            ("d", "x", 0o755),
        ] {
            create_dir(tree.path().join(dir)).unwrap();
            let file = tree.path().join(dir).join(NAME);
            write(&file, content).unwrap();
            set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        create_dir(tree.path().join("a")).unwrap();
        symlink(OWN_PROGRAM, tree.path().join("a").join(NAME)).unwrap();
        tree
    }

    fn search<'a>(tree: &tempfile::TempDir, dirs: &str, named: Option<&'a OsStr>) -> Search<'a> {
        let path = dirs.chars().map(|dir| tree.path().join(dir.to_string())).collect();
        Search { named, path, scripts: Vec::new() }
    }

    #[test]
    fn the_first_program_of_that_name_that_is_not_netlaunch_is_found() {
        let tree = tree();
        let at = |dir: &str| tree.path().join(dir).join(NAME);
        let name = OsStr::new(NAME);
        for (dirs, expected) in [
            ("abdc", Ok(at("d"))),
            ("acd", Ok(at("c"))),
            ("a", Err(RealQemuError::Missing(name.to_owned()))),
            ("ab", Err(RealQemuError::NotExecutable(at("b")))),
            ("", Err(RealQemuError::Missing(name.to_owned()))),
        ] {
            let found = search(&tree, dirs, None).find(name).map(|real| real.path);
            assert_eq!(found, expected, "{dirs}");
        }
        hard_link(at("d"), tree.path().join("d/other")).unwrap();
        let found = search(&tree, "ad", Some(OsStr::new("other"))).find(name).unwrap();
        assert_eq!(found.path, tree.path().join("d/other"));
    }

    #[test]
    fn the_named_program_must_exist_and_must_not_be_netlaunch() {
        let tree = tree();
        let at = |dir: &str| tree.path().join(dir).join(NAME);
        for (path, status) in [
            (at("a"), RealQemuError::Itself(at("a"))),
            (at("b"), RealQemuError::NotExecutable(at("b"))),
            (at("e"), RealQemuError::Absent(at("e"))),
        ] {
            let found = search(&tree, "d", Some(path.as_os_str())).find(OsStr::new(NAME));
            assert_eq!(found, Err(status));
        }
        let at_d = search(&tree, "a", None).find(at("d").as_os_str()).unwrap();
        assert_eq!(at_d.path, at("d"));
        let by_name = search(&tree, "ad", None).find(at("a").as_os_str()).unwrap();
        assert_eq!(by_name.path, at("d"));
        assert_eq!(RealQemuError::Absent(at("e")).status(), 127);
        assert_eq!(RealQemuError::Itself(at("a")).status(), 126);
    }

    #[test]
    fn a_script_that_led_to_the_call_is_left_out() {
        let tree = tree();
        let script = tree.path().join("c").join(NAME);
        for named in [None, Some(script.as_os_str())] {
            let mut search = search(&tree, "acd", named);
            let real = search.find(OsStr::new(NAME)).unwrap();
            assert_eq!((&real.path, real.is_script), (&script, true));
            let scripts = search.scripts_with(&real.path).unwrap();
            search.scripts = std::env::split_paths(&scripts).collect();
            let real = search.find(OsStr::new(NAME)).unwrap();
            assert_eq!((real.path, real.is_script), (tree.path().join("d").join(NAME), false));
        }
    }
}
