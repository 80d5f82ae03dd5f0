//! Tests QEMU's -daemonize: the caller sees what QEMU alone shows, the guest has its network, and
//! no process is left at any end.

mod guests;
mod killed;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use netlaunch::launcher::plan::Backend;
use netlaunch::launcher::{LaunchEvent, Launcher};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::scene::{
    HOST, alive, launch, launches, netns_with_resolver, nothing_left, passt_option, pid_of, with,
};
use crate::common::wrapped::Wrapped;
use crate::common::{
    As, Guest, Netns, Reaped, Sandbox, finish, have_root, processes_with, start, text, wait_until,
};

/// Far more than a start or an end takes.
const LIMIT: Duration = Duration::from_secs(60);
/// By when everything must be gone.
const GONE: Duration = Duration::from_secs(2);

const BOTH: [As; 2] = [As::Root, As::User];

/// A host and a sandbox for daemons.
struct Site {
    _netns: Netns,
    sandbox: Sandbox,
}

impl Site {
    fn new(who: As) -> Self {
        let netns = Netns::routed();
        let sandbox = Sandbox::new(who, Some(&netns));
        Site { _netns: netns, sandbox }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.sandbox.path("run").join(name)
    }

    /// The arguments of a QEMU that daemonizes and does nothing, then `more`.
    fn qemu(&self, more: &[&str]) -> Vec<String> {
        let bare =
            "qemu-system-x86_64 -M q35 -accel tcg -m 64 -nodefaults -display none -S -daemonize";
        let mut argv: Vec<String> = bare.split(' ').map(str::to_owned).collect();
        argv.extend(["-name".to_owned(), self.sandbox.path("").display().to_string()]);
        argv.extend(["-pidfile".to_owned(), self.file("pid").display().to_string()]);
        argv.extend(more.iter().map(|s| (*s).to_owned()));
        argv
    }

    /// netlaunch with `options` in front of [`Site::qemu`].
    fn netlaunch(&self, options: &[&str], more: &[&str]) -> Command {
        let command = self.sandbox.netlaunch(options);
        let command = with(command, passt_option());
        let command = with(command, ["--"]);
        with(command, self.qemu(more))
    }

    /// The words of a chardev for which QEMU waits before it is ready.
    fn waits(&self) -> String {
        format!("socket,id=wait,path={},server=on,wait=on", self.file("wait").display())
    }

    /// Starts a QEMU that is not ready before [`Site::let_go`]. Returns when it waits.
    fn start_waiting(&self, options: &[&str]) -> Reaped {
        let waiting = start(self.netlaunch(options, &["-chardev", &self.waits()]));
        let path = self.file("wait");
        let waits = wait_until(LIMIT, || path.exists());
        assert!(waits, "QEMU does not start: {:?}", self.processes());
        waiting
    }

    fn let_go(&self) {
        UnixStream::connect(self.file("wait")).unwrap();
    }

    fn pid_file(&self) -> i32 {
        fs::read_to_string(self.file("pid")).unwrap().trim().parse().unwrap()
    }

    fn processes(&self) -> Vec<(i32, String)> {
        processes_with(&self.sandbox.path("").to_string_lossy())
    }

    /// Starts a daemon and returns its launch as `netlaunch ps` shows it.
    fn daemon(&self, options: &[&str]) -> Value {
        let output = finish(self.netlaunch(options, &[]));
        assert!(output.status.success(), "{}", text(&output.stderr));
        launch(&self.sandbox)
    }

    /// Waits until no process of the sandbox runs.
    fn gone(&self, what: &str) {
        let gone = wait_until(GONE, || self.processes().is_empty());
        assert!(gone, "{what}: {:?}", self.processes());
    }
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.split(' ').nth(1).unwrap().parse().unwrap()
}

fn program(pid: i32) -> String {
    let path = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// The only child of a process.
fn child(pid: i32) -> i32 {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let all: Vec<i32> = list.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert_eq!(all.len(), 1, "{list}");
    all[0]
}

#[test]
fn the_caller_sees_what_qemu_alone_shows() {
    if !have_root("the_caller_sees_what_qemu_alone_shows") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        // The end of both pipes is a part of `finish`.
        let begun = Instant::now();
        let output = finish(site.netlaunch(&[], &[]));
        eprintln!("{who:?}: ready after {} ms", begun.elapsed().as_millis());
        let plain =
            |output: &Output| (output.status.code(), text(&output.stdout), text(&output.stderr));
        assert_eq!(plain(&output), (Some(0), String::new(), String::new()), "{who:?}");

        let shown = launch(&site.sandbox);
        let (qemu, supervisor) = (pid_of(&shown, "qemu"), shown["pid"].as_i64().unwrap() as i32);
        assert_eq!(site.pid_file(), qemu, "{who:?}");
        assert_eq!(program(qemu), "qemu-system-x86_64");
        assert_eq!(program(supervisor), "netlaunch");
        assert_eq!(parent(parent(parent(qemu))), supervisor, "two guards are between them");
        assert!(alive(pid_of(&shown, "passt")));
        for fd in 0..3 {
            let target = fs::read_link(format!("/proc/{supervisor}/fd/{fd}")).unwrap();
            assert_eq!(target, Path::new("/dev/null"), "{fd}");
        }

        signal(supervisor, Signal::SIGTERM);
        site.gone("SIGTERM to the supervisor");
        nothing_left(&site.sandbox);
    }
}

#[test]
fn a_shell_gets_the_output_and_the_status_of_a_command_substitution() {
    let test = "a_shell_gets_the_output_and_the_status_of_a_command_substitution";
    if !have_root(test) {
        return;
    }
    let site = Site::new(As::User);
    let launch = site.netlaunch(&[], &[]);
    let shell = site.sandbox.program(Path::new("/bin/sh"));
    let script = "out=$(\"$@\" 2>&1); echo \"status=$? out=$out.\"";
    let netlaunch =
        launch.get_args().skip_while(|word| !word.to_string_lossy().ends_with("bin/netlaunch"));
    let output = finish(with(with(shell, ["-c", script, "sh"]), netlaunch));
    assert_eq!(text(&output.stdout), "status=0 out=.\n", "{}", text(&output.stderr));
    signal(site.pid_file(), Signal::SIGTERM);
    site.gone("SIGTERM to QEMU");
    nothing_left(&site.sandbox);
}

#[test]
fn a_failed_start_has_the_status_and_the_words_of_qemu() {
    if !have_root("a_failed_start_has_the_status_and_the_words_of_qemu") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        for mistake in
            [&["-device", "no-such-card"][..], &["-no-such-option"], &["-serial", "stdio"]]
        {
            let argv = site.qemu(mistake);
            let mut plain = Command::new("qemu-system-x86_64");
            let plain = plain.args(&argv[1..]).stdin(Stdio::null()).output().unwrap();
            let output = finish(site.netlaunch(&[], mistake));
            assert_eq!(output.status.code(), Some(1), "{mistake:?}");
            assert_eq!(text(&output.stderr), text(&plain.stderr), "{who:?} {mistake:?}");
            assert_eq!((output.status, output.stdout), (plain.status, plain.stdout));
            nothing_left(&site.sandbox);
        }
        // The kernel discards the status of a child whose parent ignores SIGCHLD.
        let shell = site.sandbox.program(Path::new("/bin/sh"));
        let shell = with(shell, ["-c", "trap '' CHLD; exec \"$@\"", "sh"]);
        let launch = site.netlaunch(&[], &["-device", "no-such-card"]);
        let words =
            launch.get_args().skip_while(|word| !word.to_string_lossy().ends_with("bin/netlaunch"));
        let output = finish(with(shell, words));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        nothing_left(&site.sandbox);
        // QEMU ends with status 0 and leaves no daemon.
        let output = finish(site.netlaunch(&[], &["-version"]));
        assert!(output.status.success() && text(&output.stdout).starts_with("QEMU emulator"));
        nothing_left(&site.sandbox);
    }
}

#[test]
fn readiness_is_reported_when_qemu_is_ready_and_not_before() {
    if !have_root("readiness_is_reported_when_qemu_is_ready_and_not_before") {
        return;
    }
    let site = Site::new(As::User);
    let ready = site.file("ready");
    let script = "exec 7>\"$1\"; shift; exec \"$@\"";
    let netlaunch = site.netlaunch(&["--ready-fd", "7"], &["-chardev", &site.waits()]);
    let words =
        netlaunch.get_args().skip_while(|word| !word.to_string_lossy().ends_with("bin/netlaunch"));
    let shell = site.sandbox.program(Path::new("/bin/sh"));
    let shell = with(with(shell, ["-c", script, "sh"]), [&ready]);
    let mut launched = start(with(shell, words));
    assert!(wait_until(LIMIT, || site.file("wait").exists()));
    sleep(Duration::from_millis(200));
    assert_eq!(fs::read_to_string(&ready).unwrap(), "");
    assert!(launched.0.try_wait().unwrap().is_none());
    site.let_go();
    let output = launched.output(LIMIT);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(&ready).unwrap(), "READY=1\n");
    signal(site.pid_file(), Signal::SIGTERM);
    site.gone("SIGTERM to QEMU");
    nothing_left(&site.sandbox);
}

#[test]
fn qmp_quit_removes_everything() {
    if !have_root("qmp_quit_removes_everything") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        let path = site.file("qmp");
        let qmp = format!("unix:{},server=on,wait=off", path.display());
        let output = finish(site.netlaunch(&[], &["-qmp", &qmp]));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}\n").unwrap();
        let mut words = BufReader::new(stream).lines();
        while let Some(Ok(_)) = words.next() {}
        site.gone("quit");
        nothing_left(&site.sandbox);
    }
}

#[test]
fn two_daemons_run_at_once() {
    if !have_root("two_daemons_run_at_once") {
        return;
    }
    let site = Site::new(As::User);
    let first = site.daemon(&[]);
    let other = site.file("pid2").display().to_string();
    let output = finish(site.netlaunch(&[], &["-pidfile", &other]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let all = launches(&site.sandbox);
    let pids: Vec<i32> = all.iter().map(|launch| pid_of(launch, "qemu")).collect();
    assert!(pids.len() == 2 && pids.contains(&pid_of(&first, "qemu")), "{all:?}");
    pids.iter().for_each(|pid| signal(*pid, Signal::SIGTERM));
    site.gone("SIGTERM to both");
    nothing_left(&site.sandbox);
}

#[test]
fn the_printed_shell_text_waits_for_the_daemon() {
    let site = Sandbox::new(As::Root, None);
    let shell = |daemonize: &[&str]| {
        let qemu = ["--print", "--backend", "passt", "--", "qemu-system-x86_64", "-M", "q35"];
        let passt = passt_option();
        text(
            &finish(with(with(site.netlaunch(&[] as &[&str]), passt), [&qemu, daemonize].concat()))
                .stdout,
        )
    };
    assert!(!shell(&[]).contains("wait $passt\n)"), "{}", shell(&[]));
    let daemon = shell(&["-daemonize"]);
    assert!(daemon.contains(" || exit\nwait $passt\n)\n"), "{daemon}");
}

/// For a program, the end of the daemon is the end of QEMU.
#[tokio::test]
async fn a_program_waits_for_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let line = "-M q35 -accel tcg -m 64 -nodefaults -display none -S -daemonize";
    let launcher = Launcher::builder().qemu("qemu-system-x86_64", line.split(' '));
    let launcher = launcher
        .backend(Backend::Slirp)
        .from_env()
        .state_dir(dir.path().join("state"))
        .build()
        .unwrap();
    let mut launch = launcher.launch().await.unwrap();
    let daemon = loop {
        match launch.next_event().await.unwrap() {
            LaunchEvent::Daemonized { pid } => break pid as i32,
            other => assert!(matches!(other, LaunchEvent::Started { .. }), "{other:?}"),
        }
    };
    assert_ne!(Some(daemon as u32), launch.info().qemu_pid);
    assert!(tokio::time::timeout(Duration::from_millis(300), launch.wait()).await.is_err());
    assert_eq!(program(daemon), "qemu-system-x86_64");
    signal(daemon, Signal::SIGTERM);
    assert_eq!(launch.wait().await.code(), 0);
    drop(launch);

    let launch = launcher.launch().await.unwrap();
    let first = launch.info().qemu_pid.unwrap() as i32;
    drop(launch);
    assert!(wait_until(GONE, || !alive(first)));
}

/// The stand-in's QEMU has its own words and its own pid file, and is supervised all the same.
#[test]
fn a_stand_in_daemonizes_as_qemu_does() {
    if !have_root("a_stand_in_daemonizes_as_qemu_does") {
        return;
    }
    for who in BOTH {
        let netns = Netns::routed();
        let wrapped = Wrapped::inside(who, &netns);
        let pid = wrapped.sandbox.path("run/pid");
        let stand_in = |more: &[&str]| {
            let line = "-M q35 -accel tcg -m 64 -nodefaults -display none -S -daemonize -nic user,model=virtio";
            let command = with(wrapped.command(), line.split(' '));
            finish(with(with(command, ["-pidfile".as_ref(), pid.as_os_str()]), more))
        };
        let output = stand_in(&["-device", "no-such-card"]);
        assert_eq!(output.status.code(), Some(1), "{who:?}");
        let words = text(&output.stderr);
        assert!(words.lines().count() == 1 && words.contains("no-such-card"), "{words}");
        nothing_left(&wrapped.sandbox);

        for victim in ["QEMU", "supervisor"] {
            let output = stand_in(&[]);
            let said = (output.status.code(), text(&output.stdout), text(&output.stderr));
            assert_eq!(said, (Some(0), String::new(), String::new()), "{}", wrapped.log());
            assert!(wrapped.log().contains("moved to passt"), "{}", wrapped.log());
            let shown = launch(&wrapped.sandbox);
            let qemu: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
            assert_eq!(pid_of(&shown, "qemu"), qemu);
            let supervisor = shown["pid"].as_i64().unwrap() as i32;
            let passt = pid_of(&shown, "passt");
            match victim {
                "QEMU" => signal(qemu, Signal::SIGTERM),
                _ => signal(supervisor, Signal::SIGKILL),
            }
            let gone = || ![qemu, supervisor, passt].into_iter().any(alive);
            assert!(wait_until(GONE, gone), "{who:?} {victim}");
        }
    }
}
