//! Tests the filters of ports as texts for the tools: the text of each test of a rule, a whole
//! filter beside its document, and that the tools accept the rules of every filter.

mod accepted;
mod roles;

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::port_scene::tracks_bridges;
use crate::common::{Netns, have_root, skipped, text};
use netlaunch::firewall::port_nft::{Extras, PortTables};
use netlaunch::firewall::rules::port::{
    Address, Addresses, ConnectionDirection, End, FrameKind, Hardware, Number, Origin,
    Path as EvalPath, PortRule, PortRules, PortVerdict, State, Step, Test,
};
use netlaunch::firewall::rules::{AddressRange, Version};
use netlaunch::firewall::{FirewallBackend, PortError, PortFilter, PortHooks, PortPlan, Script};
use netlaunch::nwfilter::{
    Attribute, Binding, Filter, Filters, Protocol, ValueType as Value, compile, flatten, parse,
    stock, stock_names,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const EXTRAS: Extras = Extras { trace: false, counters: false, reject: true };

fn scripts(
    rules: &PortRules,
    backend: FirewallBackend,
    extras: Extras,
) -> Result<Vec<Script>, PortError> {
    let port = "vnet0".parse().unwrap();
    let filter = PortFilter {
        index: 7,
        port,
        rules: rules.clone().into(),
        backend,
        hooks: PortHooks::Bridge,
        tables: PortTables::default(),
    };
    Ok(PortPlan::new(&[filter], extras).map_err(|error| error.error)?.scripts())
}

/// Compares with a file of tests/fixtures/nwfilter, or writes it.
fn golden(name: &str, text: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nwfilter");
    let file: PathBuf = dir.join(name);
    if std::env::var_os("NETLAUNCH_TEST_BLESS").is_some() {
        fs::write(&file, text).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, expected, "{name} (NETLAUNCH_TEST_BLESS=1 writes {})", file.display());
}

fn stock_filters() -> Filters {
    stock_names().map(|name| (name.clone(), stock(&name).unwrap().unwrap())).collect()
}

#[test]
fn clean_traffic_and_clean_traffic_v6_give_these_texts() {
    for filter in ["clean-traffic", "clean-traffic-v6"] {
        let file = format!("tests/fixtures/nwfilter/{filter}.binding.xml");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let binding = Binding::parse(&fs::read(file).unwrap()).unwrap();
        let filters = stock_filters();
        let parts = flatten(&filters[&binding.filter], &filters, &binding.variables()).unwrap();
        let (rules, warnings) = compile(&parts).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        for (name, extras) in
            [("plain", EXTRAS), ("extras", Extras { trace: true, counters: true, ..EXTRAS })]
        {
            let mut all = String::new();
            for backend in FirewallBackend::ORDER {
                for script in scripts(&rules, backend, extras).unwrap() {
                    let head = [&[script.program], script.args].concat().join(" ");
                    let _ = write!(all, "== {head}\n{}", script.input);
                }
            }
            golden(&format!("{filter}.{name}.txt"), &all);
        }
    }
}

fn rule(kind: FrameKind, test: Test, verdict: PortVerdict) -> PortRule {
    let origin = Origin { filter: "f".to_owned(), line: 3 };
    PortRule { kind, tests: vec![test], verdict, comment: None, origin }
}

/// The rules of a script in which the drop of the one rule stands, or why there is none.
fn rendered(rules: &PortRules, backend: FirewallBackend) -> String {
    let scripts = match scripts(rules, backend, EXTRAS) {
        Ok(scripts) => scripts,
        Err(error) => return format!("refused: {error}"),
    };
    let mut lines = Vec::new();
    for script in &scripts {
        // The family netdev has the same rules (clean-traffic.plain.txt).
        let bridge = script.input.lines().take_while(|line| !line.contains("netdev"));
        for line in bridge.map(str::trim) {
            if line.ends_with("drop") || line.ends_with("-j DROP") {
                lines.push(line.trim_start_matches("-A nl-7:from ").to_owned());
            }
        }
    }
    // INPUT's chain of a limit repeats what is there.
    lines.dedup();
    if lines.is_empty() { "(no rule)".to_owned() } else { lines.join("\n           ") }
}

/// A line of the table: what it is called, a kind of frame, a test of it.
type Row = (&'static str, FrameKind, Test);

const V4: FrameKind = FrameKind::Ip(Version::V4, None);
const V6: FrameKind = FrameKind::Ip(Version::V6, None);

fn mac(field: Hardware, mask: [u8; 6], negated: bool) -> Test {
    Test::Hardware { field, address: [0x52, 0x54, 0, 0x11, 0x22, 0x33], mask, negated }
}

fn number(field: Number, first: u32, last: u32, negated: bool) -> Test {
    Test::Number { field, first, last, negated }
}

fn net(field: Address, net: &str, negated: bool) -> Test {
    Test::Address { field, addresses: Addresses::Net(net.parse().unwrap()), negated }
}

fn link_rows() -> Vec<Row> {
    const ALL: [u8; 6] = [0xff; 6];
    const OUI: [u8; 6] = [0xff, 0xff, 0xff, 0, 0, 0];
    vec![
        ("source address", FrameKind::Any, mac(Hardware::Source, ALL, false)),
        ("source address excluded", FrameKind::Any, mac(Hardware::Source, ALL, true)),
        ("destination under a mask", FrameKind::Any, mac(Hardware::Destination, OUI, false)),
        ("mask of nothing", FrameKind::Any, mac(Hardware::Source, [0; 6], false)),
        ("mask of nothing excluded", FrameKind::Any, mac(Hardware::Source, [0; 6], true)),
        ("EtherType", FrameKind::Any, number(Number::EtherType, 0x88cc, 0x88cc, false)),
        ("EtherType excluded", FrameKind::Any, number(Number::EtherType, 0x0806, 0x0806, true)),
        ("VLAN", FrameKind::Vlan, number(Number::VlanId, 0x123, 0x123, false)),
        ("VLAN's content", FrameKind::Vlan, number(Number::VlanEncapsulated, 0x806, 0x806, false)),
        ("STP type", FrameKind::Stp, number(Number::StpType, 0x12, 0x12, false)),
        ("STP flags", FrameKind::Stp, number(Number::StpFlags, 0x44, 0x44, true)),
        ("STP root priority", FrameKind::Stp, number(Number::StpRootPriority, 1, 9, false)),
        ("STP root address", FrameKind::Stp, mac(Hardware::StpRoot, OUI, false)),
        ("STP root cost", FrameKind::Stp, number(Number::StpRootCost, 1, 0xffff_ffff, false)),
        ("STP sender priority", FrameKind::Stp, number(Number::StpSenderPriority, 1, 1, true)),
        ("STP sender address", FrameKind::Stp, mac(Hardware::StpSender, ALL, true)),
        ("STP port", FrameKind::Stp, number(Number::StpPort, 1, 2, false)),
        ("STP age", FrameKind::Stp, number(Number::StpAge, 1, 2, false)),
        ("STP greatest age", FrameKind::Stp, number(Number::StpMaxAge, 1, 2, false)),
        ("STP hello time", FrameKind::Stp, number(Number::StpHelloTime, 1, 2, true)),
        ("STP forward delay", FrameKind::Stp, number(Number::StpForwardDelay, 1, 2, false)),
        ("ARP hardware", FrameKind::Arp, number(Number::ArpHardware, 6, 6, false)),
        ("RARP protocol", FrameKind::Rarp, number(Number::ArpProtocol, 0x800, 0x800, false)),
        ("ARP operation", FrameKind::Arp, number(Number::ArpOperation, 2, 2, true)),
        ("ARP sender", FrameKind::Arp, mac(Hardware::ArpSender, ALL, false)),
        ("ARP target under a mask", FrameKind::Arp, mac(Hardware::ArpTarget, OUI, true)),
        ("ARP sender's IP", FrameKind::Arp, net(Address::ArpSender, "10.2.3.4/32", false)),
        ("ARP target's subnet", FrameKind::Arp, net(Address::ArpTarget, "10.2.0.0/16", true)),
        ("ARP announcement", FrameKind::Arp, Test::Gratuitous),
        ("IPv4 source", V4, net(Address::Source, "10.2.3.4/32", false)),
        ("IPv4 destinations excluded", V4, net(Address::Destination, "10.0.0.0/8", true)),
        ("IPv4 of everyone", V4, net(Address::Source, "0.0.0.0/0", false)),
        ("IPv4 of no one", V4, net(Address::Source, "0.0.0.0/0", true)),
        ("IPv6 source", V6, net(Address::Source, "2001:db8::/32", false)),
        ("IPv4 protocol", V4, number(Number::Protocol, 17, 17, true)),
        ("IPv6 protocol", V6, number(Number::Protocol, 58, 58, false)),
        ("IPv4 code point", V4, number(Number::Dscp, 10, 10, false)),
        ("IPv4 code point excluded", V4, number(Number::Dscp, 10, 10, true)),
        ("IPv4 source port", V4, number(Number::SourcePort, 53, 53, false)),
        ("IPv6 destination ports", V6, number(Number::DestinationPort, 1, 1023, true)),
        ("ICMPv6 types", V6, Test::Icmp { types: (128, 129), codes: None, negated: false }),
        ("ICMPv6 codes", V6, Test::Icmp { types: (1, 1), codes: Some((0, 3)), negated: true }),
    ]
}

fn packet_rows() -> Vec<Row> {
    let v4 = |protocol| FrameKind::Ip(Version::V4, Some(protocol));
    let v6 = |protocol| FrameKind::Ip(Version::V6, Some(protocol));
    let range4 = AddressRange::V4([10, 2, 3, 4].into(), [10, 2, 3, 9].into());
    let range6 = AddressRange::V6("2001:db8::4".parse().unwrap(), "2001:db8::9".parse().unwrap());
    let range = |field, range, negated| Test::Address {
        field,
        addresses: Addresses::Range(range),
        negated,
    };
    let icmp = |types, codes, negated| Test::Icmp { types, codes, negated };
    let flags = |mask, flags, negated| Test::TcpFlags { mask, flags, negated };
    let state = |states: &[State], direction| Test::State { states: states.to_vec(), direction };
    let set = |negated| Test::Set {
        name: "known hosts".to_owned(),
        sides: vec![End::Source, End::Destination],
        negated,
    };
    vec![
        ("sender", V4, mac(Hardware::Source, [0xff; 6], true)),
        ("subnet", V4, net(Address::Source, "10.2.3.0/24", false)),
        ("subnet excluded", V6, net(Address::Destination, "2001:db8::/64", true)),
        ("everyone", V4, net(Address::Source, "0.0.0.0/0", false)),
        ("no one", V4, net(Address::Source, "0.0.0.0/0", true)),
        ("range", V4, range(Address::Source, range4, false)),
        ("range excluded", V6, range(Address::Destination, range6, true)),
        ("TCP source port", v4(6), number(Number::SourcePort, 22, 22, false)),
        ("UDP destination ports", v6(17), number(Number::DestinationPort, 1, 99, false)),
        ("SCTP port", v4(132), number(Number::DestinationPort, 9, 9, true)),
        ("code point", V6, number(Number::Dscp, 10, 10, true)),
        ("ICMP type", v4(1), icmp((8, 8), None, false)),
        ("ICMP type and code", v4(1), icmp((3, 3), Some((1, 1)), true)),
        ("any ICMP", v4(1), icmp((0, 255), None, false)),
        ("no ICMP", v4(1), icmp((0, 255), None, true)),
        ("ICMPv6 type and code", v6(58), icmp((1, 1), Some((4, 4)), false)),
        ("TCP flags", v4(6), flags(0x12, 0x02, false)),
        ("TCP flags excluded", v6(6), flags(0x3f, 0, true)),
        ("ipset", v4(17), set(false)),
        ("ipset excluded", V4, set(true)),
        ("connections", v4(6), Test::Connections { above: 3 }),
        ("connections by IPv6", v6(6), Test::Connections { above: 3 }),
        (
            "opener's",
            v4(6),
            state(&[State::New, State::Established], Some(ConnectionDirection::Original)),
        ),
        ("answerer's", v4(6), state(&[State::Established], Some(ConnectionDirection::Reply))),
        ("states", V6, state(&[State::Related, State::Invalid], None)),
    ]
}

#[test]
fn every_test_of_a_rule_gives_these_words() {
    let mut table = String::new();
    for (stage, rows) in [("frames", link_rows()), ("packets", packet_rows())] {
        for (name, kind, test) in rows {
            let rule = rule(kind, test, PortVerdict::Drop);
            let path = match stage {
                "frames" => EvalPath { frames: vec![Step::Rule(rule)], ..EvalPath::default() },
                _ => EvalPath { packets: vec![rule], ..EvalPath::default() },
            };
            let rules = PortRules { from_guest: path, ..PortRules::default() };
            let [nft, iptables] = FirewallBackend::ORDER.map(|backend| rendered(&rules, backend));
            let _ = write!(table, "{stage}: {name}\n  nft      {nft}\n  iptables {iptables}\n");
        }
    }
    golden("tests.txt", &table);
}
