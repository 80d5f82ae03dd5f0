//! Stands in for QEMU: netlaunch called as `qemu-system-*`, `qemu-kvm` or `kvm`, or `netlaunch wrap
//! -- QEMU ARGS`.
//!
//! ```text
//! argv ─ real QEMU found ─┬─ pass_through ──────────────────────▶ execve(real QEMU, argv)
//!                         ├─ probe, and a setting holds ─────▶ execve(real QEMU, argv -net none)
//!                         └─ launch ─┬─ not started, because ───▶ execve(real QEMU, argv)
//!                                    ├─ sidecar serves ─────────▶ execve(real QEMU, moved argv)
//!                                    └─ QEMU ran as a child ────▶ QEMU's status
//! ```
//!
//! The steps up to the first execve set nothing up: no messages, no runtime, no program is asked.
//! The settings are read for the path of the log, unless the environment has it, and for a setting
//! that must hold. So a probe call of QEMU costs the start of one more program. The caller's signal
//! state is put back before each execve.
//!
//! A stand-in must never be worse than QEMU. If netlaunch's part of a launch fails, the caller's
//! line runs untouched, and only the log has the reason. Two things give a message of netlaunch: a
//! missing QEMU, and a setting that must hold and cannot ([`must_hold()`]).

mod call;
mod install;
mod launch;
mod log;
mod must_hold;
mod own_copy;
mod real_qemu;

use std::ffi::OsString;
use std::io;

pub(in crate::cli) use call::Call;
pub(in crate::cli) use install::InstallError;
use launch::{Ended, Reason};
use log::WrapLog;
use must_hold::{MustHold, must_hold};
pub(in crate::cli) use real_qemu::WRAPPERS;
use real_qemu::{RealQemu, Search, parents_words, wrappers_in};
use tracing::Level;

use super::args::{LaunchArgs, LogFormat, WrapArgs};
use super::environment::Environment;
use super::wrap_config::{self, LazyConfig};
use super::{Failure, log as messages};
use crate::launcher::qemu_options::{CommandLine, PassThrough, pass_through};
use crate::sys::process::{CallerSignals, InheritedFds, executed_path};

/// Returns the call if netlaunch was called by the name of a QEMU.
pub(super) fn called_as_qemu(argv: &[OsString]) -> Option<Call> {
    let file = std::fs::read_link(own_copy::OWN_PROGRAM).ok();
    Call::of(argv, executed_path().as_deref(), file.as_ref().map(|file| file.as_os_str()))
}

/// Returns the call of `netlaunch wrap -- QEMU ARGS`; `None` without a QEMU.
pub(super) fn called_by_hand(command: &[OsString]) -> Option<Call> {
    let name = command.first()?;
    Some(Call { name: name.clone(), argv: command.to_vec() })
}

/// Puts stand-ins into a directory; returns the exit status.
pub(super) fn install(args: &WrapArgs, environment: &Environment) -> Result<u8, Failure> {
    match &args.install {
        Some(dir) => install::install(dir, &args.names, environment),
        // The parser accepts no call of `wrap` without a directory and without a QEMU.
        None => Ok(0),
    }
}

/// Runs QEMU as its stand-in. `options` are those of a call by hand. Returns the exit status unless
/// this process becomes QEMU or ends by a signal as QEMU did.
pub(super) fn stand_in(
    call: Call,
    options: Option<&LaunchArgs>,
    caller: &CallerSignals,
    inherited: &InheritedFds,
) -> u8 {
    let environment = Environment::read();
    let config = LazyConfig::default();
    let log = WrapLog::new(wrap_config::log_path(&environment, &config), call.name.as_os_str());
    let search = search(&environment);
    let real = match search.find(&call.name) {
        Ok(real) => real,
        Err(error) => {
            log.line(&error.to_string());
            return fail(&error, error.status());
        }
    };
    let stand_in = StandIn { call, real, environment, config, log };
    let line = CommandLine::parse(stand_in.call.arguments());
    match pass_through(&line) {
        Some(why @ (PassThrough::ConfigFile(_) | PassThrough::SavedState(_))) => {
            return stand_in.run_untouched(&why.to_string().into(), options, caller);
        }
        Some(why @ PassThrough::Probe(_)) => match stand_in.must_hold(options) {
            None => return stand_in.pass_through(&why.to_string(), caller),
            Some(MustHold::Options) => {}
            Some(_) => return stand_in.without_card(&why.to_string(), caller),
        },
        Some(why) => return stand_in.pass_through(&why.to_string(), caller),
        None => {}
    }
    match launch::launch(&stand_in, options, inherited) {
        Ended::Unchanged(why) => stand_in.pass_through(&why, caller),
        Ended::NotStarted(reason) => stand_in.run_untouched(&reason, options, caller),
        Ended::Becomes(qemu) => {
            stand_in.log_moves(&qemu.nics);
            match qemu.fds.inherit() {
                Ok(()) => stand_in.execute(&qemu.argv, caller),
                Err(error) => {
                    let why = format!("its descriptors have no place: {error}");
                    stand_in.run_untouched(&why.into(), options, caller)
                }
            }
        }
        Ended::Status(status) => status,
        Ended::Signal(signal) => {
            caller.end_by(signal);
            128 + signal.as_raw() as u8
        }
    }
}

/// Returns the search for real programs in this environment.
fn search(environment: &Environment) -> Search<'_> {
    Search {
        named: environment.real_qemu(),
        path: environment.paths("PATH"),
        wrappers: environment.wrappers().map(wrappers_in).unwrap_or_default(),
        parent: parents_words(),
    }
}

/// A call, its real program and its environment.
struct StandIn {
    call: Call,
    real: RealQemu,
    environment: Environment,
    config: LazyConfig,
    log: WrapLog,
}

impl StandIn {
    /// Becomes the real QEMU with the caller's line; returns the exit status if that fails.
    fn pass_through(&self, why: &str, caller: &CallerSignals) -> u8 {
        let path = &self.real.path;
        self.log.line(&format!("{} runs without netlaunch: {why}", path.display()));
        self.execute(&self.call.argv, caller)
    }

    /// Becomes the real QEMU without its default card; returns the exit status if that fails. The
    /// card would be on slirp, and QMP can give the machine a guest.
    fn without_card(&self, why: &str, caller: &CallerSignals) -> u8 {
        let path = self.real.path.display();
        self.log.line(&format!("{path} runs with -net none: {why}, and no loopback may be open"));
        let none = ["-net", "none"].map(OsString::from);
        let argv: Vec<OsString> = self.call.argv.iter().cloned().chain(none).collect();
        self.execute(&argv, caller)
    }

    /// Runs the caller's line without netlaunch's part, unless a setting must hold, which it then
    /// cannot; returns the exit status.
    fn run_untouched(
        &self,
        reason: &Reason,
        options: Option<&LaunchArgs>,
        caller: &CallerSignals,
    ) -> u8 {
        let why = &reason.why;
        let Some(setting) = self.must_hold(options) else {
            return self.pass_through(why, caller);
        };
        let text = setting.refusal(why);
        self.log.line(&text);
        fail(&text, reason.status)
    }

    /// Returns the setting that must hold in this call.
    fn must_hold(&self, options: Option<&LaunchArgs>) -> Option<MustHold> {
        must_hold(options, self.config.read(&self.environment))
    }

    /// Writes what moves, before QEMU runs or once it runs.
    fn log_moves(&self, nics: &str) {
        self.log.line(&format!("{} runs with netlaunch: {nics}", self.real.path.display()));
    }

    /// Becomes the real QEMU with these arguments, its name first; returns the exit status if that
    /// fails.
    fn execute(&self, argv: &[OsString], caller: &CallerSignals) -> u8 {
        let path = &self.real.path;
        let env = self.wrapper_environment();
        let error = caller.execute(path, argv, env.as_deref());
        let text = format!("{} cannot be executed: {error}", path.display());
        self.log.line(&text);
        let missing = error.kind() == io::ErrorKind::NotFound;
        fail(&text, if missing { 127 } else { 126 })
    }

    /// Returns the environment for a real program that is a wrapper; `None` for any other one,
    /// which gets exactly the caller's.
    fn wrapper_environment(&self) -> Option<Vec<(OsString, OsString)>> {
        if !self.real.is_wrapper {
            return None;
        }
        let wrappers = search(&self.environment).wrappers_with(&self.real.path);
        let variables = self.environment.variables().iter();
        let others = variables.filter(|(name, _)| name != WRAPPERS).cloned();
        Some(others.chain([(WRAPPERS.into(), wrappers)]).collect())
    }
}

/// Reports an error on standard error, and returns `status`.
fn fail(error: &dyn std::fmt::Display, status: u8) -> u8 {
    let settings = messages::Settings { format: LogFormat::Text, level: Level::ERROR };
    // The messages of a launch go to the log, and the caller must see this one.
    let subscriber = messages::subscriber(settings, io::stderr());
    tracing::subscriber::with_default(subscriber, || tracing::error!("{error}"));
    status
}
