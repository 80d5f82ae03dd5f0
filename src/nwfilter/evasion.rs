//! Finds evasions of a filter: frames with forbidden contents in a form that the filter accepts.
//!
//! A rule about IPv4, IPv6 or ARP applies to plain frames. If a filter accepts other frames, a
//! guest can put the forged packet behind a VLAN tag or into another protocol, and hosts read it
//! there. This depends on all rules together, so it is found by trial: the judge of
//! [`super::explain`] gets a forged packet plain and in each encapsulation. The names of filters do
//! not matter. The frames have the guest's addresses and those that the rules name. Forged
//! addresses are documentation addresses, so the result is wrong for a filter that allows exactly
//! these.
//!
//! A filter that restricts the guest to its addresses may still allow it to act as a DHCP server or
//! a router, or to take a server's leases under other clients' names. libvirt's filters do, so only
//! `check` reports this.

mod named;
mod probe;

use std::fmt::{self, Display, Formatter};
use std::net::Ipv4Addr;

use super::explain::{EvalPath, Judge, Verdict};
use crate::firewall::rules::port::PortRules;
use crate::types::Mac;
use named::Named;
use probe::{Encapsulation, Inner, Probe};

/// An evasion of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evasion {
    /// Frames in other forms pass.
    Encapsulated {
        /// The kinds of plain frames that the filter stops.
        stopped: Vec<&'static str>,
        /// The forms that pass.
        by: Vec<&'static str>,
    },
    /// The guest can act as a server of these kinds.
    Serves(Vec<&'static str>),
    /// The guest can request leases in the name of other clients.
    DhcpClients,
}

impl Display for Evasion {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Evasion::Encapsulated { stopped, by } => write!(
                f,
                "it stops {} only in plain frames: with {}, frames with forged packets pass, and hosts read these packets; add the filter no-other-l2-traffic behind rules that accept what the guest may send, or use clean-traffic",
                stopped.join(", "),
                by.join(", ")
            ),
            Evasion::Serves(kinds) => write!(
                f,
                "the guest can act as {}; add the filter netlaunch-no-rogue-server, or use clean-traffic-strict",
                kinds.join(", ")
            ),
            Evasion::DhcpClients => write!(
                f,
                "the guest can take all leases of a DHCP server with forged client addresses; add the filter netlaunch-dhcp-client, or use clean-traffic-strict"
            ),
        }
    }
}

/// Returns the evasions of the rules of a guest with these addresses; `address` is `None` if it is
/// not known. Addresses and VLANs that the rules name are tried as well.
pub fn evasions(rules: &PortRules, mac: Mac, address: Option<Ipv4Addr>) -> Vec<Evasion> {
    let named = Named::of(rules);
    let guest = Probe::new(mac.octets(), address);
    let by_v4: Vec<Probe> = named.v4.iter().map(|address| guest.with_v4(*address)).collect();
    let by_v6: Vec<Probe> = named.v6.iter().map(|address| guest.with_v6(*address)).collect();
    let guests: Vec<Probe> = [guest].into_iter().chain(by_v4).chain(by_v6).collect();
    let verdict = |bytes: &[u8]| {
        let judged = Judge::new(rules).judge(EvalPath::Out, bytes, bytes.len());
        judged.map_or(Verdict::Undecided, |explained| explained.verdict)
    };
    let stops = |bytes: &[u8]| verdict(bytes).stops();
    let passes = |bytes: &[u8]| verdict(bytes) == Verdict::Pass;
    // If a filter also stops the honest frame, the trial proves nothing.
    let of = |all: fn(&Probe) -> Vec<(&'static str, Inner)>| {
        let is_distinguished = |guest: &Probe, inner: &Inner| {
            stops(&inner.plain()) && !stops(&guest.honest(inner).plain())
        };
        some(&guests, all, &is_distinguished)
    };
    let identity = of(Probe::forged);
    let stopped = [identity.clone(), of(Probe::served), of(Probe::clients)].concat();
    let is_carried = |form: Encapsulation, guest: &Probe| {
        let all = [guest.forged().split_off(1), guest.served(), guest.clients()];
        all.iter()
            .flatten()
            .any(|(_, inner)| form.frames(inner, &named.vlans).iter().any(|bytes| passes(bytes)))
    };
    let by: Vec<&'static str> = Encapsulation::ALL
        .into_iter()
        .filter(|form| guests.iter().any(|guest| is_carried(*form, guest)))
        .map(Encapsulation::name)
        .collect();

    let mut found = Vec::new();
    if !stopped.is_empty() && !by.is_empty() {
        found.push(Evasion::Encapsulated { stopped, by });
    }
    if identity.is_empty() {
        return found;
    }
    let plain = |_: &Probe, inner: &Inner| passes(&inner.plain());
    let serves = some(&guests, Probe::served, &plain);
    if !serves.is_empty() {
        found.push(Evasion::Serves(serves));
    }
    if !some(&guests, Probe::clients, &plain).is_empty() {
        found.push(Evasion::DhcpClients);
    }
    found
}

/// Returns the names of the frames that any of the guests can send, without duplicates, in their
/// order.
fn some(
    guests: &[Probe],
    all: fn(&Probe) -> Vec<(&'static str, Inner)>,
    is_found: &dyn Fn(&Probe, &Inner) -> bool,
) -> Vec<&'static str> {
    let has = |guest: &Probe, at: usize| {
        all(guest).get(at).is_some_and(|(_, inner)| is_found(guest, inner))
    };
    let names: Vec<&'static str> =
        guests.first().map(all).into_iter().flatten().map(|(name, _)| name).collect();
    let found = |at: &usize| guests.iter().any(|guest| has(guest, *at));
    (0..names.len()).filter(found).map(|at| names[at]).collect()
}

#[cfg(test)]
mod tests;
