//! Injects faults into launches: with passt as root and as an ordinary user, and on a bridge.

use std::time::Duration;

use super::networks::list_files;
use super::sweep::{Ended, Live, Scenario};
use crate::common::bridges::{self, QEMU, taps};
use crate::common::{As, Netns, Sandbox, finish, processes_with, text, wait_until};

/// The QMP commands that make QEMU quit.
const QUIT: &str = "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n";

pub struct Launch {
    sandbox: Sandbox,
    netns: Netns,
    /// Whether the guest is on the bridge br0; otherwise it uses passt.
    bridged: bool,
    /// Whether the backend worked while QEMU ran, or why not.
    seen: Option<Result<(), String>>,
}

impl Launch {
    pub fn new(who: As, bridged: bool) -> Self {
        let netns = if bridged { bridges::host() } else { Netns::routed() };
        let sandbox = Sandbox::new(who, Some(&netns));
        let launch = Launch { sandbox, netns, bridged, seen: None };
        // Fills the cache of the programs' features.
        let args = launch.args();
        let output = finish(launch.sandbox.netlaunch(&[&args[..], &["-no-such".into()]].concat()));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        launch
    }

    fn mark(&self) -> String {
        self.sandbox.path("").to_string_lossy().into_owned()
    }

    fn args(&self) -> Vec<String> {
        let how = if self.bridged { ["--bridge", "br0"] } else { ["--backend", "passt"] };
        let mark = self.mark();
        let mut args = bridges::waiting(&how, &mark);
        args.extend(["-qmp", "stdio"]);
        assert!(args.contains(&QEMU));
        args.into_iter().map(str::to_owned).collect()
    }

    fn serves(&self) -> Result<(), String> {
        let (found, what) = if self.bridged {
            let ports = self.netns.says("ip", &["-o", "link", "show", "master", "br0"]);
            (ports.contains(": "), "no tap on the bridge")
        } else {
            let mine = self.sandbox.path("state").to_string_lossy().into_owned();
            let runs = processes_with(&mine).iter().any(|(_, line)| line.contains("passt"));
            (runs, "no passt runs")
        };
        found.then_some(()).ok_or_else(|| what.to_owned())
    }

    fn left(&self) -> Result<(), String> {
        let gone = || processes_with(&self.mark()).is_empty() && taps(&self.netns).is_empty();
        wait_until(Duration::from_secs(2), gone);
        let mut left = taps(&self.netns);
        for process in processes_with(&self.mark()) {
            left.push_str(&format!("runs: {process:?}\n"));
        }
        for name in ["state", "run", "config"] {
            list_files(&self.sandbox.path(name), &mut left);
        }
        for name in self.sandbox.launch_dirs() {
            if name.starts_with("launch-") {
                left.push_str(&format!("left: {name}\n"));
            }
        }
        if left.is_empty() { Ok(()) } else { Err(left) }
    }
}

impl Scenario for Launch {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn has_qemu(&self) -> bool {
        true
    }

    fn prepare(&mut self) -> Vec<String> {
        self.seen = None;
        self.args()
    }

    fn during(&mut self, live: &mut Live) -> bool {
        if self.seen.is_none() && live.out.text().contains("\"QMP\"") {
            self.seen = Some(self.serves());
            live.say(QUIT);
        }
        false
    }

    fn check_success(&mut self, _: &Ended) -> Result<(), String> {
        self.seen.clone().unwrap_or_else(|| Err("QEMU has not run".to_owned()))
    }

    fn next(&mut self, number: usize, _: &Ended) -> Result<(), String> {
        // `ps` changes nothing. A launch removes the remains of a killed launch.
        let shown = finish(self.sandbox.netlaunch(&["ps", "--json"]));
        if !shown.status.success() {
            return Err(text(&shown.stderr));
        }
        if self.left().is_err() || number.is_multiple_of(8) {
            let args = [&self.args()[..], &["-no-such".into()]].concat();
            let output = finish(self.sandbox.netlaunch(&args));
            if output.status.code() != Some(1) {
                return Err(format!("the next launch: {}", text(&output.stderr)));
            }
        }
        self.left()
    }
}
