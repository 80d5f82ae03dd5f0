//! Renders the rules of the second stage for iptables and ip6tables.
//!
//! A rule that accepts returns to the calling chain, since the host's own rules decide about
//! the packet afterwards. A rule with a test of the link layer never applies here.

use super::Tested;
use crate::firewall::port_nft::words::colons;
use crate::firewall::rules::port::{
    Address, Addresses, ConnectionDirection, End, FrameKind, Hardware, NeighborMessage, Number,
    PortRule, PortVerdict, State, Test,
};
use crate::firewall::rules::{AddressRange, Version};

/// The numbers of IP protocols (IANA, Protocol Numbers).
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Returns a rule for iptables or ip6tables; `None` if it never applies.
pub(super) fn packet_rule(rule: &PortRule) -> Option<String> {
    let FrameKind::Ip(version, protocol) = rule.kind else { return None };
    let mut words = Vec::new();
    if let Some(protocol) = protocol {
        words.push(format!("-p {protocol}"));
    }
    if rule.tests.iter().any(Test::is_transport) {
        // iptables over nftables reads the payload of a later fragment as the header (measured with
        // 1.8.9 on Linux 6.18). ip6tables has no option -f; there, multiport with all ports matches
        // no later fragment.
        match (version, protocol) {
            (Version::V4, _) => words.push("! -f".to_owned()),
            (Version::V6, Some(TCP | UDP)) => {
                words.push("-m multiport --sports 0:65535".to_owned());
            }
            // The other modules check this themselves.
            (Version::V6, _) => {}
        }
    }
    for test in &rule.tests {
        match iptables_test(test, version, protocol) {
            Tested::Always => {}
            Tested::If(word) => words.push(word),
            Tested::Never | Tested::AnyOf(_) | Tested::Cannot(_) => return None,
        }
    }
    if let Some(comment) = &rule.comment {
        let escaped = comment.replace('\\', "\\\\").replace('"', "\\\"");
        words.push(format!("-m comment --comment \"{escaped}\""));
    }
    match rule.verdict {
        PortVerdict::Accept | PortVerdict::Return => words.push("-j RETURN".to_owned()),
        PortVerdict::Drop => words.push("-j DROP".to_owned()),
        PortVerdict::Reject => words.push("-j REJECT".to_owned()),
        // A rule without a target counts the packet, and the next rule decides.
        PortVerdict::Continue => {}
    }
    Some(words.join(" "))
}

/// Returns `! ` for a negated test. iptables expects it before the option.
fn not(negated: bool) -> &'static str {
    if negated { "! " } else { "" }
}

/// Returns the result of a test that every packet passes, or no packet if the test is negated.
pub(super) fn always(negated: bool) -> Tested {
    if negated { Tested::Never } else { Tested::Always }
}

fn iptables_test(test: &Test, version: Version, protocol: Option<u8>) -> Tested {
    match test {
        Test::Hardware { field: Hardware::DhcpClient, address, negated, .. } => {
            dhcp_client(*address, *negated)
        }
        Test::Hardware { address, negated, .. } => {
            Tested::If(format!("-m mac {}--mac-source {}", not(*negated), colons(*address)))
        }
        Test::Address { field, addresses, negated } => address(*field, addresses, *negated),
        Test::Number { field, first, last, negated } => {
            let range = if first == last { first.to_string() } else { format!("{first}:{last}") };
            let (not, module) = (not(*negated), ports(protocol));
            match field {
                Number::SourcePort => Tested::If(format!("-m {module} {not}--sport {range}")),
                Number::DestinationPort => Tested::If(format!("-m {module} {not}--dport {range}")),
                Number::Dscp => Tested::If(format!("-m dscp {not}--dscp {first}")),
                _ => Tested::Cannot("a test of the link layer"),
            }
        }
        Test::Icmp { types: (0, u8::MAX), codes: None, negated } => always(*negated),
        Test::Icmp { types, codes, negated } => {
            let (module, option) = match version {
                Version::V4 => ("icmp", "--icmp-type"),
                Version::V6 => ("icmp6", "--icmpv6-type"),
            };
            let code = codes.map_or_else(String::new, |(code, _)| format!("/{code}"));
            Tested::If(format!("-m {module} {}{option} {}{code}", not(*negated), types.0))
        }
        Test::Neighbor(message) => neighbor(message),
        // iptables over nftables leaves out a test without a mask (measured with 1.8.9).
        Test::TcpFlags { mask: 0, flags, negated } => always((*flags == 0) == *negated),
        Test::TcpFlags { mask, flags, negated } => {
            let (not, mask, flags) = (not(*negated), tcp_flags(*mask), tcp_flags(*flags));
            Tested::If(format!("-m tcp {not}--tcp-flags {mask} {flags}"))
        }
        Test::Set { name, sides, negated } => {
            let side = |side: &End| match side {
                End::Source => "src",
                End::Destination => "dst",
            };
            let sides: Vec<_> = sides.iter().map(side).collect();
            let sides = sides.join(",");
            Tested::If(format!("-m set {}--match-set \"{name}\" {sides}", not(*negated)))
        }
        Test::Connections { above } => {
            let mask = if version == Version::V4 { 32 } else { 128 };
            Tested::If(format!(
                "-m connlimit --connlimit-above {above} --connlimit-mask {mask} --connlimit-saddr"
            ))
        }
        Test::State { states, direction } => Tested::If(state(states, *direction)),
        Test::Gratuitous => Tested::Cannot("a test of the link layer"),
    }
}

/// Returns the test of a DHCP message's client address.
///
/// The offsets after the IP header are: htype and hlen at 9, giaddr at 32, chaddr at 36. Two
/// overlapping words of four bytes test chaddr.
fn dhcp_client(address: [u8; 6], negated: bool) -> Tested {
    let [a, b, c, d, e, f] = address;
    let (first, last) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([c, d, e, f]));
    let words = [
        "0x8&0xffff00=0x10600".to_owned(),
        "0x20=0x0".to_owned(),
        format!("0x24={first:#x}"),
        format!("0x26={last:#x}"),
    ];
    let words = words.map(|word| format!("0x0>>0x16&0x3c@{word}")).join("&&");
    Tested::If(format!("-m u32 {}--u32 \"{words}\"", not(negated)))
}

/// Returns the test of the form of a neighbor discovery message, in words of four bytes from the
/// start of the IPv6 header.
fn neighbor(message: &NeighborMessage) -> Tested {
    let word = |at: usize, mask: u32, value: u32| match mask {
        u32::MAX => format!("{at:#x}={value:#x}"),
        _ => format!("{at:#x}&{mask:#x}={value:#x}"),
    };
    let mut words = vec![word(4, u32::MAX, u32::from_be_bytes(message.header()))];
    if let Some(target) = message.target {
        let (mask, net) = (u128::from(target.netmask()), u128::from(target.network()));
        for part in 0..4 {
            let [mask, net] = [mask, net].map(|bits| (bits >> (96 - 32 * part)) as u32);
            if mask != 0 {
                words.push(word(NeighborMessage::TARGET + 4 * part, mask, net));
            }
        }
    }
    if let Some((at, bytes)) = message.option() {
        for (part, bytes) in bytes.chunks(4).enumerate() {
            let value = bytes.iter().fold(0, |value: u32, byte| value << 8 | u32::from(*byte));
            let missing = 32 - 8 * bytes.len() as u32;
            words.push(word(at + 4 * part, u32::MAX << missing, value << missing));
        }
    }
    Tested::If(format!("-m u32 --u32 \"{}\"", words.join("&&")))
}

fn address(field: Address, addresses: &Addresses, negated: bool) -> Tested {
    let (net_option, range_option) = match field {
        Address::Destination => ("-d", "--dst-range"),
        _ => ("-s", "--src-range"),
    };
    let not = not(negated);
    match addresses {
        Addresses::Net(net) if net.prefix_len() == 0 => always(negated),
        Addresses::Net(net) => Tested::If(format!("{not}{net_option} {}", net.trunc())),
        Addresses::Range(range) => {
            Tested::If(format!("-m iprange {not}{range_option} {}", ends(range)))
        }
    }
}

/// Returns the iptables module that has the port options for a protocol number.
fn ports(protocol: Option<u8>) -> &'static str {
    match protocol {
        Some(TCP) => "tcp",
        Some(UDP) => "udp",
        _ => "sctp",
    }
}

fn ends(range: &AddressRange) -> String {
    match range {
        AddressRange::V4(first, last) => format!("{first}-{last}"),
        AddressRange::V6(first, last) => format!("{first}-{last}"),
    }
}

fn tcp_flags(bits: u8) -> String {
    const FLAGS: [(u8, &str); 6] =
        [(0x01, "FIN"), (0x02, "SYN"), (0x04, "RST"), (0x08, "PSH"), (0x10, "ACK"), (0x20, "URG")];
    let set: Vec<_> =
        FLAGS.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "NONE".to_owned() } else { set.join(",") }
}

fn state(states: &[State], direction: Option<ConnectionDirection>) -> String {
    let names: Vec<_> = states
        .iter()
        .map(|state| match state {
            State::New => "NEW",
            State::Established => "ESTABLISHED",
            State::Related => "RELATED",
            State::Invalid => "INVALID",
        })
        .collect();
    let direction = match direction {
        None => "",
        Some(ConnectionDirection::Original) => " --ctdir ORIGINAL",
        Some(ConnectionDirection::Reply) => " --ctdir REPLY",
    };
    format!("-m conntrack --ctstate {}{direction}", names.join(","))
}
