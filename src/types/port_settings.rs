//! The settings of a guest's port on a bridge, apart from its filter.

use serde::{Deserialize, Serialize};

use super::{Bandwidth, Vlan};

/// The settings of a guest's port on a bridge. The default is a port without limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSettings {
    /// The limits of the guest's traffic.
    #[serde(default)]
    pub bandwidth: Bandwidth,
    /// The VLANs; `None` leaves those that a new port of the bridge has.
    #[serde(default)]
    pub vlan: Option<Vlan>,
    /// Whether the guest reaches no other isolated port of the bridge.
    #[serde(default)]
    pub isolated: bool,
}
