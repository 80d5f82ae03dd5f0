//! Tests free ports of the host (`-p 0:GUESTPORT`), and launches with a name: their MAC address,
//! their tap, and that no other launch has the name. QEMU runs without a machine.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::common::{As, Netns, Reaped, Sandbox, finish, have_root, run, start, text, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const QEMU: [&str; 7] =
    ["--", "qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none"];

/// Starts QEMU with these options, and waits until netlaunch reports that the network serves.
/// Returns the launch and the report.
fn launch(sandbox: &Sandbox, options: &[&str]) -> (Reaped, String) {
    let file = sandbox.path("run/ready");
    let _ = fs::remove_file(&file);
    let mut command = sandbox.program(Path::new("/bin/sh"));
    let script =
        "ready=$1 netlaunch=$2; shift 2; exec \"$netlaunch\" --ready-fd 4 \"$@\" 4>\"$ready\"";
    command.args(["-c", script, "sh"]).arg(&file).arg(sandbox.path("bin/netlaunch"));
    command.args(["--device", "none"]).args(options).args(QEMU);
    let launch = start(command);
    let report = || fs::read_to_string(&file).unwrap_or_default();
    assert!(wait_until(LIMIT, || report().ends_with("READY=1\n")), "not ready: {}", report());
    (launch, report())
}

/// Returns the launches of `netlaunch ps`.
fn launches(sandbox: &Sandbox) -> Vec<Value> {
    let all: Value = serde_json::from_str(&sandbox.good(&["ps", "--json"])).unwrap();
    all["launches"].as_array().unwrap().clone()
}

#[test]
fn a_free_port_is_reported_and_used_on_each_backend() {
    if !have_root("a_free_port_is_reported_and_used_on_each_backend") {
        return;
    }
    let netns = Netns::routed();
    for backend in ["passt", "slirp"] {
        let sandbox = Sandbox::new(As::User, Some(&netns));
        let options = ["--backend", backend, "-p", "0:22", "-p", "0:53/udp", "-p", "2222:80"];
        let (_launch, report) = launch(&sandbox, &options);
        let ports: Vec<&str> =
            report.lines().filter_map(|line| line.strip_prefix("PUBLISHED=")).collect();
        let [tcp, udp] = ports[..] else { panic!("{report}") };
        assert!(tcp.starts_with("127.0.0.1:") && tcp.ends_with(":22/tcp"), "{report}");
        assert!(udp.ends_with(":53/udp"), "{report}");
        let shown = launches(&sandbox)[0]["publish"].to_string();
        for port in [tcp, udp, "127.0.0.1:2222:80/tcp"] {
            assert!(shown.contains(port), "{port} is not in {shown}");
        }
        let number: u16 = tcp.split(':').nth(1).unwrap().parse().unwrap();
        // QEMU listens for slirp some milliseconds after it is executed.
        let connects = || netns.inside(|| TcpStream::connect(("127.0.0.1", number)).is_ok());
        assert!(wait_until(LIMIT, connects), "{backend}: {tcp} does not answer");
    }
}

#[test]
fn a_name_belongs_to_one_launch_and_gives_the_same_mac_address() {
    if !have_root("a_name_belongs_to_one_launch_and_gives_the_same_mac_address") {
        return;
    }
    let netns = Netns::routed();
    let sandbox = Sandbox::new(As::User, Some(&netns));
    let mac = |name: &str| {
        let (_launch, _) = launch(&sandbox, &["--backend", "passt", "--name", name]);
        launches(&sandbox)[0]["guest"]["mac"].as_str().unwrap().to_owned()
    };
    let (first, other) = (mac("web"), mac("db"));
    assert!(first.starts_with("52:54:00:") && first != other, "{first} {other}");
    let (_web, _) = launch(&sandbox, &["--backend", "slirp", "--name", "web"]);
    assert_eq!(launches(&sandbox)[0]["guest"]["mac"], first.as_str(), "after a new start");
    let mut options = vec!["--backend", "slirp", "--device", "none", "--name", "web"];
    options.extend(QEMU);
    let output = finish(sandbox.netlaunch(&options));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("a launch with the name web runs already"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!((launches(&sandbox).len(), sandbox.launch_dirs().len()), (1, 1));
}

#[test]
fn the_tap_of_a_launch_with_a_name_has_the_same_name() {
    if !have_root("the_tap_of_a_launch_with_a_name_has_the_same_name") {
        return;
    }
    let netns = Netns::routed();
    netns.ip("link add br7 type bridge");
    netns.ip("link set br7 up");
    let sandbox = Sandbox::new(As::Root, Some(&netns));
    let is_there = || run("ip", &["-n", &netns.name, "link", "show", "nl-web"]).status.success();
    for _ in 0..2 {
        let (ended, _) = launch(&sandbox, &["--bridge", "br7", "--name", "web"]);
        assert_eq!(launches(&sandbox)[0]["bridge"]["tap"], "nl-web");
        // The guard of a killed launch ends QEMU, and the tap goes with it.
        drop(ended);
        assert!(wait_until(LIMIT, || !is_there()), "the tap stays");
    }
    netns.ip("link add nl-web type veth peer name other");
    let (_launch, _) = launch(&sandbox, &["--bridge", "br7", "--name", "web"]);
    assert_eq!(launches(&sandbox)[0]["bridge"]["tap"], "nltap0");
}
