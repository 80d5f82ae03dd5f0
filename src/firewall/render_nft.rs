//! Renders rules as the text of one `nft -f -`; the kernel carries out all of the text or none of
//! it.
//!
//! All rules are in a table of netlaunch, one for each IP version. Its base chains contain only
//! look-ups: a map from the interface, or from the source subnet, to the owner's chain. So a packet
//! costs the same with one network and with a thousand.
//!
//! A table can refuse packets, but it cannot accept a packet that another table refuses. So chains
//! that only accept packets to the host or from the host are left out. [`super::conflicts`] finds
//! the other table that refuses.
//!
//! The text can be applied to any state, also after `nft flush ruleset`: adding an existing object
//! changes no rules, and each object is added before it is deleted. The text needs nft 1.0.6
//! (`destroy` came later). Protocols are written as numbers, since nft would look names up in
//! files.

use super::nft_dump::{ChainShape, TableShape};

use super::nft_rule;
use crate::firewall::rules::{Chain, ChainName, Entry, Packets, Ruleset, Verdict, Version};

/// The name of the table in both families.
pub const TABLE: &str = "netlaunch_network";

/// Returns the text that adds these rulesets; they replace earlier chains of the same owner. What
/// they share is added once: nft needs 8 ms for 20 networks, and 16 ms if each adds it (measured).
pub fn apply(rulesets: &[Ruleset]) -> String {
    let mut text = String::new();
    let mut begun = Vec::new();
    for ruleset in rulesets {
        let (table, entries, chains) = begin(&mut text, ruleset, Base::add, &mut begun);
        for chain in &chains {
            let name = chain_name(&chain.name);
            let hook = hook(&entries, &chain.name);
            line(&mut text, &format!("add chain {table} {name}{hook}"));
            line(&mut text, &format!("flush chain {table} {name}"));
            for rule in &chain.rules {
                let rule = nft_rule::rule(rule, ruleset.version);
                line(&mut text, &format!("add rule {table} {name} {rule}"));
            }
        }
        for entry in &entries {
            add_element(&mut text, entry, ruleset.version);
        }
    }
    text
}

/// Returns the text that removes these rulesets, whether they exist or not. The chains of other
/// owners and the base chains stay.
pub fn removal(rulesets: &[Ruleset]) -> String {
    let mut text = String::new();
    let mut begun = Vec::new();
    for ruleset in rulesets {
        let (table, entries, chains) = begin(&mut text, ruleset, Base::add_maps, &mut begun);
        for chain in &chains {
            line(&mut text, &format!("add chain {table} {}", chain_name(&chain.name)));
        }
        for entry in &entries {
            add_element(&mut text, entry, ruleset.version);
            delete_element(&mut text, entry, ruleset.version);
        }
        for verb in ["flush", "delete"] {
            for chain in &chains {
                line(&mut text, &format!("{verb} chain {table} {}", chain_name(&chain.name)));
            }
        }
    }
    text
}

/// Returns the text that removes the tables, whether they exist or not.
pub fn remove_tables() -> String {
    let mut text = String::new();
    for version in [Version::V4, Version::V6] {
        let table = table(version);
        line(&mut text, &format!("add table {table}"));
        line(&mut text, &format!("delete table {table}"));
    }
    text
}

/// The names of all maps.
pub(super) const MAPS: [&str; 5] = [FROM, TO, HOST, GUEST, SOURCE];

/// Returns descriptions of the parts of a ruleset that a table of this shape lacks; `None` means
/// that the table does not exist.
pub(super) fn missing(shape: Option<&TableShape>, ruleset: &Ruleset) -> Vec<String> {
    let table = table(ruleset.version);
    let (entries, chains) = rendered(ruleset);
    let Some(shape) = shape else {
        return if entries.is_empty() { Vec::new() } else { vec![format!("table {table}")] };
    };
    let mut missing = Vec::new();
    if shape.dormant {
        missing.push(format!("table {table} is dormant"));
    }
    let mut compare = |name: &str, wanted: usize| {
        let Some(ChainShape { rules, drops }) = shape.chains.get(name) else {
            missing.push(format!("chain {table} {name}"));
            return;
        };
        if *rules < wanted {
            missing.push(format!("{} of {wanted} rules of chain {table} {name}", wanted - rules));
        } else if *rules > wanted {
            missing.push(format!("chain {table} {name} has {} rules of others", rules - wanted));
        }
        if *drops {
            missing.push(format!("chain {table} {name} has the policy drop"));
        }
    };
    for base in bases(&entries) {
        compare(base.name(), base.maps(ruleset.version).len());
    }
    for chain in &chains {
        compare(&chain_name(&chain.name), chain.rules.len());
    }
    for entry in &entries {
        let Some(map) = map(&entry.packets) else { continue };
        let wanted = entries
            .iter()
            .filter(|other| other.chain == entry.chain && self::map(&other.packets) == Some(map));
        if shape.leads(map, &chain_name(&entry.chain)) < wanted.count() {
            missing.push(format!("element {} of map {table} {map}", key(&entry.packets)));
        }
    }
    missing
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

pub(super) fn family(version: Version) -> &'static str {
    match version {
        Version::V4 => "ip",
        Version::V6 => "ip6",
    }
}

fn table(version: Version) -> String {
    format!("{} {TABLE}", family(version))
}

/// Returns the name of an owner's chain. The prefix distinguishes it from base chains and nft's
/// keywords.
fn chain_name(name: &ChainName) -> String {
    format!("nl-{}", name.as_str())
}

/// Adds the ruleset's table, and the objects that `add` adds for each base chain, unless `begun`
/// has them from an earlier ruleset of the text. Returns the table, and the entries and chains that
/// have an effect in nftables.
fn begin<'a>(
    text: &mut String,
    ruleset: &'a Ruleset,
    add: fn(Base, &mut String, Version),
    begun: &mut Vec<(Version, Option<Base>)>,
) -> (String, Vec<&'a Entry>, Vec<&'a Chain>) {
    let version = ruleset.version;
    let table = table(version);
    let (entries, chains) = rendered(ruleset);
    let mut is_new = |part| {
        let known = begun.contains(&(version, part));
        if !known {
            begun.push((version, part));
        }
        !known
    };
    if is_new(None) {
        line(text, &format!("add table {table}"));
    }
    for base in bases(&entries) {
        if is_new(Some(base)) {
            add(base, text, version);
        }
    }
    (table, entries, chains)
}

/// Returns the entries and chains that have an effect in nftables.
fn rendered(ruleset: &Ruleset) -> (Vec<&Entry>, Vec<&Chain>) {
    let only_accepts = |name: &ChainName| {
        let rules = ruleset.chains.iter().filter(|c| c.name == *name).flat_map(|c| &c.rules);
        rules.into_iter().all(|rule| rule.verdict == Verdict::Accept)
    };
    let effective = |entry: &&Entry| {
        let left_to_others = matches!(
            entry.packets,
            Packets::ToHost(_)
                | Packets::FromHost(_)
                | Packets::PublishedFrom(_)
                | Packets::PublishedTo(_)
        );
        !(left_to_others && only_accepts(&entry.chain))
    };
    let entries: Vec<_> = ruleset.entries.iter().filter(effective).collect();
    let used = |chain: &&Chain| entries.iter().any(|entry| entry.chain == chain.name);
    let chains = ruleset.chains.iter().filter(used).collect();
    (entries, chains)
}

/// A base chain, which contains look-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Forward,
    Input,
    Output,
    Postrouting,
}

/// Returns the base chains that these entries need, without duplicates.
fn bases(entries: &[&Entry]) -> Vec<Base> {
    let mut bases = Vec::new();
    for entry in entries {
        let base = match entry.packets {
            Packets::ForwardedFrom(_) | Packets::ForwardedTo(_) => Base::Forward,
            Packets::PublishedFrom(_) | Packets::PublishedTo(_) => Base::Forward,
            Packets::ToHost(_) => Base::Input,
            Packets::FromHost(_) => Base::Output,
            Packets::LeavingWithSource(_) => Base::Postrouting,
            // The owner's chain is a base chain itself.
            Packets::Incoming | Packets::Outgoing | Packets::Leaving => continue,
        };
        if !bases.contains(&base) {
            bases.push(base);
        }
    }
    bases
}

/// Returns the map that leads these packets to their owner's chain; `None` if the owner's chain is
/// a base chain itself.
fn map(packets: &Packets) -> Option<&'static str> {
    Some(match packets {
        Packets::ForwardedFrom(_) | Packets::PublishedFrom(_) => FROM,
        Packets::ForwardedTo(_) | Packets::PublishedTo(_) => TO,
        Packets::ToHost(_) => HOST,
        Packets::FromHost(_) => GUEST,
        Packets::LeavingWithSource(_) => SOURCE,
        Packets::Incoming | Packets::Outgoing | Packets::Leaving => return None,
    })
}

/// Returns the hook of an owner's chain that is a base chain itself, behind a space. Only the first
/// packet of a connection passes such a chain, so a look-up would save nothing. The priorities are
/// those of `dstnat` and `srcnat`.
fn hook(entries: &[&Entry], chain: &ChainName) -> &'static str {
    let mut own = entries.iter().filter(|entry| entry.chain == *chain);
    match own.find(|entry| map(&entry.packets).is_none()).map(|entry| &entry.packets) {
        Some(Packets::Incoming) => " { type nat hook prerouting priority -100; policy accept; }",
        Some(Packets::Outgoing) => " { type nat hook output priority -100; policy accept; }",
        Some(Packets::Leaving) => " { type nat hook postrouting priority 100; policy accept; }",
        _ => "",
    }
}

const FROM: &str = "forwarded_from";
const TO: &str = "forwarded_to";
const HOST: &str = "to_host";
const GUEST: &str = "from_host";
const SOURCE: &str = "leaving_with_source";

impl Base {
    fn name(self) -> &'static str {
        match self {
            Base::Forward => "forward",
            Base::Input => "input",
            Base::Output => "output",
            Base::Postrouting => "postrouting",
        }
    }

    /// Returns the chain's type, hook and priority; the priorities are those of `filter` and
    /// `srcnat`.
    fn kind(self) -> &'static str {
        match self {
            Base::Forward => "type filter hook forward priority 0; policy accept;",
            Base::Input => "type filter hook input priority 0; policy accept;",
            Base::Output => "type filter hook output priority 0; policy accept;",
            Base::Postrouting => "type nat hook postrouting priority 100; policy accept;",
        }
    }

    /// Returns the chain's maps in the order of the rules: name, declaration, and the look-up.
    fn maps(self, version: Version) -> Vec<(&'static str, String, String)> {
        let by = |map, interface: &str| {
            (map, "type ifname : verdict;".to_owned(), format!("{interface} vmap @{map}"))
        };
        match self {
            Base::Forward => vec![by(FROM, "iifname"), by(TO, "oifname")],
            Base::Input => vec![by(HOST, "iifname")],
            Base::Output => vec![by(GUEST, "oifname")],
            Base::Postrouting => {
                let family = family(version);
                let kind = if version == Version::V4 { "ipv4_addr" } else { "ipv6_addr" };
                // The key has a second part, which matches any protocol, because nft 1.0.6 sends
                // the elements of a plain interval map before the chains that they lead to.
                vec![(
                    SOURCE,
                    format!("type {kind} . inet_proto : verdict; flags interval;"),
                    format!("{family} saddr . meta l4proto vmap @{SOURCE}"),
                )]
            }
        }
    }

    fn add_maps(self, text: &mut String, version: Version) {
        for (name, declaration, _) in self.maps(version) {
            line(text, &format!("add map {} {name} {{ {declaration} }}", table(version)));
        }
    }

    fn add(self, text: &mut String, version: Version) {
        let (table, name) = (table(version), self.name());
        self.add_maps(text, version);
        line(text, &format!("add chain {table} {name} {{ {} }}", self.kind()));
        line(text, &format!("flush chain {table} {name}"));
        for (_, _, look_up) in self.maps(version) {
            line(text, &format!("add rule {table} {name} {look_up}"));
        }
    }
}

fn key(packets: &Packets) -> String {
    match packets {
        Packets::ForwardedFrom(name)
        | Packets::ForwardedTo(name)
        | Packets::ToHost(name)
        | Packets::FromHost(name)
        | Packets::PublishedFrom(name)
        | Packets::PublishedTo(name) => format!("\"{name}\""),
        Packets::LeavingWithSource(subnet) => format!("{subnet} . 0-255"),
        Packets::Incoming | Packets::Outgoing | Packets::Leaving => String::new(),
    }
}

fn add_element(text: &mut String, entry: &Entry, version: Version) {
    let Some(map) = map(&entry.packets) else { return };
    let (table, key) = (table(version), key(&entry.packets));
    let chain = chain_name(&entry.chain);
    line(text, &format!("add element {table} {map} {{ {key} : jump {chain} }}"));
}

fn delete_element(text: &mut String, entry: &Entry, version: Version) {
    let Some(map) = map(&entry.packets) else { return };
    let (table, key) = (table(version), key(&entry.packets));
    line(text, &format!("delete element {table} {map} {{ {key} }}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::rules::{Mode, NetworkRules, for_network};

    #[test]
    fn each_line_of_two_networks_stands_once() {
        let network = |bridge: &str, subnet: &str| NetworkRules {
            bridge: bridge.parse().unwrap(),
            mode: Mode::Nat { devs: Vec::new(), addresses: None, ports: None, ipv6: false },
            subnets: vec![subnet.parse().unwrap()],
            ipv6_between_guests: false,
            dhcp: true,
            dns: true,
            tftp: false,
        };
        let one = for_network(&network("one0", "192.0.2.0/25")).unwrap();
        let two = for_network(&network("two0", "192.0.2.128/25")).unwrap();
        let rulesets = [one, two].concat();
        for text in [apply(&rulesets), removal(&rulesets)] {
            let mut lines: Vec<&str> = text.lines().collect();
            let all = lines.len();
            lines.sort_unstable();
            lines.dedup();
            assert_eq!(lines.len(), all, "{text}");
        }
    }
}
