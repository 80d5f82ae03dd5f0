//! The VLANs of a port on a bridge (IEEE 802.1Q).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The number of a VLAN, 1 to 4094.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct VlanId(u16);

/// The number is not that of a VLAN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a VLAN: use 1 to 4094")]
pub struct VlanIdError(pub String);

impl TryFrom<u16> for VlanId {
    type Error = VlanIdError;

    fn try_from(number: u16) -> Result<Self, VlanIdError> {
        // 0 marks frames of no VLAN, and 4095 is reserved (IEEE 802.1Q, table 9-2).
        if (1..=4094).contains(&number) {
            Ok(VlanId(number))
        } else {
            Err(VlanIdError(number.to_string()))
        }
    }
}

impl From<VlanId> for u16 {
    fn from(id: VlanId) -> u16 {
        id.0
    }
}

impl FromStr for VlanId {
    type Err = VlanIdError;

    fn from_str(text: &str) -> Result<Self, VlanIdError> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number: Option<u16> = digits.then(|| text.parse().ok()).flatten();
        number.and_then(|number| number.try_into().ok()).ok_or_else(|| VlanIdError(text.to_owned()))
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The VLANs of a port. The guest of an access port sends frames without a tag; the guest of a
/// trunk sends frames with the tags of these VLANs, and frames without a tag belong to the native
/// VLAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Vlan {
    /// All frames of the guest belong to this VLAN.
    Access(VlanId),
    /// The guest uses several VLANs.
    Trunk {
        /// The VLANs; there is at least one, and none is there twice.
        tags: Vec<VlanId>,
        /// The VLAN of frames without a tag, which is one of `tags`; `None` drops them.
        native: Option<Native>,
    },
}

/// The native VLAN of a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Native {
    /// The VLAN.
    pub id: VlanId,
    /// Whether frames of this VLAN reach the guest with a tag (libvirt's `nativeMode='tagged'`).
    pub tagged: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_is_a_number_from_1_to_4094() {
        assert_eq!("4094".parse::<VlanId>().map(u16::from), Ok(4094));
        for bad in ["0", "4095", "-1", "+1", "", "65537", "1 "] {
            assert_eq!(bad.parse::<VlanId>(), Err(VlanIdError(bad.to_owned())));
        }
    }
}
