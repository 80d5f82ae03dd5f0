//! Names the kernel feature that a refused statement needs.
//!
//! nft itself reports a missing feature only as "No such file or directory" or "Protocol
//! error". So the feature is guessed from the statement that nft refused. A statement that no
//! known feature explains gives no name.

use super::Families;

/// A missing feature of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissingKernelFeature {
    /// Connection tracking in the bridge family.
    BridgeConntrack,
    /// The names of bridges in rules.
    BridgeNames,
    /// Another feature: its effect as a verb phrase, and its name in the kernel's configuration.
    Other(&'static str, &'static str),
}

/// The option for filters on the hooks of interfaces.
pub const INTERFACES: &str = "CONFIG_NF_TABLES_NETDEV";
/// The option for the egress hook, which only ports without a bridge need.
pub const EGRESS: &str = "CONFIG_NETFILTER_EGRESS, since Linux 5.16";

/// Returns the kernel feature that is missing for the statement that nft refused at `line` with the
/// message `said`; `None` if the cause is not a known missing feature.
pub fn missing_feature(line: &str, said: &str) -> Option<MissingKernelFeature> {
    const MISSING: [&str; 4] = [
        "No such file or directory",
        "Protocol error",
        "Operation not supported",
        "Address family not supported by protocol",
    ];
    if !MISSING.iter().any(|words| said.contains(words)) {
        return None;
    }
    // Text within quotation marks comes from the user and is not a statement.
    let statements: Vec<&str> = line.split('"').step_by(2).collect();
    let has = |words: &[&str]| {
        words.iter().any(|word| statements.iter().any(|statement| statement.contains(word)))
    };
    // For a rule that counts connections, the kernel tries connection tracking first.
    if has(&["ct count"]) && said.contains("No such file or directory") {
        return Some(MissingKernelFeature::Other("count connections", "CONFIG_NFT_CONNLIMIT"));
    }
    if has(&["ct state", "ct direction", "ct count"]) {
        return Some(MissingKernelFeature::BridgeConntrack);
    }
    let parts: [(&[&str], MissingKernelFeature); 7] = [
        (
            &["add table bridge"],
            MissingKernelFeature::Other("filter on bridges", "CONFIG_NF_TABLES_BRIDGE"),
        ),
        (&[Families::NETDEV], MissingKernelFeature::Other("filter on interfaces", INTERFACES)),
        (
            &["hook egress"],
            MissingKernelFeature::Other("filter the frames that an interface sends", EGRESS),
        ),
        (&["reject"], MissingKernelFeature::Other("answer on bridges", "CONFIG_NFT_BRIDGE_REJECT")),
        (&["meta ibrname ", "meta obrname "], MissingKernelFeature::BridgeNames),
        (
            &["counter name "],
            MissingKernelFeature::Other("count in named counters", "CONFIG_NFT_OBJREF"),
        ),
        (
            &["frag ", "exthdr "],
            MissingKernelFeature::Other("read extension headers", "CONFIG_NFT_EXTHDR"),
        ),
    ];
    parts.into_iter().find(|(words, _)| has(words)).map(|(_, lack)| lack)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABSENT: &str = "Error: Could not process rule: No such file or directory";
    const PROTOCOL: &str = "Error: Could not process rule: Protocol error";

    #[test]
    fn a_refused_statement_names_the_part_of_the_kernel_that_it_needs() {
        let part = |line, said| match missing_feature(line, said) {
            Some(MissingKernelFeature::Other(_, option)) => Some(option),
            Some(MissingKernelFeature::BridgeConntrack) => Some("conntrack"),
            Some(MissingKernelFeature::BridgeNames) => Some("bridge names"),
            None => None,
        };
        for (line, said, expected) in [
            ("meta l4proto 6 ct state new drop", PROTOCOL, Some("conntrack")),
            ("ct direction reply ct state established accept", PROTOCOL, Some("conntrack")),
            ("ct state new counter reject", PROTOCOL, Some("conntrack")),
            ("add @c1 { ip saddr ct count over 2 } drop", PROTOCOL, Some("conntrack")),
            ("add @c1 { ip saddr ct count over 2 } drop", ABSENT, Some("CONFIG_NFT_CONNLIMIT")),
            ("add table bridge netlaunch_nwfilter", ABSENT, Some("CONFIG_NF_TABLES_BRIDGE")),
            ("exthdr frag missing meta l4proto 17 drop", ABSENT, Some("CONFIG_NFT_EXTHDR")),
            (Families::NETDEV, "Operation not supported", Some(INTERFACES)),
            (
                "add chain netdev t c { type filter hook egress device \"m0\" priority 0; }",
                "Operation not supported",
                Some(EGRESS),
            ),
            ("iifname \"a\" meta ibrname \"br0\" drop", ABSENT, Some("bridge names")),
            // A word in the user's comment is not a statement.
            ("meta l4proto 6 drop comment \"ct state\"", ABSENT, None),
            ("meta l4proto 6 ct state new drop", "Error: syntax error", None),
        ] {
            assert_eq!(part(line, said), expected, "{line}: {said}");
        }
    }
}
