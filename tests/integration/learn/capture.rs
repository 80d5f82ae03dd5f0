//! Tests the capture on real ports in network namespaces. To prove that a frame is not received, a
//! test sends a second frame and checks that the second one arrives next.

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use netlaunch::nwfilter::learn::Sender::{self, Guest, Network};
use netlaunch::nwfilter::learn::{
    AddressChange, BootTime, Capture, FrameSet, GuestFrames, Learner, LeaseSource,
};
use netlaunch::sys::tap::{TUN, Tap, TapName};
use netlaunch::types::error_text;
use nix::net::if_::if_nametoindex;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{A, B, dhcp_only, guest};
use crate::common::dhcp_frame::{
    ACK, DISCOVER, DhcpFrame, EVERYONE, GUEST, OTHER, REQUEST, SERVER, arp, speech,
};
use crate::common::{Netns, Reaped, have_root, run, skipped, start, wait_until};

/// The time limit for an expected event.
const LIMIT: Duration = Duration::from_secs(60);

/// A tap. The test writes to it as the guest.
pub(super) struct Port(pub(super) File);

impl Port {
    /// Makes the tap in the thread's namespace, switches it on and connects it to the bridge.
    pub(super) fn new(netns: &Netns, name: &str) -> Self {
        let tap = Tap::open(Path::new(TUN), &TapName::Exact(name.parse().unwrap())).unwrap();
        netns.ip(&format!("link set {name} master br0 up"));
        Port(tap.into_fd().into())
    }

    fn send(&self, frame: &[u8]) {
        // An empty virtio header (no offload) comes first.
        (&self.0).write_all(&[&[0; 10], frame].concat()).unwrap();
    }
}

/// Runs `work` in a tokio runtime, in a namespace with a bridge br0 and without IPv6.
pub(super) fn with_bridge(work: impl AsyncFnOnce(&Netns) + Send) {
    let netns = Netns::bare();
    netns.says("sysctl", &["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
    netns.ip("link add br0 type bridge forward_delay 0 mcast_snooping 0");
    netns.ip("link set br0 up");
    netns.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work(&netns));
    });
}

fn capture(port: &str, interest: FrameSet) -> Capture {
    Capture::open(if_nametoindex(port).unwrap(), guest(), GuestFrames::Received, interest).unwrap()
}

/// Returns the next frame, or `None` if the interface is gone.
pub(super) async fn next(capture: &mut Capture) -> Option<(Sender, Vec<u8>)> {
    let next = tokio::time::timeout(LIMIT, capture.next()).await.unwrap();
    next.unwrap().map(|(way, frame)| (way, frame.to_vec()))
}

fn request(transaction: u32) -> Vec<u8> {
    DhcpFrame { transaction, ..DhcpFrame::asks(REQUEST) }.bytes()
}

#[test]
fn the_capture_receives_frames_of_both_directions_unchanged() {
    if !have_root("the_capture_receives_frames_of_both_directions_unchanged") {
        return;
    }
    with_bridge(async |netns| {
        let (port, peer) = (Port::new(netns, "port0"), Port::new(netns, "peer0"));
        let mut capture = capture("port0", FrameSet::All);
        let answer = DhcpFrame::answers(ACK, A).bytes();
        let mut learner = Learner::new(dhcp_only(), guest(), Vec::new());
        let now = BootTime(0);
        port.send(&request(7));
        let (way, frame) = next(&mut capture).await.unwrap();
        assert_eq!((way, &frame), (Guest, &request(7)));
        assert_eq!(learner.process_frame(way, &frame, now), None);
        peer.send(&answer);
        let (way, frame) = next(&mut capture).await.unwrap();
        assert_eq!((way, &frame), (Network, &answer));
        let change = learner.process_frame(way, &frame, now);
        assert!(
            matches!(change, Some(AddressChange::Learned(lease)) if lease.address == A),
            "{change:?}"
        );
        // A frame of the maximum length. Its last bytes show that it is complete.
        let mut long = speech(GUEST, A);
        long.resize(1514, 0x55);
        port.send(&long);
        assert_eq!(next(&mut capture).await, Some((Guest, long)));
        capture.select(FrameSet::Dhcp).unwrap();
        port.send(&speech(GUEST, B));
        port.send(&request(8));
        assert_eq!(next(&mut capture).await, Some((Guest, request(8))));
    });
}

#[test]
fn a_flood_of_100000_other_frames_does_not_reach_the_capture() {
    if !have_root("a_flood_of_100000_other_frames_does_not_reach_the_capture") {
        return;
    }
    with_bridge(async |netns| {
        let (port, peer) = (Port::new(netns, "port0"), Port::new(netns, "peer0"));
        let mut capture = capture("port0", FrameSet::All);
        let hostile = [
            speech(OTHER, B),
            arp(OTHER, GUEST, B, 2),
            arp(GUEST, OTHER, B, 2),
            speech(GUEST, Ipv4Addr::new(224, 0, 0, 7)),
            DhcpFrame { from: OTHER, ..DhcpFrame::asks(DISCOVER) }.bytes(),
            DhcpFrame::answers(ACK, B).bytes(),
            tagged(&speech(GUEST, B)),
        ];
        let mut from_peer = DhcpFrame::answers(ACK, B);
        (from_peer.to, from_peer.chaddr) = (EVERYONE, OTHER);
        let inbound = [from_peer.bytes(), tagged(&DhcpFrame::answers(ACK, B).bytes())];
        for (port, frames) in [(&port, &hostile[..]), (&peer, &inbound)] {
            for frame in frames.iter().cycle().take(50_000) {
                port.send(frame);
            }
        }
        port.send(&request(7));
        let mut received = vec![next(&mut capture).await];
        port.send(&request(8));
        received.push(next(&mut capture).await);
        let expected = [request(7), request(8)].map(|frame| Some((Guest, frame)));
        assert_eq!(received, expected, "only the two frames after the flood");
    });
}

/// Adds an 802.1Q tag of VLAN 5.
fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat()
}

#[test]
fn the_capture_never_receives_a_frame_of_another_port() {
    if !have_root("the_capture_never_receives_a_frame_of_another_port") {
        return;
    }
    with_bridge(async |netns| {
        let (port, other) = (Port::new(netns, "port0"), Port::new(netns, "port1"));
        let done = AtomicBool::new(false);
        let received = thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    other.send(&speech(GUEST, B));
                }
            });
            let received: Vec<_> = (0..300)
                .map(|number| {
                    let mut capture = capture("port0", FrameSet::All);
                    port.send(&request(number));
                    let next = async { next(&mut capture).await };
                    futures_util::FutureExt::now_or_never(next).flatten()
                })
                .collect();
            done.store(true, Ordering::Relaxed);
            received
        });
        for (number, received) in (0..).zip(received) {
            assert_eq!(received, Some((Guest, request(number))));
        }
    });
}

#[test]
fn the_capture_ends_when_the_interface_is_removed_but_not_when_it_is_down() {
    if !have_root("the_capture_ends_when_the_interface_is_removed_but_not_when_it_is_down") {
        return;
    }
    with_bridge(async |netns| {
        let port = Port::new(netns, "port0");
        let index = if_nametoindex("port0").unwrap();
        let mut capture = capture("port0", FrameSet::All);
        for number in 0..3 {
            netns.ip("link set port0 down");
            netns.ip("link set port0 up");
            port.send(&request(number));
            assert_eq!(next(&mut capture).await, Some((Guest, request(number))));
        }
        // The interface disappears during the wait, with a frame in the queue.
        let end = async {
            tokio::task::yield_now().await;
            port.send(&request(9));
            drop(port);
        };
        let frames = async { (next(&mut capture).await, next(&mut capture).await) };
        let (frames, ()) = tokio::join!(frames, end);
        assert_eq!(frames, (Some((Guest, request(9))), None));
        // The capture must not receive from a new interface of the same name, not even in a later
        // call.
        let again = Port::new(netns, "port0");
        again.send(&request(10));
        assert_eq!(next(&mut capture).await, None);
        for index in [index, 0, u32::MAX] {
            let error = error_text(
                &Capture::open(index, guest(), GuestFrames::Received, FrameSet::All).unwrap_err(),
            );
            assert!(error.contains(&index.to_string()) && error.lines().count() == 1, "{error}");
        }
    });
}

/// Makes the script of a DHCP client. Returns it and the file in which it writes each event.
fn client_script(dir: &Path) -> (PathBuf, PathBuf) {
    let (script, events) = (dir.join("bound"), dir.join("events"));
    // The client sends a renewal and a release from its address, so the script adds the address.
    let body = format!(
        "#!/bin/sh\n[ \"$1\" != bound ] || ip address add \"$ip/24\" dev eth0\necho \"$1\" >> {}\n",
        events.display()
    );
    let status = Command::new("sh")
        .args(["-c", "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(&script)
        .arg(body)
        .status();
    assert!(status.unwrap().success());
    (script, events)
}

/// Starts dnsmasq, which has one address to lease.
fn dhcp_server(netns: &Netns, leases: &Path) -> Reaped {
    let mut dnsmasq = Command::new("ip");
    dnsmasq.args(["netns", "exec", &netns.name, "dnsmasq", "--no-daemon", "--port=0"]);
    dnsmasq.args(["--conf-file=/dev/null", "--interface=br0", "--bind-interfaces", "--pid-file="]);
    dnsmasq.args(["--dhcp-range=10.5.0.20,10.5.0.20,10m", "--no-ping", "--user=root"]);
    dnsmasq.arg(format!("--dhcp-leasefile={}", leases.display()));
    dnsmasq.stdout(Stdio::null()).stderr(Stdio::null());
    start(dnsmasq)
}

#[test]
fn a_lease_of_dnsmasq_is_learned_renewed_and_released() {
    if !have_root("a_lease_of_dnsmasq_is_learned_renewed_and_released") {
        return;
    }
    if !Path::new("/usr/sbin/dnsmasq").exists()
        || !run("busybox", &["udhcpc", "--help"]).status.success()
    {
        skipped(
            "a_lease_of_dnsmasq_is_learned_renewed_and_released",
            "dnsmasq or busybox with udhcpc is not installed (./tests/setup)",
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (script, events) = client_script(dir.path());
    let outside = Netns::bare();
    with_bridge(async |netns| {
        netns.wire("port0", &outside, "eth0");
        outside.ip("link set eth0 address 52:54:00:11:22:33");
        netns.ip("link set port0 master br0");
        netns.ip("address add 10.5.0.1/24 dev br0");
        let _dnsmasq = dhcp_server(netns, &dir.path().join("leases"));
        let mut capture = capture("port0", FrameSet::Dhcp);
        let mut client = Command::new("ip");
        client.args(["netns", "exec", &outside.name, "busybox", "udhcpc", "-i", "eth0", "-f"]);
        client.args(["-S", "-t", "30", "-T", "1", "-s"]).arg(&script);
        client.stdout(Stdio::null()).stderr(Stdio::null());
        let client = start(client);
        let has = |event: &str| fs::read_to_string(&events).is_ok_and(|all| all.contains(event));
        let tell = |signal| nix::sys::signal::kill(Pid::from_raw(client.pid()), signal).unwrap();
        let hosts = vec!["10.5.0.1/24".parse().unwrap()];
        let mut learner = Learner::new(dhcp_only(), guest(), hosts);
        let mut changes = Vec::new();
        while !matches!(changes.last(), Some(AddressChange::Forgotten(_))) {
            let (way, frame) = next(&mut capture).await.unwrap();
            let now = BootTime::now();
            let Some(change) = learner.process_frame(way, &frame, now) else { continue };
            changes.push(change);
            let (AddressChange::Learned(lease) | AddressChange::Renewed(lease)) = change else {
                continue;
            };
            assert_eq!((lease.address, lease.source), (A, LeaseSource::Dhcp { server: SERVER }));
            assert_eq!(lease.until, Some(BootTime(now.0 + 600)));
            // The client acts on a signal only after it has processed the answer, which the script
            // reports.
            if matches!(change, AddressChange::Learned(_)) {
                assert!(wait_until(LIMIT, || has("bound")), "the client has no address");
                tell(Signal::SIGUSR1);
            } else {
                assert!(wait_until(LIMIT, || has("renew")), "the client has not renewed its lease");
                tell(Signal::SIGUSR2);
            }
        }
        // A slow client may renew more than once.
        let [AddressChange::Learned(_), renewed @ .., AddressChange::Forgotten(A)] = &changes[..]
        else {
            panic!("{changes:?}");
        };
        assert!(!renewed.is_empty(), "{changes:?}");
        assert!(
            renewed.iter().all(|change| matches!(change, AddressChange::Renewed(_))),
            "{changes:?}"
        );
        let leases = dir.path().join("leases");
        let forgot = || fs::read_to_string(&leases).is_ok_and(|text| text.is_empty());
        assert!(wait_until(LIMIT, forgot), "the server still has the lease");
    });
}
