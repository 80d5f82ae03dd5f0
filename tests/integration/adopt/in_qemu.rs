//! Starts QEMU with the command lines of the corpus, stopped and without their disks, before and
//! after the adoption: the cards have the same models, MAC addresses and slots, and the networks
//! the same ids.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use netlaunch::launcher::qemu_options::CommandLine;

use super::corpus::cases;
use crate::common::{Netns, have_root, text};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const QUESTIONS: &str = "info network\ninfo pci\nquit\n";

/// The options that decide about the network. The others do not change between the two lines, and
/// many name files that are not here.
fn network_options(words: &[OsString]) -> Vec<OsString> {
    let line = CommandLine::parse(words);
    let kept = line.arguments().iter().filter(|argument| match argument.name.as_deref() {
        Some("netdev" | "nic" | "net" | "set" | "global" | "nodefaults") => true,
        Some("machine") => true,
        Some("device") => {
            let value = line.value(argument).unwrap_or_default().to_string_lossy();
            value.contains("netdev") || value.contains("pcie-root-port")
        }
        _ => false,
    });
    kept.flat_map(|argument| line.words_of(argument).to_vec()).collect()
}

/// A guest's cards and networks, as QEMU's monitor shows them.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    /// Name, model and MAC address of each card.
    cards: Vec<String>,
    /// Bus, slot and PCI id of each card.
    slots: Vec<String>,
    /// The ids of the caller that are ids of networks.
    ids: Vec<String>,
}

/// Starts QEMU with these words; `None` if it refuses them.
fn shown(netns: &Netns, words: &[OsString], ids: &[String]) -> Option<Shown> {
    let fixed = ["-display", "none", "-S", "-monitor", "stdio"].map(OsString::from);
    let output = netns.inside(|| {
        let mut child = Command::new(QEMU)
            .args(words)
            .args(fixed)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A QEMU that refuses the line has closed its end.
        let _ = child.stdin.take().unwrap().write_all(QUESTIONS.as_bytes());
        child.wait_with_output().unwrap()
    });
    if !output.status.success() {
        return None;
    }
    let said = text(&output.stdout);
    let networks = said.split("info pci").next().unwrap();
    let member = |line: &str| line.trim().trim_start_matches("\\ ").to_owned();
    let cards = networks.lines().filter(|line| line.contains("type=nic")).map(|line| {
        let line = member(line);
        // On a hub, the name of the port stands in front.
        let from = line.find(": index=").unwrap();
        let start = line[..from].rfind(' ').map_or(0, |at| at + 1);
        line[start..].to_owned()
    });
    let mut cards: Vec<String> = cards.collect();
    cards.sort();
    let mut bus = "";
    let mut slots = Vec::new();
    for line in said.lines() {
        match line.trim() {
            line if line.starts_with("Bus") => bus = line,
            line if line.starts_with("Ethernet controller") => slots.push(format!("{bus} {line}")),
            _ => {}
        }
    }
    let is_network = |id: &&String| networks.contains(&format!("{id}: index="));
    let ids = ids.iter().filter(is_network).cloned().collect();
    Some(Shown { cards, slots, ids })
}

/// Returns whether QEMU is to use a descriptor of its caller. The test has none, so another one of
/// QEMU's own could have that number.
fn names_descriptor(words: &[OsString]) -> bool {
    words.iter().any(|word| word.to_string_lossy().split(',').any(|part| part.starts_with("fd=")))
}

#[test]
fn qemu_shows_the_same_cards_slots_addresses_and_ids() {
    if !have_root("qemu_shows_the_same_cards_slots_addresses_and_ids") {
        return;
    }
    let netns = Netns::routed();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut count = 0;
    for case in cases() {
        let adopted = case.adopted(&socket);
        let emulator = OsStr::new(&adopted.program).to_string_lossy().into_owned();
        let is_pc = ["x86_64", "kvm", "i386"].iter().any(|end| emulator.ends_with(end));
        let [before, after] = [&adopted.before, &adopted.after].map(|words| network_options(words));
        if !is_pc || before == after || names_descriptor(&before) {
            continue;
        }
        let line = CommandLine::parse(&adopted.before);
        let settings = line.settings(&[]);
        let named = ["netdev", "nic", "net"].into_iter().flat_map(|group| settings.of_group(group));
        let named = named.filter_map(|setting| setting.parameters.get("id"));
        let ids: Vec<_> = named.map(|id| String::from_utf8(id.to_vec()).unwrap()).collect();
        let Some(expected) = shown(&netns, &before, &ids) else { continue };
        assert_eq!(shown(&netns, &after, &ids), Some(expected), "{before:?}\n{after:?}");
        count += 1;
        // The ends of ended programs would fill the listener's queue.
        while listener.accept().is_ok() {}
    }
    eprintln!("{count} command lines show the same cards and networks in QEMU");
    assert!(count >= 60, "{count} command lines");
}
