//! From the raw command line and netlaunch.conf to a checked request: the one place where the two
//! meet.
//!
//! What the command line says wins, a list as a whole. A setting of the file that the command line
//! makes meaningless, and that no option could take back, is set aside and no error: the file's
//! gateway when another address is asked for, its IPv4 settings under `--ipv6-only`, its passt
//! settings under `--backend slirp`, all of user-mode networks on a bridge. Everything else that does not go together is refused.

use std::net::IpAddr;
use std::path::PathBuf;

use tracing::Level;

use super::args::{LaunchArgs, LogArgs, PrintFormat, ProbeArgs};
use super::config::Config;
use super::log;
use crate::plan::{
    AddressChoice, Attachment, Backend, Command, Family, GuestFilter, Request, RequestError,
};

/// A launch as the command line and the configuration file ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The network, checked.
    pub request: Request,
    /// The programs; in run mode QEMU is the request's command and `programs.qemu` is `None`.
    pub programs: Programs,
    /// Show the plan in this format and start nothing.
    pub print: Option<PrintFormat>,
}

/// Programs that were named, as paths or as names to look up in PATH; `None` is the usual one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Programs {
    /// passt.
    pub passt: Option<PathBuf>,
    /// QEMU.
    pub qemu: Option<PathBuf>,
}

/// Why there is no launch: a mistake of the caller's, exit status 2. The text is one line without
/// `netlaunch: ` in front.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// The options do not go together.
    #[error(transparent)]
    Options(RequestError),
    /// The options and the file do not go together, or the file alone.
    #[error("{error} (with the settings of {})", file.display())]
    Settings {
        /// What is wrong.
        error: RequestError,
        /// The configuration file.
        file: PathBuf,
    },
    /// The QEMU command is an empty word.
    #[error("the program behind -- is an empty word; name QEMU there")]
    NoProgram,
}

/// Makes the launch that the command line, with the file's defaults, asks for.
///
/// # Errors
/// [`JobError`], the first thing found that cannot be.
pub fn job(args: &LaunchArgs, config: &Config) -> Result<Job, JobError> {
    let request = merge(args, config);
    if request.command.as_ref().is_some_and(|command| command.program.is_empty()) {
        return Err(JobError::NoProgram);
    }
    request.check().map_err(|error| blame(error, args, config))?;
    let qemu = match request.command {
        Some(_) => None,
        None => args.qemu.clone().or_else(|| config.qemu.clone()),
    };
    let passt = args.passt.clone().or_else(|| config.passt.clone());
    let programs = Programs { passt, qemu };
    Ok(Job { request, programs, print: args.print })
}

/// The programs that `netlaunch probe` looks at.
pub fn programs(args: &ProbeArgs, config: &Config) -> Programs {
    Programs {
        passt: args.passt.clone().or_else(|| config.passt.clone()),
        qemu: args.qemu.clone().or_else(|| config.qemu.clone()),
    }
}

/// How messages are written.
pub fn log_settings(args: &LogArgs, config: &Config) -> log::Settings {
    let level = match (args.quiet, args.verbose) {
        (true, _) => Level::ERROR,
        (false, 0) => Level::INFO,
        (false, 1) => Level::DEBUG,
        (false, _) => Level::TRACE,
    };
    log::Settings { format: args.log_format.or(config.log_format).unwrap_or_default(), level }
}

/// Names the file where the command line alone would have passed.
fn blame(error: RequestError, args: &LaunchArgs, config: &Config) -> JobError {
    let alone = merge(args, &Config::default()).check();
    match &config.source {
        Some(file) if alone != Err(error.clone()) => {
            JobError::Settings { error, file: file.clone() }
        }
        _ => JobError::Options(error),
    }
}

/// The request without a check of the whole.
fn merge(args: &LaunchArgs, config: &Config) -> Request {
    let default = Request::default();
    let attachment = attachment(args);
    let backend = match (args.backend, &attachment) {
        // What is to be joined says how.
        (None, Some(_)) => Some(Backend::Bridge),
        (named, _) => named.or(config.backend).and_then(|backend| backend.named()),
    };
    let file = Defaults::of(args, config);
    Request {
        backend,
        attachment,
        filter: args
            .filter
            .clone()
            .map(|name| GuestFilter { name, parameters: args.filter_param.clone() }),
        transport: args.transport.or(file.config.transport).map(Into::into),
        id: args.id.clone().unwrap_or(default.id),
        mac: args.mac,
        device: args.device.clone().or(file.config.device).unwrap_or(default.device),
        publish: list(&args.publish, file.config.publish),
        address: args.address.or(file.config.address).unwrap_or_default(),
        gateway: args.gateway.or(file.config.gateway),
        dns: args.dns.or(file.config.dns),
        search: list(&args.search, file.config.search),
        hostname: args.hostname.clone().or(file.config.hostname),
        mtu: args.mtu.or(file.config.mtu),
        interface: args.interface.clone().or(file.config.interface),
        family: family(args).or(file.config.family).unwrap_or_default(),
        host_loopback: !args.no_host_loopback
            && file.config.host_loopback.unwrap_or(default.host_loopback),
        pcap: args.pcap.clone(),
        name: args.name.clone(),
        user: args.user.clone(),
        command: args
            .command
            .split_first()
            .map(|(program, rest)| Command { program: program.clone(), args: rest.to_vec() }),
    }
}

/// The file's settings without those that the command line makes meaningless.
struct Defaults {
    config: Config,
}

impl Defaults {
    fn of(args: &LaunchArgs, config: &Config) -> Self {
        let mut config = config.clone();
        if args.address.is_some() {
            // They belong to the file's address.
            config.gateway = None;
            if let Some(AddressChoice::Fixed(guest)) = config.address {
                let subnet = guest.subnet();
                let inside = |dns: &IpAddr| matches!(dns, IpAddr::V4(dns) if subnet.contains(dns));
                config.dns = config.dns.filter(|dns| !inside(dns));
            }
        }
        match family(args) {
            Some(Family::V6) => {
                config.address = None;
                config.gateway = None;
                config.dns = config.dns.filter(IpAddr::is_ipv6);
            }
            Some(Family::V4) => config.dns = config.dns.filter(IpAddr::is_ipv4),
            _ => {}
        }
        match args.backend.and_then(|backend| backend.named()) {
            Some(Backend::Slirp) => {
                config.transport = None;
                config.interface = None;
            }
            named if named == Some(Backend::Bridge) || attachment(args).is_some() => {
                let Config { passt, qemu, device, log_format, source, .. } = config;
                config = Config { passt, qemu, device, log_format, source, ..Config::default() };
            }
            _ => {}
        }
        Defaults { config }
    }
}

/// What a guest on a bridge is to join.
fn attachment(args: &LaunchArgs) -> Option<Attachment> {
    let network = args.network.clone().map(Attachment::Network);
    network.or_else(|| args.bridge.clone().map(Attachment::Bridge))
}

fn family(args: &LaunchArgs) -> Option<Family> {
    match (args.ipv4_only, args.ipv6_only) {
        (true, _) => Some(Family::V4),
        (_, true) => Some(Family::V6),
        _ => None,
    }
}

/// The command line's list, or the file's where the command line has none.
fn list<T: Clone>(args: &[T], config: Option<Vec<T>>) -> Vec<T> {
    if args.is_empty() { config.unwrap_or_default() } else { args.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::LogFormat;
    use crate::cli::config;
    use crate::cli::usage::parse;
    use crate::plan::Transport;
    use crate::types::Device;
    use std::ffi::OsString;

    fn args(line: &str) -> crate::cli::args::Cli {
        parse(std::iter::once("netlaunch").chain(line.split_whitespace()).map(OsString::from))
            .unwrap()
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
    fn nothing_asked_for_is_the_default() {
        assert_eq!(request("", ""), Request::default());
    }

    #[test]
    fn the_command_line_wins() {
        type Pick = fn(&Request) -> String;
        let backend: Pick = |r| format!("{:?}", r.backend);
        let transport: Pick = |r| format!("{:?}", r.transport.map(Transport::name));
        let device: Pick = |r| r.device.to_string();
        let publish: Pick = |r| r.publish.iter().map(|p| p.to_string() + " ").collect();
        let address: Pick = |r| format!("{:?}", r.address == AddressChoice::Host);
        let gateway: Pick = |r| format!("{:?}", r.gateway);
        let dns: Pick = |r| format!("{:?}", r.dns);
        let search: Pick = |r| r.search.iter().map(|d| d.to_string() + " ").collect();
        let mtu: Pick = |r| format!("{:?}", r.mtu);
        let family: Pick = |r| format!("{:?}", r.family);
        let loopback: Pick = |r| r.host_loopback.to_string();
        let interface: Pick = |r| format!("{:?}", r.interface.as_ref().map(|i| i.as_str()));
        for (line, text, pick, expected) in [
            ("", "backend = \"slirp\"", backend, "Some(Slirp)"),
            ("--backend auto", "backend = \"slirp\"", backend, "None"),
            ("--backend passt", "backend = \"auto\"", backend, "Some(Passt)"),
            ("", "transport = \"vhost-user\"", transport, "Some(\"vhost-user\")"),
            ("--transport unix", "transport = \"fd\"", transport, "Some(\"unix\")"),
            ("--backend slirp", "transport = \"fd\"", transport, "None"),
            ("-- q", "backend = \"slirp\"\ntransport = \"fd\"", transport, "Some(\"fd\")"),
            ("", "device = \"none\"", device, "none"),
            ("--device e1000", "device = \"none\"", device, "e1000"),
            ("", "publish = [\"80\", \"81\"]", publish, "127.0.0.1:80:80/tcp 127.0.0.1:81:81/tcp "),
            ("-p 82", "publish = [\"80\", \"81\"]", publish, "127.0.0.1:82:82/tcp "),
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
            ("", "interface = \"eth0\"", interface, "Some(\"eth0\")"),
            ("--backend slirp", "interface = \"eth0\"", interface, "None"),
        ] {
            assert_eq!(pick(&request(line, text)), expected, "{line} with {text}");
        }
    }

    #[test]
    fn what_only_the_command_line_has() {
        let line = "--id n1 --mac 52:54:00:00:00:01 --pcap f --name web --ready-fd 7 \
                    --print=json --passt ./p -- /q -m 1";
        let job = made(line, "passt = \"passt2\"\nqemu = \"q2\"").unwrap();
        assert_eq!(job.request.id.as_str(), "n1");
        assert_eq!(job.request.mac.map(|m| m.to_string()).as_deref(), Some("52:54:00:00:00:01"));
        assert_eq!(job.request.pcap, Some("f".into()));
        assert_eq!(job.request.name.as_ref().map(|n| n.as_str()), Some("web"));
        assert_eq!(job.print, Some(PrintFormat::Json));
        assert_eq!(job.programs, Programs { passt: Some("./p".into()), qemu: None });
        let command = job.request.command.unwrap();
        assert_eq!((command.program, command.args), ("/q".into(), vec!["-m".into(), "1".into()]));
        assert_eq!(job.request.device, Device::default());
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
    fn refusals_name_the_file_where_it_has_a_part() {
        let with = " (with the settings of /etc/netlaunch/netlaunch.conf)";
        for (line, text, start, named) in [
            ("-p 80 -p 80", "", "-p 127.0.0.1:80:80/tcp and -p", false),
            ("-p 80 -p 80", "mtu = 1500", "-p 127.0.0.1:80:80/tcp and -p", false),
            ("", "publish = [\"80\", \"80\"]", "-p 127.0.0.1:80:80/tcp and -p", true),
            ("--ipv6-only", "publish = [\"80\"]", "-p 127.0.0.1:80:80/tcp listens on IPv4", true),
            ("--gateway 10.9.9.9", "address = \"10.1.1.2/24\"", "the gateway 10.9.9.9", true),
            ("", "transport = \"fd\"", "--transport fd", true),
            ("--transport fd", "", "--transport fd", false),
            ("--ipv6-only --mtu 1000", "", "--mtu 1000 is out of range", false),
            ("-- q -daemonize", "", "QEMU's -daemonize", false),
        ] {
            let error = made(line, text).unwrap_err().to_string();
            assert!(error.starts_with(start), "{line} with {text}: {error}");
            assert_eq!(error.ends_with(with), named, "{line} with {text}: {error}");
        }
        let launch = LaunchArgs { command: vec![OsString::new()], ..LaunchArgs::default() };
        assert_eq!(job(&launch, &Config::default()), Err(JobError::NoProgram));
    }

    #[test]
    fn how_to_report() {
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
}
