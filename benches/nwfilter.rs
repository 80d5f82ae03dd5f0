//! What filters cost on nftables: binding one, against nft alone with the same text; changing one
//! that many ports use, likewise; and frames through a port with a thousand ports bound against one.
//!
//! `cargo bench --bench nwfilter`, as root: it makes network namespaces of its own. What is compared
//! is done in turn and the ratio is taken pair by pair, so that a machine that slows down slows
//! both. Figures go to standard output; nothing here passes or fails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench stops by panicking")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{As, Netns, Sandbox, finish, have_root, run, text};
use netlaunch::binding::{BindingSettings, Bindings};
use netlaunch::firewall::Backend;
use netlaunch::nwfilter::Binding;
use netlaunch::process::tap::{TUN, Tap, TapName};

/// Pairs of a bind and an nft.
const BINDS: usize = 40;
/// Pairs of a redefinition and an nft, and the ports whose filter is redefined.
const REDEFINITIONS: usize = 20;
const USERS: usize = 200;
/// Ports bound, pairs of rounds, frames of a round.
const PORTS: usize = 1000;
const ROUNDS: usize = 31;
const FRAMES: usize = 20_000;

fn main() {
    if !have_root("the nwfilter benchmark") {
        return;
    }
    bind();
    redefine();
    frames();
}

/// A host with ports, and netlaunch on it.
struct Host {
    netns: Netns,
    sandbox: Sandbox,
}

impl Host {
    /// `ports` interfaces, `p0` and so on.
    fn new(ports: usize) -> Self {
        let (netns, sandbox) = (Netns::bare(), Sandbox::new(As::Root, None));
        let pairs: String = (0..ports.div_ceil(2))
            .map(|n| format!("link add p{} type veth peer name p{}\n", 2 * n, 2 * n + 1))
            .collect();
        let batch = sandbox.path("batch");
        fs::write(&batch, pairs).unwrap();
        let made = run("ip", &["-n", &netns.name, "-batch", batch.to_str().unwrap()]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        let settings = "firewall_backend = \"nftables\"\n";
        fs::write(sandbox.path("config/nwfilter.conf"), settings).unwrap();
        Host { netns, sandbox }
    }

    /// How long a program takes inside, its start included.
    fn time(&self, mut command: Command) -> Duration {
        self.netns.inside(|| {
            let begun = Instant::now();
            let output = command.output().unwrap();
            let took = begun.elapsed();
            assert!(output.status.success(), "{}", text(&output.stderr));
            took
        })
    }

    fn nwfilter(&self, args: &[&str]) -> Command {
        self.sandbox.netlaunch(&[&["nwfilter"], args].concat())
    }

    fn nft(&self, file: &Path) -> Command {
        let mut command = Command::new("/usr/sbin/nft");
        command.arg("-f").arg(file);
        command
    }

    /// The document that binds a filter to a port.
    fn binding(&self, port: &str, filter: &str) -> PathBuf {
        let file = self.sandbox.path(&format!("{port}.xml"));
        fs::write(&file, binding(port, filter)).unwrap();
        file
    }

    /// Runs a verb with an nft in front of nft that keeps what it is fed. Returns that file.
    fn captured(&self, args: &[&str]) -> PathBuf {
        let file = self.sandbox.path("captured.nft");
        let script = format!("tee {} | /usr/sbin/nft \"$@\"", file.display());
        let wrapper = self.sandbox.script("nft", &script);
        let mut command = self.nwfilter(args);
        command.env("PATH", wrapper.parent().unwrap());
        self.time(command);
        fs::remove_file(wrapper).unwrap();
        file
    }

    /// Binds a filter to many ports, within this process. Returns how long each took.
    fn bind_all(&self, ports: std::ops::Range<usize>, filter: &str) -> Vec<Duration> {
        let bindings = Bindings::new(BindingSettings {
            config_dir: self.sandbox.path("config"),
            state_dir: self.sandbox.state(),
            path: Vec::new(),
            firewall_backend: Some(Backend::Nftables),
            enable_trace: false,
            enable_counters: false,
        });
        self.netns.inside(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let one = |n: usize| {
                let begun = Instant::now();
                let binding = Binding::parse(binding(&format!("p{n}"), filter).as_bytes()).unwrap();
                runtime.block_on(bindings.create(&binding)).unwrap();
                begun.elapsed()
            };
            ports.map(one).collect()
        })
    }
}

fn binding(port: &str, filter: &str) -> String {
    format!(
        "<filterbinding><owner><name>bench</name><uuid>7b2f9b5e-1c9f-4c0b-8d57-1f8f0a5d0c11</uuid></owner>\
         <portdev name='{port}'/><mac address='52:54:00:11:22:33'/>\
         <filterref filter='{filter}'><parameter name='IP' value='10.2.3.4'/></filterref></filterbinding>"
    )
}

/// Binding clean-traffic: the processes and the time.
fn bind() {
    let host = Host::new(2);
    let document = host.binding("p0", "clean-traffic");
    let create = ["binding-create", document.to_str().unwrap()];
    let delete = ["binding-delete", "p0"];
    let trace = host.sandbox.path("trace");
    let mut strace = Command::new("strace");
    let bind = host.nwfilter(&create);
    strace.args(["-f", "-qq", "-e", "trace=execve", "-o"]).arg(&trace);
    strace.arg(bind.get_program()).args(bind.get_args()).env_clear();
    strace.envs(bind.get_envs().filter_map(|(name, value)| Some((name, value?))));
    host.time(strace);
    let executed: Vec<String> = fs::read_to_string(&trace)
        .unwrap()
        .lines()
        .filter(|line| line.contains("execve(") && !line.contains("= -1"))
        .filter_map(|line| Some(line.split('"').nth(1)?.to_owned()))
        .collect();
    println!("bind of clean-traffic: executes {:?} besides netlaunch itself", &executed[1..]);
    host.time(host.nwfilter(&delete));

    let captured = host.captured(&create);
    host.time(host.nwfilter(&delete));
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..=BINDS {
        let a = host.time(host.nwfilter(&create));
        host.time(host.nwfilter(&delete));
        let b = host.time(host.nft(&captured));
        let mut remove = Command::new("/usr/sbin/nft");
        remove.args(["delete", "table", "bridge", "netlaunch_nwfilter"]);
        host.time(remove);
        // The first pair warms the caches.
        if pair > 0 {
            ours.push(a);
            theirs.push(b);
            ratios.push(a.as_secs_f64() / b.as_secs_f64());
        }
    }
    println!(
        "bind of clean-traffic: {:.1} ms, nft -f of the same text {:.1} ms, ratio {:.2} (medians of {BINDS} pairs)",
        milliseconds(&mut ours),
        milliseconds(&mut theirs),
        median(&mut ratios),
    );
}

/// Redefining a filter of three rules that many ports use.
fn redefine() {
    let host = Host::new(USERS);
    let file = host.sandbox.path("small.xml");
    let write = |port: usize| {
        let xml = format!(
            "<filter name='small'><uuid>7b2f9b5e-1c9f-4c0b-8d57-1f8f0a5d0c12</uuid>\
             <rule action='drop' direction='out'><udp dstportstart='{port}'/></rule>\
             <rule action='drop' direction='in'><tcp dstportstart='{port}'/></rule>\
             <rule action='drop' direction='out'><arp opcode='2'/></rule></filter>"
        );
        fs::write(&file, xml).unwrap();
    };
    let define = ["define", file.to_str().unwrap()];
    write(1);
    host.time(host.nwfilter(&define));
    host.bind_all(0..USERS, "small");
    write(2);
    let captured = host.captured(&define);
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..=REDEFINITIONS {
        write(3 + pair);
        let a = host.time(host.nwfilter(&define));
        let b = host.time(host.nft(&captured));
        if pair > 0 {
            ours.push(a);
            theirs.push(b);
            ratios.push(a.as_secs_f64() / b.as_secs_f64());
        }
    }
    println!(
        "redefinition of a filter of 3 rules on {USERS} ports: {:.1} ms, nft -f of the same text ({} KiB) {:.1} ms, ratio {:.2} (medians of {REDEFINITIONS} pairs)",
        milliseconds(&mut ours),
        fs::metadata(&captured).unwrap().len() / 1024,
        milliseconds(&mut theirs),
        median(&mut ratios),
    );
}

/// A bridge with two taps, the first of them filtered.
struct Line {
    host: Host,
    guest: fs::File,
    peer: fs::File,
}

impl Line {
    fn new() -> Self {
        let host = Host::new(PORTS);
        host.netns.ip("link add br0 type bridge stp_state 0 mcast_snooping 0 forward_delay 0");
        host.netns.ip("link set br0 up");
        let tap = |name: &str| -> fs::File {
            let name = TapName::Exact(name.parse().unwrap());
            let tap = host.netns.inside(|| Tap::open(Path::new(TUN), &name).unwrap());
            host.netns.ip(&format!("link set {} master br0 up", tap.name()));
            tap.into_fd().into()
        };
        let (guest, peer) = (tap("vnet0"), tap("peer0"));
        let document = host.binding("vnet0", "clean-traffic");
        host.time(host.nwfilter(&["binding-create", document.to_str().unwrap()]));
        let line = Line { host, guest, peer };
        // The bridge learns where the peer is.
        let hello = frame([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc], [0xff; 6], [10, 2, 3, 9]);
        (&line.peer).write_all(&hello).unwrap();
        line
    }

    /// Frames a second from the guest to the peer.
    fn rate(&self) -> f64 {
        let frame = frame(
            [0x52, 0x54, 0, 0x11, 0x22, 0x33],
            [0x52, 0x54, 0, 0xaa, 0xbb, 0xcc],
            [10, 2, 3, 4],
        );
        let mut buffer = [0; 2048];
        // What others left there.
        while (&self.peer).read(&mut buffer).is_ok() {}
        let begun = Instant::now();
        let mut received = 0;
        for _ in 0..FRAMES {
            (&self.guest).write_all(&frame).unwrap();
            // The frame is in the peer's queue when the write returns.
            while (&self.peer).read(&mut buffer).is_ok() {
                received += 1;
            }
        }
        let took = begun.elapsed();
        assert!(received >= FRAMES, "{received} of {FRAMES} frames came through");
        FRAMES as f64 / took.as_secs_f64()
    }
}

/// A datagram of 64 bytes as a tap takes it, behind an empty virtio header.
fn frame(source: [u8; 6], destination: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend(address);
    ip.extend([10, 2, 3, 9]);
    let mut sum: u32 = ip.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    ip[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let udp = [&[0, 7, 0, 9, 0, 30, 0, 0], [0; 22].as_slice()].concat();
    [[0; 10].as_slice(), &destination, &source, &[8, 0], &ip, &udp].concat()
}

/// Frames through a port, with it alone bound and with a thousand.
fn frames() {
    let (one, many) = (Line::new(), Line::new());
    let mut took = many.host.bind_all(0..PORTS - 1, "clean-traffic");
    let list = many.host.netns.inside(|| finish(many.host.nwfilter(&["binding-list", "--json"])));
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let bound = list["bindings"].as_array().unwrap().len();
    let last = took.split_off(took.len() - 50);
    let mut first = took[..50].to_vec();
    println!(
        "binds within one process: {:.1} ms for the first, {:.1} ms with {bound} ports bound (medians of 50)",
        milliseconds(&mut first),
        milliseconds(&mut last.clone()),
    );
    let (mut alone, mut among, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        // Each goes first in half of the rounds.
        let (a, b) = if round % 2 == 0 {
            let a = one.rate();
            (a, many.rate())
        } else {
            let b = many.rate();
            (one.rate(), b)
        };
        if round > 0 {
            alone.push(a);
            among.push(b);
            ratios.push(b / a);
        }
    }
    println!(
        "frames through a port with clean-traffic: {:.0}/s with 1 port bound, {:.0}/s with {bound}, ratio {:.3} (medians of {ROUNDS} rounds of {FRAMES})",
        median(&mut alone),
        median(&mut among),
        median(&mut ratios),
    );
}

fn milliseconds(times: &mut [Duration]) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
