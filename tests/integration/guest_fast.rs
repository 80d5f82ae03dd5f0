//! Tests what makes a guest's network fast: the MTU that its card tells, the queues of a tap, and
//! vhost-net.

use std::time::Duration;

use crate::common::bridges::{self, taps, without_dhcp};
use crate::common::scene::{Scene, command_line};
use crate::common::test_host::{dir, netlaunch, test_host};
use crate::common::{As, Guest, Netns, Sandbox, have_root, start, text};

/// The guest tells the MTU of its card before any DHCP.
const MTU: &str = "\
echo \"MTU $(cat /sys/class/net/eth0/mtu) .\"
exit_qemu 33";

#[test]
fn a_card_tells_the_guest_the_mtu_of_its_backend_or_the_requested_one() {
    let test = "a_card_tells_the_guest_the_mtu_of_its_backend_or_the_requested_one";
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return };
    let netns = Netns::routed();
    for (options, mtu) in [
        (&["--backend", "passt"][..], "65520"),
        (&["--backend", "passt", "--mtu", "1400"], "1400"),
        (&["--backend", "slirp"], "1500"),
        (&["--backend", "slirp", "--mtu", "1400"], "1400"),
    ] {
        let sandbox = Sandbox::new(As::User, Some(&netns));
        let args = without_dhcp(command_line(&sandbox, &guest, options, MTU));
        let mut scene = Scene::start(sandbox.netlaunch(&args));
        assert_eq!(scene.hear("MTU "), format!("{mtu} ."), "{options:?}: {}", scene.said());
        scene.end();
    }
}

#[test]
fn a_guest_on_a_bridge_has_the_requested_queues() {
    let test = "a_guest_on_a_bridge_has_the_requested_queues";
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return };
    let host = bridges::host();
    let script =
        "echo \"QUEUES $(ls /sys/class/net/eth0/queues | grep -c rx) .\"\nread go\nexit_qemu 33";
    for (options, smp, queues) in
        [(&["--bridge", "br0", "--queues", "3"][..], "3", "3"), (&["--bridge", "br0"], "2", "1")]
    {
        let sandbox = Sandbox::new(As::Root, Some(&host));
        let mut args = without_dhcp(command_line(&sandbox, &guest, options, script));
        args.extend(["-smp".to_owned(), smp.to_owned()]);
        let mut scene = Scene::start(sandbox.netlaunch(&args));
        assert_eq!(scene.hear("QUEUES "), format!("{queues} ."), "{}", scene.said());
        let tap = taps(&host);
        let name = tap.split([':', '@']).nth(1).unwrap_or_default().trim().to_owned();
        let dir = format!("/sys/class/net/{name}/queues");
        let of_tap = host.says("sh", &["-c", &format!("ls {dir} | grep -c rx")]);
        assert_eq!(of_tap.trim(), queues, "{tap}");
        scene.say("go");
        scene.end();
        assert_eq!(taps(&host), "");
    }
}

/// The script of the test host: QEMU stops before the guest runs, and its descriptors show whether
/// it has vhost-net.
const HOST: &str = "\
set -e
modprobe vhost_net
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
\"$1\" probe --json | grep -A2 vhost_net
\"$1\" --bridge br0 --user nobody --queues auto -- qemu-system-x86_64 -M q35 -accel tcg -smp 2 -nodefaults -display none -S -pidfile /tmp/q.pid &
for i in $(seq 600); do [ -s /tmp/q.pid ] && break; sleep 0.2; done
q=$(cat /tmp/q.pid)
echo \"VHOST $(ls -l /proc/$q/fd | grep -c /dev/vhost-net)\"
echo \"TAP $(ls -l /proc/$q/fd | grep -c /dev/net/tun)\"
tr '\\0' ' ' </proc/$q/cmdline; echo
kill $q
wait
ip -o link show type tun | grep -c . || true";

#[test]
fn the_kernel_moves_the_frames_of_a_tap_if_it_can() {
    let test = "the_kernel_moves_the_frames_of_a_tap_if_it_can";
    if !have_root(test) {
        return;
    }
    let Some(mut host) = test_host(test, 800) else { return };
    let dir = dir();
    host.args(["sh", "-c", HOST, "sh"]).arg(netlaunch(&dir));
    let output = start(host).output(Duration::from_secs(900));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    for part in ["\"usable\": true", "VHOST 2", "TAP 2", "vhost=on,vhostfds=", "mq=on,vectors=6"] {
        assert!(out.contains(part), "no {part}: {out}\n{err}");
    }
    assert!(out.trim_end().ends_with("\n0"), "a tap is left: {out}");
}
