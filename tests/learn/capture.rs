//! The capture on real ports, in network namespaces. That a frame is not received shows in what is
//! received next: one that was sent behind it.

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use netlaunch::learn::Direction::{self, FromGuest, ToGuest};
use netlaunch::learn::{Capture, Change, Interest, Learner, Teacher, UnixTime};
use netlaunch::process::tap::{TUN, Tap, TapName};
use nix::net::if_::if_nametoindex;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::common::dhcp_frame::{
    ACK, DISCOVER, DhcpFrame, EVERYONE, GUEST, OTHER, REQUEST, arp, speech,
};
use crate::common::{Netns, have_root, run, start, wait_until};
use crate::{A, B, dhcp_only, guest};

/// What has to come comes within this.
const LIMIT: Duration = Duration::from_secs(30);

/// A tap, written to as a guest does.
struct Port(File);

impl Port {
    /// Makes it in the thread's namespace, switches it on and puts it on the bridge.
    fn new(netns: &Netns, name: &str) -> Self {
        let tap = Tap::open(Path::new(TUN), &TapName::Exact(name.parse().unwrap())).unwrap();
        netns.ip(&format!("link set {name} master br0 up"));
        Port(tap.into_fd().into())
    }

    fn send(&self, frame: &[u8]) {
        // Behind a virtio header without any offload.
        (&self.0).write_all(&[&[0; 10], frame].concat()).unwrap();
    }
}

/// Runs something in a namespace with a bridge br0 without IPv6, within a runtime.
fn beside_a_bridge(work: impl AsyncFnOnce(&Netns) + Send) {
    let netns = Netns::bare();
    netns.says("sysctl", &["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
    netns.ip("link add br0 type bridge forward_delay 0 mcast_snooping 0");
    netns.ip("link set br0 up");
    netns.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work(&netns));
    });
}

fn capture(port: &str, interest: Interest) -> Capture {
    Capture::open(if_nametoindex(port).unwrap(), guest(), interest).unwrap()
}

/// The next frame; `None` when the interface is gone.
async fn next(capture: &mut Capture) -> Option<(Direction, Vec<u8>)> {
    let next = tokio::time::timeout(LIMIT, capture.next()).await.expect("nothing comes");
    next.unwrap().map(|(way, frame)| (way, frame.to_vec()))
}

fn request(transaction: u32) -> Vec<u8> {
    DhcpFrame { transaction, ..DhcpFrame::asks(REQUEST) }.bytes()
}

#[test]
fn frames_of_both_directions_come_as_they_were_sent() {
    if !have_root("frames_of_both_directions_come_as_they_were_sent") {
        return;
    }
    beside_a_bridge(async |netns| {
        let (port, peer) = (Port::new(netns, "port0"), Port::new(netns, "peer0"));
        let mut capture = capture("port0", Interest::All);
        let answer = DhcpFrame::answers(ACK, A).bytes();
        let mut learner = Learner::new(dhcp_only(), guest(), Vec::new());
        let now = UnixTime(0);
        port.send(&request(7));
        let (way, frame) = next(&mut capture).await.unwrap();
        assert_eq!((way, &frame), (FromGuest, &request(7)));
        assert_eq!(learner.see(way, &frame, now), None);
        peer.send(&answer);
        let (way, frame) = next(&mut capture).await.unwrap();
        assert_eq!((way, &frame), (ToGuest, &answer));
        let change = learner.see(way, &frame, now);
        assert!(matches!(change, Some(Change::Learnt(lease)) if lease.address == A), "{change:?}");
        // The longest there is. It is told apart from a cut one by its end.
        let mut long = speech(GUEST, A);
        long.resize(1514, 0x55);
        port.send(&long);
        assert_eq!(next(&mut capture).await, Some((FromGuest, long)));
        capture.narrow(Interest::Dhcp).unwrap();
        port.send(&speech(GUEST, B));
        port.send(&request(8));
        assert_eq!(next(&mut capture).await, Some((FromGuest, request(8))));
    });
}

#[test]
fn a_flood_of_100000_frames_that_do_not_concern_it_gives_nothing() {
    if !have_root("a_flood_of_100000_frames_that_do_not_concern_it_gives_nothing") {
        return;
    }
    beside_a_bridge(async |netns| {
        let (port, peer) = (Port::new(netns, "port0"), Port::new(netns, "peer0"));
        let mut capture = capture("port0", Interest::All);
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
        // A busy client asks once more.
        let [Change::Learnt(_), renewed @ .., Change::Forgotten(A)] = &changes[..] else {
            panic!("{changes:?}");
        };
        assert!(!renewed.is_empty(), "{changes:?}");
        assert!(renewed.iter().all(|change| matches!(change, Change::Renewed(_))), "{changes:?}");
        let leases = dir.path().join("leases");
        let forgot = || fs::read_to_string(&leases).is_ok_and(|text| text.is_empty());
        assert!(wait_until(LIMIT, forgot), "the server has not forgotten it");
    });
}
