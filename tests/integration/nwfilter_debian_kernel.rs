//! Tests filters with connection tracking on nftables, on Debian's kernel, which tracks connections
//! of bridges: the conformance run of ../shared in the test host (tests/guest/host), and tests of
//! filters, each without br_netfilter and with it, as hosts with docker or libvirt have it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::test_host::{dir, netlaunch, test_host, without_symbols};
use crate::common::{have_root, skipped, start, text};
use serde_json::Value;

/// How long the test host may take on a busy machine; it ends itself before.
const LIMIT: Duration = Duration::from_secs(2900);
const HOST_SECONDS: u32 = 2800;

/// Whether the kernel's defragmentation explains a difference: where it tracks connections of
/// bridges, it collects the fragments of both IP versions, keeps those of a packet that never
/// becomes whole, and drops IPv6 packets that came in fragments of less than 1,280 bytes
/// (br_ip6_fragment()). The reference's kernel part for iptables does that for one IP version at a
/// time, and lets small fragments out again.
fn is_fragment(difference: &Value) -> bool {
    let text = difference["text"].as_str().unwrap();
    difference["expected"] == "pass" && difference["got"] == "drop" && text.contains("frag off")
}

/// Whether the test host has br_netfilter loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Module {
    Absent,
    Loaded,
}

impl Module {
    /// The start of a shell's text. iptables is not tested: its physdev match loads the module, and
    /// this machine's kernel has all that it needs.
    fn prepare(self) -> &'static str {
        match self {
            Module::Absent => {
                "set -e; export NETLAUNCH_TEST_BACKEND=nftables; [ ! -e /proc/sys/net/bridge ]"
            }
            Module::Loaded => {
                "set -e; export NETLAUNCH_TEST_BACKEND=nftables; modprobe br_netfilter; \
                 [ -e /proc/sys/net/bridge ]"
            }
        }
    }

    /// The end of a shell's text: no test has changed it.
    fn check(self) -> &'static str {
        match self {
            Module::Absent => "[ ! -e /proc/sys/net/bridge ]",
            Module::Loaded => "[ -e /proc/sys/net/bridge ]",
        }
    }
}

/// The tests of libvirt's defects and of packets that the host sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defects {
    /// Those whose stateful halves on nftables show their verdicts only here; elsewhere they are
    /// refused.
    Stateful,
    All,
}

impl Defects {
    /// The names for the test binary, and the number of tests that have them.
    fn names(self) -> (&'static [&'static str], usize) {
        match self {
            Defects::Stateful => (
                &[
                    "nwfilter_defects::a_rule_has_the_states",
                    "nwfilter_defects::answers_pass",
                    "nwfilter_defects::a_guest_without_its_address",
                    "nwfilter_sent::states_of_packets",
                    "nwfilter_sent::a_rule_that_the_kernel_cannot_track",
                    "nwfilter_link_local::stateful_rules",
                ],
                7,
            ),
            Defects::All => {
                (&["nwfilter_defects::", "nwfilter_sent::", "nwfilter_link_local::stateful"], 18)
            }
        }
    }
}

fn defects(test: &str, module: Module, defects: Defects) {
    if !have_root(test) {
        return;
    }
    let Some(mut command) = test_host(test, HOST_SECONDS) else { return };
    let all = format!("{}\n\"$@\"\n{}", module.prepare(), module.check());
    let dir = dir();
    let (names, number) = defects.names();
    command
        .args(["bash", "-c", &all, "bash"])
        .arg(without_symbols(&std::env::current_exe().unwrap(), &dir))
        .args(["--test-threads", "2"])
        .args(names);
    let output = start(command).output(LIMIT);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches(&format!("{number} passed; 0 failed")).count(), 1, "{said}");
}

#[test]
fn stateful_filters_hold_with_br_netfilter() {
    let test = "stateful_filters_hold_with_br_netfilter";
    defects(test, Module::Loaded, Defects::Stateful);
}

#[test]
#[ignore = "three minutes; .ci/run runs it"]
fn filters_hold_with_br_netfilter() {
    defects("filters_hold_with_br_netfilter", Module::Loaded, Defects::All);
}

#[test]
#[ignore = "two minutes; .ci/run runs it"]
fn filters_hold_without_br_netfilter() {
    defects("filters_hold_without_br_netfilter", Module::Absent, Defects::All);
}

#[test]
#[ignore = "two minutes; .ci/run runs it"]
fn the_guard_keeps_frames_of_unfiltered_ports_from_the_host() {
    let test = "the_guard_keeps_frames_of_unfiltered_ports_from_the_host";
    if !have_root(test) {
        return;
    }
    let Some(mut command) = test_host(test, HOST_SECONDS) else { return };
    let dir = dir();
    command
        .args(["bash", "-c", "modprobe br_netfilter; exec \"$@\"", "bash"])
        .arg(without_symbols(&std::env::current_exe().unwrap(), &dir))
        .args(["--test-threads", "2", "nwfilter_watch_host::"]);
    let output = start(command).output(LIMIT);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("2 passed; 0 failed").count(), 1, "{said}");
}

/// The cases of the conformance run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cases {
    /// Those that track connections: the others need nothing of this kernel.
    Tracked,
    All,
}

/// Compares the frames that filters on nftables let through with those of the reference.
fn conformance(test: &str, module: Module, cases: Cases) {
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/run.py");
    if !have_root(test) {
        return;
    }
    let Ok(run) = run.canonicalize() else {
        skipped(test, format_args!("there is no {}", run.display()));
        return;
    };
    let Some(mut command) = test_host(test, HOST_SECONDS) else { return };
    let (names, frames) = match cases {
        Cases::Tracked => (tracked(run.parent().unwrap()).join(" "), 20_000),
        Cases::All => (String::new(), 40_000),
    };
    // A case that differs is no error of the shell's.
    let all = format!("{}\n\"$@\" {names} || [ $? = 1 ]\n{}", module.prepare(), module.check());
    let dir = dir();
    command
        .args(["bash", "-c", &all, "bash", "python3", "-B"])
        .arg(run)
        .args(["--json", "--after-delete", "--backend", "nftables", "--netlaunch"])
        .arg(netlaunch(&dir));
    let output = start(command).output(LIMIT);
    let (report, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}: {report}{errors}", output.status);
    let read = serde_json::from_str(&report);
    judge(&read.unwrap_or_else(|error| panic!("{error}: {report}{errors}")), frames);
}

/// tests/run has the tests of defects with br_netfilter.
#[test]
#[ignore = "two minutes; .ci/run runs it"]
fn stateful_filters_pass_the_frames_of_the_reference() {
    let test = "stateful_filters_pass_the_frames_of_the_reference";
    conformance(test, Module::Absent, Cases::Tracked);
}

#[test]
#[ignore = "three minutes; .ci/run runs it"]
fn all_filters_with_br_netfilter_pass_the_frames_of_the_reference() {
    let test = "all_filters_with_br_netfilter_pass_the_frames_of_the_reference";
    conformance(test, Module::Loaded, Cases::All);
}

/// The names of the cases that track connections.
fn tracked(conformance: &Path) -> Vec<String> {
    let read = |path: &PathBuf| -> Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let files = std::fs::read_dir(conformance.join("given")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let tracked = files.into_iter().filter(|path| read(path)["conntrack"] == true);
    tracked.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

/// Checks a report of the conformance run, which has more than so many frames.
fn judge(report: &Value, frames: u64) {
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
        "{} cases, {} of {} frames as in the reference, {fragments} fragments that this \
         kernel's defragmentation keeps",
        results.len(),
        count("same"),
        count("total")
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(report["skipped"], 0, "the kernel has what stateful filters need");
    let differ = count("total") - count("same");
    assert!(count("total") > frames && differ == fragments as u64);
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
    let Some(mut command) = test_host(test, HOST_SECONDS) else { return };
    let dir = dir();
    command.args(["bash", "-c", ROOT_GUARD, "bash"]).arg(netlaunch(&dir));
    let output = start(command).output(LIMIT);
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    let guest = "0000.525400112233";
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], format!("unfiltered {guest}"), "{said}{errors}");
    assert!(lines[1].starts_with("filtered 8000."), "{said}{errors}");
    assert_eq!(lines[2..], ["end"], "tables of the binding are left: {said}");
}
