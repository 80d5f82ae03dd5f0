//! Decides whether a saved lease may be reused by another binding or process, and which addresses
//! the guest of a port cannot have.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::bridge::{Site, find};
use super::compile_port::method;
use super::{BindingError, Bindings, PortStatus};
use crate::nwfilter::Binding;
use crate::nwfilter::learn::{BootTime, Clock, Learner, Lease, Method, SavedLease, UsedAddresses};
use crate::sys::netlink::{HostNet, Netlink};
use crate::types::error_text;

impl Bindings {
    /// Reads the saved lease of a port, if it is of this guest and interface, has not expired, and
    /// comes from a source that this binding accepts.
    pub(super) fn saved_lease(
        &self,
        status: &PortStatus,
        binding: &Binding,
    ) -> Result<Option<SavedLease>, BindingError> {
        // An unreadable file affects this port only, and its address is learned again.
        let saved = self.leases.read(&status.port, &Clock::now()).unwrap_or_else(|error| {
            tracing::warn!("{}", error_text(&error));
            None
        });
        let saved = saved.filter(|saved| saved.is_of(status.index, binding.mac));
        // Bad parameters are reported when the rules are compiled.
        let method = method(&binding.variables()).ok().flatten();
        let believes = |lease: Lease| method.as_ref().is_some_and(|method| method.accepts(&lease));
        Ok(saved.filter(|saved| saved.lease.is_none_or(believes)))
    }

    /// Reads the lease of an earlier binding of the same guest to the same port. If the address is
    /// in use by now, the lease is removed.
    pub(super) async fn lease_of_earlier_binding(
        &self,
        status: &PortStatus,
        binding: &Binding,
        others: &[PortStatus],
    ) -> Result<Option<SavedLease>, BindingError> {
        let Some(saved) = self.saved_lease(status, binding)? else { return Ok(None) };
        let used = self.used_addresses(status, others).await?;
        let is_free = |lease: Lease| used.reason(lease.address).is_none();
        if saved.lease.is_none_or(is_free) {
            return Ok(Some(saved));
        }
        self.leases.remove(&status.port)?;
        Ok(None)
    }

    /// Returns the addresses that the guest of a port cannot have. `others` are the ports that have
    /// a filter; the caller holds the lock. Only ports on the same bridge count: behind another
    /// bridge, the same address belongs to a guest of another network.
    pub(super) async fn used_addresses(
        &self,
        status: &PortStatus,
        others: &[PortStatus],
    ) -> Result<UsedAddresses, BindingError> {
        let (mut used, host) = host_addresses().await?;
        let clock = Clock::now();
        for other in ports_on_same_bridge(&host, status, others) {
            let Ok(binding) = self.binding(other) else { continue };
            used.servers.extend(ipv4_values(&binding, "DHCPSERVER"));
            let mut theirs = ipv4_values(&binding, "IP");
            theirs.extend(other.address);
            // If the rules could not be set before, a reload sets them with this saved address.
            if other.learns && other.address.is_none() {
                let saved = self.leases.read(&other.port, &clock).ok().flatten();
                let saved = saved.filter(|saved| saved.is_of(other.index, binding.mac));
                theirs.extend(saved.and_then(|saved| saved.lease).map(|lease| lease.address));
            }
            used.ports.extend(theirs.into_iter().map(|address| (address, other.port.clone())));
        }
        Ok(used)
    }

    /// Refuses a binding that sets an address which another port on the same bridge learned. Two
    /// bindings may set the same address: the operator decided so.
    pub(super) async fn check_binding_address(
        &self,
        status: &PortStatus,
        binding: &Binding,
        others: &[PortStatus],
    ) -> Result<(), BindingError> {
        let named = ipv4_values(binding, "IP");
        if named.is_empty() || others.iter().all(|other| other.address.is_none()) {
            return Ok(());
        }
        let (_, host) = host_addresses().await?;
        let holder = ports_on_same_bridge(&host, status, others)
            .find_map(|other| Some((other, other.address.filter(|is| named.contains(is))?)));
        match holder {
            Some((holder, address)) => Err(BindingError::AddressInUse {
                port: status.port.clone(),
                address,
                holder: holder.port.clone(),
            }),
            None => Ok(()),
        }
    }
}

/// Returns the ports on the same bridge, or above the same interface. A port on no bridge has no
/// neighbors unless it is a macvtap or macvlan. A master of another kind, such as Open vSwitch, does
/// not show which of its ports reach each other.
fn ports_on_same_bridge<'a>(
    host: &HostNet,
    status: &PortStatus,
    others: &'a [PortStatus],
) -> impl Iterator<Item = &'a PortStatus> {
    let own = status.index;
    let segment = segment(host, own);
    let on_it: Vec<&PortStatus> = others
        .iter()
        .filter(|other| {
            let theirs = segment.and_then(|_| self::segment(host, other.index));
            other.index != own && theirs.is_some() && theirs == segment
        })
        .collect();
    on_it.into_iter()
}

/// Returns the number of the bridge of a port, or of the interface below a macvtap or macvlan,
/// which may be a bridge, too.
fn segment(host: &HostNet, index: u32) -> Option<u32> {
    let link = |index: u32| host.links.iter().find(|link| link.index == index);
    let port = link(index)?;
    match find(port, &host.links).ok()? {
        Site::Bridge(bridge) => Some(bridge.index),
        Site::Interface(lower) => lower.map(|lower| lower.index),
    }
}

/// Returns the IPv4 addresses among the values of a binding's variable.
fn ipv4_values(binding: &Binding, name: &str) -> Vec<Ipv4Addr> {
    binding
        .parameters
        .iter()
        .filter(|(variable, _)| variable.to_string() == name)
        .filter_map(|(_, value)| value.as_str().parse().ok())
        .collect()
}

/// Creates the learner for the guest of a binding, with the saved lease if there is one.
pub(super) async fn learner(
    binding: &Binding,
    method: Method,
    saved: Option<SavedLease>,
) -> Result<Learner, BindingError> {
    let learner = Learner::new(method, binding.mac, host_addresses().await?.0);
    Ok(match saved {
        Some(saved) => learner.resumed(saved.lease, BootTime::now()),
        None => learner,
    })
}

/// Returns the host's own IPv4 addresses with their subnets and its routers, and all network data
/// of the host.
async fn host_addresses() -> Result<(UsedAddresses, HostNet), BindingError> {
    let host = Netlink::open()?.host().await?;
    let own = |net: IpNet| match net {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    };
    let v4 = |address: &IpAddr| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    };
    let hosts = host.addresses.iter().filter_map(|address| own(address.address)).collect();
    let next_hops = host.next_hops.iter().filter_map(v4).collect();
    Ok((UsedAddresses { hosts, next_hops, ..UsedAddresses::default() }, host))
}
