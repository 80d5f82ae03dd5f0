//! Tests a netlaunch that is killed at each step of a start, a destroy and a reload of a network:
//! the next command repairs the rest, and in the end nothing of netlaunch is left and nothing of
//! others has changed.

use std::fs;
use std::process::Output;

use crate::common::killed::{self, Moment};
use crate::common::{
    AT_MOST, As, Netns, Sandbox, finish, have_root, processes_with, text, wait_until,
};

const NAT: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000094</uuid>\
    <forward mode='nat'/><bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:94'/>\
    <ip address='10.94.0.1' netmask='255.255.255.0'><dhcp><range start='10.94.0.100' \
    end='10.94.0.200'/></dhcp></ip><ip family='ipv6' address='fd00:94::1' prefix='64'/>\
    <route address='10.95.0.0' prefix='24' gateway='10.94.0.2'/></network>";

struct Host {
    // Dropped first: what it ends lives in the namespace.
    sandbox: Sandbox,
    netns: Netns,
}

impl Host {
    /// A host with rules and links of others.
    fn new(backend: &str) -> Self {
        let netns = Netns::routed();
        let sandbox = Sandbox::new(As::Root, Some(&netns));
        let config = sandbox.path("config");
        fs::create_dir_all(config.join("networks")).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(sandbox.path(""), open).unwrap();
        fs::write(config.join("networks/lab.xml"), NAT).unwrap();
        fs::write(config.join("network.conf"), format!("firewall_backend = \"{backend}\"\n"))
            .unwrap();
        let host = Host { sandbox, netns };
        host.sh(
            "for t in iptables ip6tables; do $t -P FORWARD DROP; $t -N OTHER; $t -A FORWARD -j OTHER; \
             $t -A INPUT -p tcp --dport 22 -j ACCEPT; $t -A OUTPUT -o up9 -j DROP; \
             $t -t nat -A POSTROUTING -o up9 -j MASQUERADE; done; nft add table inet other; \
             ip link add other0 type bridge",
        );
        host
    }

    fn sh(&self, script: &str) -> String {
        self.netns.sh(script)
    }

    /// Everything that netlaunch could leave or change.
    fn state(&self) -> String {
        let seen = self.sh(
            "nft -s list ruleset; iptables-save; ip6tables-save; ip -o link; ip -o address; ip route; \
             ip -6 route; grep . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/*/forwarding \
             /proc/sys/net/ipv6/conf/*/accept_ra",
        );
        let mut state = String::new();
        for line in seen.lines().filter(|line| !line.starts_with('#')) {
            let line = line.split(" [").next().unwrap_or(line).replace(" tentative", "");
            state.push_str(line.split(" qlen ").next().unwrap_or(&line));
            state.push('\n');
        }
        let dir = self.sandbox.state().join("networks");
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name() != ".lock" {
                state.push_str(&format!("left: {:?}\n", entry.path()));
            }
        }
        for process in processes_with(&self.sandbox.path("").to_string_lossy()) {
            state.push_str(&format!("runs: {process:?}\n"));
        }
        state
    }

    fn netlaunch(&self, line: &str) -> Output {
        finish(self.sandbox.netlaunch(&line.split(' ').collect::<Vec<_>>()))
    }

    fn good(&self, line: &str, about: &str) {
        let output = self.netlaunch(line);
        assert!(output.status.success(), "{about}: {line}: {}", text(&output.stderr));
    }

    /// The moments of a command.
    fn moments(&self, line: &str) -> Vec<Moment> {
        killed::moments(&self.sandbox, &line.split(' ').collect::<Vec<_>>())
    }

    /// Kills a command at a moment of it, and waits for the end of the guards of its tools. Returns
    /// whether it came so far.
    fn killed(&self, line: &str, at: &Moment) -> bool {
        let came = killed::killed(&self.sandbox, &line.split(' ').collect::<Vec<_>>(), at);
        let program = self.sandbox.path("bin/netlaunch");
        let ended = || processes_with(&program.to_string_lossy()).is_empty();
        assert!(wait_until(AT_MOST, ended), "{line}, killed before {at}");
        came
    }
}

fn killed_at_every_step(backend: &str, step: usize) {
    if !have_root("killed_at_every_step") {
        return;
    }
    let host = Host::new(backend);
    let before = host.state();
    let start = host.moments("network start lab");
    let reload = host.moments("firewall reload");
    let destroy = host.moments("network destroy lab");
    assert_eq!(host.state(), before);
    let (mut tried, mut killed) = (0, 0);
    let mut count = |came: bool| {
        tried += 1;
        killed += usize::from(came);
    };
    // After a start that was killed, in turn: start, reload, destroy (which says that it does not
    // run). The last one always leaves nothing.
    for (i, at) in start.iter().step_by(step).enumerate() {
        let about = format!("{backend}: start killed at {at}");
        count(host.killed("network start lab", at));
        match i % 3 {
            0 if host.state() != before => {
                let output = host.netlaunch("network start lab");
                let active = text(&output.stderr).contains("runs already");
                assert!(output.status.success() || active, "{about}: {}", text(&output.stderr));
                host.good("network destroy lab", &about);
            }
            1 => host.good("firewall reload", &about),
            _ => {
                host.netlaunch("network destroy lab");
            }
        }
        // A start that had come to its end, as where the last words were cut off.
        host.netlaunch("network destroy lab");
        assert_eq!(host.state(), before, "{about}");
    }
    for (i, at) in destroy.iter().step_by(step).enumerate() {
        let about = format!("{backend}: destroy killed at {at}");
        host.good("network start lab", &about);
        count(host.killed("network destroy lab", at));
        if i % 2 == 0 {
            host.good("firewall reload", &about);
        }
        host.netlaunch("network destroy lab");
        assert_eq!(host.state(), before, "{about}");
    }
    // A reload that changes the backend holds the rules of both at one moment.
    let other = if backend == "nftables" { "iptables" } else { "nftables" };
    let settings = host.sandbox.path("config/network.conf");
    let set = |to: &str| fs::write(&settings, format!("firewall_backend = \"{to}\"\n")).unwrap();
    for at in reload.iter().step_by(step * 3) {
        let about = format!("{backend}: reload killed at {at}");
        host.good("network start lab", &about);
        set(other);
        count(host.killed("firewall reload", at));
        host.good("network destroy lab", &about);
        set(backend);
        assert_eq!(host.state(), before, "{about}");
    }
    println!("{backend}: killed at {killed} of {tried} moments");
    // One more may be missed, since a short run has few moments.
    assert!((killed + 1) * 10 > tried * 8, "{killed} of {tried}");
}

#[test]
fn a_network_killed_at_any_step_is_repaired_with_nftables() {
    killed_at_every_step("nftables", 2);
}

#[test]
fn a_network_killed_at_any_step_is_repaired_with_iptables() {
    killed_at_every_step("iptables", 5);
}

/// A start that was killed right before it made the bridge, and then somebody else makes one of
/// that name, even with that address: it is theirs.
#[test]
fn an_interface_of_others_is_never_removed() {
    if !have_root("an_interface_of_others_is_never_removed") {
        return;
    }
    let host = Host::new("nftables");
    let before = host.state();
    let moments = host.moments("network start lab");
    host.good("network destroy lab", "");
    let status = host.sandbox.state().join("networks/lab/status.json");
    let mut seen = 0;
    for at in moments.iter().filter(|at| ["sendto", "sendmsg"].contains(&at.call.as_str())) {
        host.killed("network start lab", at);
        let marked = fs::read_to_string(&status).is_ok_and(|s| s.contains("\"marked\""));
        let made = host.state().contains("nlt0");
        if marked && !made {
            seen += 1;
            host.netns.ip("link add nlt0 address 52:54:00:00:00:94 type bridge");
            let theirs = host.sh("ip -o link show dev nlt0");
            host.good("firewall reload", "a bridge of others");
            assert_eq!(host.sh("ip -o link show dev nlt0"), theirs);
            host.netns.ip("link del nlt0");
        }
        host.netlaunch("firewall reload");
        host.netlaunch("network destroy lab");
        assert_eq!(host.state(), before, "{at}");
    }
    assert!(seen > 0, "no start was killed before its bridge: {moments:?}");
}
