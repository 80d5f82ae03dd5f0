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

mod ebtables;
mod packets;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::iptables_state::{Jump, Present};
use crate::rules::Version;
use crate::rules::port::{Kind, Origin, Path, PortRule, PortRules, Step};
use crate::types::InterfaceName;
use ebtables::{kind, link_rule};
use packets::packet_rule;

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
pub fn with(present: Present, part: Part, port: &PortTables) -> Present {
    let mut wanted = present;
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

/// The state without the chains of the ports of these numbers; base chains that nobody needs any
/// more go, too.
pub fn without(present: Present, part: Part, gone: &BTreeSet<u32>) -> Present {
    let mut wanted = present;
    let Some(table) = wanted.tables.get_mut(part.table()) else { return wanted };
    let is_gone = |chain: &str| number(chain).is_some_and(|index| gone.contains(&index));
    table.chains.retain(|name, _| !is_gone(name));
    for way in WAYS {
        let base = part.base(way);
        let Some(lines) = table.chains.get_mut(base) else { continue };
        lines.retain(|line| !line.rsplit(' ').next().is_some_and(is_gone));
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

/// The number of the interface that a chain belongs to.
fn number(chain: &str) -> Option<u32> {
    chain.strip_prefix("nl-")?.split_once(':')?.0.parse().ok()
}

/// The state in which ebtables drops all frames of these ports, for as long as the three tools are
/// not at one. It does so in chains of the ports' numbers, so that [`without`] opens them again
/// where that was cut short.
pub fn closed<'a>(
    present: &Present,
    ports: impl Iterator<Item = (u32, &'a InterfaceName)>,
) -> Present {
    let mut wanted = present.clone();
    let table = wanted.tables.entry(Part::Ethernet.table().to_owned()).or_default();
    for (index, port) in ports {
        let chain = entry(index, "closed");
        for way in ["from", "to"] {
            let base = Part::Ethernet.base(way);
            for host in Part::Ethernet.hosts(way) {
                table.jumps.insert(((*host).to_owned(), base.to_owned()), Jump::HEAD);
            }
            let lines = table.chains.entry(base.to_owned()).or_default();
            let line = Part::Ethernet.dispatch(way, port, &chain);
            if !lines.contains(&line) {
                lines.insert(0, line);
            }
        }
        table.chains.insert(chain, vec!["-j DROP".to_owned()]);
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

/// What a test comes to.
enum Tested {
    Always,
    Never,
    If(String),
    /// As many rules as there are words.
    AnyOf(Vec<String>),
    Cannot(&'static str),
}
