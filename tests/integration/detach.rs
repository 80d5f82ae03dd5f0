//! Tests --detach: the command returns when QEMU runs, and the launch goes on without its caller.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::bridges::QEMU;
use crate::common::scene::{
    LIMIT, alive, command_line, host, launch, launches, nothing_left, pid_of,
};
use crate::common::{As, Guest, Sandbox, finish, processes_with, skipped, text, wait_until};

const BOTH: [As; 2] = [As::Root, As::User];

/// The words of a detached launch whose QEMU runs without a guest, then `more`.
fn idle<'a>(options: &[&'a str], mark: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let qemu = ["--", QEMU, "-S", "-nodefaults", "-no-user-config", "-display", "none"];
    let rest = ["-accel", "tcg", "-m", "32", "-name", mark];
    [&["--detach"], options, &qemu[..], &rest[..], more].concat()
}

/// The words of a command that `sandbox.netlaunch` would execute.
fn words(command: &Command) -> Vec<String> {
    let all = std::iter::once(command.get_program()).chain(command.get_args());
    all.map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The same environment for another program.
fn with_environment(program: &str, command: &Command) -> Command {
    let mut other = Command::new(program);
    other.env_clear();
    other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    other
}

#[test]
fn a_detached_guest_answers_after_the_command_has_returned() {
    let test = "a_detached_guest_answers_after_the_command_has_returned";
    let Some(guest) = Guest::find(test) else { return };
    for who in BOTH {
        let Some((netns, sandbox)) = host(test, who) else { return };
        let script = "serve_tcp 80 tcp-answer & power_button 'UP .'; echo 'PRESSED .'";
        let options = ["--detach", "--name", "web", "-p", "2280:80"];
        let args = command_line(&sandbox, &guest, &options, script);
        // The end of both pipes is a part of `finish`: QEMU has neither.
        let output = finish(sandbox.netlaunch(&args));
        assert_eq!(text(&output.stdout), "web\n", "{}", text(&output.stderr));
        assert_eq!(netns.ask_tcp(2280, Duration::from_secs(90)), "tcp-answer\n");
        let shown = launch(&sandbox);
        let (netlaunch, qemu) = (shown["pid"].as_i64().unwrap(), pid_of(&shown, "qemu"));
        assert!(alive(qemu));
        for fd in 0..3 {
            let target = fs::read_link(format!("/proc/{netlaunch}/fd/{fd}")).unwrap();
            assert_eq!(target, Path::new("/dev/null"), "{fd}");
        }
        let logs = || sandbox.good(&["logs", "web"]);
        assert!(wait_until(LIMIT, || logs().contains("UP .")), "{}", logs());
        assert!(logs().contains("==> qemu.log <==\n"), "{}", logs());
        sandbox.good(&["stop", "--stop-timeout", "300", "web"]);
        assert!(sandbox.good(&["logs", "web"]).contains("PRESSED ."));
        is_stopped(&sandbox);
    }
}

/// The launch that `stop` has ended has left nothing. `stop` returns when the launch has removed
/// everything; the process of netlaunch ends a moment later.
fn is_stopped(sandbox: &Sandbox) {
    assert_eq!(sandbox.launch_dirs(), [] as [String; 0]);
    let mark = sandbox.path("").to_string_lossy().into_owned();
    assert!(wait_until(LIMIT, || processes_with(&mark).is_empty()), "{:?}", processes_with(&mark));
    nothing_left(sandbox);
}

#[test]
fn a_mistake_in_the_qemu_arguments_has_the_words_and_the_status_of_qemu() {
    let test = "a_mistake_in_the_qemu_arguments_has_the_words_and_the_status_of_qemu";
    for who in BOTH {
        let Some((_host, sandbox)) = host(test, who) else { return };
        let mark = sandbox.path("").to_string_lossy().into_owned();
        for mistake in [&["-device", "no-such-card"][..], &["-no-such-option"]] {
            let output = finish(sandbox.netlaunch(&idle(&["--net", "slirp"], &mark, mistake)));
            let said = text(&output.stderr);
            assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()));
            assert!(said.contains(mistake.last().unwrap()), "{said}");
            nothing_left(&sandbox);
        }
        let args = ["--detach", "--", "/nonexistent/qemu"];
        let output = finish(sandbox.netlaunch(&args));
        assert_eq!(output.status.code(), Some(127), "{}", text(&output.stderr));
        nothing_left(&sandbox);
    }
}

#[test]
fn the_name_of_a_launch_without_a_name_stops_it() {
    let test = "the_name_of_a_launch_without_a_name_stops_it";
    let Some((_host, sandbox)) = host(test, As::User) else { return };
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let name = sandbox.good(&idle(&["--net", "slirp"], &mark, &[]));
    assert_eq!(launch(&sandbox)["name"], name.trim());
    sandbox.good(&["stop", "--stop-timeout", "0", name.trim()]);
    is_stopped(&sandbox);
}

/// script(1) makes a terminal, and closes it when its command has returned.
#[test]
fn a_detached_launch_outlives_its_terminal() {
    let test = "a_detached_launch_outlives_its_terminal";
    let Some((_host, sandbox)) = host(test, As::User) else { return };
    if !Path::new("/usr/bin/script").exists() {
        return skipped(test, "script(1) is not installed");
    }
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let netlaunch = sandbox.netlaunch(&idle(&["--name", "web", "--net", "slirp"], &mark, &[]));
    let line = words(&netlaunch).join(" ");
    let mut script = with_environment("/usr/bin/script", &netlaunch);
    script.args(["-qec", &format!("{line} && tty"), "/dev/null"]);
    script.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = finish(script);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && said.contains("/dev/pts/"), "{said}");
    // A hang-up of the terminal would have ended it by now.
    std::thread::sleep(Duration::from_secs(1));
    let shown = launch(&sandbox);
    assert!(alive(pid_of(&shown, "qemu")), "{shown}");
    sandbox.good(&["stop", "--stop-timeout", "0", "web"]);
    is_stopped(&sandbox);
}

#[test]
fn a_detached_server_prints_its_arguments_and_serves() {
    let test = "a_detached_server_prints_its_arguments_and_serves";
    let Some((_host, sandbox)) = host(test, As::User) else { return };
    let printed = sandbox.good(&["--detach", "--name", "served", "--backend", "passt"]);
    assert!(printed.contains("-netdev ") && printed.lines().count() == 1, "{printed}");
    let shown = launch(&sandbox);
    assert!(alive(pid_of(&shown, "passt")), "{shown}");
    let pid = shown["pid"].as_i64().unwrap() as i32;
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    assert!(wait_until(LIMIT, || launches(&sandbox).is_empty() && !alive(pid)));
    nothing_left(&sandbox);
}

#[test]
fn no_process_outlives_a_killed_supervisor() {
    let test = "no_process_outlives_a_killed_supervisor";
    for who in BOTH {
        let Some((_host, sandbox)) = host(test, who) else { return };
        let mark = sandbox.path("").to_string_lossy().into_owned();
        sandbox.good(&idle(&["--name", "web", "--backend", "passt"], &mark, &[]));
        let pid = launch(&sandbox)["pid"].as_i64().unwrap() as i32;
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        let gone = wait_until(LIMIT, || processes_with(&mark).is_empty());
        assert!(gone, "{:?}", processes_with(&mark));
        // The next launch removes the directory, and keeps the logs of the killed one.
        sandbox.good(&idle(&["--name", "other", "--net", "slirp"], &mark, &[]));
        let logs = sandbox.good(&["logs", "web"]);
        assert!(logs.contains("==> netlaunch.log <==\n"), "{logs}");
        assert!(logs.contains("==> passt.log <==\n"), "{logs}");
        sandbox.good(&["stop", "--stop-timeout", "0", "other"]);
        is_stopped(&sandbox);
    }
}
