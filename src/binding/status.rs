//! What is kept about a port that has a filter: `nwfilter/bindings/PORT.json` below the state
//! directory.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

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

/// Every status in `dir`, by name.
pub(super) fn all(dir: &Path) -> Result<Vec<Status>, StatusError> {
    let names = state::names(dir)?;
    let is_status = |name: &&OsString| {
        let shown = name.to_string_lossy();
        shown.ends_with(".json")
    };
    let read = |name: &OsString| {
        let path = dir.join(name);
        let status = state::read::<Status>(&path)?;
        match status {
            Some(status) if status.version != VERSION => {
                let what =
                    format!("its version is {}, this netlaunch knows {VERSION}", status.version);
                Err(StatusError::Damaged { path, what })
            }
            status => Ok(status),
        }
    };
    names.iter().filter(is_status).filter_map(|name| read(name).transpose()).collect()
}
