//! Tests the bridges of netlaunch's own networks: a guest without a filter cannot change them by
//! frames that a bridge does not forward (01:80:c2:00:00:00 to 0f).

use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::common::bridges::{end, host, up, waiting};
use crate::common::scene::{Scene, launches};
use crate::common::{As, Netns, Sandbox, finish, have_root, text, wait_until};
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, bind, send, socket};

/// A network without addresses; `bridge` are more attributes of its bridge.
fn network(sandbox: &Sandbox, bridge: &str) -> impl Fn(&[&str]) -> String {
    let file = sandbox.path("lab.xml");
    let xml = format!("<network><name>lab</name><bridge name='nl0' {bridge}/></network>");
    std::fs::write(&file, xml).unwrap();
    let ours = |args: &[&str]| {
        let output = finish(sandbox.netlaunch(&[&["network"], args].concat()));
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    ours(&["define", file.to_str().unwrap()]);
    ours(&["start", "lab"]);
    ours
}

/// Sends a frame from an interface of the namespace.
fn transmit(netns: &Netns, interface: &str, frame: &[u8]) {
    netns.inside(|| {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).unwrap();
        let of = |found: &nix::ifaddrs::InterfaceAddress| found.interface_name == interface;
        let address: LinkAddr = nix::ifaddrs::getifaddrs()
            .unwrap()
            .filter(of)
            .find_map(|found| found.address?.as_link_addr().copied())
            .unwrap();
        bind(socket.as_raw_fd(), &address).unwrap();
        send(socket.as_raw_fd(), frame, MsgFlags::empty()).unwrap();
    });
}

#[test]
fn a_networks_bridge_learns_no_address_from_link_local_frames() {
    if !have_root("a_networks_bridge_learns_no_address_from_link_local_frames") {
        return;
    }
    let host = Netns::bare();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let ours = network(&sandbox, "");
    for (port, guest) in [("v0", "g0"), ("v1", "g1")] {
        host.ip(&format!("link add {port} type veth peer name {guest}"));
        host.ip(&format!("link set {port} master nl0 up"));
        host.ip(&format!("link set {guest} up"));
    }
    let victim = [2, 0, 0, 0, 0, 0x99];
    let frame = |to: [u8; 6]| [&to, victim.as_slice(), &[0x88, 0xb5], &[0; 46]].concat();
    let learned = || host.says("bridge", &["fdb", "show", "br", "nl0"]);
    transmit(&host, "g1", &frame([0xff; 6]));
    assert!(learned().contains("02:00:00:00:00:99 dev v1"), "{}", learned());
    for last in 0..16 {
        transmit(&host, "g0", &frame([0x01, 0x80, 0xc2, 0, 0, last]));
        // A frame to the group address is one like others where STP is off.
        if last == 0 {
            transmit(&host, "g1", &frame([0xff; 6]));
        }
        let now = learned();
        assert!(now.contains("02:00:00:00:00:99 dev v1"), "{last:x}: {now}");
    }
    ours(&["destroy", "--force", "lab"]);
}

#[test]
fn guests_of_a_network_stay_out_of_its_spanning_tree() {
    if !have_root("guests_of_a_network_stay_out_of_its_spanning_tree") {
        return;
    }
    let host = host();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let ours = network(&sandbox, "stp='on'");
    let mark = sandbox.path("").to_string_lossy().into_owned();
    for (options, state) in [(["--network", "lab"], "on"), (["--bridge", "br0"], "off")] {
        let (scene, shown) = up(&sandbox, sandbox.netlaunch(&waiting(&options, &mark)));
        let tap = shown["bridge"]["tap"].as_str().unwrap().to_owned();
        let flags = host.says("bridge", &["-d", "link", "show", "dev", &tap]);
        for guard in ["guard", "root_block"] {
            assert!(flags.contains(&format!(" {guard} {state} ")), "{options:?}: {flags}");
        }
        end(scene);
    }
    ours(&["destroy", "lab"]);
}

#[test]
fn a_network_speaks_stp_only_if_its_document_sets_stp() {
    if !have_root("a_network_speaks_stp_only_if_its_document_sets_stp") {
        return;
    }
    for (attribute, xml, state) in
        [("", "stp='off'", "0"), ("stp='on'", "stp='on'", "1"), ("stp='off'", "stp='off'", "0")]
    {
        let host = Netns::bare();
        let sandbox = Sandbox::new(As::Root, Some(&host));
        let ours = network(&sandbox, attribute);
        assert!(ours(&["dumpxml", "lab"]).contains(xml), "{attribute}");
        let shown = host.says("ip", &["-d", "link", "show", "dev", "nl0"]);
        assert!(shown.contains(&format!("stp_state {state} ")), "{attribute}: {shown}");
        ours(&["destroy", "lab"]);
    }
}

/// Starts a launch; returns its scene and its tap on this bridge, once QEMU runs.
fn tap_on(sandbox: &Sandbox, bridge: &str, args: &[&str]) -> (Scene, String) {
    let mut scene = Scene::start(sandbox.netlaunch(args));
    let mut tap = None;
    let begun = wait_until(Duration::from_secs(60), || {
        let all = launches(sandbox);
        let ours = |launch: &&serde_json::Value| launch["bridge"]["bridge"] == bridge;
        let runs = all.iter().find(ours).filter(|launch| !launch["qemu"].is_null());
        tap = runs.and_then(|launch| Some(launch["bridge"]["tap"].as_str()?.to_owned()));
        tap.is_some()
    });
    assert!(begun, "{:?}\n{}", scene.end(), scene.said());
    (scene, tap.unwrap())
}

/// A launch on the network lab with a filter: its scene and its tap.
fn on_lab(sandbox: &Sandbox, mark: &str) -> (Scene, String) {
    let options = ["--network", "lab", "--name", "web", "--mtu", "1400", "--filter"];
    let options = [&options[..], &["clean-traffic", "--filter-param", "IP=10.0.0.2"]].concat();
    tap_on(sandbox, "nl0", &waiting(&options, mark))
}

/// The interface is on this bridge, with the settings that a launch gives its tap.
fn is_guests_port(host: &Netns, tap: &str, bridge: &str) {
    let link = host.says("ip", &["-d", "-o", "link", "show", "dev", tap]);
    for word in [&format!("master {bridge}"), "guard on", "root_block on", ",UP"] {
        assert!(link.contains(word), "{word}: {link}");
    }
}

/// The state of the filter of `tap`, as `binding-list` has it, and the first fix.
fn filter_state(sandbox: &Sandbox, tap: &str) -> (String, String) {
    let list = sandbox.good(&["nwfilter", "binding-list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let ports = list["bindings"].as_array().unwrap();
    let port = ports.iter().find(|port| port["port"] == tap).unwrap();
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (word(&port["state"]), word(&port["problems"][0]["fix"]))
}

#[test]
fn a_network_is_not_destroyed_under_its_guests_and_a_start_puts_them_back() {
    if !have_root("a_network_is_not_destroyed_under_its_guests_and_a_start_puts_them_back") {
        return;
    }
    let host = Netns::bare();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let ours = network(&sandbox, "stp='on'");
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let (scene, tap) = on_lab(&sandbox, &mark);
    // A port that another program has put there, such as QEMU's bridge helper.
    host.ip("tuntap add dev tap7 mode tap");
    host.ip("link set tap7 master nl0");
    is_guests_port(&host, &tap, "nl0");
    let mtu = || host.says("cat", &[&format!("/sys/class/net/{tap}/mtu")]);
    let mtu_before = mtu();

    for args in [["network", "destroy", "lab"], ["network", "undefine", "lab"]] {
        let output = finish(sandbox.netlaunch(&args));
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        if args[1] == "destroy" {
            assert!(said.contains(&format!("{tap} (the launch web), tap7")), "{said}");
            assert!(said.contains("--force"), "{said}");
        }
    }
    is_guests_port(&host, &tap, "nl0");
    assert_eq!(filter_state(&sandbox, &tap), ("in-force".into(), String::new()));

    ours(&["destroy", "--force", "lab"]);
    assert!(!host.says("ip", &["-o", "link", "show", "dev", &tap]).contains("master"));
    let start = "netlaunch network start lab".to_owned();
    assert_eq!(filter_state(&sandbox, &tap), ("no-bridge".into(), start));
    // The rules come first, then the tap.
    host.says("nft", &["flush", "ruleset"]);
    ours(&["start", "lab"]);
    is_guests_port(&host, &tap, "nl0");
    assert_eq!(mtu(), mtu_before);
    assert_eq!(filter_state(&sandbox, &tap), ("in-force".into(), String::new()));
    let other = host.says("ip", &["-d", "-o", "link", "show", "dev", "tap7"]);
    assert!(other.contains("master nl0") && other.contains(" guard off"), "{other}");
    assert!(!other.contains("netlaunch"), "its record is gone: {other}");

    host.ip("link delete tap7");
    end(scene);
    ours(&["destroy", "lab"]);
    assert_eq!(host.says("ip", &["-o", "link", "show", "type", "bridge"]), "");
}

#[test]
fn a_reload_puts_the_taps_of_launches_back_on_their_bridges() {
    if !have_root("a_reload_puts_the_taps_of_launches_back_on_their_bridges") {
        return;
    }
    let host = host();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let ours = network(&sandbox, "");
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let (scene, tap) = on_lab(&sandbox, &mark);
    let (on_br0, other) = tap_on(&sandbox, "br0", &waiting(&["--bridge", "br0"], &mark));
    let reload = || finish(sandbox.netlaunch(&["firewall", "reload"]));
    for port in [&tap, &other] {
        host.ip(&format!("link set {port} nomaster"));
    }
    assert_eq!(filter_state(&sandbox, &tap).1, "netlaunch firewall reload");
    let done = text(&reload().stdout);
    let line = format!("the tap {tap} of the launch web was on no bridge and is on nl0 again\n");
    assert!(done.contains(&line), "{done}");
    is_guests_port(&host, &tap, "nl0");
    let link = host.says("ip", &["-d", "-o", "link", "show", "dev", &other]);
    assert!(link.contains("master br0") && link.contains(" guard off"), "{link}");
    assert!(!text(&reload().stdout).contains("was on no bridge"), "once is enough");

    // A tap whose filter cannot be set stays off the bridge: no frame passes unfiltered.
    host.ip(&format!("link set {tap} nomaster"));
    host.says("nft", &["flush", "ruleset"]);
    let own = sandbox.path("config/nwfilter");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("clean-traffic.xml"), "<filter name='clean-traffic'><rule/></filter>")
        .unwrap();
    let failed = reload();
    assert_eq!(failed.status.code(), Some(2), "{}", text(&failed.stderr));
    assert!(
        text(&failed.stderr)
            .contains("stays on no bridge while the rules of its filter are not set")
    );
    assert!(!host.says("ip", &["-o", "link", "show", "dev", &tap]).contains("master"));
    std::fs::remove_file(own.join("clean-traffic.xml")).unwrap();
    assert!(reload().status.success());
    is_guests_port(&host, &tap, "nl0");
    assert_eq!(filter_state(&sandbox, &tap).0, "in-force");

    // A tap that belongs to a network that does not run is named with the command that starts it.
    ours(&["destroy", "--force", "lab"]);
    let said = text(&reload().stderr);
    assert!(said.contains("netlaunch network start lab"), "{said}");
    for scene in [scene, on_br0] {
        end(scene);
    }
}
