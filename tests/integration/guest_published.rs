//! Tests the published ports of a real guest on a virtual network: they lead to the address that
//! dnsmasq leased, other programs find them in use, and nothing is left of them, however netlaunch
//! ends.

use std::net::TcpListener;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::scene::{LIMIT, Scene, command_line, launch, pid_of, with};
use crate::common::{
    AT_MOST, As, Guest, Netns, Sandbox, finish, have_root, processes_with, text, wait_until,
};

/// The guest serves, asks its own published port when it reads a line, and runs until it reads
/// another.
const SCRIPT: &str = "\
serve_tcp 80 tcp-answer
serve_udp 53 udp-answer
echo 'UP .'
read go
self=; n=0
while [ -z \"$self\" ] && [ $n -lt 20 ]; do
  self=$(echo hello | nc -w 3 192.168.122.1 2281); n=$((n + 1))
done
echo \"SELF $self\"
read go
exit_qemu 33";

const OPTIONS: [&str; 12] = [
    "--network",
    "default",
    "--user",
    "nobody",
    "--name",
    "web",
    "-p",
    "2280:80",
    "-p",
    "2253:53/udp",
    "-p",
    "192.168.122.1:2281:80",
];

struct Bench {
    host: Netns,
    sandbox: Sandbox,
    guest: Guest,
}

impl Bench {
    fn new(test: &str, firewall: &str) -> Option<Self> {
        let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return None };
        let host = Netns::bare();
        let sandbox = Sandbox::new(As::Root, Some(&host));
        let setting = format!("firewall_backend = \"{firewall}\"\n");
        std::fs::write(sandbox.path("config/network.conf"), setting).unwrap();
        sandbox.good(&["network", "start", "default"]);
        Some(Bench { host, sandbox, guest })
    }

    /// Starts the guest and waits until its ports answer.
    fn start(&self) -> Scene {
        let args = command_line(&self.sandbox, &self.guest, &OPTIONS, SCRIPT);
        let mut scene = Scene::start(self.sandbox.netlaunch(&args));
        scene.hear("UP ");
        assert_eq!(self.host.ask_tcp(2280, LIMIT), "tcp-answer\n", "{}", scene.said());
        assert_eq!(self.host.ask_udp(2253, LIMIT), "udp-answer\n", "{}", scene.said());
        scene
    }

    /// The rules of published ports, and the setting that they need.
    fn traces(&self) -> String {
        let rules = self.host.says("nft", &["list", "ruleset"]);
        let saved = self.host.says("iptables-save", &[]);
        let lines = rules.lines().chain(saved.lines());
        let mut traces: String = lines.filter(|line| line.contains("-pub")).collect();
        let file = "/proc/sys/net/ipv4/conf/virbr0/route_localnet";
        traces += self.host.says("cat", &[file]).trim();
        traces
    }
}

fn a_guests_ports_come_and_go(firewall: &str) {
    let Some(bench) = Bench::new(&format!("guest_published {firewall}"), firewall) else { return };
    let mut scene = bench.start();
    let shown = launch(&bench.sandbox);
    let published = serde_json::json!([
        "127.0.0.1:2280:80/tcp",
        "127.0.0.1:2253:53/udp",
        "192.168.122.1:2281:80/tcp"
    ]);
    assert_eq!(shown["publish"], published);
    // Other programs and other launches find the ports in use.
    bench.host.inside(|| {
        let error = TcpListener::bind("127.0.0.1:2280").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    });
    let next = ["--network", "default", "-p", "2279-2281", "--", "qemu-system-x86_64"];
    let output = finish(bench.sandbox.netlaunch(&next));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(
        said.contains("port 2280/tcp on 127.0.0.1 is in use by the launch web (pid "),
        "{said}"
    );

    // The tap lets the guest's own packets come back to it, and its address is no duplicate.
    scene.say("go");
    assert_eq!(scene.hear("SELF "), "tcp-answer", "{}", scene.said());
    let tap = shown["bridge"]["tap"].as_str().unwrap();
    let hairpin = format!("/sys/class/net/{tap}/brport/hairpin_mode");
    assert_eq!(bench.host.says("cat", &[&hairpin]), "1\n");

    scene.say("go");
    assert_eq!(scene.end().code(), Some(33), "{}", scene.said());
    assert_eq!(bench.traces(), "0");
    let said = scene.err.text();
    assert!(said.contains("the published ports lead to 192.168.122."), "{said}");
    assert!(!said.contains("do not follow"), "{said}");
    bench.sandbox.good(&["network", "destroy", "default"]);
    assert_eq!(bench.sandbox.launch_dirs(), ["networks"]);
    let left = processes_with(&bench.sandbox.path("").to_string_lossy());
    assert!(left.is_empty(), "still running: {left:?}");
}

#[test]
fn the_published_ports_of_a_guest_lead_to_its_lease_on_nftables() {
    a_guests_ports_come_and_go("nftables");
}

#[test]
fn the_published_ports_of_a_guest_lead_to_its_lease_on_iptables() {
    a_guests_ports_come_and_go("iptables");
}

fn nothing_is_left_after_sigkill(firewall: &str) {
    let test = format!("guest_published_killed {firewall}");
    let Some(bench) = Bench::new(&test, firewall) else { return };
    let scene = bench.start();
    let shown = launch(&bench.sandbox);
    assert_ne!(bench.traces(), "0");
    kill(Pid::from_raw(scene.pid()), Signal::SIGKILL).unwrap();
    // No command of netlaunch runs from here on.
    let gone = wait_until(AT_MOST, || bench.traces() == "0");
    assert!(gone, "{}", bench.traces());
    assert!(!crate::common::scene::alive(pid_of(&shown, "qemu")));
    let status = bench.sandbox.state().join("networks/default/status.json");
    let status: Value = serde_json::from_slice(&std::fs::read(status).unwrap()).unwrap();
    assert_eq!(status["published"], Value::Null);
    bench.sandbox.good(&["network", "destroy", "default"]);
}

#[test]
fn no_rule_of_published_ports_outlives_a_killed_netlaunch_on_nftables() {
    nothing_is_left_after_sigkill("nftables");
}

#[test]
fn no_rule_of_published_ports_outlives_a_killed_netlaunch_on_iptables() {
    nothing_is_left_after_sigkill("iptables");
}

/// If a killer hits netlaunch, its guard and its cleaner at once, the next command removes the
/// rules.
#[test]
fn the_next_command_removes_the_ports_of_a_launch_whose_guard_was_killed_too() {
    let test = "the_next_command_removes_the_ports_of_a_launch_whose_guard_was_killed_too";
    let Some(bench) = Bench::new(test, "nftables") else { return };
    let scene = bench.start();
    let shown = launch(&bench.sandbox);
    let qemu = pid_of(&shown, "qemu");
    // A stopped netlaunch does not see the end of the others.
    let netlaunch = Pid::from_raw(scene.pid());
    kill(netlaunch, Signal::SIGSTOP).unwrap();
    let program = bench.sandbox.path("bin/netlaunch").to_string_lossy().into_owned();
    let others = processes_with(&program).into_iter().map(|(pid, _)| Pid::from_raw(pid));
    let others: Vec<Pid> = others.filter(|pid| *pid != netlaunch).collect();
    assert!(others.len() > 1, "{others:?}");
    for pid in others.into_iter().chain([netlaunch]) {
        // A guard ends when its program has ended.
        assert!(matches!(kill(pid, Signal::SIGKILL), Ok(()) | Err(Errno::ESRCH)), "{pid}");
    }
    assert!(wait_until(AT_MOST, || !crate::common::scene::alive(qemu)));
    assert_ne!(bench.traces(), "0");
    bench.sandbox.good(&["firewall", "reload"]);
    assert_eq!(bench.traces(), "0");
    bench.sandbox.good(&["network", "destroy", "default"]);
}

#[test]
fn the_printed_plan_has_the_rules_of_a_reserved_guest() {
    if !have_root("the_printed_plan_has_the_rules_of_a_reserved_guest") {
        return;
    }
    let host = Netns::bare();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let xml = "<network><name>lab</name><bridge name='virlab0'/><forward mode='nat'/>\
         <ip address='10.77.0.1' netmask='255.255.255.0'><dhcp>\
         <host mac='52:54:00:77:00:05' ip='10.77.0.5'/></dhcp></ip></network>";
    let file = sandbox.path("lab.xml");
    std::fs::write(&file, xml).unwrap();
    sandbox.good(&["network", "define", &file.to_string_lossy()]);
    sandbox.good(&["network", "start", "lab"]);
    let args =
        ["--network", "lab", "--mac", "52:54:00:77:00:05", "-p", "0.0.0.0:2222:22", "--print=json"];
    let command = with(sandbox.netlaunch(&args), ["--", "qemu-system-x86_64"]);
    let output = finish(command);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    crate::common::schema::valid("plan", &plan);
    let script = &plan["firewall"][0];
    assert_eq!(script["of"], "published");
    let rule = "fib daddr type local tcp dport 2222 dnat to 10.77.0.5:22";
    assert!(script["input"].as_str().unwrap().contains(rule), "{script:#}");
    // Ports that no rule can publish.
    for (args, words) in [
        (["--network", "lab", "-p", "[::1]:80"], "the network lab has no IPv6 address"),
        (["--bridge", "virlab0", "-p", "80"], "define a network with <forward mode='bridge'/>"),
    ] {
        let command = with(sandbox.netlaunch(&args), ["--", "qemu-system-x86_64"]);
        let output = finish(command);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
    sandbox.good(&["network", "destroy", "lab"]);
}
