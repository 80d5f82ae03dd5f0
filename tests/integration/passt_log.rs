//! Tests the messages of passt: the log is bounded, whatever a guest makes passt print, and the
//! last message is reported correctly.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::scene::{Scene, fake_passt, launch, nothing_left, pid_of};
use crate::common::{As, Netns, Sandbox, finish, have_root, text, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
/// The most that passt.log may take.
const BOUND: u64 = 128 << 10;
/// Prints 40 MB of whole lines, as a guest makes passt do in 3.5 s.
const FLOOD: &str = "yes 'ICMP echo flood' | head -c 40000000 >&2";
/// A QEMU that is up soon and does nothing.
const QEMU: [&str; 8] =
    ["--", "qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-S"];

/// The arguments of a launch with `fake` as passt, whose QEMU is followed by `rest`.
fn args(sandbox: &Sandbox, fake: &str, rest: &[&str]) -> Vec<String> {
    let fake = fake_passt(sandbox, fake).display().to_string();
    let name = sandbox.path("").display().to_string();
    let options = ["--backend", "passt", "--device", "none", "--passt", &fake];
    let all = [&options[..], &QEMU, &["-name", &name], rest].concat();
    all.into_iter().map(str::to_owned).collect()
}

/// Waits until QEMU runs.
fn up(sandbox: &Sandbox, scene: &Scene) {
    let record = || {
        let dirs = sandbox.launch_dirs();
        let text = fs::read(sandbox.state().join(dirs.first()?).join("launch.json")).ok()?;
        serde_json::from_slice::<serde_json::Value>(&text).ok()
    };
    let is_up = || record().is_some_and(|record| !record["qemu"].is_null());
    assert!(wait_until(LIMIT, is_up), "{}", scene.said());
}

fn log(sandbox: &Sandbox) -> PathBuf {
    sandbox.state().join(&sandbox.launch_dirs()[0]).join("passt.log")
}

fn end(scene: &mut Scene, sandbox: &Sandbox) {
    kill(Pid::from_raw(scene.pid()), Signal::SIGTERM).unwrap();
    let code = scene.end().code();
    assert!([Some(0), Some(143)].contains(&code), "{code:?} {}", scene.said());
    nothing_left(sandbox);
}

#[test]
fn a_flood_of_messages_leaves_a_bounded_log() {
    if !have_root("a_flood_of_messages_leaves_a_bounded_log") {
        return;
    }
    let netns = Netns::routed();
    for who in [As::Root, As::User] {
        let sandbox = Sandbox::new(who, Some(&netns));
        let fake = format!("echo first words >&2\n{FLOOD}\nexec \"$REAL\" \"$@\"");
        let mut scene = Scene::start(sandbox.netlaunch(&args(&sandbox, &fake, &[])));
        up(&sandbox, &scene);
        let log = log(&sandbox);
        let check = || {
            let text = fs::read_to_string(&log).unwrap();
            assert!(text.len() as u64 <= BOUND, "{} bytes", text.len());
            assert!(text.starts_with("first words\nICMP echo flood\n"));
            assert!(text.contains("\nICMP echo flood\n"));
            assert!(text.ends_with('\n') && text.contains("\nMAC:\n"), "{text}");
        };
        check();
        let passt = pid_of(&launch(&sandbox), "passt");
        kill(Pid::from_raw(passt), Signal::SIGKILL).unwrap();
        let again = || pid_of(&launch(&sandbox), "passt") != passt;
        assert!(wait_until(LIMIT, again), "{}", scene.said());
        check();
        end(&mut scene, &sandbox);
    }
}

#[test]
fn a_stopped_netlaunch_does_not_block_passt() {
    if !have_root("a_stopped_netlaunch_does_not_block_passt") {
        return;
    }
    let netns = Netns::routed();
    for who in [As::Root, As::User] {
        let sandbox = Sandbox::new(who, Some(&netns));
        let fake = format!(
            "(until [ -e \"$HOME/go\" ]; do sleep 0.05; done; {FLOOD}; : > \"$HOME/done\") &\nexec \"$REAL\" \"$@\""
        );
        let mut scene = Scene::start(sandbox.netlaunch(&args(&sandbox, &fake, &[])));
        up(&sandbox, &scene);
        let netlaunch = Pid::from_raw(launch(&sandbox)["pid"].as_i64().unwrap() as i32);
        kill(netlaunch, Signal::SIGSTOP).unwrap();
        fs::write(sandbox.path("home/go"), "").unwrap();
        let done = wait_until(LIMIT, || sandbox.path("home/done").exists());
        let size = fs::metadata(log(&sandbox)).unwrap().len();
        kill(netlaunch, Signal::SIGCONT).unwrap();
        assert!(done, "passt hangs while netlaunch is stopped");
        assert!(size <= BOUND, "{size} bytes");
        end(&mut scene, &sandbox);
    }
}

#[test]
fn the_last_message_of_passt_is_reported_after_a_flood() {
    if !have_root("the_last_message_of_passt_is_reported_after_a_flood") {
        return;
    }
    let netns = Netns::routed();
    for who in [As::Root, As::User] {
        let sandbox = Sandbox::new(who, Some(&netns));
        let fake = format!("{FLOOD}; echo 'passt: out of luck' >&2; exit 1");
        let output = finish(sandbox.netlaunch(&args(&sandbox, &fake, &[])));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(
            said.contains("exited with status 1 before it could serve: \"passt: out of luck\"")
        );
        assert_eq!(said.lines().count(), 1, "{said}");
        nothing_left(&sandbox);
    }
}

/// A line without an end is repeated in part.
#[test]
fn the_last_message_of_passt_is_shortened() {
    if !have_root("the_last_message_of_passt_is_shortened") {
        return;
    }
    let netns = Netns::routed();
    let sandbox = Sandbox::new(As::User, Some(&netns));
    let fake = "yes x | tr -d '\\n' | head -c 1000000 >&2; exit 1";
    let output = finish(sandbox.netlaunch(&args(&sandbox, fake, &[])));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("xxx…\"") && said.len() < 500, "{said}");
}

#[test]
fn a_full_disk_loses_lines_of_the_log_and_nothing_else() {
    if !have_root("a_full_disk_loses_lines_of_the_log_and_nothing_else") {
        return;
    }
    let netns = Netns::routed();
    let sandbox = Sandbox::new(As::Root, Some(&netns));
    let state = sandbox.state().display().to_string();
    let fake = format!(
        "if mkdir \"$HOME/first\"; then
    (until [ -e \"$HOME/go\" ]; do sleep 0.05; done
     {FLOOD}; : > \"$HOME/done\"; until [ -e \"$HOME/end\" ]; do sleep 0.05; done
     echo 'last words' >&2; kill -KILL $$) &
fi
exec \"$REAL\" \"$@\""
    );
    // A shell in the mount namespace fills the disk when the file `fill` exists.
    let script = format!(
        "mount -t tmpfs -o size=256k,mode=0711 tmpfs {state}
(until [ -e \"$HOME/fill\" ]; do sleep 0.05; done
 cat /dev/zero > {state}/full; : > \"$HOME/go\") 2>/dev/null &
exec \"$@\""
    );
    let mut command = sandbox.program(Path::new("unshare"));
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(sandbox.path("bin/netlaunch"));
    let arguments = args(&sandbox, &fake, &[]);
    command.arg("-v").args(arguments);
    let mut scene = Scene::start(command);
    scene.messages("QEMU's command line", |text| text.contains("debug: QEMU:"));
    fs::write(sandbox.path("home/fill"), "").unwrap();
    assert!(wait_until(LIMIT, || sandbox.path("home/done").exists()), "{}", scene.said());
    assert!(!scene.err.text().contains("passt was killed"), "{}", scene.said());
    fs::write(sandbox.path("home/end"), "").unwrap();
    scene.messages("passt's last words", |text| {
        text.contains("passt was killed by SIGKILL (\"last words\"); it is started again")
    });
    kill(Pid::from_raw(scene.pid()), Signal::SIGTERM).unwrap();
    let code = scene.end().code();
    assert!([Some(0), Some(143)].contains(&code), "{code:?} {}", scene.said());
    nothing_left(&sandbox);
}
