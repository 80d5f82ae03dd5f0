//! A launch whose guest gets further NICs while it runs.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use serde_json::{Value, json};

use super::bridges::without_dhcp;
use super::scene::{SHELL, Scene, command_line, launch};
use super::{Guest, Netns, Sandbox, finish, processes_with, text, wait_until};

/// How long the host may take to remove the traces of an attachment.
pub const LIMIT: Duration = Duration::from_secs(60);
/// The name of the launch.
pub const NAME: &str = "web";
/// QEMU's arguments for a port to which a card can be added.
pub const PORT: [&str; 2] = ["-device", "pcie-root-port,id=rp0,chassis=1,slot=1"];

/// A launch with one NIC on slirp.
pub struct AttachScene {
    pub sandbox: Sandbox,
    pub scene: Scene,
}

impl AttachScene {
    /// Starts a guest that runs commands, with these further arguments of QEMU.
    pub fn start(sandbox: Sandbox, guest: &Guest, qemu: &[&str]) -> Self {
        let options = ["--name", NAME, "--net", "slirp"];
        let mut args = without_dhcp(command_line(&sandbox, guest, &options, SHELL));
        args.extend(qemu.iter().map(|word| (*word).to_owned()));
        let mut netlaunch = sandbox.netlaunch(&args);
        // The kernel sends SIGHUP to a stopped QEMU if its process group becomes orphaned, and the
        // group of the tests can.
        netlaunch.process_group(0);
        let mut scene = Scene::start(netlaunch);
        scene.hear("SHELL ");
        AttachScene { sandbox, scene }
    }

    /// Attaches a NIC and returns its id.
    pub fn attach(&self, net: &str) -> String {
        self.sandbox.good(&["attach", NAME, "--net", net]).trim().to_owned()
    }

    /// Detaches a NIC.
    pub fn detach(&self, id: &str) {
        self.sandbox.good(&["detach", NAME, id]);
    }

    /// Has the guest wait for its new card and ask a DHCP server there; returns the lease.
    pub fn lease(&mut self, card: &str) -> String {
        let seen = format!(
            "n=0; until [ -e /sys/class/net/{card} ] || [ $n = 300 ]; do n=$((n+1)); sleep 0.1; \
             done; ip link set {card} up; \
             udhcpc -f -q -n -t 9 -T 2 -i {card} -s /bin/udhcpc.script 2>/dev/null"
        );
        self.scene.ask(&seen)
    }

    /// Waits until the guest has no such card any more.
    pub fn card_is_gone(&mut self, card: &str) {
        let gone = format!(
            "n=0; while [ -e /sys/class/net/{card} ] && [ $n -lt 300 ]; do n=$((n+1)); \
             sleep 0.1; done; ls /sys/class/net"
        );
        let cards = self.scene.ask(&gone);
        assert!(!cards.contains(card), "{cards}\n{}", self.scene.said());
    }

    /// The NICs that `netlaunch ps` shows.
    pub fn nics(&self) -> Vec<Value> {
        launch(&self.sandbox)["nics"].as_array().unwrap().clone()
    }

    /// The process number of the supervisor of the second NIC.
    pub fn supervisor(&self) -> i32 {
        self.nics()[1]["attached"]["pid"].as_i64().unwrap() as i32
    }

    /// Returns the answer of QEMU's monitor to a command.
    pub fn monitor(&self, command: &str) -> String {
        let socket = launch(&self.sandbox)["qmp"].as_str().unwrap().to_owned();
        let stream = UnixStream::connect(socket).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut write = &stream;
        for message in [
            json!({ "execute": "qmp_capabilities" }),
            json!({ "execute": "human-monitor-command", "arguments": { "command-line": command } }),
        ] {
            writeln!(write, "{message}").unwrap();
        }
        let mut answers =
            lines.by_ref().map(|line| -> Value { serde_json::from_str(&line.unwrap()).unwrap() });
        let answer = answers.find(|answer| answer["return"].is_string()).unwrap();
        answer["return"].as_str().unwrap().to_owned()
    }

    /// The interfaces, rules, files and processes of attachments.
    pub fn traces(&self, host: &Netns) -> String {
        let taps = host.says("ip", &["-o", "link", "show", "type", "tun"]);
        let tables = host.says("nft", &["list", "tables"]);
        let rules = tables.lines().filter(|line| line.contains("netlaunch_nwfilter"));
        let bindings = self.sandbox.good(&["nwfilter", "binding-list", "--json"]);
        let bindings: Value = serde_json::from_str(&bindings).unwrap();
        let dirs = self.sandbox.launch_dirs();
        let launches = dirs.iter().filter(|name| name.starts_with("launch-")).count();
        let path = self.sandbox.path("bin/netlaunch").to_string_lossy().into_owned();
        let processes = processes_with(&path).into_iter().map(|(_, line)| line);
        let attachments: Vec<String> = processes
            .filter(|line| line.contains(" attach ") || line.contains("collect-attachment"))
            .collect();
        format!(
            "{taps}{}{}{}{attachments:?}",
            rules.collect::<String>(),
            bindings["bindings"],
            launches - 1
        )
    }

    /// Waits until there are no traces of attachments.
    pub fn nothing_attached(&self, host: &Netns, about: &str) {
        let clean = || self.traces(host) == "[]0[]";
        assert!(wait_until(LIMIT, clean), "{about}: {}", self.traces(host));
    }

    /// Runs a command that is refused, and returns its exit status and its one line.
    pub fn refused(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = finish(self.sandbox.netlaunch(args));
        let said = text(&output.stderr);
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        (output.status.code(), said)
    }
}
