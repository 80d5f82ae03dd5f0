//! netlaunch as a stand-in for QEMU: calls whose networks move, with real QEMU and real passt.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::scene::passt_has;
use crate::common::wrap_scene::{LIMIT, QUIT, STOPPED, Scene, fed, wait_for_pid};
use crate::common::wrapped::NAME;
use crate::common::{As, Guest, finish, start, status_field, text, wait_until};

#[test]
fn a_network_that_moves_leaves_output_and_status_as_they_were() {
    for who in [As::Root, As::User] {
        let Some(scene) = Scene::new("a network that moves", who) else { return };
        let output = fed(scene.command(&format!("{STOPPED} -qmp stdio")), QUIT);
        assert_eq!(text(&output.stderr), "", "{who:?}");
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("\"prelaunch\""), "{}", text(&output.stdout));
        let log = scene.wrapped.log();
        assert_eq!(log.lines().count(), 1, "{log}");
        for words in [NAME, "/usr/bin/qemu-system-x86_64", "-nic user", "moved to passt"] {
            assert!(log.contains(words), "{words} is not in {log}");
        }
        scene.wait_for_nothing();
    }
}

#[test]
fn qemus_default_card_moves() {
    let Some(scene) = Scene::new("QEMU's default card", As::User) else { return };
    let disk = scene.wrapped.sandbox.path("run/disk");
    fs::write(&disk, [0; 4096]).unwrap();
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o666)).unwrap();
    let line = format!(
        "-M pc -accel tcg -display none -S -drive file={},format=raw -qmp stdio",
        disk.display()
    );
    let output = fed(scene.command(&line), QUIT);
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), ("", Some(0)));
    let log = scene.wrapped.log();
    // The card is an e1000, which pads frames.
    let expected = if passt_has("map-host-loopback") {
        "QEMU's default card moved to passt"
    } else {
        "QEMU's default card stays on slirp: this passt ignores the padded frames of QEMU's default card"
    };
    assert!(log.contains(expected), "{log}");
}

#[test]
fn a_network_moves_without_a_home_and_a_runtime_directory() {
    let Some(scene) = Scene::new("a bare environment", As::User) else { return };
    let mut command = scene.command(&format!("{STOPPED} -qmp stdio"));
    for name in
        ["HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "NETLAUNCH_STATE_DIR", "NETLAUNCH_CONFIG_DIR"]
    {
        command.env_remove(name);
    }
    command.env("TMPDIR", scene.wrapped.sandbox.path("run"));
    let output = fed(command, QUIT);
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), ("", Some(0)));
    assert!(scene.wrapped.log().contains("moved to passt"), "{}", scene.wrapped.log());
}

#[test]
fn of_two_networks_one_moves_and_one_stays() {
    let Some(scene) = Scene::new("two networks", As::User) else { return };
    let line = format!("{STOPPED} -nic user,model=e1000,restrict=on -qmp stdio");
    let output = fed(scene.command(&line), QUIT);
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), ("", Some(0)));
    let log = scene.wrapped.log();
    for words in ["virtio-net-pci moved to passt", "restrict=on stays on slirp: passt cannot"] {
        assert!(log.contains(words), "{words} is not in {log}");
    }
}

#[test]
fn a_guest_has_its_address_through_the_stand_in() {
    for transport in ["unix", "fd"] {
        let Some(scene) = Scene::new("a guest of a stand-in", As::User) else { return };
        let Some(guest) = Guest::find("a guest of a stand-in") else { return };
        scene.settings(&format!("transport = \"{transport}\""));
        has_its_address(&scene, &guest);
    }
}

fn has_its_address(scene: &Scene, guest: &Guest) {
    let mut command = scene.wrapped.command();
    command.args(&guest.qemu("echo ADDRESS $(ip -4 -o addr show eth0)")[1..]);
    command.args(["-nic", "user,model=virtio-net-pci,net=192.168.76.0/24"]);
    let output = start(command).output(Duration::from_secs(300));
    let console = text(&output.stdout);
    assert!(console.contains("192.168.76.15"), "{console}\n{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    assert!(scene.wrapped.log().contains("moved to passt"), "{}", scene.wrapped.log());
}

#[test]
fn a_guest_that_daemonizes_shows_its_caller_what_qemu_shows() {
    let Some(scene) = Scene::new("a daemon behind a stand-in", As::User) else { return };
    let (pidfile, child) = scene.with_pidfile(scene.command(&format!("{STOPPED} -daemonize")));
    // The output ends, so no process holds the caller's pipes.
    let output = child.output(LIMIT);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    let qemu = wait_for_pid(&pidfile);
    assert_eq!(status_field(qemu, "Name"), "qemu-system-x86");
    let log = scene.wrapped.log();
    assert!(log.contains("moved to passt"), "{log}");
    assert!(scene.anything_runs());
    kill(Pid::from_raw(qemu), Signal::SIGTERM).unwrap();
    assert!(wait_until(LIMIT, || !scene.anything_runs()));
    assert!(wait_until(LIMIT, || scene.wrapped.sandbox.launch_dirs().is_empty()));

    let mut broken = scene.command(&format!("{STOPPED} -daemonize -device nosuch"));
    broken.env_remove("NETLAUNCH_WRAP_LOG");
    let output = finish(broken);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nosuch"), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("netlaunch"), "{}", text(&output.stderr));
}

#[test]
fn a_daemon_runs_untouched_if_passt_does_not_start() {
    let Some(scene) = Scene::new("a daemon whose passt fails", As::User) else { return };
    scene.broken_passt();
    let (pidfile, child) = scene.with_pidfile(scene.command(&format!("{STOPPED} -daemonize")));
    let output = child.output(LIMIT);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    let qemu = wait_for_pid(&pidfile);
    assert!(scene.wrapped.log().contains("runs without netlaunch: "), "{}", scene.wrapped.log());
    kill(Pid::from_raw(qemu), Signal::SIGTERM).unwrap();
    assert!(wait_until(LIMIT, || !Path::new(&format!("/proc/{qemu}")).exists()));
}

/// Returns the output of a call whose network cannot move, and of the same call of QEMU.
fn untouched(scene: &Scene, line: &str, input: &str) -> (Output, Output) {
    let through = fed(scene.command(line), input);
    let mut plain = scene.wrapped.sandbox.program(Path::new("/usr/bin").join(NAME).as_path());
    plain.args(line.split(' '));
    (through, fed(plain, input))
}

#[test]
fn qemu_runs_untouched_if_passt_does_not_start() {
    let Some(scene) = Scene::new("a passt that fails", As::User) else { return };
    scene.broken_passt();
    let output = fed(scene.command(&format!("{STOPPED} -qmp stdio")), QUIT);
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), ("", Some(0)));
    let log = scene.wrapped.log();
    assert!(log.contains("runs without netlaunch: "), "{log}");
    assert!(scene.wrapped.sandbox.launch_dirs().is_empty());
}

#[test]
fn qemu_runs_untouched_without_a_place_for_a_launch() {
    let Some(scene) = Scene::new("no launch directory", As::User) else { return };
    let mut command = scene.command(&format!("{STOPPED} -qmp stdio"));
    command.env("NETLAUNCH_STATE_DIR", "/proc");
    let output = fed(command, QUIT);
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), ("", Some(0)));
    assert!(text(&output.stdout).contains("\"prelaunch\""));
    assert!(scene.wrapped.log().contains("runs without netlaunch: "), "{}", scene.wrapped.log());
}

#[test]
fn a_busy_forwarded_port_gives_qemus_own_message_and_status() {
    let Some(scene) = Scene::new("a busy forwarded port", As::User) else { return };
    let listener = scene.netns.inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    let line = format!(
        "-M pc -accel tcg -display none -nodefaults -S -nic user,hostfwd=tcp:127.0.0.1:{port}-:22"
    );
    let (through, plain) = untouched(&scene, &line, "");
    assert!(text(&plain.stderr).contains("Could not set up host forwarding rule"));
    assert_eq!(text(&through.stderr), text(&plain.stderr));
    assert_eq!(through.status.code(), plain.status.code());
}

#[test]
fn a_network_that_only_slirp_can_serve_stays_with_the_reason_in_the_log() {
    let Some(scene) = Scene::new("a network that stays", As::User) else { return };
    let line = "-M pc -accel tcg -display none -nodefaults -S -netdev user,id=a,restrict=on -device e1000,netdev=a -qmp stdio";
    let output = fed(scene.command(line), QUIT);
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), ("", Some(0)));
    let log = scene.wrapped.log();
    for words in ["runs without netlaunch", "-netdev user,id=a,restrict=on", "restrict=on does"] {
        assert!(log.contains(words), "{words} is not in {log}");
    }
}

#[test]
fn a_download_through_a_card_that_pads_frames_is_complete() {
    const BODY: &str = match std::str::from_utf8(&[b'x'; 300_000]) {
        Ok(body) => body,
        Err(_) => "",
    };
    let Some(scene) = Scene::new("a card that pads frames", As::User) else { return };
    let Some(guest) = Guest::find("a card that pads frames") else { return };
    scene.netns.serve_http(8000, BODY);
    let mut command = scene.wrapped.command();
    command.args(&guest.qemu("echo COUNT $(timeout 60 fetch 10.0.2.2 8000 / | wc -c)")[1..]);
    command.args(["-nic", "user,model=e1000"]);
    let output = start(command).output(Duration::from_secs(300));
    let console = text(&output.stdout);
    assert!(console.contains("COUNT 300000"), "{console}\n{}", scene.wrapped.log());
}
