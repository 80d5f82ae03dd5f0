//! Tests networks beside the real firewalld with each of its backends, on a bus of its own in a
//! network namespace. A guest is served under firewalld's default policy and across its reloads,
//! restarts and end, and firewalld keeps nothing of a network.

mod absent;
mod guests;

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::common::{
    As, Netns, Reaped, Sandbox, finish, have_root, run, skipped, text, wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long firewalld may take to start or reload, and netlaunch to follow.
const LIMIT: Duration = Duration::from_secs(60);
/// A directory of the bus that says how to start what is asked for.
const ACTIVATION: &str = "services";

/// A host with a bus, a guest on nlt0's future port, and an outside host.
struct Host {
    sandbox: Sandbox,
    netns: Netns,
    guest: Netns,
    outside: Netns,
    bus: Option<Reaped>,
    firewalld: Option<Reaped>,
}

impl Host {
    /// A host whose networks use `ours`; `None` where the machine lacks what is needed.
    fn new(test: &str, ours: &str) -> Option<Self> {
        if !have_root(test) {
            return None;
        }
        for program in ["/usr/sbin/firewalld", "/usr/bin/dbus-daemon"] {
            if !Path::new(program).exists() {
                skipped(test, format_args!("{program} is not installed (./tests/setup)"));
                return None;
            }
        }
        let [netns, guest, outside] = [(); 3].map(|()| Netns::bare());
        netns.ip(&format!("link add out0 type veth peer name eth0 netns {}", outside.name));
        netns.ip("link set out0 up");
        netns.ip("address add 198.51.100.1/24 dev out0");
        outside.ip("link set eth0 up");
        outside.ip("address add 198.51.100.2/24 dev eth0");
        outside.ip("route add default via 198.51.100.1");
        netns.ip("address add 2001:db8:f::1/64 dev out0 nodad");
        outside.ip("address add 2001:db8:f::2/64 dev eth0 nodad");
        outside.ip("-6 route add default via 2001:db8:f::1");
        // Everyone serves at port 80.
        for netns in [&netns, &outside, &guest] {
            let listener = netns.inside(|| TcpListener::bind(("::", 80)).unwrap());
            std::thread::spawn(move || listener.incoming().for_each(drop));
        }
        let sandbox = Sandbox::new(As::Root, Some(&netns));
        fs::create_dir_all(sandbox.path("config/networks")).unwrap();
        let conf = format!("firewall_backend = \"{ours}\"\n");
        fs::write(sandbox.path("config/network.conf"), conf).unwrap();
        let mut host = Host { sandbox, netns, guest, outside, bus: None, firewalld: None };
        host.start_bus();
        Some(host)
    }

    fn start_bus(&mut self) {
        let services = self.sandbox.path(ACTIVATION);
        fs::create_dir_all(&services).unwrap();
        let started = self.sandbox.path("started-by-the-bus");
        let service = format!(
            "[D-BUS Service]\nName=org.fedoraproject.FirewallD1\nExec=/usr/bin/touch {}\n",
            started.display()
        );
        fs::write(services.join("org.fedoraproject.FirewallD1.service"), service).unwrap();
        let (bus, conf) = (self.sandbox.path("bus"), self.sandbox.path("bus.conf"));
        let allow = |what: &str| format!("<allow {what}/>");
        let rights = ["user=\"*\"", "own=\"*\"", "send_destination=\"*\"", "eavesdrop=\"false\""];
        let text = format!(
            "<busconfig><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <servicedir>{}</servicedir><policy context=\"default\">{}</policy></busconfig>",
            bus.display(),
            services.display(),
            rights.map(allow).concat()
        );
        fs::write(&conf, text).unwrap();
        let conf = format!("--config-file={}", conf.display());
        self.bus = Some(self.daemon(&["dbus-daemon", &conf, "--nofork", "--nopidfile"]));
        assert!(wait_until(LIMIT, || std::os::unix::net::UnixStream::connect(&bus).is_ok()));
    }

    /// A daemon in the namespace, with directories of its own for what is running.
    fn daemon(&self, argv: &[&str]) -> Reaped {
        let own = "mount -t tmpfs none /run && mount -t tmpfs none /var/log && exec \"$@\"";
        let log = fs::File::create(self.sandbox.path(&format!("{}.log", argv[0]))).unwrap();
        let mut command = self.sandbox.program(Path::new("/bin/sh"));
        command.args(["-c", own, "sh"]).args(argv);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        crate::common::start(command)
    }

    /// Starts firewalld with its default policy, this backend, and netlaunch's zones.
    fn start_firewalld(&mut self, backend: &str) {
        let etc = self.sandbox.path("firewalld");
        for dir in ["zones", "policies", "services", "icmptypes", "ipsets", "helpers"] {
            fs::create_dir_all(etc.join(dir)).unwrap();
        }
        let conf = format!("FirewallBackend={backend}\n");
        fs::write(etc.join("firewalld.conf"), conf).unwrap();
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/firewalld");
        for dir in ["zones", "policies"] {
            for file in fs::read_dir(ours.join(dir)).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), etc.join(dir).join(file.file_name())).unwrap();
            }
        }
        let (etc, log) = (etc.to_string_lossy().into_owned(), self.sandbox.path("fw.log"));
        let log = log.to_string_lossy().into_owned();
        let argv =
            ["firewalld", "--nofork", "--nopid", "--system-config", &etc, "--log-file", &log];
        self.firewalld = Some(self.daemon(&argv));
        let running = || text(&self.firewall_cmd(&["--state"]).stdout).trim() == "running";
        assert!(wait_until(LIMIT, running), "{}", fs::read_to_string(log).unwrap_or_default());
    }

    /// Ends firewalld by this signal.
    fn end_firewalld(&mut self, signal: Signal) {
        let mut firewalld = self.firewalld.take().unwrap();
        kill(Pid::from_raw(firewalld.pid()), signal).unwrap();
        assert!(wait_until(LIMIT, || firewalld.0.try_wait().unwrap().is_some()));
    }

    fn firewall_cmd(&self, args: &[&str]) -> Output {
        let mut command = self.sandbox.program(Path::new("/usr/bin/firewall-cmd"));
        command.args(args);
        finish(command)
    }

    /// Has firewalld do something.
    fn tell_firewalld(&self, args: &[&str]) {
        let output = self.firewall_cmd(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    }

    /// The zone that firewalld has nlt0 in; empty for none.
    fn zone(&self) -> String {
        let output = self.firewall_cmd(&["--get-zone-of-interface=nlt0"]);
        text(&output.stdout).trim().to_owned()
    }

    fn netlaunch(&self, args: &[&str]) -> Output {
        finish(self.sandbox.netlaunch(args))
    }

    /// A netlaunch that succeeds and says nothing.
    fn done(&self, args: &[&str]) {
        let output = self.netlaunch(args);
        let said = text(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{args:?}: {said}");
    }

    /// A netlaunch that fails: its one line.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.netlaunch(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    }

    /// Defines the network `n` of this mode, with this attribute of its bridge; one that is routed
    /// has IPv6 as well.
    fn define(&self, mode: &str, zone: &str) {
        let ipv6 = match mode {
            "route" => "<ip family='ipv6' address='2001:db8:7a::1' prefix='64'/>",
            _ => "",
        };
        let xml = format!(
            "<network><name>n</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000001</uuid>\
             <forward mode='{mode}'/><bridge name='nlt0' stp='off' {zone}/>\
             <mac address='52:54:00:7a:00:01'/>\
             <dns><host ip='192.168.222.1'><hostname>host.test</hostname></host></dns>\
             <ip address='192.168.222.1' netmask='255.255.255.0'>\
             <dhcp><range start='192.168.222.100' end='192.168.222.200'/></dhcp></ip>{ipv6}</network>"
        );
        fs::write(self.sandbox.path("config/networks/n.xml"), xml).unwrap();
    }

    /// Plugs the guest into the network.
    fn plug(&self) {
        let guest = &self.guest.name;
        self.netns.ip(&format!("link add port0 type veth peer name eth0 netns {guest}"));
        self.netns.ip("link set port0 master nlt0 up");
        self.guest.ip("link set eth0 up");
        self.guest.ip("address add 192.168.222.50/24 dev eth0");
        self.guest.ip("route add default via 192.168.222.1");
    }

    /// Checks the guest's lease, the hosts that it reaches, and the hosts that reach it.
    fn seen(&self) -> String {
        let mut all = Vec::new();
        // The first time, dnsmasq tests for three seconds whether a machine has the address.
        let udhcpc = "busybox udhcpc -i eth0 -n -q -f -t 8 -T 1 -s /bin/true";
        let argv = ["netns", "exec", &self.guest.name].into_iter().chain(udhcpc.split(' '));
        let output = run("ip", &argv.collect::<Vec<_>>());
        if (text(&output.stdout) + &text(&output.stderr)).contains("lease of 192.168.222.") {
            all.push("lease");
        }
        for (what, from, to) in [
            ("outside", &self.guest, "198.51.100.2"),
            ("host", &self.guest, "192.168.222.1"),
            ("from outside", &self.outside, "192.168.222.50"),
            ("from host", &self.netns, "192.168.222.50"),
        ] {
            if connects(from, to) {
                all.push(what);
            }
        }
        if self.guest.inside(asks_for_a_name) {
            all.push("name");
        }
        all.join(", ")
    }

    /// Links, addresses, rules, and the states of networks.
    fn state(&self) -> String {
        let lines = ["nft list ruleset", "ip -o link", "ip -o address"].map(|line| {
            let (program, args) = line.split_once(' ').unwrap();
            self.netns.says(program, &args.split(' ').collect::<Vec<_>>())
        });
        let state = self.sandbox.state().join("networks");
        let left: Vec<_> = fs::read_dir(state).into_iter().flatten().flatten().collect();
        let left = left.iter().map(|entry| entry.file_name()).filter(|name| name != ".lock");
        lines.concat() + &left.map(|name| format!("left {name:?}\n")).collect::<String>()
    }

    /// Returns netlaunch's parts in the firewall and on the host.
    fn traces(&self) -> Vec<String> {
        let ours = ["nlt0", "netlaunch_network", "NETLAUNCH_", "left "];
        let state = self.state();
        let lines = state.lines().filter(|line| ours.iter().any(|word| line.contains(word)));
        lines.map(str::to_owned).collect()
    }

    /// A netlaunch that follows firewalld, once it says that it does.
    fn follow(&self) -> Reaped {
        let path = self.sandbox.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let mut command = self.sandbox.netlaunch(&["firewall", "reload", "--follow", "-v"]);
        command.env("NOTIFY_SOCKET", &path).stdout(Stdio::null());
        command.stderr(fs::File::create(self.sandbox.path("follow.log")).unwrap());
        let follower = crate::common::start(command);
        let mut said = [0; 64];
        let n = socket.recv(&mut said).unwrap();
        assert_eq!(text(&said[..n]).trim(), "READY=1");
        fs::remove_file(path).unwrap();
        follower
    }

    fn follow_log(&self) -> String {
        fs::read_to_string(self.sandbox.path("follow.log")).unwrap()
    }
}

/// Whether port 80 of an address is reached.
fn connects(from: &Netns, to: &str) -> bool {
    let to = SocketAddr::new(to.parse::<IpAddr>().unwrap(), 80);
    from.inside(|| TcpStream::connect_timeout(&to, Duration::from_secs(2)).is_ok())
}

/// Whether the network's DNS server knows host.test (RFC 1035: one question for an IPv4 address).
fn asks_for_a_name() -> bool {
    let question = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x04host\x04test\0\0\x01\0\x01";
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.connect("192.168.222.1:53").unwrap();
    for _ in 0..3 {
        let _ = socket.send(question);
        let mut reply = [0; 512];
        match socket.recv(&mut reply) {
            // No error, one answer, which ends with the address.
            Ok(n) => return reply[3] & 15 == 0 && reply[..n].ends_with(&[192, 168, 222, 1]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    false
}

/// Guests of a routed network are reached from outside, which no other zone lets in.
#[test]
fn a_routed_network_is_reached_from_outside() {
    for backend in ["nftables", "iptables"] {
        let Some(mut host) = Host::new("a_routed_network_is_reached_from_outside", backend) else {
            return;
        };
        host.start_firewalld(backend);
        host.define("route", "");
        host.done(&["network", "start", "n"]);
        host.plug();
        assert_eq!(host.zone(), "netlaunch-routed");
        assert_eq!(host.seen(), "lease, outside, from outside, from host, name", "{backend}");
        // The guest makes itself an address of what the router, dnsmasq, announces.
        let argv = ["-n", &host.guest.name, "-6", "-o", "address", "show", "-tentative"];
        let own = || {
            let all = text(&run("ip", &argv).stdout);
            let mut words = all.split([' ', '/']);
            words.find(|word| word.starts_with("2001:db8:7a:")).map(str::to_owned)
        };
        assert!(wait_until(LIMIT, || own().is_some()));
        assert!(connects(&host.guest, "2001:db8:f::2"), "{backend}");
        assert!(connects(&host.outside, &own().unwrap()), "{backend}");
        host.done(&["network", "destroy", "n", "--force"]);
        assert_eq!(host.traces(), [] as [String; 0]);
    }
}

#[test]
fn a_zone_of_the_document_is_used_or_refused() {
    let Some(mut host) = Host::new("a_zone_of_the_document_is_used_or_refused", "nftables") else {
        return;
    };
    host.start_firewalld("nftables");
    let start = ["network", "start", "n"];
    let destroy = ["network", "destroy", "n", "--force"];

    host.define("nat", "zone='trusted'");
    host.done(&start);
    host.plug();
    assert_eq!(host.zone(), "trusted");
    assert_eq!(host.seen(), "lease, outside, host, from host, name");
    host.done(&destroy);
    assert_eq!((host.zone(), host.traces()), (String::new(), vec![]));

    let before = host.state();
    host.define("nat", "zone='trustd'");
    let said = host.refused(&start);
    assert!(said.contains("the firewalld zone trustd, which firewalld does not have"), "{said}");
    assert!(said.contains(" netlaunch, netlaunch-routed, public, trusted, work"), "{said}");
    assert_eq!(host.state(), before);

    // The administrator's zone stays, unless the definition has another; then it comes back.
    host.tell_firewalld(&["--permanent", "--zone=work", "--add-interface=nlt0"]);
    host.tell_firewalld(&["--reload"]);
    for (zone, meanwhile) in [("", "work"), ("zone='trusted'", "trusted")] {
        host.define("nat", zone);
        host.done(&start);
        assert_eq!(host.zone(), meanwhile);
        host.done(&destroy);
        assert_eq!(host.zone(), "work");
    }
    host.tell_firewalld(&["--permanent", "--zone=work", "--remove-interface=nlt0"]);

    // A firewalld that has neither netlaunch's zones nor libvirt's.
    for dir in ["policies", "zones"] {
        fs::remove_dir_all(host.sandbox.path("firewalld").join(dir)).unwrap();
    }
    host.tell_firewalld(&["--reload"]);
    let before = host.state();
    host.define("nat", "");
    let said = host.refused(&start);
    assert!(said.contains("firewalld runs and has no zone netlaunch or libvirt"), "{said}");
    assert_eq!(host.state(), before);
    host.define("open", "");
    host.done(&start);
    assert_eq!(host.zone(), "", "an open network is the host's matter");
    host.done(&destroy);
}
