//! A real guest whose filter needs its address and was not told it: netlaunch learns it from the
//! lease that dnsmasq gives, or from the guest's own words. What the guest says under another
//! address never comes out of its port, before or after; what it says as itself does.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;
#[path = "common/lab.rs"]
mod lab;
#[path = "common/schema.rs"]
mod schema;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use common::bridges::{self, end, up, waiting};
use common::scene::{LIMIT, alive, pid_of};
use common::wire::{Carried, Says, Wire};
use common::{As, Sandbox, USER, finish, have_root, status_field, text, wait_until};
use lab::{LEASE_AND_PAGE, Lab, NEIGHBOUR, ROUTER, STRANGER, kept_in, leased, speak_as};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Of linux/capability.h.
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
/// What the guest gives itself.
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
        json!({ "address": address, "until": until, "pid": pid, "error": error, "refused": refused })
    };
    assert_eq!(lab.listed()["learning"], waits(Value::Null));
    for (command, row) in [(&["ps"][..], "web"), (&["nwfilter", "binding-list"], tap_name)] {
        assert!(lab.row(command, row).contains(" learning"), "{command:?}");
    }
    who_may_what(scene.pid(), pid_of(&shown, "qemu"));

    // The host's own address is nobody else's, however it is learnt.
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
        // What it says first is its address. Its first packet teaches, and comes out when it is
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
fn who_may_what(netlaunch: i32, qemu: i32) {
    for (pid, has) in [(netlaunch, NET_ADMIN | NET_RAW), (qemu, 0)] {
        let sets = ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"];
        assert_eq!(sets.map(|set| capabilities(pid, set)), [has, has, has, 0, 0]);
    }
}

fn capabilities(pid: i32, set: &str) -> u64 {
    u64::from_str_radix(&status_field(pid, set), 16).unwrap()
}

#[test]
fn learns_from_dhcp_with_nftables() {
    learns("nftables", Some("dhcp"));
}

#[test]
fn learns_from_dhcp_with_iptables() {
    learns("iptables", Some("dhcp"));
}

#[test]
fn learns_from_anything_with_nftables() {
    learns("nftables", None);
}

#[test]
fn learns_from_anything_with_iptables() {
    learns("iptables", None);
}

/// Somebody deletes all rules; SIGHUP puts those of every port back, and is not QEMU's. netlaunch is
/// killed then, and the next command takes away what it left.
fn puts_rules_back(backend: &str) {
    let test = format!("puts_rules_back {backend}");
    let Some(lab) = Lab::new(&test, backend) else { return };
    lab.host.ip("link add spare0 type veth peer name spare1");
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
    outside.skip();

    kill(Pid::from_raw(scene.pid()), Signal::SIGHUP).unwrap();
    scene.messages("the rules are there again", |said| said.contains("the filter of the port"));
    assert_eq!(lab.rules(), rules);
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
fn puts_rules_back_with_nftables() {
    puts_rules_back("nftables");
}

#[test]
fn puts_rules_back_with_iptables() {
    puts_rules_back("iptables");
}

/// Without a filter there is nothing to put back, and SIGHUP is QEMU's.
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
    // As it is its own to say, or before it has settled what to do about signals.
    let is_told = scene.err.text().contains("signal 1") || code == Some(129);
    assert!(is_told, "{code:?} {}", scene.said());
}

/// A filter that is redefined before the guest asks for its lease is the one that it gets with it.
#[test]
fn a_filter_redefined_while_learning() {
    let Some(lab) = Lab::new("a_filter_redefined_while_learning", "nftables") else { return };
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
    assert_eq!(lab.listed()["learning"]["address"], leased(&said).to_string());
    assert_eq!(scene.ask("timeout 3 fetch 10.77.0.9 81 / || echo no"), "no");

    // And once more with the address.
    assert!(define("<ip protocol='tcp' dstportstart='80'/>").status.success());
    assert_eq!(scene.ask("fetch 10.77.0.9 81 /"), "page of a neighbour");
    scene.say("exit_qemu 43");
    assert_eq!(scene.end().code(), Some(43), "{}", scene.said());
    lab.nothing_left();
}

/// The iptables of old, which works with sockets of its own and a lock file: what netlaunch keeps of
/// root's is enough for it to change rules and to take them away.
#[test]
fn learns_and_ends_with_legacy_iptables() {
    let test = "learns_and_ends_with_legacy_iptables";
    if !Path::new("/usr/sbin/iptables-legacy-restore").exists() {
        eprintln!("skipped {test}: there is no iptables-legacy");
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
        common::run("modprobe", &["br_netfilter"]);
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
    who_may_what(scene.pid(), pid_of(&shown, "qemu"));
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
