//! The frames that each rule of a port has counted.
//!
//! The rules of nftables are read by netlink, and have counters only with `enable_counters`. The
//! rules of ebtables, iptables and ip6tables always count. They are read through the tools' own
//! listings, so that the legacy variants give the same numbers, and each tool runs once for all
//! ports.
//!
//! A rule of a filter may be several rules of a tool, and rules of two tools: the sum counts. A
//! frame that a bridge floods passes iptables once for each of its copies.

use std::collections::BTreeMap;
use std::io;

use super::nft_rules::rules_of;
use super::port_counters::Count;
use super::port_iptables::Part;
use super::port_record::PortRecord;
use super::port_roles::{ChainRoles, PortRoles, RuleName, RuleRole, RuleTable};
use super::tools::{Tool, Tools};
use crate::types::error_text;

/// The counts of a port's rules, in the order in which the rules are tried.
pub type RuleCounts = Vec<(RuleName, Count)>;

/// The reason why the counters of a port's rules are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CountError {
    /// The rules were made without counters.
    #[error("they have no counters; set enable_counters = true, and reload the firewall rules")]
    Off,
    /// A chain in the kernel has other rules than the record.
    #[error("rules are missing in the chain {0}; reload the firewall rules")]
    Missing(String),
    /// The rules cannot be read.
    #[error("the kernel does not show them{}", if .0.raw_os_error() == Some(libc::EPERM) { "; run as root" } else { "" })]
    Kernel(#[source] io::Error),
    /// A tool of iptables failed, or its listing could not be read.
    #[error("{0}")]
    Tool(String),
}

/// The counters of each chain of one tool, in the order of its rules.
type Listing = BTreeMap<String, Vec<Count>>;

/// The counters of the tools of iptables that ports need.
#[derive(Debug, Default)]
pub struct RulesCounted(BTreeMap<RuleTable, Result<Listing, String>>);

impl RulesCounted {
    /// Runs the tools that these records need.
    pub async fn read(tools: &Tools, records: &[&PortRecord]) -> Self {
        let mut all = BTreeMap::new();
        for part in Part::ALL {
            let needs = |record: &&PortRecord| match record {
                PortRecord::Iptables { parts, .. } => parts.contains(&part),
                PortRecord::Nftables(_) => false,
            };
            if !records.iter().any(needs) {
                continue;
            }
            let listing = match part {
                Part::Ethernet => {
                    tools.run(Tool::ListEthernet, &[], "").await.map(|text| ethernet(&text))
                }
                Part::Ip(version) => {
                    tools.run(Tool::SaveCounters(version), &[], "").await.map(|text| saved(&text))
                }
            };
            let table = match part {
                Part::Ethernet => RuleTable::Ethernet,
                Part::Ip(version) => RuleTable::Filter(version),
            };
            all.insert(table, listing.map_err(|error| error_text(&error)));
        }
        RulesCounted(all)
    }

    /// Returns the counts of a port's rules.
    ///
    /// # Errors
    /// [`CountError`].
    pub fn of(&self, roles: &PortRoles) -> Result<RuleCounts, CountError> {
        let mut sums: BTreeMap<&RuleName, Count> = BTreeMap::new();
        for ((table, name), chain) in &roles.chains {
            let counts = self.chain(*table, name)?;
            // The kernel has no such rules if it has no ingress hooks, or no port refuses frames.
            if table.is_netdev() && counts.is_empty() && roles.is_on_bridge() {
                continue;
            }
            add(&mut sums, chain, &counts).ok_or_else(|| CountError::Missing(name.clone()))?;
        }
        let count = |rule: &RuleName| (rule.clone(), sums.get(rule).copied().unwrap_or_default());
        Ok(roles.rules.iter().map(count).collect())
    }

    /// Returns the counters of the rules of a chain.
    fn chain(&self, table: RuleTable, name: &str) -> Result<Vec<Count>, CountError> {
        match table {
            RuleTable::Bridge(_) | RuleTable::Netdev(_) => {
                let rules = rules_of(table, name).map_err(CountError::Kernel)?;
                // The end of a chain and jumps have no counter.
                Ok(rules.into_iter().map(|rule| rule.count.unwrap_or_default()).collect())
            }
            RuleTable::Ethernet | RuleTable::Filter(_) => match self.0.get(&table) {
                Some(Ok(listing)) => Ok(listing.get(name).cloned().unwrap_or_default()),
                Some(Err(why)) => Err(CountError::Tool(why.clone())),
                None => Ok(Vec::new()),
            },
        }
    }
}

/// Adds the counts of a chain's rules; `None` if the chain has another number of rules.
fn add<'a>(
    sums: &mut BTreeMap<&'a RuleName, Count>,
    chain: &'a ChainRoles,
    counts: &[Count],
) -> Option<()> {
    if chain.roles.len() != counts.len() {
        return None;
    }
    for (role, count) in chain.roles.iter().zip(counts) {
        let RuleRole::Rule(rule) = role else { continue };
        let sum = sums.entry(rule).or_default();
        sum.frames = sum.frames.saturating_add(count.frames);
        sum.bytes = sum.bytes.saturating_add(count.bytes);
    }
    Some(())
}

/// Reads `iptables-save -c`: lines of the form `[FRAMES:BYTES] -A CHAIN ...` in the table filter.
fn saved(text: &str) -> Listing {
    let mut chains = Listing::new();
    let mut filter = false;
    for line in text.lines() {
        if let Some(table) = line.strip_prefix('*') {
            filter = table.trim() == "filter";
        }
        let rule = || {
            let (numbers, rule) = line.strip_prefix('[')?.split_once("] -A ")?;
            let (frames, bytes) = numbers.split_once(':')?;
            let chain = rule.split(' ').next()?;
            Some((chain, Count { frames: frames.parse().ok()?, bytes: bytes.parse().ok()? }))
        };
        if let Some((chain, count)) = rule().filter(|_| filter) {
            chains.entry(chain.to_owned()).or_default().push(count);
        }
    }
    chains
}

/// Reads `ebtables -t nat -L --Lc`: a line `Bridge chain: CHAIN, ...` before the rules of a chain,
/// and at the end of each rule `, pcnt = FRAMES -- bcnt = BYTES`.
fn ethernet(text: &str) -> Listing {
    let mut chains = Listing::new();
    let mut chain = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("Bridge chain: ") {
            chain = rest.split_once(',').map(|(name, _)| name.to_owned());
        }
        let count = || {
            let (_, numbers) = line.rsplit_once(", pcnt = ")?;
            let (frames, bytes) = numbers.split_once(" -- bcnt = ")?;
            Some(Count { frames: frames.trim().parse().ok()?, bytes: bytes.trim().parse().ok()? })
        };
        if let (Some(chain), Some(count)) = (&chain, count()) {
            chains.entry(chain.clone()).or_default().push(count);
        }
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(listing: &Listing, chain: &str) -> Vec<(u64, u64)> {
        let counts = listing.get(chain).into_iter().flatten();
        counts.map(|count| (count.frames, count.bytes)).collect()
    }

    #[test]
    fn the_counters_of_iptables_are_read_from_its_table_filter() {
        let text = "# Generated by iptables-save v1.8.9 (nf_tables)
*nat
:nl-7:from - [0:0]
[9:9] -A nl-7:from -j DROP
COMMIT
*filter
:INPUT ACCEPT [4:5]
:nl-7:from - [0:0]
[2:120] -A nl-7:from -p udp -m comment --comment \"] -A nl-7:from\" -j DROP
[18446744073709551615:7] -A nl-7:from -j RETURN
[1:2] -A FORWARD -j NETLAUNCH_PORT_FROM
COMMIT
";
        let listing = saved(text);
        assert_eq!(counts(&listing, "nl-7:from"), [(2, 120), (u64::MAX, 7)]);
        assert_eq!(counts(&listing, "nl-8:from"), []);
        assert_eq!(saved("[a:b] -A x\n*filter\n[1] -A x\n"), Listing::new());
    }

    /// The first text is of the nf_tables variant 1.8.9, the second one of the legacy variant.
    #[test]
    fn the_counters_of_both_variants_of_ebtables_are_read() {
        for text in [
            "Bridge table: nat

Bridge chain: nl-7:from, entries: 2, policy: RETURN
-s 52:54:00:11:22:33 -j ACCEPT , pcnt = 3 -- bcnt = 138
-p ARP -j DROP , pcnt = 0 -- bcnt = 0
",
            "Bridge table: nat

Bridge chain: nl-7:from, entries: 2, policy: RETURN
-s 52:54:0:11:22:33 -j ACCEPT , pcnt = 3 -- bcnt = 138
-p ARP -j DROP , pcnt = 0 -- bcnt = 0

Bridge chain: others, entries: 1, policy: RETURN
-j DROP , pcnt = 7 -- bcnt = 8
",
        ] {
            assert_eq!(counts(&ethernet(text), "nl-7:from"), [(3, 138), (0, 0)]);
        }
        assert_eq!(ethernet("-j DROP , pcnt = 7 -- bcnt = 8\n"), Listing::new());
    }
}
