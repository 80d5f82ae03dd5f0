//! The command line program.
//!
//! It reads the arguments, the environment and the configuration files, calls the wings of the
//! library, and prints. [`main`] goes through these steps: read the words ([`parse`]), read the
//! environment and netlaunch.conf, start the messages ([`log`]), carry out the command.
//!
//! Only [`main`] prints an error and chooses the exit status, both by [`failure`]. The rest of the
//! library names no option: [`hint`] adds these words. It reads no environment variable either,
//! unless a library caller asks for that (`from_env`).
//!
//! A call by the name of a QEMU goes to [`wrap`] before all these steps.

pub mod args;
pub(crate) mod args_file;
mod attach;
mod attach_error;
mod binding_counters;
mod binding_list;
mod caller_socket;
mod collect_attachment;
mod complete;
pub mod completions;
pub mod config;
pub mod config_error;
mod control;
mod daemonize;
mod detach;
mod editor;
pub mod environment;
mod events;
mod explain_output;
mod failure;
mod firewall;
mod firewall_ports;
mod follow;
mod guest_port;
mod guest_tap;
mod hint;
mod launch_error;
mod launch_log;
mod launch_target;
mod learn;
mod learn_wait;
pub mod log;
mod logs;
mod network;
pub mod network_config;
mod network_error;
mod network_event;
mod network_info;
mod network_leases;
mod network_list;
mod network_ports;
mod network_update;
mod nwfilter;
mod nwfilter_bind;
mod nwfilter_check;
pub mod nwfilter_config;
mod nwfilter_error;
mod nwfilter_explain;
mod nwfilter_follow;
mod nwfilter_list;
mod nwfilter_watch;
mod nwfilter_watch_mac;
mod nwfilter_watch_place;
mod nwfilter_watch_removals;
mod nwfilter_watch_rules;
mod nwfilter_watch_taken;
pub mod parse;
pub mod plan_shell;
mod plan_shell_tap;
pub mod plan_xml;
mod port_learner;
mod port_watch;
mod probe;
mod probe_requirements;
mod probe_trials;
mod ps;
mod published;
mod qemu_end;
mod ready;
mod rejoin;
mod reload;
pub mod request;
mod request_defaults;
#[cfg(test)]
mod request_tests;
mod run;
mod running_launch;
mod stop;
mod table;
mod usage_error;
#[cfg(test)]
mod usage_error_tests;
mod wrap;
mod wrap_config;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::time::Duration;

use tokio::runtime::Runtime;

use args::{Action, Cli};
use config::{Config, ConfigError};
use environment::Environment;
use failure::Failure;
use launch_log::LaunchLog;
use parse::Stop;

use crate::sys::process::{CallerSignals, InheritedFds, signals};
use crate::types::os_text;
use crate::types::printable;

/// Runs netlaunch with these arguments, the first of which is the program's name, and with the
/// descriptors that it inherited. Returns the exit status.
pub fn main(args: impl IntoIterator<Item = OsString>, mut inherited: InheritedFds) -> u8 {
    let caller = CallerSignals::record();
    // Before the first write: a tool may end before it has read its input, and the reader of the
    // output may have ended.
    signals::ignore_write_signals();
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(call) = wrap::called_as_qemu(&args) {
        return wrap::stand_in(call, None, &caller, &inherited);
    }
    // A mistake in the command line is written in the format that the readable words ask for.
    let settings = request::log_settings_of_words(&args);
    let failed = |failure: Failure| {
        log::init(settings, &LaunchLog::default());
        tracing::error!("{failure}");
        failure.status()
    };
    // A stand-in passes closed descriptors on.
    let wraps = args.get(1).is_some_and(|verb| verb == "wrap");
    let closed = inherited.closed_standard().to_vec();
    if !closed.is_empty() && !wraps {
        return failed(Failure::Closed(closed));
    }
    if args.get(1).is_some_and(|verb| verb == complete::VERB) {
        let words: Vec<_> =
            args.iter().skip(2).map(|word| word.to_string_lossy().into_owned()).collect();
        let text = complete::complete(&words, &Environment::read());
        return print(text.as_bytes()).map_or_else(failed, |()| 0);
    }
    let args = match args_file::with_file(args) {
        Ok(args) => args,
        Err(error) => return failed(error.into()),
    };
    let cli = match parse::parse(args.iter().cloned()) {
        Ok(cli) => cli,
        Err(Stop::Usage(error)) => return failed(Failure::Usage(error)),
        Err(Stop::Show(text)) => {
            return print(text.as_bytes()).map_or_else(failed, |()| 0);
        }
    };
    if let Some(Action::Wrap(wrap)) = &cli.command
        && let Some(call) = wrap::called_by_hand(&wrap.launch.command)
    {
        return wrap::stand_in(call, Some(&wrap.launch), &caller, &inherited);
    }
    if !closed.is_empty() {
        return failed(Failure::Closed(closed));
    }
    let ready = cli.launch.ready_fd.filter(|_| cli.launch.print.is_none());
    let ready = ready.map(|number| {
        let taken = inherited.take_writable(number);
        taken.map_err(|error| Failure::ReadyFd { number, error })
    });
    let ready = match ready.transpose() {
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
    let launches = cli.command.is_none() && cli.launch.print.is_none();
    let launch_log = if launches { LaunchLog::waiting() } else { LaunchLog::default() };
    log::init(request::log_settings(&cli.log, &config), &launch_log);
    let given = run::GivenFds { ready, socket: None };
    match perform(cli, &config, &environment, inherited, given, launch_log) {
        Ok(status) => status,
        Err(failure) => {
            tracing::error!("{failure}");
            failure.status()
        }
    }
}

/// Reads netlaunch.conf; a user without a configuration directory has the defaults.
fn configuration(environment: &Environment) -> Result<Config, ConfigError> {
    match environment.config_dir()? {
        Some(dir) => config::read(&dir.join("netlaunch.conf")),
        None => Ok(Config::default()),
    }
}

/// Makes the tokio runtime of a command. It has one thread, because a second one would cost memory
/// for as long as the guest runs.
fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::system("wait for descriptors and timers"))
}

/// Carries out the command and returns the exit status.
fn perform(
    cli: Cli,
    config: &Config,
    environment: &Environment,
    mut inherited: InheritedFds,
    mut given: run::GivenFds,
    launch_log: LaunchLog,
) -> Result<u8, Failure> {
    let free_fd = inherited.first_free();
    match &cli.command {
        None => {
            let mut job = request::job(&cli.launch, config)?;
            let socket = cli.launch.listen_fd.map(|number| {
                let taken = inherited.take(number);
                let socket = taken.map_err(|error| Failure::ListenFd { number, error })?;
                job.request.socket = Some(caller_socket::kind(&socket, number)?);
                Ok::<_, Failure>(socket)
            });
            given.socket = socket.transpose()?;
            launch(job, environment, free_fd, given, &launch_log)
        }
        Some(Action::Wrap(args)) => wrap::install(args, environment),
        Some(Action::Probe(args)) => {
            let programs = request::programs(args, config);
            runtime()?.block_on(probe::probe(args, &programs, environment, free_fd))
        }
        Some(Action::Ps(args)) => ps::ps(args, environment),
        Some(Action::Stop(args)) => stop::stop(args, environment),
        Some(Action::Logs(args)) => logs::logs(args, environment),
        Some(Action::Attach(args)) => attach::attach(args, config, environment, free_fd),
        Some(Action::Detach(args)) => detach::detach(args, environment),
        Some(Action::CollectAttachment(args)) => {
            collect_attachment::collect(&args.dir, environment)
        }
        Some(Action::Network(verb)) => network::network(verb, environment),
        Some(Action::Nwfilter(verb)) => {
            nwfilter::nwfilter(verb, cli.log.verbose > 0, environment, inherited)
        }
        Some(Action::Firewall(verb)) => firewall::firewall(verb, environment),
        Some(Action::Completions(args)) => {
            let mut script = Vec::new();
            completions::write(args.shell, &mut script).map_err(Failure::Output)?;
            print(&script)?;
            Ok(0)
        }
    }
}

/// Launches, or prints a plan. If QEMU daemonizes, or with `--detach`, this process forks, and one
/// of the two returns when QEMU is ready.
fn launch(
    job: request::Job,
    environment: &Environment,
    free_fd: RawFd,
    given: run::GivenFds,
    launch_log: &LaunchLog,
) -> Result<u8, Failure> {
    let launches = job.print.is_none();
    let qemu = job.request.command.as_ref().filter(|_| launches);
    let process = daemonize::fork(qemu.map_or(&[], |command| &command.args), job.detach)?;
    let link = match process {
        daemonize::Process::Foreground(outcome) => return Ok(outcome.code()),
        daemonize::Process::Launching(link) => link,
    };
    let status =
        runtime()?.block_on(run::run(job, environment, free_fd, given, link, launch_log))?;
    if launches {
        events::ended(status);
    }
    Ok(status)
}

/// Prints text for people, without characters that control their terminal.
fn print_text(text: &str) -> Result<(), Failure> {
    print(printable::lines(text).as_bytes())
}

/// Prints JSON for programs, in which paths are strings.
fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    let shown = os_text::shown(value.clone());
    print(format!("{}\n", printable::json(&shown, true)).as_bytes())
}

/// Writes to standard output. A reader that has ended, as `| head` does, is no failure.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
}
