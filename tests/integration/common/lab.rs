//! A host with a virtual network, a real guest on it that speaks when it is told to, and a
//! neighbour.
//!
//! ```text
//! guest ── tap ──┐
//!                ├── bridge of the network "lab", with the router's address and dnsmasq
//! neighbour ─────┘   (eth0 in a namespace of its own, with pages)
//! ```
//!
//! Three wires are tapped: the tap shows all that the guest sends, filtered or not; the bridge
//! itself and the neighbour's card show what came out.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::scene::{LIMIT, SHELL, Scene, command_line, launch};
use super::schema::valid;
use super::tree::files_below;
use super::wire::{Carried, Says, Wire};
use super::{As, Guest, Netns, Sandbox, finish, have_root, processes_with, text, wait_until};

const LAB: &str = "\
<network>
  <name>lab</name>
  <bridge name='virlab0'/>
  <ip address='10.77.0.1' netmask='255.255.255.0'>
    <dhcp><range start='10.77.0.100' end='10.77.0.199'/></dhcp>
  </ip>
</network>
";
pub const BRIDGE: &str = "virlab0";
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
/// The address of no machine.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 66);

/// The guest asks for a lease and at once for a page. dnsmasq pings an address before it offers it.
pub const LEASE_AND_PAGE: &str = "\
udhcpc -f -q -n -t 4 -T 3 -i eth0 -s /bin/udhcpc.script 2>/dev/null; fetch 10.77.0.9 80 /";

/// A host with the network, and a neighbour on its bridge.
pub struct Lab {
    pub sandbox: Sandbox,
    pub host: Netns,
    pub neighbour: Netns,
    pub guest: Guest,
}

/// The frames that came out of the guest's port.
pub struct Outside {
    pub wires: [Wire; 2],
    /// The other senders on them.
    pub known: Vec<[u8; 6]>,
    judged: [usize; 2],
}

impl Lab {
    pub fn new(test: &str, backend: &str) -> Option<Self> {
        Lab::with_network(test, backend, LAB, true)
    }

    /// A lab whose network has IPv6, too, with router advertisements.
    pub fn with_ipv6(test: &str, backend: &str) -> Option<Self> {
        let ip = "  <ip family='ipv6' address='2001:db8:77::1' prefix='64'/>\n</network>";
        Lab::with_network(test, backend, &LAB.replace("</network>", ip), false)
    }

    fn with_network(test: &str, backend: &str, network: &str, without_v6: bool) -> Option<Self> {
        let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return None };
        let (host, neighbour) = (Netns::bare(), Netns::bare());
        for netns in [&host, &neighbour].into_iter().filter(|_| without_v6) {
            netns.says("sysctl", &["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
        }
        let sandbox = Sandbox::new(As::Root, Some(&host));
        let lab = Lab { sandbox, host, neighbour, guest };
        let setting = format!("firewall_backend = \"{backend}\"\n");
        for file in ["config/network.conf", "config/nwfilter.conf"] {
            std::fs::write(lab.sandbox.path(file), &setting).unwrap();
        }
        let definition = lab.file("lab.xml", network);
        lab.ours(&["network", "define", &definition]);
        lab.ours(&["network", "start", "lab"]);
        lab.host.wire("port0", &lab.neighbour, "eth0");
        lab.host.ip(&format!("link set port0 master {BRIDGE}"));
        lab.neighbour.ip(&format!("address add {NEIGHBOUR}/24 dev eth0"));
        for port in [80, 81] {
            lab.neighbour.serve_http_at((NEIGHBOUR, port).into(), "page of a neighbour");
        }
        Some(lab)
    }

    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.sandbox.path(name);
        std::fs::write(&path, content).unwrap();
        path.to_string_lossy().into_owned()
    }

    /// Returns the output of netlaunch, which succeeds.
    pub fn ours(&self, args: &[&str]) -> String {
        let output = finish(self.sandbox.netlaunch(args));
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// A guest with this filter that does nothing of its own accord.
    pub fn start(&self, filter: &[&str], change: impl FnOnce(&mut std::process::Command)) -> Scene {
        let options = ["--network", "lab", "--user", "nobody", "--name", "web", "-v", "--filter"];
        let options = [&options, filter].concat();
        let mut args = command_line(&self.sandbox, &self.guest, &options, SHELL);
        let kernel = args.iter().position(|arg| arg == "-append").unwrap() + 1;
        args[kernel].insert_str(0, "nl.dhcp=no ");
        let mut command = self.sandbox.netlaunch(&args);
        change(&mut command);
        Scene::start(command)
    }

    /// The launch once it has its tap.
    pub fn shown(&self, scene: &mut Scene) -> Value {
        scene.hear("SHELL ");
        let all: Value = serde_json::from_str(&self.ours(&["ps", "--json"])).unwrap();
        valid("ps", &all);
        launch(&self.sandbox)
    }

    /// The port of the launch as `binding-list` shows it.
    pub fn listed(&self) -> Value {
        let all: Value =
            serde_json::from_str(&self.ours(&["nwfilter", "binding-list", "--json"])).unwrap();
        valid("bindings", &all);
        let ports = all["bindings"].as_array().unwrap();
        ports.iter().find(|port| port["owner"] == "web").unwrap_or(&Value::Null).clone()
    }

    pub fn mac(&self, netns: &Netns, interface: &str) -> [u8; 6] {
        let file = format!("/sys/class/net/{interface}/address");
        let text = netns.says("cat", &[&file]);
        let bytes: Vec<u8> =
            text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }

    pub fn outside(&self) -> Outside {
        let known = vec![
            self.mac(&self.host, BRIDGE),
            self.mac(&self.host, "port0"),
            self.mac(&self.neighbour, "eth0"),
        ];
        let wires = [Wire::tap(&self.host, BRIDGE), Wire::tap(&self.neighbour, "eth0")];
        Outside { wires, known, judged: [0; 2] }
    }

    /// The line of a table with this word.
    pub fn row(&self, command: &[&str], word: &str) -> String {
        let table = self.ours(command);
        let row = table.lines().find(|line| line.split_whitespace().any(|w| w == word));
        row.unwrap_or_else(|| panic!("no {word} in {table}")).to_owned()
    }

    /// `ps` and `binding-list` show the learned address of the guest behind this tap, and until
    /// when.
    pub fn shows(&self, tap: &str, address: Ipv4Addr, until: impl Fn(&Value)) {
        let in_ps = || launch(&self.sandbox)["bridge"]["learning"]["address"].clone();
        // The rules are there first.
        let there = wait_until(LIMIT, || in_ps() == address.to_string());
        assert!(there, "{} instead of {address}", in_ps());
        let learning = &self.listed()["learning"];
        assert_eq!(learning["address"], address.to_string());
        assert_eq!((&learning["pid"], &learning["error"]), (&self.supervisor(), &Value::Null));
        until(&learning["until"]);
        for (command, row) in [(&["ps"][..], "web"), (&["nwfilter", "binding-list"], tap)] {
            assert!(self.row(command, row).contains(&format!(" {address}")), "{command:?}");
        }
    }

    pub fn supervisor(&self) -> Value {
        launch(&self.sandbox)["pid"].clone()
    }

    /// netlaunch's rules for ports, by chain, in their order there.
    pub fn rules(&self) -> BTreeMap<String, Vec<String>> {
        let mut rules: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut chain = String::new();
        for line in
            self.host.says("nft", &["list", "table", "bridge", "netlaunch_nwfilter"]).lines()
        {
            match line.trim() {
                "" | "}" => {}
                head if head.ends_with('{') => chain = head.to_owned(),
                rule => rules.entry(chain.clone()).or_default().push(rule.to_owned()),
            }
        }
        let marks = ["nl-", "NETLAUNCH_FROM", "NETLAUNCH_TO", "NETLAUNCH_PORT_"];
        for tool in ["ebtables-save", "iptables-save"] {
            let saved = self.host.says(tool, &[]);
            let of_ports = |line: &&str| {
                marks.iter().any(|mark| line.contains(mark)) && !line.contains(BRIDGE)
            };
            for line in saved.lines().filter(of_ports) {
                let chain = line.split(' ').find(|word| !word.starts_with('-')).unwrap();
                let chain = rules.entry(format!("{tool} {}", chain.trim_start_matches(':')));
                chain.or_default().push(line.to_owned());
            }
        }
        // The jumps to the rules of the ports have no order.
        let leads = |head: &str| head.starts_with("map ") || head.contains("NETLAUNCH_");
        for (_, lines) in rules.iter_mut().filter(|(head, _)| leads(head)) {
            let parts = lines.iter().flat_map(|line| line.split(['{', ',', '}']));
            *lines = parts.map(|part| part.trim().to_owned()).collect();
            lines.sort();
        }
        rules
    }

    pub fn taps(&self) -> String {
        self.host.says("ip", &["-o", "link", "show", "type", "tun"])
    }

    /// The files that netlaunch keeps about ports.
    pub fn kept(&self) -> Vec<String> {
        kept_in(&self.sandbox.state())
    }

    /// Of the guest and of its filter.
    pub fn nothing_left(&self) {
        assert_eq!(self.rules(), BTreeMap::new());
        assert_eq!(self.kept(), [""; 0]);
        assert_eq!(self.taps(), "");
        let mut left = processes_with(&self.sandbox.path("").to_string_lossy());
        left.retain(|(_, line)| !line.contains("dnsmasq"));
        assert!(left.is_empty(), "still running: {left:?}");
    }
}

/// The files about ports below a state directory, by name.
pub fn kept_in(state: &Path) -> Vec<String> {
    let root = state.join("nwfilter");
    let mut files = files_below(&root);
    files.retain(|path| {
        ![".lock", ".applied", "ports.index"].iter().any(|name| path.ends_with(name))
    });
    let name = |path: &PathBuf| path.strip_prefix(&root).unwrap().display().to_string();
    files.iter().map(name).collect()
}

impl Outside {
    /// Asserts that each new frame is DHCP without an address, or comes from `address`.
    pub fn judge(&mut self, what: &str, address: Option<Ipv4Addr>) {
        for (wire, judged) in self.wires.iter().zip(&mut self.judged) {
            let all = wire.others_than(&self.known);
            let is_free = |frame: &&Carried| match frame.says() {
                Says::DhcpClient(_) => false,
                Says::Arp(is) | Says::Ipv4(is) => Some(is) != address,
                Says::DhcpServer(_) | Says::Other(_) => true,
            };
            let free: Vec<_> = all[*judged..].iter().filter(is_free).collect();
            assert!(free.is_empty(), "{what}: came out: {free:?}");
            *judged = all.len();
        }
    }

    /// Checks the frames that came out since the last time.
    pub fn skip(&mut self) {
        self.judged = self.wires.each_ref().map(|wire| wire.others_than(&self.known).len());
    }
}

/// The guest speaks as `address`: ARP, and IPv4 to a neighbour whose hardware address it knows. All
/// of that is on the tap then.
pub fn speak_as(lab: &Lab, scene: &mut Scene, tap: &Wire, address: Ipv4Addr) {
    let mac = lab.mac(&lab.neighbour, "eth0").map(|byte| format!("{byte:02x}")).join(":");
    let before = tap.all().len();
    let said = scene.ask(&format!(
        "ip address add {address}/24 dev eth0; arping -c 1 -w 1 -I eth0 -s {address} {NEIGHBOUR}; \
         arping -U -c 1 -w 1 -I eth0 -s {address} {address}; \
         arp -i eth0 -s {NEIGHBOUR} {mac}; ping -c 1 -W 1 -I {address} {NEIGHBOUR}; \
         arp -i eth0 -d {NEIGHBOUR}; ip address del {address}/24 dev eth0"
    ));
    for says in [Says::Arp(address), Says::Ipv4(address)] {
        let is_it = |frame: &Carried| !frame.outgoing && frame.says() == says;
        assert!(tap.all()[before..].iter().any(is_it), "the guest never said {says:?}: {said}");
    }
}

/// The address of a `LEASE` line.
pub fn leased(said: &str) -> Ipv4Addr {
    let address = said.split(' ').find_map(|word| word.strip_prefix("ip="));
    address.unwrap_or_else(|| panic!("no lease: {said}")).parse().unwrap()
}
