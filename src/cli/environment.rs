//! What the environment says: the one place where variables, user and directories are read.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;

use super::config::ConfigError;
use crate::dir::{Dir, Trust, Untrusted};
use crate::launch::LaunchRoot;
use crate::probe::Prober;
use crate::state::LOCK_LIMIT;

/// The environment of this process, as values to pass on.
#[derive(Debug, Clone)]
pub struct Environment {
    vars: Vec<(OsString, OsString)>,
    user: u32,
    current_dir: PathBuf,
    /// How long another command may hold a lock, as the command line says.
    pub(super) lock_limit: Duration,
}

impl Environment {
    /// Reads it.
    pub fn read() -> Self {
        Environment {
            vars: std::env::vars_os().collect(),
            user: geteuid().as_raw(),
            current_dir: std::env::current_dir().unwrap_or_else(|_| "/".into()),
            lock_limit: LOCK_LIMIT,
        }
    }

    fn var(&self, name: &str) -> Option<&OsStr> {
        let (_, value) = self.vars.iter().find(|(n, _)| n == name)?;
        Some(value.as_os_str()).filter(|value| !value.is_empty())
    }

    /// A directory named by one of our own variables; a relative one starts at the current
    /// directory.
    fn own_dir(&self, name: &str) -> Option<PathBuf> {
        self.var(name).map(|value| self.current_dir.join(value))
    }

    /// A directory named by a variable of the XDG base directory specification, which says that a
    /// relative one is invalid and to be ignored.
    fn xdg_dir(&self, name: &str) -> Option<PathBuf> {
        self.var(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    fn home(&self) -> Option<PathBuf> {
        self.xdg_dir("HOME")
    }

    /// Whether we are root.
    pub fn is_root(&self) -> bool {
        self.user == 0
    }

    /// The configuration directory; `None` where an ordinary user has no home.
    ///
    /// # Errors
    /// [`ConfigError::Untrusted`] for a directory that is there and that another user can change.
    pub fn config_dir(&self) -> Result<Option<PathBuf>, ConfigError> {
        let Some(dir) = self.config_path() else { return Ok(None) };
        match Dir::open(&dir, Trust::Way) {
            Err(source) if Untrusted::in_error(&source).is_some() && dir.exists() => {
                Err(ConfigError::Untrusted { dir, source })
            }
            // The readers of its files report all other errors, and check the way again.
            _ => Ok(Some(dir)),
        }
    }

    fn config_path(&self) -> Option<PathBuf> {
        self.own_dir("NETLAUNCH_CONFIG_DIR").or_else(|| {
            if self.is_root() {
                return Some("/etc/netlaunch".into());
            }
            let base = self.xdg_dir("XDG_CONFIG_HOME");
            base.or_else(|| Some(self.home()?.join(".config"))).map(|dir| dir.join("netlaunch"))
        })
    }

    /// XDG_RUNTIME_DIR, or why it is not used: `su` without `-` and `sudo -E` leave root that of
    /// another user, who could lead root elsewhere by a symbolic link.
    fn runtime_dir(&self) -> Option<io::Result<PathBuf>> {
        let path = self.xdg_dir("XDG_RUNTIME_DIR")?;
        Some(Dir::check_private(&path).map(|()| path))
    }

    /// Where launch directories are made.
    pub fn launch_root(&self) -> LaunchRoot {
        let ours = |dir, shared_parent| LaunchRoot { dir, shared_parent, ours: true };
        if let Some(dir) = self.own_dir("NETLAUNCH_STATE_DIR") {
            return LaunchRoot { dir, shared_parent: false, ours: false };
        }
        match self.runtime_dir() {
            Some(Ok(dir)) => return ours(dir.join("netlaunch"), false),
            Some(Err(error)) => tracing::debug!("XDG_RUNTIME_DIR is not used: {error}"),
            None => {}
        }
        if self.is_root() {
            return ours("/run/netlaunch".into(), false);
        }
        ours(self.temporary_dir().join(format!("netlaunch-{}", self.user)), true)
    }

    /// Where the state of networks is kept: one place for every user, since the host has one network.
    pub fn state_dir(&self) -> PathBuf {
        self.own_dir("NETLAUNCH_STATE_DIR").unwrap_or_else(|| "/run/netlaunch".into())
    }

    /// The address of D-Bus's system bus (D-Bus specification, "Well-known Message Bus Instances").
    pub fn system_bus(&self) -> String {
        let set = self.var("DBUS_SYSTEM_BUS_ADDRESS").map(|value| value.to_string_lossy().into());
        set.unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".into())
    }

    /// Where temporary files are made: TMPDIR, unless other users can change what that path means.
    pub fn temporary_dir(&self) -> PathBuf {
        let Some(path) = self.xdg_dir("TMPDIR") else { return "/tmp".into() };
        match Dir::open(&path, Trust::Way) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::debug!("TMPDIR is not used: {error}");
                "/tmp".into()
            }
            // Another error is that of the file which is to be made there.
            _ => path,
        }
    }

    /// This program itself.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn own_program(&self) -> std::io::Result<PathBuf> {
        std::env::current_exe()
    }

    /// The directories in which programs are looked up.
    pub fn path(&self) -> Vec<PathBuf> {
        let path = self.var("PATH").unwrap_or_else(|| OsStr::new("/usr/bin:/bin"));
        std::env::split_paths(path).filter(|dir| dir.is_absolute()).collect()
    }

    /// The service manager's socket, for readiness (sd_notify(3)).
    pub fn notify_socket(&self) -> Option<&OsStr> {
        self.var("NOTIFY_SOCKET")
    }

    /// The user's editor, a command with its arguments as a shell writes them.
    pub fn editor(&self) -> &OsStr {
        self.var("VISUAL").or_else(|| self.var("EDITOR")).unwrap_or(OsStr::new("vi"))
    }

    /// Where the answers of probed programs are kept.
    fn cache_dir(&self) -> Option<PathBuf> {
        let base = self.xdg_dir("XDG_CACHE_HOME").or_else(|| {
            if self.is_root() {
                return Some("/var/cache".into());
            }
            Some(self.home()?.join(".cache"))
        });
        base.map(|dir| dir.join("netlaunch"))
    }

    /// A prober for this environment.
    pub fn prober(&self) -> Prober {
        Prober {
            path: self.path(),
            cache_dir: self.cache_dir(),
            home: self.home(),
            runtime_dir: self.runtime_dir().and_then(Result::ok),
            root: self.is_root(),
            system: Path::new("/").to_owned(),
        }
    }

    /// The environment for QEMU and passt: ours, without the readiness socket that is ours alone.
    pub fn for_children(&self) -> Vec<(OsString, OsString)> {
        self.vars.iter().filter(|(name, _)| name != "NOTIFY_SOCKET").cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(user: u32, vars: &[(&str, &str)]) -> Environment {
        let vars = vars.iter().map(|(n, v)| (n.into(), v.into())).collect();
        Environment { vars, user, current_dir: "/cwd".into(), lock_limit: LOCK_LIMIT }
    }

    #[test]
    fn launch_roots() {
        for (user, vars, dir, shared_parent, ours) in [
            (0, &[][..], "/run/netlaunch", false, true),
            (7, &[], "/tmp/netlaunch-7", true, true),
            (7, &[("TMPDIR", "/t")], "/t/netlaunch-7", true, true),
            (7, &[("XDG_RUNTIME_DIR", "/nonexistent/7")], "/tmp/netlaunch-7", true, true),
            (0, &[("XDG_RUNTIME_DIR", "/nonexistent/0")], "/run/netlaunch", false, true),
            (7, &[("XDG_RUNTIME_DIR", "relative")], "/tmp/netlaunch-7", true, true),
            (7, &[("XDG_RUNTIME_DIR", "/r"), ("NETLAUNCH_STATE_DIR", "/s")], "/s", false, false),
            (7, &[("NETLAUNCH_STATE_DIR", "s")], "/cwd/s", false, false),
            (0, &[("NETLAUNCH_STATE_DIR", "")], "/run/netlaunch", false, true),
        ] {
            let root = environment(user, vars).launch_root();
            assert_eq!(root, LaunchRoot { dir: dir.into(), shared_parent, ours }, "{vars:?}");
        }
    }

    #[test]
    fn a_runtime_directory_is_used_only_if_it_is_private() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let place = tempfile::tempdir().unwrap();
        let real = place.path().join("real");
        std::fs::create_dir(&real).unwrap();
        symlink(&real, place.path().join("link")).unwrap();
        let root = |name: &str| {
            let dir = place.path().join(name);
            environment(0, &[("XDG_RUNTIME_DIR", dir.to_str().unwrap())]).launch_root().dir
        };
        for (mode, used) in [(0o700, true), (0o755, false), (0o770, false), (0o1777, false)] {
            std::fs::set_permissions(&real, std::fs::Permissions::from_mode(mode)).unwrap();
            let expected = if used { real.join("netlaunch") } else { "/run/netlaunch".into() };
            assert_eq!(root("real"), expected, "{mode:o}");
        }
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(root("link"), Path::new("/run/netlaunch"));
    }

    #[test]
    fn configuration_directories() {
        for (user, vars, dir) in [
            (0, &[("HOME", "/root"), ("XDG_CONFIG_HOME", "/x")][..], Some("/etc/netlaunch")),
            (7, &[("HOME", "/h")], Some("/h/.config/netlaunch")),
            (7, &[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")], Some("/x/netlaunch")),
            (7, &[], None),
            (7, &[("NETLAUNCH_CONFIG_DIR", "/c")], Some("/c")),
        ] {
            assert_eq!(
                environment(user, vars).config_dir().unwrap(),
                dir.map(PathBuf::from),
                "{vars:?}"
            );
        }
    }

    #[test]
    fn states_of_networks() {
        for (user, vars, dir) in [
            (0, &[("XDG_RUNTIME_DIR", "/run/user/0")][..], "/run/netlaunch"),
            (7, &[], "/run/netlaunch"),
            (7, &[("NETLAUNCH_STATE_DIR", "s")], "/cwd/s"),
        ] {
            assert_eq!(environment(user, vars).state_dir(), PathBuf::from(dir), "{vars:?}");
        }
    }

    #[test]
    fn system_buses() {
        for (vars, address) in [
            (&[][..], "unix:path=/run/dbus/system_bus_socket"),
            (&[("DBUS_SYSTEM_BUS_ADDRESS", "")], "unix:path=/run/dbus/system_bus_socket"),
            (&[("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/b")], "unix:path=/b"),
        ] {
            assert_eq!(environment(7, vars).system_bus(), address, "{vars:?}");
        }
    }

    #[test]
    fn editors() {
        for (vars, editor) in [
            (&[("VISUAL", "a -b"), ("EDITOR", "c")][..], "a -b"),
            (&[("VISUAL", ""), ("EDITOR", "c")], "c"),
            (&[], "vi"),
        ] {
            assert_eq!(environment(7, vars).editor(), editor, "{vars:?}");
        }
    }

    #[test]
    fn caches() {
        for (user, vars, dir) in [
            (0, &[("HOME", "/root")][..], Some("/var/cache/netlaunch")),
            (0, &[("XDG_CACHE_HOME", "/c")], Some("/c/netlaunch")),
            (7, &[("HOME", "/h")], Some("/h/.cache/netlaunch")),
            (7, &[], None),
        ] {
            assert_eq!(environment(user, vars).cache_dir(), dir.map(PathBuf::from), "{vars:?}");
        }
    }

    #[test]
    fn the_readiness_socket_is_not_passed_on() {
        let vars = environment(7, &[("NOTIFY_SOCKET", "/n"), ("A", "b")]).for_children();
        assert_eq!(vars, [("A".into(), "b".into())]);
    }
}
