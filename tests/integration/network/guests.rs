//! Networks without IPv6, and a guest that reaches outside.

use super::*;
use crate::common::AT_MOST;
use netlaunch::types::error_text;

/// IPv6 turned off, and its tools out of order.
#[test]
fn a_host_without_ipv6_has_networks_without_it() {
    if !have_root("a_host_without_ipv6_has_networks_without_it") {
        return;
    }
    for backend in BACKENDS {
        let host = Host::new(backend);
        let bin = host.dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for tool in ["ip6tables-save", "ip6tables-restore"] {
            // A link to a program that fails; a file written here could be held open by a test's
            // child that is just starting.
            std::os::unix::fs::symlink("/bin/false", bin.join(tool)).unwrap();
        }
        let off = |value: &str| {
            let file = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
            host.inside("sh", &["-c", &format!("echo {value} > {file}")]);
        };
        let v4 = "<network><name>four</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000444</uuid>\
                  <forward mode='nat'/><bridge name='nlt0'/><mac address='52:54:00:00:00:44'/>\
                  <ip address='192.168.144.1' netmask='255.255.255.0'><dhcp><range \
                  start='192.168.144.2' end='192.168.144.9'/></dhcp></ip></network>";
        let v6 = "<ip family='ipv6' address='fd00:44::1' prefix='64'/></network>";
        let both = v4.replace("</network>", v6).replace("four", "both").replace("444<", "446<");
        host.define("four", v4);
        off("1");
        host.used_before();
        let before = host.state();
        assert_eq!(host.start("four").unwrap(), [] as [String; 0], "{backend}");
        let rules = host.state();
        assert!(rules.contains("192.168.144.0/24"), "{rules}");
        assert_eq!(host.with(async |driver| driver.reload().await).unwrap().len(), 1);
        assert_eq!(host.destroy("four").unwrap(), [] as [String; 0]);
        assert_eq!(host.state(), before, "{backend}");
        fs::remove_file(host.dir.path().join("config/networks/four.xml")).unwrap();

        host.define("both", &both);
        let error = host.start("both").unwrap_err();
        assert!(matches!(error, ManagerError::NoIpv6 { .. }), "{error}");
        let error = error_text(&error);
        let expected = "the network both needs fd00:44::/64, and the host has no IPv6";
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(host.state(), before, "{backend}");

        // With IPv6 its packets must be refused, and tools that cannot are no use.
        if backend == FirewallBackend::Iptables {
            off("0");
            host.define("both", v4.replace("four", "both").as_str());
            let before = host.state();
            let error = error_text(&host.start("both").unwrap_err());
            assert!(error.contains("ip6tables-save failed"), "{error}");
            assert_eq!(host.state(), before);
        }
    }
}

/// A guest behind NAT: its lease, the page it gets from outside, and the address that asked for it.
#[test]
fn a_guest_reaches_outside_as_the_host() {
    if !have_root("a_guest_reaches_outside_as_the_host") {
        return;
    }
    for backend in BACKENDS {
        let host = Host::new(backend);
        let (name, xml) = documents().into_iter().find(|(name, _)| name == "nat").unwrap();
        host.define(&name, &xml);
        host.start(&name).unwrap();
        let (guest, outside) = (Netns::bare(), Netns::bare());
        let connect = |other: &Netns, mine: &str, theirs: &str| {
            host.netns
                .ip(&format!("link add {mine} type veth peer name {theirs} netns {}", other.name));
            host.netns.ip(&format!("link set {mine} up"));
            other.ip(&format!("link set {theirs} up"));
        };
        connect(&guest, "port0", "eth0");
        host.netns.ip("link set port0 master nlt0");
        connect(&outside, "out0", "eth0");
        host.netns.ip("address add 198.51.100.1/24 dev out0");
        outside.ip("address add 198.51.100.2/24 dev eth0");

        // With -s true busybox sets nothing by itself, and prints the lease.
        let argv = [
            "netns",
            "exec",
            &guest.name,
            "busybox",
            "udhcpc",
            "-i",
            "eth0",
            "-n",
            "-q",
            "-f",
            "-t",
            "10",
            "-T",
            "1",
            "-s",
            "/bin/true",
        ];
        let said = run("ip", &argv);
        let said = text(&said.stdout) + &text(&said.stderr);
        let lease = said.split("lease of ").nth(1).and_then(|rest| rest.split(' ').next());
        let lease = lease.unwrap_or_else(|| panic!("no lease: {said}")).to_owned();
        assert!(lease.starts_with("192.168.222."), "{said}");
        guest.ip(&format!("address add {lease}/24 dev eth0"));
        guest.ip("route add default via 192.168.222.1");

        let server = outside.inside(|| std::net::TcpListener::bind("198.51.100.2:80").unwrap());
        let asked = std::thread::spawn(move || server.accept().unwrap().1);
        let connected = wait_until(AT_MOST, || {
            guest.inside(|| {
                let server = "198.51.100.2:80".parse().unwrap();
                std::net::TcpStream::connect_timeout(&server, Duration::from_secs(2)).is_ok()
            })
        });
        assert!(connected, "{backend}");
        assert_eq!(asked.join().unwrap().ip().to_string(), "198.51.100.1", "as the host");
        host.netns.ip("link set port0 nomaster");
        assert_eq!(host.destroy(&name).unwrap(), [] as [String; 0]);
    }
}
