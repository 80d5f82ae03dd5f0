//! A bridge with a port whose guest floods it, from before it has a filter until it has none any
//! more, and links at which the flood would come out.
//!
//! ```text
//! vnet0 ─┐ br0      vnet0 is a tap, as QEMU's is; the flood writes into it without end
//! peer0 ─┘          what the bridge sends by peer0, and what it gives to the host, is watched
//! ```

#![allow(unreachable_pub, reason = "each test file uses its own part")]

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use netlaunch::process::tap::{TUN, Tap, TapName};

use crate::common::frame::{BRIDGE, Host, VM, mac_text};
use crate::common::port_scene::{done, hub};
use crate::common::{As, Netns, Sandbox, finish, text, wait_until};
use crate::flood::{Flood, Load, own, refused};
use crate::flood_watch::Watch;

/// How often each case happens.
pub const RUNS: u32 = 200;
/// The port's name.
pub const PORT: &str = "vnet0";
/// The value of IP for [`VM`].
pub const IP: (&str, &str) = ("IP", "10.2.3.4");

/// The scene; the flood runs.
pub struct FloodScene {
    pub netns: Netns,
    pub sandbox: Sandbox,
    pub flood: Flood,
    pub watch: Watch,
    begun: Instant,
}

/// What is sent to a port whose guest has an address that its filter knows.
pub fn usual(guest: Host) -> Load {
    Load { forbidden: refused(guest), allowed: own(guest) }
}

impl FloodScene {
    /// A port without a filter that is down, on the bridge, and flooded. Before that each frame was
    /// seen to come out at `links`, where nothing keeps it from that.
    pub fn new(backend: &str, links: &[&str], load: Load) -> Self {
        let netns = hub();
        peer(&netns, "br0");
        netns.ip(&format!("address add {}/24 dev br0", BRIDGE.v4));
        let sandbox = Sandbox::new(As::Root, Some(&netns));
        let watch = Watch::start(&netns, links);
        let port = plug(&netns, PORT, "br0");
        netns.ip("link set vnet0 up");
        watch.sees(&load, &port);
        netns.ip("link set vnet0 down");
        let flood = Flood::start(port, load);
        let scene = FloodScene { netns, sandbox, flood, watch, begun: Instant::now() };
        scene.backend(backend);
        scene
    }

    /// Sets the backend, from the next command on.
    pub fn backend(&self, backend: &str) {
        let setting = format!("firewall_backend = \"{backend}\"\n");
        std::fs::write(self.sandbox.path("config/nwfilter.conf"), setting).unwrap();
    }

    /// Runs netlaunch, which must succeed; returns what it prints.
    pub fn netlaunch(&self, args: &[&str]) -> String {
        let output = finish(self.sandbox.netlaunch(args));
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Binds a filter to the port.
    pub fn bind(&self, filter: &str, parameters: &[(&str, &str)]) {
        self.bind_other(PORT, VM, filter, parameters);
    }

    /// Binds a filter to any port.
    pub fn bind_other(&self, port: &str, guest: Host, filter: &str, parameters: &[(&str, &str)]) {
        let parameters: String = parameters
            .iter()
            .map(|(name, value)| format!("<parameter name='{name}' value='{value}'/>"))
            .collect();
        let mac = mac_text(guest.mac);
        let file = self.sandbox.path("binding.xml");
        let xml = format!(
            "<filterbinding><portdev name='{port}'/><mac address='{mac}'/><filterref filter='{filter}'>{parameters}</filterref></filterbinding>"
        );
        std::fs::write(&file, xml).unwrap();
        self.netlaunch(&["nwfilter", "binding-create", &file.to_string_lossy()]);
    }

    /// Turns the port on.
    pub fn up(&self) {
        self.netns.ip("link set vnet0 up");
    }

    /// Takes the port down, its filter away, and deletes it; then makes another one of its name.
    pub fn replace(&self) {
        self.netns.ip("link set vnet0 down");
        self.netlaunch(&["nwfilter", "binding-delete", PORT]);
        self.netns.ip("link delete vnet0");
        self.flood.port(plug(&self.netns, PORT, "br0"));
    }

    /// Says what was sent and seen.
    pub fn report(&self, what: &str, runs: u32) {
        let (taken, not_taken) = self.flood.sent();
        println!(
            "{what}: {runs} runs in {:.1} s; {taken} frames sent, {not_taken} more to a port that \
             was down or gone; seen: {} allowed, 0 forbidden",
            self.begun.elapsed().as_secs_f32(),
            self.watch.allowed()
        );
    }
}

/// A network with launches one after the other, whose guests flood it.
pub struct LaunchScene {
    pub netns: Netns,
    pub sandbox: Sandbox,
    pub watch: Watch,
    begun: Instant,
}

/// Its bridge forwards at once, and serves nothing.
const NETWORK: &str =
    "<network ipv6='yes'><name>flood</name><bridge name='nlflood0' stp='off' delay='0'/>
<ip address='10.2.3.254' prefix='24'/></network>";

impl LaunchScene {
    /// A network that is up; networks and filters have this backend. Each frame was seen to come
    /// out of a port of it without a filter.
    pub fn new(backend: &str) -> Self {
        let netns = hub();
        let sandbox = Sandbox::new(As::Root, Some(&netns));
        for file in ["network.conf", "nwfilter.conf"] {
            let setting = format!("firewall_backend = \"{backend}\"\n");
            std::fs::write(sandbox.path("config").join(file), setting).unwrap();
        }
        let file = sandbox.path("network.xml");
        std::fs::write(&file, NETWORK).unwrap();
        for args in [&["define", &*file.to_string_lossy()][..], &["start", "flood"]] {
            done(finish(sandbox.netlaunch(&[&["network"], args].concat()))).unwrap();
        }
        peer(&netns, "nlflood0");
        let watch = Watch::start(&netns, &["peer0", "nlflood0"]);
        let port = plug(&netns, PORT, "nlflood0");
        netns.ip("link set vnet0 up");
        watch.sees(&usual(VM), &port);
        LaunchScene { netns, sandbox, watch, begun: Instant::now() }
    }

    /// The command of a launch with this QEMU.
    pub fn launch(&self, qemu: &Path, name: &str) -> Command {
        let (mac, ip) = (mac_text(VM.mac), format!("{}={}", IP.0, IP.1));
        let qemu = qemu.to_string_lossy();
        let options = ["--network", "flood", "--mac", &mac, "--filter", "clean-traffic"];
        let rest = ["--filter-param", &ip, "--", &qemu, "-name", name];
        self.sandbox.netlaunch(&[&options[..], &rest].concat())
    }

    /// Waits until the last launch's tap is gone.
    pub fn gone(&self) {
        let taps = || self.netns.says("ip", &["-o", "link", "show", "type", "tun"]);
        assert!(wait_until(Duration::from_secs(20), || taps().is_empty()), "left: {}", taps());
    }

    /// Says what was sent, at least, and seen.
    pub fn report(&self, what: &str, sent: u64) {
        println!(
            "{what}: {RUNS} runs in {:.1} s; more than {sent} frames sent; seen: {} allowed, 0 \
             forbidden",
            self.begun.elapsed().as_secs_f32(),
            self.watch.allowed()
        );
    }
}

/// Makes the link peer0 on a bridge.
pub fn peer(netns: &Netns, bridge: &str) {
    netns.ip("link add peer0 type veth peer name far0");
    netns.ip("link set far0 up");
    netns.ip(&format!("link set peer0 master {bridge} up"));
}

/// Makes a tap on a bridge; it is down.
pub fn plug(netns: &Netns, name: &str, bridge: &str) -> File {
    let exact = TapName::Exact(name.parse().unwrap());
    let port = netns.inside(|| Tap::open(Path::new(TUN), &exact).unwrap().into_fd());
    netns.ip(&format!("link set {name} master {bridge}"));
    port.into()
}
