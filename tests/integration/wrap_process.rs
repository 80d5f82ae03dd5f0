//! The process of a stand-in whose networks move: it becomes QEMU, beside a sidecar.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::wrap_scene::{LIMIT, QUIT, STOPPED, Scene, fed, wait_for_pid};
use crate::common::{As, finish, start, status_field, text, wait_until};

#[test]
fn the_stand_ins_own_process_is_qemu() {
    let Some(scene) = Scene::new("the pid file of a stand-in", As::User) else { return };
    let (child, pid) = scene.stopped("");
    assert_eq!(status_field(pid, "Name"), "qemu-system-x86");
    assert_eq!(pid, child.pid());
    let list = format!("/proc/{pid}/task/{pid}/children");
    assert_eq!(fs::read_to_string(list).unwrap(), "", "QEMU has no child that it does not know");
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    let output = child.output(LIMIT);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    scene.wait_for_nothing();
}

#[test]
fn a_signal_to_the_stand_in_reaches_qemu() {
    let Some(scene) = Scene::new("signals to a stand-in", As::User) else { return };
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let (child, pid) = scene.stopped("");
        kill(Pid::from_raw(child.pid()), signal).unwrap();
        let output = child.output(LIMIT);
        assert_eq!(output.status.code(), Some(0), "{signal}: {}", text(&output.stderr));
        let said = text(&output.stderr);
        assert!(said.contains("terminating on signal"), "{said}");
        assert!(!said.contains("netlaunch"), "{said}");
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        scene.wait_for_nothing();
        fs::remove_file(scene.wrapped.sandbox.path("run/pid")).unwrap_or_default();
    }
}

#[test]
fn a_signal_that_ended_qemu_ends_the_stand_in() {
    let Some(scene) = Scene::new("QEMU's end by a signal", As::User) else { return };
    for signal in [Signal::SIGKILL, Signal::SIGABRT] {
        let (child, pid) = scene.stopped("");
        assert_eq!(pid, child.pid());
        kill(Pid::from_raw(pid), signal).unwrap();
        let output = child.output(LIMIT);
        assert_eq!(output.status.signal(), Some(signal as i32), "{}", text(&output.stderr));
        scene.wait_for_nothing();
        let _ = fs::remove_file(scene.wrapped.sandbox.path("run/pid"));
    }
}

#[test]
fn a_guest_outlives_the_program_that_started_it_but_not_its_stand_in() {
    let Some(scene) = Scene::new("the parent of a stand-in", As::User) else { return };
    let pidfile = scene.wrapped.sandbox.path("run/pid");
    let mut shell = scene.wrapped.sandbox.program(Path::new("/bin/sh"));
    let call = scene.wrapped.program();
    let line = format!(
        "{} {STOPPED} -pidfile {} </dev/null >/dev/null 2>&1 & echo $!",
        call.display(),
        pidfile.display()
    );
    shell.args(["-c", &line]);
    let output = finish(shell);
    let stand_in: i32 = text(&output.stdout).trim().parse().unwrap();
    let qemu = wait_for_pid(&pidfile);
    std::thread::sleep(Duration::from_millis(500));
    let runs = |pid: i32| Path::new(&format!("/proc/{pid}")).exists();
    assert!(runs(stand_in) && runs(qemu));
    kill(Pid::from_raw(stand_in), Signal::SIGKILL).unwrap();
    assert!(wait_until(LIMIT, || !runs(qemu)));
    assert!(wait_until(LIMIT, || !scene.anything_runs()));
}

#[test]
fn the_sidecar_has_no_descriptor_of_the_caller() {
    let Some(scene) = Scene::new("the descriptors of a sidecar", As::User) else { return };
    let pidfile = scene.wrapped.sandbox.path("run/pid");
    let lock = scene.wrapped.sandbox.path("run/lock");
    let mut shell = scene.wrapped.sandbox.program(Path::new("/bin/sh"));
    let call = scene.wrapped.program();
    let line = format!(
        "exec 7>{} && flock 7 && exec {} {STOPPED} -pidfile {}",
        lock.display(),
        call.display(),
        pidfile.display()
    );
    shell.args(["-c", &line]);
    let child = start(shell);
    let qemu = wait_for_pid(&pidfile);
    let sidecar = scene.record()["pid"].as_i64().unwrap() as i32;
    assert_ne!(sidecar, qemu);
    let has = |pid: i32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok()).any(|file| file == lock)
    };
    assert!(has(qemu) && !has(sidecar));
    for fd in 0..3 {
        let file = fs::read_link(format!("/proc/{sidecar}/fd/{fd}")).unwrap();
        assert_eq!(file, Path::new("/dev/null"));
    }
    kill(Pid::from_raw(qemu), Signal::SIGTERM).unwrap();
    assert_eq!(child.output(LIMIT).status.code(), Some(0));
    scene.wait_for_nothing();
}

#[test]
fn qemu_outlives_a_killed_sidecar_and_passt_does_not() {
    let Some(scene) = Scene::new("a killed sidecar", As::User) else { return };
    let (child, qemu) = scene.stopped("");
    let record = scene.record();
    let number = |value: &Value| Pid::from_raw(value.as_i64().unwrap() as i32);
    let (sidecar, passt) = (number(&record["pid"]), number(&record["passt"]["pid"]));
    kill(sidecar, Signal::SIGKILL).unwrap();
    let runs = |pid: Pid| Path::new(&format!("/proc/{pid}")).exists();
    assert!(wait_until(LIMIT, || !runs(passt) && !runs(sidecar)));
    assert_eq!(status_field(qemu, "Name"), "qemu-system-x86");
    kill(Pid::from_raw(qemu), Signal::SIGTERM).unwrap();
    assert_eq!(child.output(LIMIT).status.code(), Some(0));
    // The next call removes the directory.
    let _ = fs::remove_file(scene.wrapped.sandbox.path("run/pid"));
    let (child, qemu) = scene.stopped("");
    assert_eq!(scene.wrapped.sandbox.launch_dirs().len(), 1);
    kill(Pid::from_raw(qemu), Signal::SIGTERM).unwrap();
    child.output(LIMIT);
    scene.wait_for_nothing();
}

#[test]
fn a_closed_standard_input_stays_closed() {
    let Some(scene) = Scene::new("a closed standard input", As::User) else { return };
    let pidfile = scene.wrapped.sandbox.path("run/pid");
    let mut shell = scene.wrapped.sandbox.program(Path::new("/bin/sh"));
    let call = scene.wrapped.program();
    let line = format!("exec {} {STOPPED} -pidfile {} <&-", call.display(), pidfile.display());
    shell.args(["-c", &line]).env("NETLAUNCH_WRAP_LOG", scene.wrapped.log_path());
    let child = start(shell);
    let qemu = wait_for_pid(&pidfile);
    let standard_input = fs::read_link(format!("/proc/{qemu}/fd/0"));
    assert!(
        standard_input.as_ref().map_or(true, |to| to != Path::new("/dev/null")),
        "{standard_input:?}"
    );
    kill(Pid::from_raw(qemu), Signal::SIGTERM).unwrap();
    assert_eq!(child.output(LIMIT).status.code(), Some(0));
    assert!(scene.wrapped.log().contains("moved to passt"), "{}", scene.wrapped.log());
}

#[test]
fn a_fork_that_cannot_become_the_sidecar_leaves_one_untouched_qemu() {
    let Some(scene) = Scene::new("a sidecar that cannot start", As::Root) else { return };
    let inner = scene.command(&format!("{STOPPED} -qmp stdio"));
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=setsid"]);
    command.args(["-e", "inject=setsid:error=EPERM", "--"]);
    command.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let output = fed(command, QUIT);
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), ("", Some(0)));
    let greetings = text(&output.stdout).matches("\"QMP\"").count();
    assert_eq!(greetings, 1, "{}", text(&output.stdout));
    let log = scene.wrapped.log();
    assert!(
        log.contains("a process cannot become the sidecar") && log.lines().count() == 1,
        "{log}"
    );
    scene.wait_for_nothing();
}
