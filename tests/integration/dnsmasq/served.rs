//! A guest gets leases, names and IPv6 from dnsmasq.

use super::*;
use crate::common::AT_MOST;

#[test]
fn a_guest_gets_a_lease_and_names_and_a_stop_leaves_nothing() {
    if !have_root("a_guest_gets_a_lease_and_names_and_a_stop_leaves_nothing") {
        return;
    }
    let scene = Scene::new();
    let mut config = default(scene.files());
    config.domain = Some(Domain { name: "guests.example".parse().unwrap(), local_only: true });
    config.dns.as_mut().unwrap().hosts.push(DnsHost {
        address: "192.168.122.1".parse().unwrap(),
        names: vec!["gate".parse().unwrap()],
    });
    // The thread and the runtime that start it end at once.
    let begun = Instant::now();
    let running = scene.start(&config).unwrap();
    eprintln!("start: {:?}", begun.elapsed());
    assert!(running.is_running());
    assert_eq!(scene.find(), Some(running.clone()));
    assert!(matches!(scene.start(&config), Err(DnsmasqError::Running { .. })));
    assert!(running.is_running(), "a second start disturbs nothing");

    let lease = scene.lease();
    for said in
        ["router='192.168.122.1'", "dns='192.168.122.1'", "domain='guests.example'", "mask='24'"]
    {
        assert!(lease.contains(said), "{said}: {lease}");
    }
    let ip =
        lease.lines().find_map(|line| line.strip_prefix("ip='")).unwrap().trim_end_matches('\'');
    assert!(ip.starts_with("192.168.122."), "{ip}");
    assert!(scene.ask("gate.guests.example", "a").contains("Address: 192.168.122.1"));

    // The lists are read again by dnsmasq as the ordinary user it has become.
    assert!(!scene.ask("late.guests.example", "a").contains("192.168.122.50"));
    config.dns.as_mut().unwrap().hosts.push(DnsHost {
        address: "192.168.122.50".parse().unwrap(),
        names: vec!["late".parse().unwrap()],
    });
    config.hosts.push(DhcpHost {
        client: Client::Mac(MAC.parse().unwrap()),
        address: Some("192.168.122.77".parse().unwrap()),
        name: Some("seven".parse().unwrap()),
        lease: None,
    });
    running.reload(&config).unwrap();
    let late = || scene.ask("late.guests.example", "a").contains("Address: 192.168.122.50");
    assert!(wait_until(AT_MOST, late));
    let lease = scene.lease();
    assert!(lease.contains("ip='192.168.122.77'"), "{lease}");
    assert!(scene.ask("seven.guests.example", "a").contains("Address: 192.168.122.77"));

    let begun = Instant::now();
    let failed = scene.stop(Leases::Keep);
    eprintln!("stop: {:?}", begun.elapsed());
    assert!(failed.is_empty(), "{failed:?}");
    assert!(!running.is_running() && scene.processes().is_empty());
    assert!(matches!(running.reload(&config), Err(DnsmasqError::Gone(_))));
    fs::remove_file(scene.files().dhcp_hosts).unwrap();
    fs::remove_file(scene.files().dns_hosts).unwrap();
    assert_eq!(scene.left(), [scene.files().leases.parent().unwrap()]);

    // The next one knows the leases.
    config.hosts.clear();
    scene.start(&config).unwrap();
    let lease = scene.lease();
    assert!(lease.contains("ip='192.168.122.77'"), "{lease}");
    assert!(scene.stop(Leases::Remove).is_empty());
    assert_eq!(scene.left(), [] as [PathBuf; 0]);
    assert!(scene.stop(Leases::Remove).is_empty(), "twice is as good as once");
}

#[test]
fn a_guest_of_an_isolated_network_gets_each_option_and_no_router() {
    if !have_root("a_guest_of_an_isolated_network_gets_each_option_and_no_router") {
        return;
    }
    let scene = Scene::new();
    fs::write(scene.dir.path().join("boot.img"), "netboot").unwrap();
    let config = everything(scene.files(), scene.dir.path());
    scene.start(&config).unwrap();
    let lease = scene.lease();
    for said in ["ip='192.168.122.77'", "mtu='1400'", "boot_file='pxe linux.0'", "hostname='seven'"]
    {
        assert!(lease.contains(said), "{said}: {lease}");
    }
    assert!(lease.contains("siaddr='192.168.122.9'"), "{lease}");
    assert!(!lease.contains("router="), "no way out is announced: {lease}");
    for (question, kind, answer) in [
        ("gate.guests.example", "a", "Address: 192.168.122.1"),
        ("gate.guests.example", "aaaa", "Address: fd00:1::1"),
        ("_gate.other.example", "a", "Address: 192.168.122.1"),
        ("seven.guests.example", "a", "Address: 192.168.122.77"),
        ("_ldap._tcp.guests.example", "srv", "1 2 389 gate.guests.example"),
        ("__a_b._tcp.lab_1", "srv", "0 0 1 x_.lab_1"),
        ("_acme-challenge.guests.example", "txt", "\"v\""),
        ("unknown.guests.example", "a", "NXDOMAIN"),
    ] {
        let said = scene.ask(question, kind);
        assert!(said.contains(answer), "{question}: {said}");
    }
    let said = scene.ask("motd.guests.example", "txt");
    assert!(said.contains(r##"a, "b" \ #c"##), "{said}");
    // A newer busybox prints its progress.
    let got = scene.dir.path().join("got.img");
    let file = got.to_str().unwrap();
    scene.as_guest(&["busybox", "tftp", "-g", "-l", file, "-r", "boot.img", "192.168.122.1"]);
    assert_eq!(fs::read_to_string(&got).unwrap(), "netboot");
    assert!(scene.stop(Leases::Remove).is_empty());
    fs::remove_file(got).unwrap();
    fs::remove_file(scene.dir.path().join("boot.img")).unwrap();
    assert_eq!(scene.left(), [] as [PathBuf; 0]);
}

#[test]
fn a_guest_gets_ipv6_by_advertisement_and_by_dhcp() {
    if !have_root("a_guest_gets_ipv6_by_advertisement_and_by_dhcp") {
        return;
    }
    let scene = Scene::new();
    let mut config = everything(scene.files(), scene.dir.path());
    config.default_route = true;
    scene.start(&config).unwrap();
    let guest = &scene.guest;
    let addresses = || scene.as_guest(&["ip", "-6", "address", "show", "dev", "eth0"]);
    let announced = || addresses().contains("inet6 fd00:3::");
    assert!(wait_until(AT_MOST, announced), "SLAAC: {}", addresses());
    assert!(!addresses().contains("inet6 fd00:1:"), "that subnet's addresses come by DHCP");
    let routes = scene.as_guest(&["ip", "-6", "route", "show", "default"]);
    assert!(routes.contains("proto ra") && routes.contains("mtu 1400"), "{routes}");

    let settled = || !addresses().contains("tentative");
    assert!(wait_until(AT_MOST, settled));
    let answer = guest.inside(solicit);
    let expected: Ipv6Addr = "fd00:1::77".parse().unwrap();
    assert!(
        answer.windows(16).any(|bytes| bytes == expected.octets()),
        "the reserved address is offered: {answer:02x?}"
    );
    assert!(scene.stop(Leases::Remove).is_empty());

    // Isolated: the same without a default route.
    config.default_route = false;
    guest.ip("link set eth0 down");
    guest.ip("link set eth0 up");
    scene.start(&config).unwrap();
    assert!(wait_until(AT_MOST, announced), "SLAAC: {}", addresses());
    assert_eq!(scene.as_guest(&["ip", "-6", "route", "show", "default"]), "");
    assert!(scene.stop(Leases::Remove).is_empty());
}

/// Asks for an address as RFC 8415 says, by the DUID of the test's MAC; returns what is advertised.
fn solicit() -> Vec<u8> {
    let index = nix::net::if_::if_nametoindex("eth0").unwrap();
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 546)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut message = vec![1, 0xab, 0xcd, 0xef];
    message.extend([0, 1, 0, 10, 0, 3, 0, 1, 0x52, 0x54, 0, 0, 0, 7]); // client identifier
    message.extend([0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]); // IA_NA
    message.extend([0, 8, 0, 2, 0, 0]); // elapsed time
    let servers = SocketAddrV6::new("ff02::1:2".parse().unwrap(), 547, 0, index);
    let mut answer = vec![0; 1500];
    for _ in 0..10 {
        socket.send_to(&message, servers).unwrap();
        if let Ok(n) = socket.recv(&mut answer)
            && answer[0] == 2
        {
            answer.truncate(n);
            return answer;
        }
    }
    panic!("no DHCPv6 server answered");
}

/// Raw frames that the guest sees while `work` runs.
fn frames(scene: &Scene, work: impl FnOnce()) -> Vec<Vec<u8>> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
    let socket = scene.guest.inside(|| {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap()
    });
    work();
    let mut frames = Vec::new();
    let mut bytes = [0u8; 2048];
    while let Ok(n) = nix::unistd::read(&socket, &mut bytes) {
        frames.push(bytes[..n].to_vec());
    }
    frames
}

/// Whether the UDP checksum of an IPv4 frame is complete (RFC 768).
fn complete(frame: &[u8]) -> bool {
    let ip = &frame[14..];
    let header = usize::from(ip[0] & 15) * 4;
    let udp = &ip[header..];
    let udp = &udp[..usize::from(u16::from_be_bytes([udp[4], udp[5]]))];
    let mut sum = 17 + udp.len() as u32;
    for pair in ip[12..20].chunks(2).chain(udp.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

#[test]
fn dhcp_replies_have_complete_checksums_without_offload() {
    if !have_root("dhcp_replies_have_complete_checksums_without_offload") {
        return;
    }
    let scene = Scene::new();
    scene.start(&default(scene.files())).unwrap();
    let replies = || -> Vec<bool> {
        let frames = frames(&scene, || assert!(scene.lease().contains("ip='192.168.122.")));
        let replies = frames.iter().filter(|f| f.len() > 42 && f[34..38] == [0, 67, 0, 68]);
        replies.map(|frame| complete(frame)).collect()
    };
    let before = replies();
    assert!(before.len() >= 2, "offer and acknowledgement");
    assert!(
        before.iter().all(|complete| !complete),
        "the kernel leaves it to the card: {before:?}"
    );
    scene.run(async |_| complete_checksums(&name("virbr0")).unwrap());
    let after = replies();
    assert!(after.len() >= 2 && after.iter().all(|complete| *complete), "{after:?}");
    assert!(scene.stop(Leases::Remove).is_empty());
}
