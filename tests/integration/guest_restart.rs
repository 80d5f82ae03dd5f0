//! Tests a passt that crashes under a running guest.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::scene::{
    HOST, Scene, alive, command_line, fake_passt, launch, netns_with_resolver, nothing_left,
    passt_option, pid_of,
};
use crate::common::{AT_MOST, As, Guest, Netns, Sandbox, have_root, text, wait_until};

const SCRIPT: &str = "\
serve_tcp 80 tcp-answer
echo 'UP .'
read go
exit_qemu 33";

/// A guest on passt that serves at port 2280 of the namespace, and its passt.
struct Up {
    netns: Netns,
    scene: Scene,
    sandbox: Sandbox,
    passt: i32,
}

/// Starts it; `fake` is the shell code of a passt of the test's own.
fn up(test: &str, who: As, transport: &str, fake: Option<&str>) -> Option<Up> {
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return None };
    let netns = netns_with_resolver(HOST);
    let sandbox = Sandbox::new(who, Some(&netns));
    let passt = match fake {
        None => passt_option(),
        Some(body) => {
            let path = fake_passt(&sandbox, body).to_string_lossy().into_owned();
            vec!["--passt".to_owned(), path]
        }
    };
    let mut options = vec!["-p", "2280:80", "--backend", "passt", "--transport", transport];
    options.extend(passt.iter().map(String::as_str));
    let args = command_line(&sandbox, &guest, &options, SCRIPT);
    let mut scene = Scene::start(sandbox.netlaunch(&args));
    scene.hear("UP ");
    assert_eq!(netns.ask_tcp(2280, AT_MOST), "tcp-answer\n", "{}", scene.said());
    let passt = pid_of(&launch(&sandbox), "passt");
    Some(Up { netns, scene, sandbox, passt })
}

/// netlaunch's messages that have `words`.
fn count(scene: &Scene, words: &str) -> usize {
    scene.err.text().lines().filter(|l| l.contains("netlaunch: ") && l.contains(words)).count()
}

/// One quick question to the guest. A connection that a passt without its guest has taken is never
/// answered, and must not be waited for.
fn ask() -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", 2280))?;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    stream.write_all(b"hello\n")?;
    let mut bytes = [0u8; 64];
    let n = stream.read(&mut bytes)?;
    Ok(text(&bytes[..n]))
}

fn traffic_comes_back(who: As) {
    let Some(mut up) = up("traffic_comes_back", who, "unix", None) else { return };
    let dir = up.sandbox.state().join(&up.sandbox.launch_dirs()[0]);
    let noted = || std::fs::read_to_string(dir.join("passt.pid")).unwrap_or_default();
    assert_eq!(noted(), format!("{}\n", up.passt));

    let killed = Instant::now();
    kill(Pid::from_raw(up.passt), Signal::SIGKILL).unwrap();
    let answer = up.netns.inside(|| {
        let mut answer = String::new();
        while answer.is_empty() && killed.elapsed() < Duration::from_secs(20) {
            answer = ask().unwrap_or_default();
            sleep(Duration::from_millis(20));
        }
        answer
    });
    eprintln!("{who:?}: guest traffic back {} ms after the kill", killed.elapsed().as_millis());
    assert_eq!(answer, "tcp-answer\n", "{}", up.scene.said());

    let new = pid_of(&launch(&up.sandbox), "passt");
    assert!(new != up.passt && alive(new) && !alive(up.passt));
    assert_eq!(noted(), format!("{new}\n"));
    assert_eq!(count(&up.scene, "SIGKILL"), 1, "{}", up.scene.err.text());
    assert_eq!(count(&up.scene, ""), 1, "{}", up.scene.err.text());

    up.scene.say("go");
    assert_eq!(up.scene.end().code(), Some(33), "{}", up.scene.said());
    nothing_left(&up.sandbox);
}

#[test]
fn traffic_of_a_root_guest_returns_after_passt_crashes() {
    traffic_comes_back(As::Root);
}

#[test]
fn traffic_of_a_users_guest_returns_after_passt_crashes() {
    traffic_comes_back(As::User);
}

/// A client that came before QEMU would end Debian 13's passt.
#[test]
fn a_new_passt_listens_once_qemu_has_connected_again() {
    let test = "a_new_passt_listens_once_qemu_has_connected_again";
    let Some(mut up) = up(test, As::User, "unix", None) else { return };
    let qemu = Pid::from_raw(pid_of(&launch(&up.sandbox), "qemu"));
    kill(qemu, Signal::SIGSTOP).unwrap();
    kill(Pid::from_raw(up.passt), Signal::SIGKILL).unwrap();
    let socket = up.sandbox.state().join(&up.sandbox.launch_dirs()[0]).join("passt.sock");
    // The process at the other end of QEMU's socket.
    let listener = || {
        let mut ss = Command::new("ss");
        ss.args(["--unix", "--listening", "--processes", "--no-header", "src"]).arg(&socket);
        text(&up.netns.inside(|| ss.output().unwrap()).stdout)
    };
    assert!(wait_until(AT_MOST, || listener().contains("\"netlaunch\"")), "{}", listener());
    let refused = up.netns.inside(|| TcpStream::connect(("127.0.0.1", 2280)).unwrap_err());
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    kill(qemu, Signal::SIGCONT).unwrap();
    assert_eq!(up.netns.ask_tcp(2280, AT_MOST), "tcp-answer\n", "{}", up.scene.said());
    up.scene.say("go");
    assert_eq!(up.scene.end().code(), Some(33), "{}", up.scene.said());
    nothing_left(&up.sandbox);
}

/// netlaunch gives up with one error, and QEMU and its status are not touched by that.
fn gives_up(test: &str, who: As, fake: &str) {
    let Some(mut up) = up(test, who, "unix", Some(fake)) else { return };
    kill(Pid::from_raw(up.passt), Signal::SIGKILL).unwrap();
    up.scene.messages("that passt is given up", |text| text.contains("not started again: the"));
    let gone = wait_until(AT_MOST, || launch(&up.sandbox)["qemu"].is_object());
    assert!(gone, "the launch goes on");
    up.scene.say("go");
    assert_eq!(up.scene.end().code(), Some(33), "{}", up.scene.said());
    assert_eq!(count(&up.scene, "netlaunch: error: "), 1, "{}", up.scene.err.text());
    assert!(count(&up.scene, "") <= 8, "{}", up.scene.err.text());
    nothing_left(&up.sandbox);
}

#[test]
fn a_passt_that_does_not_start_again_is_given_up() {
    // `home` of the sandbox is the one directory that every user's passt can write to.
    let fake = "if mkdir \"$HOME/started\" 2>/dev/null; then exec \"$REAL\" \"$@\"; fi
echo 'Once was enough' >&2; exit 1";
    gives_up("a_passt_that_does_not_start_again", As::Root, fake);
}

#[test]
fn a_passt_that_crashes_again_and_again_is_given_up() {
    let fake = "if mkdir \"$HOME/started\" 2>/dev/null; then exec \"$REAL\" \"$@\"; fi
(sleep 0.2; kill -KILL $$) & exec \"$REAL\" \"$@\"";
    gives_up("a_passt_that_crashes_again_and_again", As::User, fake);
}

/// The fd transport cannot reconnect: one warning, and QEMU goes on without.
#[test]
fn a_guest_without_reconnect_outlives_passt() {
    let Some(mut up) = up("without_reconnect", As::User, "fd", None) else { return };
    kill(Pid::from_raw(up.passt), Signal::SIGKILL).unwrap();
    up.scene.messages("that the network is gone", |text| text.contains("no network any more"));
    up.scene.say("go");
    assert_eq!(up.scene.end().code(), Some(33), "{}", up.scene.said());
    assert_eq!(count(&up.scene, ""), 1, "{}", up.scene.err.text());
    nothing_left(&up.sandbox);
}
