//! Tests lost messages between netlaunch and the kernel: strace makes each of netlaunch's sends and
//! receives fail, one at a time. The command then succeeds completely or fails with one line, and
//! the next command leaves nothing unfinished.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::bridges::{QEMU, host as bridge_host, taps};
use crate::common::scene::nothing_left;
use crate::common::{As, Netns, Sandbox, extent, finish, have_root, text};

/// The calls by which netlink, and the guards of the tools, are spoken to.
const CALLS: [&str; 4] = ["sendto", "recvfrom", "sendmsg", "recvmsg"];

const LAB: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000097</uuid>\
    <forward mode='nat'/><bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:97'/>\
    <mtu size='1400'/><ip address='10.97.0.1' netmask='255.255.255.0'/>\
    <ip family='ipv6' address='fd00:97::1' prefix='64'/>\
    <route address='10.98.0.0' prefix='24' gateway='10.97.0.2'/></network>";

/// netlaunch with one call that fails, or only noted.
fn traced(sandbox: &Sandbox, args: &[&str], lost: Option<Loss>) -> Command {
    let mut command = sandbox.program(Path::new("/usr/bin/strace"));
    let calls = lost.map_or_else(|| CALLS.join(","), |(call, ..)| call.to_owned());
    command.args(["-qq", "-e", "signal=none", "-e", &format!("trace={calls}")]);
    if let Some((call, n, error)) = lost {
        command.args(["-e", &format!("inject={call}:error={error}:when={n}")]);
    }
    command.arg("-o").arg(sandbox.path("run/calls"));
    command.arg(sandbox.path("bin/netlaunch")).args(args);
    command
}

/// One call to fail: its name, its occurrence, its error.
type Loss = (&'static str, usize, &'static str);

/// Every single loss in the command that was just traced: of all calls, or of netlink's alone.
fn losses(sandbox: &Sandbox, only_netlink: bool) -> Vec<Loss> {
    let log = fs::read_to_string(sandbox.path("run/calls")).unwrap();
    let mut losses = Vec::new();
    for call in CALLS {
        let lines = log.lines().filter(|line| line.starts_with(&format!("{call}(")));
        for (at, line) in lines.enumerate() {
            if only_netlink && !line.contains("AF_NETLINK") {
                continue;
            }
            let error = if call.starts_with("send") || at % 2 == 0 { "ENOBUFS" } else { "EIO" };
            losses.push((call, at + 1, error));
        }
    }
    losses
}

/// A host with a network that can be started.
struct Host {
    // Dropped first: what it ends lives in the namespace.
    sandbox: Sandbox,
    netns: Netns,
}

impl Host {
    fn new() -> Self {
        let netns = Netns::routed();
        let sandbox = Sandbox::new(As::Root, Some(&netns));
        fs::create_dir_all(sandbox.path("config/networks")).unwrap();
        fs::write(sandbox.path("config/networks/lab.xml"), LAB).unwrap();
        Host { sandbox, netns }
    }

    /// Links, addresses, routes, rules and statuses, without the numbers of interfaces.
    fn state(&self) -> String {
        let script = "ip -o link; ip -o address; ip route; ip -6 route; nft -s list ruleset; \
                      iptables-save; ip6tables-save";
        let mut state = String::new();
        for line in self.netns.sh(script).lines().filter(|line| !line.starts_with('#')) {
            let line = line.split(" [").next().unwrap_or(line).replace(" tentative", "");
            let line = line.split_once(": ").map_or(line.as_str(), |(_, rest)| rest);
            state += &format!("{}\n", line.split(" qlen ").next().unwrap_or(line));
        }
        let dir = self.sandbox.state().join("networks");
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name() != ".lock" {
                state += &format!("left: {:?}\n", entry.path());
            }
        }
        state
    }

    fn run(&self, line: &str, lost: Option<Loss>) -> Output {
        finish(traced(&self.sandbox, &line.split(' ').collect::<Vec<_>>(), lost))
    }

    fn good(&self, line: &str, about: &str) {
        let output = finish(self.sandbox.netlaunch(&line.split(' ').collect::<Vec<_>>()));
        assert!(output.status.success(), "{about}: {line}: {}", text(&output.stderr));
    }
}

#[test]
fn a_network_start_that_returns_0_has_done_everything() {
    if !have_root("a_network_start_that_returns_0_has_done_everything") {
        return;
    }
    let host = Host::new();
    // The tools' tables stay once they are there.
    let before = host.state();
    let output = host.run("network start lab", None);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (losses, running) = (losses(&host.sandbox, false), host.state());
    host.good("network destroy lab", "");
    let mut done = 0;
    for lost in losses.iter().step_by(extent(9, 1)) {
        let about = format!("start, {lost:?}");
        let output = host.run("network start lab", Some(*lost));
        let said = text(&output.stderr);
        if output.status.success() {
            done += 1;
            assert_eq!(host.state(), running, "{about}: {said}");
        } else {
            assert_eq!((output.status.code(), said.lines().count()), (Some(125), 1), "{said}");
            host.good("network start lab", &about);
        }
        host.good("network destroy lab", &about);
        assert_eq!(host.state(), before, "{about}: {said}");
    }
    println!("{done} starts succeeded; {} losses are possible", losses.len());
    assert!(losses.len() > 40, "{losses:?}");
}

#[test]
fn a_network_destroy_that_returns_0_has_left_nothing() {
    if !have_root("a_network_destroy_that_returns_0_has_left_nothing") {
        return;
    }
    let host = Host::new();
    let before = host.state();
    host.good("network start lab", "");
    let output = host.run("network destroy lab", None);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let losses = losses(&host.sandbox, false);
    for lost in losses.iter().step_by(extent(9, 1)) {
        let about = format!("destroy, {lost:?}");
        host.good("network start lab", &about);
        let output = host.run("network destroy lab", Some(*lost));
        let said = text(&output.stderr);
        if !output.status.success() {
            assert_eq!((output.status.code(), said.lines().count()), (Some(125), 1), "{said}");
            host.good("firewall reload", &about);
            finish(host.sandbox.netlaunch(&["network", "destroy", "lab"]));
        }
        assert_eq!(host.state(), before, "{about}: {said}");
    }
    println!("{} losses", losses.len());
    assert!(losses.len() > 10, "{losses:?}");
}

/// The QEMU here notes the ports of the bridge that are up, and ends.
#[test]
fn a_guest_that_runs_has_its_tap_on_the_bridge() {
    if !have_root("a_guest_that_runs_has_its_tap_on_the_bridge") {
        return;
    }
    let host = bridge_host();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let seen = sandbox.path("run/seen");
    let body = format!(
        "case \"$*\" in *tap,*) for port in $(ls /sys/class/net/br0/brif); do \
         echo \"$(cat /sys/class/net/$port/flags) \" >> {}; done;; \
         *) exec {QEMU} \"$@\";; esac",
        seen.display()
    );
    let qemu = sandbox.script("qemu-system-x86_64", &body);
    let qemu = qemu.to_string_lossy();
    let args = ["--backend", "bridge", "--bridge", "br0", "--", &qemu, "-m", "32"];
    let output = finish(traced(&sandbox, &args, None));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let losses = losses(&sandbox, true);
    let ports = fs::read_to_string(&seen).unwrap();
    assert_eq!(ports.lines().count(), 1, "{ports}");
    for lost in losses.iter().step_by(extent(9, 1)) {
        let _ = fs::remove_file(&seen);
        let output = finish(traced(&sandbox, &args, Some(*lost)));
        let (said, now) = (text(&output.stderr), fs::read_to_string(&seen).unwrap_or_default());
        if output.status.success() {
            assert_eq!(now, ports, "{lost:?}: {said}");
        } else {
            assert_eq!(said.lines().count(), 1, "{lost:?}: {said}");
        }
        assert_eq!(taps(&host), "", "{lost:?}: {said}");
        // The next start removes the directory of one that could not end.
        let next = finish(sandbox.netlaunch(&args));
        assert!(next.status.success(), "{lost:?}: {}", text(&next.stderr));
        nothing_left(&sandbox);
    }
    println!("{} losses", losses.len());
    assert!(losses.len() > 10, "{losses:?}");
}
