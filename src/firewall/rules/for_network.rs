//! Makes the firewall rules that a virtual network needs.
//!
//! Every chain is named after the network's bridge. The guests of a network reach each other; its
//! [`Mode`] says which other addresses they reach. Guests cannot send through the host from
//! addresses that are not the network's. Guests of one network reach those of another only if both
//! modes allow it.
//!
//! IPv6 has the same rules if the network has an IPv6 subnet. If it has none, its guests may use
//! IPv6 among themselves if that is allowed, and otherwise not at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::{
    AddressRange, Chain, ChainName, ChainNameError, Entry, Match, Packets, Rule, Ruleset, Side,
    Transport, Verdict, Version,
};
use crate::types::InterfaceName;

/// The properties of a network that its rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRules {
    /// The bridge of the network's guests.
    pub bridge: InterfaceName,
    /// The addresses that the guests reach.
    pub mode: Mode,
    /// The subnets of the network; host bits in them are ignored.
    pub subnets: Vec<IpNet>,
    /// Whether guests may speak IPv6 to each other although there is no IPv6 subnet.
    pub ipv6_between_guests: bool,
    /// Whether the host serves DHCP to the guests.
    pub dhcp: bool,
    /// Whether the host serves DNS to the guests.
    pub dns: bool,
    /// Whether the host serves TFTP to the guests, from port 69 alone (dnsmasq's
    /// `--tftp-single-port`).
    pub tftp: bool,
}

/// The addresses that a network's guests reach beyond each other and the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// No addresses.
    Isolated,
    /// All addresses, with the host's address as the source; only replies come in. IPv6 is routed
    /// unless `ipv6` is set.
    Nat {
        /// The interfaces by which packets may leave; an empty list means all.
        devs: Vec<InterfaceName>,
        /// The source addresses to use, for their IP version, instead of the interface's address.
        addresses: Option<AddressRange>,
        /// The source ports to use for TCP and UDP; 1024 to 65535 by default.
        ports: Option<RangeInclusive<u16>>,
        /// Whether IPv6 addresses are translated as well.
        ipv6: bool,
    },
    /// All addresses, in both directions, with the guests' own addresses.
    Route {
        /// The interfaces by which packets may leave and arrive; an empty list means all.
        devs: Vec<InterfaceName>,
    },
    /// All addresses that the host's own firewall allows.
    Open,
}

impl Mode {
    /// Returns the only interfaces for forwarding; an empty list means all.
    pub fn devs(&self) -> &[InterfaceName] {
        match self {
            Mode::Isolated | Mode::Open => &[],
            Mode::Nat { devs, .. } | Mode::Route { devs } => devs,
        }
    }

    /// Returns the condition of each rule about the outside: one for each interface, or one
    /// without a condition.
    fn outside(&self, side: Side) -> Vec<Option<Match>> {
        match self.devs() {
            [] => vec![None],
            devs => devs.iter().map(|dev| Some(Match::Interface(side, dev.clone()))).collect(),
        }
    }
}

/// The reason why a network's rules cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkRulesError {
    /// The bridge's name cannot be part of a chain's name.
    #[error("the bridge's name cannot be used in firewall rules; give the bridge another name")]
    Bridge(#[from] ChainNameError),
    /// The interface's name has characters with a special meaning in a firewall tool.
    #[error(
        "the interface name {0:?} cannot be used in firewall rules: only letters, digits, '-', '.', '_' and '@' are safe there; rename the interface (ip link set ... name ...)"
    )]
    Interface(String),
}

/// The ports of a translated connection, unless the network sets them: none below 1024, since some
/// servers trust these.
const PORTS: RangeInclusive<u16> = 1024..=65535;

/// Returns the rulesets of a network: one for IPv4 and one for IPv6, or none for an open network.
///
/// # Errors
/// Returns [`NetworkRulesError`] if the name of an interface cannot be part of a rule.
pub fn for_network(network: &NetworkRules) -> Result<Vec<Ruleset>, NetworkRulesError> {
    if network.mode == Mode::Open {
        return Ok(Vec::new());
    }
    network.mode.devs().iter().try_for_each(check)?;
    [Version::V4, Version::V6].map(|version| ruleset(network, version)).into_iter().collect()
}

fn check(interface: &InterfaceName) -> Result<(), NetworkRulesError> {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"-._@".contains(&b);
    if interface.as_str().bytes().all(safe) {
        Ok(())
    } else {
        Err(NetworkRulesError::Interface(interface.to_string()))
    }
}

fn ruleset(network: &NetworkRules, version: Version) -> Result<Ruleset, NetworkRulesError> {
    let subnets: Vec<IpNet> =
        network.subnets.iter().filter(|s| Version::of(s) == version).map(IpNet::trunc).collect();
    let among_guests = version == Version::V4 || !subnets.is_empty() || network.ipv6_between_guests;
    let bridge = || network.bridge.clone();
    let mut all = Ruleset { version, entries: Vec::new(), chains: Vec::new() };
    let mut add = |suffix: &str, packets: Vec<Packets>, rules: Vec<Rule>| {
        if rules.is_empty() || packets.is_empty() {
            return Ok(());
        }
        let name = ChainName::new(format!("{}-{suffix}", network.bridge))?;
        let entry = |packets| Entry { packets, chain: name.clone() };
        all.entries.extend(packets.into_iter().map(entry));
        all.chains.push(Chain { name, rules });
        Ok::<_, NetworkRulesError>(())
    };
    let from = from(network, &subnets, among_guests);
    add("from", vec![Packets::ForwardedFrom(bridge())], from)?;
    let to = to(network, version, &subnets);
    add("to", vec![Packets::ForwardedTo(bridge())], to)?;
    if among_guests {
        add("host", vec![Packets::ToHost(bridge())], to_host(network, version))?;
        add("guest", vec![Packets::FromHost(bridge())], from_host(network, version))?;
    }
    let leaving = subnets.iter().copied().map(Packets::LeavingWithSource).collect();
    add("nat", leaving, translate(network, version, &subnets))?;
    Ok(all)
}

fn rule(matches: impl IntoIterator<Item = Match>, verdict: Verdict) -> Rule {
    Rule { matches: matches.into_iter().collect(), verdict }
}

/// Returns the rules for packets that guests send through the host.
fn from(network: &NetworkRules, subnets: &[IpNet], among_guests: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    if among_guests {
        let same = Match::Interface(Side::Out, network.bridge.clone());
        rules.push(rule([same], Verdict::Accept));
    }
    if network.mode != Mode::Isolated {
        for subnet in subnets {
            let source = || [Match::Source(*subnet)].into_iter();
            let outside = network.mode.outside(Side::Out).into_iter();
            rules.extend(outside.map(|outside| rule(source().chain(outside), Verdict::Return)));
        }
    }
    rules.push(rule([], Verdict::Reject));
    rules
}

/// Returns the rules for packets that the host forwards to guests.
fn to(network: &NetworkRules, version: Version, subnets: &[IpNet]) -> Vec<Rule> {
    let mut rules = Vec::new();
    if network.mode != Mode::Isolated {
        let asked_for = translated(network, version).then_some(Match::Established);
        for subnet in subnets {
            rules.extend(network.mode.outside(Side::In).into_iter().map(|outside| {
                let matches = [Match::Destination(*subnet)].into_iter();
                rule(matches.chain(outside).chain(asked_for.clone()), Verdict::Accept)
            }));
        }
    }
    rules.push(rule([], Verdict::Reject));
    rules
}

/// Returns whether the source addresses of this IP version are translated.
fn translated(network: &NetworkRules, version: Version) -> bool {
    matches!(network.mode, Mode::Nat { ipv6, .. } if version == Version::V4 || ipv6)
}

/// Returns the rules for guests' requests to the host's servers.
fn to_host(network: &NetworkRules, version: Version) -> Vec<Rule> {
    let mut ports = Vec::new();
    if network.dhcp {
        ports.push((Transport::Udp, if version == Version::V4 { 67 } else { 547 }));
    }
    if network.dns {
        ports.extend([(Transport::Udp, 53), (Transport::Tcp, 53)]);
    }
    if network.tftp {
        ports.push((Transport::Udp, 69));
    }
    let accept =
        |(transport, port)| rule([Match::DestinationPort(transport, port)], Verdict::Accept);
    ports.into_iter().map(accept).collect()
}

/// Returns the rules for the answers of the host's servers. The DHCP rule matches the client's
/// port, since a broadcast answer belongs to no connection.
fn from_host(network: &NetworkRules, version: Version) -> Vec<Rule> {
    let mut matches = Vec::new();
    if network.dhcp {
        let client = if version == Version::V4 { 68 } else { 546 };
        matches.push(Match::DestinationPort(Transport::Udp, client));
    }
    if network.dns {
        matches.extend([Transport::Udp, Transport::Tcp].map(|t| Match::SourcePort(t, 53)));
    }
    if network.tftp {
        matches.push(Match::SourcePort(Transport::Udp, 69));
    }
    matches.into_iter().map(|m| rule([m], Verdict::Accept)).collect()
}

/// Returns the rules for source address translation. Packets between the network's own subnets, to
/// link-local multicast groups and to the broadcast address keep their source.
fn translate(network: &NetworkRules, version: Version, subnets: &[IpNet]) -> Vec<Rule> {
    let Mode::Nat { addresses, ports, .. } = &network.mode else { return Vec::new() };
    if !translated(network, version) {
        return Vec::new();
    }
    let link: &[(IpAddr, u8)] = match version {
        Version::V4 => {
            &[(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 24), (IpAddr::V4(Ipv4Addr::BROADCAST), 32)]
        }
        Version::V6 => &[(IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0)), 16)],
    };
    let link = link.iter().filter_map(|&(address, bits)| IpNet::new(address, bits).ok());
    let kept = subnets.iter().copied().chain(link);
    let mut rules: Vec<Rule> =
        kept.map(|subnet| rule([Match::Destination(subnet)], Verdict::Return)).collect();
    let addresses = addresses.filter(|range| range.version() == version);
    let with_ports = Some(ports.clone().unwrap_or(PORTS));
    for (protocol, ports) in [
        (Some(Transport::Tcp), with_ports.clone()),
        (Some(Transport::Udp), with_ports),
        (None, None),
    ] {
        let verdict = match addresses {
            Some(addresses) => Verdict::SourceNat { addresses, ports },
            None => Verdict::Masquerade { ports },
        };
        for outside in network.mode.outside(Side::Out) {
            let protocol = protocol.map(Match::Protocol);
            rules.push(rule(outside.into_iter().chain(protocol), verdict.clone()));
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(mode: Mode, subnets: &[&str]) -> NetworkRules {
        NetworkRules {
            bridge: "virbr0".parse().unwrap(),
            mode,
            subnets: subnets.iter().map(|s| s.parse().unwrap()).collect(),
            ipv6_between_guests: false,
            dhcp: true,
            dns: true,
            tftp: false,
        }
    }

    fn nat(ipv6: bool) -> Mode {
        Mode::Nat { devs: Vec::new(), addresses: None, ports: None, ipv6 }
    }

    fn chain<'a>(rulesets: &'a [Ruleset], version: Version, suffix: &str) -> Option<&'a [Rule]> {
        let ruleset = rulesets.iter().find(|r| r.version == version)?;
        let chain = ruleset.chains.iter().find(|c| c.name.as_str().ends_with(suffix))?;
        Some(&chain.rules)
    }

    #[test]
    fn an_open_network_asks_for_nothing() {
        assert_eq!(for_network(&network(Mode::Open, &["10.0.0.1/24"])), Ok(vec![]));
    }

    #[test]
    fn ipv6_without_a_subnet_is_refused_unless_allowed() {
        let mut network = network(nat(false), &["10.0.0.1/24"]);
        let rules = for_network(&network).unwrap();
        for suffix in ["from", "to"] {
            let only = [rule([], Verdict::Reject)];
            assert_eq!(chain(&rules, Version::V6, suffix), Some(&only[..]));
        }
        assert_eq!(chain(&rules, Version::V6, "host"), None);
        network.ipv6_between_guests = true;
        let rules = for_network(&network).unwrap();
        assert_eq!(chain(&rules, Version::V6, "from").unwrap().len(), 2);
        assert!(chain(&rules, Version::V6, "host").is_some());
    }

    #[test]
    fn ipv6_of_a_nat_network_is_routed_unless_it_says_otherwise() {
        let both = ["10.0.0.1/24", "fd00::1/64"];
        let rules = for_network(&network(nat(false), &both)).unwrap();
        assert_eq!(chain(&rules, Version::V6, "nat"), None);
        let to = chain(&rules, Version::V6, "to").unwrap();
        assert!(!to[0].matches.contains(&Match::Established));
        let rules = for_network(&network(nat(true), &both)).unwrap();
        assert!(chain(&rules, Version::V6, "nat").is_some());
        let to = chain(&rules, Version::V6, "to").unwrap();
        assert!(to[0].matches.contains(&Match::Established));
    }

    #[test]
    fn names_that_are_more_than_names_are_refused() {
        for (bridge, dev) in [("br+", "eth0"), ("br0", "eth+"), ("br0", "e*"), ("br0", "a\"b")] {
            let mode = Mode::Route { devs: vec!["up0".parse().unwrap(), dev.parse().unwrap()] };
            let network =
                NetworkRules { bridge: bridge.parse().unwrap(), ..network(mode, &["10.0.0.0/8"]) };
            assert!(for_network(&network).is_err(), "{bridge} {dev}");
        }
    }
}
