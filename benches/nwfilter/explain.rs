//! Measures `nwfilter explain --pcap`, compared with tcpdump and the same file.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::frames::frame;
use super::goal::{Goal, median, row, unmeasured};
use super::host::{Host, guest};

const FRAMES: u32 = 100_000;
const PAIRS: usize = 5;

/// Compares both ways to read a capture of many frames, half of which are forged.
pub fn explain() {
    let work = format!("explain --pcap, {FRAMES} frames");
    if Command::new("tcpdump").arg("--version").output().is_err() {
        return unmeasured(&work, "tcpdump is not installed");
    }
    let host = Host::new(0);
    let file = host.sandbox.path("frames.pcap");
    fs::write(&file, capture()).unwrap();
    let file = file.to_str().unwrap();
    let [.., mac] = [guest("p0").0.map(|octet| format!("{octet:02x}")).join(":")];
    let address = format!("IP={}", guest("p0").1);
    let options = ["--pcap", file, "--mac", &mac, "-p", &address, "--direction", "out"];
    let mut ratios = Vec::new();
    for pair in 0..=PAIRS {
        let args = [&["nwfilter", "explain", "clean-traffic"], &options[..]].concat();
        let mut ours = host.sandbox.netlaunch(&args);
        ours.stdout(Stdio::null());
        let begun = Instant::now();
        assert!(ours.status().is_ok_and(|status| status.code().is_some()));
        let ours = begun.elapsed();
        let mut theirs = Command::new("tcpdump");
        theirs.args(["-n", "-r", file]).stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        assert!(theirs.status().unwrap().success());
        let theirs = begun.elapsed();
        if pair > 0 {
            ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
        }
    }
    row(&work, "tcpdump -r", median(&mut ratios), "×", Goal::AtMost(5.0));
}

/// Returns a capture of Ethernet frames (pcap-savefile(5)).
fn capture() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        bytes.extend(word.to_ne_bytes());
    }
    let (mac, address) = guest("p0");
    for number in 0..FRAMES {
        let source = if number % 2 == 0 { address.octets() } else { [10, 9, 9, 9] };
        // A tap's frame begins with ten bytes of virtio.
        let frame = &frame(mac, [0x52, 0x54, 0, 0xaa, 0xbb, 0xcc], source)[10..];
        let length = u32::try_from(frame.len()).unwrap();
        for word in [number, 0, length, length] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(frame);
    }
    bytes
}
