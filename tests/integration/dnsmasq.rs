//! Tests a real dnsmasq on a real bridge: what a guest gets, what is left after the end, and the
//! text of its configuration.

mod configuration;
mod processes;
mod served;

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

/// The values of libvirt's default network.
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
        options: Vec::new(),
    }
}

/// A directory that dnsmasq's user can pass through.
fn state() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("nltest-dnsmasq-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
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
                vlan: None,
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

    /// Returns the guest's DHCP lease as udhcpc's variables, sorted; the guest uses the address.
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

    /// Returns the answer of the network's server about a name.
    fn ask(&self, question: &str, kind: &str) -> String {
        self.as_guest(&["busybox", "nslookup", &format!("-type={kind}"), question, "192.168.122.1"])
    }

    /// Returns the files in the state directory, without the test's own script.
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

/// Returns the services of [`everything`].
fn services() -> Vec<Srv> {
    vec![
        Srv {
            service: "ldap".into(),
            protocol: "tcp".into(),
            domain: None,
            target: Some("gate.guests.example".parse().unwrap()),
            port: 389,
            priority: 1,
            weight: 2,
        },
        Srv {
            service: "_a_b".into(),
            protocol: "tcp".into(),
            domain: Some("lab_1.".parse().unwrap()),
            target: Some("x_.lab_1.".parse().unwrap()),
            port: 1,
            priority: 0,
            weight: 0,
        },
    ]
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
                    names: vec!["gate".parse().unwrap(), "_gate.other.example.".parse().unwrap()],
                },
                DnsHost {
                    address: "fd00:1::1".parse().unwrap(),
                    names: vec!["gate".parse().unwrap()],
                },
            ],
            srv: services(),
            txt: vec![
                Txt { name: "motd.guests.example".into(), value: r#"a, "b" \ #c"#.into() },
                Txt { name: "_acme-challenge.guests.example".into(), value: "v".into() },
            ],
            forwarders: vec![
                Forwarder { domain: None, server: Some("192.0.2.53:53".parse().unwrap()) },
                Forwarder {
                    domain: Some("corp.example".parse().unwrap()),
                    server: Some("[2001:db8::53]:5353".parse().unwrap()),
                },
                Forwarder { domain: Some("own_1.example.".parse().unwrap()), server: None },
            ],
            host_servers: false,
            forward_plain_names: false,
        }),
        tftp_root: Some(tftp.to_owned()),
        boot: Some(Boot { file: "pxe linux.0".into(), server: Some(v4("192.168.122.9")) }),
        ..default(files)
    }
}
