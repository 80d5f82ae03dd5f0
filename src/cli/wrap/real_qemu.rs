//! Finds the real QEMU of a stand-in.
//!
//! `$NETLAUNCH_QEMU` names it, as a path or as a name to look up in PATH. Otherwise it is the first
//! program in PATH with the name of the call that is not netlaunch.
//!
//! A real program may be a script or another wrapper that calls QEMU by its name, and so comes back
//! to the stand-in. The stand-in passes the paths of such wrappers on in [`WRAPPERS`], and leaves
//! them out of its search. So each call of this kind has fewer programs left, and ends. A wrapper
//! that clears the environment is recognised if it is the parent process.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::own_copy::{Kind, kind};
use crate::sys::program::{Lookup, find};

/// The variable with the wrappers that led to this call, separated by colons. A colon or a
/// backslash in a path has a backslash before it.
pub(in crate::cli) const WRAPPERS: &str = "NETLAUNCH_WRAPPERS";

/// The real program of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RealQemu {
    /// Its path.
    pub(super) path: PathBuf,
    /// Whether it is a script or another wrapper.
    pub(super) is_wrapper: bool,
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
    /// The wrappers that led to this call.
    pub(super) wrappers: Vec<PathBuf>,
    /// The first words of the parent process, which is a wrapper if one of them is its path.
    pub(super) parent: Vec<OsString>,
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
        let named = self.named.filter(|named| !self.has_led_here(Path::new(named)));
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
                kind => Ok(RealQemu { path, is_wrapper: kind == Kind::Wrapper }),
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
                Lookup::Found(path) if !self.has_led_here(&path) => match kind(&path) {
                    Kind::Netlaunch => {}
                    kind => return Ok(RealQemu { path, is_wrapper: kind == Kind::Wrapper }),
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

    /// Returns whether `program`, a path or a name to look up in PATH, is a wrapper that led to
    /// this call.
    fn has_led_here(&self, program: &Path) -> bool {
        let is_path = program.as_os_str().as_bytes().contains(&b'/');
        let is = |wrapper: &Path| {
            wrapper == program || (!is_path && wrapper.file_name() == Some(program.as_os_str()))
        };
        self.wrappers.iter().any(|wrapper| is(wrapper))
            || (is_path && self.parent.iter().any(|word| word == program.as_os_str()))
    }

    /// Returns the value of [`WRAPPERS`] for a wrapper: the former ones and `path`.
    pub(super) fn wrappers_with(&self, path: &Path) -> OsString {
        let all = self.wrappers.iter().map(PathBuf::as_path).chain([path]);
        let mut value = Vec::new();
        for path in all {
            if !value.is_empty() {
                value.push(b':');
            }
            for byte in path.as_os_str().as_bytes() {
                if matches!(byte, b':' | b'\\') {
                    value.push(b'\\');
                }
                value.push(*byte);
            }
        }
        OsString::from_vec(value)
    }
}

/// Returns the paths in a value of [`WRAPPERS`].
pub(super) fn wrappers_in(value: &OsStr) -> Vec<PathBuf> {
    let mut paths = vec![Vec::new()];
    let mut bytes = value.as_bytes().iter();
    while let Some(byte) = bytes.next() {
        match (byte, paths.last_mut()) {
            (b'\\', Some(path)) => path.extend(bytes.next()),
            (b':', _) | (_, None) => paths.push(Vec::new()),
            (_, Some(path)) => path.push(*byte),
        }
    }
    let paths = paths.into_iter().filter(|path| !path.is_empty());
    paths.map(|path| PathBuf::from(OsString::from_vec(path))).collect()
}

/// Returns the first words of the parent process: an interpreter, its option, and a script.
pub(super) fn parents_words() -> Vec<OsString> {
    let words = fs::read(format!("/proc/{}/cmdline", nix::unistd::getppid())).unwrap_or_default();
    let words = words.split(|byte| *byte == 0).take(3);
    words.map(|word| OsString::from_vec(word.to_vec())).collect()
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
        Search { named, path, wrappers: Vec::new(), parent: Vec::new() }
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
    fn a_wrapper_that_led_to_the_call_is_left_out() {
        let tree = tree();
        let script = tree.path().join("c").join(NAME);
        for named in [None, Some(script.as_os_str())] {
            let mut search = search(&tree, "acd", named);
            let real = search.find(OsStr::new(NAME)).unwrap();
            assert_eq!((&real.path, real.is_wrapper), (&script, true));
            let value = search.wrappers_with(&real.path);
            search.wrappers = wrappers_in(&value);
            let real = search.find(OsStr::new(NAME)).unwrap();
            assert_eq!((real.path, real.is_wrapper), (tree.path().join("d").join(NAME), false));
        }
    }

    #[test]
    fn a_wrapper_is_left_out_if_it_was_named_without_a_directory_or_is_the_parent() {
        let tree = tree();
        let (name, real) = (OsStr::new(NAME), tree.path().join("d").join(NAME));
        let script = tree.path().join("c/my-qemu");
        std::fs::rename(tree.path().join("c").join(NAME), &script).unwrap();
        let mut by_name = search(&tree, "acd", Some(OsStr::new("my-qemu")));
        assert_eq!(by_name.find(name).unwrap().path, script);
        by_name.wrappers = vec![script.clone()];
        assert_eq!(by_name.find(name).unwrap().path, real);
        let mut by_path = search(&tree, "acd", Some(script.as_os_str()));
        by_path.parent = vec!["/bin/sh".into(), script.clone().into(), "-S".into()];
        assert_eq!(by_path.find(name).unwrap().path, real);
    }

    #[test]
    fn each_path_survives_the_list_of_wrappers() {
        let paths = ["/a", "/b:c", "/d\\e", "/:\\", "/\n"].map(PathBuf::from);
        let (last, first) = paths.split_last().unwrap();
        let search =
            Search { named: None, path: Vec::new(), wrappers: first.to_vec(), parent: Vec::new() };
        assert_eq!(wrappers_in(&search.wrappers_with(last)), paths);
        assert_eq!(wrappers_in(OsStr::new("")), Vec::<PathBuf>::new());
        assert_eq!(wrappers_in(OsStr::new("::/a\\")), [PathBuf::from("/a")]);
    }
}
