//! Tests that the port of an attached NIC is never open: a QEMU that has turned hostile floods the
//! tap from the moment in which it gets the descriptor, through the detach or the kill of the
//! supervisor and beyond, and no forbidden frame passes.

use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use netlaunch::sys::process::InheritedFds;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::flood::flood;
use crate::common::flood_launch::LaunchScene;
use crate::common::flood_scene::{runs, usual};
use crate::common::frame::{VM, mac_text};
use crate::common::scene::{launch, launches};
use crate::common::{Reaped, finish, have_root, processes_with, start, text, wait_until};

/// The environment variable with the arguments of the QEMU that a launch starts.
const QEMU: &str = "NETLAUNCH_TEST_ATTACH_QEMU";
const LIMIT: Duration = Duration::from_secs(60);

/// Not a test: a QEMU whose QMP socket does as netlaunch asks, and which floods each tap that it
/// gets.
#[test]
#[ignore = "the tests of attachments run it in place of QEMU"]
fn the_qemu_of_a_launch() {
    let Ok(args) = std::env::var(QEMU) else { return };
    let mut words = args.split(' ').skip_while(|word| *word != "-readconfig");
    // netlaunch also asks QEMU about its machine.
    let Some(config) = words.nth(1) else { return };
    let config = std::fs::read_to_string(config).unwrap();
    let number = config.lines().find_map(|line| line.trim().strip_prefix("fd = ")).unwrap();
    let number: RawFd = number.trim_matches('"').parse().unwrap();
    #[expect(unsafe_code, reason = "QEMU's stand-in gets its socket as a number")]
    // SAFETY: this process runs one test, which takes the socket of the launch once.
    let mut inherited = unsafe { InheritedFds::at_start(&[number.to_string().into()]) };
    let listener = UnixListener::from(inherited.take(number).unwrap());
    let mut run = 0;
    while let Ok((client, _)) = listener.accept() {
        serve(&client, &mut run);
    }
}

/// Serves one client.
fn serve(mut client: &UnixStream, run: &mut u32) {
    let say = |mut client: &UnixStream, message: Value| writeln!(client, "{message}").is_ok();
    say(client, json!({ "QMP": { "version": {}, "capabilities": [] } }));
    let mut received = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let mut data = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::empty();
        let got = recvmsg::<()>(client.as_raw_fd(), &mut data, Some(&mut space), flags);
        let Ok(got) = got else { return };
        for message in got.cmsgs().unwrap() {
            let ControlMessageOwned::ScmRights(fds) = message else { continue };
            #[expect(unsafe_code, reason = "a received descriptor is a number")]
            // SAFETY: the kernel made the descriptor for this message, which is read once.
            let tap = File::from(unsafe { OwnedFd::from_raw_fd(fds[0]) });
            *run += 1;
            let run = *run;
            thread::spawn(move || flood(&usual(VM), run, &tap, || false));
        }
        let length = got.bytes;
        if length == 0 {
            return;
        }
        received.extend_from_slice(&bytes[..length]);
        while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = received.drain(..=end).collect();
            let command: Value = serde_json::from_slice(&line).unwrap();
            let answer = match command["execute"].as_str() {
                Some("qom-get") => json!("pc-machine"),
                Some("human-monitor-command") => json!(""),
                _ => json!({}),
            };
            say(client, json!({ "return": answer, "id": command["id"] }));
            if command["execute"] == "device_del" {
                let data = json!({ "device": command["arguments"]["id"] });
                say(client, json!({ "event": "DEVICE_DELETED", "data": data }));
            }
            client.flush().unwrap();
        }
    }
}

/// A program that executes the script beside it. It has the texts by which netlaunch recognises
/// QEMU: a QEMU behind a script has no QMP socket.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <unistd.h>
const char *volatile texts[] = { "QEMU emulator version ", "usage: %s [options] [disk_image]" };
int main(int argc, char **argv) {
    char script[4096];
    (void)argc;
    snprintf(script, sizeof script, "%s.sh", argv[0]);
    execv(script, argv);
    return 127;
}
"#;

/// Makes the program that a launch starts as QEMU.
fn stand_in(scene: &LaunchScene) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let command = format!(
        "exec {} --nocapture --ignored --exact {}::the_qemu_of_a_launch {} >> {} 2>&1",
        own.display(),
        module_path!().split_once("::").unwrap().1,
        scene.sandbox.path("").display(),
        scene.sandbox.path("qemu.log").display()
    );
    let help = "case $* in *'-netdev help'*) echo tap; echo user; exit;; esac";
    scene.sandbox.script("qemu.sh", &format!("{help}\nexport {QEMU}=\"$*\"\n{command}"));
    let (source, program) = (scene.sandbox.path("qemu.c"), scene.sandbox.path("bin/qemu"));
    std::fs::write(&source, PROGRAM).unwrap();
    let gcc = Command::new("gcc").arg("-o").args([&program, &source]).output().unwrap();
    assert!(gcc.status.success(), "{}", text(&gcc.stderr));
    program
}

/// A launch with that program as its QEMU.
fn launched(scene: &LaunchScene) -> Reaped {
    let qemu = stand_in(scene);
    let words = ["--name", "web", "--net", "slirp", "--", &*qemu.to_string_lossy()];
    let mut netlaunch = start(scene.sandbox.netlaunch(&words));
    let runs_qemu = || launches(&scene.sandbox).iter().any(|launch| !launch["qemu"].is_null());
    assert!(wait_until(LIMIT, runs_qemu), "{:?}", netlaunch.0.try_wait());
    netlaunch
}

/// The command that attaches a filtered NIC.
fn attach(scene: &LaunchScene) -> Command {
    let mac = mac_text(VM.mac);
    let nic = format!("network=flood,mac={mac},filter=clean-traffic,filter-param=IP=10.2.3.4");
    scene.sandbox.netlaunch(&["attach", "web", "--net", &nic])
}

/// Attaches a NIC and ends the attachment, again and again.
fn attached(backend: &str, is_killed: bool) {
    let end = if is_killed { "SIGKILL of the supervisor" } else { "detach" };
    let what = format!("attach and {end}, QEMU floods, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = LaunchScene::new(backend);
    let _netlaunch = launched(&scene);
    let mut sent = 0;
    for run in 1..=runs() {
        let about = format!("{what}, run {run}");
        let output = finish(attach(&scene));
        let log = || std::fs::read_to_string(scene.sandbox.path("qemu.log")).unwrap_or_default();
        assert!(output.status.success(), "{about}: {}\n{}", text(&output.stderr), log());
        let id = text(&output.stdout).trim().to_owned();
        sent += u64::from(scene.watch.passes(run));
        if is_killed {
            let nics = launch(&scene.sandbox)["nics"].take();
            let nic = nics.as_array().unwrap().iter().find(|nic| nic["id"] == *id).unwrap();
            let supervisor = nic["attached"]["pid"].as_i64().unwrap() as i32;
            kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
        } else {
            scene.sandbox.good(&["detach", "web", &id]);
        }
        scene.gone();
        scene.watch.holds(&about);
    }
    scene.report(&what, sent);
}

#[test]
fn no_forbidden_frame_passes_an_attached_nic_with_nftables() {
    attached("nftables", false);
}

#[test]
fn no_forbidden_frame_passes_an_attached_nic_with_iptables() {
    attached("iptables", false);
}

#[test]
fn no_forbidden_frame_passes_a_killed_attachment_with_nftables() {
    attached("nftables", true);
}

#[test]
fn no_forbidden_frame_passes_a_killed_attachment_with_iptables() {
    attached("iptables", true);
}

/// Kills one of the processes of an attach at a random moment: the foreground process, the
/// supervisor or its cleaner. Then the NIC is there as a whole or not at all.
fn killed_at_any_moment(backend: &str) {
    let what = format!("attach, SIGKILL at a random moment, QEMU floods, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = LaunchScene::new(backend);
    let _netlaunch = launched(&scene);
    let program = scene.sandbox.path("bin/netlaunch").to_string_lossy().into_owned();
    let (needle, collecting) =
        (format!("{program} attach "), format!("{program} collect-attachment "));
    let attaching = || processes_with(&needle).into_iter().map(|(pid, _)| pid).collect::<Vec<_>>();
    let mut left_attached = 0;
    for run in 1..=runs() {
        let mut command = start(attach(&scene));
        let moment = Duration::from_millis(rand::random_range(0..400));
        thread::sleep(moment);
        let pids = attaching();
        let about = format!("{what}, run {run}, {moment:?}");
        if !pids.is_empty() {
            let pid = pids[rand::random_range(0..pids.len())];
            // The process may have ended since.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        assert!(wait_until(LIMIT, || command.0.try_wait().unwrap().is_some()), "{about}");
        // Everything is undone, or the supervisor goes on with a NIC in place. A supervisor that is
        // undoing everything still has its record.
        let mut was_attached = false;
        let is_undone = || {
            let nics = launch(&scene.sandbox)["nics"].take();
            if let Some(nic) = nics.as_array().unwrap().get(1) {
                let id = nic["id"].as_str().unwrap();
                let output = finish(scene.sandbox.netlaunch(&["detach", "web", id]));
                was_attached |= output.status.success();
                return false;
            }
            attaching().is_empty() && processes_with(&collecting).is_empty()
        };
        assert!(wait_until(LIMIT, is_undone), "{about}: {:?}", processes_with(&program));
        left_attached += u32::from(was_attached);
        scene.gone();
        scene.watch.holds(&about);
        let list = scene.sandbox.good(&["nwfilter", "binding-list", "--json"]);
        let list: Value = serde_json::from_str(&list).unwrap();
        assert_eq!(list["bindings"], json!([]), "{about}");
        let dirs = scene.sandbox.launch_dirs();
        let dirs = dirs.iter().filter(|dir| dir.starts_with("launch-")).count();
        assert_eq!(dirs, 1, "{about}");
    }
    println!("{what}: {} runs, {left_attached} with a NIC in place, 0 forbidden frames", runs());
}

#[test]
fn an_attach_that_is_killed_at_any_moment_leaves_nothing_with_nftables() {
    killed_at_any_moment("nftables");
}

#[test]
fn an_attach_that_is_killed_at_any_moment_leaves_nothing_with_iptables() {
    killed_at_any_moment("iptables");
}
