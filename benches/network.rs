//! Measures the start and the end of a network: `netlaunch network start` and `destroy` on each
//! backend, compared with a lower bound, and the number of programs that each operation executes.
//!
//! The lower bound gives the same rules to the same tools, and makes and removes a bridge with
//! ip(8).
//!
//! Run `cargo bench --bench network` as root: it makes its own network namespace. Both ways run
//! alternately, and each pair gives one ratio, so that a machine that slows down slows both.
//! netlaunch's time includes the start and end of dnsmasq; a second row is for a network without
//! dnsmasq. The figures go to standard output. The benchmark has no pass or fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench stops by panicking")]

#[allow(dead_code, unreachable_pub, reason = "a bench uses some of the helpers")]
#[path = "../tests/integration/common/mod.rs"]
mod common;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{As, Netns, Sandbox, finish, have_root, text};
use netlaunch::firewall::rules::{Mode, NetworkRules, for_network};
use netlaunch::firewall::{FirewallBackend, Script, scripts};

const PAIRS: usize = 25;
/// The programs that an operation can execute.
const TOOLS: [&str; 6] =
    ["nft", "iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore", "dnsmasq"];

fn main() {
    if !have_root("the network benchmark") {
        return;
    }
    let netns = Netns::routed();
    for backend in FirewallBackend::ORDER {
        for served in [true, false] {
            compare(&netns, backend, served);
        }
    }
}

/// Measures one backend, with or without DHCP and DNS.
fn compare(netns: &Netns, backend: FirewallBackend, served: bool) {
    let sandbox = Sandbox::new(As::Root, Some(netns));
    define(&sandbox, backend, served);
    let scripts = floor(backend, served);
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..=PAIRS {
        let a = timed(|| {
            for verb in ["start", "destroy"] {
                let output = finish(sandbox.netlaunch(&["network", verb, "bench"]));
                assert!(output.status.success(), "{}", text(&output.stderr));
            }
        });
        let b = timed(|| by_hand(netns, backend, &scripts));
        // The first pair warms the caches.
        if pair > 0 {
            ratios.push(a.as_secs_f64() / b.as_secs_f64());
            ours.push(a.as_secs_f64() * 1e3);
            theirs.push(b.as_secs_f64() * 1e3);
        }
    }
    println!(
        "{backend}{}: start and destroy {:.1} ms, by hand {:.1} ms, ratio {:.2} (medians of {PAIRS}); programs: {}",
        if served { "" } else { " without dnsmasq" },
        median(&mut ours),
        median(&mut theirs),
        median(&mut ratios),
        ["network start bench", "firewall reload", "network destroy bench"]
            .map(|line| format!("{line} {}", executed(&sandbox, line)))
            .join(", "),
    );
}

fn define(sandbox: &Sandbox, backend: FirewallBackend, served: bool) {
    let config = sandbox.path("config");
    fs::create_dir_all(config.join("networks")).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(sandbox.path(""), open).unwrap();
    let (dns, dhcp) = match served {
        true => ("", "<dhcp><range start='10.96.0.100' end='10.96.0.200'/></dhcp>"),
        false => ("<dns enable='no'/>", ""),
    };
    let xml = format!(
        "<network><name>bench</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000096</uuid>\
         <forward mode='nat'/><bridge name='nlb0' delay='0'/><mac address='52:54:00:00:00:96'/>{dns}\
         <ip address='10.96.0.1' netmask='255.255.255.0'>{dhcp}</ip></network>"
    );
    fs::write(config.join("networks/bench.xml"), xml).unwrap();
    fs::write(config.join("network.conf"), format!("firewall_backend = \"{backend}\"\n")).unwrap();
}

/// Returns the rules of the network as input for the tools.
fn floor(backend: FirewallBackend, served: bool) -> Vec<Script> {
    let rules = NetworkRules {
        bridge: "nlb0".parse().unwrap(),
        mode: Mode::Nat { devs: Vec::new(), addresses: None, ports: None, ipv6: false },
        subnets: vec!["10.96.0.1/24".parse().unwrap()],
        ipv6_between_guests: false,
        dhcp: served,
        dns: served,
        tftp: false,
    };
    scripts(backend, &for_network(&rules).unwrap())
}

/// Makes the bridge and the rules, and removes both.
fn by_hand(netns: &Netns, backend: FirewallBackend, scripts: &[Script]) {
    netns.ip("link add nlb0 type bridge");
    for script in scripts {
        feed(netns, script.program, script.args, &script.input);
    }
    match backend {
        FirewallBackend::Nftables => {
            let away = "delete table ip netlaunch_network\ndelete table ip6 netlaunch_network\n";
            feed(netns, "nft", &["-f", "-"], away);
        }
        // No other process uses the namespace, so emptying the tables removes only these rules.
        FirewallBackend::Iptables => {
            for script in scripts {
                let tables = script.input.lines().filter(|line| line.starts_with('*'));
                let empty: String = tables.map(|table| format!("{table}\nCOMMIT\n")).collect();
                feed(netns, script.program, &[], &empty);
            }
        }
    }
    netns.ip("link del nlb0");
}

fn feed(netns: &Netns, program: &str, args: &[&str], input: &str) {
    let mut child = Command::new("ip")
        .args(["netns", "exec", &netns.name, program])
        .args(args)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program}");
}

/// Counts the programs that netlaunch executes for a command: each program writes a line to a log.
fn executed(sandbox: &Sandbox, line: &str) -> usize {
    let log = sandbox.path("run/ran");
    let _ = fs::remove_file(&log);
    for tool in TOOLS {
        let body = format!("echo {tool} >> {}; exec /usr/sbin/{tool} \"$@\"", log.display());
        sandbox.script(tool, &body);
    }
    let mut command = sandbox.netlaunch(&line.split(' ').collect::<Vec<_>>());
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", sandbox.path("bin").display()));
    let output = finish(command);
    assert!(output.status.success(), "{}", text(&output.stderr));
    fs::read_to_string(&log).unwrap_or_default().lines().count()
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
