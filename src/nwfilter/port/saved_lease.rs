//! Decides whether a saved lease may be reused by another binding or process, and which addresses the
//! guest of a port cannot have.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::meaning::method;
use super::{BindingError, Bindings, Status};
use crate::learn::{BootTime, Clock, Kept, Learner, Lease, Method, Taken};
use crate::link::{HostNet, Netlink};
use crate::nwfilter::Binding;

impl Bindings {
    /// What was learnt about a port's guest, still holds, and would be believed by this binding.
    pub(super) fn kept(
        &self,
        status: &Status,
        binding: &Binding,
    ) -> Result<Option<Kept>, BindingError> {
        // A file that cannot be read is about this port alone, and its address is learnt again.
        let kept = self.leases.read(&status.port, &Clock::now()).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            None
        });
        let kept = kept.filter(|kept| kept.is_of(status.index, binding.mac));
        // What a mistake in its parameters is, who makes the rules says.
        let method = method(&binding.variables()).ok().flatten();
        let believes = |lease: Lease| method.as_ref().is_some_and(|method| method.believes(&lease));
        Ok(kept.filter(|kept| kept.lease.is_none_or(believes)))
    }

    /// What was learnt for an earlier binding of the same guest to the same port. An address that is
    /// taken by now is kept no more.
    pub(super) async fn inherited(
        &self,
        status: &Status,
        binding: &Binding,
        others: &[Status],
    ) -> Result<Option<Kept>, BindingError> {
        let Some(kept) = self.kept(status, binding)? else { return Ok(None) };
        let taken = self.taken(status, others).await?;
        let is_free = |lease: Lease| taken.reason(lease.address).is_none();
        if kept.lease.is_none_or(is_free) {
            return Ok(Some(kept));
        }
        self.leases.remove(&status.port)?;
        Ok(None)
    }

    /// The addresses that the guest of a port cannot have. `others` are the ports that have a
    /// filter; the caller holds the lock. Of these the ports on the same bridge count: the same
    /// address behind another bridge is another guest's of another network.
    pub(super) async fn taken(
        &self,
        status: &Status,
        others: &[Status],
    ) -> Result<Taken, BindingError> {
        let (mut taken, host) = host_addresses().await?;
        let clock = Clock::now();
        for other in neighbours(&host, status, others) {
            let Ok(binding) = self.binding(other) else { continue };
            taken.servers.extend(ipv4_values(&binding, "DHCPSERVER"));
            let mut theirs = ipv4_values(&binding, "IP");
            theirs.extend(other.address);
            // A reload makes the rules with it, where that failed before.
            if other.learns && other.address.is_none() {
                let kept = self.leases.read(&other.port, &clock).ok().flatten();
                let kept = kept.filter(|kept| kept.is_of(other.index, binding.mac));
                theirs.extend(kept.and_then(|kept| kept.lease).map(|lease| lease.address));
            }
            taken.ports.extend(theirs.into_iter().map(|address| (address, other.port.clone())));
        }
        Ok(taken)
    }

    /// Refuses a binding that names an address which another port on the same bridge learnt.
    /// Bindings may name one address twice: that is the operator's word.
    pub(super) async fn check_named(
        &self,
        status: &Status,
        binding: &Binding,
        others: &[Status],
    ) -> Result<(), BindingError> {
        let named = ipv4_values(binding, "IP");
        if named.is_empty() || others.iter().all(|other| other.address.is_none()) {
            return Ok(());
        }
        let (_, host) = host_addresses().await?;
        let holder = neighbours(&host, status, others)
            .find_map(|other| Some((other, other.address.filter(|is| named.contains(is))?)));
        match holder {
            Some((holder, address)) => Err(BindingError::Holder {
                port: status.port.clone(),
                address,
                holder: holder.port.clone(),
            }),
            None => Ok(()),
        }
    }
}

/// The ports on the same bridge. One that is on none has no neighbours, and a device of another kind
/// that ports belong to, such as Open vSwitch's, does not tell which of them reach each other.
fn neighbours<'a>(
    host: &HostNet,
    status: &Status,
    others: &'a [Status],
) -> impl Iterator<Item = &'a Status> {
    let link = |index: u32| host.links.iter().find(|link| link.index == index);
    let bridge = link(status.index)
        .and_then(|port| link(port.master?))
        .filter(|master| master.bridge)
        .map(|bridge| bridge.index);
    let on_it: Vec<u32> = host
        .links
        .iter()
        .filter(|link| bridge.is_some() && link.master == bridge)
        .map(|link| link.index)
        .collect();
    let own = status.index;
    others.iter().filter(move |other| other.index != own && on_it.contains(&other.index))
}

/// The IPv4 addresses among the values of a binding's variable.
fn ipv4_values(binding: &Binding, name: &str) -> Vec<Ipv4Addr> {
    binding
        .parameters
        .iter()
        .filter(|(variable, _)| variable.to_string() == name)
        .filter_map(|(_, value)| value.as_str().parse().ok())
        .collect()
}

/// A learner for the guest of a binding.
pub(super) async fn learner(
    binding: &Binding,
    method: Method,
    kept: Option<Kept>,
) -> Result<Learner, BindingError> {
    let learner = Learner::new(method, binding.mac, host_addresses().await?.0);
    Ok(match kept {
        Some(kept) => learner.resumed(kept.lease, BootTime::now()),
        None => learner,
    })
}

/// The host's own IPv4 addresses with their subnets, and its routers; and all that the host has.
async fn host_addresses() -> Result<(Taken, HostNet), BindingError> {
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
    Ok((Taken { hosts, next_hops, ..Taken::default() }, host))
}
