//! The command line program: everything that reads arguments, the environment or the configuration,
//! and the one place where errors become a line and an exit status.

pub mod args;
mod complete;
pub mod completions;
pub mod config;
mod document;
pub mod environment;
mod firewall;
mod follow;
mod learn;
pub mod log;
mod mistake;
mod network;
pub mod network_config;
mod network_list;
mod nwfilter;
mod nwfilter_check;
pub mod nwfilter_config;
mod nwfilter_error;
mod nwfilter_explain;
mod orders;
mod probe;
mod ps;
mod ready;
mod reload;
pub mod request;
mod run;
mod table;
pub mod usage;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use args::{Action, Cli};
use config::{Config, ConfigError};
use environment::Environment;
use mistake::UsageError;
use network::NetworkError;
use nwfilter_error::NwfilterError;
use request::JobError;
use usage::Stop;

use crate::launch::{LaunchError, RuntimeError, StartError};
use crate::link::LinkError;
use crate::plan::PlanError;
use crate::printable;
use crate::process::{AccountError, SpawnError, inherited, signals};

/// Exit status of a usage error.
const USAGE: u8 = 2;
/// Exit status when netlaunch itself failed.
const FAILED: u8 = 125;
/// Exit status when a program cannot be run.
const CANNOT_RUN: u8 = 126;
/// Exit status when a program is not found.
const NOT_FOUND: u8 = 127;

/// Why netlaunch ends without a status of QEMU's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Usage(UsageError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Job(#[from] JobError),
    #[error("--ready-fd {number}: {error}; name a descriptor that is open for writing")]
    ReadyFd { number: RawFd, error: io::Error },
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Runtime(RuntimeError),
    #[error(transparent)]
    Network(Box<NetworkError>),
    #[error(transparent)]
    Link(LinkError),
    #[error(transparent)]
    Nwfilter(Box<NwfilterError>),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("{} closed; redirect it, for example to or from /dev/null", closed(.0))]
    Closed(Vec<&'static str>),
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: io::Error },
}

impl From<NetworkError> for Failure {
    fn from(error: NetworkError) -> Self {
        Failure::Network(Box::new(error))
    }
}

impl From<NwfilterError> for Failure {
    fn from(error: NwfilterError) -> Self {
        Failure::Nwfilter(Box::new(error))
    }
}

fn closed(names: &[&str]) -> String {
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(" and "))
}

impl Failure {
    /// The error that the system does not let netlaunch do what it must.
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Failure::System { what, source }
    }

    /// The exit status: 2 for the caller's mistake, 126 or 127 for a program that cannot be run or
    /// found, else 125.
    fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) | Failure::Job(_) | Failure::ReadyFd { .. } => USAGE,
            Failure::Link(LinkError::Missing(_) | LinkError::NotBridge(_)) => USAGE,
            Failure::Config(error) => error.status(),
            Failure::Network(error) => error.status(),
            Failure::Nwfilter(error) => error.status(),
            Failure::Launch(LaunchError::Plan(error)) => match error {
                error if error.is_usage() => USAGE,
                PlanError::QemuMissing(_) => NOT_FOUND,
                PlanError::QemuUnusable(_) => CANNOT_RUN,
                _ => FAILED,
            },
            Failure::Launch(LaunchError::Start(StartError::User(AccountError::Unknown(_)))) => {
                USAGE
            }
            Failure::Launch(LaunchError::Start(StartError::Filter(error)))
                if error.is_callers() =>
            {
                USAGE
            }
            Failure::Launch(LaunchError::Start(StartError::Qemu(SpawnError::Exec {
                source,
                ..
            }))) => match source.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => CANNOT_RUN,
            },
            _ => FAILED,
        }
    }
}

/// Runs netlaunch with these arguments, the program's name first. `closed` are the standard
/// descriptors that were closed at the start, `free_fd` is one that was not open. Returns the exit
/// status.
pub fn main(
    args: impl IntoIterator<Item = OsString>,
    closed: Vec<&'static str>,
    free_fd: RawFd,
) -> u8 {
    let failed = |failure: Failure| {
        log::complain(&failure);
        failure.status()
    };
    if !closed.is_empty() {
        return failed(Failure::Closed(closed));
    }
    let args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|verb| verb == complete::VERB) {
        let words: Vec<_> =
            args.iter().skip(2).map(|word| word.to_string_lossy().into_owned()).collect();
        let text = complete::complete(&words, &Environment::read());
        return print(text.as_bytes()).map_or_else(failed, |()| 0);
    }
    let cli = match usage::parse(args) {
        Ok(cli) => cli,
        Err(Stop::Usage(error)) => return failed(Failure::Usage(error)),
        Err(Stop::Show(text)) => {
            return print(text.as_bytes()).map_or_else(failed, |()| 0);
        }
    };
    // Before any descriptor is opened here, so that the number can only be the caller's.
    let ready = cli.launch.ready_fd.filter(|_| cli.launch.print.is_none());
    let ready = match ready.map(ready_descriptor).transpose() {
        Ok(ready) => ready,
        Err(failure) => return failed(failure),
    };
    let mut environment = Environment::read();
    if let Some(seconds) = cli.lock.lock_timeout {
        environment.lock_limit = Duration::from_secs(seconds.into());
    }
    let config = match configuration(&environment) {
        Ok(config) => config,
        Err(error) => return failed(error.into()),
    };
    log::init(request::log_settings(&cli.log, &config));
    // A tool may end before it has read its input, and whoever reads our output may have gone.
    signals::ignore_sigpipe();
    match perform(cli, &config, &environment, free_fd, ready) {
        Ok(status) => status,
        Err(failure) => {
            tracing::error!("{failure}");
            failure.status()
        }
    }
}

fn ready_descriptor(number: RawFd) -> Result<OwnedFd, Failure> {
    inherited::take_writable(number).map_err(|error| Failure::ReadyFd { number, error })
}

fn configuration(environment: &Environment) -> Result<Config, ConfigError> {
    match environment.config_dir()? {
        Some(dir) => config::read(&dir.join("netlaunch.conf")),
        None => Ok(Config::default()),
    }
}

fn perform(
    cli: Cli,
    config: &Config,
    environment: &Environment,
    free_fd: RawFd,
    ready: Option<OwnedFd>,
) -> Result<u8, Failure> {
    // One thread: PR_SET_PDEATHSIG belongs to the thread that starts a child.
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::system("wait for descriptors and timers"))
    };
    match &cli.command {
        None => {
            let job = request::job(&cli.launch, config)?;
            runtime()?.block_on(run::run(job, environment, free_fd, ready))
        }
        Some(Action::Probe(args)) => {
            let programs = request::programs(args, config);
            runtime()?.block_on(probe::probe(args.json, &programs, environment))
        }
        Some(Action::Ps(args)) => ps::ps(args, environment),
        Some(Action::Network(verb)) => network::network(verb, environment, runtime),
        Some(Action::Nwfilter(verb)) => {
            nwfilter::nwfilter(verb, cli.log.verbose > 0, environment, runtime)
        }
        Some(Action::Firewall(verb)) => firewall::firewall(verb, environment, runtime),
        Some(Action::Completions(args)) => {
            let mut script = Vec::new();
            completions::write(args.shell, &mut script).map_err(Failure::Output)?;
            print(&script)?;
            Ok(0)
        }
    }
}

/// Prints text for people: nothing in it steers their terminal.
fn print_text(text: &str) -> Result<(), Failure> {
    print(printable::lines(text).as_bytes())
}

/// Prints JSON for programs.
fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(format!("{}\n", printable::json(value, true)).as_bytes())
}

/// Writes to standard output. A reader that has gone, as of `| head`, is no failure.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
}
