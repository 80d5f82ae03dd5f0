//! Tests `netlaunch nwfilter explain --pcap` with records that are no frames.

use std::fs;

use serde_json::Value;

use crate::nwfilter_explain::{DHCP, bytes, run_netlaunch};

/// The other frames of a capture have their own numbers.
#[test]
fn a_record_that_is_no_frame_does_not_end_the_explanation_of_a_capture() {
    let dir = tempfile::tempdir().unwrap();
    let frame = bytes(DHCP);
    let mut pcap = bytes("d4c3b2a1020004000000000000000000ffff000001000000");
    for kept in [3, frame.len(), 13, frame.len()] {
        pcap.extend([0; 8]);
        pcap.extend((kept as u32).to_le_bytes());
        pcap.extend((kept as u32).to_le_bytes());
        pcap.extend(&frame[..kept]);
    }
    let file = dir.path().join("frames.pcap");
    fs::write(&file, pcap).unwrap();
    let args = ["explain", "allow-dhcp", "--mac", "52:54:00:11:22:33"];
    let args = [&args[..], &["--pcap", file.to_str().unwrap()]].concat();
    let (out, error, status) = run_netlaunch(dir.path(), &args);
    assert_eq!(status, Some(0), "{error}");
    let numbers: Vec<&str> = out.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(numbers, ["2", "4"], "{out}");
    assert!(error.contains("frame 1: 3 bytes") && error.contains("frame 3: 13 bytes"), "{error}");
    let (out, ..) = run_netlaunch(dir.path(), &[&args[..], &["--json"]].concat());
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["frames"].as_array().unwrap().len(), 2, "{object:#}");
    assert_eq!(object["frames"][0]["number"], 2, "{object:#}");
}
