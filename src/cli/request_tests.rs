//! The merge of the command line and netlaunch.conf.

use std::ffi::OsString;

use tracing::Level;

use super::args::{LaunchArgs, LogFormat, PrintFormat, ProbeArgs};
use super::config::{self, Config};
use super::log;
use super::parse::parse;
use super::request::*;
use crate::launcher::plan::{AddressChoice, Request, Transport};
use crate::types::Device;

fn args(line: &str) -> super::args::Cli {
    parse(std::iter::once("netlaunch").chain(line.split_whitespace()).map(OsString::from)).unwrap()
}

fn file(text: &str) -> Config {
    let config = config::parse(text.as_bytes()).unwrap();
    Config { source: Some("/etc/netlaunch/netlaunch.conf".into()), ..config }
}

fn made(line: &str, text: &str) -> Result<Job, JobError> {
    job(&args(line).launch, &file(text))
}

fn request(line: &str, text: &str) -> Request {
    made(line, text).unwrap().request
}

#[test]
fn a_command_line_without_options_is_the_default() {
    assert_eq!(request("", ""), Request::default());
}

#[test]
fn the_command_line_wins() {
    type Pick = fn(&Request) -> String;
    let backend: Pick = |r| format!("{:?}", r.nic.backend);
    let transport: Pick = |r| format!("{:?}", r.nic.transport.map(Transport::name));
    let device: Pick = |r| r.nic.device.to_string();
    let publish: Pick = |r| r.nic.publish.iter().map(|p| p.to_string() + " ").collect();
    let address: Pick = |r| format!("{:?}", r.nic.address == AddressChoice::Host);
    let gateway: Pick = |r| format!("{:?}", r.nic.gateway);
    let dns: Pick = |r| format!("{:?}", r.nic.dns);
    let search: Pick = |r| r.nic.search.iter().map(|d| d.to_string() + " ").collect();
    let mtu: Pick = |r| format!("{:?}", r.nic.mtu);
    let family: Pick = |r| format!("{:?}", r.nic.family);
    let loopback: Pick = |r| r.nic.host_loopback.to_string();
    let stop: Pick = |r| format!("{:?}", r.stop_timeout);
    let interface: Pick = |r| format!("{:?}", r.nic.interface.as_ref().map(|i| i.as_str()));
    for (line, text, pick, expected) in [
        ("", "backend = \"slirp\"", backend, "Some(Slirp)"),
        ("--backend auto", "backend = \"slirp\"", backend, "None"),
        ("--backend passt", "backend = \"auto\"", backend, "Some(Passt)"),
        ("", "transport = \"vhost-user\"", transport, "Some(\"vhost-user\")"),
        ("--transport unix", "transport = \"fd\"", transport, "Some(\"unix\")"),
        ("--backend slirp", "transport = \"fd\"", transport, "None"),
        ("-- q", "backend = \"slirp\"\ntransport = \"fd\"", transport, "Some(\"fd\")"),
        ("", "device = \"none\"", device, "none"),
        ("-- q -nic user", "device = \"e1000\"", device, "virtio-net-pci"),
        ("-- q -nic user,restrict=on", "device = \"e1000\"", device, "virtio-net-pci"),
        ("-- q -netdev passt,id=a", "device = \"e1000\"", device, "e1000"),
        ("-- q -m 1", "device = \"e1000\"", device, "e1000"),
        ("--keep-nics -- q -nic user", "device = \"e1000\"", device, "e1000"),
        ("--bridge br0 -- q -nic user", "device = \"e1000\"", device, "e1000"),
        ("--device e1000", "device = \"none\"", device, "e1000"),
        ("", "publish = [\"80\", \"81\"]", publish, "127.0.0.1:80:80/tcp 127.0.0.1:81:81/tcp "),
        ("-p 82", "publish = [\"80\", \"81\"]", publish, "127.0.0.1:82:82/tcp "),
        ("--network a", "publish = [\"80\"]", publish, "127.0.0.1:80:80/tcp "),
        ("", "address = \"host\"", address, "true"),
        ("--address 10.1.1.2/24", "address = \"host\"", address, "false"),
        ("", "address = \"10.1.1.9/24\"\ngateway = \"10.1.1.1\"", gateway, "Some(10.1.1.1)"),
        (
            "--address 10.3.3.3/24",
            "address = \"10.1.1.9/24\"\ngateway = \"10.1.1.1\"",
            gateway,
            "None",
        ),
        ("--address host", "gateway = \"10.0.2.9\"", gateway, "None"),
        ("--ipv6-only", "address = \"10.1.1.9/24\"\ngateway = \"10.1.1.1\"", gateway, "None"),
        ("", "dns = \"9.9.9.9\"", dns, "Some(9.9.9.9)"),
        ("--dns 1.1.1.1", "dns = \"9.9.9.9\"", dns, "Some(1.1.1.1)"),
        ("--address 10.3.3.3/24", "dns = \"9.9.9.9\"", dns, "Some(9.9.9.9)"),
        ("--address 10.3.3.3/24", "address = \"10.1.1.9/24\"\ndns = \"10.1.1.5\"", dns, "None"),
        ("--ipv6-only", "dns = \"9.9.9.9\"", dns, "None"),
        ("--ipv4-only", "dns = \"2620:fe::fe\"", dns, "None"),
        ("--search b", "search = [\"a\"]", search, "b "),
        ("", "search = [\"a\", \"c\"]", search, "a c "),
        ("--mtu 9000", "mtu = 1500", mtu, "Some(9000)"),
        ("", "family = \"ipv6\"", family, "V6"),
        ("--ipv4-only", "family = \"ipv6\"", family, "V4"),
        ("", "host_loopback = false", loopback, "false"),
        ("--no-host-loopback", "host_loopback = true", loopback, "false"),
        ("-- q", "stop_timeout = 60", stop, "Some(60s)"),
        ("--stop-timeout 5 -- q", "stop_timeout = 60", stop, "Some(5s)"),
        ("--stop-timeout 0 -- q", "stop_timeout = 60", stop, "None"),
        ("--bridge br0 -- q", "stop_timeout = 60", stop, "Some(60s)"),
        ("", "stop_timeout = 60", stop, "None"),
        ("", "interface = \"eth0\"", interface, "Some(\"eth0\")"),
        ("--backend slirp", "interface = \"eth0\"", interface, "None"),
        ("--net passt", "interface = \"eth0\"", interface, "Some(\"eth0\")"),
        ("--net slirp", "interface = \"eth0\"", interface, "None"),
        ("--net slirp", "transport = \"unix\"", transport, "None"),
        ("--net slirp -- q -nic user", "transport = \"fd\"", transport, "Some(\"fd\")"),
        ("--net bridge=br0", "dns = \"9.9.9.9\"\nmtu = 1400", dns, "None"),
        ("--net bridge=br0", "dns = \"9.9.9.9\"\nfamily = \"ipv4\"", family, "Both"),
        ("--net bridge=br0 --net slirp", "dns = \"9.9.9.9\"", dns, "Some(9.9.9.9)"),
        ("--net bridge=br0 -- q -nic user", "mtu = 1400", mtu, "Some(1400)"),
        ("--net passt", "backend = \"slirp\"", backend, "None"),
        ("--net passt -- q -nic user", "backend = \"slirp\"", backend, "Some(Slirp)"),
    ] {
        assert_eq!(pick(&request(line, text)), expected, "{line} with {text}");
    }
}

#[test]
fn the_first_nic_that_can_publish_gets_the_published_ports_of_the_file() {
    let text = "publish = [\"80\", \"0:22\"]";
    for (line, expected) in [
        ("--net passt --net slirp", [1, 0]),
        ("--net bridge=br0 --net slirp", [0, 1]),
        ("--net bridge=br0 --net network=lab", [0, 1]),
        ("--net passt --net slirp,publish=81", [0, 1]),
    ] {
        let nics = request(line, text).nics;
        let counts: Vec<usize> = nics.iter().map(|nic| nic.publish.len()).collect();
        assert_eq!(counts, expected, "{line}");
    }
    let nics = request("--net passt --net slirp,publish=81", text).nics;
    assert_eq!(nics[1].publish[0].to_string(), "127.0.0.1:81:81/tcp");
    let error = made("--net bridge=br0", text).unwrap_err().to_string();
    let start = "127.0.0.1:80:80/tcp cannot be published to a guest on the bridge br0";
    assert!(error.starts_with(start), "{error}");
    assert!(error.ends_with("(with the settings of /etc/netlaunch/netlaunch.conf)"), "{error}");
}

#[test]
fn some_settings_come_only_from_the_command_line() {
    let line = "--id n1 --mac 52:54:00:00:00:01 --pcap f --name web --ready-fd 7 \
                --print=json --passt ./p -- /q -m 1";
    let job = made(line, "passt = \"passt2\"\nqemu = \"q2\"").unwrap();
    assert_eq!(job.request.nic.id.as_str(), "n1");
    assert_eq!(job.request.nic.mac.map(|m| m.to_string()).as_deref(), Some("52:54:00:00:00:01"));
    assert_eq!(job.request.nic.pcap, Some("f".into()));
    assert_eq!(job.request.name.as_ref().map(|n| n.as_str()), Some("web"));
    assert_eq!(job.print, Some(PrintFormat::Json));
    assert_eq!(job.programs, Programs { passt: Some("./p".into()), qemu: None });
    let command = job.request.command.unwrap();
    assert_eq!((command.program, command.args), ("/q".into(), vec!["-m".into(), "1".into()]));
    assert_eq!(job.request.nic.device, Device::default());
}

#[test]
fn programs_of_serve_mode_and_probe() {
    let config = file("passt = \"passt2\"\nqemu = \"q2\"");
    let from_file = Programs { passt: Some("passt2".into()), qemu: Some("q2".into()) };
    assert_eq!(job(&args("").launch, &config).unwrap().programs, from_file);
    assert_eq!(programs(&ProbeArgs::default(), &config), from_file);
    let job = job(&args("--qemu q3").launch, &config).unwrap();
    assert_eq!(job.programs.qemu, Some("q3".into()));
}

#[test]
fn an_error_names_the_file_if_a_setting_of_it_is_involved() {
    let with = " (with the settings of /etc/netlaunch/netlaunch.conf)";
    for (line, text, start, named) in [
        ("-p 80 -p 80", "", "the published ports 127.0.0.1:80:80/tcp and", false),
        ("-p 80 -p 80", "mtu = 1500", "the published ports 127.0.0.1:80:80/tcp and", false),
        ("", "publish = [\"80\", \"80\"]", "the published ports 127.0.0.1:80:80/tcp and", true),
        (
            "--ipv6-only",
            "publish = [\"80\"]",
            "the published port 127.0.0.1:80:80/tcp listens on IPv4",
            true,
        ),
        (
            "--bridge br0",
            "publish = [\"80\"]",
            "127.0.0.1:80:80/tcp cannot be published to a guest on the bridge br0",
            true,
        ),
        ("--gateway 10.9.9.9", "address = \"10.1.1.2/24\"", "the gateway 10.9.9.9", true),
        ("", "transport = \"fd\"", "with the transport fd", true),
        ("--transport fd", "", "with the transport fd", false),
        ("--stop-timeout 5", "", "a guest can get a time to power down only if", false),
        ("--ipv6-only --mtu 1000", "", "the MTU 1000 is out of range", false),
    ] {
        let error = made(line, text).unwrap_err().to_string();
        assert!(error.starts_with(start), "{line} with {text}: {error}");
        assert_eq!(error.ends_with(with), named, "{line} with {text}: {error}");
    }
    let launch = LaunchArgs { command: vec![OsString::new()], ..LaunchArgs::default() };
    assert_eq!(job(&launch, &Config::default()), Err(JobError::NoProgram));
}

#[test]
fn options_win_over_the_file_for_messages() {
    for (line, text, format, level) in [
        ("", "", LogFormat::Text, Level::INFO),
        ("-q", "", LogFormat::Text, Level::ERROR),
        ("-v", "log_format = \"json\"", LogFormat::Json, Level::DEBUG),
        ("-vvv --log-format text", "log_format = \"json\"", LogFormat::Text, Level::TRACE),
    ] {
        let settings = log_settings(&args(line).log, &file(text));
        assert_eq!(settings, log::Settings { format, level }, "{line} with {text}");
    }
}
