//! How long addresses are known, and where they are kept.

use netlaunch::learn::Direction::{FromGuest, ToGuest};
use netlaunch::learn::{Change, Kept, Lease, LeaseDir, Method, UnixTime};
use serde_json::{Value, json};

use crate::common::dhcp_frame::{ACK, DhcpFrame, GUEST, REQUEST, SERVER, speech};
use crate::{
    A, B, HOUR, NOW, answers, asks, by_dhcp, by_traffic, dhcp_only, from_anything, guest, learner,
    lesson,
};

#[test]
fn leases_end_with_their_time() {
    let mut learner = learner(dhcp_only());
    lesson(&mut learner, &[asks(REQUEST), answers(ACK, A)]);
    assert_eq!(learner.expire(UnixTime(NOW.0 + HOUR - 1)), None);
    assert_eq!(learner.expire(UnixTime(NOW.0 + HOUR)), Some(Change::Forgotten(A)));
    assert_eq!(learner.expire(UnixTime(NOW.0 + HOUR)), None);
    // For ever.
    let ack = DhcpFrame::answers(ACK, A).options(&[&[53, 1, ACK], &[51, 4, 255, 255, 255, 255]]);
    lesson(&mut learner, &[asks(REQUEST), (ToGuest, ack.bytes())]);
    assert_eq!(learner.lease().unwrap().until, None);
    assert_eq!(learner.expire(UnixTime(u64::MAX)), None);
}

#[test]
fn a_lease_is_taken_over_where_it_could_have_been_learnt() {
    for (method, believes_server, believes_traffic) in [
        (from_anything(), true, true),
        (Method::any(vec![B, SERVER]), true, true),
        (Method::any(vec![B]), false, true),
        (dhcp_only(), true, false),
        (Method::dhcp(vec![B, SERVER]), true, false),
        (Method::dhcp(vec![B]), false, false),
    ] {
        for (lease, believed) in [(by_dhcp(A), believes_server), (by_traffic(A), believes_traffic)]
        {
            let expected = believed.then_some(lease);
            let resumed = learner(method.clone()).resumed(Some(lease), NOW);
            assert_eq!(resumed.lease(), expected, "{method:?}, {lease:?}");
        }
    }
}

#[test]
fn what_was_learnt_is_kept_for_this_port_and_guest_alone() {
    let state = tempfile::tempdir().unwrap();
    let dir = LeaseDir::new(state.path());
    let port: netlaunch::types::InterfaceName = "vnet0".parse().unwrap();
    assert_eq!(dir.read(&port, NOW).unwrap(), None);
    dir.remove(&port).unwrap();
    let kept =
        Kept { version: 1, port: port.clone(), index: 7, mac: guest(), lease: Some(by_dhcp(A)) };
    dir.write(&kept).unwrap();
    let text = std::fs::read_to_string(dir.file(&port)).unwrap();
    let expected = json!({
        "version": 1,
        "port": "vnet0",
        "index": 7,
        "mac": "52:54:00:11:22:33",
        "lease": {
            "address": "10.5.0.20",
            "teacher": "dhcp",
            "server": "10.5.0.1",
            "until": 1003600,
        },
    });
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    let other = json!({ "address": "10.5.0.20", "teacher": "traffic", "until": null });
    assert_eq!(serde_json::to_value(by_traffic(A)).unwrap(), other);
    assert_eq!(serde_json::from_value::<Lease>(other).unwrap(), by_traffic(A));
    assert_eq!(dir.read(&port, NOW).unwrap(), Some(kept.clone()));
    assert!(kept.is_of(7, guest()));
    assert!(!kept.is_of(8, guest()));
    assert!(!kept.is_of(7, "52:54:00:44:55:66".parse().unwrap()));
    // Aged: the lease is over, and that the port was taught stays.
    let later = UnixTime(NOW.0 + HOUR);
    let aged = dir.read(&port, later).unwrap().unwrap();
    assert_eq!(aged.lease, None);
    let mut resumed = learner(from_anything()).resumed(aged.lease, later);
    assert_eq!(resumed.see(FromGuest, &speech(GUEST, B), later), None);
    assert_eq!(learner(from_anything()).resumed(kept.lease, NOW).lease(), Some(by_dhcp(A)));
    assert_eq!(learner(from_anything()).resumed(kept.lease, later).lease(), None);
    // Nothing half-written is left, and what is damaged is like nothing.
    assert_eq!(std::fs::read_dir(dir.file(&port).parent().unwrap()).unwrap().count(), 1);
    std::fs::write(dir.file(&port), &text[..20]).unwrap();
    assert_eq!(dir.read(&port, NOW).unwrap(), None);
    dir.remove(&port).unwrap();
    assert!(!dir.file(&port).exists());
    // A directory that cannot be used is told in one line.
    std::fs::create_dir(dir.file(&port)).unwrap();
    for error in [dir.read(&port, NOW).unwrap_err(), dir.write(&kept).unwrap_err()] {
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
        assert!(error.to_string().contains("vnet0.json"), "{error}");
    }
}
