//! A launch as C holds it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::error::CallError;
use super::{answer, request};
use crate::launcher::plan;
use crate::launcher::{BlockingLaunch, Outcome};

/// A launch and the process that started it.
///
/// A fork of that process has no thread `netlaunch`: a call there would wait forever, and ending
/// the launch there would remove the parent's launch directory. So each call compares the process.
#[derive(Debug)]
pub(super) struct Handle {
    launch: BlockingLaunch,
    process: u32,
}

/// The result of a wait with a limit.
#[derive(Debug)]
pub(super) enum Waited<T> {
    /// Time is up.
    TimeUp,
    /// The thing that the caller waited for.
    Found(T),
    /// Nothing more comes.
    End,
}

impl Handle {
    /// Starts a launch and returns once passt serves and QEMU executes.
    pub(super) fn start(request: &str) -> Result<Self, CallError> {
        let launch = request::launcher(request)?.launch_blocking()?;
        Ok(Handle { launch, process: std::process::id() })
    }

    /// Returns whether this process started the launch.
    pub(super) fn is_own(&self) -> bool {
        self.process == std::process::id()
    }

    /// Returns the handle, unless this process is a fork.
    pub(super) fn own(&self) -> Result<&Self, CallError> {
        if self.is_own() { Ok(self) } else { Err(CallError::forked()) }
    }

    /// Returns the launch as `netlaunch ps --json` showed it at its start.
    pub(super) fn record(&self) -> Value {
        answer::record(self.launch.record())
    }

    /// Returns the plan that was carried out.
    pub(super) fn plan(&self) -> Value {
        plan::json(self.launch.plan())
    }

    /// Returns the arguments that give QEMU its network.
    pub(super) fn qemu_args(&self) -> &[OsString] {
        &self.launch.info().qemu_args
    }

    /// Returns a path of the launch by its name in the plan's `files`.
    pub(super) fn path(&self, name: &str) -> Result<&OsStr, CallError> {
        let plan = self.launch.plan();
        let passt = plan.nics.first().passt.as_ref();
        let path = match name {
            "dir" => Some(plan.dir.as_path()),
            "socket" => passt.and_then(|passt| passt.socket.as_deref()),
            "pid" => passt.map(|passt| passt.pid.as_path()),
            "log" => passt.map(|passt| passt.log.as_path()),
            _ => {
                let message = format!("no path is named {name:?}: use dir, socket, pid or log");
                return Err(CallError::argument(message));
            }
        };
        let absent = || CallError::absent(format!("this launch has no {name}"));
        path.map(Path::as_os_str).ok_or_else(absent)
    }

    /// Returns the descriptor that is readable while there is an event or the launch has ended.
    pub(super) fn event_fd(&self) -> RawFd {
        self.launch.event_fd().as_raw_fd()
    }

    /// Waits for the end of the launch.
    pub(super) fn wait(&self, limit: Option<Duration>) -> Waited<Outcome> {
        match limit {
            None => Waited::Found(self.launch.wait()),
            Some(limit) => self.launch.wait_timeout(limit).map_or(Waited::TimeUp, Waited::Found),
        }
    }

    /// Waits for the next event.
    pub(super) fn next_event(&self, limit: Option<Duration>) -> Waited<Value> {
        let next = match limit {
            None => Some(self.launch.next_event()),
            Some(limit) => self.launch.next_event_timeout(limit),
        };
        match next {
            None => Waited::TimeUp,
            Some(None) => Waited::End,
            Some(Some(event)) => Waited::Found(answer::event(&event)),
        }
    }

    /// Sends a signal to QEMU.
    pub(super) fn signal(&self, number: i32) -> Result<(), CallError> {
        let sent = self.launch.control().signal(number);
        sent.map_err(|_| CallError::argument(format!("there is no signal {number}")))
    }

    /// Begins to end the launch: SIGTERM for QEMU, 5 s later SIGKILL.
    pub(super) fn stop(&self) {
        self.launch.control().stop();
    }

    /// Begins to end the launch at once: SIGKILL for QEMU.
    pub(super) fn kill(&self) {
        self.launch.control().kill();
    }
}
