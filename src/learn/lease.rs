//! Leases: what was learnt about a port, and for how long; kept in `nwfilter/leases/PORT.json`
//! below the state directory, so that it survives a restart of whoever learns.
//!
//! A file per port, since each port may have a process of its own that learns: none waits for, or
//! undoes, what another writes. A file is replaced whole. It is for one interface's number and one
//! MAC address; a later port of the same name, or another guest, does not inherit it. It stays when
//! the lease is over, because it also says that this port was taught before.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::state::{self, StatusError};
use crate::types::{InterfaceName, Mac};

/// A time in whole seconds since the start of 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnixTime(pub u64);

impl From<SystemTime> for UnixTime {
    /// A clock before 1970 is at 1970.
    fn from(time: SystemTime) -> Self {
        UnixTime(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }
}

impl UnixTime {
    /// The end of a DHCP lease of this many seconds that starts now; all ones has none (RFC 2131
    /// section 3.3). The client counts from its request, and so is always done before.
    pub fn after_lease_time(self, seconds: u32) -> Option<UnixTime> {
        (seconds != u32::MAX).then(|| UnixTime(self.0.saturating_add(seconds.into())))
    }
}

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Who taught it.
    #[serde(flatten)]
    pub teacher: Teacher,
    /// When it is over; `None` is never.
    pub until: Option<UnixTime>,
}

impl Lease {
    /// Whether its time is over.
    pub fn is_over(&self, now: UnixTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// What is kept about a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The version of this form, 1.
    pub version: u32,
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
        self.version == 1 && self.index == index && self.mac == mac
    }

    /// The same without a lease whose time is over.
    pub fn aged(self, now: UnixTime) -> Self {
        Kept { lease: self.lease.filter(|lease| !lease.is_over(now)), ..self }
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

    /// What is kept about a port, aged. A damaged file is like none: then the address is learnt
    /// again.
    ///
    /// # Errors
    /// [`StatusError`] when the file is there and cannot be read.
    pub fn read(&self, port: &InterfaceName, now: UnixTime) -> Result<Option<Kept>, StatusError> {
        match state::read::<Kept>(&self.file(port)) {
            Ok(kept) => Ok(kept.map(|kept| kept.aged(now))),
            Err(StatusError::Damaged { path, what }) => {
                tracing::warn!(
                    "{} is damaged: {what}; the address is learnt again",
                    path.display()
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What is kept about all ports, aged.
    ///
    /// # Errors
    /// [`StatusError`].
    pub fn all(&self, now: UnixTime) -> Result<Vec<Kept>, StatusError> {
        let mut all = Vec::new();
        for name in state::names(&self.0)? {
            let port = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
            let Some(port) = port else { continue };
            all.extend(self.read(&port, now)?);
        }
        Ok(all)
    }

    /// Keeps it, whole or not at all. Everyone may know who has which address.
    ///
    /// # Errors
    /// [`StatusError`]; then the old file is there.
    pub fn write(&self, kept: &Kept) -> Result<(), StatusError> {
        state::write(&self.file(&kept.port), kept)
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
