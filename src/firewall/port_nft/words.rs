//! nft's words for kinds of frames and for tests.

use ipnet::IpNet;

use super::EQUAL_BYTES;
use crate::rules::Version;
use crate::rules::port::{
    Address, Addresses, Direction, Hardware, Kind, Number, PortRule, State, Test,
};

/// What a test comes to.
pub(super) enum Tested {
    Always,
    Never,
    If(String),
}

/// Text within quotation marks: nft knows no escapes there, and 128 bytes are the limit of
/// comments.
pub(super) fn quoted(text: &str) -> String {
    let mut short = text.replace('"', "'");
    let mut end = short.len().min(120);
    while !short.is_char_boundary(end) {
        end -= 1;
    }
    short.truncate(end);
    short
}

pub(super) fn kind(kind: Kind) -> Option<String> {
    match kind {
        Kind::Any => None,
        Kind::Stp => Some("ether daddr 01:80:c2:00:00:00".to_owned()),
        Kind::Ip(_, protocol) => {
            let ether = kind.ether_type().map(|t| format!("ether type {t:#06x}"))?;
            let protocol = protocol.map_or_else(String::new, |p| format!(" meta l4proto {p}"));
            Some(ether + &protocol)
        }
        _ => kind.ether_type().map(|t| format!("ether type {t:#06x}")),
    }
}

/// What must hold for the fields that a rule tests to be where they are read.
pub(super) fn implied(rule: &PortRule) -> Vec<&'static str> {
    let any = |wanted: fn(&Test) -> bool| rule.tests.iter().any(wanted);
    let mut words = Vec::new();
    let ip = |t: &Test| {
        matches!(t, Test::Gratuitous)
            || matches!(t, Test::Address { field: Address::ArpSender | Address::ArpTarget, .. })
    };
    let mac = |t: &Test| {
        matches!(t, Test::Hardware { field: Hardware::ArpSender | Hardware::ArpTarget, .. })
    };
    if any(mac) || any(ip) {
        if any(mac) {
            words.push("@nh,0,16 1");
        }
        // The addresses' lengths, six and four bytes.
        words.push(if any(ip) { "@nh,16,16 0x0800 @nh,32,16 0x0604" } else { "@nh,32,8 6" });
    }
    if any(Test::is_transport) {
        // A load of one, two or four bytes does not ask whether the packet is a later fragment, and
        // takes its middle for the header (measured on Linux 6.18); one of three bytes does.
        words.push("@th,0,24 >= 0x0");
    }
    if any(Test::is_stp) {
        // Logical link control's header of a BPDU, and its protocol (IEEE 802.1D, 9.3.1).
        words.push("@ll,112,24 0x424203 @nh,24,16 0");
    }
    words
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
        // UDP's header has 8 bytes. In the message, htype and hlen are at 1, giaddr at 24, chaddr
        // at 28.
        Hardware::DhcpClient => ("@th,72,16 0x0106 @th,256,32 0x0 @th,288,48", hex),
    };
    let masked: [u8; 6] = std::array::from_fn(|i| address[i] & mask[i]);
    if mask == [0; 6] {
        return if negated { Tested::Never } else { Tested::Always };
    }
    let sign = if negated { "!=" } else { "==" };
    Tested::If(match mask == [0xff; 6] && !negated {
        true => format!("{place} {sign} {}", text(masked)),
        false => format!("{place} & {} {sign} {}", text(mask), text(masked)),
    })
}

pub(super) fn number(field: Number, first: u32, last: u32, negated: bool, kind: Kind) -> Tested {
    let v6 = matches!(kind, Kind::Ip(Version::V6, _));
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
        Number::Protocol if v6 => "meta l4proto",
        Number::Protocol => "ip protocol",
        Number::Dscp if v6 => "ip6 dscp",
        Number::Dscp => "ip dscp",
        Number::SourcePort => "th sport",
        Number::DestinationPort => "th dport",
    };
    let sign = if negated { "!=" } else { "==" };
    let ones = match field {
        // Not read from the frame, or masked already.
        Number::Protocol if v6 => None,
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

pub(super) fn address(field: Address, among: &Addresses, negated: bool, kind: Kind) -> Tested {
    let v6 = matches!(kind, Kind::Ip(Version::V6, _));
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
    match among {
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
    // Type and code as one number.
    let pairs: Vec<_> = (types.0..=types.1)
        .map(|kind| format!("{kind:#04x}{first:02x}-{kind:#04x}{last:02x}"))
        .collect();
    Tested::If(format!("@th,0,16 {sign} {{ {} }}", pairs.join(", ")))
}

/// Sender and target are the same. nft cannot compare two fields, but it can look a pair of bytes
/// up in a set of all equal pairs, four times for an address. (A set that rules add pairs to would
/// fill up, and then the rule would fail.)
pub(super) fn gratuitous() -> String {
    let pair = |byte| format!("@nh,{},8 . @nh,{},8 @{EQUAL_BYTES}", 112 + 8 * byte, 192 + 8 * byte);
    (0..4).map(pair).collect::<Vec<_>>().join(" ")
}

pub(super) fn state(states: &[State], direction: Option<Direction>) -> String {
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
        Some(Direction::Original) => "ct direction original ",
        Some(Direction::Reply) => "ct direction reply ",
    };
    format!("{direction}ct state {}", names.join(","))
}
