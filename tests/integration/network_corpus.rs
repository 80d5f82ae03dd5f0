//! Tests documents in the shapes of vagrant-libvirt, metal3, OpenShift, terraform, kcli, homelab
//! guides and libvirt's documentation (`tests/fixtures/networks-corpus`, the project's own text).
//!
//! `expected.txt` has one line for each document: `accepted`, or the line that refuses it.
//! NETLAUNCH_TEST_BLESS=1 writes it again. The accepted documents are started and ended in network
//! namespaces, in batches that run side by side.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::definitions::{Host, complaint};
use crate::common::network_host::NetworkHost;
use crate::common::{Netns, have_root, rng};
use serde_json::Value;

/// Documents that are accepted and do not start in the test's namespace, each with words of the
/// reason.
const NOT_STARTED: &[(&str, &str)] = &[("homelab-zone", "firewalld does not run")];

/// Documents that start only on kernels with bridges that filter VLANs.
const WITH_VLANS: &[&str] = &["homelab-vlan-nat"];

const BATCHES: usize = 4;

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/networks-corpus")
}

/// The names of the documents, in their order.
fn documents() -> Vec<String> {
    let files = fs::read_dir(dir()).unwrap().map(|entry| entry.unwrap().path());
    let xml = files.filter(|path| path.extension().is_some_and(|extension| extension == "xml"));
    let mut names: Vec<_> =
        xml.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Returns the name of the network in a document that was accepted.
fn network_name(text: &str) -> &str {
    text.split_once("<name>").unwrap().1.split_once("</name>").unwrap().0
}

#[test]
fn each_document_is_accepted_or_refused_with_the_expected_line() {
    let (mut found, mut dumps) = (String::new(), Vec::new());
    let names = documents();
    assert!(names.len() >= 100, "{} documents", names.len());
    for name in &names {
        let host = Host::of("network");
        let path = dir().join(format!("{name}.xml"));
        let output = host.command("define").arg(&path).output().unwrap();
        if !output.status.success() {
            let line = complaint(&output, 2);
            let place = format!("{}:", path.display());
            found.push_str(&format!("{name}: {}\n", line.trim_start_matches(&place)));
            continue;
        }
        found.push_str(&format!("{name}: accepted\n"));
        let text = fs::read_to_string(&path).unwrap();
        let network = network_name(&text);
        let dump = host.good(&format!("dumpxml {network}"));
        host.good(&format!("define {}", host.file("dump.xml", &dump)));
        assert_eq!(host.good(&format!("dumpxml {network}")), dump, "{name}");
        host.good(&format!("undefine {network}"));
        host.good(&format!("define {}", host.file("dump.xml", &dump)));
        assert_eq!(host.good(&format!("dumpxml {network}")), dump, "{name}");
        dumps.push(dump);
    }
    let expected = dir().join("expected.txt");
    if std::env::var_os("NETLAUNCH_TEST_BLESS").is_some() {
        fs::write(&expected, &found).unwrap();
    }
    assert_eq!(found, fs::read_to_string(&expected).unwrap());
    rng::accepted("network.rng", &dumps);
}

/// The parts that libvirt keeps are in the definition, too.
#[test]
fn a_definition_keeps_the_parts_that_libvirt_keeps() {
    for (name, kept) in [
        ("kcli-default", &["<kvirt:plan>kvirt</kvirt:plan>"][..]),
        ("doc-title", &["<title>A lab</title>", "    Guests of the build farm.\n", "app2:bar"]),
        (
            "export-namespace-on-root",
            &[
                "<tool:owner team='ci' tool:since='2021' xmlns:tool='urn:example:tool'/>",
                "&lt;do not touch&gt; &lt;b&gt;really&lt;/b&gt;</tool:note>",
            ],
        ),
        ("export-other-prefix", &["xmlns:dnsmasq=", "<dnsmasq:option value='bogus-priv'/>"]),
        ("export-default-namespace", &["<dnsmasq:option value='stop-dns-rebind'/>"]),
        ("homelab-nat-two-uplinks", &["<forward dev='eth0' mode='nat'>", "dev='wlan0'"]),
        ("homelab-bridge-mac-table", &["<bridge name='br0' macTableManager='kernel'/>"]),
        ("homelab-bridge-isolated-ports", &["<port isolated='yes'/>"]),
        ("doc-connections", &["<network trustGuestRxFilters='yes'>", "<interface dev='eth0'/>"]),
        ("doc-portgroups", &["<portgroup name='sales' trustGuestRxFilters='no'>", "burst='2560'"]),
        ("terraform-forward-port", &["<forwarder addr='127.0.0.1' port='5335'/>"]),
        ("export-crlf", &["<description>line one\nline two</description>"]),
    ] {
        let host = Host::of("network");
        let path = dir().join(format!("{name}.xml"));
        assert!(host.command("define").arg(&path).output().unwrap().status.success(), "{name}");
        let text = fs::read_to_string(&path).unwrap();
        let dump = host.good(&format!("dumpxml {}", network_name(&text)));
        for part in kept {
            assert!(dump.contains(part), "{name}: {part}\n{dump}");
        }
    }
}

/// Starts and ends the accepted documents whose number modulo [`BATCHES`] is `batch`.
fn starts_and_ends(batch: usize) {
    if !have_root("starts_and_ends") {
        return;
    }
    let expected = fs::read_to_string(dir().join("expected.txt")).unwrap();
    let accepted = expected.lines().filter_map(|line| line.strip_suffix(": accepted"));
    let mine: Vec<&str> = accepted.skip(batch).step_by(BATCHES).collect();
    assert!(!mine.is_empty());
    let host = NetworkHost::new("");
    fs::remove_file(host.sandbox.path("config/networks/lab.xml")).unwrap();
    let before = host.state();
    for document in mine {
        let path = dir().join(format!("{document}.xml"));
        let text = fs::read_to_string(&path).unwrap();
        let network = network_name(&text);
        host.good(&format!("network define {}", path.display()));
        let dump = host.good(&format!("network dumpxml {network}"));
        let existing = dump.contains("mode='bridge'").then(|| {
            let name = dump.split_once("<bridge name='").unwrap().1.split_once('\'').unwrap().0;
            host.sh(&format!("ip link add '{name}' type bridge; ip link set '{name}' up"));
            name.to_owned()
        });
        let start = format!("network start {network}");
        let no_vlans = WITH_VLANS.contains(&document) && !Netns::filters_vlans();
        let no_vlans = no_vlans.then_some("this kernel has no bridges that filter VLANs");
        let not_started = NOT_STARTED.iter().find(|(name, _)| *name == document);
        match not_started.map(|(_, reason)| *reason).or(no_vlans) {
            Some(reason) => {
                let said = host.bad(&start, 125);
                assert!(said.contains(reason), "{document}: {said}");
            }
            None => {
                host.good(&start);
                let value: Value = serde_json::from_str(&host.good("network list --json")).unwrap();
                let networks = value["networks"].as_array().unwrap();
                let listed = networks.iter().find(|one| one["name"] == *network).unwrap();
                assert_eq!(listed["state"], "active", "{document}");
                assert_eq!(listed["faults"], serde_json::json!([]), "{document}");
                host.good(&format!("network destroy {network}"));
            }
        }
        if let Some(bridge) = existing {
            host.sh(&format!("ip link delete '{bridge}'"));
        }
        // The built-in network has no definition of its own to remove.
        host.good(&format!("network undefine {network}"));
    }
    assert_eq!(host.state(), before);
}

#[test]
fn each_accepted_document_starts_and_ends_first_batch() {
    starts_and_ends(0);
}

#[test]
fn each_accepted_document_starts_and_ends_second_batch() {
    starts_and_ends(1);
}

#[test]
fn each_accepted_document_starts_and_ends_third_batch() {
    starts_and_ends(2);
}

#[test]
fn each_accepted_document_starts_and_ends_fourth_batch() {
    starts_and_ends(3);
}
