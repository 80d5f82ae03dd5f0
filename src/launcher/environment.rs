//! The environment variables of a launch, as values.
//!
//! Only this module and the command line read the environment, and only when the caller asks for
//! it. Each directory is checked before it is used: `su` without `-` and `sudo -E` leave root the
//! variables of another user, and a symbolic link of that user could lead root elsewhere.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::launch_dir::LaunchRoot;
use super::probe::Prober;
use crate::sys::dir::{Dir, Trust, Untrusted};

/// The environment of this process.
#[derive(Debug, Clone)]
pub(crate) struct LaunchEnvironment {
    pub(crate) vars: Vec<(OsString, OsString)>,
    pub(crate) user: u32,
    pub(crate) current_dir: PathBuf,
}

impl LaunchEnvironment {
    /// Reads it.
    pub(crate) fn read() -> Self {
        LaunchEnvironment {
            vars: std::env::vars_os().collect(),
            current_dir: std::env::current_dir().unwrap_or_else(|_| "/".into()),
            ..LaunchEnvironment::empty()
        }
    }

    /// An environment without variables, for a launch that reads none. `environ` is not touched:
    /// another thread of a C program may change it meanwhile.
    pub(crate) fn empty() -> Self {
        LaunchEnvironment { vars: Vec::new(), user: geteuid().as_raw(), current_dir: "/".into() }
    }

    /// Returns the value of a variable that is set and not empty.
    pub(crate) fn var(&self, name: &str) -> Option<&OsStr> {
        let (_, value) = self.vars.iter().find(|(n, _)| n == name)?;
        Some(value.as_os_str()).filter(|value| !value.is_empty())
    }

    /// Returns a directory that one of netlaunch's own variables names; a relative one starts at
    /// the current directory.
    pub(crate) fn own_dir(&self, name: &str) -> Option<PathBuf> {
        self.var(name).map(|value| self.current_dir.join(value))
    }

    /// Returns a directory that a variable of the XDG base directory specification names. The
    /// specification says that a relative one is invalid and to be ignored.
    pub(crate) fn xdg_dir(&self, name: &str) -> Option<PathBuf> {
        self.var(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.xdg_dir("HOME")
    }

    pub(crate) fn is_root(&self) -> bool {
        self.user == 0
    }

    /// Returns XDG_RUNTIME_DIR, or why it is not used: other users can change it.
    fn runtime_dir(&self) -> Option<io::Result<PathBuf>> {
        let path = self.xdg_dir("XDG_RUNTIME_DIR")?;
        Some(Dir::check_private(&path).map(|()| path))
    }

    /// Returns the directory in which launch directories are made.
    pub(crate) fn launch_root(&self) -> LaunchRoot {
        let own = |dir, shared_parent| LaunchRoot { dir, shared_parent, own: true };
        if let Some(dir) = self.own_dir("NETLAUNCH_STATE_DIR") {
            return LaunchRoot { dir, shared_parent: false, own: false };
        }
        let runtime = self.runtime_dir().map(|dir| {
            let root = own(dir?.join("netlaunch"), false);
            root.check_usable().map(|()| root)
        });
        match runtime {
            Some(Ok(root)) => return root,
            Some(Err(error)) => tracing::debug!("XDG_RUNTIME_DIR is not used: {error}"),
            None => {}
        }
        if self.is_root() {
            let root = own("/run/netlaunch".into(), false);
            match root.check_usable() {
                // Root of a user namespace may be no more than an ordinary user in /run.
                Err(error) if !Untrusted::is_in(&error) || !owns_host() => {
                    tracing::debug!("/run/netlaunch is not used: {error}");
                }
                _ => return root,
            }
        }
        let user = if self.is_root() { outer_user() } else { self.user };
        own(self.temporary_dir().join(format!("netlaunch-{user}")), true)
    }

    /// Returns the directory for temporary files: TMPDIR, unless other users can change what that
    /// path means.
    pub(crate) fn temporary_dir(&self) -> PathBuf {
        let Some(path) = self.xdg_dir("TMPDIR") else { return "/tmp".into() };
        match Dir::open(&path, Trust::WholePath) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::debug!("TMPDIR is not used: {error}");
                "/tmp".into()
            }
            // The program that makes a file there reports another error.
            _ => path,
        }
    }

    /// Returns the directories in which programs are looked up.
    pub(crate) fn path(&self) -> Vec<PathBuf> {
        let path = self.var("PATH").unwrap_or_else(|| OsStr::new("/usr/bin:/bin"));
        std::env::split_paths(path).filter(|dir| dir.is_absolute()).collect()
    }

    /// Returns the directory that keeps the answers of probed programs.
    pub(crate) fn cache_dir(&self) -> Option<PathBuf> {
        let base = self.xdg_dir("XDG_CACHE_HOME").or_else(|| {
            if self.is_root() {
                return Some("/var/cache".into());
            }
            Some(self.home()?.join(".cache"))
        });
        base.map(|dir| dir.join("netlaunch"))
    }

    /// Returns a prober for this environment.
    pub(crate) fn prober(&self) -> Prober {
        Prober {
            path: self.path(),
            cache_dir: self.cache_dir(),
            home: self.home(),
            runtime_dir: self.runtime_dir().and_then(Result::ok),
            root: self.is_root(),
            system: Path::new("/").to_owned(),
        }
    }

    /// Returns the environment for QEMU and passt: all variables but NOTIFY_SOCKET, since only this
    /// process reports readiness there.
    pub(crate) fn for_children(&self) -> Vec<(OsString, OsString)> {
        self.vars.iter().filter(|(name, _)| name != "NOTIFY_SOCKET").cloned().collect()
    }
}

/// Returns whether the user 0 of this user namespace owns `/`, as the host's root and that of a
/// container do.
fn owns_host() -> bool {
    std::fs::metadata("/").is_ok_and(|is| is.uid() == 0)
}

/// Returns the number that root of this user namespace has outside, or 0 if it is not known. Two
/// users' namespaces must not share a directory (user_namespaces(7), "uid_map": the first id
/// inside, then that outside).
fn outer_user() -> u32 {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let outer = map.lines().find_map(|line| {
        let mut numbers = line.split_ascii_whitespace();
        (numbers.next()? == "0").then(|| numbers.next()?.parse().ok()).flatten()
    });
    outer.unwrap_or(0)
}
