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

use std::net::{Ipv4Addr, Ipv6Addr};
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

/// The source of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "teacher", rename_all = "lowercase")]
pub enum Source6 {
    /// A DHCPv6 server gave it.
    Dhcp {
        /// The server, by the source address of its packet.
        server: Ipv6Addr,
    },
    /// The guest tested whether the address is free, and no machine objected.
    Test,
}

impl Source6 {
    /// Returns whether a DHCPv6 server gave the address.
    pub fn is_dhcp(self) -> bool {
        matches!(self, Source6::Dhcp { .. })
    }
}

/// An IPv6 address of a guest, its source and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease6 {
    /// The address.
    pub address: Ipv6Addr,
    /// The source of the address.
    pub source: Source6,
    /// The end of its lifetime; `None` if it has no end, or the end is not known.
    pub until: Option<BootTime>,
}

impl Lease6 {
    /// Returns whether the lifetime has ended.
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
    /// Whether the port ever had an IPv4 address.
    pub had_address: bool,
    /// The lease; `None` if it ended or the guest gave it back, and if there was none.
    pub lease: Option<Lease>,
    /// The IPv6 addresses, the oldest first.
    pub leases6: Vec<Lease6>,
}

impl SavedLease {
    /// Returns whether the data is for this guest on this interface.
    pub fn is_of(&self, index: u32, mac: Mac) -> bool {
        self.index == index && self.mac == mac
    }

    /// Drops the lease if it has ended.
    pub fn aged(self, now: BootTime) -> Self {
        let leases6 = self.leases6.into_iter().filter(|lease| !lease.is_over(now)).collect();
        SavedLease { lease: self.lease.filter(|lease| !lease.is_over(now)), leases6, ..self }
    }
}

/// The version of the file.
const VERSION: u32 = 1;

/// The content of the file.
///
/// It stores the end of the lease twice. An earlier release reads and writes only the wall-clock
/// time. This release uses the time since boot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeaseFile {
    version: u32,
    port: InterfaceName,
    index: u32,
    mac: Mac,
    lease: Option<LeaseFields>,
    /// An earlier release wrote no file without an IPv4 address.
    #[serde(default, skip_serializing_if = "is_false")]
    no_address_yet: bool,
    /// A file of an earlier release, and of a guest without IPv6, does not have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    leases6: Vec<Lease6Fields>,
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

/// The fields of an IPv6 address. Every file with them has a boot.
#[derive(Debug, Serialize, Deserialize)]
struct Lease6Fields {
    address: Ipv6Addr,
    #[serde(flatten)]
    source: Source6,
    until_boot: Option<BootTime>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

impl LeaseFile {
    pub(crate) fn new(saved: &SavedLease, clock: &Clock) -> Self {
        let lease = saved.lease.map(|lease| LeaseFields {
            address: lease.address,
            source: lease.source,
            until: lease.until.map(|until| clock.wall_of(until)),
            until_boot: lease.until,
        });
        let fields6 = |lease: &Lease6| {
            let Lease6 { address, source, until } = *lease;
            Lease6Fields { address, source, until_boot: until }
        };
        LeaseFile {
            version: VERSION,
            port: saved.port.clone(),
            index: saved.index,
            mac: saved.mac,
            lease,
            no_address_yet: !saved.had_address,
            leases6: saved.leases6.iter().map(fields6).collect(),
            boot_id: clock.boot_id.clone(),
        }
    }

    /// Converts the file into data that is valid now.
    ///
    /// Returns `None` for a file of another boot: its interfaces are gone, although other
    /// interfaces may have their names and numbers.
    pub(crate) fn into_saved(self, clock: &Clock) -> Option<SavedLease> {
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
        let lease6 = |fields: Lease6Fields| {
            let Lease6Fields { address, source, until_boot } = fields;
            Lease6 { address, source, until: until_boot }
        };
        // A file without a boot cannot say when an IPv6 address ends.
        let leases6 = self.leases6.into_iter().filter(|_| has_boot).map(lease6).collect();
        let LeaseFile { port, index, mac, no_address_yet, .. } = self;
        let had_address = !no_address_yet;
        let saved = SavedLease { port, index, mac, had_address, lease, leases6 };
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
        self.all_but(clock, |_| false)
    }

    /// Does the same as [`all`](Self::all), without the ports that `is_left_out` names.
    ///
    /// # Errors
    /// The errors of [`all`](Self::all).
    pub fn all_but(
        &self,
        clock: &Clock,
        is_left_out: impl Fn(&InterfaceName) -> bool,
    ) -> Result<Vec<SavedLease>, StateFileError> {
        let mut all = Vec::new();
        for name in state_file::names(&self.0)? {
            let port = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
            let Some(port) = port.filter(|port| !is_left_out(port)) else { continue };
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
