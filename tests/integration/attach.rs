//! Tests that a real guest gets and loses a NIC while it runs: the new card works on each backend,
//! its filter is in force, nothing is left of it afterwards, and a refused NIC changes nothing.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::attach_scene::{AttachScene, NAME, PORT};
use crate::common::scene::{HOST, alive, launch, launches, netns_with_resolver, pid_of};
use crate::common::schema::valid;
use crate::common::{AT_MOST, As, Guest, Netns, Sandbox, extent, have_root, wait_until};

/// A host with the network `default`, a page there, and a guest of root.
pub fn on_network(test: &str, backend: &str) -> Option<(Netns, AttachScene)> {
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return None };
    let host = Netns::bare();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    for file in ["network.conf", "nwfilter.conf"] {
        let setting = format!("firewall_backend = \"{backend}\"\n");
        std::fs::write(sandbox.path("config").join(file), setting).unwrap();
    }
    sandbox.good(&["network", "start", "default"]);
    host.serve_http_at("192.168.122.1:80".parse().unwrap(), "page of the host");
    Some((host, AttachScene::start(sandbox, &guest, &PORT)))
}

pub const FILTERED: &str =
    "network=default,filter=clean-traffic,filter-param=CTRL_IP_LEARNING=dhcp";

/// Whether the host answers the guest, from the address that its card has.
const PING: &str = "ping -c 2 -W 1 192.168.122.1 >/dev/null && echo passes || echo stopped";

fn a_filtered_card(backend: &str) {
    let test = format!("a_filtered_card {backend}");
    let Some((host, mut scene)) = on_network(&test, backend) else { return };
    let before = (scene.monitor("info network"), launch(&scene.sandbox));
    assert_eq!(scene.attach(FILTERED), "net1");
    let lease = scene.lease("eth1");
    let address = lease.split_once("ip=").and_then(|(_, rest)| rest.split(' ').next());
    let address = address.unwrap_or_else(|| panic!("{lease}: {}", scene.scene.said())).to_owned();
    assert!(address.starts_with("192.168.122."), "{lease}");
    assert_eq!(scene.scene.ask("fetch 192.168.122.1 80 /"), "page of the host");
    // The guest may send only from the leased address.
    let swap = |from: &str, to: &str| {
        format!("ip address del {from}/24 dev eth1; ip address add {to}/24 dev eth1; {PING}")
    };
    assert_eq!(scene.scene.ask(&swap(&address, "192.168.122.250")), "stopped");
    assert_eq!(scene.scene.ask(&swap("192.168.122.250", &address)), "passes");

    let shown = launch(&scene.sandbox);
    valid("ps", &serde_json::json!({ "version": 1, "launches": [shown] }));
    assert_eq!(shown["nics"][1]["id"], "net1");
    assert_eq!(shown["nics"][1]["bridge"]["learning"]["address"], address);
    let tap = shown["nics"][1]["bridge"]["tap"].as_str().unwrap();
    let ports = scene.sandbox.good(&["network", "ports", "default"]);
    assert!(ports.lines().any(|line| line.contains(tap) && line.contains(NAME)), "{ports}");
    let list = scene.sandbox.good(&["nwfilter", "binding-list"]);
    assert!(list.contains(tap) && list.contains("clean-traffic"), "{list}");

    scene.detach("net1");
    scene.card_is_gone("eth1");
    scene.nothing_attached(&host, "after the detach");
    assert_eq!((scene.monitor("info network"), launch(&scene.sandbox)), before);
}

#[test]
fn an_attached_card_has_a_lease_and_its_filter_with_nftables() {
    a_filtered_card("nftables");
}

#[test]
fn an_attached_card_has_a_lease_and_its_filter_with_iptables() {
    a_filtered_card("iptables");
}

/// The card has a subnet of its own, and its published port leads to the guest.
fn user_mode(who: As, backend: &str) {
    let test = format!("user_mode {who:?} {backend}");
    let (true, Some(guest)) = (have_root(&test), Guest::find(&test)) else { return };
    let host = netns_with_resolver(HOST);
    host.serve_http(8000, "page of the host");
    let sandbox = Sandbox::new(who, Some(&host));
    let mut scene = AttachScene::start(sandbox, &guest, &PORT);
    let busy = host.inside(|| std::net::TcpListener::bind("127.0.0.1:2280").unwrap());
    let net = format!("{backend},publish=2280:80,id=second");
    let (code, said) = scene.refused(&["attach", NAME, "--net", &net]);
    assert!(code == Some(125) && said.contains("2280"), "{code:?} {said}");
    drop(busy);
    scene.nothing_attached(&host, "a busy port");
    let id = scene.attach(&net);
    assert_eq!(id, "second");
    let lease = scene.lease("eth1");
    assert!(lease.contains("ip=10.0.3.15 prefix=24 router=10.0.3.2 "), "{lease}");
    assert_eq!(scene.scene.ask("fetch 10.0.3.2 8000 /"), "page of the host");
    scene.scene.ask("serve_tcp 80 tcp-answer");
    assert_eq!(host.ask_tcp(2280, AT_MOST), "tcp-answer\n");
    let shown = launch(&scene.sandbox);
    valid("ps", &serde_json::json!({ "version": 1, "launches": [shown] }));
    assert_eq!(shown["nics"][1]["backend"], backend);
    let passt = shown["nics"][1]["passt"]["pid"].as_i64().map(|pid| pid as i32);
    assert_eq!(passt.is_some(), backend == "passt");

    scene.detach("second");
    scene.card_is_gone("eth1");
    scene.nothing_attached(&host, &test);
    assert!(!passt.is_some_and(alive), "passt lives on");
    // The port is free again.
    assert_eq!(scene.attach(&format!("{backend},publish=2280:80")), "net1");
}

#[test]
fn a_card_on_passt_is_attached_by_a_user() {
    user_mode(As::User, "passt");
}

#[test]
fn a_card_on_passt_is_attached_by_root() {
    user_mode(As::Root, "passt");
}

#[test]
fn a_card_on_slirp_is_attached_by_a_user() {
    user_mode(As::User, "slirp");
}

/// Nothing piles up: no descriptor of QEMU, no rule, no file, no process.
#[test]
fn many_rounds_of_attach_and_detach_leave_nothing() {
    let test = "many_rounds_of_attach_and_detach_leave_nothing";
    let Some((host, mut scene)) = on_network(test, "nftables") else { return };
    let qemu = pid_of(&launch(&scene.sandbox), "qemu");
    let fds = || std::fs::read_dir(format!("/proc/{qemu}/fd")).unwrap().count();
    let mut before = None;
    let rounds = extent(5, 100);
    for round in 1..=rounds {
        assert_eq!(scene.attach(FILTERED), "net1", "round {round}");
        if round % 10 == 1 {
            let lease = scene.lease("eth1");
            assert!(lease.contains("ip=192.168.122."), "round {round}: {lease}");
        }
        scene.detach("net1");
        scene.nothing_attached(&host, &format!("round {round}"));
        // QEMU makes some of its own descriptors with the first card.
        let open = *before.get_or_insert_with(fds);
        assert_eq!(fds(), open, "descriptors of QEMU after round {round}");
    }
    println!("{rounds} rounds of attach and detach: nothing left");
}

/// Each refusal names its reason, and neither the guest nor the host has changed.
#[test]
fn a_refused_nic_changes_nothing() {
    let test = "a_refused_nic_changes_nothing";
    let Some((host, scene)) = on_network(test, "nftables") else { return };
    let _busy = host.inside(|| std::net::TcpListener::bind("127.0.0.1:2299").unwrap());
    let mac = scene.nics()[0]["guest"]["mac"].as_str().unwrap().to_owned();
    let same_mac = format!("slirp,mac={mac}");
    let before = (scene.monitor("info network"), scene.monitor("info qtree"));
    for (name, net, status, words) in [
        ("nosuch", "slirp", 2, "no launch of this user has the name nosuch"),
        (NAME, "slirp,id=net0", 2, "has a netdev or a card net0"),
        (NAME, &*same_mac, 2, "has a card 52:54:"),
        (NAME, "slirp,address=10.0.2.99/24", 2, "subnet 10.0.2.0/24"),
        (NAME, "slirp,device=none", 2, "name a device"),
        (NAME, "network=nosuch", 2, "nosuch"),
        (NAME, "bridge=nosuch", 2, "nosuch"),
        (NAME, "network=default,filter=nosuch", 2, "nosuch"),
        (NAME, "network=default,filter=clean-traffic,filter-param=CTRL_IP_LEARNING=none", 2, "IP"),
        (NAME, "slirp,publish=2299:80", 125, "2299"),
        (NAME, "network=default,device=nosuch", 125, "nosuch"),
        (NAME, "slirp,device=ne2k_isa", 125, "cannot be added while the guest runs"),
    ] {
        let (code, said) = scene.refused(&["attach", name, "--net", net]);
        assert!(code == Some(status) && said.contains(words), "{net}: {code:?} {said}");
        scene.nothing_attached(&host, net);
    }
    for (id, status, words) in [("net0", 2, "from the start of web"), ("net7", 2, "no NIC net7")] {
        let (code, said) = scene.refused(&["detach", NAME, id]);
        assert!(code == Some(status) && said.contains(words), "{id}: {code:?} {said}");
    }
    assert_eq!((scene.monitor("info network"), scene.monitor("info qtree")), before);
    assert_eq!(scene.attach("network=default"), "net1");
}

/// A q35 machine takes a card only at a port that QEMU got when it started.
#[test]
fn a_machine_without_a_free_slot_gets_no_nic() {
    let test = "a_machine_without_a_free_slot_gets_no_nic";
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return };
    let host = crate::common::bridges::host();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let scene = AttachScene::start(sandbox, &guest, &[]);
    let before = scene.monitor("info network");
    let (code, said) = scene.refused(&["attach", NAME, "--net", "bridge=br0"]);
    assert_eq!(code, Some(125), "{said}");
    assert!(said.contains("pcie-root-port") && said.contains("hotplugging"), "{said}");
    scene.nothing_attached(&host, test);
    assert_eq!(scene.monitor("info network"), before);
}

/// A machine with plain PCI needs no such port.
#[test]
fn a_machine_with_pci_gets_a_nic_in_a_free_slot() {
    let test = "a_machine_with_pci_gets_a_nic_in_a_free_slot";
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return };
    let host = netns_with_resolver(HOST);
    let sandbox = Sandbox::new(As::User, Some(&host));
    let mut scene = AttachScene::start(sandbox, &guest, &["-machine", "pc"]);
    assert_eq!(scene.attach("slirp"), "net1");
    assert_eq!(scene.attach("slirp"), "net2");
    let lease = scene.lease("eth2");
    assert!(lease.contains("ip=10.0.4.15 "), "{lease}");
    scene.detach("net1");
    scene.detach("net2");
    scene.card_is_gone("eth2");
    scene.nothing_attached(&host, test);
}

/// A guest that is paused does not answer, and keeps its card until it may be taken by force.
#[test]
fn a_guest_that_keeps_the_card_keeps_its_network_without_force() {
    let test = "a_guest_that_keeps_the_card_keeps_its_network_without_force";
    let Some((host, scene)) = on_network(test, "nftables") else { return };
    scene.attach(FILTERED);
    scene.monitor("stop");
    let (code, said) = scene.refused(&["detach", NAME, "net1", "--timeout", "1"]);
    assert_eq!(code, Some(125), "{said}");
    assert!(said.contains("did not give up the card") && said.contains("--force"), "{said}");
    assert_eq!(scene.nics().len(), 2);
    assert!(scene.monitor("info network").contains("net1: "));
    scene.sandbox.good(&["detach", NAME, "net1", "--timeout", "1", "--force"]);
    scene.nothing_attached(&host, test);
    // The card stays, and so its id is in use.
    assert!(scene.monitor("info network").contains("net1-card: "));
    assert_eq!(scene.nics().len(), 1);
}

/// A QEMU that a signal has stopped answers nothing, and the command says so in time.
#[test]
fn a_stopped_qemu_refuses_a_nic_after_a_time_limit() {
    let test = "a_stopped_qemu_refuses_a_nic_after_a_time_limit";
    let Some((host, scene)) = on_network(test, "nftables") else { return };
    let qemu = Pid::from_raw(pid_of(&launch(&scene.sandbox), "qemu"));
    kill(qemu, Signal::SIGSTOP).unwrap();
    let (code, said) = scene.refused(&["attach", NAME, "--net", "network=default"]);
    kill(qemu, Signal::SIGCONT).unwrap();
    assert_eq!(code, Some(125), "{said}");
    assert!(said.contains("did not answer on its QMP socket within 10 s"), "{said}");
    assert!(said.contains("serves one client of the socket at a time"), "{said}");
    scene.nothing_attached(&host, test);
    assert_eq!(scene.attach("network=default"), "net1");
}

/// QEMU would abort without its tap. So a QEMU that does not answer keeps the tap, turned off and
/// on no bridge, and goes on.
fn ended_while_qemu_is_stopped(is_killed: bool) {
    let test = format!("ended_while_qemu_is_stopped {is_killed}");
    let Some((host, mut scene)) = on_network(&test, "nftables") else { return };
    scene.attach(FILTERED);
    let lease = scene.lease("eth1");
    assert!(lease.contains("ip=192.168.122."), "{lease}");
    let qemu = Pid::from_raw(pid_of(&launch(&scene.sandbox), "qemu"));
    let supervisor = scene.supervisor();
    kill(qemu, Signal::SIGSTOP).unwrap();
    let signal = if is_killed { Signal::SIGKILL } else { Signal::SIGTERM };
    kill(Pid::from_raw(supervisor), signal).unwrap();
    let tap = || host.says("ip", &["-o", "link", "show", "type", "tun"]);
    let is_off = || tap().contains("state DOWN") && !tap().contains("master");
    assert!(wait_until(AT_MOST, is_off), "{}", tap());
    // Both give up after the time limit of QEMU's answer.
    let ended =
        || scene.sandbox.launch_dirs().iter().filter(|dir| dir.starts_with("launch-")).count();
    assert!(
        wait_until(Duration::from_secs(60), || ended() == 1),
        "{:?}",
        scene.sandbox.launch_dirs()
    );
    assert!(is_off(), "{}", tap());
    kill(qemu, Signal::SIGCONT).unwrap();
    let reset = "ip link set eth1 down; ip link set eth1 up; echo 'goes on'";
    assert_eq!(scene.scene.ask(reset), "goes on");
    scene.scene.say("exit_qemu 33");
    assert_eq!(scene.scene.end().code(), Some(33), "{}", scene.scene.said());
    scene.sandbox.good(&["firewall", "reload"]);
    assert_eq!(tap(), "");
    assert!(!host.says("nft", &["list", "tables"]).contains("netlaunch_nwfilter"));
}

#[test]
fn a_stopped_qemu_outlives_the_end_of_an_attachment() {
    ended_while_qemu_is_stopped(false);
}

#[test]
fn a_stopped_qemu_outlives_the_kill_of_an_attachment() {
    ended_while_qemu_is_stopped(true);
}

/// However an attachment ends, the guest loses the card, and nothing is left.
fn ended(end: &str, backend: &str) {
    let test = format!("ended {end} {backend}");
    let Some((host, mut scene)) = on_network(&test, backend) else { return };
    scene.attach(FILTERED);
    let lease = scene.lease("eth1");
    assert!(lease.contains("ip=192.168.122."), "{lease}");
    let supervisor = scene.supervisor();
    let signal = if end == "killed" { Signal::SIGKILL } else { Signal::SIGTERM };
    kill(Pid::from_raw(supervisor), signal).unwrap();
    scene.card_is_gone("eth1");
    scene.nothing_attached(&host, &test);
    // The supervisor ends after its last removal.
    assert!(wait_until(AT_MOST, || !alive(supervisor)));
    assert_eq!(scene.attach(FILTERED), "net1");
    assert!(scene.lease("eth1").contains("ip=192.168.122."));
}

#[test]
fn a_signal_detaches_the_nic() {
    ended("by SIGTERM", "nftables");
}

#[test]
fn nothing_is_left_of_a_killed_attachment_with_nftables() {
    ended("killed", "nftables");
}

#[test]
fn nothing_is_left_of_a_killed_attachment_with_iptables() {
    ended("killed", "iptables");
}

/// The attachment ends with QEMU, however QEMU ends.
#[test]
fn an_attachment_ends_with_its_launch() {
    let test = "an_attachment_ends_with_its_launch";
    for end in ["the guest", "QEMU", "netlaunch"] {
        let Some((host, mut scene)) = on_network(test, "nftables") else { return };
        scene.attach(FILTERED);
        let shown = launch(&scene.sandbox);
        match end {
            "the guest" => scene.scene.say("exit_qemu 33"),
            "QEMU" => kill(Pid::from_raw(pid_of(&shown, "qemu")), Signal::SIGKILL).unwrap(),
            _ => kill(Pid::from_raw(scene.scene.pid()), Signal::SIGKILL).unwrap(),
        }
        scene.scene.end();
        let supervisor = shown["nics"][1]["attached"]["pid"].as_i64().unwrap() as i32;
        let gone = wait_until(AT_MOST, || !alive(supervisor));
        assert!(gone, "{end}: the supervisor lives on");
        assert_eq!(host.says("ip", &["-o", "link", "show", "type", "tun"]), "", "{end}");
        assert!(!host.says("nft", &["list", "tables"]).contains("netlaunch_nwfilter"), "{end}");
        // The next start removes the directory of a killed launch.
        let left = usize::from(end == "netlaunch");
        let dirs = scene.sandbox.launch_dirs();
        let dirs = dirs.iter().filter(|name| name.starts_with("launch-")).count();
        assert_eq!(dirs, left, "{end}");
        assert_eq!(launches(&scene.sandbox).len(), 0);
    }
}

/// Serve mode starts no QEMU, so it has no QMP socket.
#[test]
fn a_guest_of_another_program_gets_no_nic() {
    let test = "a_guest_of_another_program_gets_no_nic";
    if !have_root(test) {
        return;
    }
    let host = netns_with_resolver(HOST);
    let sandbox = Sandbox::new(As::User, Some(&host));
    let mut served = crate::common::scene::Scene::start(sandbox.netlaunch(&[
        "--backend",
        "passt",
        "--name",
        "served",
    ]));
    served.hear("-netdev");
    let args = ["attach", "served", "--net", "slirp"];
    let (code, said) = crate::common::bridges::refused(sandbox.netlaunch(&args));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("does not run the QEMU of served"), "{said}");
}
