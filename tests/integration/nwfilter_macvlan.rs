//! Tests filters on macvlan ports, whose frames a program of the same network namespace sends and
//! receives: with UDP sockets, and with packet sockets that name a false protocol for their frames.

use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

use crate::common::frame::{Frame, Host, PEER, VM, mac_text};
use crate::common::macvtap::have_macvtap;
use crate::common::{As, Netns, Sandbox, finish, text, wait_until};

/// A namespace with the macvlan m0, and another with the far end of the interface below it.
struct Scene {
    inside: Netns,
    outside: Netns,
    sandbox: Sandbox,
    far: OwnedFd,
}

impl Scene {
    fn new(mode: &str) -> Self {
        let (inside, outside) = (Netns::bare(), Netns::bare());
        for netns in [&inside, &outside] {
            netns.inside(|| {
                std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap()
            });
        }
        inside.wire("low0", &outside, "far0");
        let mac = mac_text(VM.mac);
        inside.ip(&format!("link add link low0 name m0 address {mac} type macvlan mode {mode}"));
        inside.ip("link set m0 up");
        inside.ip(&format!("address add {}/24 dev m0", VM.v4));
        outside.ip(&format!("link set far0 address {}", mac_text(PEER.mac)));
        outside.ip(&format!("address add {}/24 dev far0", PEER.v4));
        let sandbox = Sandbox::new(As::Root, Some(&inside));
        let far = outside.inside(|| packet_socket(SockProtocol::EthAll));
        Scene { inside, outside, sandbox, far }
    }

    fn nwfilter(&self, args: &[&str]) {
        let output = finish(self.sandbox.netlaunch(&[&["nwfilter"], args].concat()));
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    }

    fn bind(&self, filter: &str) {
        let file = self.sandbox.path("binding.xml");
        let (mac, address) = (mac_text(VM.mac), VM.v4);
        let xml = format!(
            "<filterbinding><portdev name='m0'/><mac address='{mac}'/><filterref \
             filter='{filter}'><parameter name='IP' value='{address}'/></filterref></filterbinding>"
        );
        std::fs::write(&file, xml).unwrap();
        self.nwfilter(&["binding-create", &file.to_string_lossy()]);
    }

    /// Whether a frame from a packet socket comes to the far end.
    fn leaves(&self, frame: &Frame, claim: Claim) -> bool {
        let nonce = b"nltest-macvlan";
        let bytes = frame.bytes(nonce);
        while recv(self.far.as_raw_fd(), &mut [0; 2048], MsgFlags::empty()).is_ok() {}
        self.inside.inside(|| claim.send("m0", &bytes));
        let mut buffer = [0; 2048];
        wait_until(Duration::from_millis(300), || {
            while let Ok(length) = recv(self.far.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                if buffer[..length].windows(nonce.len()).any(|window| window == nonce) {
                    return true;
                }
            }
            false
        })
    }
}

/// The protocol that the sender names to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// The protocol of the header.
    None,
    /// This protocol.
    Protocol(u16),
    /// This protocol, and the frame passes by the queues of the interface.
    Bypass(u16),
}

impl Claim {
    /// Sends the frame with Python, whose sockets can name the protocol of each frame.
    fn send(self, port: &str, bytes: &[u8]) {
        let own = u16::from_be_bytes([bytes[12], bytes[13]]);
        let (protocol, bypass) = match self {
            Claim::None => (own, 0),
            Claim::Protocol(protocol) => (protocol, 0),
            Claim::Bypass(protocol) => (protocol, 1),
        };
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // 263 is SOL_PACKET, and 20 PACKET_QDISC_BYPASS. A filter's drop fails the call.
        let program = format!(
            "import socket\n\
             s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)\n\
             s.setsockopt(263, 20, {bypass})\n\
             try: s.sendto(bytes.fromhex('{hex}'), ('{port}', {protocol}))\n\
             except OSError as error: assert error.errno == 105, error\n"
        );
        let output = crate::common::run("python3", &["-c", &program]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

fn packet_socket(protocol: SockProtocol) -> OwnedFd {
    let flags = SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Packet, SockType::Raw, flags, protocol).unwrap()
}

const NO_DNS: &str = "<filter name='no-dns'>
    <rule action='drop' direction='out'><udp dstportstart='53'/></rule>
    <rule action='drop' direction='in'><udp srcportstart='53'/></rule>
</filter>";

#[test]
fn a_macvlan_is_filtered_in_both_directions() {
    if !have_macvtap("a_macvlan_is_filtered_in_both_directions") {
        return;
    }
    for mode in ["bridge", "vepa", "private", "passthru"] {
        let scene = Scene::new(mode);
        // The name of this interface is the number of m0.
        let number = scene.inside.says("cat", &["/sys/class/net/m0/ifindex"]);
        scene.inside.ip(&format!("link add name {} type bridge", number.trim()));
        let file = scene.sandbox.path("filter.xml");
        std::fs::write(&file, NO_DNS).unwrap();
        scene.nwfilter(&["define", &file.to_string_lossy()]);
        let open = |netns: &Netns, host: Host, port: u16| {
            let socket = netns.inside(|| UdpSocket::bind((host.v4, port)).unwrap());
            socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
            socket
        };
        let own = open(&scene.inside, VM, 2000);
        let (dns, other) = (open(&scene.outside, PEER, 53), open(&scene.outside, PEER, 54));
        let passes = |from: &UdpSocket, to: &UdpSocket| {
            let _ = from.send_to(b"hello", to.local_addr().unwrap());
            to.recv(&mut [0; 16]).is_ok()
        };
        // Resolves the addresses.
        assert!(passes(&own, &dns) && passes(&dns, &own) && passes(&own, &other), "{mode}");
        scene.bind("no-dns");
        assert!(!passes(&own, &dns) && !passes(&dns, &own), "{mode}");
        assert!(passes(&own, &other) && passes(&other, &own), "{mode}");
        scene.nwfilter(&["binding-delete", "m0"]);
        assert!(passes(&own, &dns) && passes(&dns, &own), "{mode}");
    }
}

#[test]
fn a_false_protocol_of_a_packet_socket_does_not_evade_the_filter() {
    if !have_macvtap("a_false_protocol_of_a_packet_socket_does_not_evade_the_filter") {
        return;
    }
    let scene = Scene::new("bridge");
    let file = scene.sandbox.path("filter.xml");
    std::fs::write(&file, NO_DNS).unwrap();
    scene.nwfilter(&["define", &file.to_string_lossy()]);
    let forbidden = Frame::udp(VM, PEER, 1, 53);
    let claims = [
        Claim::None,
        Claim::Protocol(0x1234),
        Claim::Protocol(0x8100),
        Claim::Protocol(0x86dd),
        Claim::Protocol(0x0800),
        Claim::Bypass(0x0800),
        Claim::Bypass(0x1234),
        Claim::Bypass(0),
    ];
    for claim in claims {
        assert!(scene.leaves(&forbidden, claim), "without a filter: {claim:?}");
    }
    scene.bind("no-dns");
    for claim in claims {
        assert!(!scene.leaves(&forbidden, claim), "{claim:?}");
    }
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 54), Claim::None));
    assert!(scene.leaves(&Frame::arp(VM, PEER, 1), Claim::None));
    scene.nwfilter(&["binding-delete", "m0"]);
    scene.bind("clean-traffic");
    for claim in claims {
        let stranger = Host { v4: PEER.v4, ..VM };
        for forged in [Frame::arp(stranger, PEER, 1), Frame::udp(stranger, PEER, 1, 2)] {
            assert!(!scene.leaves(&forged, claim), "{claim:?}: {forged:?}");
        }
    }
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 53), Claim::None));
}
