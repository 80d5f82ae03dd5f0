//! The status file of a port that has a filter: `nwfilter/bindings/PORT.json` below the state
//! directory.
//!
//! In the file, the state of the port is three flags, of which most combinations cannot occur.
//! [`PortState`] is converted from and to these flags ([`super::status_file`]), so files of earlier
//! releases stay readable, and earlier releases can read these files.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::status_file::{StateFlags, StatusFile, is_false};
use crate::firewall::{FirewallBackend, PortHooks, PortRecord};
use crate::nwfilter::Binding;
use crate::sys::state_file::{self, StateFileError};
use crate::types::{InterfaceName, error_text};

/// The version of the file format.
pub(super) const VERSION: u32 = 1;

/// The end of the names of status files.
const SUFFIX: &str = ".json";

/// A port that has a filter, or whose bind or removal was interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StatusFile")]
#[non_exhaustive]
pub struct PortStatus {
    /// The version of the file format.
    pub version: u32,
    /// The name of the port.
    pub port: InterfaceName,
    /// The interface index. An interface with another index is not this port, even if it has the
    /// same name.
    pub index: u32,
    /// The bridge of the port at the time of the binding; an earlier netlaunch recorded none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<InterfaceName>,
    /// The hooks that see its frames, chosen when the filter was bound.
    #[serde(skip_serializing_if = "PortHooks::is_bridge")]
    pub hooks: PortHooks,
    /// The interface below a port without a bridge at the time of the binding; `None` if that
    /// interface is in another network namespace, and for a port of a bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower: Option<InterfaceName>,
    /// The binding, as XML.
    pub xml: String,
    /// Whether the rules of the filter are set.
    #[serde(flatten)]
    pub state: PortState,
    /// Whether netlaunch learns an address of the guest, which the binding does not set.
    pub learns: bool,
    /// Whether netlaunch learns the guest's IPv6 addresses.
    #[serde(skip_serializing_if = "is_false")]
    pub learns6: bool,
    /// Whether netlaunch learns only IPv6 addresses.
    #[serde(skip_serializing_if = "is_false")]
    pub only6: bool,
    /// The learned IPv4 address in the rules.
    pub address: Option<Ipv4Addr>,
    /// The learned IPv6 addresses in the rules, the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses6: Vec<Ipv6Addr>,
    /// The last refused address and the reason; `None` after another address was learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The last refused IPv6 address and the reason; `None` after another one was learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused6: Option<String>,
    /// The firewall backend that holds the rules.
    pub backend: FirewallBackend,
    /// Whether `nft monitor trace` shows its frames.
    pub trace: bool,
    /// Whether its rules have counters.
    pub counters: bool,
    /// The directory of the definitions of its rules; `None` if an earlier netlaunch did not record
    /// it.
    #[serde(serialize_with = "crate::types::os_text::optional_path::serialize")]
    pub definitions: Option<PathBuf>,
    /// The records that remove its rules. During a change, they remove the old and the new rules.
    pub recorded: Vec<PortRecord>,
    /// The name that its rules match, if the interface was renamed since. The file on disk still
    /// has that name as its port.
    #[serde(skip)]
    pub renamed_from: Option<InterfaceName>,
}

/// Whether the rules of a port's filter are set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "StateFlags")]
#[non_exhaustive]
pub enum PortState {
    /// A bind or a removal runs, or was interrupted.
    Changing {
        /// Whether netlaunch had turned off the port before the removal.
        off: bool,
    },
    /// The rules are set.
    Bound,
    /// The last rules could not be set for this reason. The port has its earlier rules.
    Failed(String),
    /// The last rules could not be set for this reason, and netlaunch turned off the port.
    Off(String),
}

impl PortStatus {
    /// Returns whether netlaunch learns the guest's IPv4 address.
    pub fn learns4(&self) -> bool {
        self.learns && !self.only6
    }

    /// Returns whether the port has its filter. Otherwise a bind or a removal was interrupted.
    pub(super) fn is_bound(&self) -> bool {
        !matches!(self.state, PortState::Changing { .. })
    }

    /// Returns whether netlaunch turned off the port.
    pub(super) fn is_off(&self) -> bool {
        matches!(self.state, PortState::Changing { off: true } | PortState::Off(_))
    }

    /// Returns why the last rules could not be set; `None` if they are set.
    pub fn failure(&self) -> Option<&str> {
        match &self.state {
            PortState::Failed(why) | PortState::Off(why) => Some(why),
            PortState::Changing { .. } | PortState::Bound => None,
        }
    }

    /// Parses the binding of this status.
    pub(super) fn binding(&self, dir: &Path) -> Result<Binding, StateFileError> {
        Binding::parse(self.xml.as_bytes()).map_err(|error| StateFileError::Damaged {
            path: path(dir, &self.port),
            what: error_text(&error),
        })
    }

    /// Writes the status file atomically.
    pub(super) fn write(&self, dir: &Path) -> Result<(), StateFileError> {
        state_file::write(&path(dir, &self.port), self)
    }

    /// Removes the status file.
    pub(super) fn remove(&self, dir: &Path) -> Result<(), StateFileError> {
        let path = path(dir, &self.port);
        state_file::remove(&path).map_err(StateFileError::io("remove", &path))
    }
}

pub(super) fn path(dir: &Path, port: &InterfaceName) -> PathBuf {
    dir.join(file_name(port))
}

/// Returns the name of the status file of a port.
pub(super) fn file_name(port: &InterfaceName) -> String {
    format!("{port}{SUFFIX}")
}

/// Returns whether this is the name of a status file.
pub(super) fn is_file_name(name: &OsStr) -> bool {
    name.as_bytes().ends_with(SUFFIX.as_bytes())
}

/// Reads the status file of one port as it is on disk; `None` if there is none.
///
/// # Errors
/// [`StateFileError`] if the file cannot be used.
pub(super) fn read(dir: &Path, port: &InterfaceName) -> Result<Option<PortStatus>, StateFileError> {
    state_file::read_version(&path(dir, port), VERSION)
}

/// A status file that cannot be used: damaged, not readable, or of a newer version. Only the name
/// of the file identifies the port.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Damaged {
    /// The port; `None` if the file's name is not the name of a port.
    pub port: Option<InterfaceName>,
    /// The path of the file.
    pub path: PathBuf,
    /// The reason why it cannot be used.
    pub error: Arc<StateFileError>,
}

/// Reads every status file in `dir`, by name, and the files that cannot be used.
///
/// # Errors
/// [`StateFileError`] if the directory cannot be read.
pub(super) fn all(dir: &Path) -> Result<(Vec<PortStatus>, Vec<Damaged>), StateFileError> {
    let (mut all, mut damaged) = (Vec::new(), Vec::new());
    for (name, read) in state_file::read_all::<PortStatus>(dir, VERSION, is_file_name)? {
        match read {
            Ok(status) => all.extend(status),
            Err(error) => {
                let port = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse().ok());
                damaged.push(Damaged { port, path: dir.join(&name), error: Arc::new(error) });
            }
        }
    }
    Ok((all, damaged))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn file(flags: &Value) -> Value {
        let mut file = json!({
            "version": 1, "port": "tap0", "index": 7, "xml": "<filterbinding/>", "learns": true,
            "address": null, "backend": "nftables", "trace": false, "counters": false,
            "definitions": null, "recorded": [],
        });
        for (name, value) in flags.as_object().unwrap() {
            file[name] = value.clone();
        }
        file
    }

    #[test]
    fn the_flags_of_a_status_file_are_read_and_written_as_one_state() {
        let flags = |complete: bool, failed: Option<&str>, turned_off: bool| json!({ "complete": complete, "failed": failed, "turned_off": turned_off });
        for (flags, state) in [
            (flags(true, None, false), PortState::Bound),
            (flags(true, Some("no"), false), PortState::Failed("no".to_owned())),
            (flags(true, Some("no"), true), PortState::Off("no".to_owned())),
            (flags(false, None, false), PortState::Changing { off: false }),
            (flags(false, None, true), PortState::Changing { off: true }),
        ] {
            let status: PortStatus = serde_json::from_value(file(&flags)).unwrap();
            assert_eq!(status.state, state);
            assert_eq!(serde_json::to_value(&status).unwrap(), file(&flags));
        }
        // Flags that a file of an earlier release lacks are false.
        let file = file(&json!({ "complete": true }));
        assert_eq!(serde_json::from_value::<PortStatus>(file).unwrap().state, PortState::Bound);
    }
}
