//! Merges the command line and netlaunch.conf into a checked request.
//!
//! An option wins over the setting of the file; a list replaces the whole list. Then the request is
//! checked as a whole, and settings that do not go together are refused.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

use super::args::{LaunchArgs, LogArgs, LogFormat, PrintFormat, ProbeArgs};
use super::config::Config;
use super::hint;
use super::log;
use super::request_defaults::{Defaults, attachment, family, publish_on_first, with_common};
use crate::launcher::daemonizes;
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
    /// Whether netlaunch puts the launch into the background; false for a QEMU that daemonizes.
    pub detach: bool,
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
    let daemonizes = request.command.as_ref().is_some_and(|command| daemonizes(&command.args));
    let detach = args.detach && args.print.is_none() && !daemonizes;
    Ok(Job { request, programs, print: args.print, detach })
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
        stop_timeout: stop_timeout(args.stop_timeout.or(file.config.stop_timeout)),
        command,
        vmm: args.vmm.map(Into::into).unwrap_or_default(),
        listen: args.listen.clone(),
        // The kind is found out when the descriptor is taken over.
        socket: args.listen_fd.map(|_| CallerSocket::Connected),
        config_files: Vec::new(),
        present: PresentNics::default(),
    }
}

/// Returns the time for the guest to power down; no time if there are 0 seconds.
fn stop_timeout(seconds: Option<u32>) -> Option<Duration> {
    seconds.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.into()))
}

/// Returns the list of the command line, or that of the file if the former is empty.
fn list<T: Clone>(args: &[T], config: Option<Vec<T>>) -> Vec<T> {
    if args.is_empty() { config.unwrap_or_default() } else { args.to_vec() }
}
