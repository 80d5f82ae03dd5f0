//! What is kept about a port that has a filter: `nwfilter/bindings/PORT.json` below the state
//! directory.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::firewall::{Backend, PortRecorded};
use crate::nwfilter::Binding;
use crate::types::InterfaceName;

/// A port that has a filter, or whose change was cut short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of this form, 1.
    pub version: u32,
    /// The port.
    pub port: InterfaceName,
    /// The interface's number. One that has another is not this port, whatever its name.
    pub index: u32,
    /// The binding, as XML.
    pub xml: String,
    /// Whether the filter is in force.
    pub complete: bool,
    /// The backend that carries it out.
    pub backend: Backend,
    /// What removes its rules. While they are changed, that of the old and the new ones.
    pub recorded: Vec<PortRecorded>,
}

/// Why a status cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// A file.
    #[error("cannot {what} {}: {source}; check the directory's permissions and free space", path.display())]
    Io {
        /// "read", "write" or "remove".
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is not what netlaunch writes.
    #[error("{} is damaged: {what}; remove it, and by hand the rules of that port", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl Status {
    /// The binding it was made for.
    ///
    /// # Errors
    /// [`StatusError::Damaged`].
    pub fn binding(&self, dir: &Path) -> Result<Binding, StatusError> {
        Binding::parse(self.xml.as_bytes()).map_err(|error| StatusError::Damaged {
            path: path(dir, &self.port),
            what: error.to_string(),
        })
    }

    /// Writes it, whole or not at all.
    pub(super) fn write(&self, dir: &Path) -> Result<(), StatusError> {
        let path = path(dir, &self.port);
        let text = serde_json::to_vec(self).map_err(io::Error::other);
        let written = text.and_then(|text| {
            fs::create_dir_all(dir)?;
            let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(dir)?;
            file.write_all(&text)?;
            // Everyone may know what runs.
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
            file.persist(&path)?;
            Ok(())
        });
        written.map_err(|source| StatusError::Io { what: "write", path, source })
    }

    /// Removes it.
    pub(super) fn remove(&self, dir: &Path) -> Result<(), StatusError> {
        let path = path(dir, &self.port);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StatusError::Io { what: "remove", path, source })
            }
            _ => Ok(()),
        }
    }
}

/// What the names of files start with that are not complete yet.
const UNFINISHED: &str = ".new-";

fn path(dir: &Path, port: &InterfaceName) -> PathBuf {
    dir.join(format!("{port}.json"))
}

/// Every status in `dir`, by name.
pub(super) fn all(dir: &Path) -> Result<Vec<Status>, StatusError> {
    let io = |source| StatusError::Io { what: "read", path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(io(source)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let name = entry.map_err(io)?.file_name();
        let shown = name.to_string_lossy();
        if shown.ends_with(".json") && !shown.starts_with(UNFINISHED) {
            paths.push(dir.join(name));
        }
    }
    paths.sort();
    paths.iter().filter_map(|path| read(path).transpose()).collect()
}

fn read(path: &Path) -> Result<Option<Status>, StatusError> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| StatusError::Damaged {
            path: path.to_owned(),
            what: error.to_string(),
        }),
        // Another command may just have ended it.
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StatusError::Io { what: "read", path: path.to_owned(), source }),
    }
}
