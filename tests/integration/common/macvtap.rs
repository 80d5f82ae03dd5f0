//! Macvtap ports of tests, whose guest is the test itself: what it writes into the queue, the guest
//! sends, and what it reads, the guest receives.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use netlaunch::sys::tap::{TUN, Tap, TapName};

use super::frame::{OTHER, PEER, VM, mac_text};
use super::port_scene::{PortScene, VNET_HEADER};
use super::{Netns, run, text};

/// Makes a macvtap of this mode above `lower`, and opens its queue. It is down.
///
/// The node of the device is made here: two namespaces may have interfaces of one number, and
/// /dev/tapNUMBER is that of one of them.
pub fn plug_above(netns: &Netns, name: &str, lower: &str, mode: &str, mac: [u8; 6]) -> File {
    let mac = mac_text(mac);
    netns.ip(&format!("link add link {lower} name {name} address {mac} type macvtap mode {mode}"));
    netns.ip(&format!("link set {name} allmulticast on"));
    let shown = format!("cat /sys/class/net/{name}/macvtap/tap*/dev");
    let device = netns.says("sh", &["-c", &shown]);
    let (major, minor) = device.trim().split_once(':').unwrap_or_else(|| panic!("{device}"));
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("tap");
    let made = run("mknod", &["-m", "600", &node.to_string_lossy(), "c", major, minor]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let mut options = File::options();
    // The queue has virtio headers from the start (tap_open() in drivers/net/tap.c).
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&node).unwrap()
}

/// Sends a frame as the guest.
pub fn write_frame(mut queue: &File, frame: &[u8]) {
    let bytes = [&[0; VNET_HEADER], frame].concat();
    assert_eq!(queue.write(&bytes).unwrap(), bytes.len());
}

/// Returns the frames that the guest has received since.
pub fn read_frames(mut queue: &File) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; 65_600];
    loop {
        match queue.read(&mut buffer) {
            Ok(length) => frames.push(buffer[VNET_HEADER..length].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return frames,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A scene whose ports vnet0 and vnet1 are macvtaps of this mode above peer0, a tap; none of them
/// is on a bridge. The peer reads what leaves by peer0, and what it writes comes in there. The mode
/// passthru allows one port above an interface, so vnet1 and the marks are missing then.
///
/// ```text
/// vnet0 ─┐
/// vnet1 ─┤ peer0 ── the peer
/// mark0 ─┘
/// ```
pub fn scene(mode: &str) -> PortScene {
    let netns = Netns::bare();
    let tap = |name: &str| -> File {
        let exact = TapName::Exact(name.parse().unwrap());
        let tap = netns.inside(|| Tap::open(Path::new(TUN), &exact).unwrap().into_fd());
        netns.ip(&format!("link set {name} up"));
        tap.into()
    };
    netns.inside(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap());
    let peer = tap("peer0");
    let above = |name, mac| {
        let port = plug_above(&netns, name, "peer0", mode, mac);
        if mode == "source" {
            // The senders whose frames come in.
            let peer = mac_text(PEER.mac);
            netns.ip(&format!("link set {name} type macvtap macaddr add {peer}"));
        }
        netns.ip(&format!("link set {name} up"));
        port
    };
    let vnet0 = above("vnet0", VM.mac);
    let (vnet1, mark) = match mode {
        "passthru" => (None, tap("mark0")),
        // Not the address of the marks: a broadcast from the address of a port takes another way.
        _ => (Some(above("vnet1", OTHER.mac)), above("mark0", [2, 0, 0, 0, 0, 8])),
    };
    PortScene::of(netns, [Some(vnet0), vnet1, Some(peer)], mark)
}

/// Returns whether this host can run a test with macvtap ports; says why if it cannot.
pub fn have_macvtap(test: &str) -> bool {
    if !super::have_root(test) {
        return false;
    }
    let netns = Netns::bare();
    let can = |args: &[&str]| {
        run("ip", &[&["netns", "exec", &netns.name], args].concat()).status.success()
    };
    let link = ["ip", "link", "add"];
    if !can(&[&link[..], &["low0", "type", "veth", "peer", "name", "low1"]].concat())
        || !can(&[&link[..], &["link", "low0", "name", "m0", "type", "macvtap"]].concat())
    {
        super::skipped(test, "the kernel has no macvtap");
        return false;
    }
    let hook = "add table netdev t; add chain netdev t c { type filter hook egress device \"m0\" priority 0; }";
    if !can(&["nft", hook]) {
        super::skipped(test, "the kernel or nft has no egress hook (Linux 5.16)");
        return false;
    }
    true
}
