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
