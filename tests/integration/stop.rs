//! Tests the end of a launch that asks its guest to power down: SIGTERM with --stop-timeout, and
//! `netlaunch stop`.

use std::process::Command;
use std::time::{Duration, Instant};

use netlaunch::launcher::Launcher;
use netlaunch::launcher::plan::Backend;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::bridges::{QEMU, end, refused, up, waiting, without_dhcp};
use crate::common::scene::{LIMIT, Scene, command_line, host, launch, nothing_left, pid_of};
use crate::common::schema::valid;
use crate::common::wrapped::Wrapped;
use crate::common::{As, Guest, Netns, Sandbox, finish, text, wait_until};

const BOTH: [As; 2] = [As::Root, As::User];
/// A guest that powers down when its power button is pressed, and says so.
const OBEYS: &str = "power_button 'UP .'; echo 'PRESSED .'";
/// The message of a launch that has asked its guest.
const ASKED: &str = "the guest is asked to power down";
/// Far more than the end of a QEMU without a guest takes, and less than any stop timeout that a
/// test sets for a guest that never powers down.
const SOON: Duration = Duration::from_secs(40);

/// A launch of the real guest that runs `script`.
fn guest(sandbox: &Sandbox, guest: &Guest, options: &[&str], script: &str) -> Scene {
    let options = [&["--name", "web", "--net", "slirp"], options].concat();
    let args = without_dhcp(command_line(sandbox, guest, &options, script));
    let mut scene = Scene::start(sandbox.netlaunch(&args));
    scene.hear("UP ");
    scene
}

/// A launch whose guest never runs, so that it never powers down.
fn idle(sandbox: &Sandbox, options: &[&str]) -> (Scene, Value) {
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let options = [&["--name", "web", "--net", "slirp"], options].concat();
    up(sandbox, sandbox.netlaunch(&waiting(&options, &mark)))
}

fn terminate(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
}

/// Runs `netlaunch stop`, and returns its exit status and its messages.
fn stop(sandbox: &Sandbox, args: &[&str]) -> (Option<i32>, String) {
    let output = finish(sandbox.netlaunch(&[&["stop"], args].concat()));
    (output.status.code(), text(&output.stderr))
}

#[test]
fn sigterm_with_a_stop_timeout_powers_the_guest_down() {
    let test = "sigterm_with_a_stop_timeout_powers_the_guest_down";
    let Some(kernel) = Guest::find(test) else { return };
    for who in BOTH {
        let Some((_host, sandbox)) = host(test, who) else { return };
        let mut scene = guest(&sandbox, &kernel, &["--stop-timeout", "300"], OBEYS);
        let shown = launch(&sandbox);
        assert_eq!(shown["stop_timeout"], 300);
        valid("ps", &json!({ "version": 1, "launches": [shown] }));
        terminate(scene.pid());
        scene.messages(ASKED, |said| said.contains(ASKED));
        scene.hear("PRESSED ");
        assert_eq!(scene.end().code(), Some(0), "{}", scene.said());
        nothing_left(&sandbox);
    }
}

#[test]
fn sigterm_without_a_stop_timeout_does_not_ask_the_guest() {
    let test = "sigterm_without_a_stop_timeout_does_not_ask_the_guest";
    let (Some(kernel), Some((_host, sandbox))) = (Guest::find(test), host(test, As::User)) else {
        return;
    };
    let mut scene = guest(&sandbox, &kernel, &["-v"], OBEYS);
    assert!(launch(&sandbox)["stop_timeout"].is_null());
    terminate(scene.pid());
    assert_eq!(scene.end().code(), Some(0), "{}", scene.said());
    assert!(!scene.said().contains("PRESSED .") && !scene.said().contains(ASKED));
    nothing_left(&sandbox);
}

#[test]
fn a_guest_that_ignores_the_power_button_ends_after_the_stop_timeout() {
    let test = "a_guest_that_ignores_the_power_button_ends_after_the_stop_timeout";
    let Some((_host, sandbox)) = host(test, As::User) else { return };
    let (mut scene, _) = idle(&sandbox, &["--stop-timeout", "2"]);
    let begun = Instant::now();
    terminate(scene.pid());
    assert_eq!(scene.end().code(), Some(0), "{}", scene.said());
    assert!(begun.elapsed() >= Duration::from_secs(2), "{}", scene.said());
    let said = scene.err.text();
    assert!(said.contains("the guest did not power down within 2 s, so QEMU ends"), "{said}");
    nothing_left(&sandbox);
}

#[test]
fn a_second_sigterm_ends_the_launch_at_once() {
    let test = "a_second_sigterm_ends_the_launch_at_once";
    let Some((_host, sandbox)) = host(test, As::User) else { return };
    let (mut scene, _) = idle(&sandbox, &["--stop-timeout", "600"]);
    let begun = Instant::now();
    terminate(scene.pid());
    scene.messages(ASKED, |said| said.contains(ASKED));
    terminate(scene.pid());
    assert_eq!(scene.end().code(), Some(0), "{}", scene.said());
    assert!(begun.elapsed() < SOON, "{}", scene.said());
    nothing_left(&sandbox);
}

/// The process of QEMU is stopped, so it answers neither the question nor SIGTERM.
#[test]
fn a_qemu_that_never_answers_is_killed_after_the_stop_timeout() {
    let test = "a_qemu_that_never_answers_is_killed_after_the_stop_timeout";
    let Some((_host, sandbox)) = host(test, As::User) else { return };
    for by_command in [false, true] {
        let (mut scene, shown) = idle(&sandbox, &["--stop-timeout", "1"]);
        kill(Pid::from_raw(pid_of(&shown, "qemu")), Signal::SIGSTOP).unwrap();
        if by_command {
            let (code, said) = stop(&sandbox, &["web"]);
            assert_eq!(code, Some(0), "{said}");
            assert!(said.contains("did not power down within 1 s, so QEMU ends"), "{said}");
        } else {
            terminate(scene.pid());
        }
        assert_eq!(scene.end().code(), Some(137), "{}", scene.said());
        nothing_left(&sandbox);
    }
}

#[test]
fn netlaunch_stop_powers_the_guest_down_and_waits() {
    let test = "netlaunch_stop_powers_the_guest_down_and_waits";
    let Some(kernel) = Guest::find(test) else { return };
    for who in BOTH {
        let Some((_host, sandbox)) = host(test, who) else { return };
        let mut scene = guest(&sandbox, &kernel, &[], OBEYS);
        let (code, said) = stop(&sandbox, &["--stop-timeout", "300", "web"]);
        assert_eq!((code, &*said), (Some(0), "netlaunch: the guest of web has powered down\n"));
        // The command has waited until the launch had removed everything.
        assert_eq!(sandbox.launch_dirs(), [] as [String; 0]);
        scene.hear("PRESSED ");
        assert_eq!(scene.end().code(), Some(0), "{}", scene.said());
        nothing_left(&sandbox);
    }
}

#[test]
fn netlaunch_stop_ends_a_guest_that_does_not_power_down() {
    let test = "netlaunch_stop_ends_a_guest_that_does_not_power_down";
    let Some((_host, sandbox)) = host(test, As::User) else { return };
    let late = |limit: u32| {
        format!(
            "netlaunch: warning: the guest of web did not power down within {limit} s, so QEMU ends\n"
        )
    };
    for (options, args, said) in [
        // The time of the command wins over that of the launch.
        (&["--stop-timeout", "600"][..], &["--stop-timeout", "2", "web"][..], late(2)),
        (&["--stop-timeout", "1"], &["web"], late(1)),
        (&["--stop-timeout", "600"], &["--stop-timeout", "0", "web"], String::new()),
    ] {
        let (mut scene, _) = idle(&sandbox, options);
        let begun = Instant::now();
        assert_eq!(stop(&sandbox, args), (Some(0), said), "{args:?}");
        assert!(begun.elapsed() < SOON, "{args:?}");
        // SIGTERM at once can hit a QEMU that has no handler yet.
        let code = scene.end().code();
        assert!([Some(0), Some(143)].contains(&code), "{code:?}: {}", scene.said());
        nothing_left(&sandbox);
    }
}

#[test]
fn netlaunch_stop_says_in_one_line_why_a_launch_cannot_be_stopped() {
    let test = "netlaunch_stop_says_in_one_line_why_a_launch_cannot_be_stopped";
    let Some((_host, sandbox)) = host(test, As::User) else { return };
    let refused = |args: &[&str]| refused(sandbox.netlaunch(&[&["stop"], args].concat()));
    let (code, said) = refused(&["web"]);
    assert!(code == Some(2) && said.contains("no launch of this user has the name web"), "{said}");

    let mut scene = Scene::start(sandbox.netlaunch(&["--name", "served", "--backend", "passt"]));
    scene.hear("-netdev ");
    let (code, said) = refused(&["served"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(&format!("a SIGTERM to its process {}", scene.pid())), "{said}");
    terminate(scene.pid());
    assert_eq!(scene.end().code(), Some(143), "{}", scene.said());

    // A QEMU behind a script gets no QMP socket.
    let script = sandbox.script("vm", &format!("exec {QEMU} \"$@\""));
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let script = script.to_string_lossy().into_owned();
    let mut args = waiting(&["--name", "web", "--net", "slirp", "--qemu", QEMU], &mark);
    let at = args.iter().position(|word| *word == "--").unwrap();
    args[at + 1] = &script;
    let (mut scene, shown) = up(&sandbox, sandbox.netlaunch(&args));
    assert!(shown["qmp"].is_null(), "{shown}");
    let (code, said) = refused(&["web"]);
    assert!(code == Some(125) && said.contains("--stop-timeout 0 ends QEMU at once"), "{said}");
    assert_eq!(stop(&sandbox, &["--stop-timeout", "0", "web"]), (Some(0), String::new()));
    scene.end();
    nothing_left(&sandbox);
}

#[test]
fn netlaunch_stop_stops_a_daemon_and_a_stand_in() {
    let test = "netlaunch_stop_stops_a_daemon_and_a_stand_in";
    let Some((_host, sandbox)) = host(test, As::User) else { return };
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let mut args = waiting(&["--name", "web", "--net", "slirp"], &mark);
    args.push("-daemonize");
    sandbox.good(&args);
    assert_eq!(stop(&sandbox, &["--stop-timeout", "1", "web"]).0, Some(0));
    nothing_left(&sandbox);

    let netns = Netns::routed();
    let wrapped = Wrapped::inside(As::User, &netns);
    let mark = wrapped.sandbox.path("").to_string_lossy().into_owned();
    let mut command: Command = wrapped.command();
    let nic = ["-nic", "user,model=virtio-net-pci"];
    command.args(&waiting(&[], &mark)[2..]).args(nic);
    let (mut scene, shown) = up(&wrapped.sandbox, command);
    let name = shown["name"].as_str().unwrap();
    assert_eq!(stop(&wrapped.sandbox, &["--stop-timeout", "1", name]).0, Some(0));
    scene.end();
    assert!(wait_until(LIMIT, || wrapped.sandbox.launch_dirs().is_empty()));
    nothing_left(&wrapped.sandbox);
}

#[test]
fn serve_mode_has_no_stop_timeout() {
    let sandbox = Sandbox::new(As::Root, None);
    let (code, said) = refused(sandbox.netlaunch(&["--stop-timeout", "5"]));
    assert_eq!(code, Some(2));
    assert!(said.contains("drop the stop timeout, or add the QEMU command (--stop"), "{said}");
}

/// For a program, the first call asks the guest, and the second one ends QEMU.
#[tokio::test]
async fn a_program_sets_a_stop_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let line = "-M q35 -accel tcg -m 64 -nodefaults -display none -S";
    let launcher = Launcher::builder()
        .qemu("qemu-system-x86_64", line.split(' '))
        .backend(Backend::Slirp)
        .from_env()
        .state_dir(dir.path().join("state"))
        .stop_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let mut launch = launcher.launch().await.unwrap();
    let begun = Instant::now();
    assert_eq!(launch.stop().await.code(), 0);
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_launch_that_ends_with_its_parent_powers_its_guest_down() {
    let test = "a_launch_that_ends_with_its_parent_powers_its_guest_down";
    let (Some(kernel), Some((_host, sandbox))) = (Guest::find(test), host(test, As::User)) else {
        return;
    };
    let args = without_dhcp(command_line(
        &sandbox,
        &kernel,
        &["--net", "slirp", "--stop-timeout", "300"],
        OBEYS,
    ));
    let netlaunch = sandbox.netlaunch(&args);
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$@\" & read -r line", "sh"]).arg(netlaunch.get_program());
    shell.args(netlaunch.get_args()).env_clear();
    shell.envs(netlaunch.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut scene = Scene::start(shell);
    scene.hear("UP ");
    scene.say("end");
    assert!(scene.end().success());
    let pressed = wait_until(LIMIT, || scene.out.text().contains("PRESSED ."));
    assert!(pressed, "{}", scene.said());
    assert!(wait_until(LIMIT, || sandbox.launch_dirs().is_empty()));
    nothing_left(&sandbox);
}

#[test]
fn the_end_of_a_launch_without_a_stop_timeout_is_as_before() {
    let test = "the_end_of_a_launch_without_a_stop_timeout_is_as_before";
    let Some((_host, sandbox)) = host(test, As::User) else { return };
    let (scene, _) = idle(&sandbox, &["--stop-timeout", "0"]);
    assert_eq!(launch(&sandbox)["stop_timeout"], Value::Null);
    let begun = Instant::now();
    end(scene);
    assert!(begun.elapsed() < SOON);
    nothing_left(&sandbox);
}
