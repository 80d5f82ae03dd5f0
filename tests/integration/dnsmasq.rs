//! Tests a real dnsmasq on a real bridge: what a guest gets, what is left after the end, and the
//! text of its configuration.

use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::common::{Netns, have_root, processes_with, run, text, wait_until};
use netlaunch::network::dnsmasq::{
    Boot, Client, DhcpDns, DhcpHost, Dns, DnsHost, Dnsmasq, DnsmasqError, Domain, Files, Forwarder,
    Lease, Leases, Range, Record, Srv, Txt,
};
use netlaunch::sys::netlink::{BridgeSpec, Netlink};
use netlaunch::sys::tap::complete_checksums;
use netlaunch::types::InterfaceName;

const DNSMASQ: &str = "/usr/sbin/dnsmasq";
const MAC: &str = "52:54:00:00:00:07";

fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

/// What libvirt's default network has.
fn default(files: Files) -> DhcpDns {
    DhcpDns {
        interface: name("virbr0"),
        files,
        ranges: vec![Range::V4 {
            start: "192.168.122.2".parse().unwrap(),
            end: "192.168.122.254".parse().unwrap(),
            netmask: "255.255.255.0".parse().unwrap(),
            lease: None,
        }],
        hosts: Vec::new(),
        default_route: true,
        mtu: None,
        domain: None,
        dns: Some(Dns { host_servers: true, ..Dns::default() }),
        tftp_root: None,
        boot: None,
    }
}

/// Everything at once, on an isolated network.
fn everything(files: Files, tftp: &Path) -> DhcpDns {
    let v4 = |text: &str| text.parse::<Ipv4Addr>().unwrap();
    let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap();
    let host = |client, address: &str, name: Option<&str>, lease| DhcpHost {
        client,
        address: Some(address.parse().unwrap()),
        name: name.map(|name| name.parse().unwrap()),
        lease,
    };
    DhcpDns {
        ranges: vec![
            Range::V4 {
                start: v4("192.168.122.100"),
                end: v4("192.168.122.199"),
                netmask: v4("255.255.255.0"),
                lease: Some(Lease::Seconds(600)),
            },
            Range::V4Hosts { subnet: v4("192.168.128.0"), netmask: v4("255.255.255.0") },
            Range::V6 {
                start: v6("fd00:1::1000"),
                end: v6("fd00:1::1fff"),
                prefix: 64,
                lease: Some(Lease::Infinite),
            },
            Range::V6Hosts { subnet: v6("fd00:2::"), prefix: 64 },
            Range::V6Announced { subnet: v6("fd00:3::"), prefix: 64 },
        ],
        hosts: vec![
            host(Client::Mac(MAC.parse().unwrap()), "192.168.122.77", Some("seven"), None),
            host(Client::Name("eight".parse().unwrap()), "192.168.122.78", None, None),
            host(
                Client::Duid("00:03:00:01:52:54:00:00:00:07".into()),
                "fd00:1::77",
                Some("seven"),
                Some(Lease::Infinite),
            ),
        ],
        default_route: false,
        mtu: Some(1400),
        domain: Some(Domain { name: "guests.example".parse().unwrap(), local_only: true }),
        dns: Some(Dns {
            hosts: vec![
                DnsHost {
                    address: "192.168.122.1".parse().unwrap(),
                    names: vec!["gate".parse().unwrap(), "gate.other.example".parse().unwrap()],
                },
                DnsHost {
                    address: "fd00:1::1".parse().unwrap(),
                    names: vec!["gate".parse().unwrap()],
                },
            ],
            srv: vec![Srv {
                service: "ldap".into(),
                protocol: "tcp".into(),
                domain: None,
                target: Some("gate.guests.example".parse().unwrap()),
                port: 389,
                priority: 1,
                weight: 2,
            }],
            txt: vec![Txt { name: "motd.guests.example".into(), value: r#"a, "b" \ #c"#.into() }],
            forwarders: vec![
                Forwarder { domain: None, address: Some("192.0.2.53".parse().unwrap()) },
                Forwarder {
                    domain: Some("corp.example".parse().unwrap()),
                    address: Some("2001:db8::53".parse().unwrap()),
                },
                Forwarder { domain: Some("own.example".parse().unwrap()), address: None },
            ],
            host_servers: false,
            forward_plain_names: false,
        }),
        tftp_root: Some(tftp.to_owned()),
        boot: Some(Boot { file: "pxe linux.0".into(), server: Some(v4("192.168.122.9")) }),
        ..default(files)
    }
}

#[test]
fn the_default_network_gives_this_configuration() {
    let text = default(Files::in_dir(Path::new("/run/n"))).render().unwrap();
    assert_eq!(
        text.conf,
        "\
# Written by netlaunch when the network started; changes are lost.
interface=virbr0
except-interface=lo
bind-dynamic
strict-order
domain-needed
local=//
addn-hosts=/run/n/dnsmasq.dns-hosts
dhcp-range=192.168.122.2,192.168.122.254,255.255.255.0
dhcp-authoritative
dhcp-no-override
dhcp-lease-max=253
dhcp-leasefile=/run/n/leases/dnsmasq.leases
dhcp-hostsfile=/run/n/dnsmasq.dhcp-hosts
"
    );
    assert_eq!((text.dhcp_hosts.as_str(), text.dns_hosts.as_str()), ("", ""));
}

#[test]
fn every_element_gives_this_configuration() {
    let text = everything(Files::in_dir(Path::new("/run/n")), Path::new("/srv/a,b")).render();
    let text = text.unwrap();
    assert_eq!(
        text.conf,
        r#"# Written by netlaunch when the network started; changes are lost.
interface=virbr0
except-interface=lo
bind-dynamic
strict-order
domain=guests.example
expand-hosts
local=/guests.example/
domain-needed
local=//
no-resolv
server=192.0.2.53
server=/corp.example/2001:db8::53
server=/own.example/#
addn-hosts=/run/n/dnsmasq.dns-hosts
txt-record=motd.guests.example,"a, \"b\" \\ #c"
srv-host=_ldap._tcp.guests.example,gate.guests.example,389,1,2
dhcp-range=192.168.122.100,192.168.122.199,255.255.255.0,600
dhcp-range=192.168.128.0,static,255.255.255.0
dhcp-range=fd00:1::1000,fd00:1::1fff,64,infinite
dhcp-range=fd00:2::,static,64
dhcp-range=fd00:3::,ra-only,64
dhcp-authoritative
dhcp-no-override
dhcp-lease-max=4199
dhcp-leasefile=/run/n/leases/dnsmasq.leases
dhcp-hostsfile=/run/n/dnsmasq.dhcp-hosts
dhcp-option=option:router
dhcp-option=option:mtu,1400
enable-ra
ra-param=virbr0,mtu:1400,0,0
enable-tftp
tftp-root="/srv/a,b"
dhcp-boot="pxe linux.0",,192.168.122.9
"#
    );
    assert_eq!(
        text.dhcp_hosts,
        "52:54:00:00:00:07,192.168.122.77,seven\neight,192.168.122.78\n\
         id:00:03:00:01:52:54:00:00:00:07,[fd00:1::77],seven,infinite\n"
    );
    assert_eq!(
        text.dns_hosts,
        "192.168.122.1\tgate\n192.168.122.1\tgate.other.example\nfd00:1::1\tgate\n"
    );
}

/// A directory that dnsmasq's user can pass through.
fn state() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("nltest-dnsmasq-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

#[test]
fn dnsmasq_accepts_the_configuration() {
    let dir = state();
    let files = Files::in_dir(dir.path());
    let longest =
        Txt { name: [63, 63, 63, 61].map(|n| "x".repeat(n)).join("."), value: "y".repeat(255) };
    let mut long = default(files.clone());
    long.dns.as_mut().unwrap().txt.push(longest);
    let mut closed = default(files.clone());
    closed.dns = None;
    for config in [default(files.clone()), everything(files.clone(), dir.path()), long, closed] {
        let text = config.render().unwrap();
        assert!(text.conf.lines().all(|line| line.len() < 1000), "dnsmasq reads no more");
        fs::write(&files.conf, &text.conf).unwrap();
        fs::write(&files.dhcp_hosts, &text.dhcp_hosts).unwrap();
        fs::write(&files.dns_hosts, &text.dns_hosts).unwrap();
        let output = Command::new(DNSMASQ).arg("--test").arg("-C").arg(&files.conf).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}\n{}", text.conf, crate::common::text(&output.stderr));
    }
}

/// A host with a bridge, and a guest on it whose only interface is `eth0`.
struct Scene {
    host: Netns,
    guest: Netns,
    dir: tempfile::TempDir,
    /// Of the dnsmasq that was started last.
    record: Mutex<Option<Record>>,
}

impl Scene {
    fn new() -> Self {
        let scene = Scene {
            host: Netns::routed(),
            guest: Netns::bare(),
            dir: state(),
            record: Mutex::new(None),
        };
        scene.run(async |links| {
            let br = name("virbr0");
            let spec = BridgeSpec {
                name: br.clone(),
                mac: None,
                stp: false,
                forward_delay: Duration::ZERO,
                mtu: None,
            };
            links.create_bridge(&spec).await.unwrap();
            for address in [
                "192.168.122.1/24",
                "192.168.128.1/24",
                "fd00:1::1/64",
                "fd00:2::1/64",
                "fd00:3::1/64",
            ] {
                links.add_address(&br, address.parse().unwrap()).await.unwrap();
            }
            links.up(&br).await.unwrap();
        });
        let guest = &scene.guest.name;
        scene
            .host
            .ip(&format!("link add port0 type veth peer name eth0 address {MAC} netns {guest}"));
        scene.run(async |links| {
            links.attach(&name("port0"), &name("virbr0")).await.unwrap();
            links.up(&name("port0")).await.unwrap();
        });
        scene.guest.ip("link set eth0 up");
        scene
    }

    fn files(&self) -> Files {
        Files::in_dir(self.dir.path())
    }

    /// Runs `work` on the host, in a runtime that ends with it.
    fn run<T: Send, F: Future<Output = T>>(&self, work: impl FnOnce(Netlink) -> F + Send) -> T {
        self.host.inside(|| {
            let builder = &mut tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            runtime.block_on(async { work(Netlink::open().unwrap()).await })
        })
    }

    fn start(&self, config: &DhcpDns) -> Result<Dnsmasq, DnsmasqError> {
        self.start_program(Path::new(DNSMASQ), config)
    }

    fn start_program(&self, program: &Path, config: &DhcpDns) -> Result<Dnsmasq, DnsmasqError> {
        if let Some(running) = self.find() {
            let mut record = self.record();
            let again =
                self.run(async |_| Dnsmasq::start(program, config, record.as_mut().unwrap()).await);
            assert!(
                matches!(again, Err(DnsmasqError::Running { pid, .. }) if pid == running.pid())
            );
            return again;
        }
        let mut record = self.host.inside(|| Dnsmasq::plan(program, config).unwrap());
        let started = self.run(async |_| Dnsmasq::start(program, config, &mut record).await);
        *self.record.lock().unwrap() = Some(record);
        started
    }

    fn record(&self) -> Option<Record> {
        self.record.lock().unwrap().clone()
    }

    fn find(&self) -> Option<Dnsmasq> {
        self.host.inside(|| Dnsmasq::find(self.record().as_ref(), &self.files()))
    }

    fn stop(&self, leases: Leases) -> Vec<DnsmasqError> {
        let record = self.record();
        self.run(async |_| Dnsmasq::stop(record.as_ref(), &self.files(), leases).await)
    }

    /// A program as the guest, its output.
    fn as_guest(&self, args: &[&str]) -> String {
        let mut argv = vec!["netns", "exec", &self.guest.name];
        argv.extend(args);
        let output = run("ip", &argv);
        text(&output.stdout) + &text(&output.stderr)
    }

    /// What DHCP gives the guest: udhcpc's variables, sorted; it takes the address, too.
    fn lease(&self) -> String {
        let script = self.dir.path().join("udhcpc.script");
        let body =
            "#!/bin/sh\ncase $1 in bound)\nip address replace $ip/$mask dev eth0\nset\n;; esac\n";
        if !script.exists() {
            let write = "printf '%s' \"$2\" > \"$1\" && chmod 755 \"$1\"";
            let script = script.to_str().unwrap();
            assert!(run("sh", &["-c", write, "sh", script, body]).status.success());
        }
        let script = script.to_str().unwrap();
        let argv = "busybox udhcpc -f -q -n -i eth0 -t 5 -T 1 -O mtu -s";
        let mut argv: Vec<&str> = argv.split(' ').collect();
        argv.push(script);
        self.as_guest(&argv)
    }

    /// What the network's server says about a name.
    fn ask(&self, question: &str, kind: &str) -> String {
        self.as_guest(&["busybox", "nslookup", &format!("-type={kind}"), question, "192.168.122.1"])
    }

    /// What is left in the state directory, our own script aside.
    fn left(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| !path.ends_with("udhcpc.script")).collect()
    }

    fn processes(&self) -> Vec<(i32, String)> {
        processes_with(&format!("--conf-file={}", self.files().conf.display()))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

#[test]
fn a_guest_gets_a_lease_and_names_and_a_stop_leaves_nothing() {
    if !have_root("a_guest_gets_a_lease_and_names_and_a_stop_leaves_nothing") {
        return;
    }
    let scene = Scene::new();
    let mut config = default(scene.files());
    config.domain = Some(Domain { name: "guests.example".parse().unwrap(), local_only: true });
    config.dns.as_mut().unwrap().hosts.push(DnsHost {
        address: "192.168.122.1".parse().unwrap(),
        names: vec!["gate".parse().unwrap()],
    });
    // The thread and the runtime that start it end at once.
    let begun = Instant::now();
    let running = scene.start(&config).unwrap();
    eprintln!("start: {:?}", begun.elapsed());
    assert!(running.is_running());
    assert_eq!(scene.find(), Some(running.clone()));
    assert!(matches!(scene.start(&config), Err(DnsmasqError::Running { .. })));
    assert!(running.is_running(), "a second start disturbs nothing");

    let lease = scene.lease();
    for said in
        ["router='192.168.122.1'", "dns='192.168.122.1'", "domain='guests.example'", "mask='24'"]
    {
        assert!(lease.contains(said), "{said}: {lease}");
    }
    let ip =
        lease.lines().find_map(|line| line.strip_prefix("ip='")).unwrap().trim_end_matches('\'');
    assert!(ip.starts_with("192.168.122."), "{ip}");
    assert!(scene.ask("gate.guests.example", "a").contains("Address: 192.168.122.1"));

    // The lists are read again by dnsmasq as the ordinary user it has become.
    assert!(!scene.ask("late.guests.example", "a").contains("192.168.122.50"));
    config.dns.as_mut().unwrap().hosts.push(DnsHost {
        address: "192.168.122.50".parse().unwrap(),
        names: vec!["late".parse().unwrap()],
    });
    config.hosts.push(DhcpHost {
        client: Client::Mac(MAC.parse().unwrap()),
        address: Some("192.168.122.77".parse().unwrap()),
        name: Some("seven".parse().unwrap()),
        lease: None,
    });
    running.reload(&config).unwrap();
    let late = || scene.ask("late.guests.example", "a").contains("Address: 192.168.122.50");
    assert!(wait_until(Duration::from_secs(5), late));
    let lease = scene.lease();
    assert!(lease.contains("ip='192.168.122.77'"), "{lease}");
    assert!(scene.ask("seven.guests.example", "a").contains("Address: 192.168.122.77"));

    let begun = Instant::now();
    let failed = scene.stop(Leases::Keep);
    eprintln!("stop: {:?}", begun.elapsed());
    assert!(failed.is_empty(), "{failed:?}");
    assert!(!running.is_running() && scene.processes().is_empty());
    assert!(matches!(running.reload(&config), Err(DnsmasqError::Gone(_))));
    fs::remove_file(scene.files().dhcp_hosts).unwrap();
    fs::remove_file(scene.files().dns_hosts).unwrap();
    assert_eq!(scene.left(), [scene.files().leases.parent().unwrap()]);

    // The next one knows the leases.
    config.hosts.clear();
    scene.start(&config).unwrap();
    let lease = scene.lease();
    assert!(lease.contains("ip='192.168.122.77'"), "{lease}");
    assert!(scene.stop(Leases::Remove).is_empty());
    assert_eq!(scene.left(), [] as [PathBuf; 0]);
    assert!(scene.stop(Leases::Remove).is_empty(), "twice is as good as once");
}

#[test]
fn a_guest_of_an_isolated_network_gets_each_option_and_no_router() {
    if !have_root("a_guest_of_an_isolated_network_gets_each_option_and_no_router") {
        return;
    }
    let scene = Scene::new();
    fs::write(scene.dir.path().join("boot.img"), "netboot").unwrap();
    let config = everything(scene.files(), scene.dir.path());
    scene.start(&config).unwrap();
    let lease = scene.lease();
    for said in ["ip='192.168.122.77'", "mtu='1400'", "boot_file='pxe linux.0'", "hostname='seven'"]
    {
        assert!(lease.contains(said), "{said}: {lease}");
    }
    assert!(lease.contains("siaddr='192.168.122.9'"), "{lease}");
    assert!(!lease.contains("router="), "no way out is announced: {lease}");
    for (question, kind, answer) in [
        ("gate.guests.example", "a", "Address: 192.168.122.1"),
        ("gate.guests.example", "aaaa", "Address: fd00:1::1"),
        ("gate.other.example", "a", "Address: 192.168.122.1"),
        ("seven.guests.example", "a", "Address: 192.168.122.77"),
        ("_ldap._tcp.guests.example", "srv", "1 2 389 gate.guests.example"),
        ("unknown.guests.example", "a", "NXDOMAIN"),
    ] {
        let said = scene.ask(question, kind);
        assert!(said.contains(answer), "{question}: {said}");
    }
    let said = scene.ask("motd.guests.example", "txt");
    assert!(said.contains(r##"a, "b" \ #c"##), "{said}");
    let got =
        scene.as_guest(&["busybox", "tftp", "-g", "-l", "-", "-r", "boot.img", "192.168.122.1"]);
    assert_eq!(got, "netboot");
    assert!(scene.stop(Leases::Remove).is_empty());
    fs::remove_file(scene.dir.path().join("boot.img")).unwrap();
    assert_eq!(scene.left(), [] as [PathBuf; 0]);
}

#[test]
fn a_guest_gets_ipv6_by_advertisement_and_by_dhcp() {
    if !have_root("a_guest_gets_ipv6_by_advertisement_and_by_dhcp") {
        return;
    }
    let scene = Scene::new();
    let mut config = everything(scene.files(), scene.dir.path());
    config.default_route = true;
    scene.start(&config).unwrap();
    let guest = &scene.guest;
    let addresses = || scene.as_guest(&["ip", "-6", "address", "show", "dev", "eth0"]);
    let announced = || addresses().contains("inet6 fd00:3::");
    assert!(wait_until(Duration::from_secs(15), announced), "SLAAC: {}", addresses());
    assert!(!addresses().contains("inet6 fd00:1:"), "that subnet's addresses come by DHCP");
    let routes = scene.as_guest(&["ip", "-6", "route", "show", "default"]);
    assert!(routes.contains("proto ra") && routes.contains("mtu 1400"), "{routes}");

    let settled = || !addresses().contains("tentative");
    assert!(wait_until(Duration::from_secs(10), settled));
    let answer = guest.inside(solicit);
    let expected: Ipv6Addr = "fd00:1::77".parse().unwrap();
    assert!(
        answer.windows(16).any(|bytes| bytes == expected.octets()),
        "the reserved address is offered: {answer:02x?}"
    );
    assert!(scene.stop(Leases::Remove).is_empty());

    // Isolated: the same without a default route.
    config.default_route = false;
    guest.ip("link set eth0 down");
    guest.ip("link set eth0 up");
    scene.start(&config).unwrap();
    assert!(wait_until(Duration::from_secs(15), announced), "SLAAC: {}", addresses());
    assert_eq!(scene.as_guest(&["ip", "-6", "route", "show", "default"]), "");
    assert!(scene.stop(Leases::Remove).is_empty());
}

/// Asks for an address as RFC 8415 says, by the DUID of the test's MAC; returns what is advertised.
fn solicit() -> Vec<u8> {
    let index = nix::net::if_::if_nametoindex("eth0").unwrap();
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 546)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut message = vec![1, 0xab, 0xcd, 0xef];
    message.extend([0, 1, 0, 10, 0, 3, 0, 1, 0x52, 0x54, 0, 0, 0, 7]); // client identifier
    message.extend([0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]); // IA_NA
    message.extend([0, 8, 0, 2, 0, 0]); // elapsed time
    let servers = SocketAddrV6::new("ff02::1:2".parse().unwrap(), 547, 0, index);
    let mut answer = vec![0; 1500];
    for _ in 0..10 {
        socket.send_to(&message, servers).unwrap();
        if let Ok(n) = socket.recv(&mut answer)
            && answer[0] == 2
        {
            answer.truncate(n);
            return answer;
        }
    }
    panic!("no DHCPv6 server answered");
}

#[test]
fn a_failed_start_leaves_nothing_and_quotes_dnsmasq() {
    if !have_root("a_failed_start_leaves_nothing_and_quotes_dnsmasq") {
        return;
    }
    let scene = Scene::new();
    let nothing = |error: DnsmasqError, words: &str| {
        let error = error.to_string();
        assert!(error.contains(words), "{error}");
        assert!(!error.contains('\n'), "{error}");
        assert_eq!(scene.left(), [] as [PathBuf; 0], "{error}");
        assert!(scene.processes().is_empty(), "{error}");
    };
    let mut config = default(scene.files());

    let missing = Path::new("/nonexistent/dnsmasq");
    let error = scene.start_program(missing, &config).unwrap_err();
    nothing(error, "install dnsmasq-base");
    let error = scene.start_program(Path::new("/etc/passwd"), &config);
    nothing(error.unwrap_err(), "cannot execute /etc/passwd");

    config.tftp_root = Some("/nonexistent/tftp".into());
    nothing(scene.start(&config).unwrap_err(), "/nonexistent/tftp");
    config.tftp_root = None;

    config.dns.as_mut().unwrap().txt.push(Txt { name: "a".into(), value: "b\nport=5353".into() });
    nothing(scene.start(&config).unwrap_err(), "the TXT value");
    config.dns.as_mut().unwrap().txt.clear();

    let holder = scene.host.inside(|| UdpSocket::bind(("192.168.122.1", 53)).unwrap());
    nothing(scene.start(&config).unwrap_err(), "has port 53/udp on 192.168.122.1");
    drop(holder);
    let holder = scene.host.inside(|| UdpSocket::bind(("0.0.0.0", 67)).unwrap());
    nothing(scene.start(&config).unwrap_err(), "has port 67/udp on 0.0.0.0");
    drop(holder);

    // Only the caller removes the leases of an earlier start.
    fs::create_dir(scene.files().leases.parent().unwrap()).unwrap();
    fs::write(scene.files().leases, "").unwrap();
    config.tftp_root = Some("/nonexistent/tftp".into());
    scene.start(&config).unwrap_err();
    assert_eq!(scene.left(), [scene.files().leases.parent().unwrap()]);
    fs::remove_dir_all(scene.files().leases.parent().unwrap()).unwrap();

    let mut elsewhere = config;
    elsewhere.files = Files::in_dir(Path::new("/nonexistent"));
    nothing(scene.start(&elsewhere).unwrap_err(), "cannot write /nonexistent/dnsmasq.conf");
}

#[test]
fn a_killed_dnsmasq_is_noticed_and_another_process_with_its_number_is_not_signalled() {
    if !have_root(
        "a_killed_dnsmasq_is_noticed_and_another_process_with_its_number_is_not_signalled",
    ) {
        return;
    }
    let scene = Scene::new();
    let config = default(scene.files());
    let running = scene.start(&config).unwrap();
    nix::sys::signal::kill(running.pid(), nix::sys::signal::Signal::SIGKILL).unwrap();
    // What is killed has no arguments any more before its sockets are closed.
    let stat = || fs::read_to_string(format!("/proc/{}/stat", running.pid())).unwrap_or_default();
    let is_gone = || stat().rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
    assert!(wait_until(Duration::from_secs(5), is_gone));
    assert!(!running.is_running());
    assert_eq!(scene.find(), None);
    // Another process has the number now.
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    fs::write(scene.files().pid, sleeper.id().to_string()).unwrap();
    assert!(scene.stop(Leases::Remove).is_empty());
    assert_eq!(sleeper.try_wait().unwrap(), None, "it was not signalled");
    assert_eq!(scene.left(), [] as [PathBuf; 0]);

    // One whose pid file is gone or wrong is found all the same, and a start after a kill works.
    scene.start(&config).unwrap();
    fs::write(scene.files().pid, sleeper.id().to_string()).unwrap();
    assert!(scene.stop(Leases::Remove).is_empty());
    assert!(scene.processes().is_empty());
    assert_eq!(sleeper.try_wait().unwrap(), None);
    // One that does not listen to SIGTERM.
    let running = scene.start(&config).unwrap();
    nix::sys::signal::kill(running.pid(), nix::sys::signal::Signal::SIGSTOP).unwrap();
    assert!(scene.stop(Leases::Remove).is_empty());
    assert!(scene.processes().is_empty());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[test]
fn two_networks_run_at_once_and_serve_only_their_bridges() {
    if !have_root("two_networks_run_at_once_and_serve_only_their_bridges") {
        return;
    }
    let scene = Scene::new();
    scene.start(&default(scene.files())).unwrap();
    scene.host.ip("link add virbr1 type bridge");
    scene.host.ip("address add 192.168.150.1/24 dev virbr1");
    scene.host.ip("link set virbr1 up");
    let second = state();
    let files = Files::in_dir(second.path());
    let mut config = default(files.clone());
    config.interface = name("virbr1");
    config.ranges = vec![Range::V4 {
        start: "192.168.150.2".parse().unwrap(),
        end: "192.168.150.9".parse().unwrap(),
        netmask: "255.255.255.0".parse().unwrap(),
        lease: None,
    }];
    let mut record = scene.host.inside(|| Dnsmasq::plan(Path::new(DNSMASQ), &config).unwrap());
    assert_ne!(record.user, scene.record().unwrap().user, "each has a user of its own");
    let started =
        scene.run(async |_| Dnsmasq::start(Path::new(DNSMASQ), &config, &mut record).await);
    assert!(started.unwrap().is_running());
    assert!(scene.lease().contains("ip='192.168.122."), "each serves its own");

    // From outside, the bridge's address is reachable, but its DNS is not for everyone.
    scene.host.ip(&format!("link add out0 type veth peer name out1 netns {}", scene.guest.name));
    scene.host.ip("address add 198.51.100.1/24 dev out0");
    scene.host.ip("link set out0 up");
    scene.guest.ip("address flush dev eth0");
    scene.guest.ip("address add 198.51.100.2/24 dev out1");
    scene.guest.ip("link set out1 up");
    scene.guest.ip("route add 192.168.122.0/24 via 198.51.100.1");
    let ask =
        || scene.as_guest(&["timeout", "3", "busybox", "nslookup", "localhost.", "192.168.122.1"]);
    assert!(!ask().contains("Name:"), "{}", ask());
    let host = run(
        "ip",
        &["netns", "exec", &scene.host.name, "busybox", "nslookup", "localhost.", "192.168.122.1"],
    );
    assert!(text(&host.stdout).contains("Name:"), "the host itself: {}", text(&host.stdout));

    let stopped = scene.run(async |_| Dnsmasq::stop(Some(&record), &files, Leases::Remove).await);
    assert!(stopped.is_empty(), "{stopped:?}");
    assert!(scene.find().unwrap().is_running(), "the other is left alone");
    assert!(scene.stop(Leases::Remove).is_empty());
}

/// Raw frames that the guest sees while `work` runs.
fn frames(scene: &Scene, work: impl FnOnce()) -> Vec<Vec<u8>> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
    let socket = scene.guest.inside(|| {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap()
    });
    work();
    let mut frames = Vec::new();
    let mut bytes = [0u8; 2048];
    while let Ok(n) = nix::unistd::read(&socket, &mut bytes) {
        frames.push(bytes[..n].to_vec());
    }
    frames
}

/// Whether the UDP checksum of an IPv4 frame is complete (RFC 768).
fn complete(frame: &[u8]) -> bool {
    let ip = &frame[14..];
    let header = usize::from(ip[0] & 15) * 4;
    let udp = &ip[header..];
    let udp = &udp[..usize::from(u16::from_be_bytes([udp[4], udp[5]]))];
    let mut sum = 17 + udp.len() as u32;
    for pair in ip[12..20].chunks(2).chain(udp.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

#[test]
fn dhcp_replies_have_complete_checksums_without_offload() {
    if !have_root("dhcp_replies_have_complete_checksums_without_offload") {
        return;
    }
    let scene = Scene::new();
    scene.start(&default(scene.files())).unwrap();
    let replies = || -> Vec<bool> {
        let frames = frames(&scene, || assert!(scene.lease().contains("ip='192.168.122.")));
        let replies = frames.iter().filter(|f| f.len() > 42 && f[34..38] == [0, 67, 0, 68]);
        replies.map(|frame| complete(frame)).collect()
    };
    let before = replies();
    assert!(before.len() >= 2, "offer and acknowledgement");
    assert!(
        before.iter().all(|complete| !complete),
        "the kernel leaves it to the card: {before:?}"
    );
    scene.run(async |_| complete_checksums(&name("virbr0")).unwrap());
    let after = replies();
    assert!(after.len() >= 2 && after.iter().all(|complete| *complete), "{after:?}");
    assert!(scene.stop(Leases::Remove).is_empty());
}
