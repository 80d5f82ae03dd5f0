//! `netlaunch wrap --install DIR [NAME...]`: puts stand-ins for QEMU into a directory.
//!
//! The first stand-in is a copy of netlaunch, and the others are hard links to it. So a program
//! that sees only this directory, as in the sandbox of a build tool, can execute each of them; a
//! symbolic link out of the directory would lead to nothing there. On a file system without hard
//! links each stand-in is a copy.
//!
//! A file that is not netlaunch is never replaced.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use super::super::environment::Environment;
use super::super::{Failure, print_text};
use super::call::is_qemu;
use super::own_copy::{Kind, OWN_PROGRAM, kind};
use super::real_qemu::Search;
use crate::sys::program::{Lookup, find};

/// Why stand-ins cannot be installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// A name that makes no stand-in.
    #[error(
        "{:?} is not the name of a QEMU: netlaunch stands in as qemu-system-*, qemu-kvm and kvm",
        .0.to_string_lossy()
    )]
    Name(OsString),
    /// There is no name, and no QEMU in PATH to take it from.
    #[error("no QEMU is in PATH; name the stand-ins, such as qemu-system-x86_64")]
    NoNames,
    /// The directory, or a file in it, cannot be made.
    #[error("{}: cannot be made: {source}; make the directory writable, or name another one", path.display())]
    Make {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl InstallError {
    /// Whether the mistake is the caller's.
    pub(in crate::cli) fn is_callers(&self) -> bool {
        matches!(self, InstallError::Name(_) | InstallError::NoNames)
    }
}

/// Installs the stand-ins and prints a line for each. Returns the exit status: 125 if a file with
/// such a name is not netlaunch.
pub(super) fn install(
    dir: &Path,
    names: &[OsString],
    environment: &Environment,
) -> Result<u8, Failure> {
    let search = super::search(environment);
    let mut names = match names {
        [] => names_in_path(&search.path),
        names => names.to_vec(),
    };
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    if let Some(wrong) = names.iter().find(|name| !is_qemu(name)) {
        return Err(InstallError::Name(wrong.clone()).into());
    }
    if names.is_empty() {
        return Err(InstallError::NoNames.into());
    }
    let make = |path: &Path| {
        let path = path.to_owned();
        move |source| InstallError::Make { path, source }
    };
    fs::create_dir_all(dir).map_err(make(dir))?;
    let mut first = None;
    let mut installed = Vec::new();
    let mut status = 0;
    for name in &names {
        let path = dir.join(name);
        let is_new = match fs::symlink_metadata(&path) {
            Ok(_) if kind(&path) == Kind::Netlaunch => false,
            Ok(_) => {
                status = super::super::failure::FAILED;
                tracing::error!(
                    "{} is another program and stays; remove it, or name another directory",
                    path.display()
                );
                continue;
            }
            Err(_) => true,
        };
        let form = put(dir, &path, first.as_deref(), is_new).map_err(make(&path))?;
        first.get_or_insert_with(|| path.clone());
        installed.push(name.clone());
        print_text(&report(&path, name, is_new, form, &search))?;
    }
    if let Some(hint) = path_hint(dir, &installed, &search.path) {
        print_text(&hint)?;
    }
    Ok(status)
}

/// Returns the line about the place of `dir` in PATH if a call of one of the installed stand-ins
/// does not find it there.
fn path_hint(dir: &Path, installed: &[OsString], path: &[PathBuf]) -> Option<String> {
    let same = |other: &Path| {
        other == dir
            || fs::canonicalize(other)
                .is_ok_and(|other| fs::canonicalize(dir).is_ok_and(|d| d == other))
    };
    let first = |name: &OsString| match find(name, path) {
        Lookup::Found(first) if !first.parent().is_some_and(same) => Some(first),
        _ => None,
    };
    let shown = dir.display();
    if !path.iter().any(|in_path| same(in_path)) {
        let line = format!("put {shown} before the other directories of PATH to use them\n");
        return (!installed.is_empty()).then_some(line);
    }
    let first = installed.iter().find_map(first)?;
    let before = first.parent().unwrap_or(&first).display();
    let first = first.display();
    Some(format!("put {shown} before {before} in PATH to use them: a call finds {first} first\n"))
}

/// Puts one stand-in to `path`, and returns its form in words.
fn put(dir: &Path, path: &Path, first: Option<&Path>, is_new: bool) -> io::Result<&'static str> {
    let linked = first.and_then(|first| link(first, dir).ok());
    let (new, form) = match linked {
        Some(new) => (new, "a hard link"),
        None => (copy(dir)?, "a copy"),
    };
    // A new name must not replace a file that another process has made meanwhile.
    let temporary = new.to_path_buf();
    let put = if is_new { new.persist_noclobber(path) } else { new.persist(path) };
    put.map_err(|error| error.error)?;
    // rename(2) does nothing if another installation has linked `path` to the same file meanwhile,
    // and then the temporary name is left.
    let _ = fs::remove_file(temporary);
    Ok(form)
}

/// Makes a hard link under a temporary name.
fn link(first: &Path, dir: &Path) -> io::Result<TempPath> {
    // The name is free, since the file that had it is removed.
    let name = NamedTempFile::with_prefix_in(".netlaunch-", dir)?.into_temp_path().to_owned();
    fs::hard_link(first, &name)?;
    TempPath::try_from_path(name)
}

/// Copies this program to a temporary name.
fn copy(dir: &Path) -> io::Result<TempPath> {
    let mut new = NamedTempFile::with_prefix_in(".netlaunch-", dir)?;
    io::copy(&mut File::open(OWN_PROGRAM)?, new.as_file_mut())?;
    new.as_file().set_permissions(Permissions::from_mode(0o755))?;
    Ok(new.into_temp_path())
}

/// Returns the line about a stand-in.
fn report(path: &Path, name: &OsStr, is_new: bool, form: &str, search: &Search<'_>) -> String {
    let done = if is_new { "made" } else { "updated" };
    let target = match search.find(name) {
        Ok(real) => format!("stands in for {}", real.path.display()),
        Err(error) => format!("has no real program yet: {error}"),
    };
    format!("{}: {done}, {form}; {target}\n", path.display())
}

/// Returns the names of the QEMUs in the directories `path`, sorted.
fn names_in_path(path: &[PathBuf]) -> Vec<OsString> {
    let entries = path.iter().filter_map(|dir| Some((dir, fs::read_dir(dir).ok()?)));
    let mut names: Vec<OsString> = entries
        .flat_map(|(dir, entries)| entries.flatten().map(move |entry| (dir, entry.file_name())))
        .filter(|(_, name)| is_qemu(name))
        .filter(|(dir, name)| match find(name, std::slice::from_ref(dir)) {
            Lookup::Found(path) => kind(&path) != Kind::Netlaunch,
            _ => false,
        })
        .map(|(_, name)| name)
        .collect();
    names.sort();
    names.dedup();
    names
}
