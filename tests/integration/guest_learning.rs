//! Tests a real guest whose filter needs its address while the command line does not give it:
//! netlaunch learns the address from the lease of dnsmasq or from the guest's first packet. Frames
//! from another address never leave the guest's port; frames from its own do.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::common::bridges::{self, end, up, waiting};
use crate::common::lab::{
    LEASE_AND_PAGE, Lab, NEIGHBOUR, ROUTER, STRANGER, kept_in, leased, speak_as,
};
use crate::common::scene::{LIMIT, SHELL, Scene, alive, command_line, pid_of};
use crate::common::wire::{Carried, Says, Wire};
use crate::common::{
    As, Sandbox, USER, finish, have_root, skipped, status_field, text, wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Of linux/capability.h.
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
/// The address that the guest gives itself.
const BY_HAND: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);
/// The lease's length, dnsmasq's own.
const LEASE: u64 = 3600;

/// Tells how the guest's first words as `address` fared, from when it was given the lease, or from
/// the first one on.
fn first_words(test: &str, tap: &Wire, out: &Wire, address: Ipv4Addr) {
    const ACK: Says = Says::DhcpServer(5);
    let asks = |wire: &Wire, outgoing: bool| {
        let is_it = |f: &Carried| f.outgoing == outgoing && f.says() == Says::Arp(address);
        wire.all().into_iter().filter(is_it).map(|f| f.at).collect::<Vec<_>>()
    };
    let (said, came) = (asks(tap, false), asks(out, false));
    let given = tap.all().into_iter().rfind(|f| f.outgoing && f.says() == ACK).map(|f| f.at);
    let since = given.unwrap_or(said[0]);
    let after = |all: &[Instant]| all.first().map(|at| at.saturating_duration_since(since));
    println!(
        "{test}: ARP as {address}: {} said, the first after {:?}; {} came out, the first after {:?}",
        said.len(),
        after(&said),
        came.len(),
        after(&came),
    );
}

fn learns(backend: &str, learning: Option<&str>) {
    let test = format!("learns {backend} {learning:?}");
    let Some(lab) = Lab::new(&test, backend) else { return };
    let mut outside = lab.outside();
    let parameter = learning.map(|by| format!("CTRL_IP_LEARNING={by}"));
    let mut filter = vec!["clean-traffic"];
    filter.extend(parameter.iter().flat_map(|parameter| ["--filter-param", parameter]));
    let mut scene = lab.start(&filter, |_| ());
    let shown = lab.shown(&mut scene);
    let tap_name = shown["bridge"]["tap"].as_str().unwrap();
    let tap = Wire::tap(&lab.host, tap_name);

    assert_eq!(shown["bridge"]["filter"], "clean-traffic");
    assert_eq!(shown["bridge"]["learning"], json!({ "address": null }));
    let pid = scene.pid();
    let waits = |refused| {
        let (address, until, error) = (Value::Null, Value::Null, Value::Null);
        json!({
            "address": address,
            "addresses6": null,
            "until": until,
            "pid": pid,
            "error": error,
            "refused": refused,
            "refused6": null,
        })
    };
    assert_eq!(lab.listed()["learning"], waits(Value::Null));
    for (command, row) in [(&["ps"][..], "web"), (&["nwfilter", "binding-list"], tap_name)] {
        assert!(lab.row(command, row).contains(" learning"), "{command:?}");
    }
    have_least_capabilities(scene.pid(), pid_of(&shown, "qemu"));

    // No guest gets the host's own address, by either method.
    let before = if learning == Some("dhcp") { &[ROUTER, STRANGER][..] } else { &[ROUTER] };
    for address in before {
        speak_as(&lab, &mut scene, &tap, *address);
        outside.judge("before", None);
    }
    let refused = match learning {
        Some(_) => Value::Null,
        None => json!(format!("{ROUTER} is refused: it is an address of this host")),
    };
    assert_eq!(lab.listed()["learning"], waits(refused));

    if learning.is_none() {
        // The guest announces its address first. Its first packet teaches, and comes out when it is
        // sent again.
        let page =
            scene.ask(&format!("ip address add {BY_HAND}/24 dev eth0; fetch {NEIGHBOUR} 80 /"));
        assert_eq!(page, "page of a neighbour", "{}", scene.said());
        first_words(&test, &tap, &outside.wires[1], BY_HAND);
        outside.judge("by hand", Some(BY_HAND));
        lab.shows(tap_name, BY_HAND, |until| assert_eq!(*until, Value::Null));
        speak_as(&lab, &mut scene, &tap, STRANGER);
        outside.judge("as a stranger", Some(BY_HAND));
        scene.ask(&format!("ip address del {BY_HAND}/24 dev eth0"));
    }

    let said = scene.ask(LEASE_AND_PAGE);
    let address = leased(&said);
    assert!(said.ends_with("page of a neighbour"), "{}", scene.said());
    first_words(&test, &tap, &outside.wires[1], address);
    outside.judge("with its lease", Some(address));
    lab.shows(tap_name, address, |until| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let until = until.as_u64().unwrap();
        assert!(now < until && until <= now + LEASE, "{until} at {now}");
    });
    for address_not_its in [STRANGER, ROUTER, BY_HAND] {
        speak_as(&lab, &mut scene, &tap, address_not_its);
        outside.judge("after", Some(address));
    }
    assert_eq!(scene.ask("fetch 10.77.0.9 80 /"), "page of a neighbour");
    outside.judge("in the end", Some(address));

    scene.say("exit_qemu 41");
    assert_eq!(scene.end().code(), Some(41), "{}", scene.said());
    lab.nothing_left();
}

/// QEMU can do nothing, and netlaunch only change links and rules.
fn have_least_capabilities(netlaunch: i32, qemu: i32) {
    for (pid, has) in [(netlaunch, NET_ADMIN | NET_RAW), (qemu, 0)] {
        let sets = ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"];
        assert_eq!(sets.map(|set| capabilities(pid, set)), [has, has, has, 0, 0]);
    }
}

fn capabilities(pid: i32, set: &str) -> u64 {
    u64::from_str_radix(&status_field(pid, set), 16).unwrap()
}

#[test]
fn the_address_is_learned_from_dhcp_with_nftables() {
    learns("nftables", Some("dhcp"));
}

#[test]
fn the_address_is_learned_from_dhcp_with_iptables() {
    learns("iptables", Some("dhcp"));
}

#[test]
fn the_address_is_learned_from_any_packet_with_nftables() {
    learns("nftables", None);
}

#[test]
fn the_address_is_learned_from_any_packet_with_iptables() {
    learns("iptables", None);
}

/// Another program deletes all rules. SIGHUP makes netlaunch restore the rules of every port, and
/// QEMU does not get the signal. Then netlaunch is killed, and the next command removes the rest.
fn puts_rules_back(backend: &str) {
    let test = format!("puts_rules_back {backend}");
    let Some(lab) = Lab::new(&test, backend) else { return };
    lab.host.ip("link add spare0 type veth peer name spare1");
    lab.host.ip(&format!("link set spare0 master {}", crate::common::lab::BRIDGE));
    let document = "\
<filterbinding>
  <portdev name='spare0'/>
  <mac address='52:54:00:00:00:01'/>
  <filterref filter='clean-traffic'><parameter name='IP' value='10.77.0.8'/></filterref>
</filterbinding>
";
    lab.ours(&["nwfilter", "binding-create", &lab.file("binding.xml", document)]);
    let spare_alone = lab.rules();
    let mut outside = lab.outside();
    let mut scene = lab.start(&["clean-traffic"], |_| ());
    let shown = lab.shown(&mut scene);
    let tap = Wire::tap(&lab.host, shown["bridge"]["tap"].as_str().unwrap());
    let address = leased(&scene.ask(LEASE_AND_PAGE));
    let rules = lab.rules();
    for address in [Ipv4Addr::new(10, 77, 0, 8), address] {
        assert!(rules.values().flatten().any(|rule| rule.contains(&address.to_string())));
    }

    match backend {
        "nftables" => lab.host.says("nft", &["delete", "table", "bridge", "netlaunch_nwfilter"]),
        _ => lab.host.says("sh", &["-c", "ebtables -t nat -F; ebtables -t nat -X"]),
    };
    assert_eq!(lab.rules(), BTreeMap::new());
    // So this test can tell.
    let is_strangers = |frame: &Carried| frame.says() == Says::Arp(STRANGER);
    speak_as(&lab, &mut scene, &tap, STRANGER);
    let came = outside.wires[1].others_than(&outside.known);
    assert!(came.iter().any(is_strangers));

    kill(Pid::from_raw(scene.pid()), Signal::SIGHUP).unwrap();
    scene.messages("the rules are there again", |said| said.contains("the filter of the port"));
    assert_eq!(lab.rules(), rules);
    // The guest's kernel may have sent a router solicitation while there were no rules.
    outside.skip();
    assert_eq!(scene.ask("fetch 10.77.0.9 80 /"), "page of a neighbour");
    speak_as(&lab, &mut scene, &tap, STRANGER);
    outside.judge("put back", Some(address));
    assert!(alive(pid_of(&shown, "qemu")));

    kill(Pid::from_raw(scene.pid()), Signal::SIGKILL).unwrap();
    scene.end();
    let gone = || !alive(pid_of(&shown, "qemu")) && lab.taps().is_empty();
    assert!(wait_until(LIMIT, gone), "{}", lab.taps());
    lab.ours(&["firewall", "reload"]);
    assert_eq!(lab.rules(), spare_alone);
    assert_eq!(lab.kept(), ["bindings/spare0.json"]);
    lab.ours(&["nwfilter", "binding-delete", "spare0"]);
    lab.nothing_left();
}

#[test]
fn sighup_restores_removed_rules_with_nftables() {
    puts_rules_back("nftables");
}

#[test]
fn sighup_restores_removed_rules_with_iptables() {
    puts_rules_back("iptables");
}

/// A launch without a filter has no rules to restore, and QEMU gets the SIGHUP.
#[test]
fn a_launch_without_a_filter_passes_sighup_on() {
    if !have_root("a_launch_without_a_filter_passes_sighup_on") {
        return;
    }
    let host = bridges::host();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let (mut scene, _) = up(&sandbox, sandbox.netlaunch(&waiting(&["--bridge", "br0"], "hup")));
    kill(Pid::from_raw(scene.pid()), Signal::SIGHUP).unwrap();
    let code = scene.end().code();
    // QEMU reports the signal, unless the signal comes before QEMU has set its handlers.
    let has_signal = scene.err.text().contains("signal 1") || code == Some(129);
    assert!(has_signal, "{code:?} {}", scene.said());
}

/// The guest has a NIC on slirp as well, which has no filter.
#[test]
fn the_event_of_a_learned_address_names_the_nic() {
    let test = "the_event_of_a_learned_address_names_the_nic";
    let Some(lab) = Lab::new(test, "nftables") else { return };
    let filtered = "network=lab,filter=clean-traffic,filter-param=CTRL_IP_LEARNING=dhcp";
    let options = ["--log-format", "json", "--net", "slirp", "--net", filtered];
    let args = command_line(&lab.sandbox, &lab.guest, &options, SHELL);
    let mut scene = Scene::start(lab.sandbox.netlaunch(&args));
    scene.hear("SHELL ");
    let lease = LEASE_AND_PAGE.replace("eth0", "eth1");
    let said = scene.ask(&format!("ip link set eth1 up; {lease}"));
    let address = leased(&said).to_string();
    let learned = || -> Vec<Value> {
        let messages = scene.err.text();
        let lines = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let fields = lines.map(|mut line| line["fields"].take());
        fields.filter(|fields| fields["event"] == "address-learned").collect()
    };
    assert!(wait_until(LIMIT, || !learned().is_empty()), "{}", scene.said());
    let first = &learned()[0];
    assert_eq!((&first["nic"], &first["address"]), (&json!("net1"), &json!(address)));
    scene.say("exit_qemu 45");
    assert_eq!(scene.end().code(), Some(45), "{}", scene.said());
    lab.nothing_left();
}

/// A filter that is redefined before the guest asks for its lease is the one that it gets with it.
#[test]
fn a_filter_can_be_redefined_while_the_address_is_learned() {
    let Some(lab) = Lab::new("a_filter_can_be_redefined_while_the_address_is_learned", "nftables")
    else {
        return;
    };
    let define = |rule: &str| {
        let document = format!(
            "<filter name='mine'><filterref filter='clean-traffic'/>\
             <rule action='drop' direction='out' priority='-900'>{rule}</rule></filter>"
        );
        finish(lab.sandbox.netlaunch(&["nwfilter", "define", &lab.file("mine.xml", &document)]))
    };
    assert!(define("<ip protocol='tcp' dstportstart='80'/>").status.success());
    let mut scene = lab.start(&["mine", "--filter-param", "CTRL_IP_LEARNING=dhcp"], |_| ());
    lab.shown(&mut scene);
    let learning = lab.rules();
    assert!(define("<ip protocol='tcp' dstportstart='81'/>").status.success());
    assert_eq!(lab.rules(), learning, "it still learns");
    let refused = define("<ip protocol='tcp' dstportstart='$PORT'/>");
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert_eq!(lab.listed()["learning"]["address"], Value::Null);

    let said = scene.ask(LEASE_AND_PAGE);
    assert!(said.ends_with("page of a neighbour"), "{}", scene.said());
    // The rules are set first, and then the status that the list shows.
    let address = leased(&said).to_string();
    assert!(wait_until(LIMIT, || lab.listed()["learning"]["address"] == address.as_str()));
    assert_eq!(scene.ask("timeout 3 fetch 10.77.0.9 81 / || echo no"), "no");

    // And once more with the address.
    assert!(define("<ip protocol='tcp' dstportstart='80'/>").status.success());
    assert_eq!(scene.ask("fetch 10.77.0.9 81 /"), "page of a neighbour");
    scene.say("exit_qemu 43");
    assert_eq!(scene.end().code(), Some(43), "{}", scene.said());
    lab.nothing_left();
}

/// The iptables of old, which works with sockets of its own and a lock file: what netlaunch keeps
/// of root's is enough for it to change rules and to take them away.
#[test]
fn the_address_is_learned_and_the_rules_end_with_legacy_iptables() {
    let test = "the_address_is_learned_and_the_rules_end_with_legacy_iptables";
    if !Path::new("/usr/sbin/iptables-legacy-restore").exists() {
        skipped(test, "there is no iptables-legacy");
        return;
    }
    let Some(lab) = Lab::new(test, "iptables") else { return };
    let legacy = lab.sandbox.path("legacy");
    std::fs::create_dir(&legacy).unwrap();
    for tool in ["iptables", "ip6tables"] {
        for end in ["", "-save", "-restore"] {
            let there = format!("/usr/sbin/{tool}-legacy{end}");
            std::os::unix::fs::symlink(there, legacy.join(format!("{tool}{end}"))).unwrap();
        }
    }
    if !Path::new("/proc/sys/net/bridge").exists() {
        crate::common::run("modprobe", &["br_netfilter"]);
    }
    let calls = ["iptables", "ip6tables"].map(|tool| format!("net.bridge.bridge-nf-call-{tool}=1"));
    lab.host.says("sysctl", &["-qw", &calls[0], &calls[1]]);
    let document = "<filter name='mine'><filterref filter='clean-traffic'/>\
         <rule action='drop' direction='out'><tcp srcipaddr='$IP' dstportstart='81'/></rule></filter>";
    lab.ours(&["nwfilter", "define", &lab.file("mine.xml", document)]);
    let rules = || lab.host.says("iptables-legacy-save", &[]);
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", legacy.display());

    let mut scene = lab.start(&["mine"], |command| {
        command.env("PATH", path);
    });
    let shown = lab.shown(&mut scene);
    have_least_capabilities(scene.pid(), pid_of(&shown, "qemu"));
    let address = leased(&scene.ask(LEASE_AND_PAGE));
    assert!(rules().contains(&format!("-s {address}/32")), "{}", rules());
    assert_eq!(scene.ask("timeout 3 fetch 10.77.0.9 81 / || echo no"), "no");
    scene.say("exit_qemu 45");
    assert_eq!(scene.end().code(), Some(45), "{}", scene.said());
    assert!(!rules().contains("NETLAUNCH_PORT"), "{}", rules());
    lab.nothing_left();
}

/// A supervisor keeps no capability for a home directory of another user, which it does not use.
#[test]
fn a_supervisor_keeps_nothing_for_another_users_home() {
    if !have_root("a_supervisor_keeps_nothing_for_another_users_home") {
        return;
    }
    let host = bridges::host();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    std::os::unix::fs::chown(sandbox.path("home"), Some(USER), Some(USER)).unwrap();
    let filter = ["--bridge", "br0", "--filter", "clean-traffic"];
    let (scene, _) = up(&sandbox, sandbox.netlaunch(&waiting(&filter, "caps")));
    let kept = NET_ADMIN | NET_RAW;
    let is_kept = || capabilities(scene.pid(), "CapEff") == kept;
    assert!(wait_until(LIMIT, is_kept), "{:x}", capabilities(scene.pid(), "CapEff"));
    let sets = ["CapPrm", "CapBnd"].map(|set| capabilities(scene.pid(), set));
    assert_eq!(sets, [kept, kept]);
    end(scene);
    assert_eq!(kept_in(&sandbox.state()), [""; 0]);
    assert!(!host.says("nft", &["list", "tables"]).contains("netlaunch"));
}
