//! Tests the QMP socket that a launch adds to QEMU: no other user can connect, the monitors of QEMU
//! stay as they are, and each kind of launch has the socket.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::bridges::{QEMU, end, up, waiting};
use crate::common::scene::{HOST, LIMIT, launch, netns_with_resolver, nothing_left, pid_of};
use crate::common::schema::valid;
use crate::common::{As, Sandbox, USER, finish, have_root, processes_with, run, text, wait_until};

/// A sandbox on a host with a network.
fn sandbox(test: &str, who: As) -> Option<(crate::common::Netns, Sandbox)> {
    if !have_root(test) {
        return None;
    }
    let host = netns_with_resolver(HOST);
    let sandbox = Sandbox::new(who, Some(&host));
    Some((host, sandbox))
}

/// Attaches a NIC to the launch of this name, and takes it away by force: no guest runs.
fn attach_and_detach(sandbox: &Sandbox, name: &str) {
    assert_eq!(sandbox.good(&["attach", name, "--net", "slirp"]), "net1\n");
    let nics = launch(sandbox)["nics"].take();
    assert_eq!((&nics[1]["id"], nics[1]["attached"].is_null()), (&json!("net1"), false), "{nics}");
    sandbox.good(&["detach", name, "net1", "--timeout", "0", "--force"]);
    assert_eq!(launch(sandbox)["nics"].as_array().unwrap().len(), 1);
}

/// The mode of the socket alone keeps other users from QEMU, whatever the directory's is.
#[test]
fn no_other_user_can_connect_to_the_qmp_socket() {
    let test = "no_other_user_can_connect_to_the_qmp_socket";
    let Some((_host, sandbox)) = sandbox(test, As::Root) else { return };
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let args = waiting(&["--net", "slirp"], &mark);
    let (scene, shown) = up(&sandbox, sandbox.netlaunch(&args));
    let socket = PathBuf::from(shown["qmp"].as_str().unwrap());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let dir = socket.parent().unwrap();
    assert_eq!((mode(&socket), mode(dir)), (0o600, 0o700));
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let connects = |user: u32| {
        let user = format!("--reuid={user}");
        let connect = "use IO::Socket::UNIX; \
                       exit(IO::Socket::UNIX->new(Peer => $ARGV[0]) ? 0 : $!{EACCES} ? 13 : 1)";
        let socket = socket.to_string_lossy();
        let args = [&user, "--clear-groups", "perl", "-MErrno", "-e", connect, &*socket];
        run("setpriv", &args).status.code()
    };
    assert_eq!((connects(0), connects(USER)), (Some(0), Some(13)));
    end(scene);
}

#[test]
fn the_monitor_that_qemu_makes_by_default_stays() {
    let test = "the_monitor_that_qemu_makes_by_default_stays";
    let Some((_host, sandbox)) = sandbox(test, As::User) else { return };
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let qemu = ["--name", "web", "--net", "slirp", "--", QEMU, "-S", "-display", "none"];
    let args = [&qemu[..], &["-accel", "tcg", "-m", "32", "-name", &mark]].concat();
    let (scene, shown) = up(&sandbox, sandbox.netlaunch(&args));
    valid("ps", &json!({ "version": 1, "launches": [shown] }));
    let attached = crate::common::attach_scene::AttachScene { sandbox, scene };
    let devices = attached.monitor("info chardev");
    assert!(devices.contains("compat_monitor0"), "{devices}");
    attach_and_detach(&attached.sandbox, "web");
    end(attached.scene);
    nothing_left(&attached.sandbox);
}

/// QEMU has a `-global` for the MTU of the card of `-nic`, which is on passt.
#[test]
fn a_card_that_is_attached_on_slirp_does_not_tell_the_mtu_of_passt() {
    let test = "a_card_that_is_attached_on_slirp_does_not_tell_the_mtu_of_passt";
    let Some((_host, sandbox)) = sandbox(test, As::User) else { return };
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let qemu = ["--name", "web", "--backend", "passt", "--", QEMU, "-S", "-display", "none"];
    let nic = ["-accel", "tcg", "-m", "32", "-nic", "user,model=virtio", "-name", &mark];
    let args = [&qemu[..], &nic].concat();
    let (scene, _) = up(&sandbox, sandbox.netlaunch(&args));
    let attached = crate::common::attach_scene::AttachScene { sandbox, scene };
    assert_eq!(attached.sandbox.good(&["attach", "web", "--net", "slirp"]), "net1\n");
    let tree = attached.monitor("info qtree");
    let mtus = tree.lines().filter_map(|line| line.trim().strip_prefix("host_mtu = "));
    assert_eq!(mtus.collect::<Vec<_>>(), ["0 (0x0)", "65520 (0xfff0)"], "{tree}");
    end(attached.scene);
    nothing_left(&attached.sandbox);
}

/// Neither QEMU's user nor another one needs access to the launch directory.
#[test]
fn a_qemu_of_another_user_has_the_socket() {
    let test = "a_qemu_of_another_user_has_the_socket";
    let Some((_host, sandbox)) = sandbox(test, As::Root) else { return };
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let args = waiting(&["--name", "web", "--user", "nobody", "--net", "slirp"], &mark);
    let (scene, _) = up(&sandbox, sandbox.netlaunch(&args));
    attach_and_detach(&sandbox, "web");
    // passt's end of a pair of sockets goes the same way.
    // The card of the first one is still there.
    assert_eq!(sandbox.good(&["attach", "web", "--net", "passt"]), "net2\n");
    assert_eq!(launch(&sandbox)["nics"][1]["transport"], "fd");
    end(scene);
    // The supervisors of the attachments end after QEMU, at their own pace.
    wait_until(LIMIT, || processes_with(&mark).is_empty());
    nothing_left(&sandbox);
}

#[test]
fn a_daemon_has_the_socket() {
    let test = "a_daemon_has_the_socket";
    let Some((_host, sandbox)) = sandbox(test, As::User) else { return };
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let mut args = waiting(&["--name", "web", "--net", "slirp"], &mark);
    args.push("-daemonize");
    sandbox.good(&args);
    attach_and_detach(&sandbox, "web");
    kill(Pid::from_raw(pid_of(&launch(&sandbox), "qemu")), Signal::SIGTERM).unwrap();
    let gone = wait_until(LIMIT, || sandbox.launch_dirs().is_empty());
    assert!(gone, "{:?}", sandbox.launch_dirs());
}

/// Behind a stand-in, the launch has no name but that of its directory.
#[test]
fn a_stand_in_has_the_socket() {
    let test = "a_stand_in_has_the_socket";
    let Some((_host, sandbox)) = sandbox(test, As::User) else { return };
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let args = waiting(&["wrap"], &mark);
    let nic = ["-nic", "user,model=virtio-net-pci,id=net0"];
    let (scene, shown) = up(&sandbox, sandbox.netlaunch(&[&args[..], &nic].concat()));
    assert_eq!(shown["nics"][0]["origin"]["kind"], "adopted", "{shown}");
    attach_and_detach(&sandbox, shown["name"].as_str().unwrap());
    end(scene);
}

/// The plan shows the socket apart from the arguments that another caller of QEMU can use.
#[test]
fn a_printed_plan_has_the_socket_apart() {
    let test = "a_printed_plan_has_the_socket_apart";
    let Some((_host, sandbox)) = sandbox(test, As::User) else { return };
    let args = waiting(&["--print=json", "--net", "slirp"], "mark");
    let plan: Value = serde_json::from_str(&sandbox.good(&args)).unwrap();
    valid("plan", &plan);
    assert!(plan["qmp"]["socket"].as_str().unwrap().ends_with("/qmp.sock"), "{plan}");
    assert_eq!(plan["qmp"]["args"][0], "-readconfig");
    let argv = plan["qemu"]["argv"].as_array().unwrap();
    assert!(!argv.contains(&json!("-readconfig")), "{plan}");
    let serve: Value =
        serde_json::from_str(&sandbox.good(&["--print=json", "--net", "slirp"])).unwrap();
    assert!(serve["qmp"].is_null(), "{serve}");
}

/// A path that is too long for a socket is no reason against a launch.
#[test]
fn a_launch_with_a_long_path_has_no_socket() {
    let test = "a_launch_with_a_long_path_has_no_socket";
    let Some((_host, sandbox)) = sandbox(test, As::Root) else { return };
    let state = sandbox.path(&"long-".repeat(18));
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let in_state = |args: &[&str]| {
        let mut command = sandbox.netlaunch(args);
        command.env("NETLAUNCH_STATE_DIR", &state);
        command
    };
    let args = waiting(&["--name", "web", "--net", "slirp"], &mark);
    let mut scene = crate::common::scene::Scene::start(in_state(&args));
    let attach = || bridges_refused(in_state(&["attach", "web", "--net", "slirp"]));
    let runs = || attach().1.contains("has no QMP socket");
    assert!(wait_until(LIMIT, runs), "{:?}\n{}", attach(), scene.said());
    assert_eq!(attach().0, Some(125));
    kill(Pid::from_raw(scene.pid()), Signal::SIGTERM).unwrap();
    scene.end();
}

/// Returns the exit status and the messages of a command.
fn bridges_refused(command: std::process::Command) -> (Option<i32>, String) {
    let output = finish(command);
    (output.status.code(), text(&output.stderr))
}
