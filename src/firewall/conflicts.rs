//! Rules of others that stop guests' traffic.
//!
//! A packet must be let through by every table. So where ours lets guests through, docker's
//! `FORWARD` with policy DROP, ufw, firewalld or the host's own default-drop table may still stop
//! them, and nothing says why. [`find`] names the chain and what to do about it. It looks at what
//! the tools print, and changes nothing.
//!
//! It finds chains at the hooks `forward` and `input` that end in refusal, by policy or by a last
//! rule for everything, unless rules in the same table accept the bridge by its name. It does not
//! follow every way a packet can take: a rule for a guest's address, or marks, it does not see.

use std::collections::BTreeSet;

use serde_json::Value;

use super::backend::Backend;
use crate::rules::Version;
use crate::types::InterfaceName;

/// What the tools print about the rules of a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listings<'a> {
    /// `nft -j list ruleset`.
    pub nft: Option<&'a str>,
    /// `iptables-save`.
    pub iptables: Option<&'a str>,
    /// `ip6tables-save`.
    pub ip6tables: Option<&'a str>,
}

/// A chain that stops guests' traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The table, with the tool or family that it belongs to.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// What it stops, and how.
    pub why: String,
    /// What to do about it.
    pub fix: String,
}

/// The listing of nft is no listing.
#[derive(Debug, thiserror::Error)]
#[error(
    "the output of `nft -j list ruleset` cannot be read: {0}; run it by hand to see what it says"
)]
pub struct ListingError(#[from] serde_json::Error);

/// What stops the traffic of the guests on `bridge`, with rules of ours in `backend`.
///
/// # Errors
/// [`ListingError`].
pub fn find(
    listings: &Listings<'_>,
    backend: Backend,
    bridge: &InterfaceName,
) -> Result<Vec<Finding>, ListingError> {
    let mut tables = Vec::new();
    for (version, saved) in [(Version::V4, listings.iptables), (Version::V6, listings.ip6tables)] {
        // Our chains at the head of iptables' own accept before anything there refuses.
        if backend == Backend::Nftables {
            tables.extend(saved.and_then(|saved| saved_table(version, saved)));
        }
    }
    if let Some(nft) = listings.nft {
        // What iptables keeps in nftables is seen better by its own tools.
        let saved = |family: &str| match family {
            "ip" => listings.iptables.is_some(),
            "ip6" => listings.ip6tables.is_some(),
            _ => false,
        };
        let theirs = |table: &Table| match &table.place {
            Place::Nft { family, name } => name == "filter" && saved(family),
            Place::Iptables(_) => false,
        };
        tables.extend(nft_tables(nft)?.into_iter().filter(|table| !theirs(table)));
    }
    Ok(tables.iter().flat_map(|table| table.findings(bridge.as_str())).collect())
}

/// A hook at which guests' traffic can be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hook {
    Forward,
    Input,
}

#[derive(Debug)]
enum Place {
    Iptables(Version),
    Nft { family: String, name: String },
}

#[derive(Debug)]
struct Table {
    place: Place,
    chains: Vec<Chain>,
}

#[derive(Debug, Default)]
struct Chain {
    name: String,
    hook: Option<Hook>,
    drops: bool,
    rules: Vec<Rule>,
}

/// What of a rule matters here.
#[derive(Debug, Default)]
struct Rule {
    /// Whether it is for every packet.
    for_all: bool,
    /// Whether it is for replies.
    established: bool,
    /// Interfaces it names for the side a packet arrives on, and leaves by.
    arriving: Vec<String>,
    leaving: Vec<String>,
    verdict: Verdict,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Verdict {
    #[default]
    Other,
    Accept,
    Refuse,
    Jump(String),
}

/// Whose a table is, by the names in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    Docker,
    Ufw,
    Firewalld,
    Host,
}

impl Table {
    fn findings(&self, bridge: &str) -> Vec<Finding> {
        let at = |hook| self.chains.iter().filter(move |chain| chain.hook == Some(hook));
        let mut findings = Vec::new();
        for hook in [Hook::Forward, Hook::Input] {
            for chain in at(hook).filter(|_| !self.lets_through(hook, bridge)) {
                let how = match self.refusing_rule(chain, &mut BTreeSet::new()) {
                    Some(place) if place == chain.name => {
                        "refuses everything in its last rule".into()
                    }
                    Some(place) => format!("refuses everything in its chain {place}"),
                    None if chain.drops => "has the policy drop".to_owned(),
                    None => continue,
                };
                let what = match hook {
                    Hook::Forward => "what guests send beyond the host",
                    Hook::Input => "guests' DHCP and DNS requests to the host",
                };
                findings.push(Finding {
                    table: self.place.to_string(),
                    chain: chain.name.clone(),
                    why: format!("{}it {how}, which stops {what}", self.maker().says()),
                    fix: self.fix(hook, &chain.name, bridge),
                });
            }
        }
        findings
    }

    /// The chain with the rule that refuses whatever comes to the end of `chain`.
    fn refusing_rule(&self, chain: &Chain, seen: &mut BTreeSet<String>) -> Option<String> {
        if !seen.insert(chain.name.clone()) {
            return None;
        }
        chain.rules.iter().filter(|rule| rule.for_all).find_map(|rule| match &rule.verdict {
            Verdict::Refuse => Some(chain.name.clone()),
            Verdict::Jump(to) => {
                let to = self.chains.iter().find(|chain| chain.name == *to)?;
                self.refusing_rule(to, seen)
            }
            _ => None,
        })
    }

    /// Whether rules here let the bridge's packets through.
    fn lets_through(&self, hook: Hook, bridge: &str) -> bool {
        let rules = || self.chains.iter().flat_map(|chain| &chain.rules);
        // firewalld names the interface of a zone in a jump to the zone's chain.
        let firewalld = self.maker() == Maker::Firewalld;
        let passes = |rule: &Rule| {
            rule.verdict == Verdict::Accept || firewalld && matches!(rule.verdict, Verdict::Jump(_))
        };
        let names = |of: &[String]| of.iter().any(|name| covers(name, bridge));
        let arriving = rules().any(|rule| passes(rule) && names(&rule.arriving));
        let leaving =
            || rules().any(|rule| passes(rule) && (names(&rule.leaving) || rule.established));
        arriving && (hook == Hook::Input || leaving())
    }

    fn maker(&self) -> Maker {
        let has = |is: fn(&str) -> bool| self.chains.iter().any(|chain| is(&chain.name));
        let named = matches!(&self.place, Place::Nft { name, .. } if name == "firewalld");
        if named || has(|name| name.starts_with("FWD_") || name == "FORWARD_direct") {
            Maker::Firewalld
        } else if has(|name| name.starts_with("ufw-") || name.starts_with("ufw6-")) {
            Maker::Ufw
        } else if has(|name| name == "DOCKER" || name.starts_with("DOCKER-")) {
            Maker::Docker
        } else {
            Maker::Host
        }
    }

    fn fix(&self, hook: Hook, chain: &str, bridge: &str) -> String {
        let or_iptables = "or set firewall_backend = \"iptables\" in network.conf";
        match (self.maker(), hook, &self.place) {
            (Maker::Firewalld, ..) => format!(
                "put the bridge into a zone that lets it through: firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload"
            ),
            (Maker::Ufw, Hook::Forward, _) => {
                format!("ufw route allow in on {bridge} && ufw route allow out on {bridge}")
            }
            (Maker::Ufw, Hook::Input, _) => format!(
                "ufw allow in on {bridge} to any port 53 && ufw allow in on {bridge} to any port 67 proto udp"
            ),
            (maker, Hook::Forward, Place::Iptables(version)) => {
                let tool = tool(*version);
                let chain = if maker == Maker::Docker && self.has("DOCKER-USER") {
                    "DOCKER-USER"
                } else {
                    chain
                };
                format!(
                    "{tool} -I {chain} -i {bridge} -j ACCEPT && {tool} -I {chain} -o {bridge} -j ACCEPT, {or_iptables}"
                )
            }
            (_, Hook::Input, Place::Iptables(version)) => {
                let tool = tool(*version);
                let dhcp = if *version == Version::V4 { 67 } else { 547 };
                format!(
                    "{tool} -I {chain} -i {bridge} -p udp -m multiport --dports 53,{dhcp} -j ACCEPT && {tool} -I {chain} -i {bridge} -p tcp --dport 53 -j ACCEPT, {or_iptables}"
                )
            }
            (_, Hook::Forward, Place::Nft { family, name }) => format!(
                "nft insert rule {family} {name} {chain} iifname {bridge} accept; nft insert rule {family} {name} {chain} oifname {bridge} accept; and the same in the file that made the table (/etc/nftables.conf)"
            ),
            (_, Hook::Input, Place::Nft { family, name }) => format!(
                "nft insert rule {family} {name} {chain} iifname {bridge} meta l4proto {{ tcp, udp }} th dport {{ 53, 67, 547 }} accept; and the same in the file that made the table (/etc/nftables.conf)"
            ),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.chains.iter().any(|chain| chain.name == name)
    }
}

impl Maker {
    fn says(self) -> &'static str {
        match self {
            Maker::Docker => "docker's: ",
            Maker::Ufw => "ufw's: ",
            Maker::Firewalld => "firewalld's: ",
            Maker::Host => "",
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Iptables(version) => write!(f, "{} filter", tool(*version)),
            Place::Nft { family, name } => write!(f, "{family} {name}"),
        }
    }
}

fn tool(version: Version) -> &'static str {
    match version {
        Version::V4 => "iptables",
        Version::V6 => "ip6tables",
    }
}

/// Whether an interface's name in a rule, with a wildcard perhaps, is this bridge's.
fn covers(name: &str, bridge: &str) -> bool {
    match name.strip_suffix(['+', '*']) {
        Some(start) => bridge.starts_with(start),
        None => name == bridge,
    }
}

/// The table `filter` of a `-save`.
fn saved_table(version: Version, saved: &str) -> Option<Table> {
    let lines = saved.lines().skip_while(|line| *line != "*filter").skip(1);
    let mut table = Table { place: Place::Iptables(version), chains: Vec::new() };
    for line in lines.take_while(|line| *line != "COMMIT") {
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            let name = words.next()?.to_owned();
            let hook = match name.as_str() {
                "FORWARD" => Some(Hook::Forward),
                "INPUT" => Some(Hook::Input),
                _ => None,
            };
            let drops = words.next() == Some("DROP");
            table.chains.push(Chain { name, hook, drops, rules: Vec::new() });
        } else if let Some((name, rule)) = line.strip_prefix("-A ").and_then(|l| l.split_once(' '))
            && let Some(chain) = table.chains.iter_mut().find(|chain| chain.name == name)
        {
            chain.rules.push(saved_rule(rule));
        }
    }
    Some(table).filter(|table| !table.chains.is_empty())
}

fn saved_rule(rule: &str) -> Rule {
    let words: Vec<_> = rule.split(' ').collect();
    let after = |option: &str| {
        // `! -i br0` is every other interface.
        let at = words.iter().position(|word| *word == option)?;
        let negated = at > 0 && words[at - 1] == "!";
        words.get(at + 1).filter(|_| !negated).map(|word| (*word).to_owned())
    };
    let target = after("-j").or_else(|| after("-g")).unwrap_or_default();
    Rule {
        for_all: words.first().is_some_and(|word| ["-j", "-g"].contains(word)),
        established: rule.contains("ESTABLISHED"),
        arriving: after("-i").into_iter().collect(),
        leaving: after("-o").into_iter().collect(),
        verdict: match target.as_str() {
            "ACCEPT" => Verdict::Accept,
            "DROP" | "REJECT" => Verdict::Refuse,
            "" | "RETURN" => Verdict::Other,
            _ => Verdict::Jump(target),
        },
    }
}

/// The tables that see routed packets and packets for the host, without ours.
fn nft_tables(json: &str) -> Result<Vec<Table>, ListingError> {
    let listing: Value = serde_json::from_str(json)?;
    let mut tables: Vec<Table> = Vec::new();
    let word = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    for item in listing["nftables"].as_array().into_iter().flatten() {
        let (chain, rule) = (&item["chain"], &item["rule"]);
        let item = if chain.is_object() { chain } else { rule };
        let (family, name) = (word(item, "family"), word(item, "table"));
        if !["ip", "ip6", "inet"].contains(&family.as_str()) || name.starts_with("netlaunch_") {
            continue;
        }
        let is = |table: &Table| matches!(&table.place, Place::Nft { family: f, name: n } if *f == family && *n == name);
        let known = tables.iter().position(is);
        let at = known.unwrap_or(tables.len());
        if known.is_none() {
            tables.push(Table { place: Place::Nft { family, name }, chains: Vec::new() });
        }
        let chains = &mut tables[at].chains;
        if chain.is_object() {
            let hook = match chain["hook"].as_str() {
                Some("forward") => Some(Hook::Forward),
                Some("input") => Some(Hook::Input),
                _ => None,
            };
            // A chain of type nat or route sees only some packets, and none to refuse.
            let hook = hook.filter(|_| chain["type"] == "filter");
            let drops = chain["policy"] == "drop";
            chains.push(Chain { name: word(chain, "name"), hook, drops, rules: Vec::new() });
        } else if let Some(chain) = chains.iter_mut().find(|c| rule["chain"] == c.name.as_str()) {
            chain.rules.push(nft_rule(rule));
        }
    }
    Ok(tables)
}

fn nft_rule(rule: &Value) -> Rule {
    let mut parsed = Rule { for_all: true, ..Rule::default() };
    for statement in rule["expr"].as_array().into_iter().flatten() {
        let Some((kind, value)) = statement.as_object().and_then(|s| s.iter().next()) else {
            parsed.for_all = false; // a bare word is a statement this nft cannot show
            continue;
        };
        match kind.as_str() {
            "accept" => parsed.verdict = Verdict::Accept,
            "drop" | "reject" => parsed.verdict = Verdict::Refuse,
            "jump" | "goto" => {
                parsed.verdict = Verdict::Jump(value["target"].as_str().unwrap_or_default().into());
            }
            "counter" | "log" | "return" => {}
            "match" if value["op"] == "!=" => parsed.for_all = false,
            "match" => {
                parsed.for_all = false;
                let (left, right) = (&value["left"], &value["right"]);
                match left["meta"]["key"].as_str() {
                    Some("iifname" | "iif") => strings(right, &mut parsed.arriving),
                    Some("oifname" | "oif") => strings(right, &mut parsed.leaving),
                    _ => {}
                }
                let mut states = Vec::new();
                strings(right, &mut states);
                parsed.established |=
                    left["ct"]["key"] == "state" && states.iter().any(|s| s == "established");
            }
            _ => parsed.for_all = false,
        }
    }
    parsed
}

/// All texts in a value: a name alone, or those of a set.
fn strings(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(all) => all.iter().for_each(|one| strings(one, into)),
        Value::Object(all) => all.values().for_each(|one| strings(one, into)),
        _ => {}
    }
}
