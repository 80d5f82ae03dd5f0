//! Tests the settings of a guest's port in the kernel: limits of traffic, VLANs and isolation. The
//! guests are namespaces, whose veth is the port.

mod launches;
mod rates;
mod vlans;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::Duration;

use crate::common::{Netns, have_root, run, text, wait_until};
use netlaunch::sys::netlink::{LinkError, Netlink, TapHome, ifb_name};
use netlaunch::sys::tap::{TUN, Tap, TapName};
use netlaunch::sys::traffic::{self, TrafficError};
use netlaunch::types::{Bandwidth, InterfaceName, error_text};

fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
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

/// A host with a bridge br0.
fn host() -> Netns {
    let host = Netns::bare();
    host.ip("link add br0 type bridge mcast_snooping 0");
    host.ip("link set br0 up");
    host.ip("address add 10.77.0.1/24 dev br0");
    host
}

/// A guest at the port `port`, with this address on its eth0.
fn guest(host: &Netns, port: &str, address: &str) -> Netns {
    let guest = Netns::bare();
    host.wire(port, &guest, "eth0");
    host.ip(&format!("link set {port} master br0"));
    guest.ip(&format!("address add {address}/24 dev eth0"));
    guest
}

/// Returns whether a datagram from one namespace reaches an address of the other, within a second.
fn reaches(from: &Netns, to: &Netns, address: &str) -> bool {
    let at = SocketAddrV4::new(address.parse::<Ipv4Addr>().unwrap(), 5999);
    let receiver = to.inside(|| UdpSocket::bind(at).unwrap());
    receiver.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let sender = from.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    wait_until(Duration::from_secs(1), || {
        // Without a route or a neighbour there is an error, which is an answer too.
        let _ = sender.send_to(b"frame", at);
        receiver.recv(&mut [0; 16]).is_ok()
    })
}

#[test]
fn isolated_guests_reach_the_host_and_other_ports_but_not_each_other() {
    if !have_root("isolated_guests_reach_the_host_and_other_ports_but_not_each_other") {
        return;
    }
    let host = host();
    let first = guest(&host, "p1", "10.77.0.11");
    let second = guest(&host, "p2", "10.77.0.12");
    let uplink = guest(&host, "p3", "10.77.0.13");
    assert!(reaches(&first, &second, "10.77.0.12"));
    within(&host, async |links| {
        for port in ["p1", "p2"] {
            links.isolate(&name(port)).await.unwrap();
        }
    });
    assert!(!reaches(&first, &second, "10.77.0.12"));
    assert!(!reaches(&second, &first, "10.77.0.11"));
    assert!(reaches(&first, &host, "10.77.0.1"));
    assert!(reaches(&host, &second, "10.77.0.12"));
    assert!(reaches(&first, &uplink, "10.77.0.13"));
    assert!(reaches(&uplink, &second, "10.77.0.12"));
}

#[test]
fn a_bridge_that_filters_no_vlans_is_refused_with_the_fix() {
    if !have_root("a_bridge_that_filters_no_vlans_is_refused_with_the_fix") {
        return;
    }
    let host = host();
    let _guest = guest(&host, "p1", "10.77.0.11");
    let error = within(&host, async |links| {
        links.set_vlans(&name("p1"), &name("br0"), &"10".parse().unwrap()).await.unwrap_err()
    });
    assert!(matches!(error, LinkError::VlansIgnored { .. }), "{error}");
    let fix = "turn that on with 'ip link set br0 type bridge vlan_filtering 1'";
    assert!(error.to_string().ends_with(fix), "{error}");
}

#[test]
fn a_device_that_passes_frames_on_goes_when_its_device_is_gone() {
    if !have_root("a_device_that_passes_frames_on_goes_when_its_device_is_gone") {
        return;
    }
    let host = host();
    let (_first, _second) = (guest(&host, "p1", "10.77.0.11"), guest(&host, "p2", "10.77.0.12"));
    host.ip("link add nlout999999 type bridge");
    let limits = |port: &'static str, text: &'static str| limit(&host, port, text);
    limits("p1", "inbound=1000,outbound=1000").unwrap();
    limits("p2", "outbound=1000").unwrap();
    let devices = || host.says("ip", &["-o", "link", "show", "type", "ifb"]).lines().count();
    let collect = || within(&host, async |links| links.remove_stale_ifbs().await);
    collect();
    assert_eq!(devices(), 2);
    host.ip("link delete p1");
    collect();
    assert_eq!(devices(), 1);
    // A device of another kind belongs to another program.
    assert!(host.says("ip", &["link", "show", "nlout999999"]).contains("nlout999999"));
    // The device that a killed command left does not stop the next one.
    host.ip("link add p9 type bridge");
    let index = within(&host, async |links| links.link(&name("p9")).await.unwrap().index);
    host.ip(&format!("link add {} type ifb", ifb_name(index).unwrap()));
    limits("p9", "outbound=1000").unwrap();
}

#[test]
fn a_failure_of_tc_is_one_line_with_the_fix() {
    if !have_root("a_failure_of_tc_is_one_line_with_the_fix") {
        return;
    }
    let host = host();
    let error = within(&host, async |links| {
        let bandwidth: Bandwidth = "inbound=1".parse().unwrap();
        let lo = name("lo");
        let absent = name("absent");
        traffic::limit(&links, &[], &lo, 1, &bandwidth).await.unwrap();
        traffic::limit(&links, &[], &absent, 9, &bandwidth).await.unwrap_err()
    });
    assert!(matches!(error, TrafficError::Refused { .. }), "{error}");
    let said = error_text(&error);
    let start = "the traffic of absent cannot be limited: tc says \"Cannot find device";
    assert!(said.starts_with(start), "{said}");
    let tools = run("ip", &["netns", "exec", &host.name, "tc", "class", "show", "dev", "lo"]);
    assert!(text(&tools.stdout).contains("rate 8192bit"), "{}", text(&tools.stdout));
}

/// Limits the traffic of an interface of the namespace.
fn limit(host: &Netns, port: &str, bandwidth: &str) -> Result<(), TrafficError> {
    within(host, async |links| {
        let (port, bandwidth) = (name(port), bandwidth.parse().unwrap());
        let index = links.link(&port).await.unwrap().index;
        traffic::limit(&links, &[], &port, index, &bandwidth).await
    })
}

#[test]
fn a_tap_whose_vlans_cannot_be_set_returns_to_no_bridge() {
    if !have_root("a_tap_whose_vlans_cannot_be_set_returns_to_no_bridge") {
        return;
    }
    let host = host();
    within(&host, async |links| {
        let tap = Tap::open(Path::new(TUN), &TapName::Numbered).unwrap();
        let home = TapHome {
            launch: None,
            bridge: name("br0"),
            network: Some("lab".to_owned()),
            once: false,
            vlan: Some("42".parse().unwrap()),
            isolated: true,
            mac: None,
            hairpin: false,
        };
        links.set_home(tap.name(), &home).await.unwrap();
        links.up(tap.name()).await.unwrap();
        let recorded = links.guest_taps().await.unwrap();
        let error = links.reattach(&recorded[0], &name("br0")).await.unwrap_err();
        assert!(matches!(error, LinkError::VlansIgnored { .. }), "{error}");
        assert_eq!(links.link(tap.name()).await.unwrap().master, None);
        // A record that would lose the VLANs is refused.
        let tags: Vec<String> = (1..200).map(|tag| (2 * tag).to_string()).collect();
        let vlan = format!("trunk {}", tags.join(",")).parse().unwrap();
        let long = TapHome { vlan: Some(vlan), ..home };
        let error = links.set_home(tap.name(), &long).await.unwrap_err();
        assert!(matches!(error, LinkError::LongRecord(_)), "{error}");
    });
}
