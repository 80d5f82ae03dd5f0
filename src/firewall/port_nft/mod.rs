//! nftables: the filters of ports as the text of one `nft -f -`.
//!
//! One table of the bridge family holds all ports. Its two base chains have one rule each: a map
//! from the interface's number to the port's chain. So a frame costs the same with one port bound
//! and with a thousand, and a port that is gone is never mistaken for a later one of its name: the
//! kernel does not use a number again.
//!
//! ```text
//! prerouting  ─ iif vmap @from_guest ─▶ p7-from ─▶ p7-from-1 (a sub chain) … ─▶ p7-from-ip
//! postrouting ─ oif vmap @to_guest ───▶ p7-to   ─▶ …
//! ```
//!
//! `accept` would end the whole evaluation, so the end of the first stage is a `goto` to the
//! second. What is written can be applied to any state of the table, also to none: adding what is
//! there changes nothing, and what is deleted is added before (nft 1.0.6 has no `destroy`). Chains
//! that stay are emptied and filled, which costs half of deleting and adding them (measured with
//! 1,000 ports).
//!
//! nft 1.0.6 joins neighbouring fields that must differ from a value into one comparison, which then
//! holds when one of them differs. It leaves masked fields alone, so such a test has a mask of all
//! ones.
//!
//! Fields of ARP, RARP and STP are read at their places, since nft knows the fields of ARP only.

pub(super) mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::rules::Version;
use crate::rules::port::{Kind, Origin, Path, PortRule, PortRules, PortVerdict, Step, Test};
use words::{Tested, address, gratuitous, hardware, icmp, implied, kind, number, quoted, state};

/// The table's name, of the bridge family.
pub const TABLE: &str = "netlaunch_nwfilter";

/// The set of all pairs of equal bytes; it stays as long as the table does.
const EQUAL_BYTES: &str = "equal_bytes";

/// What the table's rules do besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extras {
    /// Frames of bound ports are shown by `nft monitor trace`.
    pub trace: bool,
    /// Rules count what they decide, and ports what passes and what is dropped.
    pub counters: bool,
    /// The kernel can refuse in the bridge family; else what is refused is dropped.
    pub reject: bool,
}

/// Something nft has no words for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{origin} looks addresses up in the ipset {set}, which nftables cannot do; use firewall_backend = \"iptables\" in nwfilter.conf, or name the addresses in the filter"
)]
pub struct NoIpset {
    /// The rule.
    pub origin: Origin,
    /// The set.
    pub set: String,
}

/// What a port has in the table, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortObjects {
    /// The interface's number.
    pub index: u32,
    /// The chains.
    pub chains: BTreeSet<String>,
    /// The sets that count connections, and the IP version of their addresses.
    #[serde(default)]
    pub sets: BTreeSet<(String, Version)>,
    /// The counters.
    #[serde(default)]
    pub counters: BTreeSet<String>,
    /// Whether connections are counted.
    #[serde(default)]
    pub limited: bool,
    /// Whether a rule needs the set of equal bytes.
    #[serde(default)]
    pub equal_bytes: bool,
}

/// A port's rules, made ready for the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortText {
    /// What it has there.
    pub objects: PortObjects,
    /// The chains' rules.
    body: String,
}

/// Which way frames go, and where they are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the guest.
    From,
    /// To the guest.
    To,
    /// From the guest through the bridge: where connections are counted, since those to the host
    /// count apart.
    Through,
    /// From the guest to the host itself.
    Host,
}

impl Way {
    /// What every port has.
    const BOTH: [Way; 2] = [Way::From, Way::To];
    /// What a port has besides where connections are counted.
    const LIMITED: [Way; 2] = [Way::Through, Way::Host];

    fn of(limited: bool) -> &'static [Way] {
        const ALL: [Way; 4] = [Way::From, Way::To, Way::Through, Way::Host];
        if limited { &ALL } else { &Way::BOTH }
    }

    fn name(self) -> &'static str {
        match self {
            Way::From => "from",
            Way::To => "to",
            Way::Through => "from-ip",
            Way::Host => "from-host",
        }
    }

    fn map(self) -> &'static str {
        match self {
            Way::From => "from_guest",
            Way::To => "to_guest",
            Way::Through => "from_guest_through",
            Way::Host => "from_guest_to_host",
        }
    }

    /// The base chain: its name, its declaration, its rule.
    fn base(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Way::From => {
                ("prerouting", "type filter hook prerouting priority 0;", "iif vmap @from_guest")
            }
            Way::To => {
                ("postrouting", "type filter hook postrouting priority 0;", "oif vmap @to_guest")
            }
            Way::Through => {
                ("forward", "type filter hook forward priority 0;", "iif vmap @from_guest_through")
            }
            Way::Host => {
                ("input", "type filter hook input priority 0;", "iif vmap @from_guest_to_host")
            }
        }
    }
}

/// Renders a port's rules.
///
/// # Errors
/// [`NoIpset`].
pub fn port(index: u32, rules: &PortRules, extras: Extras) -> Result<PortText, NoIpset> {
    let objects = PortObjects { index, ..PortObjects::default() };
    let mut text = PortText { objects, body: String::new() };
    text.path(Way::From, &rules.from_guest, extras)?;
    text.path(Way::To, &rules.to_guest, extras)?;
    Ok(text)
}

/// The transaction that removes what these ports had and adds what those are to have. A port may be
/// on both sides.
pub fn change(remove: &[&PortObjects], add: &[&PortText]) -> String {
    let mut text = String::new();
    let all = remove.iter().copied().chain(add.iter().map(|port| &port.objects));
    declare(&mut text, Way::of(all.into_iter().any(|objects| objects.limited)));
    let new: BTreeMap<u32, &PortObjects> =
        add.iter().map(|port| (port.objects.index, &port.objects)).collect();
    let old: BTreeMap<u32, &PortObjects> =
        remove.iter().rev().map(|objects| (objects.index, *objects)).collect();
    for objects in remove {
        forget(&mut text, objects, new.get(&objects.index).copied());
    }
    for port in add {
        port.declare(&mut text, old.get(&port.objects.index).copied());
    }
    if add.iter().any(|port| port.objects.equal_bytes) {
        let pairs: Vec<_> = (0..=255).map(|byte| format!("{byte} . {byte}")).collect();
        let _ = writeln!(
            text,
            "add set bridge {TABLE} {EQUAL_BYTES} {{ typeof ip ttl . ip ttl; }}\n\
             add element bridge {TABLE} {EQUAL_BYTES} {{ {} }}",
            pairs.join(", ")
        );
    }
    if !add.is_empty() {
        let _ = writeln!(text, "table bridge {TABLE} {{");
        for port in add {
            text.push_str(&port.body);
        }
        text.push_str("}\n");
        for way in Way::BOTH {
            elements(&mut text, "add", way, add.iter().map(|port| port.objects.index));
        }
        let limited: Vec<_> =
            add.iter().filter(|port| port.objects.limited).map(|p| p.objects.index).collect();
        for way in Way::LIMITED.into_iter().filter(|_| !limited.is_empty()) {
            elements(&mut text, "add", way, limited.iter().copied());
        }
    }
    text
}

/// What removes the table, whether it is there or not.
pub fn remove_table() -> String {
    format!("add table bridge {TABLE}\ndelete table bridge {TABLE}\n")
}

/// The chain that a port's frames start in.
fn entry(index: u32, way: Way) -> String {
    format!("p{index}-{}", way.name())
}

fn declare(text: &mut String, ways: &[Way]) {
    let _ = writeln!(text, "add table bridge {TABLE}");
    for way in ways {
        let (chain, kind, rule) = way.base();
        let map = way.map();
        let _ = writeln!(text, "add map bridge {TABLE} {map} {{ type iface_index : verdict; }}");
        let _ = writeln!(text, "add chain bridge {TABLE} {chain} {{ {kind} policy accept; }}");
        let _ = writeln!(text, "flush chain bridge {TABLE} {chain}");
        let _ = writeln!(text, "add rule bridge {TABLE} {chain} {rule}");
    }
}

/// Removes a port's objects but those that stay; they need not be there.
fn forget(text: &mut String, objects: &PortObjects, stays: Option<&PortObjects>) {
    let none = PortObjects::default();
    let kept = stays.unwrap_or(&none);
    for chain in &objects.chains {
        let _ = writeln!(text, "add chain bridge {TABLE} {chain}");
    }
    for way in Way::of(objects.limited) {
        let stays = stays.is_some_and(|stays| Way::of(stays.limited).contains(way));
        for verb in ["add", "delete"].into_iter().filter(|_| !stays) {
            elements(text, verb, *way, std::iter::once(objects.index));
        }
    }
    for chain in &objects.chains {
        let _ = writeln!(text, "flush chain bridge {TABLE} {chain}");
    }
    for chain in objects.chains.difference(&kept.chains) {
        let _ = writeln!(text, "delete chain bridge {TABLE} {chain}");
    }
    for (set, version) in objects.sets.difference(&kept.sets) {
        declare_set(text, set, *version);
        let _ = writeln!(text, "delete set bridge {TABLE} {set}");
    }
    for counter in objects.counters.difference(&kept.counters) {
        let _ = writeln!(text, "add counter bridge {TABLE} {counter}");
        let _ = writeln!(text, "delete counter bridge {TABLE} {counter}");
    }
}

fn declare_set(text: &mut String, set: &str, version: Version) {
    let kind = match version {
        Version::V4 => "ipv4_addr",
        Version::V6 => "ipv6_addr",
    };
    let _ = writeln!(
        text,
        "add set bridge {TABLE} {set} {{ type {kind}; size 65535; flags dynamic; }}"
    );
}

/// Adds or deletes the elements that lead to these ports' chains.
fn elements(text: &mut String, verb: &str, way: Way, ports: impl Iterator<Item = u32>) {
    let all: Vec<_> = ports.map(|index| format!("{index} : goto {}", entry(index, way))).collect();
    let _ = writeln!(text, "{verb} element bridge {TABLE} {} {{ {} }}", way.map(), all.join(", "));
}

impl PortText {
    /// Declares the objects; the chains are empty then.
    fn declare(&self, text: &mut String, old: Option<&PortObjects>) {
        let none = BTreeSet::new();
        let emptied = old.map_or(&none, |old| &old.chains);
        for chain in self.objects.chains.difference(emptied) {
            let _ = writeln!(text, "add chain bridge {TABLE} {chain}");
            let _ = writeln!(text, "flush chain bridge {TABLE} {chain}");
        }
        for (set, version) in &self.objects.sets {
            declare_set(text, set, *version);
        }
        for counter in &self.objects.counters {
            let _ = writeln!(text, "add counter bridge {TABLE} {counter}");
        }
    }

    fn path(&mut self, way: Way, path: &Path, extras: Extras) -> Result<(), NoIpset> {
        let name = entry(self.objects.index, way);
        let dropped = extras.counters.then(|| format!("{name}-dropped"));
        let passed = extras.counters.then(|| format!("{name}-passed"));
        self.objects.counters.extend(dropped.iter().chain(&passed).cloned());
        let count = |counter: &Option<String>| {
            counter.as_ref().map_or_else(String::new, |name| format!("counter name \"{name}\" "))
        };
        let pass = format!("{}accept", count(&passed));
        let limited = way == Way::From && path.is_limited();
        let second = match path.packets.is_empty() || limited {
            // Each frame counts as passed once, though a flooded one is forwarded many times.
            true => pass.clone(),
            false => format!("goto {name}-ip"),
        };
        let context = |accept: &str, back: &str| Context {
            chain: name.clone(),
            extras,
            accept: accept.to_owned(),
            back: back.to_owned(),
            drop: format!("{}drop", count(&dropped)),
            // The link layer has no answer to give, as in ebtables.
            reject: None,
        };
        let frames = context(&second, &second);
        let mut root = Vec::new();
        if extras.trace {
            root.push("meta nftrace set 1".to_owned());
        }
        for step in &path.frames {
            match step {
                Step::Rule(rule) => root.extend(self.rule(rule, &frames)?),
                Step::Chain(number) => {
                    let Some(chain) = path.chains.get(*number) else { continue };
                    let jump = format!("jump {name}-{}", number + 1);
                    let comment = format!(" comment \"{}\"", quoted(&chain.name));
                    root.push(
                        kind(chain.kind).map_or_else(String::new, |k| k + " ") + &jump + &comment,
                    );
                }
            }
        }
        root.push(second.clone());
        self.chain(name.clone(), &root);
        let sub = context(&second, "return");
        for (number, chain) in path.chains.iter().enumerate() {
            let rules = self.rules(&chain.rules, &sub)?;
            self.chain(format!("{name}-{}", number + 1), &rules);
        }
        if path.packets.is_empty() {
            return Ok(());
        }
        let places: &[(&str, bool)] = match limited {
            // The bridge family has no answers where frames are forwarded.
            true => &[("ip", false), ("host", true)],
            false => &[("ip", true)],
        };
        self.objects.limited |= limited;
        for (place, answers) in places {
            let pass = if limited { "accept" } else { pass.as_str() };
            let mut packets = context(pass, pass);
            let rejects = extras.reject && way == Way::From && *answers;
            packets.reject = rejects.then(|| format!("{}reject", count(&dropped)));
            let mut rules = self.rules(&path.packets, &packets)?;
            rules.push(pass.to_owned());
            self.chain(format!("{name}-{place}"), &rules);
        }
        Ok(())
    }

    fn chain(&mut self, name: String, rules: &[String]) {
        let _ = writeln!(self.body, "\tchain {name} {{");
        for rule in rules {
            let _ = writeln!(self.body, "\t\t{rule}");
        }
        self.body.push_str("\t}\n");
        self.objects.chains.insert(name);
    }

    fn rules(&mut self, rules: &[PortRule], context: &Context) -> Result<Vec<String>, NoIpset> {
        let mut all = Vec::new();
        for rule in rules {
            all.extend(self.rule(rule, context)?);
        }
        Ok(all)
    }

    /// A rule's text; none where it decides nothing.
    fn rule(&mut self, rule: &PortRule, context: &Context) -> Result<Option<String>, NoIpset> {
        let verdict = match rule.verdict {
            PortVerdict::Accept => context.accept.as_str(),
            PortVerdict::Return => context.back.as_str(),
            PortVerdict::Reject => context.reject.as_ref().unwrap_or(&context.drop),
            PortVerdict::Drop => context.drop.as_str(),
            PortVerdict::Continue if context.extras.counters => "continue",
            PortVerdict::Continue => return Ok(None),
        };
        let mut words: Vec<String> = kind(rule.kind).into_iter().collect();
        words.extend(implied(rule).into_iter().map(str::to_owned));
        for test in &rule.tests {
            match self.test(test, rule, context)? {
                Tested::Always => {}
                Tested::Never => return Ok(None),
                Tested::If(word) => words.push(word),
            }
        }
        if context.extras.counters {
            words.push("counter".to_owned());
        }
        words.push(verdict.to_owned());
        if let Some(comment) = &rule.comment {
            words.push(format!("comment \"{}\"", quoted(comment)));
        }
        Ok(Some(words.join(" ")))
    }

    fn test(&mut self, test: &Test, rule: &PortRule, context: &Context) -> Result<Tested, NoIpset> {
        Ok(match test {
            Test::Hardware { field, address, mask, negated } => {
                hardware(*field, *address, *mask, *negated)
            }
            Test::Number { field, first, last, negated } => {
                number(*field, *first, *last, *negated, rule.kind)
            }
            Test::Address { field, among, negated } => address(*field, among, *negated, rule.kind),
            Test::Gratuitous => {
                self.objects.equal_bytes = true;
                Tested::If(gratuitous())
            }
            Test::Icmp { types, codes, negated } => icmp(*types, *codes, *negated),
            Test::TcpFlags { mask, flags, negated } => {
                let sign = if *negated { "!=" } else { "==" };
                Tested::If(format!("@th,104,8 & {mask:#x} {sign} {flags:#x}"))
            }
            Test::Set { name, .. } => {
                return Err(NoIpset { origin: rule.origin.clone(), set: name.clone() });
            }
            Test::Connections { above } => {
                let set = format!("{}-c{}", context.chain, self.objects.sets.len() + 1);
                let (version, source) = match rule.kind {
                    Kind::Ip(Version::V6, _) => (Version::V6, "ip6 saddr"),
                    _ => (Version::V4, "ip saddr"),
                };
                self.objects.sets.insert((set.clone(), version));
                Tested::If(format!("add @{set} {{ {source} ct count over {above} }}"))
            }
            Test::State { states, direction } => Tested::If(state(states, *direction)),
        })
    }
}

/// What a rule's verdicts are called where it stands.
struct Context {
    /// The path's entry chain.
    chain: String,
    extras: Extras,
    accept: String,
    back: String,
    drop: String,
    /// `None` where nobody is answered.
    reject: Option<String>,
}
