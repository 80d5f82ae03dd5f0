//! Binds many filters at the same time and sends frames through them.
//!
//! ```text
//! guest ── vnet0 [br0] peer0 ── peer        guest ── vnet1 [br1] peer1 ── peer   …
//! ```
//!
//! Each filter has a bridge of its own, whose two ports are taps of the test. The kernel handles a
//! frame that the test writes to one tap before the write returns, and puts it into the queue of
//! the other tap. So no frame is waited for: it has arrived, or it was dropped.
//!
//! A bridge forwards the link-local frames that it can forward (group_fwd_mask), and has neither
//! addresses nor IPv6, so it sends nothing itself.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use netlaunch::firewall::port_nft::PortTables;
use netlaunch::firewall::rules::port::PortRules;
use netlaunch::firewall::{
    Beside, FirewallBackend, PortFilter, PortHooks, PortPlan, PortRecord, Tools,
};
use netlaunch::nwfilter::explain::EvalPath;
use netlaunch::sys::tap::{TUN, Tap, TapName};
use netlaunch::types::error_text;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use super::case::EXTRAS;
use crate::common::port_scene::VNET_HEADER;
use crate::common::{Netns, run, text};

/// The number of filters that are bound at the same time.
pub const PORTS: usize = 40;

pub struct Bench {
    pub backend: FirewallBackend,
    netns: Netns,
    pairs: Vec<Pair>,
    records: Vec<PortRecord>,
    path: Vec<PathBuf>,
    /// The kernel's interface to the connections of the namespace, if the bench tracks these.
    tracking: Option<OwnedFd>,
}

struct Pair {
    guest: File,
    peer: File,
    index: u32,
}

impl Bench {
    /// Makes a bench for stateful rules.
    pub fn tracking(backend: FirewallBackend) -> Self {
        let mut bench = Bench::new(backend);
        let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
        let protocol = SockProtocol::NetlinkNetFilter;
        let open = || socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
        bench.tracking = Some(bench.netns.inside(open));
        bench
    }

    /// Makes a bench for one backend. The last pair has no filter.
    pub fn new(backend: FirewallBackend) -> Self {
        let netns = Netns::bare();
        let calls = if backend == FirewallBackend::Iptables { "1" } else { "0" };
        netns.inside(|| {
            let settings = [
                ("ipv6/conf/default/disable_ipv6", "1"),
                ("bridge/bridge-nf-call-iptables", calls),
                ("bridge/bridge-nf-call-ip6tables", calls),
                ("bridge/bridge-nf-filter-vlan-tagged", "0"),
            ];
            for (file, value) in settings {
                // A kernel without IPv6 or br_netfilter lacks these settings.
                let _ = fs::write(format!("/proc/sys/net/{file}"), value);
            }
        });
        let open = |name: String| Tap::open(Path::new(TUN), &TapName::Exact(name.parse().unwrap()));
        let pairs: Vec<Pair> = netns.inside(|| {
            let pair = |number| {
                let guest = open(format!("vnet{number}")).unwrap();
                let peer = open(format!("peer{number}")).unwrap();
                let index = guest.index();
                Pair { guest: guest.into_fd().into(), peer: peer.into_fd().into(), index }
            };
            (0..=PORTS).map(pair).collect()
        });
        let mut lines = String::new();
        for number in 0..=PORTS {
            let _ = writeln!(
                lines,
                "link add br{number} type bridge ageing_time 0 stp_state 0 mcast_snooping 0 forward_delay 0 group_fwd_mask 65528\n\
                 link set br{number} arp off up\n\
                 link set vnet{number} master br{number} up\n\
                 link set peer{number} master br{number} up"
            );
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), lines).unwrap();
        let output = run("ip", &["-n", &netns.name, "-batch", file.path().to_str().unwrap()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let path = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from).to_vec();
        Bench { backend, netns, pairs, records: Vec::new(), path, tracking: None }
    }

    /// Replaces all filters: the first port gets the first rules, and so on.
    pub fn apply(&mut self, all: &[Option<&PortRules>]) -> Result<(), String> {
        assert!(all.len() <= PORTS);
        let filters: Vec<_> = all
            .iter()
            .enumerate()
            .filter_map(|(number, rules)| {
                Some(PortFilter {
                    index: self.pairs[number].index,
                    port: format!("vnet{number}").parse().unwrap(),
                    rules: (*rules)?.clone().into(),
                    backend: self.backend,
                    hooks: PortHooks::Bridge,
                    tables: PortTables::default(),
                })
            })
            .collect();
        let plan = PortPlan::new(&filters, EXTRAS).map_err(|error| error_text(&error))?;
        let (tools, records) = (Tools::find(&self.path), &self.records);
        self.netns.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let beside = Beside::default();
            let records: Vec<_> = records.iter().collect();
            let applied = plan.apply(&tools, &records, &beside);
            runtime.unwrap().block_on(applied).map_err(|error| error_text(&error))
        })?;
        self.records = plan.recorded().to_vec();
        if self.tracking.is_some() {
            // The frames have no checksums. Rules that track connections have loaded the module.
            const CHECKSUM: &str = "/proc/sys/net/netfilter/nf_conntrack_checksum";
            self.netns.inside(|| fs::write(CHECKSUM, "0")).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Removes all connections. The interface is that of linux/netfilter/nfnetlink_conntrack.h.
    pub fn forget(&self) {
        let Some(socket) = &self.tracking else { return };
        const DELETE: u16 = 1 << 8 | 2;
        const REQUEST_AND_ACK: u16 = 1 | 4;
        let head = [20u32.to_ne_bytes(), [0; 4], [0; 4], [0; 4], [0; 4]];
        let mut message = head.concat();
        message[4..6].copy_from_slice(&DELETE.to_ne_bytes());
        message[6..8].copy_from_slice(&REQUEST_AND_ACK.to_ne_bytes());
        send(socket.as_raw_fd(), &message, MsgFlags::empty()).unwrap();
        let mut answer = [0; 1024];
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap();
        assert!(length >= 20 && answer[16..20] == [0; 4], "{:?}", &answer[..length]);
    }

    /// Returns whether a frame passes the port with this number.
    pub fn passes(&self, port: usize, way: EvalPath, frame: &[u8]) -> bool {
        let pair = &self.pairs[port];
        let (mut from, to) = match way {
            EvalPath::Out => (&pair.guest, &pair.peer),
            EvalPath::In => (&pair.peer, &pair.guest),
        };
        let bytes = [&[0; VNET_HEADER], frame].concat();
        // The kernel refuses a frame without a whole header.
        if from.write(&bytes).is_err() {
            return false;
        }
        // A filter that rejects may answer the sender.
        drain(from);
        drain(to)
    }

    /// Returns whether the bridge forwards a frame without a filter.
    pub fn forwards(&self, way: EvalPath, frame: &[u8]) -> bool {
        self.passes(PORTS, way, frame)
    }
}

/// Returns whether a tap has frames, and removes these.
fn drain(mut tap: &File) -> bool {
    let mut buffer = [0; 8192];
    let mut found = false;
    loop {
        match tap.read(&mut buffer) {
            Ok(_) => found = true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return found,
            Err(error) => panic!("{error}"),
        }
    }
}
