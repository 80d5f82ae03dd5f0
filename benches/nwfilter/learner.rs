//! Measures the cost of a flood for the learner process. The kernel drops the frames that the
//! learner does not need.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::common::finish;
use super::frames::frame;
use super::host::Host;
use netlaunch::sys::tap::{TUN, Tap, TapName};

/// The number of frames per second, the number in one burst, and the duration.
const RATE: u32 = 100_000;
const BURST: u32 = 1_000;
const SECONDS: u32 = 5;

/// Returns the processor time of a process in nanoseconds, and the number of its voluntary context
/// switches (/proc/PID/schedstat, proc_pid_status(5)).
fn used(pid: u64) -> (u64, u64) {
    let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let slept = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    let time = schedstat.split(' ').next().unwrap().parse().unwrap();
    (time, slept.unwrap().trim().parse().unwrap())
}

/// Measures a learner's processor time under a flood of frames with a forged source, and of frames
/// from the guest that are not DHCP.
pub fn learner() {
    let host = Host::new(0);
    host.netns.ip("link add br0 type bridge stp_state 0 mcast_snooping 0 forward_delay 0");
    host.netns.ip("link set br0 up");
    let name = TapName::Exact("vnet0".parse().unwrap());
    let tap = host.netns.inside(|| Tap::open(Path::new(TUN), &name).unwrap());
    host.netns.ip("link set vnet0 master br0 up");
    let mut guest: fs::File = tap.into_fd().into();
    let document = host.sandbox.path("learning.xml");
    let xml = "<filterbinding><portdev name='vnet0'/><mac address='52:54:00:11:22:33'/>\
               <filterref filter='clean-traffic'><parameter name='CTRL_IP_LEARNING' value='dhcp'/></filterref></filterbinding>";
    fs::write(&document, xml).unwrap();
    let create = ["nwfilter", "binding-create", document.to_str().unwrap()];
    host.time(host.sandbox.netlaunch(&create));
    let list = ["nwfilter", "binding-list", "--json"];
    let list = host.netns.inside(|| finish(host.sandbox.netlaunch(&list)));
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let pid = list["bindings"][0]["learning"]["pid"].as_u64().unwrap();
    for (whose, source) in [
        ("spoofed", [0x52, 0x54, 0, 0x66, 0x66, 0x66]),
        ("of the guest's own", [0x52, 0x54, 0, 0x11, 0x22, 0x33]),
    ] {
        let frame = frame(source, [0x52, 0x54, 0, 0xaa, 0xbb, 0xcc], [10, 2, 3, 4]);
        let before = used(pid);
        let begun = Instant::now();
        let mut sent = 0;
        while begun.elapsed() < Duration::from_secs(SECONDS.into()) {
            for _ in 0..BURST {
                guest.write_all(&frame).unwrap();
            }
            sent += BURST;
            sleep((Duration::from_secs(1) * sent / RATE).saturating_sub(begun.elapsed()));
        }
        let took = begun.elapsed().as_secs_f64();
        let after = used(pid);
        let time = (after.0 - before.0) as f64 / 1e9;
        println!(
            "learner under {:.0} frames/s, {whose}: {:.2} ms on a processor in {took:.1} s, {:.4} %, woken {} times ({:.2} ms since its start)",
            f64::from(sent) / took,
            time * 1e3,
            100.0 * time / took,
            after.1 - before.1,
            after.0 as f64 / 1e6,
        );
    }
    host.time(host.sandbox.netlaunch(&["nwfilter", "binding-delete", "vnet0"]));
}
