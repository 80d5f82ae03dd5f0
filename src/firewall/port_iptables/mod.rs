//! Renders the filters of ports as states of netlaunch's chains in ebtables, iptables and
//! ip6tables.
//!
//! ```text
//! ebtables nat      PREROUTING  ─▶ NETLAUNCH_FROM ─ -i vnet0 ─▶ nl-7:from ─▶ nl-7:from-arp …
//!                   POSTROUTING ─▶ NETLAUNCH_TO   ─ -o vnet0 ─▶ nl-7:to
//!                   OUTPUT      ─▶ NETLAUNCH_SENT ─ -o vnet0 ─▶ nl-7:sent
//! ip(6)tables       FORWARD     ─▶ NETLAUNCH_PORT_FROM ─ physdev-in vnet0 ──▶ nl-7:from
//! filter            INPUT       ─▶ NETLAUNCH_PORT_HOST ─ physdev-in vnet0 ──▶ nl-7:from
//!                   FORWARD     ─▶ NETLAUNCH_PORT_TO   ─ physdev-out vnet0 ─▶ nl-7:to
//! ```
//!
//! ebtables carries out the first stage. iptables and ip6tables carry out the second; they see the
//! frames of a bridge if br_netfilter is active. Packets that the host sends or routes to the guest
//! pass iptables before the bridge chooses the port, so `physdev-out` never matches them.
//! `nl-7:sent` contains the second stage's rules for these packets, as far as ebtables can carry
//! them out ([`HostSentRules`]). The names of chains contain the interface's number, which the
//! kernel does not use again; the colon distinguishes them from networks' chains. Where connections
//! are counted, INPUT jumps to a separate chain, `nl-7:host`, since each rule of iptables has a
//! count of its own.
//!
//! These chains only refuse: the host's own rules decide about the packets that they let through.
//! So the jumps to them come before those to networks' chains.
//!
//! If the tools cannot express a rule and the filter would have another meaning, the filter is
//! refused ([`Unexpressible`]). `netlaunch nwfilter check` reports the other limits.

mod ebtables;
mod guard;
mod host_guard;
mod host_sent;
mod packets;
mod roles;
mod subnets;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::iptables_state::{Jump, TableState};
use crate::firewall::rules::Version;
use crate::firewall::rules::port::{FrameKind, Origin, Path, PortRule, PortRules, Step};
use crate::types::InterfaceName;
use ebtables::{kind, link_rule};
pub use guard::{has_guard, missing_guard, with_bound, with_guard};
pub use host_guard::{missing_host_guard, with_host_guard};
pub use host_sent::{HostSentRules, host_sent_rules};
use packets::packet_rule;
pub use roles::roles;

/// A rule that these tools cannot carry out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{origin} has {what}, which ebtables cannot do; use firewall_backend = \"nftables\", or write the rule another way"
)]
#[non_exhaustive]
pub struct Unexpressible {
    /// The rule.
    pub origin: Origin,
    /// The part of the rule that ebtables cannot do.
    pub what: &'static str,
}

/// The chains of a port in one tool's table, and the rules of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Chains(Vec<(String, Vec<String>)>);

/// A port's rules, rendered for the three tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IptablesText {
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
    /// All tools, in the order in which frames pass them.
    pub const ALL: [Part; 3] = [Part::Ethernet, Part::Ip(Version::V4), Part::Ip(Version::V6)];

    /// Returns the name of the tool.
    pub fn tool(self) -> &'static str {
        match self {
            Part::Ethernet => "ebtables",
            Part::Ip(Version::V4) => "iptables",
            Part::Ip(Version::V6) => "ip6tables",
        }
    }

    fn table(self) -> &'static str {
        match self {
            Part::Ethernet => "nat",
            Part::Ip(_) => "filter",
        }
    }

    /// Returns the tool's separate directions. iptables has different hooks for frames to the host
    /// and frames through it; ebtables has a separate hook for frames that the host sends.
    fn hooks(self) -> [&'static str; 3] {
        match self {
            Part::Ethernet => ["from", "to", "sent"],
            Part::Ip(_) => ["from", "to", "host"],
        }
    }

    /// Returns the base chain of one direction.
    fn base(self, hook: &str) -> &'static str {
        match (self, hook) {
            (Part::Ethernet, "from") => "NETLAUNCH_FROM",
            (Part::Ethernet, "sent") => "NETLAUNCH_SENT",
            (Part::Ethernet, _) => "NETLAUNCH_TO",
            (Part::Ip(_), "from") => "NETLAUNCH_PORT_FROM",
            (Part::Ip(_), "host") => "NETLAUNCH_PORT_HOST",
            (Part::Ip(_), _) => "NETLAUNCH_PORT_TO",
        }
    }

    /// Returns the host's chains that jump to a base chain.
    fn hosts(self, hook: &str) -> &'static [&'static str] {
        match (self, hook) {
            (Part::Ethernet, "from") => &["PREROUTING"],
            (Part::Ethernet, "sent") => &["OUTPUT"],
            (Part::Ethernet, _) => &["POSTROUTING"],
            (Part::Ip(_), "host") => &["INPUT"],
            (Part::Ip(_), _) => &["FORWARD"],
        }
    }

    /// Returns the rule of a base chain that leads to a port's chain.
    fn dispatch(self, hook: &str, port: &InterfaceName, chain: &str) -> String {
        match (self, hook) {
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

/// Returns the name of the chain at which a port's frames of one direction start.
fn entry(index: u32, hook: &str) -> String {
    format!("nl-{index}:{hook}")
}

/// Renders a port's rules.
///
/// # Errors
/// Returns [`Unexpressible`] if ebtables cannot express a rule.
pub fn port(
    index: u32,
    port: &InterfaceName,
    rules: &PortRules,
) -> Result<IptablesText, Unexpressible> {
    let mut tables = IptablesText {
        index,
        port: port.clone(),
        ethernet: Chains::default(),
        v4: Chains::default(),
        v6: Chains::default(),
    };
    for (hook, path) in [("from", &rules.from_guest), ("to", &rules.to_guest)] {
        let name = entry(index, hook);
        tables.ethernet.link(&name, path)?;
        for (version, chains) in [(Version::V4, &mut tables.v4), (Version::V6, &mut tables.v6)] {
            let own = |rule: &&PortRule| matches!(rule.kind, FrameKind::Ip(v, _) if v == version);
            let lines: Vec<_> = path.packets.iter().filter(own).filter_map(packet_rule).collect();
            if lines.is_empty() {
                continue;
            }
            if hook == "from" && path.is_limited() {
                chains.0.push((entry(index, "host"), lines.clone()));
            }
            chains.0.push((name.clone(), lines));
        }
    }
    let HostSentRules { lines, .. } = host_sent_rules(&rules.to_guest.packets);
    if !lines.is_empty() {
        tables.ethernet.0.push((entry(index, "sent"), lines));
    }
    Ok(tables)
}

impl IptablesText {
    fn chains(&self, part: Part) -> &Chains {
        match part {
            Part::Ethernet => &self.ethernet,
            Part::Ip(Version::V4) => &self.v4,
            Part::Ip(Version::V6) => &self.v6,
        }
    }

    /// Returns the port's name.
    pub fn port(&self) -> &InterfaceName {
        &self.port
    }

    /// Returns whether a tool has chains of this port.
    pub fn needs(&self, part: Part) -> bool {
        !self.chains(part).0.is_empty()
    }
}

/// Returns the state with a port's chains added.
pub fn with(present: TableState, part: Part, port: &IptablesText) -> TableState {
    let mut wanted = present;
    let chains = &port.chains(part).0;
    let has = |name: &str| chains.iter().any(|(chain, _)| chain == name);
    for hook in part.hooks() {
        let own = entry(port.index, hook);
        let target = if hook == "host" && !has(&own) { entry(port.index, "from") } else { own };
        if !has(&target) {
            continue;
        }
        let table = wanted.tables.entry(part.table().to_owned()).or_default();
        let base = part.base(hook);
        for host in part.hosts(hook) {
            table.jumps.insert(((*host).to_owned(), base.to_owned()), Jump::HEAD);
        }
        let lines = table.chains.entry(base.to_owned()).or_default();
        lines.push(part.dispatch(hook, &port.port, &target));
    }
    for (name, rules) in chains {
        let table = wanted.tables.entry(part.table().to_owned()).or_default();
        table.chains.insert(name.clone(), rules.clone());
    }
    wanted
}

/// Returns the state without the chains of the ports with these numbers. Base chains without rules
/// are removed as well.
pub fn without(present: TableState, part: Part, gone: &BTreeSet<u32>) -> TableState {
    let mut wanted = present;
    let Some(table) = wanted.tables.get_mut(part.table()) else { return wanted };
    let is_gone = |chain: &str| number(chain).is_some_and(|index| gone.contains(&index));
    table.chains.retain(|name, _| !is_gone(name));
    for hook in part.hooks() {
        let base = part.base(hook);
        let Some(lines) = table.chains.get_mut(base) else { continue };
        lines.retain(|line| !line.rsplit(' ').next().is_some_and(is_gone));
        if lines.is_empty() {
            table.chains.remove(base);
            table.jumps.retain(|(_, base_chain), _| base_chain != base);
        }
    }
    if table.chains.is_empty() && table.jumps.is_empty() {
        wanted.tables.remove(part.table());
    }
    wanted
}

/// Returns the number of the interface that a chain belongs to.
fn number(chain: &str) -> Option<u32> {
    chain.strip_prefix("nl-")?.split_once(':')?.0.parse().ok()
}

/// Returns the state in which ebtables drops all frames of these ports, which is in force while the
/// three tools change. The dropping chains have the ports' numbers in their names, so that
/// [`without`] removes them if the change was interrupted.
pub fn closed<'a>(
    present: &TableState,
    ports: impl Iterator<Item = (u32, &'a InterfaceName)>,
) -> TableState {
    let mut wanted = present.clone();
    let table = wanted.tables.entry(Part::Ethernet.table().to_owned()).or_default();
    for (index, port) in ports {
        let chain = entry(index, "closed");
        for hook in ["from", "to"] {
            let base = Part::Ethernet.base(hook);
            for host in Part::Ethernet.hosts(hook) {
                table.jumps.insert(((*host).to_owned(), base.to_owned()), Jump::HEAD);
            }
            let lines = table.chains.entry(base.to_owned()).or_default();
            let line = Part::Ethernet.dispatch(hook, port, &chain);
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

/// The result of rendering a test.
enum Tested {
    Always,
    Never,
    If(String),
    /// Alternatives: the rule is repeated once for each expression.
    AnyOf(Vec<String>),
    Cannot(&'static str),
}
