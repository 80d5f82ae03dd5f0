//! The whole firewall of a namespace, with the rules of all programs.

use super::{Netns, run, text};

/// Every rule of nft's, iptables' and ebtables', packets they counted aside.
pub fn ruleset(netns: &Netns) -> String {
    let save = |tool: &str| {
        let argv = [&["netns", "exec", &netns.name][..], &tool.split(' ').collect::<Vec<_>>()];
        let output = run("ip", &argv.concat());
        assert!(output.status.success(), "{tool}: {}", text(&output.stderr));
        let saved = without_marks(&text(&output.stdout));
        let kept = saved.lines().filter(|line| !line.starts_with('#'));
        kept.map(|line| without_counts(line) + "\n").collect()
    };
    let parts: [String; 4] =
        ["nft list ruleset", "iptables-save", "ip6tables-save", "ebtables-save"].map(save);
    parts.concat()
}

/// A ruleset without the set of nft's last transactions, which a killed netlaunch leaves for two
/// minutes.
fn without_marks(saved: &str) -> String {
    let (mut kept, mut in_set) = (String::new(), false);
    for line in saved.lines() {
        in_set |= line.trim() == "set transactions {";
        if !in_set {
            kept += &format!("{line}\n");
        }
        // The blank line behind it goes, too.
        in_set &= !line.is_empty();
    }
    kept
}

/// A line of a ruleset without what its counter counted.
fn without_counts(line: &str) -> String {
    let line = line.split(" [").next().unwrap_or_default();
    let mut words: Vec<&str> = line.split(' ').collect();
    for at in 1..words.len() {
        if ["packets", "bytes"].contains(&words[at - 1].trim_start()) {
            words[at] = "N";
        }
    }
    words.join(" ")
}
