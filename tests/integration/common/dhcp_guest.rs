//! A guest without QEMU: a namespace behind a port of a network's bridge, with DHCP clients.

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::network_host::NetworkHost;
use super::scene::Scene;
use super::{AT_MOST, Netns, run, text, wait_until};

/// A namespace whose `eth0` is wired to a port of the bridge `nlt0`.
pub struct DhcpGuest {
    pub netns: Netns,
}

impl DhcpGuest {
    /// Wires it; `last` is the last byte of its MAC address 52:54:00:00:00:xx.
    pub fn new(host: &NetworkHost, last: u8) -> Self {
        let netns = Netns::bare();
        host.netns.ip(&format!(
            "link add port{last} type veth peer name eth0 address 52:54:00:00:00:{last:02x} netns {}",
            netns.name
        ));
        host.netns.ip(&format!("link set port{last} master nlt0"));
        host.netns.ip(&format!("link set port{last} up"));
        netns.ip("link set eth0 up");
        DhcpGuest { netns }
    }

    /// Gets a lease over IPv4 and sets it; returns the address. `more` are options of udhcpc.
    pub fn lease(&self, more: &[&str]) -> String {
        lease(&self.netns, more)
    }

    /// Gets the lease over IPv4 again, and gives it back.
    pub fn release(&self) {
        let udhcpc = "busybox udhcpc -i eth0 -f -t 10 -T 1 -s /bin/true";
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns.name]).args(udhcpc.split(' '));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let scene = Scene::start(command);
        let said = |word: &str| scene.said().contains(word);
        assert!(wait_until(AT_MOST, || said("lease of")), "{}", scene.said());
        kill(Pid::from_raw(scene.pid()), Signal::SIGUSR2).unwrap();
        assert!(wait_until(AT_MOST, || said("elease")), "{}", scene.said());
        // udhcpc says so before it sends the message, and then waits for a signal.
        std::thread::sleep(Duration::from_millis(200));
    }

    /// Gets a lease over IPv6 as [`lease_v6`] does, with a DUID of the type DUID-LL with the MAC
    /// address of `eth0`; returns the reply.
    pub fn lease_v6(&self, last: u8, iaid: u32) -> Vec<u8> {
        lease_v6(&self.netns, &[0, 3, 0, 1, 0x52, 0x54, 0, 0, 0, last], iaid)
    }
}

/// Gets a lease over IPv4 for `eth0` of a namespace and sets it; returns the address. `more` are
/// options of udhcpc.
pub fn lease(netns: &Netns, more: &[&str]) -> String {
    let udhcpc = "busybox udhcpc -i eth0 -n -q -f -t 20 -T 1 -s /bin/true";
    let mut argv = vec!["netns", "exec", &netns.name];
    argv.extend(udhcpc.split(' '));
    argv.extend(more);
    let said = run("ip", &argv);
    let said = text(&said.stdout) + &text(&said.stderr);
    let lease = said.split("lease of ").nth(1).and_then(|rest| rest.split(' ').next());
    let lease = lease.unwrap_or_else(|| panic!("no lease: {said}")).to_owned();
    netns.ip(&format!("address replace {lease}/24 dev eth0"));
    lease
}

/// Gets a lease over IPv6 for `eth0` of a namespace with one message (rapid commit, RFC 8415,
/// 18.2.1) and this DUID; returns the reply.
pub fn lease_v6(netns: &Netns, duid: &[u8], iaid: u32) -> Vec<u8> {
    let ready = || {
        let addresses = netns.says("ip", &["-6", "-o", "address", "show", "dev", "eth0"]);
        addresses.contains("fe80:") && !addresses.contains("tentative")
    };
    assert!(wait_until(AT_MOST, ready));
    netns.inside(|| {
        let index = nix::net::if_::if_nametoindex("eth0").unwrap();
        let socket = UdpSocket::bind("[::]:546").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut message = vec![1, 1, 2, 3];
        let mut option = |code: u16, value: &[u8]| {
            message.extend(code.to_be_bytes());
            message.extend((value.len() as u16).to_be_bytes());
            message.extend(value);
        };
        option(1, duid);
        option(3, &[&iaid.to_be_bytes()[..], &[0; 8]].concat());
        option(8, &[0, 0]);
        option(14, &[]);
        let servers: Ipv6Addr = "ff02::1:2".parse().unwrap();
        let mut reply = vec![0; 1500];
        for _ in 0..15 {
            let _ = socket.send_to(&message, SocketAddrV6::new(servers, 547, 0, index));
            if let Ok((length, _)) = socket.recv_from(&mut reply)
                && reply[0] == 7
            {
                reply.truncate(length);
                return reply;
            }
        }
        panic!("no reply of a DHCPv6 server");
    })
}
