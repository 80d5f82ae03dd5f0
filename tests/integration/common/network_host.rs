//! A host with one network, whose state tests compare before and after.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use super::{As, Netns, Sandbox, finish, processes_with, text};

/// A host of its own with the definition of the network `lab`.
pub struct NetworkHost {
    // Dropped first, since the programs that it ends live in the namespace.
    pub sandbox: Sandbox,
    pub netns: Netns,
}

impl NetworkHost {
    /// A host whose networks are made with nftables.
    pub fn new(xml: &str) -> Self {
        let netns = Netns::routed();
        let sandbox = Sandbox::new(As::Root, Some(&netns));
        fs::create_dir_all(sandbox.path("config/networks")).unwrap();
        fs::write(sandbox.path("config/networks/lab.xml"), xml).unwrap();
        let settings = "firewall_backend = \"nftables\"\n";
        fs::write(sandbox.path("config/network.conf"), settings).unwrap();
        NetworkHost { sandbox, netns }
    }

    /// Runs a shell script in the namespace, which succeeds.
    pub fn sh(&self, script: &str) -> String {
        self.netns.sh(script)
    }

    /// netlaunch with these words.
    pub fn netlaunch(&self, line: &str) -> Output {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = self.sandbox.netlaunch(&words);
        let bin = self.sandbox.path("bin");
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
        finish(command)
    }

    /// The same, which succeeds.
    pub fn good(&self, line: &str) -> String {
        let output = self.netlaunch(line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The same, which fails with this exit status; returns the message.
    pub fn bad(&self, line: &str, status: i32) -> String {
        let output = self.netlaunch(line);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{line}: {said}");
        said
    }

    /// A file in the network's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.sandbox.state().join("networks/lab").join(name)
    }

    /// The network's status.
    pub fn status(&self) -> Value {
        serde_json::from_slice(&fs::read(self.file("status.json")).unwrap()).unwrap()
    }

    /// The process of the network's dnsmasq, as it is recorded.
    pub fn dnsmasq(&self) -> i32 {
        self.status()["served"]["process"]["pid"].as_i64().unwrap() as i32
    }

    /// Everything that a network makes or changes.
    pub fn state(&self) -> String {
        let seen =
            self.sh("nft -s list ruleset; ip -o link; ip -o address; ip route; ip -6 route; \
             grep . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/*/forwarding \
             /proc/sys/net/ipv6/conf/*/accept_ra");
        let mut state = String::new();
        for line in seen.lines() {
            let line = line.split(" [").next().unwrap_or(line).replace(" tentative", "");
            state.push_str(line.split(" qlen ").next().unwrap_or(&line));
            state.push('\n');
        }
        for entry in fs::read_dir(self.sandbox.state().join("networks")).into_iter().flatten() {
            let entry = entry.unwrap();
            if entry.file_name() != ".lock" {
                state.push_str(&format!("left: {:?}\n", entry.path()));
            }
        }
        let conf = format!("--conf-file={}", self.sandbox.path("").display());
        for (_, process) in processes_with(&conf) {
            state.push_str(&format!("runs: {process}\n"));
        }
        state
    }
}
