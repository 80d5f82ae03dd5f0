//! The network card that the guest sees.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::checked_text::string_conversions;

/// The guest's network card: a QEMU device model, or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Device {
    /// No `-device` argument: the caller's own QEMU arguments attach a card with `netdev=ID`.
    None,
    /// The model of a `-device` argument, such as `virtio-net-pci`.
    Model(String),
}

/// A text does not name a device model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a QEMU device model: write 'none' or a name such as virtio-net-pci, e1000 or virtio-net-device"
)]
pub struct DeviceError(pub String);

impl Device {
    /// Returns whether the card is a virtio card, which takes its MTU from `host_mtu=`.
    pub fn is_virtio(&self) -> bool {
        matches!(self, Device::Model(name) if name.starts_with("virtio-net"))
    }
}

impl Default for Device {
    fn default() -> Self {
        Device::Model("virtio-net-pci".to_owned())
    }
}

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        if text == "none" {
            return Ok(Device::None);
        }
        let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if first && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
            Ok(Device::Model(text.to_owned()))
        } else {
            Err(DeviceError(text.to_owned()))
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::None => "none",
            Device::Model(name) => name,
        })
    }
}

string_conversions!(Device, DeviceError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_one_word_without_commas_or_spaces() {
        assert_eq!("none".parse(), Ok(Device::None));
        assert_eq!("e1000".parse(), Ok(Device::Model("e1000".into())));
        assert!("virtio-net-device".parse::<Device>().unwrap().is_virtio());
        for bad in ["", "e1000,mac=1", "-x", "a b"] {
            assert_eq!(bad.parse::<Device>(), Err(DeviceError(bad.to_owned())));
        }
    }
}
