//! Tests the unit template `netlaunch@.service`: its command runs the guest of an arguments file,
//! reports readiness, and powers the guest down at SIGTERM, for which the unit gives enough time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::bridges::{refused, without_dhcp};
use crate::common::scene::{HOST, Scene, launch, netns_with_resolver, nothing_left, qemu};
use crate::common::{As, Guest, Sandbox, have_root};

const UNIT: &str = include_str!("../../conf/netlaunch@.service");
/// The directory of the arguments files in the unit.
const GUESTS: &str = "/etc/netlaunch/guests";

/// Returns the value of a directive of the unit.
fn directive(name: &str) -> &'static str {
    let line = UNIT.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("the unit has no {name}"))
}

/// Returns the number of seconds of an option in the unit's command.
fn stop_timeout() -> u64 {
    let words = directive("ExecStart").split(' ');
    words.filter_map(|word| word.strip_prefix("--stop-timeout=")).next().unwrap().parse().unwrap()
}

/// Writes the words to the arguments file of the guest `web`, and returns the file's directory.
fn arguments(sandbox: &Sandbox, words: &[String]) -> PathBuf {
    let dir = sandbox.path("guests");
    fs::create_dir_all(&dir).unwrap();
    let quoted: Vec<String> =
        words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
    let path = dir.join("web.args");
    fs::write(&path, format!("# the guest web\n{}\n", quoted.join("\n"))).unwrap();
    dir
}

/// The command of the unit for the guest `web`.
fn command(sandbox: &Sandbox, dir: &Path) -> Command {
    let line = directive("ExecStart").replace("%i", "web").replace(GUESTS, dir.to_str().unwrap());
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    sandbox.netlaunch(&words)
}

#[test]
fn the_unit_gives_the_guest_the_time_to_power_down() {
    let given: u64 = directive("TimeoutStopSec").parse().unwrap();
    assert!(given > stop_timeout() + 5 + 30, "the guest, QEMU and a firewall tool get their time");
    assert_eq!(directive("KillMode"), "mixed", "SIGTERM to QEMU would end it at once");
}

#[test]
fn the_command_of_the_unit_runs_a_guest_and_powers_it_down() {
    let test = "the_command_of_the_unit_runs_a_guest_and_powers_it_down";
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return };
    let host = netns_with_resolver(HOST);
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let script = "power_button 'UP .'; echo \"PRESSED by 'a' \\$HOME.\"";
    let words = without_dhcp(qemu(&sandbox, &guest, script));
    let options = ["--net", "slirp", "--"].map(str::to_owned);
    let dir = arguments(&sandbox, &[&options[..], &words].concat());
    let manager = UnixDatagram::bind(sandbox.path("run/notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut netlaunch = command(&sandbox, &dir);
    netlaunch.env("NOTIFY_SOCKET", sandbox.path("run/notify"));
    let mut scene = Scene::start(netlaunch);
    let mut message = [0u8; 64];
    let length = manager.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1\n");
    scene.hear("UP ");
    let shown = launch(&sandbox);
    assert_eq!((&shown["name"], &shown["stop_timeout"]), (&"web".into(), &stop_timeout().into()));
    kill(Pid::from_raw(scene.pid()), Signal::SIGTERM).unwrap();
    assert_eq!(scene.hear("PRESSED "), "by 'a' $HOME.");
    assert_eq!(scene.end().code(), Some(0), "{}", scene.said());
    nothing_left(&sandbox);
}

#[test]
fn an_arguments_file_that_others_can_write_is_refused() {
    let test = "an_arguments_file_that_others_can_write_is_refused";
    if !have_root(test) {
        return;
    }
    let sandbox = Sandbox::new(As::Root, None);
    let dir = arguments(&sandbox, &["--print".to_owned()]);
    fs::set_permissions(dir.join("web.args"), fs::Permissions::from_mode(0o666)).unwrap();
    let (code, said) = refused(command(&sandbox, &dir));
    assert!(code == Some(125) && said.contains("web.args"), "{code:?} {said}");
    fs::remove_file(dir.join("web.args")).unwrap();
    let (code, said) = refused(command(&sandbox, &dir));
    assert!(code == Some(2) && said.contains("cannot be read"), "{code:?} {said}");
}
