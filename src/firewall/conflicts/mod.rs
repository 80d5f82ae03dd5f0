//! Finds rules of other programs that stop guests' traffic.
//!
//! A packet passes only if every table lets it through. So even if netlaunch's table accepts
//! guests' packets, docker's `FORWARD` with policy DROP, ufw, firewalld or the host's own
//! default-drop table may still stop them, without any message. [`find`] names the chain and the
//! remedy. It reads the listings of the tools, and changes no rules.
//!
//! # How
//!
//! The listings become [`Table`]s of chains. A rule keeps only the parts that this module
//! understands. Each packet that guests need is then evaluated in each base chain at the hooks
//! `forward`, `input` and `output`, as the kernel would do it: a match holds, does not hold, or is
//! unknown. Only a rule whose matches all hold is followed. A packet that is refused is a finding.
//! So an accepting rule that is not understood causes a false finding, and a refusing rule that is
//! not understood causes a missing finding.
//!
//! | file | content |
//! |------|---------|
//! | [`chains`] | tables as values, and a packet's way through them |
//! | [`saved`], [`nft`] | the listings of the tools, read |
//! | [`fix`] | the commands that let the packets through |

mod chains;
mod fix;
mod nft;
mod saved;
#[cfg(test)]
mod tests;

use std::fmt;

use chains::{Hook, How, Interface, Packet, Table, TableId};
use ipnet::IpNet;

use crate::firewall::rules::Version;
use crate::types::InterfaceName;

/// The tools' listings of the host's rules; a listing is `None` where the tool is not installed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listings<'a> {
    /// `nft -j list ruleset`.
    pub nft: Option<&'a str>,
    /// `iptables-save`.
    pub iptables: Option<&'a str>,
    /// `ip6tables-save`.
    pub ip6tables: Option<&'a str>,
    /// `iptables-legacy-save`, if `iptables-save` is not the legacy program already.
    pub iptables_legacy: Option<&'a str>,
    /// `ip6tables-legacy-save`.
    pub ip6tables_legacy: Option<&'a str>,
}

/// Guests on a bridge, and the traffic that the host's firewall must let through for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guests {
    /// The bridge of the guests.
    pub bridge: InterfaceName,
    /// The subnets of the guests; their IP versions are the versions that the guests use.
    pub subnets: Vec<IpNet>,
    /// Whether the host forwards packets of the guests.
    pub forwarded: bool,
    /// Whether netlaunch's rules restrict the packets that reach the guests. If not, a fix accepts
    /// replies only.
    pub guarded: bool,
    /// The IP versions whose packet filter sees the frames between guests of the bridge
    /// (`br_netfilter`).
    pub filtered_within: Vec<Version>,
    /// Whether the host's DHCP server serves the guests.
    pub dhcp: bool,
    /// Whether the host answers their DNS questions.
    pub dns: bool,
    /// Whether the host's TFTP server serves the guests.
    pub tftp: bool,
    /// The IP versions in which ports of the host are published to the guests.
    pub published: Vec<Version>,
    /// The interfaces that lead to the networks beyond the host; empty if they are not known.
    pub uplinks: Vec<String>,
}

/// A kind of traffic that guests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Packets from guests to addresses beyond the host.
    Beyond,
    /// Replies from addresses beyond the host.
    Replies,
    /// Connections to ports of the host that are published to guests, and their replies.
    Published,
    /// Packets between guests of one bridge, if the IP packet filter sees them.
    Among,
    /// DHCP requests to the host.
    Dhcp,
    /// DNS questions to the host.
    Dns,
    /// TFTP requests to the host.
    Tftp,
    /// The search for the host's Ethernet address in IPv6.
    Neighbours,
    /// The host's DHCP replies.
    DhcpReplies,
    /// The host's DNS answers.
    DnsAnswers,
    /// The host's answer to the search for its Ethernet address in IPv6.
    NeighbourAnswers,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Traffic::Beyond => "guests' packets beyond the host",
            Traffic::Replies => "replies to guests",
            Traffic::Published => "connections to published ports",
            Traffic::Among => "packets between guests (br_netfilter)",
            Traffic::Dhcp => "guests' DHCP requests",
            Traffic::Dns => "guests' DNS questions",
            Traffic::Tftp => "guests' TFTP requests",
            Traffic::Neighbours => "guests' search for the host by IPv6",
            Traffic::DhcpReplies => "the host's DHCP replies",
            Traffic::DnsAnswers => "the host's DNS answers",
            Traffic::NeighbourAnswers => "the host's answers to guests' search by IPv6",
        })
    }
}

/// A chain that stops guests' traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The name of the table, with the tool or family that it belongs to.
    pub table: String,
    /// The name of the base chain.
    pub chain: String,
    /// The kinds of traffic that the chain stops.
    pub stops: Vec<Traffic>,
    /// The explanation: what the chain stops and how.
    pub why: String,
    /// The commands that let the guests through, in this order. netlaunch does not run them.
    pub commands: Vec<Vec<String>>,
    /// Advice on keeping the fix over a restart, or on another solution.
    pub note: String,
}

impl Finding {
    /// Returns the commands as one line for a shell.
    pub fn fix(&self) -> String {
        let lines: Vec<_> = self.commands.iter().map(shell_words::join).collect();
        lines.join(" && ")
    }
}

/// The listing of nft cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error(
    "the output of `nft -j list ruleset` cannot be read; run that command by hand and read its message"
)]
pub struct ListingError(#[from] serde_json::Error);

/// Returns the chains that stop the traffic of these guests.
///
/// # Errors
/// Returns [`ListingError`] if the listing of nft cannot be parsed.
pub fn find(listings: &Listings<'_>, guests: &Guests) -> Result<Vec<Finding>, ListingError> {
    let tables = tables(listings)?;
    let packets = packets(guests);
    let mut findings = Vec::new();
    for table in &tables {
        for chain in table.chains.iter().filter(|chain| chain.hook.is_some()) {
            let (mut stops, mut how) = (Vec::new(), None);
            for (traffic, packet) in &packets {
                if let Some(refused) = table.refuses(chain, packet) {
                    how.get_or_insert(refused);
                    if !stops.contains(traffic) {
                        stops.push(*traffic);
                    }
                }
            }
            let Some(how) = how else { continue };
            let maker = fix::maker(table);
            let what: Vec<_> = stops.iter().map(ToString::to_string).collect();
            let how = match how {
                How::Policy => "has the policy drop".to_owned(),
                How::Rule(name) if name == chain.name => "refuses packets in a rule".to_owned(),
                How::Rule(name) => format!("leads to the chain {name}, which refuses packets,"),
            };
            let fix = fix::fix(table, chain, guests, &stops);
            findings.push(Finding {
                table: table.id.to_string(),
                chain: chain.name.clone(),
                why: format!("{maker}the chain {how} and so stops {}", what.join(", ")),
                stops,
                commands: fix.commands,
                note: fix.note,
            });
        }
    }
    Ok(findings)
}

/// Returns all tables; a table that several tools list is returned once.
fn tables(listings: &Listings<'_>) -> Result<Vec<Table>, ListingError> {
    let mut tables = Vec::new();
    for (tool, version, saved) in [
        ("iptables", Version::V4, listings.iptables),
        ("ip6tables", Version::V6, listings.ip6tables),
        ("iptables-legacy", Version::V4, listings.iptables_legacy),
        ("ip6tables-legacy", Version::V6, listings.ip6tables_legacy),
    ] {
        tables.extend(saved.map(|saved| saved::tables(tool, version, saved)).unwrap_or_default());
    }
    if let Some(json) = listings.nft {
        // The iptables tools show their own tables better than nft does.
        let saved = |family: &str, name: &str| {
            let listing = match family {
                "ip" => listings.iptables,
                "ip6" => listings.ip6tables,
                _ => None,
            };
            listing.is_some_and(|saved| saved::is_kept_in_nftables(saved, name))
        };
        let theirs = |table: &Table| match &table.id {
            TableId::Nft { family, name } => saved(family, name),
            TableId::Iptables { .. } => false,
        };
        tables.extend(nft::tables(json)?.into_iter().filter(|table| !theirs(table)));
    }
    Ok(tables)
}

/// Returns the packets of connections to published ports, in both directions.
fn to_published_ports(
    guests: &Guests,
    version: Version,
    subnets: &[IpNet],
) -> [(Traffic, Packet); 2] {
    let bridge = || Interface::Is(guests.bridge.to_string());
    let outside = || Interface::OneOf(guests.uplinks.clone(), guests.bridge.to_string());
    let connection = Packet {
        arrives: outside(),
        leaves: Some(bridge()),
        destination: Some(subnets.to_vec()),
        translated: true,
        ..Packet::new(Hook::Forward, version)
    };
    let reply = Packet {
        arrives: bridge(),
        leaves: Some(outside()),
        source: Some(subnets.to_vec()),
        state: "established",
        translated: true,
        ..Packet::new(Hook::Forward, version)
    };
    [(Traffic::Published, connection), (Traffic::Published, reply)]
}

/// Returns the packets that these guests need.
fn packets(guests: &Guests) -> Vec<(Traffic, Packet)> {
    let bridge = || Interface::Is(guests.bridge.to_string());
    let mut packets = Vec::new();
    for version in [Version::V4, Version::V6] {
        let subnets: Vec<IpNet> =
            guests.subnets.iter().copied().filter(|net| Version::of(net) == version).collect();
        // Frames within the bridge do not need an address of the host.
        if guests.filtered_within.contains(&version) {
            let packet = Packet {
                arrives: bridge(),
                leaves: Some(bridge()),
                ..Packet::new(Hook::Forward, version)
            };
            packets.push((Traffic::Among, packet));
        }
        if subnets.is_empty() {
            continue;
        }
        let known = || Some(subnets.clone());
        let outside = || Interface::OneOf(guests.uplinks.clone(), guests.bridge.to_string());
        if guests.published.contains(&version) {
            packets.extend(to_published_ports(guests, version, &subnets));
        }
        if guests.forwarded {
            let packet = Packet {
                arrives: bridge(),
                leaves: Some(outside()),
                source: known(),
                ..Packet::new(Hook::Forward, version)
            };
            packets.push((Traffic::Beyond, packet));
            let packet = Packet {
                arrives: outside(),
                leaves: Some(bridge()),
                destination: known(),
                state: "established",
                ..Packet::new(Hook::Forward, version)
            };
            packets.push((Traffic::Replies, packet));
        }
        let mut ask = |traffic, protocol, port, to, source| {
            let packet = Packet {
                arrives: bridge(),
                protocol: Some(protocol),
                port,
                to: Some(to),
                source,
                ..Packet::new(Hook::Input, version)
            };
            packets.push((traffic, packet));
        };
        if guests.dhcp {
            let (port, to) = match version {
                Version::V4 => (67, "broadcast"),
                Version::V6 => (547, "multicast"),
            };
            ask(Traffic::Dhcp, "udp", Some(port), to, None);
        }
        if guests.dns {
            ask(Traffic::Dns, "udp", Some(53), "local", known());
            ask(Traffic::Dns, "tcp", Some(53), "local", known());
        }
        if guests.tftp {
            ask(Traffic::Tftp, "udp", Some(69), "local", known());
        }
        if version == Version::V6 {
            let packet = Packet {
                arrives: bridge(),
                protocol: Some("icmpv6"),
                to: Some("multicast"),
                state: "untracked",
                ..Packet::new(Hook::Input, version)
            };
            packets.push((Traffic::Neighbours, packet));
        }
        packets.extend(sent_by_the_host(guests, version, &subnets));
    }
    packets
}

/// Returns the packets of this IP version that the host itself sends to guests of these subnets.
fn sent_by_the_host(
    guests: &Guests,
    version: Version,
    subnets: &[IpNet],
) -> Vec<(Traffic, Packet)> {
    let packet = |state, protocol, source_port, port| Packet {
        // An outgoing packet has no incoming interface.
        arrives: Interface::Is(String::new()),
        leaves: Some(Interface::Is(guests.bridge.to_string())),
        state,
        protocol: Some(protocol),
        port,
        source_port,
        destination: Some(subnets.to_vec()),
        ..Packet::new(Hook::Output, version)
    };
    let mut packets = Vec::new();
    // DHCP requests go from 0.0.0.0 to the broadcast address, so the kernel does not relate the
    // replies to a connection.
    if guests.dhcp && version == Version::V4 {
        packets.push((Traffic::DhcpReplies, packet("new", "udp", Some(67), Some(68))));
    }
    if guests.dns {
        for protocol in ["udp", "tcp"] {
            packets.push((Traffic::DnsAnswers, packet("established", protocol, Some(53), None)));
        }
    }
    if version == Version::V6 {
        packets.push((Traffic::NeighbourAnswers, packet("untracked", "icmpv6", None, None)));
    }
    packets
}
