//! Renders rules as states of netlaunch's iptables chains.
//!
//! The host's chains FORWARD, INPUT, OUTPUT and POSTROUTING jump, at their head, to netlaunch's
//! base chains, and these jump to the owners' chains. The base chain for forwarding has three
//! groups in this order: the owners' chains by the interface that packets arrive on, the owners'
//! chains by the interface that packets leave by, and rules that accept the remaining packets of
//! these interfaces. netlaunch always writes the whole base chain, because of this order and
//! because several owners have rules in it.
//!
//! Protocols are written as numbers, since iptables would look names up in files.

use std::fmt::{Display, Write};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::firewall::rules::{
    AddressRange, ChainName, Entry, Match, Packets, Rule, Ruleset, Side, Transport, Verdict,
    Version,
};

use super::iptables_state::TableRemoval;
use super::iptables_state::{Jump, TableState, is_base};

/// netlaunch's chain for forwarded packets, in the table filter.
pub(super) const OWN_FORWARD: &str = "NETLAUNCH_FWD";

/// The place of a base chain: the table, the host's chain and netlaunch's base chain.
struct Base {
    table: &'static str,
    host: &'static str,
    base_chain: &'static str,
}

fn base(packets: &Packets) -> Base {
    match packets {
        Packets::ForwardedFrom(_) | Packets::ForwardedTo(_) => {
            Base { table: "filter", host: "FORWARD", base_chain: OWN_FORWARD }
        }
        Packets::PublishedFrom(_) | Packets::PublishedTo(_) => {
            Base { table: "filter", host: "FORWARD", base_chain: OWN_FORWARD }
        }
        Packets::ToHost(_) => Base { table: "filter", host: "INPUT", base_chain: "NETLAUNCH_INP" },
        Packets::FromHost(_) => {
            Base { table: "filter", host: "OUTPUT", base_chain: "NETLAUNCH_OUT" }
        }
        Packets::LeavingWithSource(_) | Packets::Leaving => {
            Base { table: "nat", host: "POSTROUTING", base_chain: "NETLAUNCH_PRT" }
        }
        Packets::Incoming => Base { table: "nat", host: "PREROUTING", base_chain: "NETLAUNCH_PRE" },
        Packets::Outgoing => Base { table: "nat", host: "OUTPUT", base_chain: "NETLAUNCH_LOC" },
    }
}

/// Returns the state with these rulesets added; they replace earlier rules of the same owner.
/// Ignores rulesets of the other IP version.
pub fn with(present: &TableState, version: Version, rulesets: &[Ruleset]) -> TableState {
    let mut wanted = present.clone();
    for ruleset in rulesets.iter().filter(|r| r.version == version) {
        for chain in &ruleset.chains {
            let entries = ruleset.entries.iter().filter(|entry| entry.chain == chain.name);
            for entry in entries {
                let Base { table, host, base_chain } = base(&entry.packets);
                let table = wanted.tables.entry(table.to_owned()).or_default();
                table.jumps.insert((host.to_owned(), base_chain.to_owned()), Jump::HEAD);
                let rules = chain.rules.iter().map(|r| rule(r, version)).collect();
                table.chains.insert(chain_name(&chain.name), rules);
                let lines = table.chains.entry(base_chain.to_owned()).or_default();
                let missing: Vec<_> =
                    base_rules(entry).into_iter().filter(|line| !lines.contains(line)).collect();
                lines.extend(missing);
                lines.sort_by_key(|line| stage(line)); // stable
            }
        }
    }
    wanted
}

/// Returns the state without the recorded rules. Base chains without rules are removed as well.
pub fn without(present: &TableState, version: Version, removals: &[TableRemoval]) -> TableState {
    let mut wanted = present.clone();
    for removal in removals.iter().filter(|removal| removal.version == version) {
        let Some(table) = wanted.tables.get_mut(&removal.table) else { continue };
        for line in &removal.rules {
            let Some((chain, rule)) = line.split_once(' ') else { continue };
            let Some(rules) = table.chains.get_mut(chain) else { continue };
            rules.retain(|one| one != rule);
            if rules.is_empty() && is_base(chain) {
                table.chains.remove(chain);
                table.jumps.retain(|(_, base_chain), _| base_chain != chain);
            }
        }
        table.chains.retain(|chain, _| !removal.chains.contains(chain));
        if table.chains.is_empty() && table.jumps.is_empty() {
            wanted.tables.remove(&removal.table);
        }
    }
    wanted
}

/// Returns the record for removing these rulesets.
pub fn removals(rulesets: &[Ruleset]) -> Vec<TableRemoval> {
    let mut removals: Vec<TableRemoval> = Vec::new();
    for ruleset in rulesets {
        for entry in &ruleset.entries {
            let Base { table, base_chain, .. } = base(&entry.packets);
            let same = |r: &TableRemoval| r.version == ruleset.version && r.table == table;
            let at = removals.iter().position(same).unwrap_or(removals.len());
            if at == removals.len() {
                let (version, table) = (ruleset.version, table.to_owned());
                removals.push(TableRemoval { version, table, rules: vec![], chains: vec![] });
            }
            let lines = base_rules(entry).into_iter().map(|rule| format!("{base_chain} {rule}"));
            removals[at].rules.extend(lines);
            let name = chain_name(&entry.chain);
            if !removals[at].chains.contains(&name) {
                removals[at].chains.push(name);
            }
        }
    }
    removals
}

fn chain_name(name: &ChainName) -> String {
    format!("nl-{}", name.as_str())
}

/// Returns an entry's rules in the base chain, word for word as `iptables-save` prints them.
fn base_rules(entry: &Entry) -> Vec<String> {
    let chain = chain_name(&entry.chain);
    match &entry.packets {
        Packets::ForwardedFrom(name) => {
            vec![format!("-i {name} -j {chain}"), format!("-i {name} -j ACCEPT")]
        }
        Packets::ForwardedTo(name) => {
            vec![format!("-o {name} -j {chain}"), format!("-o {name} -j ACCEPT")]
        }
        Packets::ToHost(name) | Packets::PublishedFrom(name) => {
            vec![format!("-i {name} -j {chain}")]
        }
        Packets::FromHost(name) | Packets::PublishedTo(name) => {
            vec![format!("-o {name} -j {chain}")]
        }
        Packets::Incoming | Packets::Outgoing | Packets::Leaving => vec![format!("-j {chain}")],
        Packets::LeavingWithSource(subnet) => vec![format!("-s {subnet} -j {chain}")],
    }
}

/// Returns the group of a rule in the base chain.
fn stage(rule: &str) -> u8 {
    match rule {
        _ if rule.ends_with("-j ACCEPT") => 2,
        _ if rule.starts_with("-o ") => 1,
        _ => 0,
    }
}

fn rule(rule: &Rule, version: Version) -> String {
    let mut text = String::new();
    for one in &rule.matches {
        text.push_str(&matching(one));
        text.push(' ');
    }
    text.push_str(&verdict(&rule.verdict, version));
    text
}

fn matching(one: &Match) -> String {
    match one {
        Match::Interface(Side::In, name) => format!("-i {name}"),
        Match::Interface(Side::Out, name) => format!("-o {name}"),
        Match::Source(subnet) => format!("-s {subnet}"),
        Match::Destination(subnet) => format!("-d {subnet}"),
        Match::Protocol(transport) => protocol(*transport).to_owned(),
        Match::SourcePort(transport, port) => with_port(*transport, "sport", *port),
        Match::DestinationPort(transport, port) => with_port(*transport, "dport", *port),
        Match::DestinationPorts(transport, ports) => {
            with_port(*transport, "dport", ports.to_string().replace('-', ":"))
        }
        Match::Established => "-m conntrack --ctstate RELATED,ESTABLISHED".to_owned(),
        Match::Translated => "-m conntrack --ctstate DNAT".to_owned(),
        Match::FromHostAddress => "-m addrtype --src-type LOCAL".to_owned(),
        Match::ToHostAddress => "-m addrtype --dst-type LOCAL".to_owned(),
    }
}

fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "-p 6",
        Transport::Udp => "-p 17",
    }
}

fn with_port(transport: Transport, which: &str, port: impl Display) -> String {
    // This is the name of the match extension, which iptables does not look up in a file.
    let extension = match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    format!("{} -m {extension} --{which} {port}", protocol(transport))
}

fn verdict(verdict: &Verdict, version: Version) -> String {
    match (verdict, version) {
        (Verdict::Accept, _) => "-j ACCEPT".to_owned(),
        (Verdict::Reject, Version::V4) => {
            "-j REJECT --reject-with icmp-port-unreachable".to_owned()
        }
        (Verdict::Reject, Version::V6) => {
            "-j REJECT --reject-with icmp6-port-unreachable".to_owned()
        }
        (Verdict::Drop, _) => "-j DROP".to_owned(),
        (Verdict::Return, _) => "-j RETURN".to_owned(),
        (Verdict::DestinationNat { address, from, to, .. }, _) => {
            let mut text = "-j DNAT --to-destination ".to_owned();
            let _ = match address {
                IpAddr::V6(address) if from != to => write!(text, "[{address}]"),
                address => write!(text, "{address}"),
            };
            if from != to {
                let _ = write!(text, ":{to}");
            }
            // The base port is the port of the rule that becomes the first port of the range.
            if from != to && to.first() != to.last() {
                let _ = write!(text, "/{}", from.first());
            }
            text
        }
        (Verdict::Masquerade { ports: None }, _) => "-j MASQUERADE".to_owned(),
        (Verdict::Masquerade { ports: Some(ports) }, _) => {
            format!("-j MASQUERADE --to-ports {}", self::ports(ports))
        }
        (Verdict::SourceNat { addresses, ports }, _) => {
            let mut text = match (addresses, ports) {
                (AddressRange::V6(..), Some(_)) => format!("-j SNAT --to-source [{addresses}]"),
                _ => format!("-j SNAT --to-source {addresses}"),
            };
            if let Some(ports) = ports {
                let _ = write!(text, ":{}", self::ports(ports));
            }
            text
        }
    }
}

fn ports(ports: &RangeInclusive<u16>) -> String {
    if ports.start() == ports.end() {
        ports.start().to_string()
    } else {
        format!("{}-{}", ports.start(), ports.end())
    }
}
