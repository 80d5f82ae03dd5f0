//! Gives each user-mode NIC of a guest an IPv4 subnet of its own.
//!
//! A guest with two cards in one subnet sends everything through one of them. The first NIC has
//! the usual subnet, and a further NIC whose address is not requested gets the next free one:
//! 10.0.3.0/24, 10.0.4.0/24, and so on.

use std::borrow::Cow;

use ipnet::Ipv4Net;

use super::error::PlanError;
use super::guest_addresses::{guest_addresses, overlaps};
use super::model::NicPlan;
use super::request::{AddressChoice, NicRequest, Request};
use crate::types::facts::Facts;
use crate::types::{DEFAULT_SUBNETS, GuestAddresses};

/// The number of subnets that are tried behind each default subnet.
const BEHIND: u32 = 40;

/// Returns the NIC with an address of its own if the default one is in the subnet of another NIC.
///
/// # Errors
/// No subnet is free.
pub(super) fn with_own_subnet<'a>(
    nic: &'a NicRequest,
    request: &Request,
    facts: &Facts,
    before: &[NicPlan],
) -> Result<Cow<'a, NicRequest>, PlanError> {
    let planned = before.iter().filter_map(|nic| nic.addresses);
    // A NIC that keeps its words has no planned addresses, and its words have one.
    let written = before.iter().map(|nic| &nic.request);
    let requested = request.nics.iter().chain(written).filter_map(|nic| match nic.address {
        AddressChoice::Fixed(address) => Some(address),
        _ => None,
    });
    let planned = planned.map(|addresses| addresses.address);
    let used = planned.chain(requested).map(|address| address.subnet());
    let used: Vec<Ipv4Net> = used.chain(request.present.subnets.iter().copied()).collect();
    let is_used = |subnet: &Ipv4Net| used.iter().any(|other| overlaps(other, subnet));
    let usual = match nic.address {
        AddressChoice::Default => guest_addresses(nic, facts, &mut Vec::new()),
        _ => return Ok(Cow::Borrowed(nic)),
    };
    match usual.map_err(PlanError::GuestAddresses)? {
        Some(usual) if is_used(&usual.address.subnet()) => {}
        _ => return Ok(Cow::Borrowed(nic)),
    }
    let is_routed =
        |subnet: &Ipv4Net| facts.host.routes.iter().any(|route| overlaps(route, subnet));
    let free = candidates().find(|subnet| !is_used(subnet) && !is_routed(subnet));
    let subnet = free.ok_or(PlanError::NoSubnet)?;
    let address = GuestAddresses::in_subnet(subnet).map_err(PlanError::GuestAddresses)?.address;
    Ok(Cow::Owned(NicRequest { address: AddressChoice::Fixed(address), ..nic.clone() }))
}

/// Returns the subnets that a guest can get.
fn candidates() -> impl Iterator<Item = Ipv4Net> {
    DEFAULT_SUBNETS.into_iter().flat_map(|first| {
        let network = u32::from(first.network());
        (0..=BEHIND).filter_map(move |step| {
            Ipv4Net::new((network + (step << 8)).into(), first.prefix_len()).ok()
        })
    })
}
