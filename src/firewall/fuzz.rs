//! Checks the parsers of netlink messages, of the firewall tools' listings, and of D-Bus (see
//! [`crate::fuzz`]).

#![allow(clippy::unwrap_used, reason = "a finding is a panic")]

use super::conflicts::{Guests, Listings, find};
use super::dbus::BusSocket;
use super::dbus::message::{Call, Message};
use super::iptables_shape::{Shape, ShapeDifference};
use super::iptables_state::TableState;
use super::nft_dump::{Attributes, elements};
use super::nft_kernel::{FAMILY, HEADER, error_number, first_message};
use super::port_counters;
use super::port_nft::PortTable;
use super::port_roles::{ChainRoles, PortRoles, RuleRole, RuleTable};
use super::port_trace::fuzz::Reports;
use super::rules::Version;
use crate::fuzz::{comes_back, in_one_line};

/// Checks the parsers of a datagram of nfnetlink: a table's chains, rules and elements, and the
/// kernel's trace.
pub fn netlink(bytes: &[u8]) {
    let mut reports = Reports::new(roles());
    let mut rest = bytes;
    while let Some((message, next)) = first_message(rest) {
        assert!(message.len() >= HEADER && next.len() + message.len() <= rest.len());
        error_number(message);
        let attributes = message.get(HEADER + FAMILY..).unwrap_or_default();
        attribute_values(attributes, 0);
        for (key, chain) in elements(attributes) {
            assert!(key.len() + chain.len() <= 3 * attributes.len());
        }
        super::nft_rules::rule(&Attributes(attributes));
        reports.add(message);
        rest = next;
    }
}

/// Checks that the values of the attributes are together not longer than the attributes.
fn attribute_values(attributes: &[u8], depth: usize) {
    for kind in 0..10 {
        let values: Vec<&[u8]> = Attributes(attributes).all(kind).collect();
        let length: usize = values.iter().map(|value| 4 + value.len()).sum();
        assert!(length <= attributes.len());
        if depth < 2 {
            values.iter().for_each(|value| attribute_values(value, depth + 1));
        }
    }
}

/// Returns the roles of the chains of two ports: one of nftables and one of ebtables.
fn roles() -> PortRoles {
    let mut roles = PortRoles::default();
    for (table, name, packets, sub) in [
        (RuleTable::Bridge(PortTable::FIRST), "p7-from", false, false),
        (RuleTable::Bridge(PortTable::FIRST), "p7-from-1", false, true),
        (RuleTable::Bridge(PortTable::FIRST), "p7-from-ip", true, false),
        (RuleTable::Ethernet, "nl-7:from", false, false),
        (RuleTable::Filter(Version::V4), "nl-7:from-ip", true, false),
    ] {
        let own = vec![RuleRole::Other, RuleRole::End];
        let chain = ChainRoles { to_guest: false, packets, sub, roles: own };
        roles.chains.insert((table, name.to_owned()), chain);
    }
    roles
}

/// Checks the parsers of the listings of iptables, ebtables and nft.
pub fn listings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let state = TableState::parse(&text);
    assert_eq!(state.change_to(&state), "");
    assert!(state.missing_parts(&state, "iptables").is_empty());
    let difference = Shape::of(&state).difference(&state, "iptables");
    assert!(!matches!(difference, Some(ShapeDifference::Missing(_))), "{difference:?}");
    let nothing = TableState::default();
    for change in [nothing.change_to(&state), state.change_to(&nothing)] {
        change.lines().for_each(changes_own_chains);
    }
    port_counters::parse(&text);
    for listings in [
        Listings { iptables: Some(&text), ..Listings::default() },
        Listings { ip6tables_legacy: Some(&text), ..Listings::default() },
        Listings { nft: Some(&text), ..Listings::default() },
    ] {
        match find(&listings, &guests()) {
            Ok(findings) => assert!(findings.iter().all(|finding| !finding.stops.is_empty())),
            Err(error) => in_one_line(&error),
        }
    }
}

/// Checks that a line for iptables-restore changes only netlaunch's chains, and jumps to them.
fn changes_own_chains(line: &str) {
    let is_own = |chain: &str| chain.starts_with("NETLAUNCH_") || chain.starts_with("nl-");
    let chain = |rest: &str| rest.split(' ').next().unwrap_or_default().to_owned();
    let jumps_to_own =
        |rest: &str| rest.rsplit_once(" -j ").is_some_and(|(_, to)| to.starts_with("NETLAUNCH_"));
    assert!(
        match (line.strip_prefix(':'), line.get(..3)) {
            (Some(rest), _) => is_own(&chain(rest)),
            (None, Some("-A " | "-X ")) => is_own(&chain(&line[3..])),
            (None, Some("-I " | "-D ")) => is_own(&chain(&line[3..])) || jumps_to_own(line),
            _ => line.starts_with('*') || line == "COMMIT",
        },
        "{line:?}"
    );
}

fn guests() -> Guests {
    let versions = vec![Version::V4, Version::V6];
    Guests {
        bridge: "virbr0".parse().unwrap(),
        subnets: ["192.168.122.0/24", "fd00::/64"].map(|net| net.parse().unwrap()).into(),
        forwarded: true,
        guarded: false,
        filtered_within: versions.clone(),
        dhcp: true,
        dns: true,
        tftp: true,
        published: versions,
        uplinks: vec!["eth0".to_owned()],
    }
}

/// Checks the parsers of D-Bus messages and of the address of a bus.
pub fn dbus(bytes: &[u8]) {
    let (messages, whole) = received(&[bytes]);
    let at = bytes.first().map_or(0, |first| usize::from(*first) % bytes.len());
    let (first, second) = bytes.split_at(at);
    let (parts, split) = received(&[first, second]);
    assert_eq!((&messages, whole), (&parts, split));
    for message in &messages {
        if let Ok(texts) = message.texts() {
            let length: usize = texts.iter().map(|text| text.len() + 5).sum();
            assert!(length <= bytes.len());
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = BusSocket::parse(text);
    let args: Vec<&str> = text.split('\0').take(200).collect();
    let call = Call { destination: "a.b", path: "/", interface: "a.b", member: "C", args: &args };
    let mut sent = call.to_bytes(7);
    let message = Message::take(&mut sent).unwrap().unwrap();
    assert!(sent.is_empty());
    comes_back(&args, &message.texts().unwrap().iter().map(String::as_str).collect(), &message);
}

/// Returns the messages in the bytes, which arrive in these parts, and whether other bytes follow
/// them that are no message.
fn received(parts: &[&[u8]]) -> (Vec<Message>, bool) {
    let (mut buffer, mut messages) = (Vec::new(), Vec::new());
    for part in parts {
        buffer.extend_from_slice(part);
        loop {
            let before = buffer.len();
            match Message::take(&mut buffer) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
            assert!(buffer.len() < before);
        }
    }
    (messages, false)
}
