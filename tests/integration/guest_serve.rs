//! Tests serve mode: netlaunch runs only the backend, and the caller starts QEMU.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::common::scene::{
    HOST, Heard, LIMIT, Scene, fake_passt, launch, netns_with_resolver, nothing_left, passt_option,
    pid_of, qemu, with,
};
use crate::common::{AT_MOST, As, Guest, Netns, Sandbox, have_root, run, wait_until};

/// A namespace, a sandbox in it, and netlaunch serving there with readiness reported on a FIFO.
struct Serving {
    netns: Netns,
    scene: Scene,
    sandbox: Sandbox,
    ready: Heard,
}

/// Something only this sandbox's user and the tests can write to.
fn owned_by_user(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
}

/// Starts netlaunch without a command, with `options` and changes by `more`.
fn serve(
    who: As,
    options: &[&str],
    more: impl FnOnce(&Sandbox, &mut Command, &mut Vec<String>),
) -> Serving {
    let netns = netns_with_resolver(HOST);
    let sandbox = Sandbox::new(who, Some(&netns));
    let fifo = sandbox.path("ready");
    nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o666)).unwrap();
    owned_by_user(&fifo);
    let mut args: Vec<String> = options.iter().map(|s| (*s).to_owned()).collect();
    // The shell opens the descriptor and becomes netlaunch.
    let script = "fifo=$1 netlaunch=$2; shift 2; exec \"$netlaunch\" \"$@\" 7>\"$fifo\"";
    let mut command = sandbox.program(Path::new("/bin/sh"));
    command.args(["-c", script, "sh"]).arg(&fifo).arg(sandbox.path("bin/netlaunch"));
    command.args(["--ready-fd", "7"]);
    more(&sandbox, &mut command, &mut args);
    command.args(args);
    // Opened for reading and writing it does not wait for a writer; the end of the file is then
    // seen once this end is closed, see `closed`.
    let reader = File::options().read(true).write(true).open(&fifo).unwrap();
    let scene = Scene::start(command);
    Serving { netns, scene, sandbox, ready: Heard::of(reader) }
}

impl Serving {
    /// Waits for READY=1, which is all that comes.
    fn wait_ready(&self) {
        let told = wait_until(LIMIT, || !self.ready.text().is_empty());
        assert!(told, "not ready within {LIMIT:?}: {}", self.scene.said());
        assert_eq!(self.ready.text(), "READY=1\n");
    }

    /// Returns whether a process listens in the launch directory, by the kernel's list of sockets.
    fn listens(&self) -> bool {
        let table = self.netns.inside(|| fs::read("/proc/thread-self/net/unix").unwrap());
        let state = self.sandbox.state().to_string_lossy().into_owned();
        crate::common::text(&table).lines().any(|line| {
            let flags = line.split_ascii_whitespace().nth(3).unwrap_or_default();
            line.contains(&state) && line.ends_with("/passt.sock") && flags == "00010000"
        })
    }

    /// The arguments it has printed.
    fn arguments(&mut self) -> Vec<String> {
        let line = self.scene.hear("");
        shell_words::split(&line).unwrap()
    }
}

/// The whole life: readiness not before the socket listens, a guest of our own, the end with it.
fn a_guest_of_somebody_elses(who: As) {
    let test = format!("serve mode as {who:?}");
    let (true, Some(guest)) = (have_root(&test), Guest::find(&test)) else { return };
    // This passt starts slowly, so that the test sees a notification that comes too early.
    let mut serving = serve(who, &["--backend", "passt"], |sandbox, _, args| {
        let slow = fake_passt(sandbox, "sleep 1; exec \"$REAL\" \"$@\"");
        args.extend(["--passt".into(), slow.to_string_lossy().into_owned()]);
    });
    serving.wait_ready();
    assert!(serving.listens(), "READY=1 came too early");
    let args = serving.arguments();
    assert_eq!(args[0], "-netdev", "{args:?}");
    let shown = launch(&serving.sandbox);
    assert!(shown["qemu"].is_null() && pid_of(&shown, "passt") > 0, "{shown:#}");

    let script = "exit_qemu 33";
    let argv = qemu(&serving.sandbox, &guest, script);
    let command = serving.sandbox.program(Path::new(&argv[0]));
    let mut own = Scene::start(with(with(command, &argv[1..]), &args));
    assert!(own.hear("LEASE ").starts_with("ip=10.0.2.15 prefix=24 router=10.0.2.2 "));
    assert_eq!(own.end().code(), Some(33), "{}", own.said());

    assert_eq!(serving.scene.end().code(), Some(0), "{}", serving.scene.said());
    assert_eq!(serving.scene.err.text(), "");
    nothing_left(&serving.sandbox);
}

#[test]
fn serve_mode_of_root_works_with_a_qemu_of_the_caller() {
    a_guest_of_somebody_elses(As::Root);
}

#[test]
fn serve_mode_of_a_user_works_with_a_qemu_of_the_caller() {
    a_guest_of_somebody_elses(As::User);
}

/// SIGTERM before any QEMU came.
fn told_to_end(who: As) {
    if !have_root("told_to_end") {
        return;
    }
    let mut serving = serve(who, &["--backend", "passt"], |_, _, args| args.extend(passt_option()));
    serving.wait_ready();
    let passt = pid_of(&launch(&serving.sandbox), "passt");
    kill(Pid::from_raw(serving.scene.pid()), Signal::SIGTERM).unwrap();
    assert_eq!(serving.scene.end().code(), Some(143), "{}", serving.scene.said());
    assert!(!crate::common::scene::alive(passt));
    nothing_left(&serving.sandbox);
}

#[test]
fn serve_mode_of_root_ends_by_a_signal() {
    told_to_end(As::Root);
}

#[test]
fn serve_mode_of_a_user_ends_by_a_signal() {
    told_to_end(As::User);
}

/// A service manager hears of readiness, once the socket listens, and the arguments are there.
#[test]
fn the_service_manager_is_notified() {
    if !have_root("the_service_manager_is_notified") {
        return;
    }
    let mut manager = None;
    let mut serving = serve(As::User, &["--backend", "passt"], |sandbox, command, args| {
        let path = sandbox.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        owned_by_user(&path);
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        manager = Some(socket);
        command.env("NOTIFY_SOCKET", &path);
        // passt is not to have the manager's socket.
        let slow = fake_passt(sandbox, "env > \"$HOME/env\"; sleep 1; exec \"$REAL\" \"$@\"");
        args.extend(["--passt".into(), slow.to_string_lossy().into_owned()]);
    });
    let mut message = [0u8; 256];
    let n = manager.unwrap().recv(&mut message).unwrap();
    assert!(serving.listens(), "READY=1 came too early");
    assert_eq!(crate::common::text(&message[..n]).trim(), "READY=1");
    serving.wait_ready();
    assert_eq!(serving.arguments()[0], "-netdev");
    let env = fs::read_to_string(serving.sandbox.path("home/env")).unwrap();
    assert!(env.contains("HOME=") && !env.contains("NOTIFY_SOCKET"), "{env}");
    kill(Pid::from_raw(serving.scene.pid()), Signal::SIGTERM).unwrap();
    assert_eq!(serving.scene.end().code(), Some(143), "{}", serving.scene.said());
    nothing_left(&serving.sandbox);
}

/// A passt that fails: no readiness, no arguments, nothing left.
#[test]
fn a_passt_that_fails_is_not_ready() {
    if !have_root("a_passt_that_fails_is_not_ready") {
        return;
    }
    let mut serving = serve(As::Root, &["--backend", "passt"], |sandbox, _, args| {
        let fake = fake_passt(sandbox, "echo 'No luck with this host' >&2; exit 1");
        args.extend(["--passt".into(), fake.to_string_lossy().into_owned()]);
    });
    assert_eq!(serving.scene.end().code(), Some(125), "{}", serving.scene.said());
    assert!(serving.scene.err.text().contains("No luck with this host"));
    assert_eq!((serving.scene.out.text(), serving.ready.text()), (String::new(), String::new()));
    nothing_left(&serving.sandbox);
}

/// slirp is inside QEMU: there is nothing to stay for. The guest has it all the same.
#[test]
fn serve_mode_with_slirp_prints_the_arguments_and_ends() {
    let test = "serve_mode_with_slirp_prints_the_arguments_and_ends";
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return };
    let mut serving = serve(As::User, &["--backend", "slirp"], |_, _, _| {});
    serving.wait_ready();
    assert_eq!(serving.scene.end().code(), Some(0), "{}", serving.scene.said());
    assert_eq!(serving.scene.err.text(), "");
    nothing_left(&serving.sandbox);
    let args = serving.arguments();
    assert!(args[1].starts_with("user,"), "{args:?}");

    let argv = qemu(&serving.sandbox, &guest, "exit_qemu 33");
    let command = serving.sandbox.program(Path::new(&argv[0]));
    let mut own = Scene::start(with(with(command, &argv[1..]), &args));
    assert!(own.hear("LEASE ").starts_with("ip=10.0.2.15 prefix=24 router=10.0.2.2 "));
    assert_eq!(own.end().code(), Some(33), "{}", own.said());
}

/// `--ready-fd` is closed after its line, so that a reader can wait for the end of the file.
#[test]
fn the_readiness_descriptor_is_closed() {
    if !have_root("the_readiness_descriptor_is_closed") {
        return;
    }
    let mut serving = serve(As::User, &["--backend", "passt"], |_, _, args| {
        args.extend(passt_option());
    });
    serving.wait_ready();
    let open = format!("/proc/{}/fd/7", serving.scene.pid());
    assert!(wait_until(AT_MOST, || fs::read_link(&open).is_err()));
    // Nor did passt get it.
    let passt = pid_of(&launch(&serving.sandbox), "passt");
    let fds = run("ls", &["-l", &format!("/proc/{passt}/fd")]);
    assert!(
        !crate::common::text(&fds.stdout).contains("/ready"),
        "{}",
        crate::common::text(&fds.stdout)
    );
    kill(Pid::from_raw(serving.scene.pid()), Signal::SIGTERM).unwrap();
    serving.scene.end();
}
