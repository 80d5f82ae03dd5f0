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

/// Returns a ruleset without the marks of nft's last transactions, which stay for two minutes.
pub fn without_marks(saved: &str) -> String {
    const MARKS: &str = "set transactions {";
    if !saved.contains(MARKS) {
        return saved.to_owned();
    }
    let (mut kept, mut lines) = (String::new(), saved.lines().peekable());
    while let Some(line) = lines.next() {
        if line.trim() == MARKS {
            lines.by_ref().find(|line| line.trim() == "}");
            lines.next_if_eq(&"");
        } else {
            kept += &format!("{line}\n");
        }
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
