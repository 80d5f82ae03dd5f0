//! Decides whether a saved lease may be reused by another binding or process, and which addresses
//! the guest of a port cannot have.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::bridge::{Site, find};
use super::compile_port::{method, method6};
use super::summary::{PortSummary, address_nets, learned};
use super::{BindingError, Bindings, PortStatus};
use crate::nwfilter::Binding;
use crate::nwfilter::learn::{
    BootTime, Clock, Learner, Lease, Method, SavedLease, Table6, UsedAddresses, UsedAddresses6,
    since_boot,
};
use crate::sys::netlink::{HostNet, Link, Netlink};
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
        others: &[PortSummary],
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
        others: &[PortSummary],
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
        others: &[PortSummary],
    ) -> Result<(UsedAddresses, UsedAddresses6), BindingError> {
        let (mut used, mut used6, host) = host_addresses().await?;
        let clock = Clock::now();
        let own = (status.index, segment(&host, status.index));
        for other in others.iter().filter(|other| is_neighbor(&host, own, other)) {
            let Some(guest) = &other.guest else { continue };
            used.servers.extend(&guest.servers);
            used6.servers.extend(&guest.servers6);
            let (mut theirs, mut theirs6): (Vec<Ipv4Net>, Vec<Ipv6Net>) = (vec![], vec![]);
            for net in &guest.nets {
                match net {
                    IpNet::V4(net) => theirs.push(*net),
                    IpNet::V6(net) => theirs6.push(*net),
                }
            }
            theirs.extend(other.address.map(Ipv4Net::from));
            theirs6.extend(other.addresses6.iter().copied().map(Ipv6Net::from));
            // If the rules could not be set before, a reload sets them with this saved address.
            if other.learns() && (other.address.is_none() || other.addresses6.is_empty()) {
                let saved = self.leases.read(&other.port, &clock).ok().flatten();
                let saved = saved.filter(|saved| saved.is_of(other.index, guest.mac));
                let lease = saved.as_ref().and_then(|saved| saved.lease);
                let lease = lease.filter(|_| other.learns4);
                theirs.extend(lease.map(|lease| Ipv4Net::from(lease.address)));
                let leases6 = saved.filter(|_| other.learns6).map(|saved| saved.leases6);
                let leases6 = leases6.unwrap_or_default();
                theirs6.extend(leases6.iter().map(|lease| Ipv6Net::from(lease.address)));
            }
            used.ports.extend(theirs.into_iter().map(|net| (net, other.port.clone())));
            used6.ports.extend(theirs6.into_iter().map(|net| (net, other.port.clone())));
        }
        Ok((used, used6))
    }

    /// Refuses a binding that sets an address which another port on the same bridge learned, or a
    /// subnet that has it. Two bindings may set the same address: the operator decided so.
    pub(super) async fn check_binding_address(
        &self,
        status: &PortStatus,
        binding: &Binding,
        others: &[PortSummary],
    ) -> Result<(), BindingError> {
        let named = address_nets(binding);
        let conflict = |other: &PortSummary| {
            other.learned().find(|is| named.iter().any(|net| net.contains(is)))
        };
        let holders = others.iter().filter_map(|other| Some((other, conflict(other)?)));
        let holders: Vec<(&PortSummary, IpAddr)> = holders.collect();
        // The kernel lists all interfaces of the host, so it is asked only if there is a conflict.
        if holders.is_empty() {
            return Ok(());
        }
        let (_, _, host) = host_addresses().await?;
        let own = (status.index, segment(&host, status.index));
        match holders.into_iter().find(|(other, _)| is_neighbor(&host, own, other)) {
            Some((holder, address)) => Err(BindingError::AddressInUse {
                port: status.port.clone(),
                address,
                holder: holder.port.clone(),
            }),
            None => Ok(()),
        }
    }
}

impl Bindings {
    /// Returns a sentence for each learned address that another port on the same bridge has, too: a
    /// port may have come from another bridge since it learned the address.
    ///
    /// # Errors
    /// [`BindingError::Link`] if the kernel does not list the interfaces.
    pub async fn shared_addresses(
        &self,
        ports: &[PortStatus],
    ) -> Result<Vec<String>, BindingError> {
        if ports.iter().all(|status| learned_addresses(status).is_empty()) {
            return Ok(Vec::new());
        }
        let (_, _, host) = host_addresses().await?;
        let mut learned: BTreeMap<(u32, IpAddr), Vec<&PortStatus>> = BTreeMap::new();
        let mut named: Vec<(u32, IpNet, &PortStatus)> = Vec::new();
        for status in ports {
            let Some(segment) = segment(&host, status.index) else { continue };
            for address in learned_addresses(status) {
                learned.entry((segment, address)).or_default().push(status);
            }
            let nets = self.binding(status).map_or_else(|_| vec![], |it| address_nets(&it));
            named.extend(nets.into_iter().map(|net| (segment, net, status)));
        }
        let mut notes = Vec::new();
        for ((segment, address), ports) in learned {
            let named =
                named.iter().filter(|(on, net, _)| *on == segment && net.contains(&address));
            let mut all = ports.into_iter().chain(named.map(|(_, _, status)| *status));
            let Some(first) = all.next() else { continue };
            let Some(other) = all.find(|other| other.index != first.index) else { continue };
            notes.push(format!(
                "the ports {} and {} of the same bridge both have the address {address}: remove the filter of one of them and bind it again",
                first.port, other.port
            ));
        }
        Ok(notes)
    }
}

/// Returns the addresses that a port has learned.
fn learned_addresses(status: &PortStatus) -> Vec<IpAddr> {
    learned(status.address, &status.addresses6).collect()
}

/// Returns whether another port is on the same bridge as the own one, or above the same interface;
/// `own` has the interface index and the segment of that. A port on no bridge has no neighbors
/// unless it is a macvtap or macvlan. A master of another kind, such as Open vSwitch, does not show
/// which of its ports reach each other.
fn is_neighbor(host: &HostNet, own: (u32, Option<u32>), other: &PortSummary) -> bool {
    let (index, segment) = own;
    other.index != index && segment.is_some() && self::segment(host, other.index) == segment
}

/// Returns the number of the bridge of a port, or of the interface below a macvtap or macvlan,
/// which may be a bridge, too.
fn segment(host: &HostNet, index: u32) -> Option<u32> {
    match find(Link::among(&host.links, index)?, &host.links).ok()? {
        Site::Bridge(bridge) => Some(bridge.index),
        Site::Interface(lower) => lower.map(|lower| lower.index),
    }
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
