//! Makes a bridge with a guest's port and a neighbour's port, and sends frames through it.
//!
//! ```text
//! vm ──── vnet0 [br0] peer0 ──── peer
//! ```
//!
//! The bridge works as a hub (it forgets addresses at once) and has no address of its own. So each
//! frame that a filter passes arrives at the other end.
//!
//! Or a macvtap without a bridge is the port, whose mode passes every frame:
//!
//! ```text
//! vm ─ vnet0 (macvtap) ─ peer0 ──── peer
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use netlaunch::firewall::port_nft::{Extras, PortTables};
use netlaunch::firewall::rules::port::PortRules;
use netlaunch::firewall::{
    Beside, FirewallBackend, PortFilter, PortHooks, PortPlan, PortRecord, Tools,
};
use netlaunch::nwfilter::explain::EvalPath;
use netlaunch::types::error_text;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
    setsockopt, socket, sockopt,
};

use super::frames::GUEST;
use crate::common::Netns;
use crate::common::macvtap::{plug_above, read_frames, write_frame};

/// The mark in a frame's payload, in front of its number.
pub const MARK: &[u8; 4] = b"NLa~";

pub struct Wire {
    netns: Netns,
    vm: End,
    peer: End,
    index: u32,
    hooks: PortHooks,
}

/// An end of the wire.
enum End {
    /// A packet socket on an interface.
    Socket(OwnedFd),
    /// The queue of a macvtap.
    Queue(File),
}

impl Wire {
    pub fn new() -> Self {
        let netns = without_ipv6();
        netns.ip("link add br0 address 52:54:00:00:00:fe type bridge ageing_time 0 stp_state 0 mcast_snooping 0 forward_delay 0");
        netns.ip("link add vnet0 type veth peer name vm");
        netns.ip("link add peer0 type veth peer name peer");
        for port in ["vnet0", "peer0"] {
            netns.ip(&format!("link set {port} master br0"));
        }
        for link in ["vm", "peer", "br0"] {
            netns.ip(&format!("link set {link} arp off"));
        }
        for link in ["br0", "vnet0", "peer0", "vm", "peer"] {
            netns.ip(&format!("link set {link} up"));
        }
        let (vm, peer, index) = netns.inside(|| {
            for (path, value) in [
                ("bridge/bridge-nf-call-iptables", "1"),
                ("bridge/bridge-nf-call-ip6tables", "1"),
                ("bridge/bridge-nf-filter-vlan-tagged", "0"),
            ] {
                fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
            }
            (station("vm"), station("peer"), if_nametoindex("vnet0").unwrap())
        });
        Wire { netns, vm, peer, index, hooks: PortHooks::Bridge }
    }

    /// A wire whose port is a macvtap.
    pub fn on_macvtap() -> Self {
        let netns = without_ipv6();
        netns.ip("link add peer0 type veth peer name peer");
        let vm = End::Queue(plug_above(&netns, "vnet0", "peer0", "passthru", GUEST));
        for link in ["peer0", "peer", "vnet0"] {
            netns.ip(&format!("link set {link} arp off"));
            netns.ip(&format!("link set {link} up"));
        }
        let (peer, index) = netns.inside(|| (station("peer"), if_nametoindex("vnet0").unwrap()));
        Wire { netns, vm, peer, index, hooks: PortHooks::Interface }
    }

    /// Sets these rules for the port, or removes the `old` ones.
    pub fn apply(
        &self,
        backend: FirewallBackend,
        rules: Option<&PortRules>,
        old: &[PortRecord],
    ) -> Result<Vec<PortRecord>, String> {
        let filter = |rules: &PortRules| PortFilter {
            index: self.index,
            port: "vnet0".parse().unwrap(),
            rules: rules.clone().into(),
            backend,
            hooks: self.hooks,
            tables: PortTables::default(),
        };
        let filters: Vec<_> = rules.map(filter).into_iter().collect();
        let extras = Extras { trace: false, counters: false, reject: true };
        let plan = PortPlan::new(&filters, extras).unwrap();
        let applied = self.netns.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let path = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(Into::into);
            let tools = Tools::find(&path);
            let beside = Beside::default();
            let old: Vec<_> = old.iter().collect();
            let applied = plan.apply(&tools, &old, &beside);
            runtime.unwrap().block_on(applied).map_err(|error| error_text(&error))
        });
        applied.map(|()| plan.recorded().to_vec())
    }

    /// Makes connection tracking, once in use, accept every checksum, because the frames have none.
    pub fn trust_checksums(&self) {
        self.netns.inside(|| {
            // Without connection tracking, the setting is missing and not needed.
            let _ = fs::write("/proc/sys/net/netfilter/nf_conntrack_checksum", "0");
        });
    }

    /// Sends the frames one after another and returns which of them arrived at the other end. It
    /// waits for the frames that `expected` lists.
    pub fn replay(&self, frames: &[(EvalPath, Vec<u8>)], expected: &[bool]) -> Vec<bool> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    // On one processor, the links deliver frames in the order of sending.
                    let mut one = nix::sched::CpuSet::new();
                    one.set(0).unwrap();
                    let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &one);
                    self.replay_here(frames, expected)
                })
                .join()
                .unwrap()
        })
    }

    fn replay_here(&self, frames: &[(EvalPath, Vec<u8>)], expected: &[bool]) -> Vec<bool> {
        let mut seen = vec![false; frames.len()];
        let drain = |seen: &mut Vec<bool>| {
            for (way, end) in [(EvalPath::Out, &self.peer), (EvalPath::In, &self.vm)] {
                for number in end.heard() {
                    if frames.get(number).is_some_and(|(sent, _)| *sent == way) {
                        seen[number] = true;
                    }
                }
            }
        };
        drain(&mut Vec::new());
        for (number, (way, bytes)) in frames.iter().enumerate() {
            let from = if *way == EvalPath::Out { &self.vm } else { &self.peer };
            from.send(bytes);
            if number % 32 == 31 {
                drain(&mut seen);
            }
        }
        let end = Instant::now() + Duration::from_secs(2);
        loop {
            drain(&mut seen);
            let missing = (0..frames.len()).any(|number| expected[number] && !seen[number]);
            if !missing || Instant::now() > end {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // A forbidden frame would have arrived by now, too, because frames stay in order.
        drain(&mut seen);
        seen
    }
}

fn without_ipv6() -> Netns {
    let netns = Netns::bare();
    netns.inside(|| {
        // The setting is missing if the kernel has no IPv6.
        let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    });
    netns
}

impl End {
    fn send(&self, bytes: &[u8]) {
        match self {
            End::Socket(socket) => {
                send(socket.as_raw_fd(), bytes, MsgFlags::empty()).unwrap();
            }
            End::Queue(queue) => write_frame(queue, bytes),
        }
    }

    fn heard(&self) -> BTreeSet<usize> {
        match self {
            End::Socket(socket) => heard(socket),
            End::Queue(queue) => read_frames(queue).iter().flat_map(|frame| marks(frame)).collect(),
        }
    }
}

/// Opens a socket that sends and receives all frames at an interface.
fn station(name: &str) -> End {
    let (family, kind) = (AddressFamily::Packet, SockType::Raw);
    let socket = socket(family, kind, SockFlag::SOCK_NONBLOCK, SockProtocol::EthAll).unwrap();
    setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).unwrap();
    let address = getifaddrs()
        .unwrap()
        .filter(|found| found.interface_name == name)
        .find_map(|found| found.address?.as_link_addr().copied())
        .unwrap();
    bind(socket.as_raw_fd(), &address).unwrap();
    End::Socket(socket)
}

/// Returns the numbers that are in a frame.
fn marks(frame: &[u8]) -> Vec<usize> {
    let found = frame.windows(8).filter(|at| at[..4] == *MARK);
    found.map(|at| u32::from_be_bytes([at[4], at[5], at[6], at[7]]) as usize).collect()
}

/// Returns the numbers of the frames that arrived at a socket.
fn heard(socket: &OwnedFd) -> BTreeSet<usize> {
    const OUTGOING: u8 = 4;
    let mut numbers = BTreeSet::new();
    let mut bytes = [0; 4096];
    loop {
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut bytes) {
            Ok((length, from)) => {
                if from.is_some_and(|from| from.pkttype() == OUTGOING) {
                    continue;
                }
                numbers.extend(marks(&bytes[..length]));
            }
            Err(Errno::EAGAIN) => return numbers,
            Err(Errno::EINTR | Errno::ENETDOWN) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
