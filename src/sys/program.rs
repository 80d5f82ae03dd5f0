//! Finding a program, and saying what is in the way when it cannot be run.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use crate::facts::Problem;

/// What a search for a program gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// A file that this process may execute.
    Found(PathBuf),
    /// No program of that name in any of these directories.
    Missing(Vec<PathBuf>),
    /// There is nothing at this path.
    Absent(PathBuf),
    /// A file that this process may not execute.
    NotExecutable(PathBuf),
    /// A directory, or something else that is not a file.
    NotFile(PathBuf),
}

impl Lookup {
    /// The program's path, where there is a program.
    pub fn found(self) -> Option<PathBuf> {
        match self {
            Lookup::Found(path) => Some(path),
            _ => None,
        }
    }

    /// Where the program is, though it may not be one that can be run.
    pub fn place(&self) -> Option<PathBuf> {
        match self {
            Lookup::Found(path) | Lookup::NotExecutable(path) | Lookup::NotFile(path) => {
                Some(path.clone())
            }
            Lookup::Missing(_) | Lookup::Absent(_) => None,
        }
    }

    /// Why the program `name` cannot be run; nothing where it can.
    ///
    /// `install` is what to do where it is not installed.
    pub fn problem(&self, name: &OsStr, install: &str) -> Option<Problem> {
        let name = name.display();
        match self {
            Lookup::Found(_) => None,
            Lookup::Missing(dirs) if dirs.is_empty() => {
                Some(Problem::new(format!("{name} cannot be looked for: PATH is empty"), install))
            }
            Lookup::Missing(dirs) => {
                let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
                let why = format!("{name} is not installed (looked in {})", dirs.join(", "));
                Some(Problem::new(why, install))
            }
            Lookup::Absent(path) => Some(Problem::new(
                format!("{} does not exist", path.display()),
                format!("correct the path, or {install}"),
            )),
            Lookup::NotExecutable(path) => Some(Problem::new(
                format!("{} is not executable by this user", path.display()),
                "change its permissions, or name another program",
            )),
            Lookup::NotFile(path) => Some(Problem::new(
                format!("{} is not a program but a directory or the like", path.display()),
                "name the program itself",
            )),
        }
    }
}

/// Finds the program `name`: a name with a `/` is a path and taken as it is, any other is looked up
/// in the directories `dirs` in order, as execvp(3) does (an empty one is the current directory).
///
/// A directory of that name is passed over in the search, and so is a file without the permission
/// to execute it, unless nothing better is found. Symbolic links are followed but not resolved.
pub fn find(name: &OsStr, dirs: &[PathBuf]) -> Lookup {
    if name.as_bytes().contains(&b'/') {
        return look(PathBuf::from(name));
    }
    let mut second_best = None;
    for dir in dirs {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        match look(dir.join(name)) {
            Lookup::Found(path) => return Lookup::Found(path),
            found @ Lookup::NotExecutable(_) => {
                second_best.get_or_insert(found);
            }
            _ => {}
        }
    }
    second_best.unwrap_or_else(|| Lookup::Missing(dirs.to_vec()))
}

/// The first of `names` that is a program here; the answer for the first name where none is.
pub fn find_first(names: &[&OsStr], dirs: &[PathBuf]) -> Lookup {
    let mut first = None;
    for name in names {
        match find(name, dirs) {
            found @ Lookup::Found(_) => return found,
            other => {
                first.get_or_insert(other);
            }
        }
    }
    first.unwrap_or_else(|| Lookup::Missing(dirs.to_vec()))
}

/// What is at `path`.
fn look(path: PathBuf) -> Lookup {
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Lookup::NotExecutable(path)
        }
        Err(_) => Lookup::Absent(path),
        Ok(meta) if !meta.is_file() => Lookup::NotFile(path),
        // By the effective ids, as execve(2) checks.
        Ok(_) => match faccessat(AT_FDCWD, &path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
            Ok(()) => Lookup::Found(path),
            Err(_) => Lookup::NotExecutable(path),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for dir in ["a", "b", "c", "b/folder"] {
            create_dir(tree.path().join(dir)).unwrap();
        }
        for (file, mode) in [
            ("a/tool", 0o644),
            ("b/tool", 0o755),
            ("c/tool", 0o755),
            ("c/folder", 0o755),
            ("a/text", 0o600),
        ] {
            let file = tree.path().join(file);
            write(&file, "").unwrap();
            set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        }
        tree
    }

    #[test]
    fn names_are_looked_up_and_paths_are_not() {
        let tree = tree();
        let at = |name: &str| tree.path().join(name);
        let dirs = ["a", "b", "c", "none"].map(at);
        for (name, expected) in [
            ("tool", Lookup::Found(at("b/tool"))),
            ("folder", Lookup::Found(at("c/folder"))),
            ("text", Lookup::NotExecutable(at("a/text"))),
            ("nothing", Lookup::Missing(dirs.to_vec())),
        ] {
            assert_eq!(find(OsStr::new(name), &dirs), expected);
        }
        for (path, expected) in [
            (at("c/tool"), Lookup::Found(at("c/tool"))),
            (at("a/tool"), Lookup::NotExecutable(at("a/tool"))),
            (at("b/folder"), Lookup::NotFile(at("b/folder"))),
            (at("b/none"), Lookup::Absent(at("b/none"))),
        ] {
            assert_eq!(find(path.as_os_str(), &dirs), expected);
        }
    }

    #[test]
    fn the_first_name_that_is_there_is_taken() {
        let tree = tree();
        let dirs = [tree.path().join("c")];
        let names = ["nothing", "tool", "folder"].map(OsStr::new);
        assert_eq!(find_first(&names, &dirs).found(), Some(dirs[0].join("tool")));
        assert_eq!(find_first(&names[..1], &dirs), Lookup::Missing(dirs.to_vec()));
    }

    #[test]
    fn every_problem_says_where() {
        let name = OsStr::new("passt");
        let (one, two) = (PathBuf::from("/a"), PathBuf::from("/b"));
        for (lookup, why) in [
            (Lookup::Missing(vec![one.clone(), two]), "passt is not installed (looked in /a, /b)"),
            (Lookup::Missing(vec![]), "passt cannot be looked for: PATH is empty"),
            (Lookup::Absent(one.clone()), "/a does not exist"),
            (Lookup::NotExecutable(one.clone()), "/a is not executable by this user"),
            (Lookup::NotFile(one.clone()), "/a is not a program but a directory or the like"),
        ] {
            let problem = lookup.problem(name, "install it").unwrap();
            assert_eq!(problem.why, why);
            assert!(!problem.fix.is_empty());
        }
        assert_eq!(Lookup::Found(one).problem(name, "install it"), None);
    }
}
