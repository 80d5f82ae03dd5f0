//! Tests a launch with published ports that is killed at each of its steps, from the first one to
//! the last: its rules go at once, and the next launch says nothing.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::killed::{self, Moment};
use crate::common::network_host::NetworkHost;
use crate::common::{AT_MOST, extent, finish, have_root, processes_with, text, wait_until};

const LAB: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000075</uuid>\
    <forward mode='nat'/><bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:75'/>\
    <dns enable='no'/><ip address='10.75.0.1' netmask='255.255.255.0'/></network>";

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// A launch whose QEMU ends at once.
struct Launch {
    host: NetworkHost,
    qemu: String,
}

impl Launch {
    fn new(backend: &str) -> Self {
        let host = NetworkHost::new(LAB);
        let settings = format!("firewall_backend = \"{backend}\"\n");
        fs::write(host.sandbox.path("config/network.conf"), settings).unwrap();
        // The address is known from the start, so the ports get all their rules at once.
        host.good("network start lab");
        host.sh("ip neigh replace 10.75.0.5 lladdr 52:54:00:00:75:05 dev nlt0 nud permanent");
        let body = format!("case \"$*\" in *tap,*) exit 0;; *) exec {QEMU} \"$@\";; esac");
        let qemu = host.sandbox.script("qemu-system-x86_64", &body);
        let qemu = qemu.to_string_lossy().into_owned();
        Launch { host, qemu }
    }

    fn args(&self) -> Vec<&str> {
        let line = "--network lab --name web --mac 52:54:00:00:75:05 -p 0.0.0.0:8080-8081:80 \
                    -p 8090:90 -p 0.0.0.0:8080:80/udp --";
        line.split_whitespace().chain([self.qemu.as_str(), "-m", "32"]).collect()
    }

    /// Everything that a launch with published ports changes.
    fn state(&self) -> String {
        let seen = self.host.sh("nft -s list ruleset; iptables-save; ls /sys/class/net; \
             grep . /proc/sys/net/ipv4/conf/*/route_localnet /proc/sys/net/ipv4/ip_forward; \
             ss -Hltun");
        let mut state = String::new();
        let is_rule = |line: &&str| !line.starts_with(['#', ':', '*']) && *line != "COMMIT";
        for line in seen.lines().filter(is_rule) {
            state.push_str(line);
            state.push('\n');
        }
        let status = self.host.status();
        state.push_str(&format!("{} {}\n", status["published"], status["publishing"]));
        state
    }

    /// Kills the launch at a moment, and waits for the end of all its processes. Returns whether it
    /// came so far.
    fn killed(&self, at: &Moment) -> bool {
        let came = killed::killed(&self.host.sandbox, &self.args(), at);
        for program in ["bin/netlaunch", "bin/qemu-system-x86_64"] {
            let program = self.host.sandbox.path(program);
            let ended = || processes_with(&program.to_string_lossy()).is_empty();
            assert!(wait_until(AT_MOST, ended), "killed before {at}");
        }
        came
    }

    /// Runs the launch to its end; returns its messages.
    fn run(&self) -> String {
        let mut command: Command = self.host.sandbox.netlaunch(&self.args());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let output = finish(command);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    }
}

fn a_launch_is_killed_at_every_step(backend: &str, step: usize) {
    if !have_root("a_launch_is_killed_at_every_step") {
        return;
    }
    let launch = Launch::new(backend);
    // iptables makes its tables at the first use, and they stay; so does forwarding.
    let said = launch.run();
    let before = launch.state();
    assert!(!before.contains("-pub"), "{before}");
    let moments = killed::moments(&launch.host.sandbox, &launch.args());
    assert_eq!(launch.state(), before);
    let mut came = 0;
    for (i, at) in moments.iter().enumerate().step_by(step) {
        let about = format!("{backend}: killed before {at}");
        came += usize::from(launch.killed(at));
        let now = launch.state();
        assert!(!now.contains("-pub"), "{about}: {now}");
        // The sockets end with the process, so the ports on loopback addresses do, too.
        assert!(!now.contains("127.0.0.1:8090 "), "{about}: {now}");
        match i / step % 3 {
            0 => {
                launch.host.good("firewall reload");
            }
            1 => {
                launch.host.good("network collect");
            }
            _ => {
                assert_eq!(launch.run(), said, "{about}");
            }
        }
        assert_eq!(launch.state(), before, "{about}");
    }
    println!("{backend}: killed at {came} of {} moments", moments.len());
    assert!(came * 10 > moments.len() / step * 7, "{came} of {}", moments.len());
    launch.host.good("network destroy lab");
    let left = text(&fs::read(launch.host.file("status.json")).unwrap_or_default());
    assert_eq!(left, "");
}

#[test]
fn no_rule_of_a_launch_killed_at_any_step_is_left_on_nftables() {
    a_launch_is_killed_at_every_step("nftables", extent(8, 1));
}

#[test]
fn no_rule_of_a_launch_killed_at_any_step_is_left_on_iptables() {
    a_launch_is_killed_at_every_step("iptables", extent(14, 1));
}

/// passt of the second NIC does not become ready, so the kill comes after the ports of the first
/// one were published, and before QEMU runs.
#[test]
fn the_rules_of_a_launch_killed_before_qemu_runs_go_without_another_command() {
    if !have_root("the_rules_of_a_launch_killed_before_qemu_runs_go_without_another_command") {
        return;
    }
    let launch = Launch::new("nftables");
    launch.run();
    let before = launch.state();
    let body = "case \"$*\" in *--help*|*--version*) exec /usr/bin/passt \"$@\";; esac; sleep 60";
    let passt = launch.host.sandbox.script("passt", body).to_string_lossy().into_owned();
    let nic = "--net network=lab,mac=52:54:00:00:75:05,publish=0.0.0.0:8080:80 --net passt --passt";
    let words: Vec<&str> =
        nic.split(' ').chain([&*passt, "--", &*launch.qemu, "-m", "32"]).collect();
    let mut command: Command = launch.host.sandbox.netlaunch(&words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut started = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").spawn().unwrap();
    let limit = Duration::from_secs(30);
    let published = wait_until(limit, || launch.state().contains("-pub"));
    started.kill().unwrap();
    started.wait().unwrap();
    assert!(published, "no port was published");
    assert!(wait_until(limit, || launch.state() == before), "{}", launch.state());
}
