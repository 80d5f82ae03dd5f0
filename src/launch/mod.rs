//! Launching: the effects that a [`Plan`](crate::plan::Plan) describes.
//!
//! ```text
//! launch ─ plan ─▶ start ─▶ Running ─ supervise ─▶ Outcome, everything removed
//!    ▲               │ passt fails, backend "auto"
//!    └── plan again ─┘
//! ```
//!
//! Each step can be used alone: [`crate::plan::plan`] without anything being started,
//! [`start`] with a plan of the caller's, [`Running::supervise`] or [`Running::wait`] on what was
//! started. Whatever way a [`Running`] ends, being dropped included, QEMU, passt and tap are gone
//! then and so is the launch directory; when this process is killed, their guards
//! ([`crate::process`]) kill them and the next start removes the directory.
//!
//! For a guest on a bridge the facts have to say what that bridge is: [`target`], or
//! [`crate::driver::Driver::target`] for a virtual network. Root can then shed what it does not need
//! any more, by [`Running::give_up_privileges`].
//!
//! All functions that start something need a tokio runtime with I/O and time enabled.

mod bridge;
mod gate;
mod passt;
pub mod ports;
mod privileges;
pub mod record;
pub mod runtime;
mod serving;
mod start;
mod supervise;

use crate::facts::{Facts, Problem};
use crate::plan::{Backend, Particulars, PlanError, Request, plan};
use crate::types::{Mac, TransientUser};

pub use bridge::{BridgeError, target};
pub use passt::PasstError;
pub use ports::PortError;
pub use runtime::{LaunchRoot, RuntimeError};
pub use start::{Running, StartError, Surroundings, start};
pub use supervise::{Order, Outcome};

/// Why a launch came to nothing. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan could not be carried out.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Plans and starts; where passt was chosen by itself and fails to start, plans again without it.
///
/// # Errors
/// [`LaunchError`] when there is no plan, or it could not be carried out; nothing is left running.
pub async fn launch(
    request: &Request,
    facts: &Facts,
    surroundings: &Surroundings,
) -> Result<Running, LaunchError> {
    let mut facts = facts.clone();
    loop {
        let plan = plan(request, &facts, &surroundings.particulars())?;
        let backend = plan.backend;
        match start(plan, surroundings).await {
            Err(StartError::Passt(error)) if request.backend.is_none() => {
                debug_assert_eq!(backend, Backend::Passt);
                facts.passt.problem = Some(Problem::new(
                    format!("it fails to start: {error}"),
                    "mend what it complains of",
                ));
            }
            other => return Ok(other?),
        }
    }
}

impl Surroundings {
    /// A fresh launch directory's name, a random MAC address, a free descriptor number, and for
    /// root a user of passt's own.
    pub fn particulars(&self) -> Particulars {
        Particulars {
            dir: self.root.fresh(),
            mac: Mac::random(&mut rand::rng()),
            qemu_fd: self.qemu_fd,
            passt_user: self.is_root.then(passt_user).flatten(),
        }
    }
}

/// A user for root's passt, where there is one to be had.
fn passt_user() -> Option<TransientUser> {
    let picked = TransientUser::pick();
    if let Err(error) = &picked {
        tracing::debug!("passt has no user of its own and runs as this one: {error}");
    }
    picked.ok()
}

/// The name of a signal, such as SIGTERM.
fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number)
        .map_or_else(|_| format!("signal {number}"), |s| s.as_str().to_owned())
}
