//! Finds a program, and gives the reason and the fix if it cannot be run.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use crate::sys::process::SpawnError;
use crate::types::facts::Problem;

/// The result of a search for a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// A file that this process may execute.
    Found(PathBuf),
    /// None of these directories has a program of that name.
    Missing(Vec<PathBuf>),
    /// This path does not exist.
    Absent(PathBuf),
    /// A file that this process may not execute.
    NotExecutable(PathBuf),
    /// A directory, or another object that is not a regular file.
    NotFile(PathBuf),
}

/// Returns the fix for a host that is short of a resource; `None` for other errors.
pub(crate) fn shortage(errno: Option<i32>) -> Option<&'static str> {
    match errno? {
        libc::EMFILE | libc::ENFILE => {
            Some("raise the limit of open files, such as by 'ulimit -n 1024'")
        }
        libc::EAGAIN | libc::ENOMEM => {
            Some("end other programs, or raise the limits that 'ulimit -a' shows")
        }
        libc::EFBIG => Some("raise the limit of files' sizes, such as by 'ulimit -f unlimited'"),
        _ => None,
    }
}

/// Returns the problem of a program that was found and could not be started. If the host is short
/// of a resource, the fix is about the host, not about the program.
pub(crate) fn not_run(path: &Path, error: &std::io::Error) -> Problem {
    let spawn = error.get_ref().and_then(|inner| inner.downcast_ref::<SpawnError>());
    let errno = spawn.map_or_else(|| error.raw_os_error(), SpawnError::errno);
    let fix = shortage(errno).unwrap_or("install it again");
    Problem::new(format!("{} cannot be run: {error}", path.display()), fix)
}

impl Lookup {
    /// Returns the program's path if the search found a program.
    pub fn found(self) -> Option<PathBuf> {
        match self {
            Lookup::Found(path) => Some(path),
            _ => None,
        }
    }

    /// Returns the path of an object with the name, even if it cannot be executed.
    pub fn existing_path(&self) -> Option<PathBuf> {
        match self {
            Lookup::Found(path) | Lookup::NotExecutable(path) | Lookup::NotFile(path) => {
                Some(path.clone())
            }
            Lookup::Missing(_) | Lookup::Absent(_) => None,
        }
    }

    /// Returns the reason why the program `name` cannot be run; `None` if it can.
    ///
    /// `install` is the fix for a program that is not installed.
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

/// Finds the program `name`.
///
/// A name with a `/` is a path. Any other name is looked up in the directories `dirs` in their
/// order, as execvp(3) does; an empty directory means the current one. The search skips directories
/// with that name. It returns a file without permission to execute it only if it finds no program.
/// The returned path may be a symbolic link to the program.
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

/// Finds the first of `names` that is a program. If there is none, returns the result for the first
/// name.
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

/// Examines `path`.
fn look(path: PathBuf) -> Lookup {
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Lookup::NotExecutable(path)
        }
        Err(_) => Lookup::Absent(path),
        Ok(meta) if !meta.is_file() => Lookup::NotFile(path),
        // With the effective ids, as in execve(2).
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
    fn a_name_is_looked_up_and_a_path_is_not() {
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
    fn the_first_name_that_is_a_program_is_found() {
        let tree = tree();
        let dirs = [tree.path().join("c")];
        let names = ["nothing", "tool", "folder"].map(OsStr::new);
        assert_eq!(find_first(&names, &dirs).found(), Some(dirs[0].join("tool")));
        assert_eq!(find_first(&names[..1], &dirs), Lookup::Missing(dirs.to_vec()));
    }

    #[test]
    fn every_problem_names_the_place() {
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
