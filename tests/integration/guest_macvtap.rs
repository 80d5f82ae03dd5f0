//! Tests a real guest on a macvtap: QEMU has the queue by `fd=`, as libvirt gives it. With
//! clean-traffic, frames from the guest's own address pass, and frames from another address do not.
//!
//! ```text
//! the guest ── vnet0, a macvtap ── low0 ── low1, with the host's address 10.77.0.1
//! ```

use std::os::fd::AsRawFd;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::common::bridges::without_dhcp;
use crate::common::frame::{VM, mac_text};
use crate::common::macvtap::{have_macvtap, plug_above};
use crate::common::scene::{Scene, qemu};
use crate::common::{As, Guest, Netns, Sandbox};

/// The guest gets a page from its own address, sends from other addresses, and gets the page again.
const SCRIPT: &str = "\
try() { if ping -c 2 -W 1 10.77.0.1 >/dev/null; then echo \"$1 passes\"; else echo \"$1 stopped\"; fi; }
round() {
  ip address add 10.77.0.2/24 dev eth0
  echo \"PAGE$1 $(fetch 10.77.0.1 80 /)\"
  ip address del 10.77.0.2/24 dev eth0
  ip address add 10.77.0.9/24 dev eth0
  try \"IP$1\"
  ip address del 10.77.0.9/24 dev eth0
  ip link set eth0 down
  ip link set eth0 address 52:54:00:11:22:99
  ip link set eth0 up
  ip address add 10.77.0.2/24 dev eth0
  try \"MAC$1\"
  ip address del 10.77.0.2/24 dev eth0
  ip link set eth0 down
  ip link set eth0 address 52:54:00:11:22:33
  ip link set eth0 up
}
round 1
read go
round 2
read go
exit_qemu 37";

#[test]
fn a_guest_on_a_bound_macvtap_sends_only_from_its_address() {
    let test = "a_guest_on_a_bound_macvtap_sends_only_from_its_address";
    let (true, Some(guest)) = (have_macvtap(test), Guest::find(test)) else { return };
    let netns = Netns::bare();
    netns.ip("link add low0 type veth peer name low1");
    for line in
        ["link set low0 promisc on up", "address add 10.77.0.1/24 dev low1", "link set low1 up"]
    {
        netns.ip(line);
    }
    let clients = netns.serve_http_at(([10, 77, 0, 1], 80).into(), "the page");
    // Every frame of the wire comes to the guest, so the answers to a forged MAC address do, too.
    let queue = plug_above(&netns, "vnet0", "low0", "passthru", VM.mac);
    // The kernel gives a macvtap of this mode the address of low0 first.
    netns.ip(&format!("link set vnet0 address {}", mac_text(VM.mac)));
    netns.ip("link set vnet0 promisc on up");
    fcntl(&queue, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();

    let sandbox = Sandbox::new(As::Root, Some(&netns));
    let mut argv = without_dhcp(qemu(&sandbox, &guest, SCRIPT));
    let (fd, mac) = (queue.as_raw_fd(), mac_text(VM.mac));
    argv.extend(["-netdev".to_owned(), format!("tap,id=net0,fd={fd},vhost=off")]);
    argv.extend(["-device".to_owned(), format!("virtio-net-pci,netdev=net0,mac={mac}")]);
    let mut command = sandbox.program(Path::new(&argv[0]));
    command.args(&argv[1..]);
    let mut scene = Scene::start(command);
    drop(queue);
    assert_eq!(scene.hear("PAGE1 "), "the page", "{}", scene.said());
    assert_eq!(scene.hear("IP1 "), "passes", "{}", scene.said());
    assert_eq!(scene.hear("MAC1 "), "passes", "{}", scene.said());

    let bind = ["nwfilter", "bind", "vnet0", "clean-traffic", "-p", "IP=10.77.0.2"];
    sandbox.good(&bind);
    assert!(sandbox.good(&["nwfilter", "binding-list"]).contains("in force"));
    scene.say("go");
    assert_eq!(scene.hear("PAGE2 "), "the page", "{}", scene.said());
    assert_eq!(scene.hear("IP2 "), "stopped", "{}", scene.said());
    assert_eq!(scene.hear("MAC2 "), "stopped", "{}", scene.said());
    assert_eq!(clients.lock().unwrap().len(), 2);

    scene.say("go");
    scene.end();
    sandbox.good(&["nwfilter", "unbind", "vnet0"]);
    assert_eq!(netns.says("nft", &["list", "tables"]), "");
}
