//! Saves the learned address of a port and the end of its lease, so that a restart of the learner
//! process does not lose them.
//!
//! The file is `nwfilter/leases/PORT.json` below the state directory. Each port has its own file,
//! because each port may have its own learner process: no process waits for another one or
//! overwrites the result of another one. A write replaces the whole file.
//!
//! A file is for one interface number and one MAC address: a later port of the same name, or
//! another guest, does not inherit it. The file stays after the lease ends, because it also records
//! that the port had an address before.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::clock::{BootTime, Clock, UnixTime};
use crate::sys::state_file::{self, StateFileError};
use crate::types::{InterfaceName, Mac, error_text};

/// The source of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "teacher", rename_all = "lowercase")]
pub enum LeaseSource {
    /// A DHCP server acknowledged it.
    Dhcp {
        /// The server, by the source address of its packet, as in [`Method`](super::Method).
        server: Ipv4Addr,
    },
    /// The guest used the address in an ARP or IPv4 packet.
    Traffic,
}

impl LeaseSource {
    /// Returns whether a DHCP server gave the address.
    pub fn is_dhcp(self) -> bool {
        matches!(self, LeaseSource::Dhcp { .. })
    }
}

/// The address of a guest, its source and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The source of the address.
    pub source: LeaseSource,
    /// The end of the lease; `None` if it has no end.
    pub until: Option<BootTime>,
}

impl Lease {
    /// Returns whether the lease has ended.
    pub fn is_over(&self, now: BootTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// The saved data of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedLease {
    /// The port.
    pub port: InterfaceName,
    /// The interface's number.
    pub index: u32,
    /// The guest's MAC address.
    pub mac: Mac,
    /// The lease; `None` if it ended or the guest gave it back.
    pub lease: Option<Lease>,
}

impl SavedLease {
    /// Returns whether the data is for this guest on this interface.
    pub fn is_of(&self, index: u32, mac: Mac) -> bool {
        self.index == index && self.mac == mac
    }

    /// Drops the lease if it has ended.
    pub fn aged(self, now: BootTime) -> Self {
        SavedLease { lease: self.lease.filter(|lease| !lease.is_over(now)), ..self }
    }
}

/// The version of the file.
const VERSION: u32 = 1;

/// The content of the file.
///
/// It stores the end of the lease twice. An earlier release reads and writes only the wall-clock
/// time. This release uses the time since boot.
#[derive(Debug, Serialize, Deserialize)]
struct LeaseFile {
    version: u32,
    port: InterfaceName,
    index: u32,
    mac: Mac,
    lease: Option<LeaseFields>,
    /// The boot to which `until_boot` belongs. A file of an earlier release does not have it.
    #[serde(default)]
    boot_id: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LeaseFields {
    address: Ipv4Addr,
    #[serde(flatten)]
    source: LeaseSource,
    until: Option<UnixTime>,
    #[serde(default)]
    until_boot: Option<BootTime>,
}

impl LeaseFile {
    fn new(saved: &SavedLease, clock: &Clock) -> Self {
        let lease = saved.lease.map(|lease| LeaseFields {
            address: lease.address,
            source: lease.source,
            until: lease.until.map(|until| clock.wall_of(until)),
            until_boot: lease.until,
        });
        LeaseFile {
            version: VERSION,
            port: saved.port.clone(),
            index: saved.index,
            mac: saved.mac,
            lease,
            boot_id: clock.boot_id.clone(),
        }
    }

    /// Converts the file into data that is valid now.
    ///
    /// Returns `None` for a file of another boot: its interfaces are gone, although other
    /// interfaces may have their names and numbers.
    fn into_saved(self, clock: &Clock) -> Option<SavedLease> {
        let has_boot = self.boot_id.is_some();
        if has_boot && self.boot_id != clock.boot_id {
            return None;
        }
        let lease = self.lease.map(|lease| Lease {
            address: lease.address,
            source: lease.source,
            until: if has_boot {
                lease.until_boot
            } else {
                lease.until.map(|until| clock.boot_of(until))
            },
        });
        let saved = SavedLease { port: self.port, index: self.index, mac: self.mac, lease };
        Some(saved.aged(clock.boot))
    }
}

/// The directory of the saved leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseDir(PathBuf);

impl LeaseDir {
    /// Names the directory below this state directory. Makes and reads nothing.
    pub fn new(state_dir: &Path) -> Self {
        LeaseDir(state_dir.join("nwfilter").join("leases"))
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the path of a port's file, which need not exist.
    pub fn file(&self, port: &InterfaceName) -> PathBuf {
        self.0.join(format!("{port}.json"))
    }

    /// Reads the saved data of a port, without a lease that has ended.
    ///
    /// Returns `None` for a missing file, for a damaged file and for a file of a version that this
    /// release does not know. Then the learner learns the address again.
    ///
    /// # Errors
    /// [`StateFileError`] if the file exists and cannot be read.
    pub fn read(
        &self,
        port: &InterfaceName,
        clock: &Clock,
    ) -> Result<Option<SavedLease>, StateFileError> {
        match state_file::read_version::<LeaseFile>(&self.file(port), VERSION) {
            Ok(file) => Ok(file.and_then(|file| file.into_saved(clock))),
            Err(error @ StateFileError::Io { .. }) => Err(error),
            Err(error) => {
                tracing::warn!("{}; the address is learned again", error_text(&error));
                Ok(None)
            }
        }
    }

    /// Reads the saved data of all ports, without leases that have ended. Skips a file that cannot
    /// be read.
    ///
    /// # Errors
    /// [`StateFileError`] if the directory cannot be read.
    pub fn all(&self, clock: &Clock) -> Result<Vec<SavedLease>, StateFileError> {
        let mut all = Vec::new();
        for name in state_file::names(&self.0)? {
            let port = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
            let Some(port) = port else { continue };
            match self.read(&port, clock) {
                Ok(saved) => all.extend(saved),
                Err(error) => tracing::warn!("{}", error_text(&error)),
            }
        }
        Ok(all)
    }

    /// Saves the data of a port: replaces the whole file or leaves the old one. Every user may read
    /// it, because guests' addresses are not secret.
    ///
    /// # Errors
    /// [`StateFileError`] if the write fails; the old file is then still there.
    pub fn write(&self, saved: &SavedLease, clock: &Clock) -> Result<(), StateFileError> {
        state_file::write(&self.file(&saved.port), &LeaseFile::new(saved, clock))
    }

    /// Removes the file of a port. A missing file is not an error.
    ///
    /// # Errors
    /// [`StateFileError`] if the file exists and cannot be removed.
    pub fn remove(&self, port: &InterfaceName) -> Result<(), StateFileError> {
        let path = self.file(port);
        state_file::remove(&path).map_err(StateFileError::io("remove", &path))
    }
}
