//! Launches guests with a user-mode network.
//!
//! [`Launcher`] is for programs. It stands on steps that the command line uses one by one:
//!
//! ```text
//! Request ─ probe ─ plan ─▶ start ─▶ Running ─ supervise ─▶ Outcome, everything removed
//!            ▲                │ passt fails, and the request names no backend
//!            └── plan again ──┘
//! ```
//!
//! 1. [`probe`] finds the programs and asks them what they can do.
//! 2. [`mod@plan`] makes every command line from the request and these facts. It is a pure
//!    function.
//! 3. `start` makes the launch directory, starts passt or makes the port on a bridge, and starts
//!    QEMU.
//! 4. `supervise` carries out commands, restarts passt, and removes everything at the end.
//!
//! However a launch ends, QEMU, passt and the tap are gone then and so is the launch directory. If
//! this process is killed, the guards ([`crate::sys::process`]) kill QEMU and passt, and the next
//! start removes the directory.
//!
//! This module knows neither networks nor filters. The command line gives it the ports of bridged
//! guests, through the traits of `guest_port`.

#[doc(hidden)]
pub mod adopt;
#[cfg(feature = "cli")]
pub(crate) mod attach;
mod blocked_signals;
mod blocking;
mod builder;
mod builder_texts;
mod command;
mod context;
mod entry;
mod environment;
mod error;
mod event;
mod gate;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the command line makes ports"))]
pub(crate) mod guest_port;
mod info;
mod kept_logs;
mod launch;
mod launch_dir;
mod launch_thread;
mod launcher_settings;
mod nic_work;
mod outcome;
mod passt;
mod passt_again;
mod passt_failure;
mod passt_ready;
pub mod plan;
mod ports;
mod power_down;
#[cfg(feature = "cli")]
mod privileges;
pub(crate) mod probe;
mod qemu_files;
#[doc(hidden)]
pub mod qemu_options;
mod qemu_process;
#[cfg(feature = "cli")]
pub(crate) mod qmp;
mod qmp_socket;
pub(crate) mod record;
mod recovery;
mod resolvers;
mod running;
mod serving;
mod start;
mod stopping;
mod supervise;
#[cfg(feature = "cli")]
mod trial;
mod value_check;
mod wake_socket;

use crate::launcher::plan::Request;
use crate::types::facts::Facts;

pub use blocking::BlockingLaunch;
pub use builder::LauncherBuilder;
pub(crate) use context::LaunchContext;
#[cfg(feature = "cli")]
pub(crate) use context::Peer;
pub use entry::Launcher;
pub use error::{LaunchError, LaunchErrorKind, StartError};
pub use event::LaunchEvent;
pub use guest_port::GuestPortError;
pub use info::{LaunchInfo, NicInfo};
pub use launch::{Launch, LaunchControl};
pub use launch_dir::LaunchDirError;
pub use outcome::Outcome;
pub use passt::{PasstEndCause, PasstError, PasstReadiness};
pub use ports::PublishError;
#[cfg(feature = "cli")]
pub(crate) use power_down::{main_loop_runs, power_down};
pub(crate) use running::Running;
pub(crate) use start::start;

pub use crate::sys::privileges::AccountError;
pub use crate::sys::process::SpawnError;

#[cfg(feature = "cli")]
pub use {
    attach::{ArgumentsError, PlugError, UnplugError},
    qmp::QmpError,
};

#[cfg(feature = "cli")]
pub(crate) use {
    command::{CommandSource, SupervisorCommand},
    environment::LaunchEnvironment,
    error::{PASST_FIX, SHORTAGE_FIX},
    event::EventSink,
    kept_logs::SUPERVISOR_LOG,
    launch_dir::LaunchRoot,
    qemu_files::{config_files, daemonizes, machine},
    trial::try_passt,
};

/// The number of times that a launch chooses free ports again.
const LOST_PORTS: usize = 3;

/// Returns whether a start failed because another program took one of the chosen free ports.
fn lost_free_port(error: &StartError, ports: &[u16]) -> bool {
    matches!(error, StartError::Port(PublishError::Busy { port, .. }) if ports.contains(port))
}

/// Plans and starts. If passt fails to start, and the request allows all NICs another backend,
/// plans again without passt.
///
/// # Errors
/// [`LaunchError`] when there is no plan, or it could not be carried out; nothing is left running.
pub(crate) async fn launch(
    request: &Request,
    facts: &Facts,
    context: &LaunchContext,
) -> Result<Running, LaunchError> {
    let mut facts = facts.clone();
    let mut lost_ports = 0;
    loop {
        let launch_ids = context.launch_ids(request)?;
        let ports = launch_ids.free_ports.clone();
        let plan = plan::plan(request, &facts, &launch_ids)?;
        let has_passt = plan.nics.iter().any(|nic| nic.passt.is_some());
        let error = match start(plan, context).await {
            // slirp needs neither passt nor a pair of sockets.
            Err(error @ (StartError::Passt(_) | StartError::Prepare(_))) if has_passt => error,
            // Another program can take a free port before passt or QEMU listens on it.
            Err(error) if lost_ports < LOST_PORTS && lost_free_port(&error, &ports) => {
                lost_ports += 1;
                continue;
            }
            other => return Ok(other?),
        };
        facts.passt.problem = Some(error.as_passt_problem());
        if plan::plan(request, &facts, &launch_ids).is_err() {
            return Err(error.into());
        }
    }
}
