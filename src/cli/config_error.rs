//! The errors of the settings files: netlaunch.conf, network.conf and nwfilter.conf.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::sys::program::shortage;

/// Returns the fix for a failed read. If the host lacks a resource, the file is not the cause.
fn advice(error: &io::Error) -> &'static str {
    shortage(error.raw_os_error()).unwrap_or("correct its permissions, or remove it")
}

/// Why a settings file cannot be used. The text is one line without `netlaunch: ` before it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file exists and cannot be read.
    #[error("{}: cannot be read: {source}; {}", path.display(), advice(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Another user can change files in the configuration directory.
    #[error(
        "the configuration directory {} is not safe: {source}; use one that you or root own and no other user can write, or set NETLAUNCH_CONFIG_DIR to such a one",
        dir.display()
    )]
    Untrusted {
        /// The directory.
        dir: PathBuf,
        /// The part of its path that is not safe, and the reason.
        source: io::Error,
    },
    /// The text of the file has a mistake.
    #[error("{}{mistake}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The mistake with its line and column.
        mistake: ConfigMistake,
    },
}

impl ConfigError {
    /// Returns the exit status: 2 for a mistake in the file, 125 if netlaunch cannot read the file.
    pub fn status(&self) -> u8 {
        match self {
            ConfigError::Read { .. } | ConfigError::Untrusted { .. } => 125,
            ConfigError::Content { .. } => 2,
        }
    }
}

/// A mistake in the text of a settings file, shown as `:LINE:COLUMN: what; fix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMistake {
    /// Line and column, both from 1, the column in characters; `None` if the parser gives no
    /// position.
    pub position: Option<(usize, usize)>,
    /// The mistake, and the correct text.
    pub what: String,
}

impl fmt::Display for ConfigMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for ConfigMistake {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_of_the_host_has_a_fix_of_its_own() {
        for (errno, fix) in [(libc::EMFILE, "ulimit -n"), (libc::EACCES, "correct its permissions")]
        {
            let source = io::Error::from_raw_os_error(errno);
            let said = ConfigError::Read { path: "/etc/x".into(), source }.to_string();
            assert!(said.contains(fix), "{said}");
            assert_eq!(said.contains("remove it"), errno == libc::EACCES, "{said}");
        }
    }
}
