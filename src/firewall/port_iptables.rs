//! ebtables, iptables and ip6tables: the filters of ports as states of our chains.
//!
//! ```text
//! ebtables nat      PREROUTING  ─▶ NETLAUNCH_FROM ─ -i vnet0 ─▶ nl-7:from ─▶ nl-7:from-arp …
//!                   POSTROUTING ─▶ NETLAUNCH_TO   ─ -o vnet0 ─▶ nl-7:to
//! ip(6)tables       FORWARD     ─▶ NETLAUNCH_PORT_FROM ─ physdev-in vnet0 ──▶ nl-7:from
//! filter            INPUT       ─▶ NETLAUNCH_PORT_HOST ─ physdev-in vnet0 ──▶ nl-7:from
//!                   FORWARD     ─▶ NETLAUNCH_PORT_TO   ─ physdev-out vnet0 ─▶ nl-7:to
//! ```
//!
//! The first stage is ebtables', the second that of iptables and ip6tables, which see frames of a
//! bridge where br_netfilter is on. Chains are named by the interface's number, which the kernel does
//! not use again; the colon keeps them apart from networks' chains. Where connections are counted,
//! INPUT has a chain of its own, `nl-7:host`, since a rule of iptables counts for itself.
//!
//! These chains only refuse: what they let through is for the host's own rules to decide. So the
//! jumps to them stand before those to networks' chains.
//!
//! What the kernel's parts cannot do is refused where the filter would say something else
//! ([`Unexpressible`]); `netlaunch nwfilter check` tells of the rest.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::iptables_state::{Jump, Present};
use crate::rules::port::{
    Address, Addresses, Direction, End, Hardware, Kind, Number, Origin, Path, PortRule, PortRules,
    PortVerdict, State, Step, Test,
};
use crate::rules::{AddressRange, Version};
use crate::types::InterfaceName;

/// A rule that these tools cannot carry out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{origin} has {what}, which ebtables cannot do; use firewall_backend = \"nftables\" in nwfilter.conf, or write the rule another way"
)]
pub struct Unexpressible {
    /// The rule.
    pub origin: Origin,
    /// What of it.
    pub what: &'static str,
}

/// A port's chains in one tool's table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Chains(Vec<(String, Vec<String>)>);

/// A port's rules, made ready for the three tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortTables {
    /// The interface's number.
    pub index: u32,
    port: InterfaceName,
    ethernet: Chains,
    v4: Chains,
    v6: Chains,
}

/// One of the three tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// ebtables.
    Ethernet,
    /// iptables or ip6tables.
    Ip(Version),
}

impl Part {
    /// All of them, in the order in which frames pass them.
    pub const ALL: [Part; 3] = [Part::Ethernet, Part::Ip(Version::V4), Part::Ip(Version::V6)];

    fn table(self) -> &'static str {
        match self {
            Part::Ethernet => "nat",
            Part::Ip(_) => "filter",
        }
    }

    /// The base chain of one way.
    fn base(self, way: &str) -> &'static str {
        match (self, way) {
            (Part::Ethernet, "from") => "NETLAUNCH_FROM",
            (Part::Ethernet, _) => "NETLAUNCH_TO",
            (Part::Ip(_), "from") => "NETLAUNCH_PORT_FROM",
            (Part::Ip(_), "host") => "NETLAUNCH_PORT_HOST",
            (Part::Ip(_), _) => "NETLAUNCH_PORT_TO",
        }
    }

    /// The host's chains that jump to a base chain.
    fn hosts(self, way: &str) -> &'static [&'static str] {
        match (self, way) {
            (Part::Ethernet, "from") => &["PREROUTING"],
            (Part::Ethernet, _) => &["POSTROUTING"],
            (Part::Ip(_), "host") => &["INPUT"],
            (Part::Ip(_), _) => &["FORWARD"],
        }
    }

    /// The rule of a base chain that leads to a port's chain.
    fn dispatch(self, way: &str, port: &InterfaceName, chain: &str) -> String {
        match (self, way) {
            (Part::Ethernet, "from") => format!("-i {port} -j {chain}"),
            (Part::Ethernet, _) => format!("-o {port} -j {chain}"),
            (Part::Ip(_), "from" | "host") => {
                format!("-m physdev --physdev-in {port} -g {chain}")
            }
            (Part::Ip(_), _) => {
                format!("-m physdev --physdev-out {port} --physdev-is-bridged -g {chain}")
            }
        }
    }
}

/// The ways of frames; iptables sees those to the host elsewhere than those through it.
const WAYS: [&str; 3] = ["from", "to", "host"];

/// The chain that a port's frames of one way start in.
fn entry(index: u32, way: &str) -> String {
    format!("nl-{index}:{way}")
}

/// Renders a port's rules.
///
/// # Errors
/// [`Unexpressible`].
pub fn port(
    index: u32,
    port: &InterfaceName,
    rules: &PortRules,
) -> Result<PortTables, Unexpressible> {
    let mut tables = PortTables {
        index,
        port: port.clone(),
        ethernet: Chains::default(),
        v4: Chains::default(),
        v6: Chains::default(),
    };
    for (way, path) in [("from", &rules.from_guest), ("to", &rules.to_guest)] {
        let name = entry(index, way);
        tables.ethernet.link(&name, path)?;
        for (version, chains) in [(Version::V4, &mut tables.v4), (Version::V6, &mut tables.v6)] {
            let own = |rule: &&PortRule| matches!(rule.kind, Kind::Ip(v, _) if v == version);
            let lines: Vec<_> = path.packets.iter().filter(own).filter_map(packet_rule).collect();
            if lines.is_empty() {
                continue;
            }
            if way == "from" && path.is_limited() {
                chains.0.push((entry(index, "host"), lines.clone()));
            }
            chains.0.push((name.clone(), lines));
        }
    }
    Ok(tables)
}

impl PortTables {
    fn chains(&self, part: Part) -> &Chains {
        match part {
            Part::Ethernet => &self.ethernet,
            Part::Ip(Version::V4) => &self.v4,
            Part::Ip(Version::V6) => &self.v6,
        }
    }

    /// Whether a tool has something to do for it.
    pub fn needs(&self, part: Part) -> bool {
        !self.chains(part).0.is_empty()
    }
}

/// The state with a port's chains.
pub fn with(present: &Present, part: Part, port: &PortTables) -> Present {
    let mut wanted = present.clone();
    let chains = &port.chains(part).0;
    let has = |name: &str| chains.iter().any(|(chain, _)| chain == name);
    for way in WAYS.into_iter().filter(|way| part != Part::Ethernet || *way != "host") {
        let own = entry(port.index, way);
        let target = if way == "host" && !has(&own) { entry(port.index, "from") } else { own };
        if !has(&target) {
            continue;
        }
        let table = wanted.tables.entry(part.table().to_owned()).or_default();
        let base = part.base(way);
        for host in part.hosts(way) {
            table.jumps.insert(((*host).to_owned(), base.to_owned()), Jump::HEAD);
        }
        let lines = table.chains.entry(base.to_owned()).or_default();
        lines.push(part.dispatch(way, &port.port, &target));
    }
    for (name, rules) in chains {
        let table = wanted.tables.entry(part.table().to_owned()).or_default();
        table.chains.insert(name.clone(), rules.clone());
    }
    wanted
}

/// The state without the chains of the port of this number; base chains that nobody needs any more
/// go, too.
pub fn without(present: &Present, part: Part, index: u32) -> Present {
    let mut wanted = present.clone();
    let Some(table) = wanted.tables.get_mut(part.table()) else { return wanted };
    let prefix = format!("nl-{index}:");
    table.chains.retain(|name, _| !name.starts_with(&prefix));
    for way in WAYS {
        let base = part.base(way);
        let Some(lines) = table.chains.get_mut(base) else { continue };
        lines.retain(|line| !line.rsplit(' ').next().is_some_and(|to| to.starts_with(&prefix)));
        if lines.is_empty() {
            table.chains.remove(base);
            table.jumps.retain(|(_, ours), _| ours != base);
        }
    }
    if table.chains.is_empty() && table.jumps.is_empty() {
        wanted.tables.remove(part.table());
    }
    wanted
}

/// The state in which ebtables drops all frames of these ports, for as long as the three tools are
/// not at one.
pub fn closed<'a>(present: &Present, ports: impl Iterator<Item = &'a InterfaceName>) -> Present {
    let mut wanted = present.clone();
    let table = wanted.tables.entry("nat".to_owned()).or_default();
    for port in ports {
        for (way, option) in [("from", "-i"), ("to", "-o")] {
            let base = Part::Ethernet.base(way);
            for host in Part::Ethernet.hosts(way) {
                table.jumps.insert(((*host).to_owned(), base.to_owned()), Jump::HEAD);
            }
            let lines = table.chains.entry(base.to_owned()).or_default();
            lines.insert(0, format!("{option} {port} -j DROP"));
        }
    }
    wanted
}

impl Chains {
    fn link(&mut self, entry: &str, path: &Path) -> Result<(), Unexpressible> {
        let mut root = Vec::new();
        for step in &path.frames {
            match step {
                Step::Rule(rule) => root.extend(link_rule(rule)?),
                Step::Chain(number) => {
                    let Some(chain) = path.chains.get(*number) else { continue };
                    let mut words = kind(chain.kind);
                    words.push(format!("-j {entry}-{}", chain.name));
                    root.push(words.join(" "));
                }
            }
        }
        if root.is_empty() {
            return Ok(());
        }
        self.0.push((entry.to_owned(), root));
        for chain in &path.chains {
            let mut rules = Vec::new();
            for rule in &chain.rules {
                rules.extend(link_rule(rule)?);
            }
            self.0.push((format!("{entry}-{}", chain.name), rules));
        }
        Ok(())
    }
}

fn kind(kind: Kind) -> Vec<String> {
    match (kind, kind.ether_type()) {
        (Kind::Stp, _) => vec!["-d 01:80:c2:00:00:00".to_owned()],
        (_, Some(ether_type)) => vec![format!("-p {ether_type:#06x}")],
        (_, None) => Vec::new(),
    }
}

/// A rule for ebtables, as one line or several; none where it applies to nothing.
fn link_rule(rule: &PortRule) -> Result<Vec<String>, Unexpressible> {
    let mut lines = vec![kind(rule.kind)];
    let v6 = matches!(rule.kind, Kind::Ip(Version::V6, _));
    for test in &rule.tests {
        let words = match ebtables_test(test, v6) {
            Tested::Always => continue,
            Tested::Never => return Ok(Vec::new()),
            Tested::Cannot(what) => {
                return Err(Unexpressible { origin: rule.origin.clone(), what });
            }
            Tested::If(words) => words,
            Tested::AnyOf(alternatives) => {
                lines = lines
                    .iter()
                    .flat_map(|line| {
                        alternatives
                            .iter()
                            .map(|word| [line.as_slice(), std::slice::from_ref(word)].concat())
                    })
                    .collect();
                continue;
            }
        };
        for line in &mut lines {
            line.push(words.clone());
        }
    }
    let target = match rule.verdict {
        PortVerdict::Accept => "ACCEPT",
        PortVerdict::Drop | PortVerdict::Reject => "DROP",
        PortVerdict::Return => "RETURN",
        PortVerdict::Continue => "CONTINUE",
    };
    Ok(lines
        .into_iter()
        .map(|line| [line, vec![format!("-j {target}")]].concat().join(" "))
        .collect())
}

/// What a test comes to.
enum Tested {
    Always,
    Never,
    If(String),
    /// As many rules as there are words.
    AnyOf(Vec<String>),
    Cannot(&'static str),
}

/// `! ` where a test is negated, as ebtables has it: behind the option.
fn not(negated: bool) -> &'static str {
    if negated { "! " } else { "" }
}

fn colons(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn ebtables_test(test: &Test, v6: bool) -> Tested {
    let ip = if v6 { "ip6" } else { "ip" };
    match test {
        Test::Hardware { mask: [0, 0, 0, 0, 0, 0], negated, .. } => {
            if *negated {
                Tested::Never
            } else {
                Tested::Always
            }
        }
        Test::Hardware { field, address, mask, negated } => {
            let option = match field {
                Hardware::Source => "-s",
                Hardware::Destination => "-d",
                Hardware::ArpSender => "--arp-mac-src",
                Hardware::ArpTarget => "--arp-mac-dst",
                Hardware::StpRoot => "--stp-root-addr",
                Hardware::StpSender => "--stp-sender-addr",
            };
            let not = not(*negated);
            Tested::If(format!("{option} {not}{}/{}", colons(*address), colons(*mask)))
        }
        Test::Number { field: Number::Dscp, negated: true, .. } => {
            Tested::Cannot("a dscp under match='no' in the link layer")
        }
        // A number that is reserved (IEEE 802.1Q, 9.6), and that the tool refuses.
        Test::Number { field: Number::VlanId, first: 4095, .. } => {
            Tested::Cannot("the reserved VLAN number 4095")
        }
        // ebtables knows the whole byte, whose two low bits are not the code point's (RFC 3168).
        Test::Number { field: Number::Dscp, first, .. } => Tested::AnyOf(
            (0..4).map(|ecn| format!("--ip-tos {:#04x}", (first << 2) | ecn)).collect(),
        ),
        Test::Number { field, first, last, negated } => {
            Tested::If(number(*field, *first, *last, not(*negated), ip))
        }
        Test::Icmp { types, codes, negated } => {
            let (first, last) = codes.unwrap_or((0, u8::MAX));
            let not = not(*negated);
            Tested::If(format!("--ip6-icmp-type {not}{}:{}/{first}:{last}", types.0, types.1))
        }
        Test::Address { among: Addresses::Net(net), negated, .. } if net.prefix_len() == 0 => {
            if *negated {
                Tested::Never
            } else {
                Tested::Always
            }
        }
        Test::Address { field, among: Addresses::Net(net), negated } => {
            let option = match field {
                Address::Source => format!("--{ip}-source"),
                Address::Destination => format!("--{ip}-destination"),
                Address::ArpSender => "--arp-ip-src".to_owned(),
                Address::ArpTarget => "--arp-ip-dst".to_owned(),
            };
            Tested::If(format!("{option} {}{}", not(*negated), plain(net)))
        }
        Test::Gratuitous => Tested::If("--arp-gratuitous".to_owned()),
        Test::Address { .. }
        | Test::TcpFlags { .. }
        | Test::Set { .. }
        | Test::Connections { .. }
        | Test::State { .. } => Tested::Cannot("a test of the network layer"),
    }
}

/// A subnet; one address alone without its length.
fn plain(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.trunc().to_string()
    }
}

fn number(field: Number, first: u32, last: u32, not: &str, ip: &str) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}:{last}") };
    match field {
        Number::EtherType => format!("-p {not}{first:#06x}"),
        Number::VlanId => format!("--vlan-id {not}{first}"),
        Number::VlanEncapsulated => format!("--vlan-encap {not}{first:04x}"),
        Number::StpType => format!("--stp-type {not}{first}"),
        Number::StpFlags => format!("--stp-flags {not}{first}"),
        Number::StpRootPriority => format!("--stp-root-prio {not}{range}"),
        Number::StpRootCost => format!("--stp-root-cost {not}{range}"),
        Number::StpSenderPriority => format!("--stp-sender-prio {not}{range}"),
        Number::StpPort => format!("--stp-port {not}{range}"),
        Number::StpAge => format!("--stp-msg-age {not}{range}"),
        Number::StpMaxAge => format!("--stp-max-age {not}{range}"),
        Number::StpHelloTime => format!("--stp-hello-time {not}{range}"),
        Number::StpForwardDelay => format!("--stp-forward-delay {not}{range}"),
        Number::ArpHardware => format!("--arp-htype {not}{first}"),
        Number::ArpProtocol => format!("--arp-ptype {not}{first:#06x}"),
        Number::ArpOperation => format!("--arp-opcode {not}{first}"),
        Number::Protocol => format!("--{ip}-protocol {not}{first}"),
        Number::Dscp => format!("--ip-tos {not}{:#04x}", first << 2),
        Number::SourcePort => format!("--{ip}-source-port {not}{range}"),
        Number::DestinationPort => format!("--{ip}-destination-port {not}{range}"),
    }
}

/// A rule for iptables or ip6tables; none where it applies to nothing.
fn packet_rule(rule: &PortRule) -> Option<String> {
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
