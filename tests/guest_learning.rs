//! A real guest whose filter needs its address and was not told it: netlaunch learns it from the
//! lease that dnsmasq gives, or from the guest's own words. What the guest says under another
//! address never comes out of its port, before or after; what it says as itself does.
//!
//! ```text
//! guest ── tap ──┐
//!                ├── bridge of the network "lab", with the router's address and dnsmasq
//! neighbour ─────┘   (eth0 in a namespace of its own, with pages)
//! ```
//!
//! Three wires are tapped: the tap shows all that the guest sends, filtered or not; the bridge
//! itself and the neighbour's card show what came out.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;
#[path = "common/schema.rs"]
mod schema;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use common::bridges::{self, end, up, waiting};
use common::scene::{LIMIT, SHELL, Scene, alive, command_line, launch, pid_of};
use common::wire::{Carried, Says, Wire};
use common::{
    As, Guest, Netns, Sandbox, USER, finish, have_root, processes_with, status_field, text,
    wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use schema::valid;
use serde_json::{Value, json};

const LAB: &str = "\
<network>
  <name>lab</name>
  <bridge name='virlab0'/>
  <ip address='10.77.0.1' netmask='255.255.255.0'>
    <dhcp><range start='10.77.0.100' end='10.77.0.199'/></dhcp>
  </ip>
</network>
";
const BRIDGE: &str = "virlab0";
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
/// Nobody's.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 66);
/// What the guest gives itself.
const BY_HAND: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);
/// Of linux/capability.h.
const DAC_OVERRIDE: u64 = 1 << 1;
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
/// The lease's length, dnsmasq's own.
const LEASE: u64 = 3600;

/// The guest asks for a lease and at once for a page. dnsmasq pings an address before it offers it.
const LEASE_AND_PAGE: &str = "\
udhcpc -f -q -n -t 4 -T 3 -i eth0 -s /bin/udhcpc.script 2>/dev/null; fetch 10.77.0.9 80 /";

/// A host with the network, and a neighbour on its bridge.
struct Lab {
    sandbox: Sandbox,
    host: Netns,
    neighbour: Netns,
    guest: Guest,
}

/// What came out of the guest's port.
struct Outside {
    wires: [Wire; 2],
    /// Who else sends on them.
    known: Vec<[u8; 6]>,
    judged: [usize; 2],
}

impl Lab {
    fn new(test: &str, backend: &str) -> Option<Self> {
        let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return None };
        let (host, neighbour) = (Netns::bare(), Netns::bare());
        for netns in [&host, &neighbour] {
            netns.says("sysctl", &["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
        }
        let sandbox = Sandbox::new(As::Root, Some(&host));
        let lab = Lab { sandbox, host, neighbour, guest };
        let setting = format!("firewall_backend = \"{backend}\"\n");
        for file in ["config/network.conf", "config/nwfilter.conf"] {
            std::fs::write(lab.sandbox.path(file), &setting).unwrap();
        }
        let definition = lab.file("lab.xml", LAB);
        lab.ours(&["network", "define", &definition]);
        lab.ours(&["network", "start", "lab"]);
        lab.host.wire("port0", &lab.neighbour, "eth0");
        lab.host.ip(&format!("link set port0 master {BRIDGE}"));
        lab.neighbour.ip(&format!("address add {NEIGHBOUR}/24 dev eth0"));
        for port in [80, 81] {
            lab.neighbour.serve_http_at((NEIGHBOUR, port).into(), "page of a neighbour");
        }
        Some(lab)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.sandbox.path(name);
        std::fs::write(&path, content).unwrap();
        path.to_string_lossy().into_owned()
    }

    /// What netlaunch prints, which succeeds.
    fn ours(&self, args: &[&str]) -> String {
        let output = finish(self.sandbox.netlaunch(args));
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// A guest with this filter that does nothing of its own accord.
    fn start(&self, filter: &[&str], change: impl FnOnce(&mut std::process::Command)) -> Scene {
        let options = ["--network", "lab", "--user", "nobody", "--name", "web", "-v", "--filter"];
        let options = [&options, filter].concat();
        let mut args = command_line(&self.sandbox, &self.guest, &options, SHELL);
        let kernel = args.iter().position(|arg| arg == "-append").unwrap() + 1;
        args[kernel].insert_str(0, "nl.dhcp=no ");
        let mut command = self.sandbox.netlaunch(&args);
        change(&mut command);
        Scene::start(command)
    }

    /// The launch once it has its tap.
    fn shown(&self, scene: &mut Scene) -> Value {
        scene.hear("SHELL ");
        let all: Value = serde_json::from_str(&self.ours(&["ps", "--json"])).unwrap();
        valid("ps", &all);
        launch(&self.sandbox)
    }

    /// The port of the launch as `binding-list` shows it.
    fn listed(&self) -> Value {
        let all: Value =
            serde_json::from_str(&self.ours(&["nwfilter", "binding-list", "--json"])).unwrap();
        valid("bindings", &all);
        let ports = all["bindings"].as_array().unwrap();
        ports.iter().find(|port| port["owner"] == "web").unwrap_or(&Value::Null).clone()
    }

    fn mac(&self, netns: &Netns, interface: &str) -> [u8; 6] {
        let file = format!("/sys/class/net/{interface}/address");
        let text = netns.says("cat", &[&file]);
        let bytes: Vec<u8> =
            text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }

    fn outside(&self) -> Outside {
        let known = vec![
            self.mac(&self.host, BRIDGE),
            self.mac(&self.host, "port0"),
            self.mac(&self.neighbour, "eth0"),
        ];
        let wires = [Wire::tap(&self.host, BRIDGE), Wire::tap(&self.neighbour, "eth0")];
        Outside { wires, known, judged: [0; 2] }
    }

    /// The line of a table with this word.
    fn row(&self, command: &[&str], word: &str) -> String {
        let table = self.ours(command);
        let row = table.lines().find(|line| line.split_whitespace().any(|w| w == word));
        row.unwrap_or_else(|| panic!("no {word} in {table}")).to_owned()
    }

    /// `ps` and `binding-list` show the learnt address of the guest behind this tap, and until when.
    fn shows(&self, tap: &str, address: Ipv4Addr, until: impl Fn(&Value)) {
        let in_ps = || launch(&self.sandbox)["bridge"]["learning"]["address"].clone();
        // The rules are there first.
        let there = wait_until(LIMIT, || in_ps() == address.to_string());
        assert!(there, "{} instead of {address}", in_ps());
        let learning = &self.listed()["learning"];
        assert_eq!(learning["address"], address.to_string());
        assert_eq!((&learning["pid"], &learning["error"]), (&self.supervisor(), &Value::Null));
        until(&learning["until"]);
        for (command, row) in [(&["ps"][..], "web"), (&["nwfilter", "binding-list"], tap)] {
            assert!(self.row(command, row).contains(&format!(" {address}")), "{command:?}");
        }
    }

    fn supervisor(&self) -> Value {
        launch(&self.sandbox)["pid"].clone()
    }

    /// netlaunch's rules for ports, by chain, in their order there.
    fn rules(&self) -> BTreeMap<String, Vec<String>> {
        let mut rules: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut chain = String::new();
        for line in
            self.host.says("nft", &["list", "table", "bridge", "netlaunch_nwfilter"]).lines()
        {
            match line.trim() {
                "" | "}" => {}
                head if head.ends_with('{') => chain = head.to_owned(),
                rule => rules.entry(chain.clone()).or_default().push(rule.to_owned()),
            }
        }
        let marks = ["nl-", "NETLAUNCH_FROM", "NETLAUNCH_TO", "NETLAUNCH_PORT_"];
        for tool in ["ebtables-save", "iptables-save"] {
            let saved = self.host.says(tool, &[]);
            let of_ports = |line: &&str| {
                marks.iter().any(|mark| line.contains(mark)) && !line.contains(BRIDGE)
            };
            for line in saved.lines().filter(of_ports) {
                let chain = line.split(' ').find(|word| !word.starts_with('-')).unwrap();
                let chain = rules.entry(format!("{tool} {}", chain.trim_start_matches(':')));
                chain.or_default().push(line.to_owned());
            }
        }
        // What leads to the ports' own rules has no order.
        let leads = |head: &str| head.starts_with("map ") || head.contains("NETLAUNCH_");
        for (_, lines) in rules.iter_mut().filter(|(head, _)| leads(head)) {
            let parts = lines.iter().flat_map(|line| line.split(['{', ',', '}']));
            *lines = parts.map(|part| part.trim().to_owned()).collect();
            lines.sort();
        }
        rules
    }

    fn taps(&self) -> String {
        self.host.says("ip", &["-o", "link", "show", "type", "tun"])
    }

    /// The files that netlaunch keeps about ports.
    fn kept(&self) -> Vec<String> {
        kept_in(&self.sandbox.state())
    }

    /// Of the guest and of its filter.
    fn nothing_left(&self) {
        assert_eq!(self.rules(), BTreeMap::new());
        assert_eq!(self.kept(), ["bindings/.lock"]);
        assert_eq!(self.taps(), "");
        let mut left = processes_with(&self.sandbox.path("").to_string_lossy());
        left.retain(|(_, line)| !line.contains("dnsmasq"));
        assert!(left.is_empty(), "still running: {left:?}");
    }
}

/// The files about ports below a state directory, by name.
fn kept_in(state: &Path) -> Vec<String> {
    let root = state.join("nwfilter");
    let mut files = Vec::new();
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(path),
                false => files.push(path.strip_prefix(&root).unwrap().display().to_string()),
            }
        }
    }
    files.sort();
    files
}

impl Outside {
    /// What came out since the last time is DHCP from no address, or said by `address`.
    fn judge(&mut self, what: &str, address: Option<Ipv4Addr>) {
        for (wire, judged) in self.wires.iter().zip(&mut self.judged) {
            let all = wire.others_than(&self.known);
            let is_free = |frame: &&Carried| match frame.says() {
                Says::DhcpClient(_) => false,
                Says::Arp(is) | Says::Ipv4(is) => Some(is) != address,
                Says::DhcpServer(_) | Says::Other(_) => true,
            };
            let free: Vec<_> = all[*judged..].iter().filter(is_free).collect();
            assert!(free.is_empty(), "{what}: came out: {free:?}");
            *judged = all.len();
        }
    }

    /// What came out since the last time is what it is.
    fn skip(&mut self) {
        self.judged = self.wires.each_ref().map(|wire| wire.others_than(&self.known).len());
    }
}

/// The guest speaks as `address`: ARP, and IPv4 to a neighbour whose hardware address it knows. All
/// of that is on the tap then.
fn speak_as(lab: &Lab, scene: &mut Scene, tap: &Wire, address: Ipv4Addr) {
    let mac = lab.mac(&lab.neighbour, "eth0").map(|byte| format!("{byte:02x}")).join(":");
    let before = tap.all().len();
    let said = scene.ask(&format!(
        "ip address add {address}/24 dev eth0; arping -c 2 -w 3 -I eth0 -s {address} {NEIGHBOUR}; \
         arping -U -c 1 -w 2 -I eth0 -s {address} {address}; \
         arp -i eth0 -s {NEIGHBOUR} {mac}; ping -c 2 -W 1 -I {address} {NEIGHBOUR}; \
         arp -i eth0 -d {NEIGHBOUR}; ip address del {address}/24 dev eth0"
    ));
    for says in [Says::Arp(address), Says::Ipv4(address)] {
        let is_it = |frame: &Carried| !frame.outgoing && frame.says() == says;
        assert!(tap.all()[before..].iter().any(is_it), "the guest never said {says:?}: {said}");
    }
}

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

/// The address of a `LEASE` line.
fn leased(said: &str) -> Ipv4Addr {
    let address = said.split(' ').find_map(|word| word.strip_prefix("ip="));
    address.unwrap_or_else(|| panic!("no lease: {said}")).parse().unwrap()
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
    let waits = json!({ "address": null, "until": null, "pid": scene.pid(), "error": null });
    assert_eq!(lab.listed()["learning"], waits);
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
    assert_eq!(lab.listed()["learning"], waits);

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
    assert_eq!(lab.kept(), ["bindings/.lock", "bindings/spare0.json"]);
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

/// In another user's directories root needs one capability more, for itself and not for what it
/// executes.
#[test]
fn what_a_supervisor_keeps_in_directories_of_others() {
    if !have_root("what_a_supervisor_keeps_in_directories_of_others") {
        return;
    }
    let host = bridges::host();
    for (whose, more) in [("state", DAC_OVERRIDE), ("config", DAC_OVERRIDE), ("home", 0)] {
        let sandbox = Sandbox::new(As::Root, Some(&host));
        std::os::unix::fs::chown(sandbox.path(whose), Some(USER), Some(USER)).unwrap();
        let filter = ["--bridge", "br0", "--filter", "clean-traffic"];
        let (scene, _) = up(&sandbox, sandbox.netlaunch(&waiting(&filter, "caps")));
        let kept = NET_ADMIN | NET_RAW;
        let is_kept = || capabilities(scene.pid(), "CapEff") == kept | more;
        assert!(wait_until(LIMIT, is_kept), "{whose}: {:x}", capabilities(scene.pid(), "CapEff"));
        let sets = ["CapPrm", "CapBnd"].map(|set| capabilities(scene.pid(), set));
        assert_eq!(sets, [kept | more, kept], "{whose}");
        end(scene);
        assert_eq!(kept_in(&sandbox.state()), ["bindings/.lock"], "{whose}");
        assert!(!host.says("nft", &["list", "tables"]).contains("netlaunch"), "{whose}");
    }
}
