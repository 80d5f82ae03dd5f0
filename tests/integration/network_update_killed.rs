//! Tests a `network update` that is killed at each of its steps: after the next command, the
//! network and its definition are both as before, or both changed.

use std::fs;

use crate::common::dhcp_guest::DhcpGuest;
use crate::common::killed;
use crate::common::network_host::NetworkHost;
use crate::common::{AT_MOST, extent, have_root, processes_with, text, wait_until};

const LAB: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000074</uuid>\
    <forward mode='nat'/><bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:74'/>\
    <ip address='10.74.0.1' netmask='255.255.255.0'><dhcp><range start='10.74.0.100' \
    end='10.74.0.200'/></dhcp></ip></network>";

/// Everything that an update changes: the files of dnsmasq and its answer about `db`, the rules,
/// the document of the running network and the definition. A dnsmasq runs in any case.
fn state(host: &NetworkHost, guest: &DhcpGuest) -> String {
    let mut state = host.sh("nft -s list ruleset");
    for name in ["dnsmasq.conf", "dnsmasq.dhcp-hosts", "dnsmasq.dns-hosts"] {
        state.push_str(&fs::read_to_string(host.file(name)).unwrap());
    }
    let status = host.status();
    state.push_str(status["xml"].as_str().unwrap());
    state.push_str(&format!("pending {}\nreplaced {}\n", status["change"], status["replaced"]));
    state.push_str(&host.good("network dumpxml lab"));
    let conf = format!("--conf-file={}", host.sandbox.path("").display());
    state.push_str(&format!("{} dnsmasq\n", processes_with(&conf).len()));
    // dnsmasq reads its files again a moment after the signal.
    let in_file = state.contains("10.74.0.7\tdb");
    let knows = || {
        let said = guest.netns.says("busybox", &["nslookup", "-type=a", "db", "10.74.0.1"]);
        said.contains("10.74.0.7") == in_file
    };
    assert!(wait_until(AT_MOST, knows), "dnsmasq has not read: {state}");
    state
}

fn killed_at_every_step(change: &[&str], undo: &[&str], step: usize) {
    let host = NetworkHost::new(LAB);
    host.good("network start lab");
    let guest = DhcpGuest::new(&host, 7);
    guest.netns.ip("address add 10.74.0.50/24 dev eth0");
    let line = |change: &[&'static str]| -> Vec<&str> {
        [&["network", "update", "lab"], change, &["--live", "--config"]].concat()
    };
    let leak = |words: &[&str]| -> Vec<&'static str> {
        words.iter().map(|word| &*Box::leak(word.to_string().into_boxed_str())).collect()
    };
    let (change, undo) = (leak(change), leak(undo));
    let old = state(&host, &guest);
    let moments = killed::moments(&host.sandbox, &line(&change));
    let new = state(&host, &guest);
    assert_ne!(old, new);
    host.sandbox.good(&line(&undo));
    assert_eq!(state(&host, &guest), old);
    let (mut came, mut changed) = (0, 0);
    for (i, at) in moments.iter().enumerate().step_by(step) {
        came += usize::from(killed::killed(&host.sandbox, &line(&change), at));
        let program = host.sandbox.path("bin/netlaunch");
        let ended = || processes_with(&program.to_string_lossy()).is_empty();
        assert!(wait_until(AT_MOST, ended), "{at}");
        // The next command is a reload, or another update.
        if (i / step).is_multiple_of(2) {
            host.good("firewall reload");
        } else {
            let group = ["network", "update", "lab", "add", "portgroup", "<portgroup name='x'/>"];
            let gone = ["network", "update", "lab", "delete", "portgroup", "<portgroup name='x'/>"];
            host.sandbox.good(&group);
            host.sandbox.good(&gone);
        }
        let now = state(&host, &guest);
        if now == new {
            changed += 1;
            host.sandbox.good(&line(&undo));
            assert_eq!(state(&host, &guest), old, "{at}");
        } else {
            assert_eq!(now, old, "{change:?}, killed before {at}");
        }
    }
    println!("{change:?}: killed at {came} of {} moments, {changed} were complete", moments.len());
    assert!(came * 10 > moments.len() / step * 7, "{came} of {}", moments.len());
    host.good("network destroy --force lab");
    let left = text(&fs::read(host.file("status.json")).unwrap_or_default());
    assert_eq!(left, "");
}

#[test]
fn a_killed_update_of_hosts_changes_all_or_nothing() {
    if !have_root("a_killed_update_of_hosts_changes_all_or_nothing") {
        return;
    }
    let host = "<host ip='10.74.0.7'><hostname>db</hostname></host>";
    killed_at_every_step(&["add", "dns-host", host], &["delete", "dns-host", host], extent(9, 1));
}

#[test]
fn a_killed_update_that_starts_dnsmasq_again_changes_all_or_nothing() {
    if !have_root("a_killed_update_that_starts_dnsmasq_again_changes_all_or_nothing") {
        return;
    }
    let txt = "<txt name='motd' value='hello'/>";
    killed_at_every_step(&["add", "dns-txt", txt], &["delete", "dns-txt", txt], extent(16, 1));
}

#[test]
fn a_killed_update_of_rules_changes_all_or_nothing() {
    if !have_root("a_killed_update_of_rules_changes_all_or_nothing") {
        return;
    }
    let interface = "<interface dev='up0'/>";
    killed_at_every_step(
        &["add", "forward-interface", interface],
        &["delete", "forward-interface", interface],
        extent(24, 1),
    );
}
