//! Rules of others that stop guests' traffic.
//!
//! A packet must be let through by every table. So where ours lets guests through, docker's
//! `FORWARD` with policy DROP, ufw, firewalld or the host's own default-drop table may still stop
//! them, and nothing says why. [`find`] names the chain and what to do about it. It looks at what
//! the tools print, and changes nothing.
//!
//! # How
//!
//! The listings become [`Table`]s of chains, of which only what is understood is kept, rule by rule.
//! Each packet that guests need is then sent through each base chain at the hooks `forward` and
//! `input`, as the kernel would: a match holds, does not, or cannot be told; only a rule whose
//! matches all hold is followed. A packet that ends in a refusal is a finding. So an accepting rule
//! that is not understood gives a finding too many, and a refusing one gives one too few.
//!
//! | file | what |
//! |------|------|
//! | [`chains`] | tables as values, and a packet's way through them |
//! | [`saved`], [`nft`] | the listings of the tools, read |
//! | [`fix`] | the commands that let the packets through |

mod chains;
mod fix;
mod nft;
mod saved;

use std::fmt;

use chains::{Hook, How, Interface, Packet, Place, Table};
use ipnet::IpNet;

use crate::rules::Version;
use crate::types::InterfaceName;

/// What the tools print about the rules of a host; `None` where a tool is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listings<'a> {
    /// `nft -j list ruleset`.
    pub nft: Option<&'a str>,
    /// `iptables-save`.
    pub iptables: Option<&'a str>,
    /// `ip6tables-save`.
    pub ip6tables: Option<&'a str>,
    /// `iptables-legacy-save`, where `iptables-save` is not that already.
    pub iptables_legacy: Option<&'a str>,
    /// `ip6tables-legacy-save`.
    pub ip6tables_legacy: Option<&'a str>,
}

/// Guests on a bridge, and what they need of the host's firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guests {
    /// Their bridge.
    pub bridge: InterfaceName,
    /// Their subnets, which also say which IP versions they have.
    pub subnets: Vec<IpNet>,
    /// Whether the host forwards for them.
    pub forwarded: bool,
    /// Whether rules of ours say who may reach them; if not, a fix lets in replies only.
    pub guarded: bool,
    /// The IP versions whose packet filter sees the frames within the bridge (`br_netfilter`).
    pub filtered_within: Vec<Version>,
    /// Whether the host gives them addresses.
    pub dhcp: bool,
    /// Whether the host answers their DNS questions.
    pub dns: bool,
    /// Whether the host has a TFTP server for them.
    pub tftp: bool,
    /// The interfaces by which the host reaches everything else; empty where not known.
    pub uplinks: Vec<String>,
}

/// Traffic that guests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Beyond the host.
    Beyond,
    /// Replies from there.
    Replies,
    /// Among guests of one bridge, where the IP packet filter sees that.
    Among,
    /// DHCP requests to the host.
    Dhcp,
    /// DNS questions to the host.
    Dns,
    /// TFTP requests to the host.
    Tftp,
    /// The question for the host's Ethernet address in IPv6.
    Neighbours,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Traffic::Beyond => "what guests send beyond the host",
            Traffic::Replies => "replies to them",
            Traffic::Among => "what guests send each other (br_netfilter)",
            Traffic::Dhcp => "guests' DHCP requests",
            Traffic::Dns => "their DNS questions",
            Traffic::Tftp => "their TFTP requests",
            Traffic::Neighbours => "their search for the host by IPv6",
        })
    }
}

/// A chain that stops guests' traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The table, with the tool or family that it belongs to.
    pub table: String,
    /// The chain at the hook.
    pub chain: String,
    /// What it stops.
    pub stops: Vec<Traffic>,
    /// What it stops, and how, in words.
    pub why: String,
    /// The commands that let the guests through, to be run in this order; none is run here.
    pub commands: Vec<Vec<String>>,
    /// How to keep that over a restart, or what to do instead.
    pub note: String,
}

impl Finding {
    /// The commands as a line for a shell.
    pub fn fix(&self) -> String {
        let lines: Vec<_> = self.commands.iter().map(shell_words::join).collect();
        lines.join(" && ")
    }
}

/// The listing of nft is no listing.
#[derive(Debug, thiserror::Error)]
#[error(
    "the output of `nft -j list ruleset` cannot be read: {0}; run it by hand to see what it says"
)]
pub struct ListingError(#[from] serde_json::Error);

/// What stops the traffic of these guests.
///
/// # Errors
/// [`ListingError`].
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
                How::Rule(place) if place == chain.name => "refuses in a rule".to_owned(),
                How::Rule(place) => format!("refuses in its chain {place}"),
            };
            let fix = fix::fix(table, chain, guests, &stops);
            findings.push(Finding {
                table: table.place.to_string(),
                chain: chain.name.clone(),
                why: format!("{maker}it {how} and so stops {}", what.join(", ")),
                stops,
                commands: fix.commands,
                note: fix.note,
            });
        }
    }
    Ok(findings)
}

/// All tables, those that several tools show only once.
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
        // What iptables keeps in nftables is seen better by its own tools.
        let saved = |family: &str, name: &str| {
            let listing = match family {
                "ip" => listings.iptables,
                "ip6" => listings.ip6tables,
                _ => None,
            };
            listing.is_some_and(|saved| saved::is_kept_in_nftables(saved, name))
        };
        let theirs = |table: &Table| match &table.place {
            Place::Nft { family, name } => saved(family, name),
            Place::Iptables { .. } => false,
        };
        tables.extend(nft::tables(json)?.into_iter().filter(|table| !theirs(table)));
    }
    Ok(tables)
}

/// The packets that these guests need.
fn packets(guests: &Guests) -> Vec<(Traffic, Packet)> {
    let bridge = || Interface::Is(guests.bridge.to_string());
    let mut packets = Vec::new();
    for version in [Version::V4, Version::V6] {
        let subnets: Vec<IpNet> =
            guests.subnets.iter().copied().filter(|net| Version::of(net) == version).collect();
        // Frames within the bridge need no address of the host's.
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
        if guests.forwarded {
            let outside = || Interface::OneOf(guests.uplinks.clone(), guests.bridge.to_string());
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
    }
    packets
}
