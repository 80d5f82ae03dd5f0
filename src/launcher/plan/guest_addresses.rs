//! Chooses the IPv4 addresses of a user-mode guest: its own, its gateway and its DNS server.
//!
//! The request names an address, or the first of [`DEFAULT_SUBNETS`]'s subnets that overlaps no
//! route of this host is used. A subnet that overlaps a route would hide the hosts behind that
//! route from the guest, so a note says when this happens.

use std::str::FromStr;

use ipnet::Ipv4Net;

use super::request::{Family, NicRequest};
use crate::types::facts::Facts;
use crate::types::{
    AddressError, DEFAULT_SUBNETS, GuestAddresses, GuestAddressesError, HostAddress,
};

/// The guest's IPv4 address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressChoice {
    /// 10.0.2.15/24, or a similar address of another private subnet if the host routes 10.0.2.0/24.
    #[default]
    Default,
    /// The host's own address, which passt mirrors.
    Host,
    /// This address.
    Fixed(HostAddress),
}

impl FromStr for AddressChoice {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "host" => Ok(AddressChoice::Host),
            _ => text.parse().map(AddressChoice::Fixed),
        }
    }
}

/// Returns the guest's addresses; `None` if it mirrors the host, has no IPv4, or is on a bridge.
///
/// # Errors
/// The requested gateway or DNS server does not fit the subnet.
pub(super) fn guest_addresses(
    nic: &NicRequest,
    facts: &Facts,
    notes: &mut Vec<String>,
) -> Result<Option<GuestAddresses>, GuestAddressesError> {
    let overlapping =
        |subnet: &Ipv4Net| facts.host.routes.iter().find(|route| overlaps(route, subnet));
    let address = match nic.address {
        _ if nic.family == Family::V6 || nic.attachment.is_some() => return Ok(None),
        AddressChoice::Host => return Ok(None),
        AddressChoice::Fixed(address) => {
            if let Some(route) = overlapping(&address.subnet()) {
                notes.push(format!(
                    "this host routes {route}, which the guest's subnet {} hides from the guest",
                    address.subnet()
                ));
            }
            address
        }
        AddressChoice::Default => {
            let [usual, ..] = DEFAULT_SUBNETS;
            let free = DEFAULT_SUBNETS.iter().find(|subnet| overlapping(subnet).is_none());
            let subnet = *free.unwrap_or(&usual);
            match (overlapping(&usual), free) {
                (Some(route), Some(_)) => notes
                    .push(format!("this host routes {route}, so the guest's subnet is {subnet}")),
                (Some(route), None) => notes.push(format!(
                    "this host routes {route}, which the guest's subnet {subnet} hides from the guest, and all others that are tried; set the guest's address"
                )),
                (None, _) => {}
            }
            GuestAddresses::in_subnet(subnet)?.address
        }
    };
    GuestAddresses::new(address, nic.gateway, nic.forwarder(address)).map(Some)
}

/// Returns whether two subnets have a common address.
pub(super) fn overlaps(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(b) || b.contains(a)
}
