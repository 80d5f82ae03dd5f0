//! Tests the end of a lease, and the file that saves it.

use netlaunch::nwfilter::learn::Sender::{Guest, Network};
use netlaunch::types::error_text;
use std::path::Path;

use netlaunch::nwfilter::learn::{
    AddressChange, BootTime, Clock, Lease6, LeaseDir, Method, SavedLease, Source6, UnixTime,
};
use netlaunch::types::InterfaceName;
use serde_json::{Value, json};

use super::{
    A, B, GUEST_LINK, HOUR, NOW, ROUTER_LINK, TWO, answers, asks, by_dhcp, by_traffic, dhcp_only,
    feed, from_anything, guest, learner,
};
use crate::common::dhcp_frame::{ACK, DhcpFrame, GUEST, REQUEST, SERVER, speech};

#[test]
fn a_lease_ends_after_its_lease_time() {
    let mut learner = learner(dhcp_only());
    feed(&mut learner, &[asks(REQUEST), answers(ACK, A)]);
    assert_eq!(learner.expire(BootTime(NOW.0 + HOUR - 1)), None);
    assert_eq!(learner.expire(BootTime(NOW.0 + HOUR)), Some(AddressChange::Forgotten(A)));
    assert_eq!(learner.expire(BootTime(NOW.0 + HOUR)), None);
    // A lease without end.
    let ack = DhcpFrame::answers(ACK, A).options(&[&[53, 1, ACK], &[51, 4, 255, 255, 255, 255]]);
    feed(&mut learner, &[asks(REQUEST), (Network, ack.bytes())]);
    assert_eq!(learner.lease().unwrap().until, None);
    assert_eq!(learner.expire(BootTime(u64::MAX)), None);
}

#[test]
fn a_saved_lease_is_used_only_if_the_method_could_learn_it() {
    for (method, accepts_server, accepts_traffic) in [
        (from_anything(), true, true),
        (Method::any(vec![B, SERVER]), true, true),
        (Method::any(vec![B]), false, true),
        (dhcp_only(), true, false),
        (Method::dhcp(vec![B, SERVER]), true, false),
        (Method::dhcp(vec![B]), false, false),
    ] {
        for (lease, accepted) in [(by_dhcp(A), accepts_server), (by_traffic(A), accepts_traffic)] {
            let expected = accepted.then_some(lease);
            let resumed = learner(method.clone()).resumed(Some(lease), NOW);
            assert_eq!(resumed.lease(), expected, "{method:?}, {lease:?}");
        }
    }
}

/// The wall-clock time at [`NOW`].
const WALL: UnixTime = UnixTime(1_790_000_000);

/// Returns the clocks `seconds` after [`NOW`], with the wall clock changed by `step` seconds.
fn clock(seconds: u64, step: i64) -> Clock {
    Clock {
        boot: BootTime(NOW.0 + seconds),
        wall: UnixTime((WALL.0 + seconds).checked_add_signed(step).unwrap()),
        boot_id: Some("this boot".to_owned()),
    }
}

fn port() -> InterfaceName {
    "vnet0".parse().unwrap()
}

fn lease_of_vnet0(dir: &Path) -> (LeaseDir, SavedLease) {
    let dir = LeaseDir::new(dir);
    let kept = SavedLease {
        port: port(),
        index: 7,
        mac: guest(),
        had_address: true,
        lease: Some(by_dhcp(A)),
        leases6: Vec::new(),
    };
    dir.write(&kept, &clock(0, 0)).unwrap();
    (dir, kept)
}

#[test]
fn a_change_of_the_wall_clock_does_not_move_the_end_of_a_lease() {
    let state = tempfile::tempdir().unwrap();
    let (dir, kept) = lease_of_vnet0(state.path());
    for step in [0, 7200, -7200, 100_000_000, -100_000_000] {
        assert_eq!(dir.read(&port(), &clock(HOUR - 1, step)).unwrap(), Some(kept.clone()));
        let over = dir.read(&port(), &clock(HOUR, step)).unwrap().unwrap();
        assert_eq!(over, SavedLease { lease: None, ..kept.clone() }, "{step}");
    }
    // A displayed end follows the current wall clock.
    let until = by_dhcp(A).until.unwrap();
    assert_eq!(clock(5, 0).wall_of(until), UnixTime(WALL.0 + HOUR));
    assert_eq!(clock(5, 7200).wall_of(until), UnixTime(WALL.0 + HOUR + 7200));
}

#[test]
fn a_lease_of_another_boot_is_ignored() {
    let state = tempfile::tempdir().unwrap();
    let (dir, _) = lease_of_vnet0(state.path());
    for other in [Some("another boot".to_owned()), None] {
        let clock = Clock { boot_id: other, ..clock(1, 0) };
        assert_eq!(dir.read(&port(), &clock).unwrap(), None);
        assert_eq!(dir.all(&clock).unwrap(), []);
    }
}

#[test]
fn a_lease_of_an_earlier_release_ends_by_the_wall_clock() {
    let state = tempfile::tempdir().unwrap();
    let (dir, kept) = lease_of_vnet0(state.path());
    let saved = json!({
        "version": 1,
        "port": "vnet0",
        "index": 7,
        "mac": "52:54:00:11:22:33",
        "lease": {
            "address": "10.5.0.20",
            "teacher": "dhcp",
            "server": "10.5.0.1",
            "until": WALL.0 + HOUR,
        },
    });
    std::fs::write(dir.file(&port()), saved.to_string()).unwrap();
    assert_eq!(dir.read(&port(), &clock(HOUR - 1, 0)).unwrap(), Some(kept.clone()));
    let over = dir.read(&port(), &clock(HOUR, 0)).unwrap().unwrap();
    assert_eq!(over, SavedLease { lease: None, ..kept });
}

#[test]
fn ipv6_addresses_are_saved_and_end_on_their_own() {
    let state = tempfile::tempdir().unwrap();
    let (dir, kept) = lease_of_vnet0(state.path());
    let until = Some(BootTime(NOW.0 + 60));
    let source = Source6::Dhcp { server: ROUTER_LINK };
    let given = Lease6 { address: TWO, source, until };
    let tested = Lease6 { address: GUEST_LINK, source: Source6::Test, until: None };
    for (had_address, lease) in [(true, kept.lease), (true, None), (false, None)] {
        let leases6 = vec![tested, given];
        let saved = SavedLease { had_address, lease, leases6, ..kept.clone() };
        dir.write(&saved, &clock(0, 0)).unwrap();
        assert_eq!(dir.read(&port(), &clock(59, 7200)).unwrap(), Some(saved.clone()));
        let later = dir.read(&port(), &clock(60, 0)).unwrap().unwrap();
        assert_eq!(later, SavedLease { leases6: vec![tested], ..saved });
    }
}

#[test]
fn a_lease_is_saved_for_one_port_and_one_guest() {
    let state = tempfile::tempdir().unwrap();
    let now = clock(0, 0);
    let dir = LeaseDir::new(state.path());
    assert_eq!(dir.read(&port(), &now).unwrap(), None);
    dir.remove(&port()).unwrap();
    let (dir, kept) = lease_of_vnet0(state.path());
    let text = std::fs::read_to_string(dir.file(&port())).unwrap();
    let expected = json!({
        "version": 1,
        "port": "vnet0",
        "index": 7,
        "mac": "52:54:00:11:22:33",
        "lease": {
            "address": "10.5.0.20",
            "teacher": "dhcp",
            "server": "10.5.0.1",
            "until": WALL.0 + HOUR,
            "until_boot": 1003600,
        },
        "boot_id": "this boot",
    });
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    let traffic = SavedLease { lease: Some(by_traffic(A)), ..kept.clone() };
    dir.write(&traffic, &now).unwrap();
    assert_eq!(dir.read(&port(), &now).unwrap(), Some(traffic));
    dir.write(&kept, &now).unwrap();
    assert_eq!(dir.read(&port(), &now).unwrap(), Some(kept.clone()));
    assert!(kept.is_of(7, guest()));
    assert!(!kept.is_of(8, guest()));
    assert!(!kept.is_of(7, "52:54:00:44:55:66".parse().unwrap()));
    // After the end of the lease, the file still records that the port had an address.
    let later = clock(HOUR, 0);
    let aged = dir.read(&port(), &later).unwrap().unwrap();
    assert_eq!(aged.lease, None);
    let mut resumed = learner(from_anything()).resumed(aged.lease, later.boot);
    assert_eq!(resumed.process_frame(Guest, &speech(GUEST, B), later.boot), None);
    assert_eq!(learner(from_anything()).resumed(kept.lease, NOW).lease(), Some(by_dhcp(A)));
    assert_eq!(learner(from_anything()).resumed(kept.lease, later.boot).lease(), None);
    // No incomplete file is left, and a damaged file counts as a missing one.
    assert_eq!(std::fs::read_dir(dir.file(&port()).parent().unwrap()).unwrap().count(), 1);
    let newer = text.replace("\"version\": 1", "\"version\": 2");
    for damaged in [&text[..20], "", "[]", &newer] {
        std::fs::write(dir.file(&port()), damaged).unwrap();
        assert_eq!(dir.read(&port(), &now).unwrap(), None, "{damaged}");
        assert_eq!(dir.all(&now).unwrap(), []);
    }
    dir.remove(&port()).unwrap();
    assert!(!dir.file(&port()).exists());
    // With a directory in place of the file, a write fails with an error of one line.
    std::fs::create_dir(dir.file(&port())).unwrap();
    assert_eq!(dir.read(&port(), &now).unwrap(), None);
    let error = dir.write(&kept, &now).unwrap_err();
    assert_eq!(error_text(&error).lines().count(), 1, "{error}");
    assert!(error_text(&error).contains("vnet0.json"), "{error}");
}
