//! Tests that passt is used only if it can do all that the launch needs, and that `netlaunch probe`
//! finds that out.

use std::net::{TcpListener, UdpSocket};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::scene::{
    HOST, Scene, fake_passt, launch, netns_with_resolver, nothing_left, passt_has, passt_option,
    pid_of,
};
use crate::common::{As, Netns, Sandbox, finish, have_root, text};

const QEMU: &str = "qemu-system-x86_64";
/// A passt that goes on without its UDP ports, as Debian 12's does where one of several is taken.
const NO_UDP: &str = "for word; do
  shift
  [ \"$word\" = --udp-ports ] && skip=2
  [ ${skip:=0} -gt 0 ] && skip=$((skip - 1)) && continue
  set -- \"$@\" \"$word\"
done
exec \"$REAL\" \"$@\"";

fn scene(who: As) -> (Netns, Sandbox) {
    let netns = netns_with_resolver(HOST);
    let sandbox = Sandbox::new(who, Some(&netns));
    (netns, sandbox)
}

/// Runs netlaunch with `options` before a QEMU that ends at once. Returns its exit status and its
/// messages.
fn run(sandbox: &Sandbox, options: &[&str]) -> (Option<i32>, String) {
    // QEMU ends by itself: this machine does not exist.
    let args = [options, &["--", QEMU, "-M", "no-such-machine"]].concat();
    let output = finish(sandbox.netlaunch(&args));
    (output.status.code(), text(&output.stderr))
}

#[test]
fn a_passt_without_a_published_port_does_not_serve() {
    if !have_root("a_passt_without_a_published_port_does_not_serve") {
        return;
    }
    for (who, transport) in [(As::Root, "unix"), (As::User, "unix"), (As::User, "fd")] {
        let (_netns, sandbox) = scene(who);
        let passt = fake_passt(&sandbox, NO_UDP).display().to_string();
        let options = ["--passt", &passt, "--transport", transport, "-p", "2280:80"];
        let options = [&options[..], &["-p", "[::1]:2253:53/udp"]].concat();
        let (status, said) = run(&sandbox, &[&options[..], &["--backend", "passt"]].concat());
        assert_eq!(status, Some(125), "{said}");
        assert!(said.contains("passt does not listen on port 2253 of [::1]:2253:53/udp"), "{said}");
        nothing_left(&sandbox);
    }
}

#[test]
fn auto_takes_slirp_when_passt_lacks_a_published_port() {
    if !have_root("auto_takes_slirp_when_passt_lacks_a_published_port") {
        return;
    }
    let (_netns, sandbox) = scene(As::User);
    let passt = fake_passt(&sandbox, NO_UDP).display().to_string();
    let (status, said) = run(&sandbox, &["--passt", &passt, "-p", "2253:53/udp"]);
    assert_eq!(status, Some(1), "QEMU's own status: {said}");
    assert!(said.contains("using slirp instead of passt") && said.contains("2253"), "{said}");
    nothing_left(&sandbox);
}

/// Debian 13's passt is killed so if a client connects before QEMU.
#[test]
fn a_passt_that_is_killed_while_it_starts_is_started_again_if_clients_can_be_the_cause() {
    if !have_root("a_passt_that_is_killed_while_it_starts_is_started_again") {
        return;
    }
    let fake = "mkdir \"$HOME/started\" 2>/dev/null && kill -SEGV $$; exec \"$REAL\" \"$@\"";
    for (publish, expected) in [("2280:80", Some(1)), ("2253:53/udp", Some(125))] {
        let (_netns, sandbox) = scene(As::User);
        let passt = fake_passt(&sandbox, fake).display().to_string();
        let (status, said) =
            run(&sandbox, &["--backend", "passt", "--passt", &passt, "-p", publish]);
        assert_eq!(status, expected, "{publish}: {said}");
        nothing_left(&sandbox);
    }
}

/// Older passt binds ports as root, and so does Debian 13's; newer passt cannot, and netlaunch
/// quotes its reason.
#[test]
fn a_low_port_of_root_is_served_or_refused_with_the_reason() {
    if !have_root("a_low_port_of_root") {
        return;
    }
    for transport in ["unix", "fd"] {
        let (_netns, sandbox) = scene(As::Root);
        let passt = passt_option();
        let mut options = vec!["--backend", "passt", "--transport", transport, "-p", "80:80"];
        options.extend(passt.iter().map(String::as_str));
        let (status, said) = run(&sandbox, &options);
        if passt_has("map-host-loopback") && status == Some(125) {
            assert!(said.contains("127.0.0.1/80: Permission denied"), "{said}");
            assert!(said.contains("ip_unprivileged_port_start"), "{said}");
            options.drain(..2);
            let (status, said) = run(&sandbox, &options);
            assert!(status == Some(1) && said.contains("using slirp"), "{said}");
        } else {
            assert_eq!(status, Some(1), "QEMU was started: {said}");
        }
        nothing_left(&sandbox);
    }
}

#[test]
fn more_ports_than_files_are_refused_with_the_reason() {
    if !have_root("more_ports_than_files_are_refused") {
        return;
    }
    let (_netns, sandbox) = scene(As::User);
    let command = sandbox.netlaunch(&[""]);
    let passt = passt_option().join(" ");
    let script = format!(
        "ulimit -n 512; exec {} {passt} --backend passt -p 10000-11999 -- {QEMU} -M none",
        sandbox.path("bin/netlaunch").display()
    );
    let mut shell = sandbox.program("/bin/sh".as_ref());
    drop(command);
    shell.args(["-c", &script]);
    let output = finish(shell);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("Too many open files") && said.contains("ulimit -n"), "{said}");
    nothing_left(&sandbox);
}

/// Another program takes a port while passt is started again.
#[test]
fn a_port_that_is_lost_while_passt_restarts_is_reported_with_its_holder() {
    if !have_root("a_port_taken_while_passt_restarts") {
        return;
    }
    for publish in ["2280:80", "2279-2281:80"] {
        let (netns, sandbox) = scene(As::User);
        // The second start waits for the test.
        let body = "mkdir \"$HOME/started\" 2>/dev/null || while [ ! -e \"$HOME/go\" ]; do sleep 0.05; done
exec \"$REAL\" \"$@\"";
        let passt = fake_passt(&sandbox, body).display().to_string();
        let args = ["--backend", "passt", "--qemu", QEMU, "--passt", &passt, "-p", publish];
        let mut scene = Scene::start(sandbox.netlaunch(&args));
        scene.hear("-netdev ");
        kill(Pid::from_raw(pid_of(&launch(&sandbox), "passt")), Signal::SIGKILL).unwrap();
        scene.messages("the restart", |said| said.contains("it is started again"));
        let holder = netns.inside(|| TcpListener::bind("127.0.0.1:2280").unwrap());
        std::fs::write(sandbox.path("home/go"), "").unwrap();
        let name = format!("(pid {})", std::process::id());
        scene.messages("the port's holder", |said| {
            said.contains("2280") && said.contains("in use") && !name.is_empty()
        });
        // It serves as soon as the port is free.
        drop(holder);
        let mut stop = Command::new("kill");
        finish({
            stop.arg(scene.pid().to_string());
            stop
        });
        scene.end();
        nothing_left(&sandbox);
    }
}

#[test]
fn a_udp_port_in_use_is_refused_with_its_holder() {
    if !have_root("a_udp_port_in_use") {
        return;
    }
    let (netns, sandbox) = scene(As::Root);
    let _holder = netns.inside(|| UdpSocket::bind("[::1]:2253").unwrap());
    let (status, said) = run(&sandbox, &["-p", "[::1]:2253:53/udp"]);
    assert_eq!(status, Some(125), "{said}");
    assert!(said.contains(&format!("(pid {})", std::process::id())), "{said}");
}

/// The probe starts passt as a launch does, so both give the same reason.
#[test]
fn probe_knows_that_passt_fails_to_start() {
    if !have_root("probe_knows_that_passt_fails_to_start") {
        return;
    }
    for who in [As::Root, As::User] {
        let (_netns, sandbox) = scene(who);
        let body = "echo 'Failed to clone process in user namespace: Operation not permitted' >&2
exit 1";
        let passt = fake_passt(&sandbox, body).display().to_string();
        let probe = ["probe", "--json", "--qemu", QEMU, "--passt", &passt];
        let report: serde_json::Value = serde_json::from_str(&sandbox.good(&probe)).unwrap();
        assert_eq!(report["chosen"], "slirp", "{report:#}");
        let why = report["candidates"][0]["why"].as_str().unwrap();
        assert!(why.contains("user namespace: Operation not permitted"), "{why}");
        let (status, said) = run(&sandbox, &["--passt", &passt]);
        assert!(status == Some(1) && said.contains(why), "{said} does not say: {why}");
        nothing_left(&sandbox);
    }
}

#[test]
fn probe_starts_passt_and_leaves_nothing() {
    if !have_root("probe_starts_passt_and_leaves_nothing") {
        return;
    }
    for who in [As::Root, As::User] {
        let (_netns, sandbox) = scene(who);
        let passt = passt_option();
        let mut probe = vec!["probe", "--json", "--qemu", QEMU];
        probe.extend(passt.iter().map(String::as_str));
        let report: serde_json::Value = serde_json::from_str(&sandbox.good(&probe)).unwrap();
        assert_eq!(report["chosen"], "passt", "{report:#}");
        assert!(report["kernel"]["ping"]["why"].as_str().unwrap().contains("ping_group_range"));
        nothing_left(&sandbox);
    }
}
