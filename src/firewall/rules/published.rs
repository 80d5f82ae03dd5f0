//! Adds the rules of ports that are published to guests of a bridge.
//!
//! A connection to a published port gets the guest's address as its destination, before the host
//! routes it: in one hook if it arrives from elsewhere, in another one if the host itself makes it.
//! From then on the kernel knows it as translated, and only translated connections to the guest's
//! port pass in front of the rules that refuse packets to the network. The rules of the network
//! that a connection comes from still decide about it first.
//!
//! The guest's reply must come back to the host. Outside clients keep their address where the guest
//! sends its replies to the host anyway. A client that the guest would answer directly, or not at
//! all, gets the address of the bridge: the host itself, the guests of the network, and every
//! client of a guest that has no route through the host.
//!
//! Connections to a loopback address of the host get no rule, because the kernel sends no packets
//! of such an address to another interface: the launch relays these connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{
    Chain, ChainName, Entry, Match, Mode, NetworkRules, NetworkRulesError, Packets, Rule, Ruleset,
    Side, Transport, Verdict, Version,
};
use crate::types::{Protocol, Publish};

/// Ports of the host that lead to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedPort {
    /// The ports.
    pub publish: Publish,
    /// The guest's address, of the same IP version; `None` while it is not known. The port then
    /// leads nowhere.
    pub guest: Option<IpAddr>,
}

impl PublishedPort {
    fn version(&self) -> Version {
        if self.publish.address.is_ipv4() { Version::V4 } else { Version::V6 }
    }

    fn transport(&self) -> Transport {
        match self.publish.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
        }
    }
}

/// Adds the rules of published ports to the rulesets of a network; a missing ruleset is added.
///
/// # Errors
/// Returns [`NetworkRulesError`] if the bridge's name cannot be part of a rule.
pub fn add_published(
    rulesets: &mut Vec<Ruleset>,
    network: &NetworkRules,
    published: &[PublishedPort],
) -> Result<(), NetworkRulesError> {
    for version in [Version::V4, Version::V6] {
        let has_rules = |port: &&PublishedPort| !port.publish.address.is_loopback();
        let own = published.iter().filter(|port| port.version() == version).filter(has_rules);
        let own: Vec<_> = own.collect();
        if own.is_empty() {
            continue;
        }
        let at = rulesets.iter().position(|ruleset| ruleset.version == version);
        let at = at.unwrap_or_else(|| {
            rulesets.push(Ruleset { version, entries: Vec::new(), chains: Vec::new() });
            rulesets.len() - 1
        });
        Additions { network, ruleset: &mut rulesets[at] }.add(&own)?;
    }
    Ok(())
}

/// A ruleset that gets the rules of published ports.
struct Additions<'a> {
    network: &'a NetworkRules,
    ruleset: &'a mut Ruleset,
}

impl Additions<'_> {
    fn add(&mut self, published: &[&PublishedPort]) -> Result<(), NetworkRulesError> {
        let bridge = || self.network.bridge.clone();
        let (incoming, outgoing) = redirections(published);
        let (from, to) = self.forwarded(published);
        let leaving = self.leaving(published);
        let (out, into) = (bridge(), bridge());
        self.chain("pub", Packets::Incoming, incoming)?;
        self.chain("pubhost", Packets::Outgoing, outgoing)?;
        self.before_refusal("from", Packets::PublishedFrom(out), from)?;
        self.before_refusal("to", Packets::PublishedTo(into), to)?;
        self.chain("pubnat", Packets::Leaving, leaving)
    }

    /// Adds a chain, unless it would be empty.
    fn chain(
        &mut self,
        suffix: &str,
        packets: Packets,
        rules: Vec<Rule>,
    ) -> Result<(), NetworkRulesError> {
        if !rules.is_empty() {
            let chain = self.name(suffix)?;
            self.ruleset.entries.push(Entry { packets, chain: chain.clone() });
            self.ruleset.chains.push(Chain { name: chain, rules });
        }
        Ok(())
    }

    /// Puts rules in front of the last rule of the network's chain, which refuses the rest. Without
    /// that chain, the network has no rules of its own: then a packet that the rules do not decide
    /// stays to the host's rules.
    fn before_refusal(
        &mut self,
        suffix: &str,
        packets: Packets,
        mut rules: Vec<Rule>,
    ) -> Result<(), NetworkRulesError> {
        let name = self.name(suffix)?;
        match self.ruleset.chains.iter_mut().find(|chain| chain.name == name) {
            Some(chain) => {
                let refusal = chain.rules.len().saturating_sub(1);
                chain.rules.splice(refusal..refusal, rules);
                Ok(())
            }
            None => {
                rules.iter_mut().for_each(|rule| rule.verdict = Verdict::Accept);
                self.chain(suffix, packets, rules)
            }
        }
    }

    fn name(&self, suffix: &str) -> Result<ChainName, NetworkRulesError> {
        Ok(ChainName::new(format!("{}-{suffix}", self.network.bridge))?)
    }

    /// Returns the rules for packets that guests send, and for those to guests.
    fn forwarded(&self, published: &[&PublishedPort]) -> (Vec<Rule>, Vec<Rule>) {
        let (mut from, mut to, mut guests) = (Vec::new(), Vec::new(), Vec::new());
        for (port, guest) in known(published) {
            let arrives = [Match::Translated, Match::Destination(host(guest)), guest_ports(port)];
            add(&mut to, rule(arrives, Verdict::Accept));
            if !guests.contains(&guest) {
                guests.push(guest);
            }
        }
        for guest in guests {
            // With the replies come errors of ICMP, which belong to the connection, too.
            let reply = [Match::Translated, Match::Established, Match::Source(host(guest))];
            from.push(rule(reply, Verdict::Return));
            let error = [Match::Translated, Match::Established, Match::Destination(host(guest))];
            to.push(rule(error, Verdict::Accept));
        }
        (from, to)
    }

    /// Returns the rules for the source address of connections to guests.
    fn leaving(&self, published: &[&PublishedPort]) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (port, guest) in known(published) {
            let clients: Vec<Option<Match>> = match &self.network.mode {
                Mode::Isolated => vec![None],
                _ => {
                    let version = port.version();
                    let own = self.network.subnets.iter().filter(|n| Version::of(n) == version);
                    let own = own.map(|subnet| Some(Match::Source(subnet.trunc())));
                    std::iter::once(Some(Match::FromHostAddress)).chain(own).collect()
                }
            };
            for client in clients {
                let leaves = [
                    Match::Interface(Side::Out, self.network.bridge.clone()),
                    Match::Translated,
                    Match::Destination(host(guest)),
                    guest_ports(port),
                ];
                let own_address = Verdict::Masquerade { ports: None };
                add(&mut rules, rule(leaves.into_iter().chain(client), own_address));
            }
        }
        rules
    }
}

/// Returns the rules that change the destination of connections: of those that arrive, and of those
/// that the host makes.
fn redirections(published: &[&PublishedPort]) -> (Vec<Rule>, Vec<Rule>) {
    let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
    for (port, guest) in known(published) {
        let PublishedPort { publish, .. } = port;
        let address = publish.address;
        let to = if address.is_unspecified() {
            Match::ToHostAddress
        } else {
            Match::Destination(host(address))
        };
        let transport = port.transport();
        let matches = [to, Match::DestinationPorts(transport, publish.host)];
        let (from, to) = (publish.host, publish.guest);
        let redirect = Verdict::DestinationNat { address: guest, transport, from, to };
        let redirect = rule(matches, redirect);
        incoming.push(redirect.clone());
        outgoing.push(redirect);
    }
    // All addresses of the host include the loopback addresses, whose connections are relayed.
    if outgoing.iter().any(|rule| rule.matches.contains(&Match::ToHostAddress)) {
        let loopback = if published.iter().any(|port| port.version() == Version::V6) {
            host(IpAddr::V6(Ipv6Addr::LOCALHOST))
        } else {
            net(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8)
        };
        outgoing.insert(0, rule([Match::Destination(loopback)], Verdict::Return));
    }
    (incoming, outgoing)
}

/// Returns the ports whose guest's address is known, with that address.
fn known<'a>(
    published: &'a [&PublishedPort],
) -> impl Iterator<Item = (&'a PublishedPort, IpAddr)> + 'a {
    published.iter().filter_map(|port| Some((*port, port.guest?)))
}

/// Adds a rule, unless it is there: several ports of the host can lead to one port of a guest.
fn add(rules: &mut Vec<Rule>, rule: Rule) {
    if !rules.contains(&rule) {
        rules.push(rule);
    }
}

fn guest_ports(port: &PublishedPort) -> Match {
    Match::DestinationPorts(port.transport(), port.publish.guest)
}

fn rule(matches: impl IntoIterator<Item = Match>, verdict: Verdict) -> Rule {
    Rule { matches: matches.into_iter().collect(), verdict }
}

/// Returns the subnet of one address.
fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// Returns a subnet; one address if the prefix length is too large.
fn net(address: IpAddr, prefix: u8) -> IpNet {
    IpNet::new(address, prefix).unwrap_or_else(|_| IpNet::from(address))
}
