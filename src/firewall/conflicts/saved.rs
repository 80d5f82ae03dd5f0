//! Parses the output of the `iptables-save` family.
//!
//! A match that this module does not know becomes an unknown property, which never holds for
//! certain. The table nat is left out, since it sees only the first packet of a connection.

use std::ops::RangeInclusive;

use super::chains::{Chain, Hook, Property, Rule, Table, TableId, Term, Verdict};
use crate::firewall::rules::Version;

/// Returns whether the tool that printed this keeps its tables in nftables, and has this table
/// there.
pub(super) fn is_kept_in_nftables(saved: &str, table: &str) -> bool {
    let head = format!("*{table}");
    let nft = saved.lines().any(|line| line.starts_with('#') && line.contains("(nf_tables)"));
    nft && saved.lines().any(|line| line == head)
}

/// Returns the tables that can refuse: all but nat, which sees only the first packet of a
/// connection.
pub(super) fn tables(tool: &'static str, version: Version, saved: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut open = false;
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            open = name != "nat";
            if open {
                let id = TableId::Iptables { tool, version, table: name.to_owned() };
                tables.push(Table { id, chains: Vec::new() });
            }
        }
        let Some(table) = tables.last_mut().filter(|_| open) else { continue };
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            let name = words.next().unwrap_or_default().to_owned();
            let hook = match name.as_str() {
                "FORWARD" => Some(Hook::Forward),
                "INPUT" => Some(Hook::Input),
                "OUTPUT" => Some(Hook::Output),
                _ => None,
            };
            let drops = words.next() == Some("DROP");
            table.chains.push(Chain { name, hook, drops, rules: Vec::new() });
        } else if let Some((name, text)) = line.strip_prefix("-A ").and_then(|l| l.split_once(' '))
            && let Some(chain) = table.chains.iter_mut().find(|chain| chain.name == name)
        {
            chain.rules.push(rule(text));
        }
    }
    tables
}

/// Parses a rule in the form that follows `-A CHAIN `.
fn rule(text: &str) -> Rule {
    let Ok(words) = shell_words::split(text) else {
        return Rule { terms: vec![Property::Unknown.into()], verdict: Verdict::Other };
    };
    let mut rule = Rule::default();
    let mut words = words.iter().map(String::as_str);
    let mut negated = false;
    while let Some(word) = words.next() {
        let property = match word {
            "!" => {
                negated = true;
                continue;
            }
            "-j" | "-g" => {
                rule.verdict = verdict(word, words.next().unwrap_or_default());
                // The remaining words are options of the target.
                return rule;
            }
            // The options of the module follow, or the module only repeats the protocol.
            "-m" if !negated => {
                words.next();
                continue;
            }
            "--comment" => {
                words.next();
                continue;
            }
            "-i" => Property::Arrives(list(words.next())),
            "-o" => Property::Leaves(list(words.next())),
            "-p" => Property::Protocol(list(words.next()).iter().map(|p| protocol(p)).collect()),
            "-s" => nets(words.next()).map_or(Property::Unknown, Property::Source),
            "-d" => nets(words.next()).map_or(Property::Unknown, Property::Destination),
            "--ctstate" | "--state" => Property::State(list(words.next())),
            "--dport" | "--dports" => ports(words.next()).map_or(Property::Unknown, Property::Port),
            "--sport" | "--sports" => {
                ports(words.next()).map_or(Property::Unknown, Property::SourcePort)
            }
            "--dst-type" => Property::To(list(words.next())),
            "--icmpv6-type" => Property::Icmpv6(list(words.next())),
            _ => Property::Unknown,
        };
        rule.terms.push(Term { negated, property });
        negated = false;
    }
    rule
}

fn verdict(how: &str, target: &str) -> Verdict {
    match (target, how) {
        ("ACCEPT", _) => Verdict::Accept,
        ("DROP" | "REJECT", _) => Verdict::Refuse,
        ("RETURN", _) => Verdict::Return,
        (to, "-g") => Verdict::Goto(to.to_owned()),
        // LOG, MARK and similar targets are not chains, so a jump to them has no effect.
        (to, _) => Verdict::Jump(to.to_owned()),
    }
}

fn list(word: Option<&str>) -> Vec<String> {
    word.unwrap_or_default().split(',').map(str::to_owned).collect()
}

/// Returns the name that this module uses for a protocol.
pub(super) fn protocol(name: &str) -> String {
    match name {
        "6" => "tcp",
        "17" => "udp",
        "58" | "ipv6-icmp" | "icmp6" => "icmpv6",
        other => other,
    }
    .to_owned()
}

fn nets(word: Option<&str>) -> Option<Vec<ipnet::IpNet>> {
    Some(vec![word?.parse().ok()?])
}

fn ports(word: Option<&str>) -> Option<Vec<RangeInclusive<u16>>> {
    word?
        .split(',')
        .map(|range| {
            let (first, last) = range.split_once(':').unwrap_or((range, range));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .collect()
}
