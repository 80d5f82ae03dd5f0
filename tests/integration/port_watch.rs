//! Tests that a running launch follows its bridge: the user gets a warning if the guest's tap is on
//! no bridge, and the tap is put back when a removed bridge exists again. QEMU runs without a
//! machine.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::common::scene::launches;
use crate::common::{As, Netns, Reaped, Sandbox, finish, have_root, run, text, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const QEMU: [&str; 7] =
    ["--", "qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none"];

/// A launch on a bridge, with its messages in a file.
struct Scene {
    // Dropped first, since what it ends lives in the namespace.
    _launch: Reaped,
    sandbox: Sandbox,
    netns: Netns,
}

impl Scene {
    fn new(sandbox: Sandbox, netns: Netns, options: &[&str]) -> Self {
        let mut command = sandbox.netlaunch(&["--device", "none", "--name", "web"]);
        command.args(options).args(QEMU);
        command.stderr(Stdio::from(fs::File::create(sandbox.path("said")).unwrap()));
        let scene = Scene { _launch: Reaped(command.spawn().unwrap()), sandbox, netns };
        // QEMU starts after the watch of the tap.
        assert!(wait_until(LIMIT, || scene.runs_qemu()), "{}", scene.said());
        scene
    }

    fn runs_qemu(&self) -> bool {
        launches(&self.sandbox).iter().any(|launch| launch["qemu"].is_object())
    }

    fn said(&self) -> String {
        fs::read_to_string(self.sandbox.path("said")).unwrap()
    }

    /// Waits for a message.
    fn says(&self, part: &str) {
        assert!(
            wait_until(LIMIT, || self.said().contains(part)),
            "{part:?} is not in {}",
            self.said()
        );
    }

    /// Returns the bridge of the tap.
    fn master(&self) -> Option<String> {
        let shown = run("ip", &["-n", &self.netns.name, "-j", "link", "show", "nl-web"]);
        let shown: Value = serde_json::from_str(&text(&shown.stdout)).ok()?;
        shown[0]["master"].as_str().map(str::to_owned)
    }
}

#[test]
fn a_tap_returns_to_a_bridge_that_is_made_again() {
    if !have_root("a_tap_returns_to_a_bridge_that_is_made_again") {
        return;
    }
    let netns = Netns::routed();
    netns.ip("link add br7 type bridge");
    let scene = Scene::new(Sandbox::new(As::Root, Some(&netns)), netns, &["--bridge", "br7"]);
    for round in 1..=2 {
        let says = |part: &str| {
            let is_said = || scene.said().matches(part).count() == round;
            assert!(wait_until(LIMIT, is_said), "{round}: {}", scene.said());
        };
        scene.netns.ip("link delete br7");
        says("the bridge br7 is gone");
        assert_eq!(scene.master(), None);
        scene.netns.ip("link add br7 type bridge");
        says("is on br7 again");
        assert_eq!(scene.master().as_deref(), Some("br7"));
    }
}

#[test]
fn a_tap_that_was_taken_off_stays_off_until_a_reload() {
    if !have_root("a_tap_that_was_taken_off_stays_off_until_a_reload") {
        return;
    }
    let netns = Netns::routed();
    netns.ip("link add br7 type bridge");
    let scene = Scene::new(Sandbox::new(As::Root, Some(&netns)), netns, &["--bridge", "br7"]);
    scene.netns.ip("link set nl-web nomaster");
    scene.says("the tap nl-web was taken off the bridge br7");
    // Another change of the tap does not put it back.
    scene.netns.ip("link set nl-web mtu 1400");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(scene.master(), None);
    scene.sandbox.good(&["firewall", "reload"]);
    assert_eq!(scene.master().as_deref(), Some("br7"));
    scene.says("the tap nl-web is on the bridge br7 again");
}

/// Starts the network `lab`, whose bridge is nlt0.
fn start_lab(sandbox: &Sandbox) {
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(sandbox.path(""), open).unwrap();
    let xml = "<network><name>lab</name><bridge name='nlt0'/>\
               <ip address='10.94.0.1' netmask='255.255.255.0'/></network>";
    let file = sandbox.path("lab.xml");
    fs::write(&file, xml).unwrap();
    sandbox.good(&["network", "define", file.to_str().unwrap()]);
    sandbox.good(&["network", "start", "lab"]);
}

/// Each part of the limits that another program removes is set again.
#[test]
fn lost_limits_of_a_guests_traffic_are_set_again() {
    if !have_root("lost_limits_of_a_guests_traffic_are_set_again") {
        return;
    }
    let netns = Netns::routed();
    netns.ip("link add br7 type bridge");
    let options = ["--bridge", "br7", "--bandwidth", "inbound=1000,outbound=2000"];
    let scene = Scene::new(Sandbox::new(As::Root, Some(&netns)), netns, &options);
    let index = scene.netns.says("cat", &["/sys/class/net/nl-web/ifindex"]);
    let ifb = format!("nlout{}", index.trim());
    let limits = || {
        let tc = |words: &[&str]| scene.netns.says("tc", words);
        [
            tc(&["qdisc", "show", "dev", "nl-web"]),
            tc(&["class", "show", "dev", "nl-web"]),
            tc(&["filter", "show", "dev", "nl-web", "ingress"]),
            tc(&["qdisc", "show", "dev", &ifb]),
            tc(&["class", "show", "dev", &ifb]),
        ]
        .concat()
        .lines()
        // The kernel numbers the redirections of the host.
        .filter(|line| !line.trim_start().starts_with("index "))
        .collect::<Vec<_>>()
        .join("\n")
    };
    let before = limits();
    for part in ["8192Kbit", "16384Kbit", "mirred"] {
        assert!(before.contains(part), "{before}");
    }
    let damages = [
        "tc qdisc del dev nl-web root".to_owned(),
        "tc qdisc del dev nl-web ingress".to_owned(),
        "tc filter del dev nl-web ingress".to_owned(),
        "tc filter del dev nl-web ingress prio 1".to_owned(),
        "tc filter del dev nl-web ingress prio 2".to_owned(),
        format!("tc qdisc del dev {ifb} root"),
        format!("ip link del {ifb}"),
    ];
    for (n, damage) in damages.iter().enumerate() {
        let words: Vec<&str> = damage.split(' ').collect();
        let words = [&["netns", "exec", &scene.netns.name], &words[..]].concat();
        assert!(run("ip", &words).status.success(), "{damage}");
        let set_again = "limits of the traffic of nl-web; they are set again";
        let said = || scene.said().matches(set_again).count();
        assert!(wait_until(LIMIT, || said() > n), "{damage}: {}", scene.said());
        assert!(wait_until(LIMIT, || limits() == before), "{damage}: {} {before}", limits());
        assert_eq!(said(), n + 1, "{damage}: {}", scene.said());
    }
}

#[test]
fn a_guest_returns_to_its_network_after_a_forced_end() {
    if !have_root("a_guest_returns_to_its_network_after_a_forced_end") {
        return;
    }
    let netns = Netns::routed();
    let sandbox = Sandbox::new(As::Root, Some(&netns));
    start_lab(&sandbox);
    let scene = Scene::new(sandbox, netns, &["--network", "lab"]);
    scene.sandbox.good(&["network", "destroy", "--force", "lab"]);
    scene.says("the bridge nlt0 is gone");
    scene.sandbox.good(&["network", "start", "lab"]);
    assert_eq!(scene.master().as_deref(), Some("nlt0"));
    scene.says("nlt0 again");
    // The bridge exists before the start is complete, which is no reason for a warning.
    assert!(!scene.said().contains("is not active"), "{}", scene.said());
    let _ = finish(scene.sandbox.netlaunch(&["network", "destroy", "--force", "lab"]));
}

#[test]
fn a_launch_says_when_its_ports_follow_the_guest_again() {
    if !have_root("a_launch_says_when_its_ports_follow_the_guest_again") {
        return;
    }
    let netns = Netns::routed();
    let sandbox = Sandbox::new(As::Root, Some(&netns));
    start_lab(&sandbox);
    let scene = Scene::new(sandbox, netns, &["--network", "lab", "-p", "8080:80"]);
    scene.sandbox.good(&["network", "destroy", "--force", "lab"]);
    scene.says("the published ports do not follow the guest: the network lab does not run");
    scene.sandbox.good(&["network", "start", "lab"]);
    scene.says("the published ports follow the guest again; its address is not known");
    let _ = finish(scene.sandbox.netlaunch(&["network", "destroy", "--force", "lab"]));
}
