//! Tests bridges, addresses, routes, taps and kernel settings in a network namespace, and that the
//! host is unchanged after each is removed.

mod taps;

use std::fs;
use std::future::Future;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use crate::common::{Netns, have_root, run, wait_until};
use ipnet::IpNet;
use netlaunch::sys::netlink::sysctl::{Key, Restore, Sysctls};
use netlaunch::sys::netlink::{BridgeSpec, HostNet, LinkError, Netlink, Route, Undo};
use netlaunch::sys::process::{Spawn, Stdio};
use netlaunch::sys::tap::{TUN, Tap, TapError, TapName, complete_checksums};
use netlaunch::types::InterfaceName;
use netlaunch::types::error_text;
use nix::errno::Errno;

fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn bridge(text: &str) -> BridgeSpec {
    BridgeSpec {
        name: name(text),
        mac: None,
        stp: false,
        forward_delay: Duration::ZERO,
        mtu: None,
        vlan: None,
    }
}

/// Runs `work` with a connection inside the namespace.
fn within<T: Send, F: Future<Output = T>>(
    netns: &Netns,
    work: impl FnOnce(Netlink) -> F + Send,
) -> T {
    netns.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { work(Netlink::open().unwrap()).await })
    })
}

/// Returns the output of `ip` inside the namespace, as JSON.
fn ip(netns: &Netns, args: &str) -> serde_json::Value {
    let mut argv = vec!["-n", &netns.name, "-j", "-d"];
    argv.extend(args.split(' '));
    serde_json::from_slice(&run("ip", &argv).stdout).unwrap()
}

#[test]
fn the_removal_of_a_bridge_restores_the_host() {
    if !have_root("the_removal_of_a_bridge_restores_the_host") {
        return;
    }
    let netns = Netns::routed();
    let spec = BridgeSpec {
        mac: Some("52:54:00:aa:bb:cc".parse().unwrap()),
        stp: true,
        forward_delay: Duration::from_secs(4),
        mtu: Some(9000),
        ..bridge("virbr0")
    };
    let route = Route {
        to: net("10.9.0.0/16"),
        via: Some("192.168.122.9".parse().unwrap()),
        metric: Some(3),
    };
    let route6 =
        Route { to: net("fd09::/48"), via: Some("fd00:1::9".parse().unwrap()), metric: None };
    let direct = Route { to: net("10.10.0.0/16"), via: None, metric: None };
    let (before, undos) = within(&netns, async |links| {
        let before = links.host().await.unwrap();
        let br = &spec.name;
        let mut undos = vec![links.create_bridge(&spec).await.unwrap()];
        for address in ["192.168.122.1/24", "192.168.128.1/24", "fd00:1::1/64"] {
            undos.push(links.add_address(br, net(address)).await.unwrap());
        }
        undos.extend(links.up(br).await.unwrap());
        assert_eq!(links.up(br).await.unwrap(), None, "it is up");
        for route in [&route, &route6, &direct] {
            undos.push(links.add_route(br, route).await.unwrap());
        }
        let host = links.host().await.unwrap();
        let link = host.link(br).unwrap();
        assert!(link.bridge && link.up);
        assert_eq!(link.mac, Some([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]));
        // In the way of others, not of itself.
        for taken in ["192.168.122.128/25", "fd00:1::/64", "10.9.4.0/24"] {
            let free = taken == "10.9.4.0/24"; // by a router: more specific wins
            assert_eq!(host.conflict(net(taken), None).is_none(), free, "{taken}");
            assert_eq!(host.conflict(net(taken), Some(br)), None, "{taken}");
        }
        let why = host.conflict(net("10.10.3.0/24"), None).unwrap().to_string();
        assert_eq!(why, "the host has a route to 10.10.0.0/16 through virbr0");
        assert!(host.conflict(net("192.0.2.0/24"), Some(br)).is_some(), "the uplink's");
        (before, undos)
    });
    let shown = &ip(&netns, "link show virbr0")[0];
    let data = &shown["linkinfo"]["info_data"];
    assert_eq!(shown["mtu"], 9000);
    assert_eq!((&data["stp_state"], &data["forward_delay"]), (&1.into(), &400.into()));
    let addresses = ip(&netns, "address show dev virbr0");
    let addresses = addresses[0]["addr_info"].as_array().unwrap();
    let of = |local: &str| addresses.iter().find(|a| a["local"] == local).unwrap();
    assert_eq!(of("192.168.122.1")["broadcast"], "192.168.122.255");
    assert!(of("fd00:1::1").get("tentative").is_none(), "usable at once: {addresses:?}");
    assert_eq!(ip(&netns, "route show 10.9.0.0/16")[0]["metric"], 3);
    assert_eq!(ip(&netns, "route show 10.9.0.0/16")[0]["gateway"], "192.168.122.9");

    // A later process reads the undos from a file; twice is as good as once.
    let written = serde_json::to_string(&undos).unwrap();
    let undos: Vec<Undo> = serde_json::from_str(&written).unwrap();
    let after = within(&netns, async |links| {
        // All but the bridge itself, one by one.
        for undo in undos[1..].iter().rev() {
            links.undo(undo).await.unwrap();
        }
        let host = links.host().await.unwrap();
        let index = host.link(&spec.name).unwrap().index;
        let left: Vec<_> = host.addresses.iter().filter(|a| a.link == index).collect();
        assert!(left.iter().all(|a| a.address.addr().is_ipv6()), "{left:?}");
        assert!(!host.link(&spec.name).unwrap().up);
        for _ in 0..2 {
            assert!(links.undo_all(&undos).await.is_empty());
        }
        links.host().await.unwrap()
    });
    assert_eq!(after, before);
}

#[test]
fn the_kernel_keeps_forward_delays_of_stp_within_its_limits() {
    if !have_root("the_kernel_keeps_forward_delays_of_stp_within_its_limits") {
        return;
    }
    let netns = Netns::bare();
    for (stp, seconds, shown) in
        [(true, 0, 200), (true, 4, 400), (true, 40, 3000), (false, 0, 0), (false, 40, 4000)]
    {
        let forward_delay = Duration::from_secs(seconds);
        within(&netns, async |links| {
            links.create_bridge(&BridgeSpec { stp, forward_delay, ..bridge("br0") }).await.unwrap();
            links.up(&name("br0")).await.unwrap();
        });
        let data = &ip(&netns, "link show br0")[0]["linkinfo"]["info_data"];
        assert_eq!(data["forward_delay"], shown, "{stp} {seconds}");
        within(&netns, async |links| links.delete_bridge(&name("br0")).await.unwrap());
    }
}

#[test]
fn a_refusal_of_the_kernel_is_reported_with_a_fix_and_changes_nothing() {
    if !have_root("a_refusal_of_the_kernel_is_reported_with_a_fix_and_changes_nothing") {
        return;
    }
    let netns = Netns::routed();
    within(&netns, async |links| {
        let spec = bridge("br0");
        links.create_bridge(&spec).await.unwrap();
        let br = &spec.name;
        links.add_address(br, net("10.1.0.1/24")).await.unwrap();
        links.up(br).await.unwrap();
        let before = settled(&links).await;

        let error = links.create_bridge(&spec).await.unwrap_err();
        assert!(matches!(error, LinkError::InUse(_)), "{error}");
        let error = links.create_bridge(&bridge("up0")).await.unwrap_err();
        assert!(error_text(&error).contains("an interface of that name exists"), "{error}");
        let error = links.create_bridge(&bridge("br%d")).await.unwrap_err();
        assert!(matches!(error, LinkError::Pattern(_)), "{error}");
        // A bridge whose MTU the kernel refuses is removed again.
        let huge = BridgeSpec { mtu: Some(1 << 20), ..bridge("br1") };
        let error = links.create_bridge(&huge).await.unwrap_err();
        assert!(error_text(&error).contains("MTU of br1"), "{error}");
        let error = links.add_address(br, net("10.1.0.1/24")).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EEXIST), "{error}");
        let error = links.delete_address(br, net("10.1.0.2/24")).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EADDRNOTAVAIL), "{error}");
        let far =
            Route { to: net("10.9.0.0/16"), via: Some("10.2.0.1".parse().unwrap()), metric: None };
        let error = links.add_route(br, &far).await.unwrap_err();
        assert!(error_text(&error).contains("the network's own subnets"), "{error}");
        let error = links.delete_route(br, &far).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ESRCH), "{error}");

        for error in [
            links.up(&name("nolink")).await.unwrap_err(),
            links.add_address(&name("nolink"), net("10.3.0.1/24")).await.unwrap_err(),
            links.attach(&name("nolink"), br).await.unwrap_err(),
            links.delete_bridge(&name("nolink")).await.unwrap_err(),
        ] {
            assert!(matches!(error, LinkError::Missing(_)), "{error}");
        }
        let error = links.attach(br, &name("up0")).await.unwrap_err();
        assert!(matches!(error, LinkError::NotBridge(_)), "{error}");
        let error = links.delete_bridge(&name("up0")).await.unwrap_err();
        assert!(matches!(error, LinkError::NotBridge(_)), "{error}");
        assert_eq!(settled(&links).await, before);
    });
}

/// Returns the host's links, addresses and routes without the link-local ones, which the kernel
/// adds some time after a link is turned on.
async fn settled(links: &Netlink) -> HostNet {
    let local = |net: &IpNet| net.to_string().starts_with("fe80:");
    let mut host = links.host().await.unwrap();
    host.addresses.retain(|address| !local(&address.address));
    host.routes.retain(|route| !local(&route.to));
    host
}

#[test]
fn without_the_capability_nothing_is_made() {
    if !have_root("without_the_capability_nothing_is_made") {
        return;
    }
    let netns = Netns::bare();
    within(&netns, async |links| {
        // The right is the thread's own, and this thread ends with the test.
        let right = caps::Capability::CAP_NET_ADMIN;
        caps::drop(None, caps::CapSet::Effective, right).unwrap();
        let error = error_text(&links.create_bridge(&bridge("br0")).await.unwrap_err());
        assert!(
            error.starts_with("cannot make the bridge br0: Operation not permitted"),
            "{error}"
        );
        assert!(error.ends_with("run as root or with CAP_NET_ADMIN"), "{error}");
        let error = Tap::open(Path::new(TUN), &TapName::Numbered).unwrap_err();
        assert!(matches!(error, TapError::Denied { .. }), "{error}");
        let error = complete_checksums(&name("lo")).unwrap_err();
        assert!(matches!(error, TapError::Offload { .. }), "{error}");
    });
}

#[test]
fn a_port_of_another_bridge_is_not_moved() {
    if !have_root("a_port_of_another_bridge_is_not_moved") {
        return;
    }
    let netns = Netns::bare();
    netns.ip("link add p0 mtu 1400 type veth peer name p1");
    within(&netns, async |links| {
        let (br0, br1, p0) = (name("br0"), name("br1"), name("p0"));
        let jumbo = BridgeSpec { mtu: Some(9000), ..bridge("br0") };
        links.create_bridge(&jumbo).await.unwrap();
        links.create_bridge(&bridge("br1")).await.unwrap();
        let undo = links.attach(&p0, &br0).await.unwrap().unwrap();
        assert_eq!(links.attach(&p0, &br0).await.unwrap(), None, "it is there");
        let host = links.host().await.unwrap();
        assert_eq!(host.ports(&br0).iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["p0"]);
        assert_eq!(host.link(&br0).unwrap().mtu, 9000, "a given MTU does not follow the ports'");
        let error = error_text(&links.attach(&p0, &br1).await.unwrap_err());
        assert!(error.starts_with("cannot attach p0 to br1: it belongs to br0"), "{error}");

        links.undo(&undo).await.unwrap();
        assert!(links.host().await.unwrap().ports(&br0).is_empty());
        // Another program moved it in between, so it stays there.
        links.attach(&p0, &br1).await.unwrap();
        links.undo(&undo).await.unwrap();
        assert_eq!(links.host().await.unwrap().ports(&br1).len(), 1);
        links.set_mtu(&br1, 1300).await.unwrap();
        links.attach(&name("p1"), &br1).await.unwrap();
        assert_eq!(links.host().await.unwrap().link(&br1).unwrap().mtu, 1300);
    });
}

#[test]
fn an_undo_leaves_another_interface_of_the_same_name_alone() {
    if !have_root("an_undo_leaves_another_interface_of_the_same_name_alone") {
        return;
    }
    let netns = Netns::bare();
    within(&netns, async |links| {
        let br0 = name("br0");
        let address = net("10.1.0.1/24");
        let mut undos = vec![links.create_bridge(&bridge("br0")).await.unwrap()];
        undos.push(links.add_address(&br0, address).await.unwrap());
        undos.extend(links.up(&br0).await.unwrap());
        links.delete_bridge(&br0).await.unwrap();
        links.create_bridge(&bridge("br0")).await.unwrap();
        links.add_address(&br0, address).await.unwrap();
        links.up(&br0).await.unwrap();
        let theirs = links.host().await.unwrap();
        assert!(links.undo_all(&undos).await.is_empty());
        assert_eq!(links.host().await.unwrap(), theirs);
    });
}

/// Whether an interface goes within 5 s: what another test forks just now has a copy of every
/// descriptor until it executes something.
async fn goes(links: &Netlink, name: &InterfaceName) -> bool {
    for _ in 0..500 {
        if matches!(links.link(name).await, Err(LinkError::Missing(_))) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[test]
fn a_setting_of_the_kernel_is_put_back() {
    if !have_root("a_setting_of_the_kernel_is_put_back") {
        return;
    }
    let netns = Netns::bare();
    within(&netns, async |links| {
        let sysctls = Sysctls::new(Path::new("/proc/sys"));
        for key in [Key::Ipv4Forwarding, Key::Ipv6Forwarding] {
            // A new namespace may inherit the host's value.
            fs::write(Path::new("/proc/sys").join(key.path()), "0").unwrap();
            let change = sysctls.set(&key, "1").unwrap().unwrap();
            assert_eq!(sysctls.get(&key).unwrap().as_deref(), Some("1"));
            assert_eq!(sysctls.undo(&change, false).unwrap(), Restore::Write("0"));
            assert_eq!(sysctls.get(&key).unwrap().as_deref(), Some("0"));
        }
        links.create_bridge(&bridge("br.0")).await.unwrap();
        let own = Key::Ipv6Disabled(name("br.0"));
        assert!(sysctls.set(&own, "1").unwrap().is_some());
        let error = error_text(&sysctls.set(&Key::Ipv4Forwarding, "sometimes").unwrap_err());
        assert!(error.contains("/proc/sys/net/ipv4/ip_forward"), "{error}");
    });
}

#[test]
fn checksum_offload_of_a_bridge_can_be_turned_off_again() {
    if !have_root("checksum_offload_of_a_bridge_can_be_turned_off_again") {
        return;
    }
    let netns = Netns::bare();
    within(&netns, async |links| {
        links.create_bridge(&bridge("br0")).await.unwrap();
        complete_checksums(&name("br0")).unwrap();
        complete_checksums(&name("br0")).unwrap();
        let error = error_text(&complete_checksums(&name("nolink")).unwrap_err());
        assert!(error.starts_with("cannot turn off checksum offload of nolink"), "{error}");
    });
}
