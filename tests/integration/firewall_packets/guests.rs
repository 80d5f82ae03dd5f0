//! Packets of guests that no mode may pass, and those that a strict host must pass.

use super::*;

#[test]
fn a_network_without_ipv6_passes_no_ipv6() {
    if !have_root("a_network_without_ipv6_passes_no_ipv6") {
        return;
    }
    let scene = Scene::new();
    for (name, backend, tools) in backends() {
        let mut a = network("br-a", 10, route());
        a.subnets.truncate(1);
        let recorded = scene.transact(&tools, backend, &[], &[a]);
        let reach = |to: &str| {
            let to = to.parse().unwrap();
            scene.reach(&scene.guest_a, to, PORT, Duration::from_secs(2))
        };
        assert_eq!(reach("2001:db8:f::2"), "-", "{name}");
        assert_eq!(reach("203.0.113.2"), "192.168.10.2", "{name}");
        scene.transact(&tools, backend, &recorded, &[]);
    }
}

#[test]
fn a_guest_cannot_send_from_the_address_of_another() {
    if !have_root("a_guest_cannot_send_from_the_address_of_another") {
        return;
    }
    let scene = Scene::new();
    // The guest takes an address of network B, and the host would route the answer there.
    scene.guest_a.ip("address add 192.168.20.77/32 dev eth0");
    scene.guest_a.ip("route replace default via 192.168.10.1 src 192.168.20.77");
    let reached = || {
        let port = scene.next_port.fetch_add(1, Ordering::Relaxed);
        let to = "203.0.113.2:7777".parse().unwrap();
        scene.guest_a.inside(|| ask(SockType::Datagram, port, to, Duration::from_millis(300)));
        scene.heard.lock().unwrap().contains(&port)
    };
    assert!(reached(), "without rules it arrives");
    for (name, backend, tools) in backends() {
        for mode in [nat(), route()] {
            let networks = [network("br-a", 10, mode), network("br-b", 20, route())];
            let recorded = scene.transact(&tools, backend, &[], &networks);
            assert!(!reached(), "{name}");
            scene.transact(&tools, backend, &recorded, &[]);
        }
    }
}

#[test]
fn a_host_that_drops_input_opens_dhcp_and_dns_for_a_network() {
    if !have_root("a_host_that_drops_input_opens_dhcp_and_dns_for_a_network") {
        return;
    }
    // A table of nftables cannot open what iptables closes; `firewall check` says so there.
    for (name, backend, tools) in
        backends().into_iter().filter(|b| b.1 == FirewallBackend::Iptables)
    {
        let scene = Scene::new();
        for port in [53, 67, 547, 69] {
            serve(&scene.host, port, &scene.heard);
        }
        for tool in ["iptables", "ip6tables"] {
            let tool = if name == "iptables" { tool.to_owned() } else { format!("{tool}-legacy") };
            let line = |args: &str| {
                let mut argv = vec!["netns", "exec", &scene.host.name, &tool];
                argv.extend(args.split(' '));
                let output = run("ip", &argv);
                assert!(output.status.success(), "{}", text(&output.stderr));
            };
            // Neighbour discovery is the least a closed host lets through.
            if tool.starts_with("ip6") {
                line("-A INPUT -p ipv6-icmp -j ACCEPT");
                line("-A OUTPUT -p ipv6-icmp -j ACCEPT");
            }
            for chain in ["INPUT", "OUTPUT", "FORWARD"] {
                line(&format!("-P {chain} DROP"));
            }
        }
        let to = |version: usize, port| {
            let to = ["192.168.10.1", "fd00:10::1"][version].parse().unwrap();
            scene.reach(&scene.guest_a, to, port, Duration::from_millis(300))
        };
        let outside = || {
            let to = "203.0.113.2".parse().unwrap();
            scene.reach(&scene.guest_a, to, PORT, Duration::from_millis(500))
        };
        assert_eq!((to(0, 53).as_str(), outside().as_str()), ("-", "-"), "closed before");
        let networks = [network("br-a", 10, nat())];
        let recorded = scene.transact(&tools, backend, &[], &networks);
        assert_eq!(outside(), "203.0.113.1 1024+", "{name}: guests are let through");
        assert_eq!((to(0, 53).as_str(), to(1, 53).as_str()), ("192.168.10.2", "fd00:10::2"));
        assert_eq!((to(0, PORT).as_str(), to(1, PORT).as_str()), ("-", "-"), "nothing else");
        // DHCP by its own ports, TFTP by datagrams.
        for (from, server, version) in [(68, 67, 0), (546, 547, 1), (999, 69, 0), (999, 69, 1)] {
            let to =
                SocketAddr::new(["192.168.10.1", "fd00:10::1"][version].parse().unwrap(), server);
            let wait = Duration::from_secs(1);
            let said = scene.guest_a.inside(|| ask(SockType::Datagram, from, to, wait));
            assert!(said.is_some(), "{name}: {from} to {to}");
        }
        scene.transact(&tools, backend, &recorded, &[]);
        assert_eq!((to(0, 53).as_str(), outside().as_str()), ("-", "-"), "closed afterwards");
    }
}
