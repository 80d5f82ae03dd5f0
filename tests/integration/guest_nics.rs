//! Tests that a real guest with two NICs has both networks: traffic in both directions on each, on
//! one backend or two, added or moved from QEMU's own arguments; and that nothing is left.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::scene::{
    HOST, Scene, alive, command_line, launch, netns_with_resolver, nothing_left, passt_option,
};
use crate::common::schema::valid;
use crate::common::{As, Guest, Netns, Sandbox, have_root, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// The guest also sets up its second card, fetches a page through each, and serves on both.
const SCRIPT: &str = "\
ip link set eth1 up
echo \"OTHER $(udhcpc -f -q -n -t 4 -T 3 -i eth1 -s /bin/udhcpc.script 2>/dev/null)\"
echo \"FIRST $(fetch 10.0.2.2 8000 /)\"
echo \"SECOND $(fetch 10.0.3.2 8000 /)\"
serve_tcp 80 tcp-answer
serve_udp 53 udp-answer
echo 'UP .'
read go
exit_qemu 33";

/// A guest with two NICs that serves.
struct Up {
    netns: Netns,
    sandbox: Sandbox,
    scene: Scene,
}

/// Starts a guest with these options and further QEMU arguments.
fn up(test: &str, who: As, options: &[&str], qemu: &[&str]) -> Option<Up> {
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return None };
    let netns = netns_with_resolver(HOST);
    netns.serve_http(8000, "page of the host");
    let sandbox = Sandbox::new(who, Some(&netns));
    let passt = passt_option();
    let options: Vec<&str> =
        options.iter().copied().chain(passt.iter().map(String::as_str)).collect();
    let mut args = command_line(&sandbox, &guest, &options, SCRIPT);
    args.extend(qemu.iter().map(|word| (*word).to_owned()));
    let mut scene = Scene::start(sandbox.netlaunch(&args));
    for (key, lease) in [
        ("LEASE ", "ip=10.0.2.15 prefix=24 router=10.0.2.2 "),
        ("OTHER ", "LEASE ip=10.0.3.15 prefix=24 router=10.0.3.2 "),
    ] {
        let heard = scene.hear(key);
        assert!(heard.starts_with(lease), "{heard}: {}", scene.said());
    }
    for page in ["FIRST ", "SECOND "] {
        assert_eq!(scene.hear(page), "page of the host", "{page}: {}", scene.said());
    }
    scene.hear("UP ");
    Some(Up { netns, sandbox, scene })
}

impl Up {
    /// Asks the guest at a TCP port of the host until it answers.
    fn answers_tcp(&self, port: u16) {
        let answer = self.netns.ask_tcp(port, LIMIT);
        assert_eq!(answer, "tcp-answer\n", "port {port}: {}", self.scene.said());
    }

    /// Returns a member of each NIC of the launch.
    fn nics(&self) -> Vec<Value> {
        launch(&self.sandbox)["nics"].as_array().unwrap().clone()
    }

    fn ends(mut self) {
        self.scene.say("go");
        assert_eq!(self.scene.end().code(), Some(33), "{}", self.scene.said());
        nothing_left(&self.sandbox);
    }
}

fn member(nics: &[Value], pointer: &str) -> Vec<Value> {
    nics.iter().map(|nic| nic.pointer(pointer).cloned().unwrap_or_default()).collect()
}

fn two_backends(who: As) {
    let test = format!("two_backends {who:?}");
    let options =
        ["--net", "passt,publish=2280:80", "--net", "slirp,publish=2281:80,publish=2253:53/udp"];
    let Some(up) = up(&test, who, &options, &[]) else { return };
    up.answers_tcp(2280);
    up.answers_tcp(2281);
    assert_eq!(up.netns.ask_udp(2253, LIMIT), "udp-answer\n", "{}", up.scene.said());
    let nics = up.nics();
    assert_eq!(member(&nics, "/backend"), ["passt", "slirp"]);
    assert_eq!(member(&nics, "/id"), ["net0", "net1"]);
    assert_eq!(member(&nics, "/origin/kind"), ["added", "added"]);
    valid("ps", &serde_json::json!({ "version": 1, "launches": [launch(&up.sandbox)] }));
    up.ends();
}

#[test]
fn two_nics_of_a_user_work_on_two_backends() {
    two_backends(As::User);
}

#[test]
fn two_nics_of_root_work_on_two_backends() {
    two_backends(As::Root);
}

/// Each passt of root has a user of its own, and each is started again alone.
fn two_passts(who: As) {
    let test = format!("two_passts {who:?}");
    let options = ["--net", "passt,publish=2280:80", "--net", "passt,publish=2281:80"];
    let Some(up) = up(&test, who, &options, &[]) else { return };
    up.answers_tcp(2280);
    up.answers_tcp(2281);
    let pids = |nics: &[Value]| -> Vec<i32> {
        member(nics, "/passt/pid").iter().map(|pid| pid.as_i64().unwrap() as i32).collect()
    };
    let before = pids(&up.nics());
    let user = |pid: i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find(|line| line.starts_with("Uid:")).unwrap().to_owned()
    };
    assert_eq!(user(before[0]) != user(before[1]), who == As::Root, "{before:?}");

    kill(Pid::from_raw(before[1]), Signal::SIGKILL).unwrap();
    assert!(wait_until(LIMIT, || pids(&up.nics())[1] != before[1]), "{}", up.scene.said());
    up.answers_tcp(2281);
    up.answers_tcp(2280);
    let after = pids(&up.nics());
    assert_eq!(after[0], before[0], "the first passt goes on");
    assert!(alive(after[1]) && !alive(before[1]));
    up.ends();
}

#[test]
fn the_second_passt_of_a_user_is_started_again_alone() {
    two_passts(As::User);
}

#[test]
fn the_second_passt_of_root_is_started_again_alone() {
    two_passts(As::Root);
}

#[test]
fn two_passts_are_connected_by_two_descriptors() {
    let options =
        ["--transport", "fd", "--net", "passt,publish=2280:80", "--net", "passt,publish=2281:80"];
    let test = "two_passts_are_connected_by_two_descriptors";
    let Some(up) = up(test, As::User, &options, &[]) else { return };
    up.answers_tcp(2280);
    up.answers_tcp(2281);
    assert_eq!(member(&up.nics(), "/transport"), ["fd", "fd"]);
    up.ends();
}

/// QEMU cannot connect to a second passt over inherited sockets, so the NIC is lost.
#[test]
fn the_event_of_a_lost_backend_names_the_nic() {
    let mut options = vec!["--log-format", "json", "--transport", "fd"];
    options.extend(["--net", "passt,publish=2280:80", "--net", "passt,publish=2281:80"]);
    let test = "the_event_of_a_lost_backend_names_the_nic";
    let Some(up) = up(test, As::User, &options, &[]) else { return };
    let passt = member(&up.nics(), "/passt/pid")[1].as_i64().unwrap() as i32;
    kill(Pid::from_raw(passt), Signal::SIGKILL).unwrap();
    let lost = || -> Vec<Value> {
        let messages = up.scene.err.text();
        let lines = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let fields = lines.map(|mut line| line["fields"].take());
        fields.filter(|fields| fields["event"] == "backend-lost").collect()
    };
    assert!(wait_until(LIMIT, || !lost().is_empty()), "{}", up.scene.said());
    assert_eq!(member(&lost(), "/nic"), ["net1"]);
    up.answers_tcp(2280);
    up.ends();
}

/// The network of QEMU's arguments moves to passt, and the options apply to it. The second one
/// stays, because only slirp has `guestfwd`.
#[test]
fn a_moved_network_and_one_that_is_left_work_together() {
    let test = "a_moved_network_and_one_that_is_left_work_together";
    let left = "user,id=own,net=10.0.3.0/24,hostfwd=tcp:127.0.0.1:2281-:80,\
                guestfwd=tcp:10.0.3.9:7-cmd:cat";
    let qemu = [
        "-netdev",
        "user,id=moved,hostfwd=udp:127.0.0.1:2253-:53",
        "-device",
        "virtio-net-pci,netdev=moved,mac=52:54:00:00:00:21",
        "-netdev",
        left,
        "-device",
        "virtio-net-pci,netdev=own",
    ];
    let Some(up) = up(test, As::User, &["-p", "2280:80"], &qemu) else { return };
    up.answers_tcp(2280);
    up.answers_tcp(2281);
    assert_eq!(up.netns.ask_udp(2253, LIMIT), "udp-answer\n", "{}", up.scene.said());
    let nics = up.nics();
    assert_eq!(member(&nics, "/backend"), ["passt", "slirp"]);
    assert_eq!(member(&nics, "/id"), ["moved", "own"]);
    assert_eq!(member(&nics, "/origin/kind"), ["adopted", "left"]);
    assert_eq!(member(&nics, "/guest/mac")[0], "52:54:00:00:00:21");
    let messages = up.scene.err.text();
    assert_eq!(
        messages.lines().filter(|line| line.contains("stays on slirp")).count(),
        1,
        "{messages}"
    );
    valid("ps", &serde_json::json!({ "version": 1, "launches": [launch(&up.sandbox)] }));
    up.ends();
}

/// If passt does not start, the network of QEMU's arguments stays as it is.
#[test]
fn a_network_stays_on_slirp_if_passt_does_not_start() {
    let test = "a_network_stays_on_slirp_if_passt_does_not_start";
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return };
    let netns = netns_with_resolver(HOST);
    let sandbox = Sandbox::new(As::User, Some(&netns));
    let fake = crate::common::scene::fake_passt(&sandbox, "echo 'No luck' >&2; exit 1");
    let fake = fake.to_string_lossy();
    let script = "serve_udp 53 udp-answer\necho 'UP .'\nread go\nexit_qemu 33";
    let mut args = command_line(&sandbox, &guest, &["--passt", &fake], script);
    let nic = "user,model=virtio-net-pci,hostfwd=udp:127.0.0.1:2253-:53";
    args.extend(["-nic".to_owned(), nic.to_owned()]);
    let mut scene = Scene::start(sandbox.netlaunch(&args));
    scene.hear("UP ");
    assert_eq!(netns.ask_udp(2253, LIMIT), "udp-answer\n", "{}", scene.said());
    let shown = launch(&sandbox);
    assert_eq!(shown["nics"][0]["origin"]["kind"], "left", "{shown}");
    assert!(shown["fallback"].as_str().unwrap().contains("No luck"), "{shown}");
    scene.say("go");
    assert_eq!(scene.end().code(), Some(33), "{}", scene.said());
    nothing_left(&sandbox);
}
