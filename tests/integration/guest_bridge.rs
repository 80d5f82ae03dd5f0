//! Tests a real guest on a bridge. On a virtual network it gets its lease from dnsmasq and reaches
//! the world behind the host by NAT, while QEMU runs as another user; on a bridge of the host it is
//! a machine of the host's network. Nothing is left, however netlaunch ends.

use crate::common::bridges::{self, End, neighbour, taps, without_dhcp};
use crate::common::scene::{Scene, command_line, launch, pid_of};
use crate::common::{
    AT_MOST, As, Guest, Netns, Sandbox, have_root, processes_with, status_field, wait_until,
};

/// CAP_KILL and CAP_NET_ADMIN of linux/capability.h, as /proc shows them.
const KILL: &str = "0000000000000020";
const NET_ADMIN: &str = "0000000000001000";
const NONE: &str = "0000000000000000";

/// The guest gets a page from outside, and runs until it reads a line.
const SCRIPT: &str = "\
echo \"PAGE $(fetch 198.51.100.2 80 /)\"
echo 'UP .'
read go
exit_qemu 33";

/// A namespace behind the one of the host, with a page.
fn outside(host: &Netns) -> (Netns, std::sync::Arc<std::sync::Mutex<Vec<std::net::IpAddr>>>) {
    let outside = Netns::bare();
    host.wire("out0", &outside, "eth0");
    host.ip("address add 198.51.100.1/24 dev out0");
    outside.ip("address add 198.51.100.2/24 dev eth0");
    let callers = outside.serve_http_at("198.51.100.2:80".parse().unwrap(), "page of outside");
    (outside, callers)
}

fn on_the_default_network(firewall: &str, end: End) {
    let test = format!("on_the_default_network {firewall} {end:?}");
    let (true, Some(guest)) = (have_root(&test), Guest::find(&test)) else { return };
    let host = Netns::bare();
    let (_outside, callers) = outside(&host);
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let setting = format!("firewall_backend = \"{firewall}\"\n");
    std::fs::write(sandbox.path("config/network.conf"), setting).unwrap();
    let rules = || match firewall {
        "nftables" => host.says("nft", &["list", "tables"]).contains("netlaunch_network"),
        _ => host.says("iptables-save", &[]).contains("NETLAUNCH_"),
    };
    sandbox.good(&["network", "start", "default"]);
    assert!(rules());

    let options = ["--network", "default", "--user", "nobody", "--name", "web"];
    let args = command_line(&sandbox, &guest, &options, SCRIPT);
    let mut scene = Scene::start(sandbox.netlaunch(&args));
    let lease = scene.hear("LEASE ");
    let has = |part: &str| lease.split(' ').any(|word| word.starts_with(part));
    assert!(has("ip=192.168.122.") && has("router=192.168.122.1"), "{lease}");
    assert_eq!(scene.hear("PAGE "), "page of outside", "{}", scene.said());
    scene.hear("UP ");
    let callers = callers.lock().unwrap().clone();
    assert!(callers.iter().all(|ip| ip.to_string() == "198.51.100.1"), "as the host: {callers:?}");

    let shown = launch(&sandbox);
    let tap = shown["bridge"]["tap"].as_str().unwrap().to_owned();
    assert_eq!(
        (&shown["bridge"]["network"], &shown["backend"]),
        (&"default".into(), &"bridge".into())
    );
    assert!(host.says("ip", &["-o", "link", "show", "master", "virbr0"]).contains(&tap));
    have_least_capabilities(scene.pid(), pid_of(&shown, "qemu"));

    end.come(&mut scene, pid_of(&shown, "qemu"), 33);
    match end {
        End::Own => {
            assert_eq!(sandbox.launch_dirs(), ["networks"]);
            assert_eq!(taps(&host), "");
        }
        End::Killed => {
            let gone = wait_until(AT_MOST, || taps(&host).is_empty());
            assert!(gone, "{}", taps(&host));
        }
    }
    sandbox.good(&["network", "destroy", "default"]);
    assert!(!rules());
    assert_eq!(host.says("ip", &["-o", "link", "show", "type", "bridge"]), "");
    let left = processes_with(&sandbox.path("").to_string_lossy());
    assert!(left.is_empty(), "still running: {left:?}");
}

/// QEMU runs as `nobody` without capabilities; its guard can kill, and netlaunch can change links.
fn have_least_capabilities(netlaunch: i32, qemu: i32) {
    let guard: i32 = status_field(qemu, "PPid").parse().unwrap();
    assert_eq!(status_field(guard, "PPid"), netlaunch.to_string());
    assert_eq!(status_field(qemu, "Uid"), "65534\t65534\t65534\t65534");
    assert_eq!(status_field(qemu, "Gid"), "65534\t65534\t65534\t65534");
    assert_eq!(status_field(qemu, "Groups"), "65534");
    assert_eq!(status_field(qemu, "NoNewPrivs"), "1");
    for (pid, has, passes_on) in
        [(qemu, NONE, NONE), (guard, KILL, NONE), (netlaunch, NET_ADMIN, NET_ADMIN)]
    {
        let sets = ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"];
        let found = sets.map(|set| status_field(pid, set));
        assert_eq!(found, [has, has, passes_on, NONE, NONE], "{}", status_field(pid, "Name"));
    }
}

#[test]
fn a_guest_on_the_default_network_reaches_the_world_with_nftables() {
    on_the_default_network("nftables", End::Own);
}

#[test]
fn nothing_is_left_of_a_guest_on_the_default_network_whose_netlaunch_is_killed() {
    on_the_default_network("iptables", End::Killed);
}

/// A bridge that another program has made, and its router in another namespace. netlaunch gives the
/// guest no address, and the guest sets its own.
fn on_a_bridge_of_the_host(test: &str, options: &[&str]) {
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return };
    let host = bridges::host();
    let (_neighbour, callers) = neighbour(&host);
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let document = sandbox.path("lan.xml");
    let lan = "<network><name>lan</name><forward mode='bridge'/><bridge name='br0'/></network>";
    std::fs::write(&document, lan).unwrap();
    sandbox.good(&["network", "define", document.to_str().unwrap()]);
    sandbox.good(&["network", "start", "lan"]);

    let script = "\
ip address add 10.77.0.2/24 dev eth0
echo \"PAGE $(fetch 10.77.0.1 80 /)\"
read again
echo \"AGAIN $(fetch 10.77.0.1 80 /)\"
read go
exit_qemu 35";
    let args = without_dhcp(command_line(&sandbox, &guest, options, script));
    let mut scene = Scene::start(sandbox.netlaunch(&args));
    assert_eq!(scene.hear("PAGE "), "page of a neighbour", "{}", scene.said());
    assert_eq!(*callers.lock().unwrap(), ["10.77.0.2".parse::<std::net::IpAddr>().unwrap()]);
    let shown = launch(&sandbox);
    assert!(taps(&host).contains(shown["bridge"]["tap"].as_str().unwrap()));
    // The bridge is the host's, so the guest stays on it when the network ends.
    sandbox.good(&["network", "destroy", "lan"]);
    scene.say("again");
    assert_eq!(scene.hear("AGAIN "), "page of a neighbour", "{}", scene.said());
    End::Own.come(&mut scene, pid_of(&shown, "qemu"), 35);
    assert_eq!(sandbox.launch_dirs(), ["networks"]);
    let left = processes_with(&sandbox.path("").to_string_lossy());
    assert!(left.is_empty(), "still running: {left:?}");
    assert_eq!(taps(&host), "");
}

#[test]
fn a_guest_on_a_bridge_of_the_host_is_a_machine_of_its_network() {
    let test = "a_guest_on_a_bridge_of_the_host_is_a_machine_of_its_network";
    on_a_bridge_of_the_host(test, &["--bridge", "br0"]);
}

#[test]
fn a_guest_on_a_network_of_mode_bridge_is_a_machine_of_the_network_around_it() {
    let test = "a_guest_on_a_network_of_mode_bridge_is_a_machine_of_the_network_around_it";
    on_a_bridge_of_the_host(test, &["--network", "lan"]);
}
