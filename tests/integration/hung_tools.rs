//! Tests tools that never answer: nft, dnsmasq and passt. The command ends in time with one clear
//! line, leaves nothing, and the next command works.

use std::time::{Duration, Instant};

use std::fs;

use crate::common::port_scene::{PortScene, Station};
use crate::common::{
    As, Netns, Sandbox, extent, finish, have_root, processes_with, start, text, wait_until,
};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// The longest time that a command may take. One tool has at most 30 seconds, and a command may
/// have to run a tool several times.
const BOUND: Duration = Duration::from_secs(150);
const NAT: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000096</uuid>\
    <forward mode='nat'/><bridge name='nlh0' delay='0'/><mac address='52:54:00:00:00:96'/>\
    <ip address='10.96.0.1' netmask='255.255.255.0'><dhcp><range start='10.96.0.100' \
    end='10.96.0.200'/></dhcp></ip></network>";

/// Puts a program of this name first in PATH that sleeps if its arguments match `when`, and
/// otherwise executes the real one.
fn hang(sandbox: &Sandbox, name: &str, real: &str, when: &str) {
    let body = format!("case \"$*\" in {when}) exec sleep 4321;; esac; exec {real} \"$@\"");
    sandbox.script(name, &body);
}

/// Runs a command with the sandbox's programs first in PATH. Returns its exit status and messages.
fn run(sandbox: &Sandbox, args: &[&str]) -> (Option<i32>, String) {
    let mut command = sandbox.netlaunch(args);
    let bin = sandbox.path("bin").display().to_string();
    command.env("PATH", format!("{bin}:/usr/sbin:/usr/bin:/sbin:/bin"));
    let begin = Instant::now();
    let output = start(command).output(BOUND);
    println!("{args:?} took {:.0?}: {}", begin.elapsed(), text(&output.stderr));
    (output.status.code(), text(&output.stderr))
}

/// Checks that a command has failed with one line that contains the words.
fn failed((status, said): (Option<i32>, String), words: &[&str]) {
    assert_eq!(status, Some(125), "{said}");
    let errors = said.lines().filter(|line| line.starts_with("netlaunch: error: ")).count();
    assert_eq!(errors, 1, "{said}");
    assert!(!said.contains("panicked"), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
}

/// Checks that no process of the sandbox is left.
fn nothing_runs(sandbox: &Sandbox) {
    let mine = sandbox.path("").display().to_string();
    let is_gone = || processes_with(&mine).is_empty();
    assert!(wait_until(Duration::from_secs(5), is_gone), "{:?}", processes_with(&mine));
}

/// A network that is defined and does not run.
struct Lab {
    sandbox: Sandbox,
    netns: Netns,
}

impl Lab {
    fn new() -> Self {
        let netns = Netns::routed();
        let sandbox = Sandbox::new(As::Root, Some(&netns));
        fs::create_dir_all(sandbox.path("config/networks")).unwrap();
        fs::write(sandbox.path("config/networks/lab.xml"), NAT).unwrap();
        Lab { sandbox, netns }
    }

    /// Checks that the network has no link and no process, and that its next start works.
    fn starts_again(&self, fake: &str) {
        nothing_runs(&self.sandbox);
        let links = self.netns.says("ip", &["-o", "link"]);
        assert!(!links.contains("nlh0"), "{links}");
        fs::remove_file(self.sandbox.path("bin").join(fake)).unwrap();
        self.sandbox.good(&["network", "start", "lab"]);
        self.sandbox.good(&["network", "destroy", "lab"]);
        nothing_runs(&self.sandbox);
        let rules = self.netns.says("nft", &["list", "ruleset"]);
        assert!(!rules.contains("nlh0"), "{rules}");
    }
}

#[test]
fn a_network_start_ends_although_nft_never_answers() {
    if !have_root("a_network_start_ends_although_nft_never_answers") {
        return;
    }
    let lab = Lab::new();
    hang(&lab.sandbox, "nft", "/usr/sbin/nft", "*");
    failed(run(&lab.sandbox, &["network", "start", "lab"]), &["nft did not end within 30 s"]);
    lab.starts_again("nft");
}

#[test]
fn a_network_start_ends_although_dnsmasq_never_answers() {
    if !have_root("a_network_start_ends_although_dnsmasq_never_answers") {
        return;
    }
    let lab = Lab::new();
    hang(&lab.sandbox, "dnsmasq", "/usr/sbin/dnsmasq", "*");
    let ended = run(&lab.sandbox, &["network", "start", "lab"]);
    failed(ended, &["dnsmasq", "was not ready within 20 s"]);
    lab.starts_again("dnsmasq");
}

#[test]
fn the_end_of_a_network_is_reported_and_completed_although_nft_never_answers() {
    if !have_root("the_end_of_a_network_is_reported_and_completed_although_nft_never_answers") {
        return;
    }
    let lab = Lab::new();
    lab.sandbox.good(&["network", "start", "lab"]);
    hang(&lab.sandbox, "nft", "/usr/sbin/nft", "*");
    let words = ["nft did not end within 30 s"];
    if extent(false, true) {
        failed(run(&lab.sandbox, &["firewall", "reload"]), &words);
    }
    failed(run(&lab.sandbox, &["network", "destroy", "lab"]), &words);
    fs::remove_file(lab.sandbox.path("bin/nft")).unwrap();
    // The record of the failed step stays, so the next command completes the end.
    let again = finish(lab.sandbox.netlaunch(&["network", "destroy", "lab"]));
    assert!(again.status.success(), "{}", text(&again.stderr));
    nothing_runs(&lab.sandbox);
    assert!(!lab.netns.says("ip", &["-o", "link"]).contains("nlh0"));
    assert!(!lab.netns.says("nft", &["list", "ruleset"]).contains("nlh0"));
}

#[test]
fn commands_on_a_port_end_although_nft_never_answers() {
    if !have_root("commands_on_a_port_end_although_nft_never_answers") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let unbound = scene.ruleset();
    let rules = "<rule action='drop' direction='out'><udp dstportstart='1001'/></rule>";
    scene.define("mine", rules).unwrap();
    let file = scene.binding(Station::Vnet0, "mine", &[]);
    let words = ["nft did not end within 30 s"];
    hang(&scene.sandbox, "nft", "/usr/sbin/nft", "*");
    failed(run(&scene.sandbox, &["nwfilter", "binding-create", &file]), &words);
    nothing_runs(&scene.sandbox);
    assert_eq!(scene.ruleset(), unbound);
    fs::remove_file(scene.sandbox.path("bin/nft")).unwrap();
    scene.bind(Station::Vnet0, "mine", &[]).unwrap();
    let bound = scene.ruleset();
    hang(&scene.sandbox, "nft", "/usr/sbin/nft", "*");
    let new = scene.sandbox.path("mine.xml");
    let changed = rules.replace("1001", "1002");
    fs::write(&new, format!("<filter name='mine'>{changed}</filter>")).unwrap();
    let new = new.display().to_string();
    if extent(false, true) {
        failed(run(&scene.sandbox, &["nwfilter", "define", &new]), &words);
        assert_eq!(scene.ruleset(), bound, "the old rules stay");
    }
    failed(run(&scene.sandbox, &["firewall", "reload"]), &words);
    fs::remove_file(scene.sandbox.path("bin/nft")).unwrap();
    scene.define("mine", &changed).unwrap();
    scene.unbind(Station::Vnet0);
    nothing_runs(&scene.sandbox);
}

#[test]
fn a_launch_ends_or_uses_slirp_if_passt_never_answers() {
    if !have_root("a_launch_ends_or_uses_slirp_if_passt_never_answers") {
        return;
    }
    for who in [As::Root, As::User] {
        let netns = Netns::routed();
        let sandbox = Sandbox::new(who, Some(&netns));
        let mark = sandbox.path("").display().to_string();
        let guest = ["--", QEMU, "-M", "none", "-display", "none", "-no-such", &mark];
        // passt answers the probe and then never serves; or it does not even answer the probe.
        let real = "/usr/bin/passt";
        for (served, when) in [(true, "*--socket*|*--fd*|*--vhost*"), (false, "*")] {
            hang(&sandbox, "passt", real, when);
            let named = [&["--backend", "passt"], &guest[..]].concat();
            let (status, said) = run(&sandbox, &named);
            let errors = said.lines().filter(|line| line.contains("error: ")).count();
            assert_eq!((status, errors), (Some(125), 1), "{said}");
            assert!(said.contains(if served { "within 10 s" } else { "passt" }), "{said}");
            nothing_runs(&sandbox);
            assert_eq!(sandbox.launch_dirs(), [] as [String; 0]);
            // auto goes on with slirp, and QEMU ends with its own status because of -no-such.
            let (status, said) = run(&sandbox, &guest);
            assert_eq!(status, Some(1), "{said}");
            assert!(said.contains("slirp") && said.contains("-no-such"), "{said}");
            nothing_runs(&sandbox);
            assert_eq!(sandbox.launch_dirs(), [] as [String; 0]);
        }
        fs::remove_file(sandbox.path("bin/passt")).unwrap();
        let (status, said) = run(&sandbox, &[&["--backend", "passt"], &guest[..]].concat());
        assert_eq!(status, Some(1), "the next launch works: {said}");
    }
}
