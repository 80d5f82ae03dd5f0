//! Ways around a filter: frames that carry what the filter stops, in a form that it lets through.
//!
//! A rule about IPv4, IPv6 or ARP applies to plain frames. If other frames end in an accept, a guest
//! puts the forged packet behind a VLAN tag or into another protocol, and hosts read it there. This
//! is a property of all rules together, so it is found by trying: the judge of
//! [`super::explain`] gets a forged packet plain and in each encapsulation. The names of filters play
//! no part. The addresses are those for documentation, so a filter that allows exactly those is
//! misjudged.
//!
//! Besides, a filter that ties the guest to its addresses may still let it speak as a DHCP server or
//! a router, or take a server's leases under other clients' names. libvirt's filters do, so that is
//! said by `check` alone.

mod probe;

use std::fmt::{self, Display, Formatter};
use std::net::Ipv4Addr;

use super::explain::{Judge, Verdict, Way};
use crate::rules::port::PortRules;
use crate::types::Mac;
use probe::{Encapsulation, Inner, Probe};

/// A way around a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evasion {
    /// Frames in other forms pass.
    Encapsulated {
        /// What plain frames cannot do.
        stopped: Vec<&'static str>,
        /// The forms that pass.
        by: Vec<&'static str>,
    },
    /// The guest can be a server of these kinds.
    Serves(Vec<&'static str>),
    /// The guest can ask for leases in the name of other clients.
    DhcpClients,
}

impl Display for Evasion {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Evasion::Encapsulated { stopped, by } => write!(
                f,
                "it stops {} in plain frames alone: with {}, frames with forged packets pass, and hosts read those; add the filter no-other-l2-traffic behind rules that accept what the guest may send, or use clean-traffic",
                stopped.join(", "),
                by.join(", ")
            ),
            Evasion::Serves(kinds) => write!(
                f,
                "the guest can pose as {}; add the filter netlaunch-no-rogue-server, or use clean-traffic-strict",
                kinds.join(", ")
            ),
            Evasion::DhcpClients => write!(
                f,
                "the guest can take all leases of a DHCP server with forged client addresses; add the filter netlaunch-dhcp-client, or use clean-traffic-strict"
            ),
        }
    }
}

/// The ways around the rules of a guest with these addresses, and without one if it is not known.
pub fn evasions(rules: &PortRules, mac: Mac, address: Option<Ipv4Addr>) -> Vec<Evasion> {
    let guest = Probe::new(mac.octets(), address);
    let verdict = |bytes: &[u8]| {
        let judged = Judge::new(rules).judge(Way::Out, bytes, bytes.len());
        judged.map_or(Verdict::Undecided, |explained| explained.verdict)
    };
    let stops = |bytes: &[u8]| verdict(bytes).stops();
    let passes = |bytes: &[u8]| verdict(bytes) == Verdict::Pass;

    let forged = guest.forged();
    let served = guest.served();
    let clients = [("forged DHCP clients", guest.forged_client())];
    // A filter that stops the honest frame, too, does not tell the two apart.
    let of = |all: &[(&'static str, Inner)]| -> Vec<&'static str> {
        let honest = |inner: &Inner| guest.honest(inner).plain();
        all.iter()
            .filter(|(_, inner)| stops(&inner.plain()) && !stops(&honest(inner)))
            .map(|(name, _)| *name)
            .collect()
    };
    let identity = of(&forged);
    let stopped = [identity.clone(), of(&served), of(&clients)].concat();
    let carried: Vec<&Inner> =
        forged.iter().skip(1).chain(&served).chain(&clients).map(|(_, inner)| inner).collect();
    let by: Vec<&'static str> = Encapsulation::ALL
        .into_iter()
        .filter(|form| carried.iter().any(|inner| form.frame(inner).is_some_and(|b| passes(&b))))
        .map(Encapsulation::name)
        .collect();

    let mut found = Vec::new();
    if !stopped.is_empty() && !by.is_empty() {
        found.push(Evasion::Encapsulated { stopped, by });
    }
    if identity.is_empty() {
        return found;
    }
    let serves: Vec<&'static str> =
        served.iter().filter(|(_, inner)| passes(&inner.plain())).map(|(name, _)| *name).collect();
    if !serves.is_empty() {
        found.push(Evasion::Serves(serves));
    }
    if passes(&clients[0].1.plain()) {
        found.push(Evasion::DhcpClients);
    }
    found
}

#[cfg(test)]
mod tests;
