//! Returns commands that let guests through where a chain stops them.
//!
//! The commands depend on the program that made the table: docker, ufw and firewalld each have
//! a place for rules of others that survives their own reload. In any other table the commands
//! put accepting rules before the host's rules. netlaunch prints the commands and never runs
//! them.

use std::fmt;

use super::chains::{Chain, Hook, Property, Rule, Table, TableId, Verdict};
use super::{Guests, Traffic, packets};
use crate::firewall::rules::Version;

/// The program that made a table, recognised by the names in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    Docker,
    Ufw,
    Firewalld,
    Host,
}

impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Maker::Docker => "docker's: ",
            Maker::Ufw => "ufw's: ",
            Maker::Firewalld => "firewalld's: ",
            Maker::Host => "",
        })
    }
}

/// The commands and the advice of a finding.
pub(super) struct Fix {
    pub(super) commands: Vec<Vec<String>>,
    pub(super) note: String,
}

/// The chain that docker reserves for rules of other programs.
const DOCKER_USER: &str = "DOCKER-USER";

pub(super) fn maker(table: &Table) -> Maker {
    let has = |is: fn(&str) -> bool| table.chains.iter().any(|chain| is(&chain.name));
    let named = matches!(&table.id, TableId::Nft { name, .. } if name == "firewalld");
    if named || has(|name| name.starts_with("FWD_") || name == "FORWARD_direct") {
        Maker::Firewalld
    } else if has(|name| name.starts_with("ufw-") || name.starts_with("ufw6-")) {
        Maker::Ufw
    } else if has(|name| name == "DOCKER" || name.starts_with("DOCKER-")) {
        Maker::Docker
    } else {
        Maker::Host
    }
}

/// Returns the fix that accepts the traffic that `chain` stops.
pub(super) fn fix(table: &Table, chain: &Chain, guests: &Guests, stops: &[Traffic]) -> Fix {
    let lines = match maker(table) {
        Maker::Firewalld => return firewalld(guests),
        Maker::Ufw => return ufw(guests, chain, stops),
        Maker::Docker | Maker::Host if chain.hook == Some(Hook::Output) => {
            outgoing(table, guests, stops)
        }
        Maker::Docker | Maker::Host => lines(table, guests, stops),
    };
    match &table.id {
        TableId::Iptables { tool, table: name, .. } => {
            let into = match chain.hook {
                Some(Hook::Forward) if helps(table, chain, guests, DOCKER_USER) => DOCKER_USER,
                _ => &chain.name,
            };
            let of_table = if name == "filter" { String::new() } else { format!("-t {name} ") };
            let command = |line: &String| words(&format!("{tool} {of_table}-I {into} {line}"));
            Fix {
                commands: lines.iter().map(command).collect(),
                note: "save it with the host's other rules; if firewall_backend is iptables, netlaunch's rules come first in these tables".into(),
            }
        }
        TableId::Nft { family, name } => {
            let command = |line: &String| {
                vec!["nft".into(), format!("insert rule {family} {name} {} {line}", chain.name)]
            };
            Fix {
                commands: lines.iter().map(command).collect(),
                note: "write the same into the file that makes the table, often /etc/nftables.conf"
                    .into(),
            }
        }
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn firewalld(guests: &Guests) -> Fix {
    let bridge = &guests.bridge;
    // The bridge belongs to a network: netlaunch's own zone accepts less than other zones.
    if guests.forwarded || guests.dhcp || guests.dns || !guests.published.is_empty() {
        return Fix {
            commands: vec![words("netlaunch firewall reload")],
            note: "it puts the bridge back into its zone; netlaunch-firewalld.service does so whenever firewalld reloads".into(),
        };
    }
    let zone = format!("firewall-cmd --permanent --zone trusted --add-interface {bridge}");
    Fix {
        commands: vec![words(&zone), words("firewall-cmd --reload")],
        note: "any zone whose target or policies let guests through will do".into(),
    }
}

fn ufw(guests: &Guests, chain: &Chain, stops: &[Traffic]) -> Fix {
    let bridge = &guests.bridge;
    let mut lines = Vec::new();
    if chain.hook == Some(Hook::Forward) {
        lines.push(format!("ufw route allow in on {bridge}"));
        // ufw accepts replies to guests by itself.
        if guests.guarded || stops.contains(&Traffic::Published) {
            lines.push(format!("ufw route allow out on {bridge}"));
        }
    }
    for (traffic, ports) in [
        (Traffic::Dhcp, &["67 proto udp", "547 proto udp"][..]),
        (Traffic::Dns, &["53"]),
        (Traffic::Tftp, &["69 proto udp"]),
    ] {
        if stops.contains(&traffic) {
            let wanted = |port: &&&str| !port.starts_with("547") || has_v6(guests);
            let line = |port: &&str| format!("ufw allow in on {bridge} to any port {port}");
            lines.extend(ports.iter().filter(wanted).map(line));
        }
    }
    if stops.contains(&Traffic::DhcpReplies) {
        lines.push(format!("ufw allow out on {bridge} to any port 68 proto udp"));
    }
    // ufw accepts answers to guests by itself.
    Fix {
        commands: lines.iter().map(|line| words(line)).collect(),
        note: "ufw keeps these rules itself".into(),
    }
}

fn has_v6(guests: &Guests) -> bool {
    guests.subnets.iter().any(|net| Version::of(net) == Version::V6)
}

/// Returns the rules that accept the stopped traffic, in the syntax of the table's tool.
fn lines(table: &Table, guests: &Guests, stops: &[Traffic]) -> Vec<String> {
    let bridge = &guests.bridge;
    let stopped = |traffic| stops.contains(&traffic);
    let forwarded = stopped(Traffic::Beyond) || stopped(Traffic::Replies);
    let mut lines = Vec::new();
    match &table.id {
        TableId::Iptables { version, .. } => {
            if forwarded {
                let replies =
                    if guests.guarded { "" } else { "-m conntrack --ctstate RELATED,ESTABLISHED " };
                lines.push(format!("-i {bridge} -j ACCEPT"));
                lines.push(format!("-o {bridge} {replies}-j ACCEPT"));
            }
            // For a guarded network, the lines above accept these connections, too.
            if stopped(Traffic::Published) && !(forwarded && guests.guarded) {
                let dnat = "-m conntrack --ctstate DNAT -j ACCEPT";
                lines.push(format!("-i {bridge} {dnat}"));
                lines.push(format!("-o {bridge} {dnat}"));
            }
            // The rules for forwarded packets accept these, too.
            if stopped(Traffic::Among) && !forwarded {
                lines.push(format!("-i {bridge} -o {bridge} -j ACCEPT"));
            }
            let dhcp = if *version == Version::V4 { 67 } else { 547 };
            for (traffic, protocol, port) in [
                (Traffic::Dhcp, "udp", dhcp),
                (Traffic::Dns, "udp", 53),
                (Traffic::Dns, "tcp", 53),
                (Traffic::Tftp, "udp", 69),
            ] {
                if stopped(traffic) {
                    lines.push(format!("-i {bridge} -p {protocol} --dport {port} -j ACCEPT"));
                }
            }
            if stopped(Traffic::Neighbours) {
                lines.push(format!("-i {bridge} -p ipv6-icmp -j ACCEPT"));
            }
        }
        TableId::Nft { family, .. } => {
            if forwarded {
                let replies = if guests.guarded { "" } else { "ct state established,related " };
                lines.push(format!("iifname \"{bridge}\" accept"));
                lines.push(format!("oifname \"{bridge}\" {replies}accept"));
            }
            if stopped(Traffic::Published) && !(forwarded && guests.guarded) {
                lines.push(format!("iifname \"{bridge}\" ct status dnat accept"));
                lines.push(format!("oifname \"{bridge}\" ct status dnat accept"));
            }
            // The rules for forwarded packets accept these, too.
            if stopped(Traffic::Among) && !forwarded {
                lines.push(format!("iifname \"{bridge}\" oifname \"{bridge}\" accept"));
            }
            let mut ports = Vec::new();
            for (traffic, v4, v6) in
                [(Traffic::Dns, 53, 53), (Traffic::Dhcp, 67, 547), (Traffic::Tftp, 69, 69)]
            {
                if !stopped(traffic) {
                    continue;
                }
                if family != "ip6" {
                    ports.push(v4.to_string());
                }
                if family == "ip6" || family == "inet" && has_v6(guests) && v4 != v6 {
                    ports.push(v6.to_string());
                }
            }
            if !ports.is_empty() {
                lines.push(format!(
                    "iifname \"{bridge}\" meta l4proto {{ tcp, udp }} th dport {{ {} }} accept",
                    ports.join(", ")
                ));
            }
            if stopped(Traffic::Neighbours) {
                lines.push(format!("iifname \"{bridge}\" meta l4proto ipv6-icmp accept"));
            }
        }
    }
    lines
}

/// Returns the rules that accept the host's own packets to guests, in the syntax of the table's
/// tool.
fn outgoing(table: &Table, guests: &Guests, stops: &[Traffic]) -> Vec<String> {
    let bridge = &guests.bridge;
    let all = [
        (Traffic::DhcpReplies, "-p udp --dport 68", "udp dport 68"),
        (Traffic::DnsAnswers, "-p udp --sport 53", "udp sport 53"),
        (Traffic::DnsAnswers, "-p tcp --sport 53", "tcp sport 53"),
        (Traffic::NeighbourAnswers, "-p ipv6-icmp", "meta l4proto ipv6-icmp"),
    ];
    let stopped = all.iter().filter(|(traffic, ..)| stops.contains(traffic));
    let line = |(_, iptables, nft): &(Traffic, &str, &str)| match &table.id {
        TableId::Iptables { .. } => format!("-o {bridge} {iptables} -j ACCEPT"),
        TableId::Nft { .. } => format!("oifname \"{bridge}\" {nft} accept"),
    };
    stopped.map(line).collect()
}

/// Returns whether accepting rules at the head of the chain `into` let through all traffic that
/// `chain` stops.
fn helps(table: &Table, chain: &Chain, guests: &Guests, into: &str) -> bool {
    let mut fixed = table.clone();
    let Some(target) = fixed.chains.iter_mut().find(|chain| chain.name == into) else {
        return false;
    };
    let bridge = || vec![guests.bridge.to_string()];
    for property in [Property::Arrives(bridge()), Property::Leaves(bridge())] {
        target.rules.insert(0, Rule { terms: vec![property.into()], verdict: Verdict::Accept });
    }
    let Some(chain) = fixed.chain(&chain.name) else { return false };
    packets(guests).iter().all(|(_, packet)| fixed.refuses(chain, packet).is_none())
}
