//! Tests `netlaunch probe --require`, and the trials of dnsmasq, of the firewall's tools and of the
//! socket of a guest's ping.

use std::time::Instant;

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::common::schema::valid;
use crate::common::{
    AT_MOST, As, Netns, Sandbox, finish, have_root, processes_with, run, text, wait_until,
};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// A sandbox whose `bin` comes first in PATH, and its network namespace.
struct Host {
    sandbox: Sandbox,
    netns: Netns,
}

impl Host {
    fn new(who: As) -> Self {
        let netns = Netns::routed();
        Host { sandbox: Sandbox::new(who, Some(&netns)), netns }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox.netlaunch(&[&["probe", "--qemu", QEMU], args].concat());
        let bin = self.sandbox.path("bin").display().to_string();
        command.env("PATH", format!("{bin}:/usr/sbin:/usr/bin:/sbin:/bin"));
        command
    }

    /// Returns the exit status, standard output and standard error of a probe.
    fn probe(&self, args: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = finish(self.command(args));
        (status.code().unwrap(), text(&stdout), text(&stderr))
    }

    /// Lets these groups of the namespace make ICMP echo sockets.
    fn ping_groups(&self, range: &str) {
        let setting = format!("net.ipv4.ping_group_range={range}");
        let set = run("ip", &["netns", "exec", &self.netns.name, "sysctl", "-q", "-w", &setting]);
        assert!(set.status.success(), "{}", text(&set.stderr));
    }

    /// Returns the firewall rules of the namespace.
    fn rules(&self) -> String {
        self.netns.says("nft", &["list", "ruleset"])
    }

    /// No process of a trial is left.
    fn nothing_runs(&self) {
        let mine = self.sandbox.path("").display().to_string();
        let is_gone = || processes_with(&mine).is_empty();
        assert!(wait_until(AT_MOST, is_gone), "{:?}", processes_with(&mine));
    }
}

#[test]
fn a_host_that_has_every_required_ability_prints_nothing() {
    if !have_root("a_host_that_has_every_required_ability_prints_nothing") {
        return;
    }
    let host = Host::new(As::Root);
    host.ping_groups("0 2147483647");
    // The second probe finds the successes of the first one in the cache.
    for _ in 0..2 {
        let args = [
            "--require",
            "passt,slirp",
            "--require",
            "bridge,qemu,ping,dnsmasq,nftables,iptables,firewall",
        ];
        assert_eq!(host.probe(&args), (0, String::new(), String::new()));
        assert_eq!(host.rules(), "", "the trials are in namespaces of their own");
        host.nothing_runs();
    }
    let user = Host::new(As::User);
    user.ping_groups("0 2147483647");
    assert_eq!(user.probe(&["--require=passt,ping,slirp"]), (0, String::new(), String::new()));
}

#[test]
fn each_missing_ability_has_one_line_with_its_fix() {
    if !have_root("each_missing_ability_has_one_line_with_its_fix") {
        return;
    }
    let host = Host::new(As::Root);
    host.ping_groups("1 0");
    host.sandbox.script("dnsmasq", "echo 'dnsmasq: no such luck' >&2; exit 3");
    host.sandbox.script("nft", "echo 'Error: no such table' >&2; exit 1");
    // Its change is a success that has no effect.
    host.sandbox.script("iptables-restore", "cat >/dev/null");
    let wanted = "ping,dnsmasq,nftables,iptables,firewall,slirp,dnsmasq";
    let (status, said, errors) = host.probe(&["--require", wanted]);
    assert_eq!((status, errors.as_str()), (1, ""), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    for (line, name, words) in [
        (0, "ping", &["ping_group_range is 1 0", "; run 'sysctl"][..]),
        (1, "dnsmasq", &["does not serve: no such luck", "; run dnsmasq by hand"]),
        (2, "nftables", &["nft refuses rules", "no such table", "; "]),
        (3, "iptables", &["the kernel has no rules", "; look for a wrapper"]),
        (4, "firewall", &["nftables: nft refuses", "iptables: the tools of iptables", "; "]),
    ] {
        let line = lines.get(line).unwrap_or_else(|| panic!("no line {line} in {said}"));
        assert!(line.starts_with(&format!("{name} is missing: ")), "{line}");
        for word in words {
            assert!(line.contains(word), "no {word:?} in {line}");
        }
    }
    assert_eq!(lines.len(), 5, "each missing ability once: {said}");

    let (status, said, _) = host.probe(&["--json", "--require", "slirp", "--require", "dnsmasq"]);
    let report: Value = serde_json::from_str(&said).unwrap();
    valid("probe", &report);
    assert_eq!(status, 1);
    let required = report["required"].as_array().unwrap();
    let answers: Vec<_> = required.iter().map(|one| (&one["name"], &one["usable"])).collect();
    assert_eq!(answers, [(&"slirp".into(), &true.into()), (&"dnsmasq".into(), &false.into())]);
    assert_eq!(report["firewall"]["backends"]["nftables"]["usable"], false);
    host.nothing_runs();
}

#[test]
fn an_ordinary_user_lacks_the_abilities_of_root() {
    if !have_root("an_ordinary_user_lacks_the_abilities_of_root") {
        return;
    }
    let host = Host::new(As::User);
    let (status, said, _) = host.probe(&["--require", "passt,dnsmasq,firewall"]);
    assert_eq!((status, said.lines().count()), (1, 2), "{said}");
    assert!(said.lines().all(|line| line.contains("; run netlaunch as root")), "{said}");
    // Without a requirement, a missing ability is no failure.
    let (status, said, _) = host.probe(&[]);
    assert_eq!(status, 0);
    assert!(said.contains("dnsmasq for networks") && said.contains("firewall: nftables"), "{said}");
}

#[test]
fn an_unknown_ability_is_a_usage_error() {
    let host = Sandbox::new(As::Root, None);
    let output = finish(host.netlaunch(&["probe", "--require", "passt,dnsmask"]));
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("--require: unknown value \"dnsmask\"") && said.contains("dnsmasq"));
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_tool_that_never_answers_ends_the_trial_in_time() {
    if !have_root("a_tool_that_never_answers_ends_the_trial_in_time") {
        return;
    }
    let host = Host::new(As::Root);
    let mark = host.sandbox.path("mark").display().to_string();
    for name in ["dnsmasq", "nft", "iptables-save"] {
        host.sandbox.script(name, &format!("sh -c 'sleep 1000; : {mark}' & wait"));
    }
    let begin = Instant::now();
    let (status, said, errors) = host.probe(&["--require", "dnsmasq,nftables,iptables"]);
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert_eq!((status, errors.as_str()), (1, ""));
    assert_eq!(said.matches("did not answer within 10 s; run ").count(), 3, "{said}");
    host.nothing_runs();
}
