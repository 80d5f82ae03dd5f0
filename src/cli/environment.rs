//! Reads the environment: variables, user and directories.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::config::ConfigError;
use super::wrap::WRAPPERS;
use crate::launcher::probe::Prober;
use crate::launcher::{LaunchEnvironment, LaunchRoot};
use crate::sys::dir::{Dir, Trust, Untrusted};
use crate::sys::state_file::LOCK_LIMIT;

/// The environment of this process, as values to pass on.
#[derive(Debug, Clone)]
pub struct Environment {
    launch: LaunchEnvironment,
    /// How long another command may hold a lock, as the command line says.
    pub(super) lock_limit: Duration,
}

impl Environment {
    /// Reads it.
    pub fn read() -> Self {
        Environment { launch: LaunchEnvironment::read(), lock_limit: LOCK_LIMIT }
    }

    /// Returns whether root runs netlaunch.
    pub fn is_root(&self) -> bool {
        self.launch.is_root()
    }

    /// The configuration directory; `None` where an ordinary user has no home.
    ///
    /// # Errors
    /// [`ConfigError::Untrusted`] for a directory that is there and that another user can change.
    pub fn config_dir(&self) -> Result<Option<PathBuf>, ConfigError> {
        let Some(dir) = self.config_path() else { return Ok(None) };
        match Dir::open(&dir, Trust::WholePath) {
            Err(source) if Untrusted::in_error(&source).is_some() && dir.exists() => {
                Err(ConfigError::Untrusted { dir, source })
            }
            // The readers of its files report all other errors, and check the path again.
            _ => Ok(Some(dir)),
        }
    }

    fn config_path(&self) -> Option<PathBuf> {
        self.launch.own_dir("NETLAUNCH_CONFIG_DIR").or_else(|| {
            if self.is_root() {
                return Some("/etc/netlaunch".into());
            }
            let base = self.launch.xdg_dir("XDG_CONFIG_HOME");
            base.or_else(|| Some(self.launch.home()?.join(".config")))
                .map(|dir| dir.join("netlaunch"))
        })
    }

    /// Returns the directory in which launch directories are made.
    pub(crate) fn launch_root(&self) -> LaunchRoot {
        self.launch.launch_root()
    }

    /// Returns the directory with the state of networks: one for every user, since the host has one
    /// network.
    pub fn state_dir(&self) -> PathBuf {
        self.launch.own_dir("NETLAUNCH_STATE_DIR").unwrap_or_else(|| "/run/netlaunch".into())
    }

    /// Says at -v where a command reads definitions and states of networks and filters.
    pub(super) fn say_directories(&self, config_dir: &Path) {
        tracing::debug!(
            "definitions are read below {}, the state below {}",
            config_dir.display(),
            self.state_dir().display()
        );
    }

    /// The address of D-Bus's system bus (D-Bus specification, "Well-known Message Bus Instances").
    pub fn system_bus(&self) -> String {
        let set =
            self.launch.var("DBUS_SYSTEM_BUS_ADDRESS").map(|value| value.to_string_lossy().into());
        set.unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".into())
    }

    /// Returns the directory of temporary files.
    pub fn temporary_dir(&self) -> PathBuf {
        self.launch.temporary_dir()
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
        self.launch.path()
    }

    /// The service manager's socket, for readiness (sd_notify(3)).
    pub fn notify_socket(&self) -> Option<&OsStr> {
        self.launch.var("NOTIFY_SOCKET")
    }

    /// The user's editor, a command with its arguments as a shell writes them.
    pub fn editor(&self) -> &OsStr {
        self.launch.var("VISUAL").or_else(|| self.launch.var("EDITOR")).unwrap_or(OsStr::new("vi"))
    }

    /// The real program behind a stand-in for QEMU.
    pub fn real_qemu(&self) -> Option<&OsStr> {
        self.launch.var("NETLAUNCH_QEMU")
    }

    /// The log of stand-ins for QEMU.
    pub fn wrap_log(&self) -> Option<&OsStr> {
        self.launch.var("NETLAUNCH_WRAP_LOG")
    }

    /// A list of paths, such as PATH, with the default of a C library for an unset PATH.
    pub(super) fn paths(&self, name: &str) -> Vec<PathBuf> {
        let default = if name == "PATH" { "/usr/bin:/bin" } else { "" };
        let value = self.launch.var(name).unwrap_or(OsStr::new(default));
        if value.is_empty() { Vec::new() } else { std::env::split_paths(value).collect() }
    }

    /// The wrappers that led to a call as a stand-in.
    pub(super) fn wrappers(&self) -> Option<&OsStr> {
        self.launch.var(WRAPPERS)
    }

    /// All variables.
    pub(super) fn variables(&self) -> &[(OsString, OsString)] {
        &self.launch.vars
    }

    /// A prober for this environment.
    pub(crate) fn prober(&self) -> Prober {
        self.launch.prober()
    }

    /// The environment for QEMU and passt.
    pub fn for_children(&self) -> Vec<(OsString, OsString)> {
        self.launch.for_children()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(user: u32, vars: &[(&str, &str)]) -> Environment {
        let vars = vars.iter().map(|(n, v)| (n.into(), v.into())).collect();
        let launch = LaunchEnvironment { vars, user, current_dir: "/cwd".into() };
        Environment { launch, lock_limit: LOCK_LIMIT }
    }

    #[test]
    fn launch_roots() {
        for (user, vars, dir, shared_parent, own) in [
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
            assert_eq!(root, LaunchRoot { dir: dir.into(), shared_parent, own }, "{vars:?}");
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
            assert_eq!(
                environment(user, vars).prober().cache_dir,
                dir.map(PathBuf::from),
                "{vars:?}"
            );
        }
    }

    #[test]
    fn the_readiness_socket_is_not_passed_on() {
        let vars = environment(7, &[("NOTIFY_SOCKET", "/n"), ("A", "b")]).for_children();
        assert_eq!(vars, [("A".into(), "b".into())]);
    }
}
