//! Tests launches on a bridge by an ordinary user through QEMU's bridge helper, and the remedy that
//! netlaunch names if the helper cannot work.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::bridges::{QEMU, host, refused, taps, up, waiting};
use crate::common::scene::{Scene, alive, command_line, nothing_left, pid_of};
use crate::common::schema::valid;
use crate::common::{
    AT_MOST, As, Guest, Netns, Sandbox, USER, finish, have_root, processes_with, run, skipped,
    status_field, text, wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const HELPER: &str = "/usr/lib/qemu/qemu-bridge-helper";

/// An ordinary user's netlaunch, on a host whose /etc is `etc` and whose bridge helper is `helper`,
/// and where everyone may open the tap device, as udev has it: a mount namespace of its own, in
/// which setuid programs work.
fn users(sandbox: &Sandbox, etc: &Path, helper: &Path, args: &[&str]) -> Command {
    let plain = sandbox.netlaunch(args);
    let mount = "mount --bind \"$1\" /etc && mount --bind \"$2\" \"$3\" &&
        mount -t tmpfs tmpfs /dev/net && mknod -m 0666 /dev/net/tun c 10 200 &&
        shift 3 && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", mount, "sh"]);
    command.arg(etc).arg(helper).arg(HELPER).arg(plain.get_program());
    // The helper's privileges come from the bounding set.
    command.args(plain.get_args().filter(|arg| *arg != "--bounding-set=-all"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap());
    }
    command
}

/// A copy of /etc with this access control list, and a copy of the helper with these bits.
fn helped(sandbox: &Sandbox, name: &str, list: Option<&str>, mode: u32) -> (PathBuf, PathBuf) {
    let (etc, helper) =
        (sandbox.path(&format!("{name}.etc")), sandbox.path(&format!("{name}.qbh")));
    let [from, to] = [Path::new("/etc"), &etc].map(|p| p.to_string_lossy().into_owned());
    assert!(run("cp", &["-a", &from, &to]).status.success());
    fs::create_dir_all(etc.join("qemu")).unwrap();
    let _ = fs::remove_file(etc.join("qemu/bridge.conf"));
    if let Some(list) = list {
        fs::write(etc.join("qemu/bridge.conf"), list).unwrap();
    }
    fs::copy(HELPER, &helper).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(mode)).unwrap();
    (etc, helper)
}

fn have_helper(test: &str) -> bool {
    let there = Path::new(HELPER).exists();
    if !there {
        skipped(test, format_args!("{HELPER} is not installed (./tests/setup)"));
    }
    there
}

#[test]
fn an_ordinary_user_gets_the_tap_from_the_helper() {
    let test = "an_ordinary_user_gets_the_tap_from_the_helper";
    if !have_root(test) || !have_helper(test) {
        return;
    }
    let host = host();
    let sandbox = Sandbox::new(As::User, Some(&host));
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let (etc, helper) = helped(&sandbox, "good", Some("# ours\nallow br0\n"), 0o4755);
    let args = waiting(&["--bridge", "br0"], &mark);
    let (mut scene, shown) = up(&sandbox, users(&sandbox, &etc, &helper, &args));
    assert_eq!(shown["bridge"]["bridge"], "br0");
    let of_bridge = || host.says("ip", &["-o", "link", "show", "master", "br0"]);
    assert!(
        wait_until(Duration::from_secs(30), || of_bridge().contains("tap")),
        "{}",
        scene.said()
    );
    let qemu = pid_of(&shown, "qemu");
    assert!(status_field(qemu, "Uid").starts_with(&format!("{USER}\t")));
    // netlaunch is killed, and the helper's tap is gone with QEMU.
    kill(Pid::from_raw(scene.pid()), Signal::SIGKILL).unwrap();
    scene.end();
    let gone = || !alive(qemu) && of_bridge().is_empty();
    assert!(wait_until(AT_MOST, gone), "{}", of_bridge());

    // Serve mode has nothing to supervise but the arguments to print.
    let output = finish(users(&sandbox, &etc, &helper, &["--bridge", "br0", "--qemu", QEMU]));
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let netdev = format!("-netdev 'bridge,id=net0,br=br0,helper={HELPER}' -device ");
    assert!(printed.starts_with(&netdev), "{printed}");
}

#[test]
fn a_helper_that_refuses_is_reported_with_the_remedy() {
    let test = "a_helper_that_refuses_is_reported_with_the_remedy";
    if !have_root(test) || !have_helper(test) {
        return;
    }
    let host = host();
    let sandbox = Sandbox::new(As::User, Some(&host));
    let list = "/etc/qemu/bridge.conf";
    for (name, text, mode, words) in [
        ("plain", Some("allow br0\n"), 0o755, format!("run 'chmod u+s {HELPER}'")),
        ("none", None, 0o4755, format!("write the line \"allow br0\" into {list}")),
        ("other", Some("allow br1\n"), 0o4755, format!("write the line \"allow br0\" into {list}")),
        ("deny", Some("allow all\ndeny br0\n"), 0o4755, "remove the line \"deny br0\"".into()),
    ] {
        let (etc, helper) = helped(&sandbox, name, text, mode);
        let args = ["--bridge", "br0", "--", QEMU, "-version"];
        let (code, said) = refused(users(&sandbox, &etc, &helper, &args));
        assert_eq!(code, Some(125), "{name}: {said}");
        assert!(said.contains(&words), "{name}: {said}");
        // The same words in the list of what this host can do.
        let output = finish(users(&sandbox, &etc, &helper, &["probe", "--json"]));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        valid("probe", &report);
        let bridge = &report["candidates"][2];
        assert_eq!(
            (&bridge["backend"], bridge["usable"].as_bool()),
            (&"bridge".into(), Some(name == "other" || name == "deny")),
            "{name}: {bridge}"
        );
        assert_eq!(bridge["fix"].is_null(), bridge["usable"] == true);
        assert_ne!(report["chosen"], "bridge");
    }
    // The helper reads its list as the user.
    let (etc, helper) = helped(&sandbox, "closed", Some("allow br0\n"), 0o4755);
    let file = etc.join("qemu/bridge.conf");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    let (code, said) =
        refused(users(&sandbox, &etc, &helper, &["--bridge", "br0", "--", QEMU, "-version"]));
    assert_eq!(code, Some(125), "{said}");
    assert!(said.contains(&format!("chmod a+r {list}")), "{said}");
    nothing_left(&sandbox);
}

/// Only root reads the state of networks; a user gets the name of the bridge, or the remedy.
#[test]
fn an_ordinary_user_gets_the_tap_of_a_network_from_the_helper() {
    let test = "an_ordinary_user_gets_the_tap_of_a_network_from_the_helper";
    if !have_root(test) || !have_helper(test) {
        return;
    }
    let host = Netns::bare();
    let sandbox = Sandbox::new(As::User, Some(&host));
    let (etc, helper) = helped(&sandbox, "good", Some("allow virbr0\n"), 0o4755);
    let networks = Sandbox::new(As::Root, Some(&host));
    let output = finish(networks.netlaunch(&["network", "start", "default"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let args = ["--network", "default", "--print=json", "--", QEMU];
    let plan = || {
        let mut command = users(&sandbox, &etc, &helper, &args);
        command.env("NETLAUNCH_STATE_DIR", networks.state());
        finish(command)
    };
    let output = plan();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let plan_of: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    valid("plan", &plan_of);
    let joined = &plan_of["bridge"];
    assert_eq!((&joined["bridge"], &joined["helper"]), (&"virbr0".into(), &HELPER.into()));
    assert_eq!(plan_of["firewall"][0]["program"].as_str().map(|p| p.is_empty()), Some(false));

    let status = networks.state().join("networks");
    fs::set_permissions(&status, fs::Permissions::from_mode(0o700)).unwrap();
    let output = plan();
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(125), 1), "{said}");
    assert!(said.contains("--bridge"), "{said}");
    let output = finish(networks.netlaunch(&["network", "destroy", "default"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(processes_with(&networks.path("").to_string_lossy()).is_empty());
}

/// A real guest on the helper's tap: its lease is from the network's dnsmasq.
#[test]
fn a_guest_of_an_ordinary_user_works_on_the_bridge_of_a_network() {
    let test = "a_guest_of_an_ordinary_user_works_on_the_bridge_of_a_network";
    let (true, true, Some(guest)) = (have_root(test), have_helper(test), Guest::find(test)) else {
        return;
    };
    let host = Netns::bare();
    let networks = Sandbox::new(As::Root, Some(&host));
    let output = finish(networks.netlaunch(&["network", "start", "default"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let sandbox = Sandbox::new(As::User, Some(&host));
    let (etc, helper) = helped(&sandbox, "good", Some("allow virbr0\n"), 0o4755);
    let args = command_line(&sandbox, &guest, &["--bridge", "virbr0"], "read go\nexit_qemu 37");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut scene = Scene::start(users(&sandbox, &etc, &helper, &args));
    let lease = scene.hear("LEASE ");
    assert!(lease.contains("ip=192.168.122.") && lease.contains("router=192.168.122.1"), "{lease}");
    scene.say("go");
    assert_eq!(scene.end().code(), Some(37), "{}", scene.said());
    nothing_left(&sandbox);
    assert_eq!(taps(&host), "");
    let output = finish(networks.netlaunch(&["network", "destroy", "default"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
}
