//! The settings of a launcher that are not part of its request: directories, programs, variables.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::error::LaunchError;
use super::value_check::invalid;

/// The settings of a launcher that are not part of its request.
#[derive(Debug, Clone, Default)]
pub(super) struct LauncherSettings {
    /// The directory of launch directories, if not that of the environment.
    pub(super) state_dir: Option<PathBuf>,
    /// Whether the environment was read.
    pub(super) from_env: bool,
    /// The directory for the answers of probed programs, if not that of the environment.
    pub(super) cache_dir: Option<PathBuf>,
    /// passt, a path or a name to look up.
    pub(super) passt: Option<OsString>,
    /// The emulator to probe, where QEMU's program is a script.
    pub(super) emulator: Option<OsString>,
    /// More variables for QEMU and passt.
    pub(super) env: Vec<(OsString, OsString)>,
}

impl LauncherSettings {
    /// Checks the values that have no type of their own.
    pub(super) fn check(&self) -> Result<(), LaunchError> {
        let dirs = [("state directory", &self.state_dir), ("cache directory", &self.cache_dir)];
        for (what, dir) in dirs {
            if dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
                let why = "it is not an absolute path, and the working directory may change";
                return Err(invalid(what, why));
            }
        }
        for (name, value) in &self.env {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            if name.is_empty() || name.contains(&b'=') || name.contains(&0) {
                let why = "its name is empty, or holds a NUL byte or =";
                return Err(invalid("environment variable", why));
            }
            if value.contains(&0) {
                return Err(invalid("environment variable", "its value holds a NUL byte"));
            }
        }
        Ok(())
    }
}
