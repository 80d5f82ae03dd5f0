//! An ipset without the tool for it.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// Makes an ipset of type `hash:ip,port` in the caller's namespace, with one element
/// (linux/netfilter/ipset/ip_set.h).
pub fn make(name: &str, address: Ipv4Addr, udp_port: u16) {
    const CREATE: u16 = 2;
    const ADD: u16 = 9;
    const NESTED: u16 = 0x8000;
    const NETWORK_ORDER: u16 = 0x4000;
    const IPSET: u16 = 6;
    fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
        let mut bytes = (data.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )
    .unwrap();
    let call = |command: u16, attributes: &[Vec<u8>]| {
        const REQUEST_AND_ACK: u16 = 1 | 4;
        // The family (AF_INET), the version, the number; ipset's protocol 6 is attribute 1.
        let head = [vec![2, 0, 0, 0], attribute(1, &[6])].concat();
        let body = [head, attributes.concat()].concat();
        let mut message = (body.len() as u32 + 16).to_ne_bytes().to_vec();
        message.extend((IPSET << 8 | command).to_ne_bytes());
        message.extend(REQUEST_AND_ACK.to_ne_bytes());
        message.extend([1u32, 0].map(u32::to_ne_bytes).concat());
        message.extend(body);
        sendto(fd.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty()).unwrap();
        let mut answer = [0; 4096];
        recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap();
        let error = i32::from_ne_bytes(answer[16..20].try_into().unwrap());
        assert_eq!(error, 0, "ipset netlink request {command}");
    };
    let named = attribute(2, &[name.as_bytes(), b"\0"].concat());
    let revision = attribute(4, &[5]);
    let family = attribute(5, &[2]);
    call(
        CREATE,
        &[
            named.clone(),
            attribute(3, b"hash:ip,port\0"),
            revision,
            family,
            attribute(7 | NESTED, &[]),
        ],
    );
    let ip = attribute(1 | NESTED, &attribute(1 | NETWORK_ORDER, &address.octets()));
    let port = attribute(4 | NETWORK_ORDER, &udp_port.to_be_bytes());
    let element = [ip, port, attribute(7, &[17])].concat();
    call(ADD, &[named, attribute(7 | NESTED, &element)]);
}
