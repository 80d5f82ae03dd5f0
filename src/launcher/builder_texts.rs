//! The conversions of texts by which a [`LauncherBuilder`](super::LauncherBuilder) takes them for
//! typed values.

use super::plan::{AddressChoice, NicRequest};
use crate::types::{
    Device, DomainName, HostAddress, Id, InterfaceName, LaunchName, Mac, PublishRequest, UserName,
};

/// Lets the builder take texts for these values.
macro_rules! from_text {
    ($($value:ty),*) => {
        $(impl TryFrom<&str> for $value {
            type Error = <$value as std::str::FromStr>::Err;

            fn try_from(text: &str) -> Result<Self, Self::Error> {
                text.parse()
            }
        })*
    };
}

from_text!(
    AddressChoice,
    Device,
    DomainName,
    HostAddress,
    Id,
    InterfaceName,
    LaunchName,
    Mac,
    NicRequest,
    PublishRequest,
    UserName
);

impl From<HostAddress> for AddressChoice {
    fn from(address: HostAddress) -> Self {
        AddressChoice::Fixed(address)
    }
}
