//! Leases: what was learnt about a port, and for how long; kept in `nwfilter/leases/PORT.json`
//! below the state directory, so that it survives a restart of whoever learns.
//!
//! A file per port, since each port may have a process of its own that learns: none waits for, or
//! undoes, what another writes. A file is replaced whole. It is for one interface's number and one
//! MAC address; a later port of the same name, or another guest, does not inherit it. It stays when
//! the lease is over, because it also says that this port was taught before.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::clock::{BootTime, Clock, UnixTime};
use crate::state::{self, StatusError};
use crate::types::{InterfaceName, Mac};

/// Who taught an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "teacher", rename_all = "lowercase")]
pub enum Teacher {
    /// A DHCP server acknowledged it.
    Dhcp {
        /// Which, by the packet's source address, as [`Method`](super::Method) has it.
        server: Ipv4Addr,
    },
    /// The guest used it.
    Traffic,
}

impl Teacher {
    /// Whether it is a DHCP server.
    pub fn is_dhcp(self) -> bool {
        matches!(self, Teacher::Dhcp { .. })
    }
}

/// An address that a guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Who taught it.
    pub teacher: Teacher,
    /// When it is over; `None` is never.
    pub until: Option<BootTime>,
}

impl Lease {
    /// Whether its time is over.
    pub fn is_over(&self, now: BootTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// What is kept about a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The port.
    pub port: InterfaceName,
    /// The interface's number.
    pub index: u32,
    /// The guest's MAC address.
    pub mac: Mac,
    /// The lease; `None` where it was forgotten.
    pub lease: Option<Lease>,
}

impl Kept {
    /// Whether it is about this guest on this interface.
    pub fn is_of(&self, index: u32, mac: Mac) -> bool {
        self.index == index && self.mac == mac
    }

    /// The same without a lease whose time is over.
    pub fn aged(self, now: BootTime) -> Self {
        Kept { lease: self.lease.filter(|lease| !lease.is_over(now)), ..self }
    }
}

/// The version of the file.
const VERSION: u32 = 1;

/// The file. It has the end of the lease twice: by the wall clock, which is all that an earlier
/// release wrote and reads, and as a time since boot, which decides.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    version: u32,
    port: InterfaceName,
    index: u32,
    mac: Mac,
    lease: Option<SavedLease>,
    /// The boot that `until_boot` counts from; absent in a file of an earlier release.
    #[serde(default)]
    boot_id: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedLease {
    address: Ipv4Addr,
    #[serde(flatten)]
    teacher: Teacher,
    until: Option<UnixTime>,
    #[serde(default)]
    until_boot: Option<BootTime>,
}

impl Saved {
    fn new(kept: &Kept, clock: &Clock) -> Self {
        let lease = kept.lease.map(|lease| SavedLease {
            address: lease.address,
            teacher: lease.teacher,
            until: lease.until.map(|until| clock.wall_of(until)),
            until_boot: lease.until,
        });
        Saved {
            version: VERSION,
            port: kept.port.clone(),
            index: kept.index,
            mac: kept.mac,
            lease,
            boot_id: clock.boot_id.clone(),
        }
    }

    /// What the file says now; `None` for a file of another boot, whose interfaces are gone though
    /// others may have their names and numbers.
    fn kept(self, clock: &Clock) -> Option<Kept> {
        let has_boot = self.boot_id.is_some();
        if has_boot && self.boot_id != clock.boot_id {
            return None;
        }
        let lease = self.lease.map(|lease| Lease {
            address: lease.address,
            teacher: lease.teacher,
            until: match has_boot {
                true => lease.until_boot,
                false => lease.until.map(|until| clock.boot_of(until)),
            },
        });
        let kept = Kept { port: self.port, index: self.index, mac: self.mac, lease };
        Some(kept.aged(clock.boot))
    }
}

/// Where leases are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseDir(PathBuf);

impl LeaseDir {
    /// The one below this state directory; nothing is made or read yet.
    pub fn new(state_dir: &Path) -> Self {
        LeaseDir(state_dir.join("nwfilter").join("leases"))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where a port's file is, or would be.
    pub fn file(&self, port: &InterfaceName) -> PathBuf {
        self.0.join(format!("{port}.json"))
    }

    /// What is kept about a port, aged. A damaged file is like none, and so is one of a version
    /// that this release does not know: then the address is learnt again.
    ///
    /// # Errors
    /// [`StatusError`] when the file is there and cannot be read.
    pub fn read(&self, port: &InterfaceName, clock: &Clock) -> Result<Option<Kept>, StatusError> {
        match state::read_version::<Saved>(&self.file(port), VERSION) {
            Ok(saved) => Ok(saved.and_then(|saved| saved.kept(clock))),
            Err(error @ StatusError::Io { .. }) => Err(error),
            Err(error) => {
                tracing::warn!("{error}; the address is learnt again");
                Ok(None)
            }
        }
    }

    /// What is kept about all ports, aged. A file that cannot be read is left out.
    ///
    /// # Errors
    /// [`StatusError`] when the directory cannot be read.
    pub fn all(&self, clock: &Clock) -> Result<Vec<Kept>, StatusError> {
        let mut all = Vec::new();
        for name in state::names(&self.0)? {
            let port = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
            let Some(port) = port else { continue };
            match self.read(&port, clock) {
                Ok(kept) => all.extend(kept),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        Ok(all)
    }

    /// Keeps it, whole or not at all. Everyone may know who has which address.
    ///
    /// # Errors
    /// [`StatusError`]; then the old file is there.
    pub fn write(&self, kept: &Kept, clock: &Clock) -> Result<(), StatusError> {
        state::write(&self.file(&kept.port), &Saved::new(kept, clock))
    }

    /// Keeps it no more.
    ///
    /// # Errors
    /// [`StatusError`].
    pub fn remove(&self, port: &InterfaceName) -> Result<(), StatusError> {
        let path = self.file(port);
        state::remove(&path).map_err(StatusError::io("remove", &path))
    }
}
