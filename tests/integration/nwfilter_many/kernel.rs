//! Reads the rules of ports from the kernel, in a form that does not depend on the order in which
//! the ports were bound.
//!
//! It groups rules by the name of their chain. It sorts the rules that lead to the ports' chains,
//! because each frame takes only one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

/// The rules of each chain, by the full name of the chain.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kernel(BTreeMap<String, Vec<String>>);

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (chain, rules) in &self.0 {
            writeln!(f, "{chain}")?;
            for rule in rules {
                writeln!(f, "    {rule}")?;
            }
        }
        Ok(())
    }
}

/// Lists the rules with the tools of the backend. `sh` runs a shell line and returns its output.
pub fn rules_of(backend: &str, sh: impl Fn(&str) -> String) -> Kernel {
    let mut kernel = Kernel::default();
    if backend == "nftables" {
        kernel.nft(&sh("nft -j -s list table bridge netlaunch_nwfilter"));
    } else {
        for tool in ["ebtables", "iptables", "ip6tables"] {
            kernel.saved(tool, &sh(&format!("{tool}-save")));
        }
    }
    kernel
}

impl Kernel {
    fn nft(&mut self, json: &str) {
        let listed: Value = serde_json::from_str(json).unwrap();
        for object in listed["nftables"].as_array().unwrap() {
            let (kind, fields) = object.as_object().unwrap().iter().next().unwrap();
            let mut fields = fields.clone();
            let name = |of: &str| format!("{of} {}", fields[of].as_str().unwrap());
            match kind.as_str() {
                "rule" => {
                    let name = name("chain");
                    fields.as_object_mut().unwrap().remove("handle");
                    self.0.entry(name).or_default().push(fields.to_string());
                }
                // The marks of transactions.
                "set" if fields["name"] == "transactions" => {}
                "map" | "set" => {
                    let name = format!("{kind} {}", fields["name"].as_str().unwrap());
                    let elements = fields["elem"].as_array().cloned().unwrap_or_default();
                    let mut lines: Vec<_> = elements.iter().map(Value::to_string).collect();
                    lines.sort();
                    self.0.insert(name, lines);
                }
                "chain" => {
                    let name = format!("chain {}", fields["name"].as_str().unwrap());
                    self.0.entry(name).or_default();
                }
                _ => {}
            }
        }
    }

    fn saved(&mut self, tool: &str, saved: &str) {
        let mut table = "";
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if let Some(rest) = line.strip_prefix(':') {
                let chain = rest.split(' ').next().unwrap();
                self.0.entry(format!("{tool} {table} chain {chain}")).or_default();
            } else if let Some((chain, rule)) =
                line.strip_prefix("-A ").and_then(|rest| rest.split_once(' '))
            {
                let name = format!("{tool} {table} chain {chain}");
                self.0.entry(name).or_default().push(rule.to_owned());
            }
        }
        for (name, rules) in &mut self.0 {
            if name.contains(" NETLAUNCH_") {
                rules.sort();
            }
        }
    }

    /// Returns the interface numbers of the ports that have a chain.
    pub fn owners(&self) -> BTreeSet<u64> {
        self.0.keys().filter_map(|name| number(name.split(' ').next_back()?)).collect()
    }

    /// Returns the interface numbers of the ports to whose chains the base chains lead.
    pub fn led_to(&self) -> BTreeSet<u64> {
        let leads = |name: &str| name.starts_with("map ") || name.contains(" NETLAUNCH_");
        let lines = self.0.iter().filter(|(name, _)| leads(name)).flat_map(|(_, lines)| lines);
        lines.flat_map(|line| line.split([' ', '"']).filter_map(number)).collect()
    }
}

/// Returns the interface number in the name of a port's chain, such as p7-from or nl-7:from.
fn number(chain: &str) -> Option<u64> {
    let (rest, end) = match chain.strip_prefix("nl-") {
        Some(rest) => (rest, ':'),
        None => (chain.strip_prefix('p')?, '-'),
    };
    rest.split_once(end)?.0.parse().ok()
}
