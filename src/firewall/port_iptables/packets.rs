//! iptables' and ip6tables' words for the rules of the second stage.

use super::Tested;
use crate::firewall::port_nft::words::colons;
use crate::rules::port::{
    Address, Addresses, Direction, End, Hardware, Kind, Number, PortRule, PortVerdict, State, Test,
};
use crate::rules::{AddressRange, Version};

/// A rule for iptables or ip6tables; none where it applies to nothing.
pub(super) fn packet_rule(rule: &PortRule) -> Option<String> {
    let Kind::Ip(version, protocol) = rule.kind else { return None };
    let mut words = Vec::new();
    if let Some(protocol) = protocol {
        words.push(format!("-p {protocol}"));
    }
    if version == Version::V4 && rule.tests.iter().any(Test::is_transport) {
        // iptables over nftables takes the middle of a later fragment for the header (measured with
        // 1.8.9 on Linux 6.18). ip6tables has no such option.
        words.push("! -f".to_owned());
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
        // Without a target, a rule counts and the next one has its say.
        PortVerdict::Continue => {}
    }
    Some(words.join(" "))
}

fn iptables_test(test: &Test, version: Version, protocol: Option<u8>) -> Tested {
    /// The modules that know a protocol's ports, by its number.
    fn ports(protocol: Option<u8>) -> &'static str {
        match protocol {
            Some(6) => "tcp",
            Some(17) => "udp",
            _ => "sctp",
        }
    }
    // Before the option, where iptables wants it.
    let not = |negated: &bool| if *negated { "! " } else { "" };
    match test {
        Test::Hardware { field: Hardware::DhcpClient, address, negated, .. } => {
            // Behind the IP header: htype and hlen at 9, giaddr at 32, chaddr at 36, which two words
            // of four bytes that overlap test.
            let [a, b, c, d, e, f] = *address;
            let (first, last) =
                (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([c, d, e, f]));
            let words = [
                "0x8&0xffff00=0x10600".to_owned(),
                "0x20=0x0".to_owned(),
                format!("0x24={first:#x}"),
                format!("0x26={last:#x}"),
            ];
            let words = words.map(|word| format!("0x0>>0x16&0x3c@{word}")).join("&&");
            Tested::If(format!("-m u32 {}--u32 \"{words}\"", not(negated)))
        }
        Test::Hardware { address, negated, .. } => {
            Tested::If(format!("-m mac {}--mac-source {}", not(negated), colons(*address)))
        }
        Test::Address { field, among, negated } => {
            let destination = *field == Address::Destination;
            match among {
                Addresses::Net(net) if net.prefix_len() == 0 => {
                    if *negated {
                        Tested::Never
                    } else {
                        Tested::Always
                    }
                }
                Addresses::Net(net) => {
                    let option = if destination { "-d" } else { "-s" };
                    Tested::If(format!("{}{option} {}", not(negated), net.trunc()))
                }
                Addresses::Range(range) => {
                    let option = if destination { "--dst-range" } else { "--src-range" };
                    Tested::If(format!("-m iprange {}{option} {}", not(negated), ends(range)))
                }
            }
        }
        Test::Number { field, first, last, negated } => {
            let range = if first == last { first.to_string() } else { format!("{first}:{last}") };
            let not = not(negated);
            let module = ports(protocol);
            match field {
                Number::SourcePort => Tested::If(format!("-m {module} {not}--sport {range}")),
                Number::DestinationPort => Tested::If(format!("-m {module} {not}--dport {range}")),
                Number::Dscp => Tested::If(format!("-m dscp {not}--dscp {first}")),
                _ => Tested::Cannot("a test of the link layer"),
            }
        }
        Test::Icmp { types: (0, u8::MAX), codes: None, negated } => {
            if *negated {
                Tested::Never
            } else {
                Tested::Always
            }
        }
        Test::Icmp { types, codes, negated } => {
            let (module, option) = match version {
                Version::V4 => ("icmp", "--icmp-type"),
                Version::V6 => ("icmp6", "--icmpv6-type"),
            };
            let code = codes.map_or_else(String::new, |(code, _)| format!("/{code}"));
            Tested::If(format!("-m {module} {}{option} {}{code}", not(negated), types.0))
        }
        Test::TcpFlags { mask, flags, negated } => Tested::If(format!(
            "-m tcp {}--tcp-flags {} {}",
            not(negated),
            tcp_flags(*mask),
            tcp_flags(*flags)
        )),
        Test::Set { name, sides, negated } => {
            let sides: Vec<_> = sides
                .iter()
                .map(|side| match side {
                    End::Source => "src",
                    End::Destination => "dst",
                })
                .collect();
            Tested::If(format!("-m set {}--match-set \"{name}\" {}", not(negated), sides.join(",")))
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

fn state(states: &[State], direction: Option<Direction>) -> String {
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
        Some(Direction::Original) => " --ctdir ORIGINAL",
        Some(Direction::Reply) => " --ctdir REPLY",
    };
    format!("-m conntrack --ctstate {}{direction}", names.join(","))
}
