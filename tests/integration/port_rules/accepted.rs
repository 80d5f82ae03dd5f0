//! nft, iptables and ebtables accept the rules of every filter.

use super::*;
use netlaunch::types::error_text;

/// Part of a random rule: whether each attribute is there, and what its value is made from.
type Seeds = Vec<(bool, u32)>;

/// A value of this kind in a document.
fn value(kind: Value, seed: u32) -> String {
    let pick = |values: &[&str]| values[seed as usize % values.len()].to_owned();
    let number = |most: u32| match most {
        u32::MAX => seed,
        most => seed % (most + 1),
    };
    match kind {
        Value::Mac => format!("52:54:00:11:22:{:02x}", seed & 0xff),
        Value::MacMask => pick(&[
            "ff:ff:ff:ff:ff:ff",
            "ff:ff:ff:00:00:00",
            "00:00:00:00:00:ff",
            "00:00:00:00:00:00",
        ]),
        Value::V4 => std::net::Ipv4Addr::from(seed).to_string(),
        Value::V4Mask => (seed % 33).to_string(),
        Value::V6 => format!("2001:db8:{:x}::{:x}", seed >> 16, seed & 0xffff),
        Value::V6Mask => (seed % 129).to_string(),
        Value::U6 => number(63).to_string(),
        Value::U8 => number(255).to_string(),
        Value::U12 => number(4095).to_string(),
        Value::U16 => format!("{:#x}", number(65535)),
        Value::U32 => number(u32::MAX).to_string(),
        Value::EtherType => (0x600 + seed % 0xfa00).to_string(),
        Value::IpProtocol => pick(&["tcp", "udp", "icmpv6", "sctp", "0", "255", "47"]),
        Value::Opcode => pick(&["Request", "ARP_NAK", "0", "4711"]),
        Value::Boolean => pick(&["true", "false"]),
        Value::TcpFlags => pick(&["SYN/ALL", "ALL/SYN", "SYN,ACK/SYN", "NONE/NONE", "ALL/NONE"]),
        Value::State => pick(&["NONE", "NEW", "ESTABLISHED,RELATED", "INVALID", "NEW,INVALID"]),
        Value::Comment => pick(&[
            "plain",
            "quotes &quot; and &apos;",
            "$(reboot) ; `id` \\ #",
            "é€ñ",
            &"x".repeat(256),
        ]),
        Value::IpSet | Value::IpSetFlags => String::new(),
    }
}

/// A rule of a document; sets of the host's, which would have to be there, aside.
fn document_rule(
    protocol: Protocol,
    direction: &str,
    action: &str,
    no: bool,
    seeds: &Seeds,
) -> String {
    let mut attributes = String::new();
    for ((attribute, kind), (there, seed)) in protocol.fields().iter().zip(seeds) {
        let set = matches!(attribute, Attribute::IpSet | Attribute::IpSetFlags);
        if *there && !set {
            let _ = write!(attributes, " {}='{}'", attribute.name(), value(*kind, *seed));
        }
    }
    let negated = if no { " match='no'" } else { "" };
    let priority = 100 + seeds[0].1 % 800;
    format!(
        "<rule action='{action}' direction='{direction}' priority='{priority}'><{}{negated}{attributes}/></rule>\n",
        protocol.name()
    )
}

pub fn filter_of(rules: &str) -> Option<PortRules> {
    let xml = format!(
        "<filter name='random'><uuid>7b2f9b5e-1c9f-4c0b-8d57-1f8f0a5d0c11</uuid>\n{rules}</filter>"
    );
    let filter: Filter = parse(xml.as_bytes(), None).ok()?;
    let name = filter.name.clone();
    let filters = Filters::from([(name.clone(), filter)]);
    let variables = netlaunch::nwfilter::Variables::default();
    let parts = flatten(&filters[&name], &filters, &variables).ok()?;
    compile(&parts).ok().map(|(rules, _)| rules)
}

/// Documents of a few rules, each of which can be compiled.
pub fn documents() -> impl Strategy<Value = String> {
    let protocol = 0..Protocol::NAMES.len();
    let direction = prop_oneof![Just("in"), Just("out"), Just("inout")];
    let action = prop_oneof![
        3 => Just("accept"), 2 => Just("drop"), 1 => Just("reject"), 1 => Just("return"),
        1 => Just("continue")
    ];
    let seeds = proptest::collection::vec((proptest::bool::weighted(0.25), any::<u32>()), 25);
    let no = proptest::bool::weighted(0.2);
    let rule = (protocol, direction, action, no, seeds).prop_map(|(at, way, action, no, seeds)| {
        document_rule(Protocol::NAMES[at].0, way, action, no, &seeds)
    });
    let usable =
        rule.prop_map(|rule| if filter_of(&rule).is_some() { rule } else { String::new() });
    proptest::collection::vec(usable, 1..30).prop_map(|rules| rules.concat())
}

/// Has a tool take a script, in a namespace.
fn take(netns: &Netns, script: &Script) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &netns.name, script.program]).args(script.args);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A tool that refuses may not read all.
    let _ = child.stdin.take().unwrap().write_all(script.input.as_bytes());
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{}: {}\n{}", script.program, text(&output.stderr), script.input))
    }
}

/// Every rule of a filter without its need for connection tracking.
fn untracked(rules: &PortRules) -> PortRules {
    let mut rules = rules.clone();
    for path in [&mut rules.from_guest, &mut rules.to_guest] {
        for rule in &mut path.packets {
            rule.tests.retain(|test| !test.is_stateful());
        }
    }
    rules
}

#[test]
fn the_tools_accept_the_rules_of_every_filter() {
    if !have_root("the_tools_accept_the_rules_of_every_filter") {
        return;
    }
    const CASES: u32 = 40;
    let tracks = tracks_bridges();
    if !tracks {
        let reason = "this kernel does not track connections of bridges";
        skipped("the_tools_take_whatever_a_filter_says (stateful rules with nft)", reason);
    }
    let netns = Netns::bare();
    let mut runner =
        TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let counted = [Cell::new(0), Cell::new(0)];
    let done = runner.run(&documents(), |document| {
        let rules = filter_of(&document).unwrap();
        for (backend, count) in FirewallBackend::ORDER.into_iter().zip(&counted) {
            let nft = backend == FirewallBackend::Nftables;
            let rules = if nft && !tracks { untracked(&rules) } else { rules.clone() };
            // This kernel's bridges may be without answers, too; netlaunch tries then without.
            let extras = Extras { reject: false, counters: true, trace: true };
            let scripts = match scripts(&rules, backend, extras) {
                Ok(scripts) => scripts,
                // A test that ebtables lacks is refused with the position of the rule.
                Err(error @ PortError::Unexpressible(_)) => {
                    assert!(error_text(&error).contains("in line "), "{error}");
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            for script in &scripts {
                take(&netns, script).map_err(TestCaseError::fail)?;
                count.set(count.get() + script.input.lines().count());
            }
            let flush =
                Script { program: "nft", args: &["-f", "-"], input: "flush ruleset\n".into() };
            take(&netns, &flush).map_err(TestCaseError::fail)?;
        }
        Ok(())
    });
    println!(
        "{CASES} filters: {} lines for nft, {} for the iptables tools",
        counted[0].get(),
        counted[1].get()
    );
    if let Err(error) = done {
        panic!("{error}");
    }
}
