//! A real guest behind a network filter: what is its own passes, another address does not, and
//! nothing of the filter is left, however netlaunch ends.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::scene::{Scene, alive, command_line, launch, pid_of};
use common::{As, Guest, Netns, Sandbox, finish, have_root, text, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The guest gets a page as itself, and tries to as somebody else.
const SCRIPT: &str = "\
ip address add 10.77.0.2/24 dev eth0
echo \"PAGE $(fetch 10.77.0.1 80 /)\"
ip address del 10.77.0.2/24 dev eth0
ip address add 10.77.0.9/24 dev eth0
if ping -c 2 -W 1 10.77.0.1 >/dev/null; then echo 'SPOOF passes'; else echo 'SPOOF stopped'; fi
read go
exit_qemu 37";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The guest powers off.
    Own,
    /// netlaunch is killed.
    Killed,
}

fn filtered(backend: &str, end: End) {
    let test = format!("filtered {backend} {end:?}");
    let (true, Some(guest)) = (have_root(&test), Guest::find(&test)) else { return };
    let (host, server) = (Netns::bare(), Netns::bare());
    host.ip("link add br0 type bridge");
    host.ip("link set br0 up");
    host.wire("port0", &server, "eth0");
    host.ip("link set port0 master br0");
    server.ip("address add 10.77.0.1/24 dev eth0");
    let _callers = server.serve_http_at("10.77.0.1:80".parse().unwrap(), "page of a neighbour");
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let setting = format!("firewall_backend = \"{backend}\"\n");
    std::fs::write(sandbox.path("config/nwfilter.conf"), setting).unwrap();
    let ours = |args: &[&str]| {
        let output = finish(sandbox.netlaunch(args));
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
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
    let mut args = command_line(&sandbox, &guest, &options, SCRIPT);
    let kernel = args.iter().position(|arg| arg == "-append").unwrap() + 1;
    args[kernel].insert_str(0, "nl.dhcp=no ");
    let mut scene = Scene::start(sandbox.netlaunch(&args));
    assert_eq!(scene.hear("PAGE "), "page of a neighbour", "{}", scene.said());
    assert_eq!(scene.hear("SPOOF "), "stopped");
    let shown = launch(&sandbox);
    let tap = shown["bridge"]["tap"].as_str().unwrap().to_owned();
    let list = ours(&["nwfilter", "binding-list"]);
    assert!(list.contains(&tap) && list.contains("clean-traffic"), "{list}");
    assert!(ours(&["nwfilter", "binding-dumpxml", &tap]).contains("<name>web</name>"));
    assert!(rules());

    match end {
        End::Own => {
            scene.say("go");
            assert_eq!(scene.end().code(), Some(37), "{}", scene.said());
        }
        End::Killed => {
            kill(Pid::from_raw(scene.pid()), Signal::SIGKILL).unwrap();
            scene.end();
            let gone = wait_until(Duration::from_secs(5), || !alive(pid_of(&shown, "qemu")));
            assert!(gone, "QEMU outlives netlaunch");
            // What a killed launch left is the next command's to take away.
            let list = ours(&["nwfilter", "binding-list"]);
            assert!(!list.contains(&tap), "{list}");
            ours(&["firewall", "reload"]);
        }
    }
    assert!(!rules(), "{}", scene.said());
}

#[test]
fn a_filtered_guest_with_nftables() {
    filtered("nftables", End::Own);
    // Killed, too: nft's table is the whole of its rules.
    filtered("nftables", End::Killed);
}

#[test]
fn a_filtered_guest_with_iptables() {
    filtered("iptables", End::Own);
}

#[test]
fn a_filtered_guest_with_iptables_whose_netlaunch_is_killed() {
    filtered("iptables", End::Killed);
}

/// A filter that cannot be set keeps the guest from starting, and nothing is left.
#[test]
fn a_filter_without_its_values_starts_nothing() {
    if !have_root("a_filter_without_its_values_starts_nothing") {
        return;
    }
    let host = Netns::bare();
    host.ip("link add br0 type bridge");
    let sandbox = Sandbox::new(As::Root, Some(&host));
    for (options, expected) in [
        (&["--filter", "clean-traffic", "--filter-param", "CTRL_IP_LEARNING=none"][..], "IP"),
        (&["--filter", "nosuch"], "nosuch"),
        (&["--filter", "clean-traffic", "--filter-param", "IP"], "NAME=VALUE"),
        (&["--filter-param", "IP=10.0.0.1"], "--filter"),
    ] {
        let args = [&["--bridge", "br0"], options, &["--", "true"]].concat();
        let output = finish(sandbox.netlaunch(&args));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.lines().count() == 1 && said.contains(expected), "{said}");
        assert_eq!(host.says("ip", &["-o", "link", "show", "type", "tun"]), "");
        assert!(!host.says("nft", &["list", "tables"]).contains("netlaunch"));
    }
}
