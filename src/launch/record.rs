//! `launch.json`: what a running launch tells others about itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::runtime::{LaunchRoot, RuntimeError};
use crate::network::NetworkName;
use crate::nwfilter::FilterName;
use crate::plan::{Backend, Plan, Transport};
use crate::state::{self, Readers};
use crate::types::{HostAddress, InterfaceName, Mac, Publish, UserName};

/// The version of the JSON forms of a record and of `netlaunch ps`.
pub const RECORD_VERSION: u32 = 1;

/// A running launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// The name given, else that of the launch directory.
    pub name: String,
    /// netlaunch's own process number.
    pub pid: i32,
    /// Seconds since 1970 at the start.
    pub started: u64,
    /// The backend.
    pub backend: Backend,
    /// Why it is not the preferred one.
    pub fallback: Option<String>,
    /// How passt and QEMU are connected.
    pub transport: Option<Transport>,
    /// QEMU, once it runs; `None` in serve mode.
    pub qemu: Option<Program>,
    /// passt, once it runs; `None` on the other backends.
    pub passt: Option<Program>,
    /// The guest's place on a bridge; `None` on the other backends.
    #[serde(default)]
    pub bridge: Option<Joined>,
    /// Whom QEMU runs as; `None` is the user whose launch it is.
    #[serde(default)]
    pub user: Option<UserName>,
    /// The guest's network.
    pub guest: Guest,
    /// Published ports.
    pub publish: Vec<Publish>,
    /// The launch directory.
    pub dir: PathBuf,
}

/// A running program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its process number as the host sees it.
    pub pid: i32,
    /// Where it is.
    pub path: PathBuf,
}

/// A guest's place on a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The bridge.
    pub bridge: InterfaceName,
    /// The virtual network whose bridge it is, where the launch names one.
    pub network: Option<NetworkName>,
    /// The guest's tap, once there is one; `None` where QEMU's helper makes it.
    pub tap: Option<InterfaceName>,
    /// Its filter.
    #[serde(default)]
    pub filter: Option<FilterName>,
    /// What is known of the guest's address, where its filter needs one that nobody said.
    #[serde(default)]
    pub learning: Option<Learnt>,
}

/// What the supervisor learnt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learnt {
    /// The address that the filter's rules are made with; `None` while it is not known.
    pub address: Option<Ipv4Addr>,
}

/// A guest's network; addresses are absent when the guest mirrors the host, has
/// no IPv4, or is on a bridge, where others give them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Its card's address.
    pub mac: Mac,
    /// Its address and prefix length.
    pub address: Option<HostAddress>,
    /// Its router.
    pub gateway: Option<Ipv4Addr>,
    /// The DNS server it is told; absent where passt decides.
    pub dns: Option<IpAddr>,
}

impl Record {
    /// The record of `plan`, started now by this process.
    pub fn new(plan: &Plan) -> Self {
        let dir_name = plan.dir.file_name().unwrap_or_default().to_string_lossy();
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Record {
            version: RECORD_VERSION,
            name: plan.name.clone().unwrap_or_else(|| dir_name.into_owned()),
            pid: std::process::id() as i32,
            started: since.map(|d| d.as_secs()).unwrap_or_default(),
            backend: plan.backend,
            fallback: plan.fallback.clone(),
            transport: plan.transport,
            qemu: None,
            passt: None,
            bridge: plan.bridge.as_ref().map(|bridge| Joined {
                bridge: bridge.bridge.clone(),
                network: bridge.network.clone(),
                tap: None,
                filter: None,
                learning: None,
            }),
            user: plan.user.clone(),
            guest: Guest {
                mac: plan.mac,
                address: plan.view.map(|v| v.address),
                gateway: plan.view.map(|v| v.gateway),
                dns: plan.dns,
            },
            publish: plan.publish.clone(),
            dir: plan.dir.clone(),
        }
    }

    /// Takes the name of the guest's tap in.
    pub(super) fn tap_made(&mut self, tap: &InterfaceName) {
        if let Some(bridge) = &mut self.bridge {
            bridge.tap = Some(tap.clone());
        }
    }

    /// Takes the filter of the guest's port in, and whether the guest's address is to be learnt.
    pub(super) fn filtered(&mut self, filter: &FilterName, learns: bool) {
        if let Some(bridge) = &mut self.bridge {
            bridge.filter = Some(filter.clone());
            bridge.learning = learns.then_some(Learnt { address: None });
        }
    }

    /// Takes the learnt address in, or that it is not known any more.
    pub(super) fn learnt(&mut self, address: Option<Ipv4Addr>) {
        if let Some(bridge) = &mut self.bridge {
            bridge.learning = Some(Learnt { address });
        }
    }

    /// Writes the record into its launch directory, whole or not at all; its owner may read it.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn write(&self) -> io::Result<()> {
        state::replace(&file(&self.dir), &serde_json::to_vec_pretty(self)?, Readers::Owner)
    }
}

/// The records of all live launches below `root`, by directory name. A launch that has not written
/// its record yet, or is just going, is left out, and so is one whose record cannot be used, which is
/// a warning.
///
/// # Errors
/// The root exists but cannot be read.
pub fn running(root: &LaunchRoot) -> Result<Vec<Record>, RuntimeError> {
    let read = |dir: &PathBuf| {
        state::read_version(&file(dir), RECORD_VERSION).unwrap_or_else(|error| {
            tracing::warn!("the launch in {} cannot be shown: {error}", dir.display());
            None
        })
    };
    Ok(root.live()?.iter().filter_map(read).collect())
}

/// The file in a launch directory.
fn file(dir: &Path) -> PathBuf {
    dir.join("launch.json")
}
