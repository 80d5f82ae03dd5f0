//! Launches on a network of their own, whose guests flood their taps, and links at which the flood
//! would come out.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::flood_scene::{PORT, peer, plug, runs, usual};
use super::flood_watch::Watch;
use super::frame::{VM, mac_text};
use super::port_scene::{done, hub};
use super::{AT_MOST, As, Netns, Sandbox, finish, wait_until};

/// A network with launches one after the other, whose guests flood it.
pub struct LaunchScene {
    pub netns: Netns,
    pub sandbox: Sandbox,
    pub watch: Watch,
    begun: Instant,
}

/// The network's bridge, and a port of it that is no launch's.
const BRIDGE: &str = "nlflood0";
const SERVER: &str = "server0";
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
        peer(&netns, BRIDGE);
        let watch = Watch::start(&netns, &["peer0", BRIDGE]);
        let port = plug(&netns, PORT, BRIDGE);
        netns.ip("link set vnet0 up");
        watch.sees(&usual(VM), &port);
        LaunchScene { netns, sandbox, watch, begun: Instant::now() }
    }

    /// The command of a launch with this QEMU, whose filter has one parameter.
    pub fn launch(&self, parameter: (&str, &str), qemu: &Path, name: &str) -> Command {
        let (mac, parameter) = (mac_text(VM.mac), format!("{}={}", parameter.0, parameter.1));
        let qemu = qemu.to_string_lossy();
        let options = ["--network", "flood", "--mac", &mac, "--filter", "clean-traffic"];
        let rest = ["--filter-param", &parameter, "--", &qemu, "-name", name];
        self.sandbox.netlaunch(&[&options[..], &rest].concat())
    }

    /// Sets the backend of filters, for the processes that read the settings from now on.
    pub fn backend(&self, backend: &str) {
        let setting = format!("firewall_backend = \"{backend}\"\n");
        std::fs::write(self.sandbox.path("config/nwfilter.conf"), setting).unwrap();
    }

    /// Plugs in a DHCP server, which has no rules.
    pub fn server(&self) -> File {
        let server = plug(&self.netns, SERVER, BRIDGE);
        self.netns.ip(&format!("link set {SERVER} up"));
        server
    }

    /// Waits until the last launch's tap is gone.
    pub fn gone(&self) {
        let taps = || {
            let taps = self.netns.says("ip", &["-o", "link", "show", "type", "tun"]);
            taps.lines().filter(|tap| !tap.contains(SERVER)).collect::<String>()
        };
        assert!(wait_until(AT_MOST, || taps().is_empty()), "left: {}", taps());
    }

    /// Says what was sent, at least, and seen.
    pub fn report(&self, what: &str, sent: u64) {
        println!(
            "{what}: {} runs in {:.1} s; more than {sent} frames sent; seen: {} allowed, 0 \
             forbidden",
            runs(),
            self.begun.elapsed().as_secs_f32(),
            self.watch.allowed()
        );
    }
}
