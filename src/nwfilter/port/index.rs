//! The index of the ports: one file with the [`PortSummary`] of every port, so that a change of one
//! port does not read the status files of all ports.
//!
//! # How it works
//!
//! The status files are the truth, and the index `nwfilter/ports.index` below the state directory
//! is a copy of some of their facts, in the format of postcard: of 1,000 ports, JSON took 2.5 ms to
//! read and write. A command on one port writes it at its end, under the lock of all
//! ports, in this order: it removes the old index, sets the stamp of the directory of the status
//! files ([`DirStamp`]), reads the names in the directory, and writes the summaries with the stamp.
//!
//! The index is current while the directory has that stamp. Any process that makes, replaces or
//! removes a status file thereby removes the stamp: another command, a command that is killed, or
//! an administrator. The marker of an unfinished change and the record of a reload are in the same
//! directory, so they remove the stamp, too. A writer removes the old index before it sets the next
//! stamp, so an index never matches a later stamp.
//!
//! The index is written only if the status files are exactly those of its ports. So there is none
//! while a status file is damaged, is of an interrupted change, or is of an interface that is gone,
//! and none for a port whose new name could not be recorded. An index is used only if each port in
//! it has its interface, with that name, and if the command's own port is as its status file says.
//! Otherwise the command reads all status files. A failed write of the index is no error. The
//! index belongs to one boot, because it is not synced to the disk.
//!
//! # What a reader would get wrong
//!
//! A program can write into a status file in place, which leaves the stamp. The index then still
//! has the facts that netlaunch wrote, and those are of the rules in the kernel. The changed file
//! counts for every command that reads it: each command on that port, and each command on all
//! ports, such as a list, a reload or a redefinition. A reload and a redefinition replace the
//! files, so the next index has the new facts.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::lock::Lock;
use super::summary::PortSummary;
use super::{Bindings, PortStatus, status};
use crate::sys::dir::{Dir, DirStamp, Trust};
use crate::sys::interfaces::Interfaces;
use crate::sys::namespace::boot_id;
use crate::sys::state_file::{self, Readers};
use crate::types::{InterfaceName, error_text};

/// The version of the file. Change it with every change of [`Index`] and of the types in it.
const VERSION: u32 = 1;

/// The content of the file, after its version.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    boot: String,
    /// The directory of the status files, as the writer left it.
    stamp: DirStamp,
    /// The ports, sorted by name.
    ports: Vec<PortSummary>,
}

/// The port that a command changes.
#[derive(Debug, Clone, Copy)]
pub(super) enum OwnPort<'a> {
    /// The port with this name.
    Named(&'a InterfaceName),
    /// The port with this interface index.
    Numbered(u32),
}

/// The ports, as a change of one of them needs them.
#[derive(Debug)]
pub(super) struct Overview {
    /// The status of the command's own port, if that has a filter and its interface exists.
    pub(super) own: Option<PortStatus>,
    /// The other ports that have a filter.
    pub(super) others: Vec<PortSummary>,
    /// The status files whose interface is gone, or whose bind or removal was interrupted.
    pub(super) stale: Vec<PortStatus>,
}

impl OwnPort<'_> {
    pub(super) fn is(self, port: &InterfaceName, index: u32) -> bool {
        match self {
            OwnPort::Named(name) => port == name,
            OwnPort::Numbered(number) => index == number,
        }
    }
}

impl Bindings {
    /// Returns the directory of the index.
    pub(super) fn index_dir(&self) -> PathBuf {
        self.settings.state_dir.join("nwfilter")
    }

    fn index_path(&self) -> PathBuf {
        self.index_dir().join("ports.index")
    }

    /// Returns the summaries of all ports, sorted by name, if the index is current, belongs to this
    /// network namespace, and has the names and numbers of existing interfaces. `None` means that
    /// the status files have to be read.
    pub(super) fn indexed(&self) -> Option<Vec<PortSummary>> {
        let read = state_file::content(&self.index_path());
        let content = read.unwrap_or_else(|error| {
            tracing::debug!("the index of the ports is not used: {}", error_text(&error));
            None
        })?;
        let index = Index::parse(&content)?;
        let dir = Dir::open(&self.dir(), Trust::LastDirectory).ok()?;
        let is_current = dir.stamp().ok()?.is_some_and(|stamp| stamp == index.stamp)
            && boot_id().is_ok_and(|boot| boot == index.boot);
        // Without ports, the directory may belong to no network namespace yet.
        if !is_current || index.ports.is_empty() || !self.is_here().ok()? {
            return None;
        }
        let interfaces = Interfaces::open().ok()?;
        let exists = |port: &PortSummary| interfaces.has(port.index, &port.port).ok() == Some(true);
        index.ports.iter().all(exists).then_some(index.ports)
    }

    /// Returns the ports for a change of one of them, if the index can be used and has the facts of
    /// that port's status file.
    pub(super) fn indexed_overview(&self, own: OwnPort<'_>) -> Option<Overview> {
        let (mut own_summary, mut others) = (None, Vec::new());
        for port in self.indexed()? {
            if own.is(&port.port, port.index) {
                own_summary = Some(port);
            } else {
                others.push(port);
            }
        }
        let dir = self.dir();
        let name = match own {
            OwnPort::Named(name) => Some(name),
            OwnPort::Numbered(_) => own_summary.as_ref().map(|port| &port.port),
        };
        let status = match name {
            Some(name) => status::read(&dir, name).ok()?,
            None => None,
        };
        let in_file = status.as_ref().filter(|status| status.is_bound());
        let is_same = in_file.map(|status| PortSummary::of(status, &dir)) == own_summary
            && in_file.is_some() == status.is_some();
        tracing::debug!("the index of the ports is used: {is_same}");
        is_same.then_some(Overview { own: status, others, stale: Vec::new() })
    }

    /// Removes the index before a change of ports.
    pub(super) fn remove_index(&self) {
        if let Err(error) = state_file::remove(&self.index_path()) {
            tracing::debug!("the index of the ports cannot be removed: {error}");
        }
    }

    /// Returns the summaries of these statuses.
    pub(super) fn summaries(&self, statuses: &[PortStatus]) -> Vec<PortSummary> {
        let dir = self.dir();
        statuses.iter().map(|status| PortSummary::of(status, &dir)).collect()
    }

    /// Writes the index, if the status files are exactly those of these ports: `changed` are the
    /// statuses that the caller has written under the lock.
    pub(super) fn write_index(
        &self,
        _lock: &Lock,
        mut ports: Vec<PortSummary>,
        changed: &[PortStatus],
    ) {
        ports.extend(self.summaries(changed));
        if let Err(error) = self.try_write_index(ports) {
            tracing::debug!("the index of the ports is not written: {error}");
        }
    }

    fn try_write_index(&self, mut ports: Vec<PortSummary>) -> io::Result<()> {
        let path = self.index_path();
        state_file::remove(&path)?;
        if ports.is_empty() || self.has_marker() {
            return Ok(());
        }
        let dir = Dir::open(&self.dir(), Trust::LastDirectory)?;
        let Some(stamp) = dir.set_stamp()? else { return Ok(()) };
        // After the stamp: a later change of a name removes the stamp.
        if !has_files_of(&dir.names()?, &ports) {
            return Ok(());
        }
        ports.sort_by(|a, b| a.port.cmp(&b.port));
        let index = Index { boot: boot_id()?, stamp, ports };
        state_file::replace(&path, &index.content()?, Readers::Everyone)
    }
}

impl Index {
    /// Returns the content of the file.
    fn content(&self) -> io::Result<Vec<u8>> {
        postcard::to_allocvec(&(VERSION, self)).map_err(io::Error::other)
    }

    /// Parses the content of the file. Returns `None` if it has another version or is damaged.
    fn parse(content: &[u8]) -> Option<Self> {
        let (version, rest) = postcard::take_from_bytes::<u32>(content).ok()?;
        let (index, rest) = postcard::take_from_bytes(rest).ok().filter(|_| version == VERSION)?;
        rest.is_empty().then_some(index)
    }
}

/// Returns whether the status files among these sorted names are exactly those of the ports.
fn has_files_of(names: &[OsString], ports: &[PortSummary]) -> bool {
    let mut expected: Vec<OsString> =
        ports.iter().map(|port| status::file_name(&port.port).into()).collect();
    expected.sort();
    names.iter().filter(|name| status::is_file_name(name)).eq(&expected)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::nwfilter::port::BindingSettings;

    /// Returns the status of a port of this namespace: the loopback interface exists everywhere.
    fn status(port: &str, index: u32) -> PortStatus {
        serde_json::from_value(json!({
            "version": 1, "port": port, "index": index, "xml": "<nonsense/>", "complete": true,
            "backend": "nftables", "recorded": [],
        }))
        .unwrap()
    }

    /// Returns the manager of a new state directory with a bound port and its index.
    fn indexed(place: &Path) -> (Bindings, Vec<PortSummary>) {
        let bindings = Bindings::new(BindingSettings {
            config_dir: place.join("config"),
            state_dir: place.join("state"),
            path: Vec::new(),
            firewall_backend: None,
            enable_trace: false,
            enable_counters: false,
        });
        let lo = status("lo", 1);
        lo.write(&bindings.dir()).unwrap();
        let ports = bindings.summaries(&[lo]);
        bindings.try_write_index(ports.clone()).unwrap();
        assert_eq!(bindings.indexed().as_ref(), Some(&ports));
        (bindings, ports)
    }

    #[test]
    fn a_change_of_a_name_in_the_directory_ends_the_index() {
        type Change = fn(&Path);
        let lo = |dir: &Path| dir.join("lo.json");
        let changes: [(&str, Change); 6] = [
            ("removed", |dir| fs::remove_file(dir.join("lo.json")).unwrap()),
            ("replaced", |dir| status("lo", 1).write(dir).unwrap()),
            ("another file", |dir| status("lo2", 2).write(dir).unwrap()),
            ("marker", |dir| fs::write(dir.join(".unsettled"), "").unwrap()),
            ("made anew", |dir| {
                let text = fs::read(dir.join("lo.json")).unwrap();
                fs::remove_dir_all(dir).unwrap();
                fs::create_dir(dir).unwrap();
                fs::write(dir.join("lo.json"), text).unwrap();
            }),
            ("copied", |dir| {
                let copy = dir.with_extension("copy");
                let (from, to) = (dir.to_str().unwrap(), copy.to_str().unwrap());
                let copied = std::process::Command::new("cp").args(["-a", from, to]).status();
                assert!(copied.unwrap().success());
                fs::rename(dir, dir.with_extension("old")).unwrap();
                fs::rename(copy, dir).unwrap();
            }),
        ];
        for (what, change) in changes {
            let place = tempfile::tempdir().unwrap();
            let (bindings, ports) = indexed(place.path());
            let dir = bindings.dir();
            change(&dir);
            assert_eq!(bindings.indexed(), None, "{what}");
            // The next index has only ports whose status files are all the status files.
            let is_whole = matches!(what, "replaced" | "made anew" | "copied");
            bindings.try_write_index(ports.clone()).unwrap();
            assert_eq!(bindings.indexed(), is_whole.then_some(ports), "{what}");
            assert_eq!(bindings.index_path().exists(), is_whole, "{what}");
        }
        // A write in place is seen by the commands that read the file.
        let place = tempfile::tempdir().unwrap();
        let (bindings, ports) = indexed(place.path());
        fs::write(lo(&bindings.dir()), "{").unwrap();
        assert_eq!(bindings.indexed(), Some(ports));
        let (named, other) = ("lo".parse().unwrap(), "lo2".parse().unwrap());
        assert!(bindings.indexed_overview(OwnPort::Named(&named)).is_none());
        assert!(bindings.indexed_overview(OwnPort::Numbered(1)).is_none());
        assert!(bindings.indexed_overview(OwnPort::Named(&other)).is_some());
    }

    #[test]
    fn an_index_that_does_not_fit_the_host_is_not_used() {
        type Change = fn(&Path, &mut Index);
        let changes: [(&str, Change); 4] = [
            ("boot", |_, index| index.boot.insert(0, '0')),
            ("stamp", |place, index| {
                let dir = Dir::open(place, Trust::LastDirectory).unwrap();
                index.stamp = dir.set_stamp().unwrap().unwrap();
            }),
            ("name", |_, index| index.ports[0].port = "lo2".parse().unwrap()),
            ("number", |_, index| index.ports[0].index = u32::MAX),
        ];
        for (what, change) in changes {
            let place = tempfile::tempdir().unwrap();
            let (bindings, _) = indexed(place.path());
            let path = bindings.index_path();
            let mut index = Index::parse(&fs::read(&path).unwrap()).unwrap();
            change(place.path(), &mut index);
            fs::write(&path, index.content().unwrap()).unwrap();
            assert_eq!(bindings.indexed(), None, "{what}");
        }
        let place = tempfile::tempdir().unwrap();
        let (bindings, _) = indexed(place.path());
        fs::write(bindings.dir().join(state_file::LOCK), "1:1").unwrap();
        assert_eq!(bindings.indexed(), None, "another network namespace");
    }

    #[test]
    fn content_of_another_version_or_with_damage_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let (bindings, ports) = indexed(place.path());
        let content = fs::read(bindings.index_path()).unwrap();
        assert_eq!(Index::parse(&content).unwrap().ports, ports);
        for length in 0..content.len() {
            assert!(Index::parse(&content[..length]).is_none(), "{length} bytes");
        }
        assert!(Index::parse(&[&content[..], b"\0"].concat()).is_none(), "a byte more");
        assert_eq!(u32::from(content[0]), VERSION);
        let newer = [&[content[0] + 1], &content[1..]].concat();
        assert!(Index::parse(&newer).is_none(), "another version");
        assert!(Index::parse(br#"{"version":1}"#).is_none(), "JSON");
    }

    #[test]
    fn without_ports_there_is_no_index() {
        let place = tempfile::tempdir().unwrap();
        let (bindings, _) = indexed(place.path());
        fs::remove_file(bindings.dir().join("lo.json")).unwrap();
        bindings.try_write_index(Vec::new()).unwrap();
        assert!(!bindings.index_path().exists());
    }

    #[test]
    fn the_own_port_is_read_from_its_file() {
        let place = tempfile::tempdir().unwrap();
        let (bindings, ports) = indexed(place.path());
        let lo = "lo".parse().unwrap();
        for own in [OwnPort::Named(&lo), OwnPort::Numbered(1)] {
            let overview = bindings.indexed_overview(own).unwrap();
            assert_eq!((overview.own, overview.others), (Some(status("lo", 1)), vec![]));
        }
        for own in [OwnPort::Named(&"lo2".parse().unwrap()), OwnPort::Numbered(7)] {
            let overview = bindings.indexed_overview(own).unwrap();
            assert_eq!((overview.own, overview.others), (None, ports.clone()));
        }
    }
}
