//! Injects faults into commands on virtual networks: start, destroy, reload.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::sweep::{Ended, Scenario};
use crate::common::tree::files_below;
use crate::common::{As, Netns, Sandbox, finish, processes_with, text, wait_until};

const NAT: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000098</uuid>\
    <forward mode='nat'/><bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:98'/>\
    <ip address='10.98.0.1' netmask='255.255.255.0'><dhcp><range start='10.98.0.100' \
    end='10.98.0.200'/></dhcp></ip><ip family='ipv6' address='fd00:98::1' prefix='64'/></network>";

/// The command that gets the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Start,
    Destroy,
    Reload,
}

pub struct Network {
    // Dropped first, because its processes run in the namespace.
    sandbox: Sandbox,
    netns: Netns,
    verb: Verb,
    before: String,
    up: String,
}

impl Network {
    pub fn new(verb: Verb, backend: &str) -> Self {
        let netns = Netns::routed();
        let sandbox = Sandbox::new(As::Root, Some(&netns));
        fs::create_dir_all(sandbox.path("config/networks")).unwrap();
        fs::write(sandbox.path("config/networks/lab.xml"), NAT).unwrap();
        let settings = format!("firewall_backend = \"{backend}\"\n");
        fs::write(sandbox.path("config/network.conf"), settings).unwrap();
        let mut network =
            Network { sandbox, netns, verb, before: String::new(), up: String::new() };
        // After the first round, the tables that the tools never remove exist.
        for _ in 0..2 {
            network.good("network start lab").unwrap();
            network.up = network.kernel();
            network.good("network destroy lab").unwrap();
            network.before = network.everything();
        }
        network
    }

    /// Returns rules, links, addresses and routes.
    fn kernel(&self) -> String {
        let script = "nft -s list ruleset; iptables-save; ip6tables-save; ip -o link; ip -o address; \
            ip route; ip -6 route; grep . /proc/sys/net/ipv4/ip_forward \
            /proc/sys/net/ipv6/conf/*/forwarding /proc/sys/net/ipv6/conf/*/accept_ra";
        let said = self.netns.sh(script);
        let mut lines: Vec<&str> = Vec::new();
        for line in said.lines().filter(|line| !line.starts_with('#') && !line.contains("fe80")) {
            let line = line.split(" [").next().unwrap_or(line);
            let line = line.split(" qlen ").next().unwrap_or(line);
            // Interface numbers differ from run to run.
            let (number, rest) = line.split_once(": ").unwrap_or_default();
            let is_numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            lines.push(if is_numbered { rest } else { line });
        }
        lines.join("\n").replace(" tentative", "")
    }

    /// Returns the processes and files that netlaunch left.
    fn left(&self) -> String {
        let path = self.sandbox.path("").to_string_lossy().into_owned();
        wait_until(Duration::from_secs(2), || processes_with(&path).is_empty());
        let mut left = String::new();
        for process in processes_with(&path) {
            left.push_str(&format!("runs: {process:?}\n"));
        }
        for name in ["state", "run", "config"] {
            list_files(&self.sandbox.path(name), &mut left);
        }
        left
    }

    fn everything(&self) -> String {
        self.kernel() + "\n" + &self.left()
    }

    fn good(&self, line: &str) -> Result<(), String> {
        let output = finish(self.sandbox.netlaunch(&line.split(' ').collect::<Vec<_>>()));
        let said = text(&output.stderr);
        output.status.success().then_some(()).ok_or(format!("{line}: {said}"))
    }

    /// Runs a command that may report that it has nothing to do.
    fn attempt(&self, line: &str, nothing: &str) -> Result<(), String> {
        self.good(line).or_else(|said| if said.contains(nothing) { Ok(()) } else { Err(said) })
    }

    fn destroy(&self) -> Result<(), String> {
        self.attempt("network destroy lab", "is not active")
    }

    fn is_up(&self) -> Result<(), String> {
        differs("up", &self.up, &self.kernel())?;
        let path = self.sandbox.path("").to_string_lossy().into_owned();
        let serves = processes_with(&path).iter().any(|(_, line)| line.contains("dnsmasq"));
        serves.then_some(()).ok_or("dnsmasq does not run".to_owned())
    }

    fn is_down(&self) -> Result<(), String> {
        differs("down", &self.before, &self.everything())
    }
}

impl Scenario for Network {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn prepare(&mut self) -> Vec<String> {
        let line = match self.verb {
            Verb::Start => "network start lab",
            Verb::Destroy => "network destroy lab",
            Verb::Reload => "firewall reload",
        };
        if self.verb != Verb::Start && self.is_up().is_err() {
            self.good("network start lab").unwrap();
        }
        line.split(' ').map(str::to_owned).collect()
    }

    fn check_success(&mut self, _: &Ended) -> Result<(), String> {
        match self.verb {
            Verb::Destroy => self.is_down(),
            Verb::Start | Verb::Reload => self.is_up(),
        }
    }

    fn next(&mut self, number: usize, ended: &Ended) -> Result<(), String> {
        match (self.verb, number % 3) {
            (Verb::Start, 0) if !ended.success => {
                self.attempt("network start lab", "runs already")?;
                self.is_up()?;
            }
            (Verb::Start | Verb::Destroy, 1) => {
                self.good("firewall reload")?;
            }
            (Verb::Reload, _) => {
                self.good("firewall reload")?;
                return self.is_up();
            }
            _ => {}
        }
        self.destroy()?;
        self.is_down()
    }
}

/// Returns an error with the lines that differ.
pub fn differs(name: &str, expected: &str, is: &str) -> Result<(), String> {
    let but = |all: &str, others: &str| -> Vec<String> {
        let others: Vec<&str> = others.lines().collect();
        all.lines().filter(|line| !others.contains(line)).map(str::to_owned).collect()
    };
    let (more, less) = (but(is, expected), but(expected, is));
    if more.is_empty() && less.is_empty() {
        return Ok(());
    }
    Err(format!("not {name}: too many {more:?}, too few {less:?}"))
}

/// Lists the files below a directory, without lock files.
pub fn list_files(dir: &Path, found: &mut String) {
    for file in files_below(dir).iter().filter(|file| !file.ends_with(".lock")) {
        found.push_str(&format!("left: {}\n", file.display()));
    }
}
