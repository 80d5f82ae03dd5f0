//! Measures commands that change rules, compared with nft alone. nft gets the same input as from
//! the command: the same rules in the same transaction.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::goal::{Goal, median, row};
use super::host::{Host, guest};
use super::milliseconds;

/// The number of pairs of a bind and a run of nft.
const BINDS: usize = 40;
/// The number of ports that have the filter, and of pairs of a redefinition and a run of nft.
const REDEFINITIONS: [(usize, usize); 2] = [(200, 20), (1000, 12)];
/// The number of pairs of a rebuild and a run of nft, and of bound ports.
const REBUILDS: usize = 12;
const BOUND: usize = 1000;

/// Measures a bind of clean-traffic: its processes and its time.
pub fn bind() {
    let host = Host::new(2);
    let document = host.binding("p0", "clean-traffic");
    let create = ["nwfilter", "binding-create", document.to_str().unwrap()];
    let delete = ["nwfilter", "binding-delete", "p0"];
    let trace = host.sandbox.path("trace");
    let mut strace = Command::new("strace");
    let bind = host.sandbox.netlaunch(&create);
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
    let delete = || host.time(host.sandbox.netlaunch(&delete));
    delete();
    let captured = host.captured(&create);
    delete();
    let mut pairs = Pairs::default();
    for pair in 0..=BINDS {
        let ours = host.time(host.sandbox.netlaunch(&create));
        delete();
        let theirs = host.time(host.nft(&captured));
        let mut remove = Command::new("/usr/sbin/nft");
        remove.args(["delete", "table", "bridge", "netlaunch_nwfilter"]);
        host.time(remove);
        // The first pair warms the caches.
        if pair > 0 {
            pairs.add(ours, theirs);
        }
    }
    pairs.print("bind of clean-traffic", &captured);
    pairs.row("bind on one port", 1.15);
}

/// The numbers of bound ports, and of pairs of a command and a run of nft.
const BESIDE: [(usize, usize); 2] = [(2, 30), (1000, 30)];

/// Measures the replacement of one port's filter, alone and beside many bound ports.
pub fn swap() {
    for (ports, count) in BESIDE {
        let host = Host::new(ports);
        host.bind_all(0..ports, "clean-traffic");
        let address = format!("IP={}", guest("p0").1);
        let args = |filter: &'static str| {
            ["nwfilter", "bind", "p0", filter, "--replace", "-p", address.as_str()]
        };
        let filters = ["clean-traffic-strict", "clean-traffic"].map(args);
        let texts = filters.map(|args| {
            let captured = host.captured(&args);
            let kept = host.sandbox.path(&format!("{}.nft", args[3]));
            fs::rename(captured, &kept).unwrap();
            kept
        });
        let mut pairs = Pairs::default();
        for pair in 0..=count {
            let at = pair % 2;
            let ours = host.time(host.sandbox.netlaunch(&filters[at]));
            let theirs = host.time(host.nft(&texts[at]));
            if pair > 0 {
                pairs.add(ours, theirs);
            }
        }
        pairs.print(&format!("swap of the filter of one of {ports} ports"), &texts[0]);
    }
}

/// Measures the bind of the first and of the last of many ports.
pub fn first_and_last() {
    // Both hosts have as many interfaces, which nft lists.
    let [_, (many, count)] = BESIDE;
    let mut places = BESIDE.map(|(ports, _)| LastPort::new(many, ports));
    let mut ratios = Vec::new();
    for pair in 0..=count {
        let [first, last] = places.each_mut().map(|place| place.bind(pair > 0));
        if pair > 0 {
            ratios.push(last / first);
        }
    }
    for place in &mut places {
        let what = format!("bind number {}", place.number);
        place.pairs.print(&what, &place.captured);
    }
    let work = format!("bind number {many}");
    row(&work, "bind number 2", median(&mut ratios), "×", Goal::AtMost(1.1));
}

/// The last port of a host, which all other ports are bound beside.
struct LastPort {
    host: Host,
    /// The number of bound ports, with the last one.
    number: usize,
    port: String,
    document: PathBuf,
    captured: PathBuf,
    pairs: Pairs,
}

impl LastPort {
    /// Makes a host with `interfaces` interfaces, and binds `number` minus one of them.
    fn new(interfaces: usize, number: usize) -> Self {
        let host = Host::new(interfaces);
        host.bind_all(0..number - 1, "clean-traffic");
        let port = format!("p{}", number - 1);
        let document = host.binding(&port, "clean-traffic");
        let create = ["nwfilter", "binding-create", document.to_str().unwrap()];
        let captured = host.captured(&create);
        let place = LastPort { host, number, port, document, captured, pairs: Pairs::default() };
        place.delete();
        place
    }

    fn delete(&self) {
        let delete = ["nwfilter", "binding-delete", self.port.as_str()];
        self.host.time(self.host.sandbox.netlaunch(&delete));
    }

    /// Binds the port and removes its filter. Returns the seconds of the bind.
    fn bind(&mut self, is_counted: bool) -> f64 {
        let create = ["nwfilter", "binding-create", self.document.to_str().unwrap()];
        let ours = self.host.time(self.host.sandbox.netlaunch(&create));
        // The same text once more changes nothing.
        let theirs = self.host.time(self.host.nft(&self.captured));
        self.delete();
        if is_counted {
            self.pairs.add(ours, theirs);
        }
        ours.as_secs_f64()
    }
}

/// Measures the redefinition of a filter of three rules that many ports use.
pub fn redefine() {
    for (ports, count) in REDEFINITIONS {
        let host = Host::new(ports);
        let file = host.sandbox.path("small.xml");
        let define = ["nwfilter", "define", file.to_str().unwrap()];
        write_small(&file, 1);
        host.time(host.sandbox.netlaunch(&define));
        host.bind_all(0..ports, "small");
        write_small(&file, 2);
        let captured = host.captured(&define);
        let mut pairs = Pairs::default();
        for pair in 0..=count {
            write_small(&file, 3 + pair);
            let ours = host.time(host.sandbox.netlaunch(&define));
            let theirs = host.time(host.nft(&captured));
            if pair > 0 {
                pairs.add(ours, theirs);
            }
        }
        let what = format!("redefinition of a filter of 3 rules on {ports} ports");
        pairs.print(&what, &captured);
        pairs.row(&what, 1.25);
    }
}

/// Writes a filter whose rules match this UDP and TCP port.
fn write_small(file: &Path, port: usize) {
    let xml = format!(
        "<filter name='small'><uuid>7b2f9b5e-1c9f-4c0b-8d57-1f8f0a5d0c12</uuid>\
         <rule action='drop' direction='out'><udp dstportstart='{port}'/></rule>\
         <rule action='drop' direction='in'><tcp dstportstart='{port}'/></rule>\
         <rule action='drop' direction='out'><arp opcode='2'/></rule></filter>"
    );
    fs::write(file, xml).unwrap();
}

/// Measures the rebuild of many ports' rules, with a small filter and with clean-traffic.
pub fn rebuild() {
    for filter in ["small", "clean-traffic"] {
        let host = Host::new(BOUND);
        let file = host.sandbox.path("small.xml");
        write_small(&file, 1);
        host.time(host.sandbox.netlaunch(&["nwfilter", "define", file.to_str().unwrap()]));
        host.bind_all(0..BOUND, filter);
        let reload = ["firewall", "reload"];
        let captured = host.captured(&reload);
        let mut pairs = Pairs::default();
        for pair in 0..=REBUILDS {
            let ours = host.time(host.sandbox.netlaunch(&reload));
            let theirs = host.time(host.nft(&captured));
            if pair > 0 {
                pairs.add(ours, theirs);
            }
        }
        let what = format!("rebuild of {BOUND} bindings of {filter}");
        pairs.print(&what, &captured);
        pairs.row(&what, 1.25);
    }
}

/// Measures `firewall reload` when all rules are there, compared with a listing of the tables.
pub fn reload() {
    let host = Host::new(BOUND);
    host.bind_all(0..BOUND, "clean-traffic");
    let mut ratios = Vec::new();
    for pair in 0..=REBUILDS {
        let ours = host.time(host.sandbox.netlaunch(&["firewall", "reload"]));
        let mut list = Command::new("/usr/sbin/nft");
        list.args(["-j", "list", "ruleset", "bridge"]);
        let theirs = host.time(list);
        if pair > 0 {
            ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
        }
    }
    let work = format!("firewall reload with nothing to do, {BOUND} ports");
    row(&work, "a listing of the tables", median(&mut ratios), "×", Goal::AtMost(1.3));
}

/// The times of netlaunch and of nft, in pairs.
#[derive(Default)]
struct Pairs {
    ours: Vec<Duration>,
    theirs: Vec<Duration>,
    ratios: Vec<f64>,
}

impl Pairs {
    fn add(&mut self, ours: Duration, theirs: Duration) {
        self.ours.push(ours);
        self.theirs.push(theirs);
        self.ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
    }

    fn row(&mut self, work: &str, most: f64) {
        row(work, "nft -f of the same rules", median(&mut self.ratios), "×", Goal::AtMost(most));
    }

    fn print(&mut self, what: &str, captured: &Path) {
        println!(
            "{what}: {:.1} ms, nft -f of the same text ({} KiB, {} lines) {:.1} ms, ratio {:.2} (medians of {} pairs)",
            milliseconds(&mut self.ours),
            fs::metadata(captured).unwrap().len() / 1024,
            fs::read_to_string(captured).unwrap().lines().count(),
            milliseconds(&mut self.theirs),
            median(&mut self.ratios),
            self.ratios.len(),
        );
    }
}
