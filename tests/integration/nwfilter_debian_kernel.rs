//! Filters with connection tracking on nftables, on Debian's kernel, which has it for bridges: the
//! conformance run of ../shared in the test host (tests/guest/host). Where that is not there, the
//! reason is printed.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{have_root, start, text};
use serde_json::Value;

/// How long the test host may take on a busy machine; it ends itself before.
const LIMIT: Duration = Duration::from_secs(1500);
const HOST_LIMIT: &str = "1400";

/// The release binary, which tests/run builds: the test host reads it through a slow share.
fn netlaunch() -> PathBuf {
    let debug = Path::new(env!("CARGO_BIN_EXE_netlaunch"));
    let release = debug.ancestors().nth(2).unwrap().join("release/netlaunch");
    if release.exists() { release } else { debug.to_owned() }
}

/// Whether the kernel's defragmentation explains a difference: where it tracks connections of
/// bridges, it collects the fragments of both IP versions, keeps those of a packet that never
/// becomes whole, and drops IPv6 packets that came in fragments of less than 1,280 bytes
/// (br_ip6_fragment()). The reference's kernel part for iptables does that for one IP version at a
/// time, and lets small fragments out again.
fn is_fragment(difference: &Value) -> bool {
    let text = difference["text"].as_str().unwrap();
    difference["expected"] == "pass" && difference["got"] == "drop" && text.contains("frag off")
}

/// The command that runs what is added to it in the test host, if that was built.
fn test_host(test: &str) -> Option<Command> {
    let guest = std::env::var_os("NETLAUNCH_TEST_GUEST")
        .map_or_else(|| "/var/cache/netlaunch-tests/guest".into(), PathBuf::from);
    if !guest.join("host-initrd.gz").exists() {
        eprintln!(
            "skipped {test}: no test host in {} (run ./tests/setup --guest)",
            guest.display()
        );
        return None;
    }
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/host"));
    command
        .args(["--timeout", HOST_LIMIT, "--"])
        .env("NETLAUNCH_TEST_GUEST", guest)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Some(command)
}

/// The newest binary of another test, which the same build made.
fn sibling(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let is_its = |path: &PathBuf| {
        let file = path.file_name().unwrap().to_string_lossy();
        file.strip_prefix(name).is_some_and(|rest| rest.starts_with('-') && !rest.contains('.'))
    };
    let all = std::fs::read_dir(own.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    all.filter(is_its).max_by_key(|path| path.metadata().and_then(|m| m.modified()).ok())
}

/// The tests of libvirt's defects, whose stateful halves on nftables can show here what they only
/// refuse elsewhere.
#[test]
fn defects_of_stateful_filters_are_not_ours() {
    let test = "defects_of_stateful_filters_are_not_ours";
    if !have_root(test) {
        return;
    }
    let Some(mut command) = test_host(test) else { return };
    let Some(defects) = sibling("nwfilter_defects") else {
        eprintln!("skipped {test}: the test nwfilter_defects is not built (build all tests)");
        return;
    };
    command.arg(defects).args(["--test-threads", "2"]);
    let output = start(command).output(LIMIT);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("11 passed; 0 failed"), "{said}");
}

#[test]
fn stateful_filters_on_nftables_let_through_what_the_reference_does() {
    let test = "stateful_filters_on_nftables_let_through_what_the_reference_does";
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/run.py");
    if !have_root(test) {
        return;
    }
    let Ok(run) = run.canonicalize() else {
        eprintln!("skipped {test}: there is no {}", run.display());
        return;
    };
    let Some(mut command) = test_host(test) else { return };
    command
        .args(["python3", "-B"])
        .arg(run)
        .args(["--json", "--after-delete", "--backend", "nftables", "--netlaunch"])
        .arg(netlaunch());
    let output = start(command).output(LIMIT);
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", output.status, text(&output.stderr)));
    let results = report["results"].as_array().unwrap();
    let count = |field: &str| results.iter().map(|r| r[field].as_u64().unwrap()).sum::<u64>();

    let (mut fragments, mut wrong) = (0, Vec::new());
    for result in results {
        let differences = result["differences"].as_array().unwrap();
        let (known, unknown): (Vec<_>, Vec<_>) = differences.iter().partition(|d| is_fragment(d));
        fragments += known.len();
        let name = &result["name"];
        wrong.extend(unknown.iter().map(|difference| format!("{name}: {difference}")));
        if result["message"] != "" && result.get("expect_error").is_none() {
            let refused = result["message"].as_str().unwrap().starts_with("refused, as");
            if !refused {
                wrong.push(format!("{name}: {}", result["message"]));
            }
        }
    }
    println!(
        "{} cases, {} of {} frames as in the reference, {fragments} fragments that this kernel's \
         defragmentation keeps",
        results.len(),
        count("same"),
        count("total")
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(report["skipped"], 0, "the kernel has what stateful filters need");
    assert!(count("total") > 40_000 && count("total") - count("same") == fragments as u64);
}

/// The kernel's spanning tree hears BPDUs in the initial network namespace alone.
const ROOT_GUARD: &str = r#"
set -e
export NETLAUNCH_CONFIG_DIR=/run/c NETLAUNCH_STATE_DIR=/run/s
ip link add br0 type bridge stp_state 1
ip link add vnet0 type veth peer name vm
ip link set vnet0 master br0
for link in br0 vnet0 vm; do ip link set $link up; done
bpdu() {
    python3 -c 'import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
s.bind(("vm", 0))
mac = bytes.fromhex("525400112233")
own = bytes(2) + mac
body = bytes.fromhex("00264242030000000000") + own + bytes(4) + own + bytes.fromhex("8001000014000200 0f00")
s.send(bytes.fromhex("0180c2000000") + mac + body + bytes(8))'
    sleep 1
    echo "$1 $(cat /sys/class/net/br0/bridge/root_id)"
}
bpdu unfiltered
ip link set vnet0 down
ip link set vnet0 up
echo "<filterbinding><owner><name>t</name><uuid>7b2f9b5e-1c9f-4c0b-8d57-1f8f0a5d0c11</uuid></owner><portdev name='vnet0'/><mac address='52:54:00:11:22:33'/><filterref filter='clean-traffic'><parameter name='IP' value='10.0.0.1'/></filterref></filterbinding>" > /run/b.xml
"$1" nwfilter binding-create /run/b.xml
bpdu filtered
"$1" nwfilter binding-delete vnet0
nft list tables
echo end
"#;

#[test]
fn a_filtered_guest_does_not_become_the_root_of_the_spanning_tree() {
    let test = "a_filtered_guest_does_not_become_the_root_of_the_spanning_tree";
    if !have_root(test) {
        return;
    }
    let Some(mut command) = test_host(test) else { return };
    command.args(["bash", "-c", ROOT_GUARD, "bash"]).arg(netlaunch());
    let output = start(command).output(LIMIT);
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    let guest = "0000.525400112233";
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], format!("unfiltered {guest}"), "{said}{errors}");
    assert!(lines[1].starts_with("filtered 8000."), "{said}{errors}");
    assert_eq!(lines[2..], ["end"], "tables of the binding are left: {said}");
}
