//! netlaunch as a stand-in for QEMU: calls whose networks move, with real QEMU and real passt.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::wrapped::{NAME, Wrapped};
use crate::common::{
    As, Guest, Netns, Reaped, finish, have_root, processes_with, start, status_field, text,
    wait_until,
};

const LIMIT: Duration = Duration::from_secs(20);
/// A guest that starts no processor and has a user-mode network.
const STOPPED: &str =
    "-M pc -accel tcg -display none -nodefaults -S -nic user,model=virtio-net-pci";
const QUIT: &str =
    "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-status\"}\n{\"execute\":\"quit\"}\n";

/// A stand-in whose networks can move.
struct Scene {
    // The fields drop in this order.
    wrapped: Wrapped,
    _netns: Netns,
}

impl Scene {
    fn new(test: &str, who: As) -> Option<Self> {
        if !have_root(test) {
            return None;
        }
        let netns = Netns::routed();
        Some(Scene { wrapped: Wrapped::inside(who, &netns), _netns: netns })
    }

    /// A call of the stand-in with these arguments.
    fn command(&self, line: &str) -> Command {
        let mut command = self.wrapped.command();
        command.args(line.split(' '));
        command
    }

    /// Starts a stopped guest with further arguments, and waits for its pid file. Returns QEMU's
    /// process number.
    fn stopped(&self, more: &str) -> (Reaped, i32) {
        let (pidfile, child) = self.with_pidfile(self.command(&format!("{STOPPED}{more}")));
        let pid = wait_for_pid(&pidfile);
        (child, pid)
    }

    fn with_pidfile(&self, mut command: Command) -> (std::path::PathBuf, Reaped) {
        let pidfile = self.wrapped.sandbox.path("run/pid");
        command.arg("-pidfile").arg(&pidfile);
        (pidfile, start(command))
    }

    /// Writes the table of settings for stand-ins.
    fn settings(&self, lines: &str) {
        let path = self.wrapped.sandbox.path("config/netlaunch.conf");
        fs::write(path, format!("[wrap]\n{lines}\n")).unwrap();
    }

    /// Sets a passt that answers questions and does not start.
    fn broken_passt(&self) {
        let passt = self.wrapped.sandbox.script(
            "broken-passt",
            "case \"$1\" in --help|-h|--version) exec passt \"$@\";; esac; echo no luck >&2; exit 1",
        );
        self.settings(&format!("passt = \"{}\"", passt.display()));
    }

    /// Whether a process of this launch runs.
    fn anything_runs(&self) -> bool {
        let state = self.wrapped.sandbox.state().display().to_string();
        !processes_with(&state).is_empty()
    }
}

/// Returns the process number in QEMU's pid file once QEMU handles SIGTERM, which is later.
fn wait_for_pid(pidfile: &Path) -> i32 {
    let mut pid: Option<i32> = None;
    let handles_sigterm = |pid: i32| {
        let caught = u64::from_str_radix(&status_field(pid, "SigCgt"), 16).unwrap_or(0);
        caught & (1 << (Signal::SIGTERM as i32 - 1)) != 0
    };
    assert!(wait_until(LIMIT, || {
        pid = fs::read_to_string(pidfile).ok().and_then(|text| text.trim().parse().ok());
        pid.is_some_and(handles_sigterm)
    }));
    pid.unwrap()
}

fn fed(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

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
        assert!(!scene.anything_runs());
        assert!(scene.wrapped.sandbox.launch_dirs().is_empty());
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
    assert!(log.contains("QEMU's default card moved to passt"), "{log}");
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
    let Some(scene) = Scene::new("a guest of a stand-in", As::User) else { return };
    let Some(guest) = Guest::find("a guest of a stand-in") else { return };
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
fn the_pid_file_names_qemu_and_a_signal_to_it_ends_the_stand_in() {
    let Some(scene) = Scene::new("the pid file of a stand-in", As::User) else { return };
    let (child, pid) = scene.stopped("");
    assert_eq!(status_field(pid, "Name"), "qemu-system-x86");
    assert_ne!(pid, child.pid());
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    let output = child.output(LIMIT);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!scene.anything_runs());
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
        assert!(!scene.anything_runs());
        fs::remove_file(scene.wrapped.sandbox.path("run/pid")).unwrap_or_default();
    }
}

#[test]
fn a_signal_that_ended_qemu_ends_the_stand_in() {
    let Some(scene) = Scene::new("QEMU's end by a signal", As::User) else { return };
    for signal in [Signal::SIGKILL, Signal::SIGABRT] {
        let (child, pid) = scene.stopped("");
        kill(Pid::from_raw(pid), signal).unwrap();
        let output = child.output(LIMIT);
        assert_eq!(output.status.signal(), Some(signal as i32), "{}", text(&output.stderr));
        assert!(!scene.anything_runs());
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
    let listener = scene._netns.inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
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
