//! Decides whether a saved lease may be reused by another binding or process, and which addresses
//! the guest of a port cannot have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use super::bridge::{Site, find};
use super::compile_port::{method, method6};
use super::{BindingError, Bindings, PortStatus};
use crate::nwfilter::Binding;
use crate::nwfilter::learn::{
    BootTime, Clock, Learner, Lease, Method, SavedLease, Table6, UsedAddresses, UsedAddresses6,
    since_boot,
};
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
        let method6 = method6(&binding.variables()).ok().flatten();
        Ok(saved.filter(|saved| saved.lease.is_none_or(believes)).map(|mut saved| {
            saved.leases6.retain(|lease| method6.as_ref().is_some_and(|how| how.accepts(lease)));
            saved
        }))
    }

    /// Reads the lease of an earlier binding of the same guest to the same port. If the IPv4
    /// address is in use by now, the lease is removed. IPv6 addresses that are in use are left out.
    pub(super) async fn lease_of_earlier_binding(
        &self,
        status: &PortStatus,
        binding: &Binding,
        others: &[PortStatus],
    ) -> Result<Option<SavedLease>, BindingError> {
        let Some(saved) = self.saved_lease(status, binding)? else { return Ok(None) };
        let free = self.free_lease(saved, status, others).await?;
        if free.is_none() {
            self.leases.remove(&status.port)?;
        }
        Ok(free)
    }

    /// Returns a saved lease without the IPv6 addresses that are in use; `None` if the IPv4 address
    /// is in use.
    pub(super) async fn free_lease(
        &self,
        mut saved: SavedLease,
        status: &PortStatus,
        others: &[PortStatus],
    ) -> Result<Option<SavedLease>, BindingError> {
        let (used, used6) = self.used_addresses(status, others).await?;
        let is_free = |lease: Lease| used.reason(lease.address).is_none();
        saved.leases6.retain(|lease| used6.reason(lease.address).is_none());
        Ok(Some(saved).filter(|saved| saved.lease.is_none_or(is_free)))
    }

    /// Returns the addresses that the guest of a port cannot have. `others` are the ports that have
    /// a filter; the caller holds the lock. Only ports on the same bridge count: behind another
    /// bridge, the same address belongs to a guest of another network.
    pub(super) async fn used_addresses(
        &self,
        status: &PortStatus,
        others: &[PortStatus],
    ) -> Result<(UsedAddresses, UsedAddresses6), BindingError> {
        let (mut used, mut used6, host) = host_addresses().await?;
        let clock = Clock::now();
        for other in ports_on_same_bridge(&host, status, others) {
            let Ok(binding) = self.binding(other) else { continue };
            used.servers.extend(address_values::<Ipv4Addr>(&binding, "DHCPSERVER"));
            used6.servers.extend(address_values::<Ipv6Addr>(&binding, "DHCPV6SERVER"));
            let mut theirs: Vec<Ipv4Addr> = address_values(&binding, "IP");
            let mut theirs6: Vec<Ipv6Addr> = address_values(&binding, "IPV6");
            theirs.extend(other.address);
            theirs6.extend(&other.addresses6);
            // If the rules could not be set before, a reload sets them with this saved address.
            if other.learns && (other.address.is_none() || other.addresses6.is_empty()) {
                let saved = self.leases.read(&other.port, &clock).ok().flatten();
                let saved = saved.filter(|saved| saved.is_of(other.index, binding.mac));
                let lease = saved.as_ref().and_then(|saved| saved.lease);
                theirs.extend(lease.filter(|_| other.learns4()).map(|lease| lease.address));
                let leases6 = saved.map(|saved| saved.leases6).unwrap_or_default();
                theirs6.extend(leases6.iter().filter(|_| other.learns6).map(|lease| lease.address));
            }
            used.ports.extend(theirs.into_iter().map(|address| (address, other.port.clone())));
            used6.ports.extend(theirs6.into_iter().map(|address| (address, other.port.clone())));
        }
        Ok((used, used6))
    }

    /// Refuses a binding that sets an address which another port on the same bridge learned. Two
    /// bindings may set the same address: the operator decided so.
    pub(super) async fn check_binding_address(
        &self,
        status: &PortStatus,
        binding: &Binding,
        others: &[PortStatus],
    ) -> Result<(), BindingError> {
        let mut named: Vec<IpAddr> = address_values(binding, "IP");
        named.extend(address_values::<IpAddr>(binding, "IPV6"));
        let learned = |other: &PortStatus| -> Vec<IpAddr> {
            let v6 = other.addresses6.iter().copied().map(IpAddr::V6);
            other.address.map(IpAddr::V4).into_iter().chain(v6).collect()
        };
        if named.is_empty() || others.iter().all(|other| learned(other).is_empty()) {
            return Ok(());
        }
        let (_, _, host) = host_addresses().await?;
        let holder = ports_on_same_bridge(&host, status, others).find_map(|other| {
            let address = learned(other).into_iter().find(|is| named.contains(is))?;
            Some((other, address))
        });
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
/// neighbors unless it is a macvtap or macvlan. A master of another kind, such as Open vSwitch,
/// does not show which of its ports reach each other.
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

/// Returns the addresses among the values of a binding's variable.
fn address_values<A: FromStr>(binding: &Binding, name: &str) -> Vec<A> {
    binding
        .parameters
        .iter()
        .filter(|(variable, _)| variable.to_string() == name)
        .filter_map(|(_, value)| value.as_str().parse().ok())
        .collect()
}

/// Creates the learners for the guest of a binding, with the saved addresses if there are some. The
/// second one is there if the port learns IPv6 addresses.
pub(super) async fn learners(
    status: &PortStatus,
    binding: &Binding,
    method: Method,
    saved: Option<SavedLease>,
) -> Result<(Learner, Option<Table6>), BindingError> {
    let (used, used6, _) = host_addresses().await?;
    let learner = Learner::new(method, binding.mac, used);
    let method6 = method6(&binding.variables())?.filter(|_| status.learns6);
    let table = method6.map(|method| Table6::new(method, binding.mac, used6));
    let Some(saved) = saved else { return Ok((learner, table)) };
    let now = since_boot();
    Ok((
        if saved.had_address { learner.resumed(saved.lease, BootTime::now()) } else { learner },
        table.map(|table| table.resumed(saved.leases6, now)),
    ))
}

/// Returns the host's own addresses with their subnets and its routers, and all network data of the
/// host.
async fn host_addresses() -> Result<(UsedAddresses, UsedAddresses6, HostNet), BindingError> {
    let host = Netlink::open()?.host().await?;
    let (mut used, mut used6) = (UsedAddresses::default(), UsedAddresses6::default());
    for address in &host.addresses {
        match address.address {
            IpNet::V4(net) => used.hosts.push(net),
            IpNet::V6(net) => used6.hosts.push(net),
        }
    }
    for address in &host.next_hops {
        match address {
            IpAddr::V4(address) => used.next_hops.push(*address),
            IpAddr::V6(address) => used6.next_hops.push(*address),
        }
    }
    Ok((used, used6, host))
}
