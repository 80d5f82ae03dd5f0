//! Tests a real guest behind a network filter: frames from its own address pass, frames from
//! another address do not, and nothing of the filter is left, however netlaunch ends.

use crate::common::bridges::{self, End, neighbour, refused, taps, without_dhcp};
use crate::common::scene::{Scene, command_line, launch, pid_of};
use crate::common::{As, Guest, Sandbox, have_root};

/// The guest gets a page from its own address, and tries to from another one.
const SCRIPT: &str = "\
ip address add 10.77.0.2/24 dev eth0
echo \"PAGE $(fetch 10.77.0.1 80 /)\"
ip address del 10.77.0.2/24 dev eth0
ip address add 10.77.0.9/24 dev eth0
if ping -c 2 -W 1 10.77.0.1 >/dev/null; then echo 'SPOOF passes'; else echo 'SPOOF stopped'; fi
read go
exit_qemu 37";

fn filtered(backend: &str, end: End) {
    let test = format!("filtered {backend} {end:?}");
    let (true, Some(guest)) = (have_root(&test), Guest::find(&test)) else { return };
    let host = bridges::host();
    let (_neighbour, _) = neighbour(&host);
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let setting = format!("firewall_backend = \"{backend}\"\n");
    std::fs::write(sandbox.path("config/nwfilter.conf"), setting).unwrap();
    let rules = || match backend {
        "nftables" => host.says("nft", &["list", "tables"]).contains("netlaunch_nwfilter"),
        _ => host.says("ebtables-save", &[]).contains("NETLAUNCH_"),
    };

    let options = [
        "--bridge",
        "br0",
        "--filter",
        "clean-traffic",
        "--filter-param",
        "IP=10.77.0.2",
        "--user",
        "nobody",
        "--name",
        "web",
    ];
    let args = without_dhcp(command_line(&sandbox, &guest, &options, SCRIPT));
    let mut scene = Scene::start(sandbox.netlaunch(&args));
    assert_eq!(scene.hear("PAGE "), "page of a neighbour", "{}", scene.said());
    assert_eq!(scene.hear("SPOOF "), "stopped");
    let shown = launch(&sandbox);
    let tap = shown["bridge"]["tap"].as_str().unwrap().to_owned();
    let list = sandbox.good(&["nwfilter", "binding-list"]);
    assert!(list.contains(&tap) && list.contains("clean-traffic"), "{list}");
    assert!(sandbox.good(&["nwfilter", "binding-dumpxml", &tap]).contains("<name>web</name>"));
    assert!(rules());

    end.come(&mut scene, pid_of(&shown, "qemu"), 37);
    if end == End::Killed {
        // The next command removes the parts that a killed launch left.
        let list = sandbox.good(&["nwfilter", "binding-list"]);
        assert!(!list.contains(&tap), "{list}");
        sandbox.good(&["firewall", "reload"]);
    }
    assert!(!rules(), "{}", scene.said());
}

#[test]
fn a_filtered_guest_sends_only_from_its_address_with_nftables() {
    filtered("nftables", End::Own);
    // Killed, too: nft's table is the whole of its rules.
    filtered("nftables", End::Killed);
}

#[test]
fn a_filtered_guest_sends_only_from_its_address_with_iptables() {
    filtered("iptables", End::Own);
}

#[test]
fn nothing_is_left_of_a_filtered_guest_whose_netlaunch_is_killed() {
    filtered("iptables", End::Killed);
}

/// A filter that cannot be set keeps the guest from starting, and nothing is left.
#[test]
fn a_filter_without_its_values_starts_nothing() {
    if !have_root("a_filter_without_its_values_starts_nothing") {
        return;
    }
    let host = bridges::host();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    for (options, expected) in [
        (&["--filter", "clean-traffic", "--filter-param", "CTRL_IP_LEARNING=none"][..], "IP"),
        (&["--filter", "nosuch"], "nosuch"),
        (&["--filter", "clean-traffic", "--filter-param", "IP"], "NAME=VALUE"),
        (&["--filter-param", "IP=10.0.0.1"], "--filter"),
    ] {
        let args = [&["--bridge", "br0"], options, &["--", "true"]].concat();
        let (status, said) = refused(sandbox.netlaunch(&args));
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
        assert_eq!(taps(&host), "");
        assert!(!host.says("nft", &["list", "tables"]).contains("netlaunch"));
    }
}
