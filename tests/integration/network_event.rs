//! Tests `network event`: one line for each change of a running network, and its ends.

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::bridges::{end, up, waiting};
use crate::common::dhcp_guest::DhcpGuest;
use crate::common::network_host::NetworkHost;
use crate::common::scene::Scene;
use crate::common::schema::valid;
use crate::common::{AT_MOST, have_root, start, text, wait_until};

const LAB: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000072</uuid>\
    <bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:72'/>\
    <ip address='10.72.0.1' netmask='255.255.255.0'><dhcp><range start='10.72.0.100' \
    end='10.72.0.200'><lease expiry='2'/></range></dhcp></ip></network>";

/// A running `network event` that listens.
fn listening(host: &NetworkHost, words: &str) -> Scene {
    let mut all = vec!["network", "event"];
    all.extend(words.split(' '));
    let scene = Scene::start(host.sandbox.netlaunch(&all));
    let ready = || scene.err.text().contains("waiting for events");
    assert!(wait_until(AT_MOST, ready), "{}", scene.said());
    scene
}

/// Waits for `count` events, and returns all of them.
fn events(scene: &Scene, count: usize) -> Vec<Value> {
    let enough = || scene.out.text().matches('\n').count() >= count;
    assert!(wait_until(AT_MOST, enough), "{}", scene.said());
    let events: Vec<Value> =
        scene.out.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    events.iter().for_each(|event| valid("network-event", event));
    events
}

#[test]
fn every_change_of_a_network_is_one_event() {
    if !have_root("every_change_of_a_network_is_one_event") {
        return;
    }
    let host = NetworkHost::new(LAB);
    // Nothing of networks exists yet, not even the directory.
    let mut scene = listening(&host, "--all --follow --json");
    host.good("network start lab");
    let guest = DhcpGuest::new(&host, 7);
    let seen = events(&scene, 2);
    assert_eq!((&seen[0]["event"], &seen[0]["bridge"]), (&json!("started"), &json!("nlt0")));
    assert_eq!(seen[1]["event"], "port-attached");
    assert_eq!(seen[1]["port"], json!({ "port": "port7", "launch": null, "mac": null }));

    let address = guest.lease(&["-x", "hostname:web"]);
    let added = events(&scene, 3).remove(2);
    assert_eq!((&added["event"], &added["network"]), (&json!("lease-added"), &json!("lab")));
    let lease = &added["lease"];
    assert_eq!((&lease["address"], &lease["hostname"]), (&json!(address), &json!("web")));
    // The end of a lease is given in seconds.
    std::thread::sleep(Duration::from_millis(1100));
    guest.release();
    let removed = || scene.out.text().contains("lease-removed");
    assert!(wait_until(AT_MOST, removed), "{}", scene.said());
    // The renewal before the release can be read together with it.
    let before = events(&scene, 4).len();
    let names: Vec<_> =
        events(&scene, before)[3..].iter().map(|event| event["event"].clone()).collect();
    let renewed = [json!("lease-renewed"), json!("lease-removed")];
    assert!(names == renewed || names == renewed[1..], "{names:?}");

    let mark = host.sandbox.path("").to_string_lossy().into_owned();
    let options = ["--network", "lab", "--name", "db", "--mac", "52:54:00:00:00:09"];
    let (launch, _) = up(&host.sandbox, host.sandbox.netlaunch(&waiting(&options, &mark)));
    let attached = events(&scene, before + 1).remove(before);
    assert_eq!(attached["event"], "port-attached");
    assert_eq!(attached["port"]["launch"], "db", "{attached}");
    assert_eq!(attached["port"]["mac"], "52:54:00:00:00:09");
    end(launch);
    let detached = events(&scene, before + 2).remove(before + 1);
    assert_eq!(
        (&detached["event"], &detached["port"]),
        (&json!("port-detached"), &attached["port"])
    );
    host.good("network destroy --force lab");
    let last = events(&scene, before + 4);
    let names: Vec<_> = last[before + 2..].iter().map(|event| &event["event"]).collect();
    assert_eq!(names, ["port-detached", "stopped"]);
    assert_eq!(last.len(), before + 4, "{}", scene.said());

    kill(Pid::from_raw(scene.pid()), Signal::SIGTERM).unwrap();
    assert_eq!(scene.end().code(), Some(0));
}

#[test]
fn a_lease_that_dnsmasq_keeps_is_renewed_in_the_events() {
    if !have_root("a_lease_that_dnsmasq_keeps_is_renewed_in_the_events") {
        return;
    }
    let host = NetworkHost::new(LAB);
    host.good("network start lab");
    let guest = DhcpGuest::new(&host, 7);
    let scene = listening(&host, "lab --follow --json");
    guest.lease(&[]);
    events(&scene, 1);
    std::thread::sleep(Duration::from_millis(1100));
    guest.lease(&[]);
    let seen = events(&scene, 2);
    assert_eq!(seen[1]["event"], "lease-renewed");
    let expires = |event: &Value| event["lease"]["expires"].as_u64().unwrap();
    assert!(expires(&seen[1]) > expires(&seen[0]), "{seen:#?}");
    drop(scene);
    drop(guest);
    host.good("network destroy --force lab");
}

#[test]
fn events_end_with_their_reader_with_a_signal_and_without_follow() {
    if !have_root("events_end_with_their_reader_with_a_signal_and_without_follow") {
        return;
    }
    let host = NetworkHost::new(LAB);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut scene = listening(&host, "lab --follow");
        kill(Pid::from_raw(scene.pid()), signal).unwrap();
        assert_eq!(scene.end().code(), Some(0), "{signal}");
        assert_eq!(scene.out.text(), "");
    }
    // The reader ends, and no event comes.
    let words = ["network", "event", "--all", "--follow"];
    let mut command: Command = host.sandbox.netlaunch(&words);
    let mut child = start({
        command.stderr(Stdio::null());
        command
    });
    std::thread::sleep(Duration::from_millis(300));
    drop(child.0.stdout.take());
    let mut status = None;
    let ended = || {
        status = child.0.try_wait().unwrap();
        status.is_some()
    };
    assert!(wait_until(AT_MOST, ended), "it outlives its reader");
    assert_eq!(status.unwrap().code(), Some(0));

    let mut one = listening(&host, "lab");
    host.good("network start lab");
    assert_eq!(one.end().code(), Some(0));
    assert_eq!(one.out.text(), "lab started bridge nlt0\n");
    host.good("network destroy lab");
    for (words, why) in
        [("network event none", "no network is called none"), ("network event", "NAME is missing")]
    {
        let output = host.netlaunch(words);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(text(&output.stderr).contains(why), "{words}: {}", text(&output.stderr));
    }
}
