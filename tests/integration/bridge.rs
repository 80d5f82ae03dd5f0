//! Tests launches on a bridge as far as they need no guest: the tap, the process that makes it, the
//! refusals and their messages, the capabilities of netlaunch and QEMU, and the XML for libvirt.
//! QEMU runs with a stopped processor.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::bridges::{QEMU, end, host, refused, taps, up, waiting};
use crate::common::scene::{alive, launch, launches, nothing_left, pid_of};
use crate::common::schema::valid;
use crate::common::{
    AT_MOST, As, Netns, Sandbox, USER, finish, have_root, skipped, start, status_field, text,
    wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const NONE: &str = "0000000000000000";
const NET_ADMIN: &str = "0000000000001000";

#[test]
fn a_tap_follows_its_bridge_and_ends_with_its_launch() {
    if !have_root("a_tap_follows_its_bridge_and_ends_with_its_launch") {
        return;
    }
    let host = host();
    host.ip("link set br0 mtu 4000");
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let options = ["--bridge", "br0", "--mac", "02:00:00:00:00:07"];
    let before = host.says("cat", &["/sys/class/net/br0/address"]);
    let (scene, shown) = up(&sandbox, sandbox.netlaunch(&waiting(&options, &mark)));
    let tap = shown["bridge"]["tap"].as_str().unwrap().to_owned();

    let link = host.says("ip", &["-d", "-o", "link", "show", "dev", &tap]);
    for word in ["master br0", "mtu 4000", "fe:00:00:00:00:07", "persist off", ",UP"] {
        assert!(link.contains(word), "{word}: {link}");
    }
    let of_tap = |key: &str| {
        host.says("cat", &[&format!("/proc/sys/net/ipv6/conf/{tap}/{key}")]).trim().to_owned()
    };
    if Path::new("/proc/sys/net/ipv6").exists() {
        assert_eq!(of_tap("disable_ipv6"), "1");
        assert!(!host.says("ip", &["-6", "address", "show", "dev", &tap]).contains("inet6"));
    }
    // A bridge has the lowest address of its ports', and this is the only one; with a second port
    // the tap must lose.
    host.ip("link add port0 type veth peer name port1");
    host.ip("link set port0 address 52:54:00:00:00:01");
    host.ip("link set port0 master br0");
    let now = host.says("cat", &["/sys/class/net/br0/address"]);
    assert_eq!(now.trim(), "52:54:00:00:00:01", "before the launch {before}");
    let qemu = fs::read(format!("/proc/{}/cmdline", pid_of(&shown, "qemu"))).unwrap();
    assert!(text(&qemu).contains("mac=02:00:00:00:00:07,host_mtu=4000"), "{}", text(&qemu));
    valid("ps", &serde_json::json!({ "version": 1, "launches": [shown] }));
    let listed = text(&finish(sandbox.netlaunch(&["ps"])).stdout);
    assert!(listed.contains("bridge/br0") && listed.contains(&tap), "{listed}");

    end(scene);
    nothing_left(&sandbox);
    assert_eq!(taps(&host), "");
}

#[test]
fn a_killed_netlaunch_leaves_no_tap_and_no_qemu() {
    if !have_root("a_killed_netlaunch_leaves_no_tap_and_no_qemu") {
        return;
    }
    for options in [&["--bridge", "br0"][..], &["--bridge", "br0", "--user", "nobody"]] {
        let host = host();
        let sandbox = Sandbox::new(As::Root, Some(&host));
        let mark = sandbox.path("").to_string_lossy().into_owned();
        // Not netlaunch alone: its guard, too, which the kernel then has to stand in for.
        for guard in [false, true] {
            let (mut scene, shown) = up(&sandbox, sandbox.netlaunch(&waiting(options, &mark)));
            let qemu = pid_of(&shown, "qemu");
            assert!(!taps(&host).is_empty());
            let victim =
                if guard { status_field(qemu, "PPid").parse().unwrap() } else { scene.pid() };
            kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
            scene.end();
            let gone = || !alive(qemu) && taps(&host).is_empty();
            assert!(wait_until(AT_MOST, gone), "{options:?}: {}", taps(&host));
        }
        // The directory of the killed one goes with the next start.
        let output = finish(sandbox.netlaunch(&[options, &["--", QEMU, "-version"]].concat()));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        nothing_left(&sandbox);
    }
}

#[test]
fn a_start_that_fails_leaves_no_tap() {
    if !have_root("a_start_that_fails_leaves_no_tap") {
        return;
    }
    let host = host();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let script = sandbox.script("qemu", "exit 1");
    let script = script.to_string_lossy();
    for (options, code, words) in [
        (&["--user", "nl-nobody-has-this", "--", QEMU][..], 2, "there is no user nl-nobody"),
        (&["--", "/nonexistent/qemu"], 127, "/nonexistent/qemu"),
        (&["--", &script], 126, "does not look like QEMU"),
    ] {
        let args = [&["--bridge", "br0"], options].concat();
        let (got, said) = refused(sandbox.netlaunch(&args));
        assert_eq!(got, Some(code), "{said}");
        assert!(said.contains(words), "{said}");
        assert_eq!(taps(&host), "");
        nothing_left(&sandbox);
    }
    // QEMU itself refuses: the tap was there.
    let output = finish(sandbox.netlaunch(&["--bridge", "br0", "--", QEMU, "-no-such-option"]));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(taps(&host), "");
    nothing_left(&sandbox);
}

/// `--user` on every backend: QEMU has nothing, and netlaunch what the end takes.
#[test]
fn qemu_of_another_user_and_its_netlaunch_have_only_the_capabilities_they_need() {
    if !have_root("qemu_of_another_user_and_its_netlaunch_have_only_the_capabilities_they_need") {
        return;
    }
    for (options, kept) in [
        (&["--bridge", "br0"][..], NET_ADMIN),
        (&["--backend", "slirp"], NONE),
        (&["--backend", "passt"], NONE),
    ] {
        let host = Netns::routed();
        host.ip("link add br0 type bridge");
        let sandbox = Sandbox::new(As::Root, Some(&host));
        let mark = sandbox.path("").to_string_lossy().into_owned();
        let options = [options, &["--user", "nobody", "--device", "none"]].concat();
        let (scene, shown) = up(&sandbox, sandbox.netlaunch(&waiting(&options, &mark)));
        let qemu = pid_of(&shown, "qemu");
        assert!(status_field(qemu, "Uid").starts_with("65534\t"), "{options:?}");
        assert_eq!(status_field(qemu, "NoNewPrivs"), "1");
        for set in ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"] {
            assert_eq!(status_field(qemu, set), NONE, "{options:?}: {set} of QEMU");
        }
        let given_up = || status_field(scene.pid(), "CapPrm") == kept;
        assert!(wait_until(AT_MOST, given_up), "{options:?}");
        assert_eq!(status_field(scene.pid(), "CapEff"), kept);
        assert_eq!(status_field(scene.pid(), "CapBnd"), kept);
        assert_eq!(shown["user"], "nobody");
        // From then on it handles SIGTERM, number 15, itself; before, it would end at once.
        let handles = || {
            let caught = u64::from_str_radix(&status_field(qemu, "SigCgt"), 16);
            caught.is_ok_and(|signals| signals & (1 << 14) != 0)
        };
        assert!(wait_until(AT_MOST, handles), "{}", scene.said());
        // A QEMU of another user's that does not listen is killed all the same.
        kill(Pid::from_raw(qemu), Signal::SIGSTOP).unwrap();
        kill(Pid::from_raw(scene.pid()), Signal::SIGTERM).unwrap();
        let mut scene = scene;
        assert_eq!(scene.end().code(), Some(137), "{}", scene.said());
        nothing_left(&sandbox);
    }
}

/// The owner of the directory could replace what root makes there.
#[test]
fn root_refuses_a_state_directory_of_another_user() {
    if !have_root("root_refuses_a_state_directory_of_another_user") {
        return;
    }
    let host = host();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    std::os::unix::fs::chown(sandbox.state(), Some(USER), Some(USER)).unwrap();
    let (code, said) = refused(sandbox.netlaunch(&["--bridge", "br0", "--", QEMU]));
    assert_eq!(code, Some(125), "{said}");
    assert!(said.contains("set NETLAUNCH_STATE_DIR to a directory"), "{said}");
    nothing_left(&sandbox);
}

#[test]
fn a_network_must_be_active_and_a_bridge_must_be_a_bridge() {
    if !have_root("a_network_must_be_active_and_a_bridge_must_be_a_bridge") {
        return;
    }
    let host = host();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    for (options, code, words) in [
        (["--network", "default"], 2, "start it with netlaunch network start default"),
        (["--network", "nosuch"], 2, "no network is called nosuch"),
        (["--bridge", "br9"], 2, "there is no interface br9"),
        (["--bridge", "lo"], 2, "lo is not a bridge"),
    ] {
        for rest in [&["--", QEMU][..], &["--print", "--", QEMU], &[]] {
            let (got, said) = refused(sandbox.netlaunch(&[&options[..], rest].concat()));
            assert_eq!(got, Some(code), "{said}");
            assert!(said.contains(words), "{said}");
        }
    }
    nothing_left(&sandbox);
}

#[test]
fn an_interface_that_the_host_lacks_is_a_usage_error() {
    if !have_root("an_interface_that_the_host_lacks_is_a_usage_error") {
        return;
    }
    let host = host();
    for who in [As::Root, As::User] {
        let sandbox = Sandbox::new(who, Some(&host));
        for options in [
            &["--interface", "nosuch0"][..],
            &["--backend", "passt", "--interface", "nosuch0"],
            &["--address", "host", "--interface", "nosuch0"],
        ] {
            for rest in [&["--", QEMU][..], &["--print", "--", QEMU], &[]] {
                let (got, said) = refused(sandbox.netlaunch(&[options, rest].concat()));
                assert_eq!(got, Some(2), "{said}");
                assert!(said.contains("there is no interface nosuch0; 'ip link' lists"), "{said}");
            }
        }
        nothing_left(&sandbox);
    }
}

#[test]
fn a_missing_emulator_exits_as_a_missing_qemu() {
    if !have_root("a_missing_emulator_exits_as_a_missing_qemu") {
        return;
    }
    let sandbox = Sandbox::new(As::User, None);
    for (named, code) in [("/nosuch", 127), ("nosuch", 127), ("/etc/passwd", 126)] {
        for words in [&["--qemu", named, "--", QEMU][..], &["--qemu", named], &["--", named]] {
            let (got, said) = refused(sandbox.netlaunch(words));
            assert_eq!(got, Some(code), "{words:?}: {said}");
        }
    }
    nothing_left(&sandbox);
}

/// The rules that `--print` shows are those that the network has.
#[test]
fn print_shows_the_rules_of_the_network() {
    if !have_root("print_shows_the_rules_of_the_network") {
        return;
    }
    for (backend, tools) in
        [("nftables", &["nft"][..]), ("iptables", &["iptables-restore", "ip6tables-restore"])]
    {
        let host = Netns::bare();
        let sandbox = Sandbox::new(As::Root, Some(&host));
        let setting = format!("firewall_backend = \"{backend}\"\n");
        fs::write(sandbox.path("config/network.conf"), setting).unwrap();
        let ours = |args: &[&str]| {
            let output = finish(sandbox.netlaunch(args));
            assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
            text(&output.stdout)
        };
        ours(&["network", "start", "default"]);
        let printed = ours(&["--network", "default", "--print=json", "--", QEMU]);
        let plan: serde_json::Value = serde_json::from_str(&printed).unwrap();
        valid("plan", &plan);
        let scripts = plan["firewall"].as_array().unwrap();
        let programs: Vec<_> = scripts.iter().map(|s| s["program"].as_str().unwrap()).collect();
        assert_eq!(programs, tools);
        assert!(scripts[0]["input"].as_str().unwrap().contains("192.168.122.0/24"));
        let shell = ours(&["--network", "default", "--print", "--", QEMU]);
        assert!(shell.contains("# rules of the network default") && shell.contains("virbr0"));
        ours(&["network", "destroy", "default"]);
    }
}

/// libvirt's own schema accepts the interface of every launch.
/// Returns libvirt's schema of domains, if it and the program that reads it are installed.
fn schema_of_domains(test: &str) -> Option<PathBuf> {
    let schemas = PathBuf::from("/usr/share/libvirt/schemas");
    let schemas = std::env::var_os("NETLAUNCH_TEST_SCHEMAS").map_or(schemas, PathBuf::from);
    let common = schemas.join("domaincommon.rng");
    if common.exists() && Command::new("xmllint").arg("--version").output().is_ok() {
        return Some(common);
    }
    skipped(test, "it needs libvirt's domaincommon.rng and xmllint (./tests/setup)");
    None
}

#[test]
fn the_schema_of_libvirt_accepts_the_printed_xml() {
    let test = "the_schema_of_libvirt_accepts_the_printed_xml";
    let Some(common) = schema_of_domains(test).filter(|_| have_root(test)) else { return };
    let host = Netns::routed();
    host.ip("link add br0 type bridge");
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let output = finish(sandbox.netlaunch(&["network", "start", "default"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rng = sandbox.path("interface.rng");
    let grammar = format!(
        "<grammar xmlns='http://relaxng.org/ns/structure/1.0'>\n<start><ref name='interface'/></start>\n<include href='{}'/>\n</grammar>\n",
        common.display()
    );
    fs::write(&rng, grammar).unwrap();
    for (options, words, lacking) in [
        (&["--network", "default"][..], "<source network='default'/>", &[][..]),
        (&["--bridge", "br0", "--mtu", "1400"], "<mtu size='1400'/>", &[]),
        (&["--bridge", "br0", "--device", "e1000"], "<model type='e1000'/>", &[]),
        (&["--bridge", "br0", "--user", "nobody"], "<source bridge='br0'/>", &["--user"]),
        (
            &["--backend", "slirp", "-p", "2222:22"],
            "<ip family='ipv4' address='10.0.2.15' prefix='24'/>",
            &["--publish"],
        ),
        (
            &["--backend", "passt", "-p", "2222:22", "-p", "[::1]:53/udp"],
            "<range start='2222' to='22'/>",
            &[],
        ),
        (
            &["--backend", "passt", "-p", "0.0.0.0:80-89:180"],
            "<range start='80' end='89' to='180'/>",
            &[],
        ),
        (
            &["--backend", "passt", "--address", "host", "--device", "none", "--interface", "up0"],
            "<source dev='up0'/>",
            &[],
        ),
        (
            &[
                "--backend",
                "passt",
                "--dns",
                "9.9.9.9",
                "--search",
                "a",
                "--ipv4-only",
                "--pcap",
                "f",
            ],
            "<backend type='passt'/>",
            &["--dns", "--search", "--ipv4-only", "--pcap"],
        ),
    ] {
        let args = [options, &["--print=xml", "--", QEMU]].concat();
        let output = finish(sandbox.netlaunch(&args));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let xml = text(&output.stdout);
        assert!(xml.contains(words), "{xml}");
        let said = text(&output.stderr);
        let unsaid: Vec<&str> = said.split_whitespace().filter(|w| w.starts_with("--")).collect();
        assert_eq!(unsaid, lacking, "{said}");
        let file = sandbox.path("interface.xml");
        fs::write(&file, &xml).unwrap();
        let mut xmllint = Command::new("xmllint");
        let checked =
            xmllint.args(["--noout", "--nonet", "--relaxng"]).arg(&rng).arg(&file).output();
        let checked = checked.unwrap();
        assert!(checked.status.success(), "{}{xml}", text(&checked.stderr));
    }
    finish(sandbox.netlaunch(&["network", "destroy", "default"]));
}

/// Two guests on one bridge have taps of their own, and each goes with its QEMU.
#[test]
fn every_guest_has_its_own_tap() {
    if !have_root("every_guest_has_its_own_tap") {
        return;
    }
    let host = host();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let args = waiting(&["--bridge", "br0", "--name", "first"], &mark);
    let (first, shown) = up(&sandbox, sandbox.netlaunch(&args));
    let _second = start(sandbox.netlaunch(&waiting(&["--bridge", "br0"], &mark)));
    let both = || launches(&sandbox).iter().filter(|l| !l["qemu"].is_null()).count() == 2;
    assert!(wait_until(AT_MOST, both));
    assert_eq!(taps(&host).lines().count(), 2);
    end(first);
    let left = launch(&sandbox)["bridge"]["tap"].as_str().unwrap().to_owned();
    assert_ne!(shown["bridge"]["tap"], left.as_str());
    assert!(taps(&host).contains(&left) && taps(&host).lines().count() == 1);
}
