//! Renders kinds of frames and tests as nft expressions.
//!
//! A field without a keyword in nft is read by its offset from the start of the network header
//! (`@nh`) or the transport header (`@th`), in bits. A test of such a field comes with the
//! conditions under which the field is at that offset.

use ipnet::IpNet;

use super::EQUAL_BYTES;
use crate::firewall::rules::Version;
use crate::firewall::rules::port::{
    Address, Addresses, ConnectionDirection, FrameKind, Hardware, NeighborMessage, Number,
    PortRule, State, Test,
};

/// The result of rendering a test.
pub(super) enum Tested {
    Always,
    Never,
    If(String),
    /// Alternatives: the rule is repeated once for each expression.
    AnyOf(Vec<String>),
}

/// Returns text for a comment within quotation marks. nft has no escapes there, so quotation marks
/// become apostrophes, and a comment is limited to 128 bytes.
pub(super) fn quoted(text: &str) -> String {
    let mut short = text.replace('"', "'");
    let mut end = short.len().min(120);
    while !short.is_char_boundary(end) {
        end -= 1;
    }
    short.truncate(end);
    short
}

pub(super) fn kind(kind: FrameKind) -> Option<String> {
    match kind {
        FrameKind::Any => None,
        FrameKind::Stp => Some("ether daddr 01:80:c2:00:00:00".to_owned()),
        FrameKind::Ip(_, protocol) => {
            let ether = kind.ether_type().map(|t| format!("ether type {t:#06x}"))?;
            let protocol = protocol.map_or_else(String::new, |p| format!(" meta l4proto {p}"));
            Some(ether + &protocol)
        }
        _ => kind.ether_type().map(|t| format!("ether type {t:#06x}")),
    }
}

/// Returns the conditions under which the tested fields are at the offsets from which they are
/// read.
pub(super) fn implied(rule: &PortRule) -> Vec<&'static str> {
    let any = |wanted: fn(&Test) -> bool| {
        rule.tests.iter().any(|test| !always_holds(test) && wanted(test))
    };
    let mut words = Vec::new();
    let ip = |t: &Test| {
        matches!(t, Test::Gratuitous)
            || matches!(t, Test::Address { field: Address::ArpSender | Address::ArpTarget, .. })
    };
    let mac = |t: &Test| {
        matches!(t, Test::Hardware { field: Hardware::ArpSender | Hardware::ArpTarget, .. })
    };
    let target = |t: &Test| matches!(t, Test::Hardware { field: Hardware::ArpTarget, .. });
    let types = |t: &Test| {
        matches!(t, Test::Number { field: Number::ArpHardware | Number::ArpProtocol, .. })
    };
    if any(types) {
        // The header is whole: its last field exists.
        words.push("@nh,48,16 >= 0x0");
    }
    if any(mac) || any(ip) {
        if any(mac) {
            words.push("@nh,0,16 1");
        }
        // This compares the lengths of the addresses, which are six and four bytes, and tests that
        // the packet has the last of the addresses.
        words.push(match (any(ip), any(target)) {
            (true, _) => "@nh,16,16 0x0800 @nh,32,16 0x0604 @nh,192,32 >= 0x0",
            (false, true) => "@nh,32,16 0x0604",
            (false, false) => "@nh,32,8 6",
        });
    }
    if any(Test::is_transport) {
        // A load of one, two or four bytes does not check whether the packet is a later fragment,
        // and reads the fragment's payload as the header (measured on Linux 6.18). A load of three
        // bytes checks it. These are the last three of the four that a header has at least.
        words.push("@th,8,24 >= 0x0");
    }
    if any(Test::is_stp) {
        // This compares the logical link control header of a BPDU and its protocol (IEEE 802.1D,
        // 9.3.1).
        words.push("@ll,112,24 0x424203 @nh,24,16 0");
    }
    words
}

/// Returns whether a test holds for every frame, so that the rule does not read its field.
fn always_holds(test: &Test) -> bool {
    match test {
        Test::Hardware { mask, negated, .. } => *mask == [0; 6] && !negated,
        Test::Address { addresses: Addresses::Net(net), negated, .. } => {
            net.prefix_len() == 0 && !negated
        }
        _ => false,
    }
}

fn hex(bytes: [u8; 6]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

pub(in crate::firewall) fn colons(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

pub(super) fn hardware(field: Hardware, address: [u8; 6], mask: [u8; 6], negated: bool) -> Tested {
    let (place, text): (&str, fn([u8; 6]) -> String) = match field {
        Hardware::Source => ("ether saddr", colons),
        Hardware::Destination => ("ether daddr", colons),
        Hardware::ArpSender => ("@nh,64,48", hex),
        Hardware::ArpTarget => ("@nh,144,48", hex),
        Hardware::StpRoot => ("@nh,80,48", hex),
        Hardware::StpSender => ("@nh,176,48", hex),
        // UDP's header has 8 bytes. In the DHCP message, htype and hlen are at offset 1, giaddr at
        // 24, chaddr at 28.
        Hardware::DhcpClient => ("@th,72,16 0x0106 @th,256,32 0x0 @th,288,48", hex),
    };
    let masked: [u8; 6] = std::array::from_fn(|i| address[i] & mask[i]);
    if mask == [0; 6] {
        return if negated { Tested::Never } else { Tested::Always };
    }
    let sign = if negated { "!=" } else { "==" };
    Tested::If(if mask == [0xff; 6] && !negated {
        format!("{place} {sign} {}", text(masked))
    } else {
        format!("{place} & {} {sign} {}", text(mask), text(masked))
    })
}

/// Renders a test of an IPv6 packet's protocol. A later fragment has the protocol of the fragment
/// header, as in ebtables; but `meta l4proto` returns the protocol that the first fragment
/// contains. `has_transport` says whether the rule also tests the transport header, which excludes
/// later fragments already.
pub(super) fn protocol_v6(protocol: u32, negated: bool, has_transport: bool) -> Tested {
    const FRAGMENT: u32 = 44;
    let is_fragment = protocol == FRAGMENT;
    // The range matches every protocol that nft finds; a packet with a broken chain of headers has
    // none.
    let test = match (is_fragment, negated) {
        (true, _) => "0x0-0xff".to_owned(),
        (false, true) => format!("!= {protocol:#x}"),
        (false, false) => format!("== {protocol:#x}"),
    };
    if has_transport && !negated {
        return Tested::If(format!("meta l4proto {test}"));
    }
    let mut words = Vec::new();
    if !is_fragment || negated {
        words.push(format!("exthdr frag missing meta l4proto {test}"));
        words.push(format!("frag frag-off 0 meta l4proto {test}"));
    }
    if is_fragment != negated {
        words.push("frag frag-off != 0".to_owned());
    }
    Tested::AnyOf(words)
}

pub(super) fn number(
    field: Number,
    first: u32,
    last: u32,
    negated: bool,
    kind: FrameKind,
) -> Tested {
    let v6 = matches!(kind, FrameKind::Ip(Version::V6, _));
    let place = match field {
        Number::EtherType => "ether type",
        Number::VlanId => "vlan id",
        Number::VlanEncapsulated => "vlan type",
        Number::StpType => "@nh,48,8",
        Number::StpFlags => "@nh,56,8",
        Number::StpRootPriority => "@nh,64,16",
        Number::StpRootCost => "@nh,128,32",
        Number::StpSenderPriority => "@nh,160,16",
        Number::StpPort => "@nh,224,16",
        Number::StpAge => "@nh,240,16",
        Number::StpMaxAge => "@nh,256,16",
        Number::StpHelloTime => "@nh,272,16",
        Number::StpForwardDelay => "@nh,288,16",
        Number::ArpHardware => "@nh,0,16",
        Number::ArpProtocol => "@nh,16,16",
        Number::ArpOperation => "@nh,48,16",
        Number::Protocol => "ip protocol",
        Number::Dscp if v6 => "ip6 dscp",
        Number::Dscp => "ip dscp",
        Number::SourcePort => "th sport",
        Number::DestinationPort => "th dport",
    };
    let sign = if negated { "!=" } else { "==" };
    let ones = match field {
        // nft masks these fields already.
        Number::Dscp | Number::VlanId => None,
        Number::StpType | Number::StpFlags | Number::Protocol => Some("0xff"),
        Number::StpRootCost => Some("0xffffffff"),
        _ => Some("0xffff"),
    };
    Tested::If(match (first == last, ones) {
        (true, Some(ones)) if negated => format!("{place} & {ones} {sign} {first:#x}"),
        (true, _) => format!("{place} {sign} {first:#x}"),
        (false, _) => format!("{place} {sign} {first:#x}-{last:#x}"),
    })
}

pub(super) fn address(
    field: Address,
    addresses: &Addresses,
    negated: bool,
    kind: FrameKind,
) -> Tested {
    let v6 = matches!(kind, FrameKind::Ip(Version::V6, _));
    let place = match field {
        Address::Source if v6 => "ip6 saddr",
        Address::Destination if v6 => "ip6 daddr",
        Address::Source => "ip saddr",
        Address::Destination => "ip daddr",
        Address::ArpSender => "@nh,112,32",
        Address::ArpTarget => "@nh,192,32",
    };
    let sign = if negated { "!=" } else { "==" };
    let raw = matches!(field, Address::ArpSender | Address::ArpTarget);
    match addresses {
        Addresses::Net(net) if net.prefix_len() == 0 => {
            if negated {
                Tested::Never
            } else {
                Tested::Always
            }
        }
        Addresses::Net(IpNet::V4(net)) if raw => {
            let (address, mask) = (u32::from(net.network()), u32::from(net.netmask()));
            Tested::If(match net.prefix_len() {
                32 if !negated => format!("{place} {sign} {address:#x}"),
                _ => format!("{place} & {mask:#x} {sign} {address:#x}"),
            })
        }
        Addresses::Net(net) if negated && net.prefix_len() == net.max_prefix_len() => {
            Tested::If(format!("{place} & {} {sign} {}", net.netmask(), net.addr()))
        }
        Addresses::Net(net) => Tested::If(format!("{place} {sign} {}", net.trunc())),
        Addresses::Range(range) => Tested::If(format!("{place} {sign} {range}")),
    }
}

pub(super) fn icmp(types: (u8, u8), codes: Option<(u8, u8)>, negated: bool) -> Tested {
    let sign = if negated { "!=" } else { "==" };
    let Some((first, last)) = codes else {
        return match types {
            (0, u8::MAX) if negated => Tested::Never,
            (first, last) => Tested::If(format!("@th,0,8 {sign} {first:#x}-{last:#x}")),
        };
    };
    // The expression compares type and code as one number.
    let pairs: Vec<_> = (types.0..=types.1)
        .map(|kind| format!("{kind:#04x}{first:02x}-{kind:#04x}{last:02x}"))
        .collect();
    Tested::If(format!("@th,0,16 {sign} {{ {} }}", pairs.join(", ")))
}

/// Renders the form of a neighbor discovery message. The offsets are those of the IPv6 packet.
pub(super) fn neighbor(message: &NeighborMessage) -> String {
    let mut words = vec![format!("@nh,32,32 {:#x}", u32::from_be_bytes(message.header()))];
    let at = 8 * NeighborMessage::TARGET;
    match message.target.filter(|target| target.prefix_len() > 0) {
        None => {}
        Some(target) if target.prefix_len() == 128 => {
            words.push(format!("@nh,{at},128 {:#x}", u128::from(target.addr())));
        }
        Some(target) => {
            let (mask, net) = (u128::from(target.netmask()), u128::from(target.network()));
            words.push(format!("@nh,{at},128 & {mask:#x} == {net:#x}"));
        }
    }
    if let Some((at, bytes)) = message.option() {
        let value = bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"));
        words.push(format!("@nh,{},{} {value}", 8 * at, 8 * bytes.len()));
    }
    words.join(" ")
}

/// Returns a test whether the ARP sender and target are equal. nft cannot compare two fields, but
/// it can look up a pair of bytes in a set of all equal pairs, four times for an address. (A set to
/// which rules add pairs would become full, and then the rule would fail.)
pub(super) fn gratuitous() -> String {
    let pair = |byte| format!("@nh,{},8 . @nh,{},8 @{EQUAL_BYTES}", 112 + 8 * byte, 192 + 8 * byte);
    (0..4).map(pair).collect::<Vec<_>>().join(" ")
}

pub(super) fn state(states: &[State], direction: Option<ConnectionDirection>) -> String {
    let names: Vec<_> = states
        .iter()
        .map(|state| match state {
            State::New => "new",
            State::Established => "established",
            State::Related => "related",
            State::Invalid => "invalid",
        })
        .collect();
    let direction = match direction {
        None => "",
        Some(ConnectionDirection::Original) => "ct direction original ",
        Some(ConnectionDirection::Reply) => "ct direction reply ",
    };
    format!("{direction}ct state {}", names.join(","))
}
