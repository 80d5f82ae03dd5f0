//! Tests the IPv6 addresses of a guest with two user-mode NICs: no address is on both NICs.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Ipv6Addr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::dhcp_frame::ethernet;
use crate::common::scene::{
    HOST, Scene, command_line, launch, netns_with_resolver, nothing_left, passt_option,
};
use crate::common::{As, Guest, Netns, Reaped, Sandbox, have_root, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
/// The address of the host, which passt gives to a guest by DHCPv6.
const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

fn netns() -> Netns {
    let netns = netns_with_resolver(HOST);
    netns.ip(&format!("-6 address add {HOST_V6}/64 dev up0 nodad"));
    netns.ip("-6 route add default via 2001:db8::1 dev up0");
    netns
}

/// The Internet checksum of an IPv6 packet's body (RFC 8200, section 8.1).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, next: u8, body: &[u8]) -> u16 {
    let length = (body.len() as u32).to_be_bytes();
    let pseudo = [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, next], body].concat();
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
    let mut sum: u32 = pseudo.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An IPv6 packet of the guest to a group, as passt's socket takes it: the length, then the frame.
fn packet(to: Ipv6Addr, next: u8, checksum_at: usize, body: &[u8]) -> Vec<u8> {
    let from: Ipv6Addr = "fe80::5054:ff:fe01:203".parse().unwrap();
    let mut body = body.to_vec();
    let sum = checksum(from, to, next, &body);
    body[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
    let length = (body.len() as u16).to_be_bytes();
    let header = [&[0x60, 0, 0, 0][..], &length, &[next, 255]].concat();
    let whole = [&header[..], &from.octets(), &to.octets(), &body].concat();
    let group = [0x33, 0x33, to.octets()[12], to.octets()[13], to.octets()[14], to.octets()[15]];
    let frame = ethernet(group, GUEST_MAC, 0x86dd, &whole);
    [&(frame.len() as u32).to_be_bytes()[..], &frame].concat()
}

/// A DHCPv6 Solicit for one address (RFC 8415).
fn solicit() -> Vec<u8> {
    let client = [&[0, 1, 0, 10, 0, 3, 0, 1][..], &GUEST_MAC].concat();
    let address = [&[0, 3, 0, 12, 0, 0, 0, 1][..], &[0; 8]].concat();
    let message = [&[1, 0, 0, 7][..], &client, &address].concat();
    let length = (8 + message.len() as u16).to_be_bytes();
    let body = [&546u16.to_be_bytes()[..], &547u16.to_be_bytes(), &length, &[0, 0], &message];
    packet("ff02::1:2".parse().unwrap(), 17, 6, &body.concat())
}

/// A router solicitation (RFC 4861), whose answer shows that an answer to the packet before it
/// would have come.
fn router_solicitation() -> Vec<u8> {
    packet("ff02::2".parse().unwrap(), 58, 2, &[133, 0, 0, 0, 0, 0, 0, 0])
}

/// Asks passt for an address by DHCPv6; `None` if only the router answers.
fn dhcpv6(socket: &str) -> Option<Ipv6Addr> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(&solicit()).unwrap();
    stream.write_all(&router_solicitation()).unwrap();
    let mut given = None;
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut frame).unwrap();
        // After 14 bytes of Ethernet and 40 of IPv6.
        match (frame.get(12..14), frame.get(20)) {
            (Some([0x86, 0xdd]), Some(58)) if frame[54] == 134 => return given,
            (Some([0x86, 0xdd]), Some(17)) => {
                // The option for an address has 24 bytes.
                let at = frame.windows(4).position(|word| word == [0, 5, 0, 24]).unwrap();
                let address: [u8; 16] = frame[at + 4..at + 20].try_into().unwrap();
                given = Some(address.into());
            }
            _ => {}
        }
    }
}

#[test]
fn only_the_first_passt_gives_the_hosts_address_by_dhcpv6() {
    if !have_root("only_the_first_passt_gives_the_hosts_address_by_dhcpv6") {
        return;
    }
    let netns = netns();
    let sandbox = Sandbox::new(As::Root, Some(&netns));
    let passt = passt_option();
    let mut args = vec!["--net", "passt", "--net", "slirp", "--net", "passt"];
    args.extend(passt.iter().map(String::as_str));
    let serving = Reaped(sandbox.netlaunch(&args).spawn().unwrap());
    let sockets = || -> Vec<String> {
        let output = crate::common::finish(sandbox.netlaunch(&["ps", "--json"]));
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        let Some(nics) = shown["launches"][0]["nics"].as_array() else { return Vec::new() };
        let dir = sandbox.state().join(&sandbox.launch_dirs()[0]);
        let passts = nics.iter().filter(|nic| nic["passt"]["pid"].is_number()).count();
        let name = |n| if n == 1 { "passt.sock".to_owned() } else { format!("passt-{n}.sock") };
        let all = (1..=passts).map(|n| dir.join(name(n)).to_string_lossy().into_owned());
        all.collect()
    };
    assert!(wait_until(LIMIT, || sockets().len() == 2), "two passts do not serve");
    let given: Vec<_> = sockets().iter().map(|socket| dhcpv6(socket)).collect();
    assert_eq!(given, [Some(HOST_V6), None]);
    let pid = Pid::from_raw(serving.0.id() as i32);
    kill(pid, Signal::SIGTERM).unwrap();
    let output = serving.output(LIMIT);
    assert!(output.status.code().is_some(), "{output:?}");
    nothing_left(&sandbox);
}

/// The guest's own kernel makes its addresses from the announced prefixes.
#[test]
fn a_guest_has_different_addresses_on_two_nics() {
    let test = "a_guest_has_different_addresses_on_two_nics";
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return };
    let script = "ip link set eth1 up\n\
        for nic in eth0 eth1; do for try in 1 2 3 4 5 6 7 8 9 10; do\n\
        here=$(ip -6 address show dev $nic | grep -v fe80: | grep -o 'inet6 [^ /]*') && break\n\
        sleep 1; done; echo \"ADDRESS $nic $here\"; done\n\
        read go\nexit_qemu 33";
    for (nics, prefixes) in [
        (["passt", "passt"], ["2001:db8:", "2001:db8:"]),
        (["passt", "slirp"], ["2001:db8:", "fec0:"]),
        (["slirp", "slirp"], ["fec0:", "fec0:"]),
    ] {
        let netns = netns();
        let sandbox = Sandbox::new(As::User, Some(&netns));
        let passt = passt_option();
        let mut options = vec!["--net", nics[0], "--net", nics[1]];
        options.extend(passt.iter().map(String::as_str));
        let args = command_line(&sandbox, &guest, &options, script);
        let mut scene = Scene::start(sandbox.netlaunch(&args));
        let mut seen = BTreeSet::new();
        for (nic, prefix) in ["eth0", "eth1"].iter().zip(prefixes) {
            let heard = scene.hear(&format!("ADDRESS {nic} inet6 "));
            assert!(heard.starts_with(prefix), "{nics:?}: {heard}: {}", scene.said());
            assert!(seen.insert(heard), "{nics:?}: {}", scene.said());
        }
        assert_eq!(launch(&sandbox)["nics"].as_array().unwrap().len(), 2);
        scene.say("go");
        assert_eq!(scene.end().code(), Some(33), "{}", scene.said());
        nothing_left(&sandbox);
    }
}
