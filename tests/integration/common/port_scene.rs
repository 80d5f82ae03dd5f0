//! A bridge with guests' ports to put filters on, and frames that tell whether they came through.
//!
//! ```text
//! vnet0 ─┐          vnet0 and vnet1 are the ports that get filters; peer0 and mark0 have none
//! vnet1 ─┤ br0      br0 is a hub (no ageing) and has the host's addresses 10.2.3.254, 2001:db8::fe
//! peer0 ─┤
//! mark0 ─┘
//! ```
//!
//! The ports are taps, as QEMU's are: what the test writes into one, its guest sends; what it
//! reads, its guest receives. The kernel takes a frame through the bridge to the other taps' queues
//! before the write of it returns (drivers/net/tun.c, tun_get_user), so a frame that is not in a
//! queue by then was dropped. [`PortScene::send`] still waits for a mark: a frame that follows from
//! mark0 to peer0, or from peer0 to mark0, which no filter here can stop.

mod foreign_rules;

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use netlaunch::sys::tap::{TUN, Tap, TapName};

#[allow(unused_imports, reason = "not every test program uses each of them")]
pub use super::hub::{backends, hub, tracks_bridges};

use super::frame::{BRIDGE, Frame, OTHER, PEER, VM, mac_text};
use super::ruleset::ruleset;
use super::{AT_MOST, As, Netns, Sandbox, finish, text, wait_until};

/// A place where frames are sent and received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Station {
    Vnet0,
    Vnet1,
    Peer,
}

impl Station {
    const ALL: [Station; 3] = [Station::Vnet0, Station::Vnet1, Station::Peer];

    /// The name of its port.
    pub fn port(self) -> &'static str {
        match self {
            Station::Vnet0 => "vnet0",
            Station::Vnet1 => "vnet1",
            Station::Peer => "peer0",
        }
    }
}

/// A tap of the test's.
struct Port(std::fs::File);

/// The header of virtio that a tap of netlaunch's puts before each frame: no offload.
pub const VNET_HEADER: usize = 10;

impl Port {
    fn open(name: &str) -> Self {
        let tap = Tap::open(Path::new(TUN), &TapName::Exact(name.parse().unwrap())).unwrap();
        Port(tap.into_fd().into())
    }

    fn send(&self, frame: &[u8]) {
        let bytes = [&[0; VNET_HEADER], frame].concat();
        assert_eq!((&self.0).write(&bytes).unwrap(), bytes.len());
    }

    /// Every frame that is in the queue.
    fn drain(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 65_600];
        loop {
            match (&self.0).read(&mut buffer) {
                Ok(length) => frames.push(buffer[VNET_HEADER..length].to_vec()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return frames,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The scene: its namespace, its ports, and netlaunch with directories of its own.
pub struct PortScene {
    pub netns: Netns,
    pub sandbox: Sandbox,
    ports: [RefCell<Option<Port>>; 3],
    /// The port of the marks.
    mark: Port,
    /// Each frame has another number, by which it is known again.
    number: Cell<u32>,
}

impl PortScene {
    /// A scene without a filter; netlaunch uses this backend, or chooses.
    pub fn new(backend: Option<&str>) -> Self {
        let netns = hub();
        let sandbox = Sandbox::new(As::Root, Some(&netns));
        let ports = [(); 3].map(|()| RefCell::new(None));
        let mark = netns.inside(|| Port::open("mark0"));
        netns.ip("link set mark0 master br0 up");
        let scene = PortScene { netns, sandbox, ports, mark, number: Cell::new(0) };
        for station in Station::ALL {
            scene.plug(station);
        }
        scene.netns.ip(&format!("address add {}/24 dev br0", BRIDGE.v4));
        scene.netns.ip(&format!("address add {}/64 dev br0 nodad", BRIDGE.v6));
        for host in [VM, OTHER, PEER] {
            let mac = mac_text(host.mac);
            scene.netns.ip(&format!("neighbour add {} lladdr {mac} dev br0", host.v4));
            scene.netns.ip(&format!("neighbour add {} lladdr {mac} dev br0", host.v6));
        }
        scene.settings(
            &backend.map_or_else(String::new, |b| format!("firewall_backend = \"{b}\"\n")),
        );
        scene
    }

    /// A scene in this namespace with the queues of these ports, without a filter.
    pub fn of(netns: Netns, ports: [Option<std::fs::File>; 3], mark: std::fs::File) -> Self {
        let sandbox = Sandbox::new(As::Root, Some(&netns));
        let ports = ports.map(|file| RefCell::new(file.map(Port)));
        PortScene { netns, sandbox, ports, mark: Port(mark), number: Cell::new(0) }
    }

    /// Makes a station's port.
    pub fn plug(&self, station: Station) {
        let port = self.netns.inside(|| Port::open(station.port()));
        *self.port(station).borrow_mut() = Some(port);
        self.netns.ip(&format!("link set {} master br0 up", station.port()));
    }

    /// Closes a station's port: its interface is gone then.
    pub fn unplug(&self, station: Station) {
        *self.port(station).borrow_mut() = None;
        let path = format!("/sys/class/net/{}", station.port());
        let test = ["-e", path.as_str()];
        let gone = || !finish(self.with_args("/usr/bin/test", &test)).status.success();
        assert!(wait_until(AT_MOST, gone), "{path} is still there");
    }

    fn port(&self, station: Station) -> &RefCell<Option<Port>> {
        let at = Station::ALL.iter().position(|other| *other == station).unwrap();
        &self.ports[at]
    }

    fn with_args(&self, program: &str, args: &[&str]) -> std::process::Command {
        let mut command = self.sandbox.program(Path::new(program));
        command.args(args);
        command
    }

    /// Writes nwfilter.conf.
    pub fn settings(&self, toml: &str) {
        std::fs::write(self.sandbox.path("config/nwfilter.conf"), toml).unwrap();
    }

    /// Runs `netlaunch nwfilter` with these arguments.
    pub fn nwfilter(&self, args: &[&str]) -> Output {
        finish(self.sandbox.netlaunch(&[&["nwfilter"], args].concat()))
    }

    /// Runs it with directories before the others of PATH.
    pub fn nwfilter_with_path(&self, first: &Path, args: &[&str]) -> Output {
        let mut command = self.sandbox.netlaunch(&[&["nwfilter"], args].concat());
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", first.display()));
        finish(command)
    }

    /// Runs a program of the host inside and returns what it prints.
    pub fn sh(&self, line: &str) -> String {
        self.netns.sh(line)
    }

    /// Defines a filter of these rules; its name is `name`.
    pub fn define(&self, name: &str, rules: &str) -> Result<(), String> {
        let file = self.sandbox.path("filter.xml");
        std::fs::write(&file, format!("<filter name='{name}'>\n{rules}\n</filter>\n")).unwrap();
        done(self.nwfilter(&["define", file.to_str().unwrap()]))
    }

    /// Writes the document that binds a filter to a port, and returns its path.
    pub fn binding(&self, station: Station, filter: &str, parameters: &[(&str, &str)]) -> String {
        let mac = if station == Station::Vnet1 { OTHER.mac } else { VM.mac };
        let parameters: String = parameters
            .iter()
            .map(|(name, value)| format!("<parameter name='{name}' value='{value}'/>"))
            .collect();
        let file = self.sandbox.path(&format!("binding-{}.xml", station.port()));
        let xml = format!(
            "<filterbinding>\n<owner><name>test</name><uuid>7b2f9b5e-1c9f-4c0b-8d57-1f8f0a5d0c11</uuid></owner>\n\
             <portdev name='{}'/>\n<mac address='{}'/>\n<filterref filter='{filter}'>{parameters}</filterref>\n</filterbinding>\n",
            station.port(),
            mac_text(mac),
        );
        std::fs::write(&file, xml).unwrap();
        file.to_string_lossy().into_owned()
    }

    /// Binds a filter to a port.
    pub fn bind(
        &self,
        station: Station,
        filter: &str,
        parameters: &[(&str, &str)],
    ) -> Result<(), String> {
        done(self.nwfilter(&["binding-create", &self.binding(station, filter, parameters)]))
    }

    /// Defines a filter of these rules and binds it to vnet0.
    pub fn filter(&self, rules: &str) -> Result<(), String> {
        self.define("test", rules)?;
        self.bind(Station::Vnet0, "test", &[])
    }

    /// Takes a port's filter away.
    pub fn unbind(&self, station: Station) {
        done(self.nwfilter(&["binding-delete", station.port()])).unwrap();
    }

    /// Returns the output of `binding-list --json`.
    pub fn list(&self) -> serde_json::Value {
        let output = self.nwfilter(&["binding-list", "--json"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The backend that carries a port's filter out.
    pub fn backend_of(&self, station: Station) -> String {
        let list = self.list();
        let all = list["bindings"].as_array().unwrap();
        let found = all.iter().find(|b| b["port"] == station.port()).unwrap();
        found["backend"].as_str().unwrap().to_owned()
    }

    /// Every rule of nft's, iptables' and ebtables', packets they counted aside.
    pub fn ruleset(&self) -> String {
        ruleset(&self.netns)
    }

    /// Sends a frame from a station; returns the others that received it.
    pub fn send(&self, from: Station, frame: &Frame) -> Vec<Station> {
        let seen = self.exchange(from, frame);
        seen.into_iter().map(|(station, _)| station).collect()
    }

    /// Whether what the guest behind vnet0 sends reaches the peer.
    pub fn leaves(&self, frame: &Frame) -> bool {
        self.send(Station::Vnet0, frame).contains(&Station::Peer)
    }

    /// Whether these bytes, which no other frame has, reach the peer from the guest behind vnet0.
    pub fn leaves_bytes(&self, bytes: &[u8]) -> bool {
        let number = self.number.get() + 1;
        self.number.set(number);
        let nonce = [b"nlmark".as_slice(), &number.to_be_bytes()].concat();
        let mark =
            [&[0xff; 6], &[2, 0, 0, 0, 0, 1], [0x88, 0xb5].as_slice(), &nonce, &[0; 46]].concat();
        self.drain(Station::Peer);
        self.write(Station::Vnet0, bytes);
        self.mark.send(&mark);
        let mut received = Vec::new();
        let came = || {
            received.extend(self.drain(Station::Peer));
            received.contains(&mark)
        };
        assert!(wait_until(AT_MOST, came), "the mark did not come");
        received.iter().any(|frame| frame == bytes)
    }

    /// Whether what the peer sends reaches the guest behind vnet0.
    pub fn enters(&self, frame: &Frame) -> bool {
        self.send(Station::Peer, frame).contains(&Station::Vnet0)
    }

    /// Sends a frame and returns who received it, and what they received.
    fn exchange(&self, from: Station, frame: &Frame) -> Vec<(Station, Vec<u8>)> {
        let number = self.number.get() + 1;
        self.number.set(number);
        let nonce = [b"nltest".as_slice(), &number.to_be_bytes()].concat();
        let drain = |to: &mut Vec<(Station, Vec<u8>)>| {
            for station in Station::ALL {
                to.extend(self.drain(station).into_iter().map(|bytes| (station, bytes)));
            }
        };
        drain(&mut Vec::new());
        self.write(from, &frame.bytes(&nonce));
        let mark =
            [&[0xff; 6], &[2, 0, 0, 0, 0, 1], [0x88, 0xb5].as_slice(), &nonce, &[0; 46]].concat();
        if from == Station::Peer {
            self.write(Station::Peer, &mark);
        } else {
            self.mark.send(&mark);
        }
        let mut received: Vec<(Station, Vec<u8>)> = Vec::new();
        let came = || {
            drain(&mut received);
            self.mark.drain().contains(&mark)
                || received.iter().any(|(at, bytes)| *at == Station::Peer && *bytes == mark)
        };
        // A test may have turned off peer0, or filtered it; then the order of the write counts.
        let _ = wait_until(Duration::from_millis(200), came);
        // A macvtap may get the frame after it was looked at and before the mark comes.
        drain(&mut received);
        // An ICMP error about the frame has its number, too, and another sender.
        let is_it = |bytes: &[u8]| {
            bytes.windows(nonce.len()).any(|window| window == nonce)
                && bytes[6..12] == frame.source
                && bytes[12..14] != [0x88, 0xb5]
        };
        received.retain(|(station, bytes)| *station != from && is_it(bytes));
        received
    }

    /// Sends a frame from a station; returns what came back to it.
    pub fn answers(&self, from: Station, frame: &Frame) -> Vec<Vec<u8>> {
        self.drain(from);
        self.write(from, &frame.bytes(b"nltest-answer"));
        let mut answers = Vec::new();
        let came = || {
            answers.extend(self.drain(from));
            !answers.is_empty()
        };
        wait_until(Duration::from_millis(500), came);
        answers
    }

    /// Does `send`, which sends `last` at the end, and returns every frame that the guest behind
    /// vnet0 has received when `last` reaches it.
    pub fn hear(&self, send: impl FnOnce(), last: &[u8]) -> Vec<Vec<u8>> {
        self.drain(Station::Vnet0);
        send();
        let mut heard: Vec<Vec<u8>> = Vec::new();
        let came = || {
            heard.extend(self.drain(Station::Vnet0));
            heard.iter().any(|frame| frame.windows(last.len()).any(|bytes| bytes == last))
        };
        assert!(wait_until(AT_MOST, came), "{:?} did not come", text(last));
        heard
    }

    /// Does `send`, and returns the frames that the peer has received when one with `last` comes.
    pub fn peer_hears_from(&self, send: impl FnOnce(), last: &[u8]) -> Vec<Vec<u8>> {
        self.drain(Station::Peer);
        send();
        let mut heard: Vec<Vec<u8>> = Vec::new();
        let came = || {
            heard.extend(self.drain(Station::Peer));
            heard.iter().any(|frame| frame.windows(last.len()).any(|bytes| bytes == last))
        };
        assert!(wait_until(AT_MOST, came), "the last frame did not come");
        heard
    }

    /// Sends these bytes and then `last` from vnet0, and returns the frames that the peer has
    /// received when `last` reaches it.
    pub fn peer_hears(&self, bytes: &[u8], last: &[u8]) -> Vec<Vec<u8>> {
        let send = || {
            self.write(Station::Vnet0, bytes);
            self.write(Station::Vnet0, last);
        };
        self.peer_hears_from(send, last)
    }

    /// Whether a datagram from the guest behind vnet0 reaches this port of the host itself.
    pub fn reaches_host(&self, port: u16) -> bool {
        let socket = self.netns.inside(|| UdpSocket::bind((BRIDGE.v4, port)).unwrap());
        socket.set_nonblocking(true).unwrap();
        let frame = Frame::udp(VM, BRIDGE, 68, port);
        self.write(Station::Vnet0, &frame.bytes(b"nltest-host"));
        let mut buffer = [0; 100];
        wait_until(Duration::from_millis(200), || socket.recv(&mut buffer).is_ok())
    }

    /// Sends these bytes from a station, whatever becomes of them.
    pub fn write(&self, station: Station, bytes: &[u8]) {
        self.port(station).borrow().as_ref().unwrap().send(bytes);
    }

    /// Sends a frame from a station whose port may be off.
    pub fn try_send(&self, station: Station, frame: &Frame) {
        let bytes = [&[0; VNET_HEADER], frame.bytes(b"nltest-try").as_slice()].concat();
        let _ = (&self.port(station).borrow().as_ref().unwrap().0).write(&bytes);
    }

    fn drain(&self, station: Station) -> Vec<Vec<u8>> {
        self.port(station).borrow().as_ref().map(Port::drain).unwrap_or_default()
    }
}

/// A command's success, or its message.
pub fn done(output: Output) -> Result<(), String> {
    if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
}
