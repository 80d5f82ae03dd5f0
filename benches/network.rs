//! Measures the start and the end of a network: `netlaunch network start` and `destroy` on each
//! backend, compared with the same by hand, and the number of programs that each operation
//! executes. Then it measures the start of many networks at boot, compared with one nft for all
//! their rules and the start of their dnsmasqs one after the other.
//!
//! By hand means: the same rules for the same tools, a bridge with ip(8), and dnsmasq with the same
//! configuration. Start and end have a ratio each, and one together: the kernel waits at most steps
//! of an end, whatever program does it.
//!
//! Run `cargo bench --bench network` as root: it makes its own network namespace. Both ways run
//! alternately, and each pair gives one ratio, so that a machine that slows down slows both. A
//! second row is for a network without dnsmasq. The figures go to standard output. The benchmark
//! has no pass or fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench stops by panicking")]

#[allow(dead_code, unreachable_pub, reason = "a bench uses some of the helpers")]
#[path = "../tests/integration/common/mod.rs"]
mod common;
#[path = "shared/goal.rs"]
mod goal;
#[path = "shared/place.rs"]
mod place;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{As, Netns, Sandbox, finish, have_root, text};
use goal::{Goal, median, row};
use netlaunch::firewall::rules::{Mode, NetworkRules, for_network};
use netlaunch::firewall::{FirewallBackend, Script, scripts};

const PAIRS: usize = 25;
/// The number of networks that start at boot, and of pairs of such starts.
const NETWORKS: u8 = 20;
const BOOTS: usize = 7;
/// The programs that an operation can execute.
const TOOLS: [&str; 6] =
    ["nft", "iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore", "dnsmasq"];

fn main() {
    place::in_memory();
    if !have_root("the network benchmark") {
        return;
    }
    let netns = Netns::routed();
    for backend in FirewallBackend::ORDER {
        for served in [true, false] {
            compare(&netns, backend, served);
        }
    }
    boot(&netns);
}

/// Measures one backend, with or without DHCP and DNS.
fn compare(netns: &Netns, backend: FirewallBackend, served: bool) {
    let sandbox = Sandbox::new(As::Root, Some(netns));
    define(&sandbox, backend, served);
    let scripts = floor(backend, served);
    let conf = served.then(|| dnsmasq_conf(&sandbox));
    let [mut start, mut end, mut both] = [(); 3].map(|()| Pairs::default());
    for pair in 0..=PAIRS {
        let ours = ["start", "destroy"].map(|verb| {
            timed(|| {
                let output = finish(sandbox.netlaunch(&["network", verb, "bench"]));
                assert!(output.status.success(), "{}", text(&output.stderr));
            })
        });
        let theirs = by_hand(netns, backend, &scripts, conf.as_deref());
        // The first pair warms the caches.
        if pair > 0 {
            start.add(ours[0], theirs[0]);
            end.add(ours[1], theirs[1]);
            both.add(ours[0] + ours[1], theirs[0] + theirs[1]);
        }
    }
    println!(
        "{backend}{}: start and destroy {both}, start {start}, destroy {end} (medians of {PAIRS}); programs: {}",
        if served { "" } else { " without dnsmasq" },
        ["network start bench", "firewall reload", "network destroy bench"]
            .map(|line| format!("{line} {}", executed(&sandbox, line)))
            .join(", "),
    );
    let work = format!(
        "network start and destroy, {backend}{}",
        if served { "" } else { ", without dnsmasq" }
    );
    let ratio = median(&mut both.ratios);
    row(&work, "the rules and dnsmasq by hand", ratio, "×", Goal::AtMost(1.2));
}

fn define(sandbox: &Sandbox, backend: FirewallBackend, served: bool) {
    let config = sandbox.path("config");
    fs::create_dir_all(config.join("networks")).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(sandbox.path(""), open).unwrap();
    let (dns, dhcp) = if served {
        ("", "<dhcp><range start='10.96.0.100' end='10.96.0.200'/></dhcp>")
    } else {
        ("<dns enable='no'/>", "")
    };
    let xml = format!(
        "<network><name>bench</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000096</uuid>\
         <forward mode='nat'/><bridge name='nlb0' delay='0'/><mac address='52:54:00:00:00:96'/>{dns}\
         <ip address='10.96.0.1' netmask='255.255.255.0'>{dhcp}</ip></network>"
    );
    fs::write(config.join("networks/bench.xml"), xml).unwrap();
    fs::write(config.join("network.conf"), format!("firewall_backend = \"{backend}\"\n")).unwrap();
}

/// Returns the rules of the network as input for the tools.
fn floor(backend: FirewallBackend, served: bool) -> Vec<Script> {
    let rules = NetworkRules {
        bridge: "nlb0".parse().unwrap(),
        mode: Mode::Nat { devs: Vec::new(), addresses: None, ports: None, ipv6: false },
        subnets: vec!["10.96.0.1/24".parse().unwrap()],
        ipv6_between_guests: false,
        dhcp: served,
        dns: served,
        tftp: false,
    };
    scripts(backend, &for_network(&rules).unwrap())
}

/// Makes the bridge and the rules and starts dnsmasq, then ends all of it. Returns the time of each
/// half.
fn by_hand(
    netns: &Netns,
    backend: FirewallBackend,
    scripts: &[Script],
    conf: Option<&Path>,
) -> [Duration; 2] {
    let mut server = None;
    let start = timed(|| {
        make_bridge(netns, "nlb0", "10.96.0.1/24");
        for script in scripts {
            feed(netns, script.program, script.args, &script.input);
        }
        server = conf.map(|conf| Server::start(netns, conf));
    });
    let end = timed(|| {
        server.into_iter().for_each(Server::end);
        remove_by_hand(netns, backend, scripts);
    });
    [start, end]
}

fn remove_by_hand(netns: &Netns, backend: FirewallBackend, scripts: &[Script]) {
    match backend {
        FirewallBackend::Nftables => {
            remove_tables(netns);
        }
        // No other process uses the namespace, so emptying the tables removes only these rules.
        FirewallBackend::Iptables => {
            for script in scripts {
                let tables = script.input.lines().filter(|line| line.starts_with('*'));
                let empty: String = tables.map(|table| format!("{table}\nCOMMIT\n")).collect();
                feed(netns, script.program, &[], &empty);
            }
        }
    }
    netns.ip("link del nlb0");
}

fn remove_tables(netns: &Netns) {
    let away = "delete table ip netlaunch_network\ndelete table ip6 netlaunch_network\n";
    feed(netns, "nft", &["-f", "-"], away);
}

/// Runs a netlaunch command, and returns the input of its nft.
fn captured(sandbox: &Sandbox, line: &str) -> String {
    let input = sandbox.path("run/input");
    let wrapper =
        sandbox.script("nft", &format!("tee -a {} | /usr/sbin/nft \"$@\"", input.display()));
    let mut command = sandbox.netlaunch(&line.split(' ').collect::<Vec<_>>());
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", sandbox.path("bin").display()));
    let output = finish(command);
    assert!(output.status.success(), "{}", text(&output.stderr));
    fs::remove_file(wrapper).unwrap();
    fs::read_to_string(input).unwrap()
}

/// Makes a bridge with an address and without IPv6: dnsmasq waits more than a second for an IPv6
/// address whose duplicates are still looked for.
fn make_bridge(netns: &Netns, name: &str, address: &str) {
    netns.ip(&format!("link add {name} type bridge"));
    let ipv6 = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    netns.inside(|| fs::write(ipv6, "1").unwrap());
    netns.ip(&format!("addr add {address} dev {name}"));
    netns.ip(&format!("link set {name} up"));
}

/// Starts the network once, and returns a copy of dnsmasq's configuration with files of its own.
fn dnsmasq_conf(sandbox: &Sandbox) -> PathBuf {
    sandbox.good(&["network", "start", "bench"]);
    let conf = copied_conf(sandbox, "bench");
    sandbox.good(&["network", "destroy", "bench"]);
    conf
}

/// Copies the configuration of a running network's dnsmasq, with files of its own.
fn copied_conf(sandbox: &Sandbox, name: &str) -> PathBuf {
    let (theirs, own) =
        (sandbox.state().join("networks").join(name), sandbox.path(&format!("hand-{name}")));
    for dir in ["private", "leases"] {
        fs::create_dir_all(own.join(dir)).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(own.join(dir), open).unwrap();
    }
    for file in ["dnsmasq.conf", "dnsmasq.dhcp-hosts", "dnsmasq.dns-hosts"] {
        let text = fs::read_to_string(theirs.join(file)).unwrap_or_default();
        let text = text.replace(theirs.to_str().unwrap(), own.to_str().unwrap());
        fs::write(own.join(file), text).unwrap();
    }
    own
}

/// A dnsmasq that was started by hand.
struct Server(i32);

impl Server {
    /// Starts dnsmasq with the configuration in `dir`; it returns once it serves.
    fn start(netns: &Netns, dir: &Path) -> Self {
        let conf = format!("--conf-file={}", dir.join("dnsmasq.conf").display());
        let pid = dir.join("private/dnsmasq.pid");
        let pid_file = format!("--pid-file={}", pid.display());
        let args = ["netns", "exec", &netns.name, "dnsmasq", &conf, &pid_file];
        let done = Command::new("ip").args(args).output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
        Server(fs::read_to_string(pid).unwrap().trim().parse().unwrap())
    }

    /// Ends it and waits for its end. It may stay a zombie until the init process asks for its
    /// status.
    fn end(self) {
        let pid = nix::unistd::Pid::from_raw(self.0);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while !common::status_field(self.0, "State").is_empty()
            && !common::status_field(self.0, "State").starts_with('Z')
        {
            assert!(Instant::now() < end, "dnsmasq {} does not end", self.0);
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Measures `network autostart` with many networks, compared with nft and the same rules, and the
/// start of as many dnsmasqs by hand on bridges that exist already.
fn boot(netns: &Netns) {
    let sandbox = Sandbox::new(As::Root, Some(netns));
    let config = sandbox.path("config/networks");
    fs::create_dir_all(config.join("autostart")).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(sandbox.path(""), open).unwrap();
    fs::write(sandbox.path("config/network.conf"), "firewall_backend = \"nftables\"\n").unwrap();
    let names: Vec<String> = (1..=NETWORKS).map(|number| format!("boot{number}")).collect();
    for (number, name) in (1..=NETWORKS).zip(&names) {
        let xml = format!(
            "<network><name>{name}</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-0000000001{number:02}</uuid>\
             <forward mode='nat'/><bridge name='nlb{number}' delay='0'/>\
             <mac address='52:54:00:00:01:{number:02}'/>\
             <ip address='10.97.{number}.1' netmask='255.255.255.0'>\
             <dhcp><range start='10.97.{number}.100' end='10.97.{number}.200'/></dhcp></ip></network>"
        );
        fs::write(config.join(format!("{name}.xml")), xml).unwrap();
        sandbox.good(&["network", "autostart", name]);
    }
    let autostart = || sandbox.good(&["network", "autostart"]);
    let destroy =
        || names.iter().for_each(|name| drop(sandbox.good(&["network", "destroy", name])));
    let rules = captured(&sandbox, "network autostart");
    let confs: Vec<PathBuf> = names.iter().map(|name| copied_conf(&sandbox, name)).collect();
    destroy();
    let mut pairs = Pairs::default();
    for _ in 0..BOOTS {
        let a = timed(|| drop(autostart()));
        destroy();
        for number in 1..=NETWORKS {
            make_bridge(netns, &format!("nlb{number}"), &format!("10.97.{number}.1/24"));
        }
        let mut servers = Vec::new();
        let b = timed(|| {
            feed(netns, "nft", &["-f", "-"], &rules);
            servers.extend(confs.iter().map(|conf| Server::start(netns, conf)));
        });
        remove_tables(netns);
        servers.into_iter().for_each(Server::end);
        for number in 1..=NETWORKS {
            netns.ip(&format!("link del nlb{number}"));
        }
        pairs.add(a, b);
    }
    println!(
        "start of {NETWORKS} networks at boot and of their dnsmasqs by hand {pairs} (medians of {BOOTS}); programs: network autostart {}",
        executed(&sandbox, "network autostart"),
    );
    let ratio = median(&mut pairs.ratios);
    row("20 networks at boot", "20 dnsmasqs by hand", ratio, "×", Goal::AtMost(1.2));
    destroy();
}

fn feed(netns: &Netns, program: &str, args: &[&str], input: &str) {
    let mut child = Command::new("ip")
        .args(["netns", "exec", &netns.name, program])
        .args(args)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program}");
}

/// Counts the programs that netlaunch executes for a command: each program writes a line to a log.
fn executed(sandbox: &Sandbox, line: &str) -> usize {
    let log = sandbox.path("run/ran");
    let _ = fs::remove_file(&log);
    for tool in TOOLS {
        let body = format!("echo {tool} >> {}; exec /usr/sbin/{tool} \"$@\"", log.display());
        sandbox.script(tool, &body);
    }
    let mut command = sandbox.netlaunch(&line.split(' ').collect::<Vec<_>>());
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", sandbox.path("bin").display()));
    let output = finish(command);
    assert!(output.status.success(), "{}", text(&output.stderr));
    fs::read_to_string(&log).unwrap_or_default().lines().count()
}

/// The times of netlaunch and those by hand, in milliseconds, and the ratio of each pair.
#[derive(Default)]
struct Pairs {
    ours: Vec<f64>,
    theirs: Vec<f64>,
    ratios: Vec<f64>,
}

impl Pairs {
    fn add(&mut self, ours: Duration, theirs: Duration) {
        self.ours.push(ours.as_secs_f64() * 1e3);
        self.theirs.push(theirs.as_secs_f64() * 1e3);
        self.ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
    }
}

impl std::fmt::Display for Pairs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let median = |values: &Vec<f64>| median(&mut values.clone());
        let [ours, theirs, ratio] = [&self.ours, &self.theirs, &self.ratios].map(median);
        write!(f, "{ours:.1} ms, by hand {theirs:.1} ms, ratio {ratio:.2}")
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}
