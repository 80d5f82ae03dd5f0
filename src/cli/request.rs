//! Merges the command line and netlaunch.conf into a checked request.
//!
//! An option wins over the setting of the file; a list replaces the whole list. Then the request is
//! checked as a whole, and settings that do not go together are refused.

use std::ffi::OsString;
use std::path::PathBuf;

use tracing::Level;

use super::args::{LaunchArgs, LogArgs, LogFormat, PrintFormat, ProbeArgs};
use super::config::Config;
use super::hint;
use super::log;
use super::request_defaults::{Defaults, attachment, family, publish_on_first, with_common};
use crate::launcher::plan::{
    Backend, CallerSocket, Command, GuestFilter, NicRequest, PresentNics, Request, RequestError,
};

/// A launch, as the command line and the configuration file describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The checked request.
    pub request: Request,
    /// The programs. In run mode QEMU is the command of the request, and `programs.qemu` is the
    /// emulator to probe if that command is a script.
    pub programs: Programs,
    /// The format of the plan to print; `None` starts the launch.
    pub print: Option<PrintFormat>,
}

/// The named programs, as paths or as names to look up in PATH; `None` for the usual program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Programs {
    /// passt.
    pub passt: Option<PathBuf>,
    /// QEMU.
    pub qemu: Option<PathBuf>,
}

/// Why the options describe no launch: a mistake of the caller, exit status 2. The text is one line
/// without `netlaunch: ` before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// The options contradict each other.
    #[error("{}", hint::request(.0))]
    Options(RequestError),
    /// The settings of the file contradict each other or the options.
    #[error("{} (with the settings of {})", hint::request(error), file.display())]
    Settings {
        /// The mistake.
        error: RequestError,
        /// The configuration file.
        file: PathBuf,
    },
    /// The QEMU command is an empty word.
    #[error("the program behind -- is an empty word; name QEMU there")]
    NoProgram,
}

/// Returns the launch of the command line, with the defaults of the file.
///
/// # Errors
/// [`JobError`], the first mistake.
pub fn job(args: &LaunchArgs, config: &Config) -> Result<Job, JobError> {
    let request = merge(args, config);
    if request.command.as_ref().is_some_and(|command| command.program.is_empty()) {
        return Err(JobError::NoProgram);
    }
    request.check().map_err(|error| name_file(error, args, config))?;
    let qemu = match request.command {
        Some(_) => args.qemu.clone(),
        None => args.qemu.clone().or_else(|| config.qemu.clone()),
    };
    let passt = args.passt.clone().or_else(|| config.passt.clone());
    let programs = Programs { passt, qemu };
    Ok(Job { request, programs, print: args.print })
}

/// Returns the programs for `netlaunch probe`.
pub fn programs(args: &ProbeArgs, config: &Config) -> Programs {
    Programs {
        passt: args.passt.clone().or_else(|| config.passt.clone()),
        qemu: args.qemu.clone().or_else(|| config.qemu.clone()),
    }
}

/// Returns the format and the amount of messages.
pub fn log_settings(args: &LogArgs, config: &Config) -> log::Settings {
    let level = match (args.quiet, args.verbose) {
        (true, _) => Level::ERROR,
        (false, 0) => Level::INFO,
        (false, 1) => Level::DEBUG,
        (false, _) => Level::TRACE,
    };
    log::Settings { format: args.log_format.or(config.log_format).unwrap_or_default(), level }
}

/// Returns the format of the message about a command line that clap cannot parse, from the words
/// before `--`.
pub fn log_settings_of_words(words: &[OsString]) -> log::Settings {
    let words = words.iter().take_while(|word| *word != "--").map(|word| word.to_string_lossy());
    let mut before = String::new();
    let mut format = LogFormat::Text;
    for word in words {
        match word.strip_prefix("--log-format=") {
            Some("json") => format = LogFormat::Json,
            None if word == "json" && before == "--log-format" => format = LogFormat::Json,
            _ => {}
        }
        before = word.into_owned();
    }
    log::Settings { format, level: Level::ERROR }
}

/// Adds the name of the settings file to an error that the options alone do not cause.
fn name_file(error: RequestError, args: &LaunchArgs, config: &Config) -> JobError {
    let alone = merge(args, &Config::default()).check();
    match &config.source {
        Some(file) if alone != Err(error.clone()) => {
            JobError::Settings { error, file: file.clone() }
        }
        _ => JobError::Options(error),
    }
}

/// Merges the options and the file, without a check.
fn merge(args: &LaunchArgs, config: &Config) -> Request {
    let default = NicRequest::default();
    let attachment = attachment(args);
    let command = args
        .command
        .split_first()
        .map(|(program, rest)| Command { program: program.clone(), args: rest.to_vec() });
    let file = Defaults::of(args, config, command.as_ref());
    let backend = match (args.backend, &attachment) {
        // A network or a bridge needs no --backend.
        (None, Some(_)) => Some(Backend::Bridge),
        (named, _) => named.or(file.config.backend).and_then(|backend| backend.named()),
    };
    let publish = list(&args.publish, file.config.publish);
    let mut nic = NicRequest {
        backend,
        attachment,
        port_group: args.network.as_ref().and_then(|choice| choice.group.clone()),
        bandwidth: args.bandwidth,
        filter: args
            .filter
            .clone()
            .map(|name| GuestFilter { name, parameters: args.filter_param.clone() }),
        transport: args.transport.or(file.config.transport).map(Into::into),
        id_named: args.id.is_some(),
        id: args.id.clone().unwrap_or(default.id),
        mac: args.mac,
        device_named: args.device.is_some() || file.config.device.is_some(),
        device: args.device.clone().or(file.config.device).unwrap_or(default.device),
        publish: Vec::new(),
        free_ports: Vec::new(),
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
        queues: args.queues,
        passt_options: args.passt_option.clone(),
    };
    publish.into_iter().for_each(|ports| nic.publish(ports));
    let mut nics: Vec<_> = args.net.iter().map(|listed| with_common(listed, &nic)).collect();
    publish_on_first(&mut nics, file.listed);
    Request {
        nics,
        nic,
        keep_nics: args.keep_nics,
        name: args.name.clone(),
        user: args.user.clone(),
        command,
        vmm: args.vmm.map(Into::into).unwrap_or_default(),
        listen: args.listen.clone(),
        // The kind is found out when the descriptor is taken over.
        socket: args.listen_fd.map(|_| CallerSocket::Connected),
        config_files: Vec::new(),
        present: PresentNics::default(),
    }
}

/// Returns the list of the command line, or that of the file if the former is empty.
fn list<T: Clone>(args: &[T], config: Option<Vec<T>>) -> Vec<T> {
    if args.is_empty() { config.unwrap_or_default() } else { args.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::LogFormat;
    use crate::cli::config;
    use crate::cli::parse::parse;
    use crate::launcher::plan::{AddressChoice, Transport};
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
        assert_eq!(
            job.request.nic.mac.map(|m| m.to_string()).as_deref(),
            Some("52:54:00:00:00:01")
        );
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
}
