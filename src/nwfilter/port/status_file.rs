//! The form of a port's status in its file.
//!
//! The reader has the three flags of [`PortState`] as members of the file. With serde's `flatten`
//! it would first copy all members.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{PortState, PortStatus};
use crate::firewall::{FirewallBackend, PortHooks, PortRecord};
use crate::types::InterfaceName;

/// The members of a status file, as [`PortStatus`] describes them. Earlier releases did not write
/// those with a default.
#[derive(Deserialize)]
pub(super) struct StatusFile {
    version: u32,
    port: InterfaceName,
    index: u32,
    #[serde(default)]
    bridge: Option<InterfaceName>,
    #[serde(default)]
    hooks: PortHooks,
    #[serde(default)]
    lower: Option<InterfaceName>,
    xml: String,
    complete: bool,
    #[serde(default)]
    failed: Option<String>,
    #[serde(default)]
    turned_off: bool,
    #[serde(default)]
    learns: bool,
    #[serde(default)]
    learns6: bool,
    #[serde(default)]
    only6: bool,
    #[serde(default)]
    address: Option<Ipv4Addr>,
    #[serde(default)]
    addresses6: Vec<Ipv6Addr>,
    #[serde(default)]
    refused: Option<String>,
    #[serde(default)]
    refused6: Option<String>,
    backend: FirewallBackend,
    #[serde(default)]
    trace: bool,
    #[serde(default)]
    counters: bool,
    #[serde(default, with = "crate::types::os_text::optional_path")]
    definitions: Option<PathBuf>,
    recorded: Vec<PortRecord>,
}

impl From<StatusFile> for PortStatus {
    fn from(file: StatusFile) -> Self {
        let StatusFile { complete, failed, turned_off, .. } = file;
        PortStatus {
            version: file.version,
            port: file.port,
            index: file.index,
            bridge: file.bridge,
            hooks: file.hooks,
            lower: file.lower,
            xml: file.xml,
            state: StateFlags { complete, failed, turned_off }.into(),
            learns: file.learns,
            learns6: file.learns6,
            only6: file.only6,
            address: file.address,
            addresses6: file.addresses6,
            refused: file.refused,
            refused6: file.refused6,
            backend: file.backend,
            trace: file.trace,
            counters: file.counters,
            definitions: file.definitions,
            recorded: file.recorded,
            renamed_from: None,
        }
    }
}

/// The form of [`PortState`] in the file.
#[derive(Serialize)]
pub(super) struct StateFlags {
    complete: bool,
    failed: Option<String>,
    turned_off: bool,
}

impl From<StateFlags> for PortState {
    fn from(StateFlags { complete, failed, turned_off }: StateFlags) -> Self {
        let unknown = || "its rules could not be set".to_owned();
        match (complete, turned_off, failed) {
            (false, off, _) => PortState::Changing { off },
            (true, false, None) => PortState::Bound,
            (true, false, Some(why)) => PortState::Failed(why),
            (true, true, why) => PortState::Off(why.unwrap_or_else(unknown)),
        }
    }
}

impl From<PortState> for StateFlags {
    fn from(state: PortState) -> Self {
        let (complete, turned_off, failed) = match state {
            PortState::Changing { off } => (false, off, None),
            PortState::Bound => (true, false, None),
            PortState::Failed(why) => (true, false, Some(why)),
            PortState::Off(why) => (true, true, Some(why)),
        };
        StateFlags { complete, failed, turned_off }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
pub(super) fn is_false(value: &bool) -> bool {
    !value
}
