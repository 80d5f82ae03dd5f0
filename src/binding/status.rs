//! What is kept about a port that has a filter: `nwfilter/bindings/PORT.json` below the state
//! directory.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::BindingError;
use crate::firewall::{Backend, PortRecorded};
use crate::nwfilter::Binding;
use crate::state::{self, StatusError};
use crate::types::InterfaceName;

/// The version of this form.
pub(super) const VERSION: u32 = 1;

/// A port that has a filter, or whose change was cut short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of this form.
    pub version: u32,
    /// The port.
    pub port: InterfaceName,
    /// The interface's number. One that has another is not this port, whatever its name.
    pub index: u32,
    /// The binding, as XML.
    pub xml: String,
    /// Whether the filter is in force. `false` is a start or an end that was cut short.
    pub complete: bool,
    /// Whether the guest's address is learnt, because nobody said it.
    #[serde(default)]
    pub learns: bool,
    /// The learnt address that the rules are made with.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// Why the rules could not be made with what was learnt last.
    #[serde(default)]
    pub failed: Option<String>,
    /// Whether the port was turned off for that.
    #[serde(default)]
    pub turned_off: bool,
    /// The address that was refused last, and why; `None` once another was learnt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The backend that carries it out.
    pub backend: Backend,
    /// Whether its frames are shown by `nft monitor trace`.
    #[serde(default)]
    pub trace: bool,
    /// Whether its rules count.
    #[serde(default)]
    pub counters: bool,
    /// The directory of the definitions that its rules are made of; `None` is not known.
    #[serde(default)]
    pub definitions: Option<PathBuf>,
    /// What removes its rules. While they are changed, that of the old and the new ones.
    pub recorded: Vec<PortRecorded>,
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

    /// This status as one that cannot be used, because of `error`.
    pub(super) fn damaged(&self, dir: &Path, error: BindingError) -> Damaged {
        let path = path(dir, &self.port);
        let error = match error {
            BindingError::Status(error) => error,
            other => StatusError::Damaged { path: path.clone(), what: other.to_string() },
        };
        Damaged { port: Some(self.port.clone()), path, error: Arc::new(error) }
    }

    /// Writes it, whole or not at all.
    pub(super) fn write(&self, dir: &Path) -> Result<(), StatusError> {
        state::write(&path(dir, &self.port), self)
    }

    /// Removes it.
    pub(super) fn remove(&self, dir: &Path) -> Result<(), StatusError> {
        let path = path(dir, &self.port);
        state::remove(&path).map_err(StatusError::io("remove", &path))
    }
}

fn path(dir: &Path, port: &InterfaceName) -> PathBuf {
    dir.join(format!("{port}.json"))
}

/// A status that cannot be used: damaged, not readable, or of a newer version. It says which port it
/// is about by the name of its file alone.
#[derive(Debug, Clone)]
pub struct Damaged {
    /// The port; `None` where the file has the name of none.
    pub port: Option<InterfaceName>,
    /// The file.
    pub path: PathBuf,
    /// Why it cannot be used.
    pub error: Arc<StatusError>,
}

/// Every status in `dir`, by name, and those that cannot be used.
///
/// # Errors
/// [`StatusError`] when the directory cannot be read.
pub(super) fn all(dir: &Path) -> Result<(Vec<Status>, Vec<Damaged>), StatusError> {
    let (mut all, mut damaged) = (Vec::new(), Vec::new());
    for name in state::names(dir)? {
        let shown = name.to_string_lossy();
        let Some(port) = shown.strip_suffix(".json") else { continue };
        let path = dir.join(&name);
        match state::read_version::<Status>(&path, VERSION) {
            Ok(status) => all.extend(status),
            Err(error) => {
                damaged.push(Damaged { port: port.parse().ok(), path, error: Arc::new(error) });
            }
        }
    }
    Ok((all, damaged))
}
