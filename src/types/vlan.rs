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
#[serde(rename_all = "lowercase")]
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

/// A run of VLANs that a port has with the same properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanRun {
    /// The first VLAN.
    pub first: VlanId,
    /// The last VLAN, which is not lower than the first one.
    pub last: VlanId,
    /// Whether frames of the guest without a tag belong to it; then the run is one VLAN.
    pub native: bool,
    /// Whether its frames reach the guest without a tag.
    pub untagged: bool,
}

impl Vlan {
    /// Returns the VLANs of the port, the lowest first, with neighbours in one run.
    pub fn runs(&self) -> Vec<VlanRun> {
        let (mut tags, native) = match self {
            Vlan::Access(id) => (vec![*id], Some(Native { id: *id, tagged: false })),
            Vlan::Trunk { tags, native } => (tags.clone(), *native),
        };
        tags.sort_unstable();
        let mut runs: Vec<VlanRun> = Vec::new();
        for id in tags {
            let native = native.filter(|native| native.id == id);
            match runs.last_mut() {
                Some(run) if native.is_none() && !run.native && run.last.0 + 1 == id.0 => {
                    run.last = id;
                }
                _ => runs.push(VlanRun {
                    first: id,
                    last: id,
                    native: native.is_some(),
                    untagged: native.is_some_and(|native| !native.tagged),
                }),
            }
        }
        runs
    }
}

impl fmt::Display for Vlan {
    /// Writes `10`, or `trunk 10-12,20 native 10` with ` tagged` behind it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tags, native) = match self {
            Vlan::Access(id) => return id.fmt(f),
            Vlan::Trunk { tags, native } => (tags, native),
        };
        // Without a native VLAN, all neighbours are in one run.
        let runs = Vlan::Trunk { tags: tags.clone(), native: None }.runs();
        let runs: Vec<String> = runs
            .iter()
            .map(|run| {
                if run.first == run.last {
                    run.first.to_string()
                } else {
                    format!("{}-{}", run.first, run.last)
                }
            })
            .collect();
        write!(f, "trunk {}", runs.join(","))?;
        match native {
            Some(Native { id, tagged: false }) => write!(f, " native {id}"),
            Some(Native { id, tagged: true }) => write!(f, " native {id} tagged"),
            None => Ok(()),
        }
    }
}

/// The text is not that of a port's VLANs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no VLANs of a port: write one such as 10, or trunk 10-12,20 native 10")]
pub struct VlanError(pub String);

impl FromStr for Vlan {
    type Err = VlanError;

    /// Reads the text that [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, VlanError> {
        read(text).ok_or_else(|| VlanError(text.to_owned()))
    }
}

fn read(text: &str) -> Option<Vlan> {
    let words: Vec<&str> = text.split(' ').collect();
    let (tags, native) = match words[..] {
        [id] => return Some(Vlan::Access(id.parse().ok()?)),
        ["trunk", tags] => (tags, None),
        ["trunk", tags, "native", id] => (tags, Some((id, false))),
        ["trunk", tags, "native", id, "tagged"] => (tags, Some((id, true))),
        _ => return None,
    };
    let mut ids: Vec<VlanId> = Vec::new();
    for run in tags.split(',') {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let (first, last): (VlanId, VlanId) = (first.parse().ok()?, last.parse().ok()?);
        if ids.last().is_some_and(|before| *before >= first) || first > last {
            return None;
        }
        ids.extend((first.0..=last.0).map(VlanId));
    }
    let native = match native {
        Some((id, tagged)) => {
            let id = id.parse().ok().filter(|id| ids.contains(id))?;
            Some(Native { id, tagged })
        }
        None => None,
    };
    Some(Vlan::Trunk { tags: ids, native })
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

    #[test]
    fn the_vlans_of_a_port_are_read_and_written_as_one_text() {
        for text in ["10", "trunk 5", "trunk 1-3,5,4094 native 2", "trunk 7-8 native 8 tagged"] {
            assert_eq!(text.parse::<Vlan>().unwrap().to_string(), text);
        }
        for bad in ["", "trunk", "trunk 3-1", "trunk 1-3,3", "trunk 5 native 6", "trunk 5 tagged"] {
            assert_eq!(bad.parse::<Vlan>(), Err(VlanError(bad.to_owned())));
        }
    }

    #[test]
    fn the_native_vlan_is_a_run_of_its_own() {
        let runs = |text: &str| {
            let runs = text.parse::<Vlan>().unwrap().runs();
            let text = |run: VlanRun| {
                let of = |is: bool, word| if is { word } else { "" };
                let (native, untagged) = (of(run.native, "n"), of(run.untagged, "u"));
                format!("{}-{}{native}{untagged}", run.first, run.last)
            };
            runs.into_iter().map(text).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(runs("10"), "10-10nu");
        assert_eq!(runs("trunk 1-5,9 native 3"), "1-2 3-3nu 4-5 9-9");
        assert_eq!(runs("trunk 1-5 native 5 tagged"), "1-4 5-5n");
        assert_eq!(runs("trunk 1-5"), "1-5");
    }
}
