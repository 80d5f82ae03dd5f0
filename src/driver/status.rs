//! What is kept about a network that runs.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::place::{Place, Whereabouts};
use super::{parse, spare};
use crate::dnsmasq::{self, Files};
use crate::firewall::{Backend, Recorded, ZoneChange};
use crate::link::Undo;
use crate::link::sysctl::Change;
use crate::network::{Network, NetworkName, to_xml};
use crate::state::{self, StatusError};
use crate::types::{InterfaceName, Uuid};

/// The version of this form.
const VERSION: u32 = 1;

/// The file in the network's directory.
const FILE: &str = "status.json";
/// The file that keeps space for another one.
const SPARE: &str = "status.spare";

/// A network that runs, or whose start was cut short.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The version of this form, 1.
    pub version: u32,
    /// Its name.
    pub name: NetworkName,
    /// Its UUID.
    pub uuid: Uuid,
    /// Its bridge.
    pub bridge: InterfaceName,
    /// The firewall backend; `None` for a network without rules.
    pub backend: Option<Backend>,
    /// Whether every step was done.
    pub complete: bool,
    /// The definition it was started with.
    pub xml: String,
    /// What undoes its links, addresses and routes, in the order they were made.
    pub links: Vec<Undo>,
    /// The zone of firewalld that its bridge was put into.
    #[serde(default)]
    pub zone: Option<ZoneChange>,
    /// The kernel settings that it changed.
    pub settings: Vec<Change>,
    /// What removes its rules.
    pub firewall: Option<Recorded>,
    /// What removes its rules of before, while a reload replaces them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<Recorded>,
    /// Whether it has a dnsmasq.
    pub dnsmasq: bool,
    /// By which that dnsmasq is recognised; an earlier netlaunch recorded none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<dnsmasq::Record>,
    /// Where it was started; an earlier netlaunch recorded none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Its directory.
    pub dir: PathBuf,
}

/// The error that the definition in a status cannot be read any more.
pub(super) fn broken(dir: &Path) -> StatusError {
    StatusError::Damaged { path: dir.join(FILE), what: "its definition is no network".into() }
}

impl Status {
    /// The status of a network before its first step.
    pub(super) fn new(network: &Network, dir: &Path, place: Place) -> Self {
        Status {
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
            dnsmasq: false,
            served: None,
            place: Some(place),
            dir: dir.to_owned(),
        }
    }

    /// The network as it was started.
    pub fn network(&self) -> Option<Network> {
        parse(&self.xml)
    }

    /// Writes it, whole or not at all; makes the directory where it is missing. One that is there
    /// already in this form needs no space.
    pub(super) fn write(&self) -> Result<(), StatusError> {
        let path = self.dir.join(FILE);
        let failed = StatusError::io("write", &path);
        let text = match serde_json::to_vec_pretty(self) {
            Ok(text) => text,
            Err(error) => return Err(failed(error.into())),
        };
        if fs::read(&path).is_ok_and(|there| there.trim_ascii_end() == text) {
            return Ok(());
        }
        match state::write(&path, self) {
            Err(StatusError::Io { source, .. }) if spare::is_full(&source) => {
                spare::write(&path, &self.dir.join(SPARE), &text).map_err(|_| failed(source))
            }
            written => written,
        }
    }

    /// Reserves the space for what a reload or a destroy writes later.
    pub(super) fn reserve(&self) -> Result<(), StatusError> {
        let path = self.dir.join(SPARE);
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other);
        let reserved = text.and_then(|text| spare::reserve(&path, text.len()));
        reserved.map_err(StatusError::io("write", &path))
    }

    /// Whether anything of it is left to be undone.
    pub(super) fn is_undone(&self) -> bool {
        self.links.is_empty()
            && self.zone.is_none()
            && self.settings.is_empty()
            && self.rules().is_empty()
            && !self.dnsmasq
    }

    /// Where it was started, as seen from here.
    pub fn whereabouts(&self) -> Whereabouts {
        self.place.as_ref().map_or(Whereabouts::Here, Place::whereabouts)
    }

    /// Whether its dnsmasq may run in a PID namespace that this process cannot see, while the
    /// network is in this network namespace.
    pub(super) fn is_out_of_reach(&self) -> bool {
        self.dnsmasq
            && self.whereabouts() == Whereabouts::Here
            && (self.served.as_ref())
                .is_some_and(|record| record.is_out_of_reach(&Files::in_dir(&self.dir)))
    }

    /// Takes over the record of a setting that another network changed and this one still needs.
    pub(super) fn inherit(&self, change: &Change) -> Result<(), StatusError> {
        // The one on disk counts: this one may have inherited before.
        let mut status: Status = state::read(&self.dir.join(FILE))?.unwrap_or_else(|| self.clone());
        // A destroy that was killed is done again.
        if !status.settings.contains(change) {
            status.settings.push(change.clone());
        }
        status.write()
    }

    /// Removes it with its directory, which without it is removed by [`sweep`].
    pub(super) fn remove(&self) -> Result<(), StatusError> {
        let removed =
            fs::remove_file(self.dir.join(FILE)).and_then(|()| fs::remove_dir_all(&self.dir));
        match removed {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StatusError::Io { what: "remove", path: self.dir.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Writes what removes its rules as it was before a reload that changed nothing.
    pub(super) fn restore(&mut self, mut rules: Vec<Recorded>) -> Result<(), StatusError> {
        self.firewall = rules.pop();
        self.backend = self.firewall.as_ref().map(Recorded::backend).or(self.backend);
        self.replaced = rules;
        self.write()
    }

    /// Everything that removes rules of it.
    pub(super) fn rules(&self) -> Vec<Recorded> {
        self.replaced.iter().chain(&self.firewall).cloned().collect()
    }
}

/// Removes the directories below `dir` without a status: a start was killed that had done nothing,
/// or the end of a network that had undone everything.
pub(super) fn sweep(dir: &Path) -> Result<(), StatusError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| StatusError::Io { what: "remove", path, source }
    };
    for entry in fs::read_dir(dir).map_err(io(dir))?.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !is_there(&path.join(FILE)) {
            fs::remove_dir_all(&path).map_err(io(&path))?;
        }
    }
    Ok(())
}

/// Whether there is a status, whatever it is: one that cannot be looked at is no reason to remove
/// what it is about.
fn is_there(path: &Path) -> bool {
    !matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// A status that cannot be used: damaged, not readable, or of a newer version. It says which network
/// it is about by the name of its directory alone.
#[derive(Debug)]
pub struct Damaged {
    /// The network; `None` where the directory has the name of none.
    pub name: Option<NetworkName>,
    /// Why it cannot be used.
    pub error: StatusError,
}

/// Every status below `dir`, by name, each or why it cannot be used.
pub(super) fn all(dir: &Path) -> Result<Vec<Result<Status, Damaged>>, StatusError> {
    let read = |name: &OsString| {
        let path = dir.join(name).join(FILE);
        let name = || name.to_str().and_then(|name| name.parse().ok());
        let read = state::read_version(&path, VERSION);
        read.map_err(|error| Damaged { name: name(), error }).transpose()
    };
    // Files beside the networks' directories, such as the lock, have nothing below them.
    let is_dir = |name: &&OsString| dir.join(name).is_dir();
    Ok(state::names(dir)?.iter().filter(is_dir).filter_map(read).collect())
}
