//! A bridge with a port whose guest floods it, from before it has a filter until it has none any
//! more, and links at which the flood would come out.
//!
//! ```text
//! vnet0 ─┐ br0      vnet0 is a tap, as QEMU's is; the flood writes into it without end
//! peer0 ─┘          what the bridge sends by peer0, and what it gives to the host, is watched
//! ```

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

use netlaunch::sys::tap::{TUN, Tap, TapName};

use super::flood::{Flood, Load, own, refused};
use super::flood_watch::Watch;
use super::frame::{BRIDGE, Host, VM, mac_text};
use super::port_scene::hub;
use super::{As, Netns, Sandbox, extent, finish, text};

/// Returns the number of runs of each case.
pub fn runs() -> u32 {
    extent(16, 200)
}

/// The port's name.
pub const PORT: &str = "vnet0";
/// The value of IP for [`VM`].
pub const IP: (&str, &str) = ("IP", "10.2.3.4");

/// The links where the bridge's frames to another port and to the host are seen.
pub const LINKS: [&str; 2] = ["peer0", "br0"];

/// The links to watch while [`FloodScene::redefinition`] is in force: iptables refuses packets for
/// the host only behind br0.
pub fn links_of_redefinition(backend: &str) -> &'static [&'static str] {
    if backend == "iptables" { &LINKS[..1] } else { &LINKS }
}
/// Two definitions that refuse the same: the stock's in the link layer, the other among IPv4
/// packets.
const NO_IP_SPOOFING: [&str; 2] = [
    include_str!("../../../conf/filters/no-ip-spoofing.xml"),
    "<filter name='no-ip-spoofing' chain='ipv4-ip' priority='-710'>
  <rule action='drop' direction='out' priority='500'><all match='no' srcipaddr='$IP'/></rule>
</filter>",
];

/// The scene; the flood runs.
pub struct FloodScene {
    pub netns: Netns,
    pub sandbox: Sandbox,
    pub flood: Flood,
    pub watch: Watch,
    begun: Instant,
}

/// The frames for a port whose filter knows the address of its guest.
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
        self.settings(&format!("firewall_backend = \"{backend}\"\n"));
    }

    /// Sets all settings of filters, from the next command on.
    pub fn settings(&self, settings: &str) {
        std::fs::write(self.sandbox.path("config/nwfilter.conf"), settings).unwrap();
    }

    /// Runs netlaunch, which must succeed; returns what it prints.
    pub fn netlaunch<S: AsRef<OsStr> + Debug>(&self, args: &[S]) -> String {
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

    /// The command that gives a filter to which clean-traffic refers its other definition.
    pub fn redefinition(&self, run: u32) -> Vec<String> {
        let file = self.sandbox.path("filter.xml");
        std::fs::write(&file, NO_IP_SPOOFING[run as usize % 2]).unwrap();
        vec!["nwfilter".into(), "define".into(), file.to_string_lossy().into_owned()]
    }

    /// The command that makes all rules anew.
    pub fn reload(&self) -> Vec<String> {
        vec!["firewall".into(), "reload".into()]
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
