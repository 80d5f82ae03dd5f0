//! Parses the output of `nft -j list ruleset`, or of several lists of one table
//! (libnftables-json(5)).
//!
//! A statement that this module does not know becomes an unknown property, which never holds
//! for certain. netlaunch's own tables and families that see no IP packets are left out.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde_json::Value;

use super::ListingError;
use super::chains::{Chain, Hook, Property, Rule, Table, TableId, Term, Verdict};
use super::saved::protocol;
use crate::firewall::rules::Version;

/// Returns the tables that see IP packets, without netlaunch's own.
pub(super) fn tables(json: &str) -> Result<Vec<Table>, ListingError> {
    let documents: Vec<Value> =
        serde_json::Deserializer::from_str(json).into_iter().collect::<Result<_, _>>()?;
    // No output is an error, not a host without tables.
    if documents.is_empty() {
        serde_json::from_str::<Value>(json)?;
    }
    let items = documents.iter().filter_map(|listing| listing["nftables"].as_array()).flatten();
    let mut tables: Vec<Table> = Vec::new();
    let word = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    for item in items {
        let (chain, rule) = (&item["chain"], &item["rule"]);
        let item = if chain.is_object() { chain } else { rule };
        let (family, name) = (word(item, "family"), word(item, "table"));
        if !["ip", "ip6", "inet"].contains(&family.as_str()) || name.starts_with("netlaunch_") {
            continue;
        }
        let is = |table: &Table| matches!(&table.id, TableId::Nft { family: f, name: n } if *f == family && *n == name);
        let known = tables.iter().position(is);
        let at = known.unwrap_or(tables.len());
        if known.is_none() {
            tables.push(Table { id: TableId::Nft { family, name }, chains: Vec::new() });
        }
        let chains = &mut tables[at].chains;
        if chain.is_object() {
            let hook = match chain["hook"].as_str() {
                Some("forward") => Some(Hook::Forward),
                Some("input") => Some(Hook::Input),
                Some("output") => Some(Hook::Output),
                _ => None,
            };
            // A chain of type nat or route sees only some packets, and refuses none.
            let hook = hook.filter(|_| chain["type"] == "filter");
            let drops = chain["policy"] == "drop";
            chains.push(Chain { name: word(chain, "name"), hook, drops, rules: Vec::new() });
        } else if let Some(chain) = chains.iter_mut().find(|c| rule["chain"] == c.name.as_str()) {
            rules(rule, &mut chain.rules);
        }
    }
    Ok(tables)
}

/// Adds a rule; a rule that looks up a verdict becomes one rule for each entry.
fn rules(rule: &Value, into: &mut Vec<Rule>) {
    let mut read = Rule::default();
    for statement in rule["expr"].as_array().into_iter().flatten() {
        let Some((kind, value)) = statement.as_object().and_then(|s| s.iter().next()) else {
            // A bare word is a statement that this version of nft cannot print as JSON.
            read.terms.push(Property::Unknown.into());
            continue;
        };
        match kind.as_str() {
            "match" => read.terms.extend(terms(value)),
            "vmap" => {
                for pair in value["data"]["set"].as_array().into_iter().flatten() {
                    let mut terms = read.terms.clone();
                    terms.extend(properties(&value["key"], &pair[0]).into_iter().map(Term::from));
                    into.push(Rule { terms, verdict: verdict(&pair[1]).unwrap_or_default() });
                }
                // A named map is not followed, and a packet that is not in a map continues.
                read.terms.push(Property::Unknown.into());
            }
            "counter" | "log" | "notrack" | "mangle" => {}
            _ => match verdict(statement) {
                Some(verdict) => read.verdict = verdict,
                None => read.terms.push(Property::Unknown.into()),
            },
        }
    }
    into.push(read);
}

fn verdict(statement: &Value) -> Option<Verdict> {
    let (kind, value) = statement.as_object()?.iter().next()?;
    let target = || value["target"].as_str().unwrap_or_default().to_owned();
    Some(match kind.as_str() {
        "accept" => Verdict::Accept,
        "drop" | "reject" => Verdict::Refuse,
        "return" => Verdict::Return,
        "continue" => Verdict::Other,
        "jump" => Verdict::Jump(target()),
        "goto" => Verdict::Goto(target()),
        _ => return None,
    })
}

fn terms(one: &Value) -> Vec<Term> {
    let properties = properties(&one["left"], &one["right"]);
    let negated = match one["op"].as_str() {
        Some("==" | "in") | None => false,
        // Only a single property can be negated, since a second one is a condition of the first.
        Some("!=") if properties.len() == 1 => true,
        Some(_) => return vec![Property::Unknown.into()],
    };
    properties.into_iter().map(|property| Term { negated, property }).collect()
}

/// Returns the properties that a packet has if `left` equals `right`.
fn properties(left: &Value, right: &Value) -> Vec<Property> {
    let mut words = Vec::new();
    if !collect(right, &mut words) {
        return vec![Property::Unknown];
    }
    let known = |property: Option<Property>| property.unwrap_or(Property::Unknown);
    let texts = || words.iter().map(Word::text).collect::<Option<Vec<_>>>();
    let names = || words.iter().map(Word::name).collect::<Option<Vec<_>>>();
    let protocols = || texts().map(|t| Property::Protocol(t.iter().map(|p| protocol(p)).collect()));
    let nets = || words.iter().map(Word::net).collect::<Option<Vec<_>>>();
    if let Some(key) = left["meta"]["key"].as_str() {
        return vec![known(match key {
            "iifname" | "iif" => names().map(Property::Arrives),
            "oifname" | "oif" => names().map(Property::Leaves),
            "l4proto" => protocols(),
            "nfproto" => match texts().unwrap_or_default().as_slice() {
                [one] if one == "ipv4" => Some(Property::Version(Version::V4)),
                [one] if one == "ipv6" => Some(Property::Version(Version::V6)),
                _ => None,
            },
            _ => None,
        })];
    }
    if left["ct"]["key"] == "state" {
        return vec![known(texts().map(Property::State))];
    }
    if left["ct"]["key"] == "status" && texts().is_some_and(|texts| texts == ["dnat"]) {
        return vec![known(texts().map(Property::State))];
    }
    if left["fib"]["result"] == "type" && left["fib"]["flags"].to_string().contains("daddr") {
        return vec![known(texts().map(Property::To))];
    }
    let payload = &left["payload"];
    let of = payload["protocol"].as_str().unwrap_or_default();
    let field = payload["field"].as_str().unwrap_or_default();
    let version = match of {
        "ip" => Some(Property::Version(Version::V4)),
        "ip6" => Some(Property::Version(Version::V6)),
        _ => None,
    };
    let ports = || words.iter().map(Word::port).collect::<Option<Vec<_>>>();
    let this = || Property::Protocol(vec![protocol(of)]);
    match (of, field) {
        ("ip" | "ip6", "saddr") => {
            version.into_iter().chain([known(nets().map(Property::Source))]).collect()
        }
        ("ip" | "ip6", "daddr") => {
            version.into_iter().chain([known(nets().map(Property::Destination))]).collect()
        }
        ("ip", "protocol") | ("ip6", "nexthdr") => {
            version.into_iter().chain([known(protocols())]).collect()
        }
        ("th", "dport") => vec![known(ports().map(Property::Port))],
        ("th", "sport") => vec![known(ports().map(Property::SourcePort))],
        ("tcp" | "udp", "sport") => vec![this(), known(ports().map(Property::SourcePort))],
        ("tcp" | "udp", "dport") => vec![this(), known(ports().map(Property::Port))],
        ("icmpv6", "type") => vec![this(), known(texts().map(Property::Icmpv6))],
        _ => vec![Property::Unknown],
    }
}

/// A value on the right side of a comparison.
enum Word {
    Text(String),
    Ports(RangeInclusive<u16>),
    Net(IpNet),
}

impl Word {
    fn text(&self) -> Option<String> {
        match self {
            Word::Text(text) => Some(text.clone()),
            Word::Ports(ports) if ports.start() == ports.end() => Some(ports.start().to_string()),
            _ => None,
        }
    }

    /// Returns the name of an interface. nft writes the number of an interface that is gone.
    fn name(&self) -> Option<String> {
        match self {
            Word::Text(name) => Some(name.clone()),
            Word::Ports(_) | Word::Net(_) => None,
        }
    }

    fn port(&self) -> Option<RangeInclusive<u16>> {
        match self {
            Word::Ports(ports) => Some(ports.clone()),
            _ => None,
        }
    }

    fn net(&self) -> Option<IpNet> {
        match self {
            Word::Net(net) => Some(*net),
            Word::Text(text) => text.parse::<std::net::IpAddr>().ok().map(IpNet::from),
            Word::Ports(_) => None,
        }
    }
}

/// Collects the values of a right side: one value, a list or a set. Returns false if a value is not
/// understood, such as the name of a set.
fn collect(value: &Value, into: &mut Vec<Word>) -> bool {
    let port = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok());
    match value {
        Value::String(text) if text.starts_with('@') => false,
        Value::String(text) => {
            into.push(Word::Text(text.clone()));
            true
        }
        Value::Number(_) => match port(value) {
            Some(n) => {
                into.push(Word::Ports(n..=n));
                true
            }
            None => false,
        },
        Value::Array(all) => all.iter().all(|one| collect(one, into)),
        Value::Object(object) => {
            if let Some(set) = object.get("set") {
                return collect(set, into);
            }
            if let Some(element) = object.get("elem") {
                return collect(&element["val"], into);
            }
            let range = || Some(port(&object.get("range")?[0])?..=port(&object.get("range")?[1])?);
            let prefix = || {
                let prefix = object.get("prefix")?;
                let address = prefix["addr"].as_str()?.parse().ok()?;
                IpNet::new(address, u8::try_from(prefix["len"].as_u64()?).ok()?).ok()
            };
            let word = range().map(Word::Ports).or_else(|| prefix().map(Word::Net));
            word.map(|word| into.push(word)).is_some()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// An interface can have the name 7, and nft writes 7 for an interface of this number that is
    /// gone.
    #[test]
    fn a_number_is_no_name_of_an_interface() {
        for key in ["iif", "oif", "iifname", "oifname"] {
            let left = json!({ "meta": { "key": key } });
            let of = |right: Value| properties(&left, &right);
            assert!(matches!(&of(json!(7))[..], [Property::Unknown]), "{key}");
            assert!(matches!(&of(json!({ "set": ["a", 7] }))[..], [Property::Unknown]), "{key}");
            for right in [json!("7"), json!({ "set": ["7"] })] {
                let found = of(right);
                let [Property::Arrives(names) | Property::Leaves(names)] = &found[..] else {
                    panic!("{key}: {found:?}");
                };
                assert_eq!(*names, ["7"], "{key}");
            }
        }
    }
}
