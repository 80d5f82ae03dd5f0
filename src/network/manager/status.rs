//! The status file of a running network, `status.json` in its directory.
//!
//! The file holds the definition and the records that undo each step, in a format that later
//! versions read too; so the names of its fields never change. It is replaced atomically, and
//! on a full file system in the reserved space of `space_reserve`. Only the command that holds
//! the lock writes it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::live::PendingChange;
use super::namespace::{NetworkLocation, NetworkNamespace};
use super::published::PublishedGuest;
use super::{parse, space_reserve};
use crate::firewall::{FirewallBackend, RemovalRecord, ZoneChange};
use crate::network::dnsmasq::{self, Files};
use crate::network::{Network, NetworkName, to_xml};
use crate::sys::netlink::Undo;
use crate::sys::netlink::sysctl::SettingChange;
use crate::sys::state_file::{self, StateFileError};
use crate::types::{InterfaceName, Uuid};

/// The version of the file format.
const VERSION: u32 = 1;

/// The name of the status file in the network's directory.
const FILE: &str = "status.json";
/// The name of the file that reserves disk space for the next status file.
const SPARE: &str = "status.spare";

/// A network that runs, or whose start was interrupted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkStatus {
    /// The version of the file format, 1.
    pub version: u32,
    /// The name of the network.
    pub name: NetworkName,
    /// The UUID of the network.
    pub uuid: Uuid,
    /// The bridge of the network.
    pub bridge: InterfaceName,
    /// The firewall backend; `None` for a network without rules.
    pub backend: Option<FirewallBackend>,
    /// Whether every step of the start was done.
    pub complete: bool,
    /// The definition that the network was started with, as XML.
    pub xml: String,
    /// The records that undo its links, addresses and routes, in the order of the start.
    pub links: Vec<Undo>,
    /// The firewalld zone that the start put the bridge into.
    #[serde(default)]
    pub zone: Option<ZoneChange>,
    /// The kernel settings that the start changed.
    pub settings: Vec<SettingChange>,
    /// The record that removes its rules.
    pub firewall: Option<RemovalRecord>,
    /// The records that remove its old rules while a reload replaces them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<RemovalRecord>,
    /// The guests whose ports are published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<PublishedGuest>,
    /// Whether a change of the published ports is in flight. The rules may then be those of before
    /// or after the change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub publishing: bool,
    /// Whether it has a dnsmasq process.
    pub dnsmasq: bool,
    /// The record that identifies this dnsmasq; an earlier netlaunch recorded none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<dnsmasq::Record>,
    /// The change of the running network that is not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<PendingChange>,
    /// The network namespace of its start; an earlier netlaunch recorded none.
    #[serde(rename = "place", default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<NetworkNamespace>,
    /// The directory of the status file.
    #[serde(with = "crate::types::os_text::path")]
    pub dir: PathBuf,
}

/// Returns the error for a definition in a status file that cannot be read any more.
pub(super) fn broken(dir: &Path) -> StateFileError {
    StateFileError::Damaged { path: dir.join(FILE), what: "its definition is no network".into() }
}

impl NetworkStatus {
    /// Returns the status of a network before the first step of its start.
    pub(super) fn new(network: &Network, dir: &Path, namespace: NetworkNamespace) -> Self {
        NetworkStatus {
            version: VERSION,
            name: network.name.clone(),
            uuid: network.uuid,
            bridge: network.bridge.name.clone(),
            backend: None,
            complete: false,
            xml: to_xml(network),
            links: Vec::new(),
            zone: None,
            settings: Vec::new(),
            firewall: None,
            replaced: Vec::new(),
            published: Vec::new(),
            publishing: false,
            dnsmasq: false,
            served: None,
            change: None,
            namespace: Some(namespace),
            dir: dir.to_owned(),
        }
    }

    /// Parses the definition that the network was started with.
    pub fn network(&self) -> Option<Network> {
        parse(&self.xml)
    }

    /// Writes the status file atomically and creates a missing directory. If the file already has
    /// this content, it needs no space.
    pub(super) fn write(&self) -> Result<(), StateFileError> {
        let path = self.dir.join(FILE);
        let failed = StateFileError::io("write", &path);
        let text = match serde_json::to_vec_pretty(self) {
            Ok(text) => text,
            Err(error) => return Err(failed(error.into())),
        };
        if fs::read(&path).is_ok_and(|there| there.trim_ascii_end() == text) {
            return Ok(());
        }
        match state_file::write(&path, self) {
            Err(StateFileError::Io { source, .. }) if space_reserve::is_full(&source) => {
                space_reserve::write(&path, &self.dir.join(SPARE), &text)
                    .map_err(|_| failed(source))
            }
            written => written,
        }
    }

    /// Reserves disk space for the status files that a reload or a destroy writes later.
    pub(super) fn reserve(&self) -> Result<(), StateFileError> {
        let path = self.dir.join(SPARE);
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other);
        let reserved = text.and_then(|text| space_reserve::reserve(&path, text.len()));
        reserved.map_err(StateFileError::io("write", &path))
    }

    /// Returns whether every step is undone.
    pub(super) fn is_undone(&self) -> bool {
        self.links.is_empty()
            && self.zone.is_none()
            && self.settings.is_empty()
            && self.rules().is_empty()
            && !self.dnsmasq
    }

    /// Returns its network namespace as seen from this process.
    pub fn location(&self) -> NetworkLocation {
        self.namespace.as_ref().map_or(NetworkLocation::Here, NetworkNamespace::location)
    }

    /// Returns whether its dnsmasq may run in a PID namespace that this process cannot see. The
    /// network must belong to this network namespace.
    pub(super) fn hides_its_dnsmasq(&self) -> bool {
        self.dnsmasq
            && (self.served.as_ref())
                .is_some_and(|record| record.is_out_of_reach(&Files::in_dir(&self.dir)))
    }

    /// Takes over the record of a setting that another network changed and this network still
    /// needs.
    pub(super) fn inherit(&mut self, change: &SettingChange) -> Result<(), StateFileError> {
        // A killed destroy runs again, so the record may be there already.
        if !self.settings.contains(change) {
            self.settings.push(change.clone());
        }
        self.write()
    }

    /// Removes the status file and its directory. If the directory stays, [`sweep`] removes it
    /// later.
    pub(super) fn remove(&self) -> Result<(), StateFileError> {
        let removed =
            fs::remove_file(self.dir.join(FILE)).and_then(|()| fs::remove_dir_all(&self.dir));
        match removed {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StateFileError::Io { what: "remove", path: self.dir.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Restores the records of its rules after a reload that changed no rule.
    pub(super) fn restore(&mut self, mut rules: Vec<RemovalRecord>) -> Result<(), StateFileError> {
        self.firewall = rules.pop();
        self.backend = self.firewall.as_ref().map(RemovalRecord::backend).or(self.backend);
        self.replaced = rules;
        self.write()
    }

    /// Returns all records that remove its rules.
    pub(super) fn rules(&self) -> Vec<RemovalRecord> {
        self.replaced.iter().chain(&self.firewall).cloned().collect()
    }
}

/// Removes the directories below `dir` without a status file: they remain from a start that was
/// killed before its first step, or from an end that was killed after its last.
pub(super) fn sweep(dir: &Path) -> Result<(), StateFileError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| StateFileError::Io { what: "remove", path, source }
    };
    for entry in fs::read_dir(dir).map_err(io(dir))?.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !is_there(&path.join(FILE)) {
            fs::remove_dir_all(&path).map_err(io(&path))?;
        }
    }
    Ok(())
}

/// Returns whether a status file exists. If that cannot be checked, the answer is yes, so that its
/// directory stays.
fn is_there(path: &Path) -> bool {
    !matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// A status file that cannot be used: damaged, not readable, or of a newer version. Only the name
/// of its directory identifies the network.
#[derive(Debug)]
#[non_exhaustive]
pub struct Damaged {
    /// The network; `None` if the directory's name is not the name of a network.
    pub name: Option<NetworkName>,
    /// The reason why it cannot be used.
    pub error: StateFileError,
}

/// Reads every status file below `dir`, by name: the status, or why it cannot be used.
pub(super) fn all(dir: &Path) -> Result<Vec<Result<NetworkStatus, Damaged>>, StateFileError> {
    let read = |name: &OsString| {
        let path = dir.join(name).join(FILE);
        let name = || name.to_str().and_then(|name| name.parse().ok());
        let read = state_file::read_version(&path, VERSION);
        read.map_err(|error| Damaged { name: name(), error }).transpose()
    };
    // Files beside the networks' directories, such as the lock, have nothing below them.
    let is_dir = |name: &&OsString| dir.join(name).is_dir();
    Ok(state_file::names(dir)?.iter().filter(is_dir).filter_map(read).collect())
}
