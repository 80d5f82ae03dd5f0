//! Starts programs that cannot outlive the process that started them.
//!
//! Each program runs under a *guard*, a small process between the caller and the program:
//!
//! ```text
//! caller ── socket ── guard ── program
//! ```
//!
//! The guard is a fork of the caller that keeps only its end of the socket open. It waits for three
//! events: the end of the program, whose status it reports; a signal number from the caller, which
//! it passes on to the program; and the end of the socket, which means that the caller has ended
//! for whatever reason. Then the guard kills the program and ends. A guard executes no program,
//! except its cleanup command (`Spawn::cleanup`) after its program has ended. The program has
//! `PR_SET_PDEATHSIG` with its guard as the parent, so a killed guard ends the program as well.
//!
//! `PR_SET_PDEATHSIG` alone is not enough. The kernel clears it when the program changes its
//! credentials, as passt does when root starts it, QEMU with `-run-with user=`, and an SELinux
//! domain transition. It also belongs to the parent's *thread*: a child dies with the thread that
//! forked it (prctl(2)). A guard has one thread and never changes its user, and every kind of end
//! of the caller closes the socket. So the thread that starts a program may end at once, for
//! example a thread of a pool.
//!
//! One gap is left: a guard is killed after the kernel has cleared the program's
//! `PR_SET_PDEATHSIG`. So the guard of passt under root is also the init process of a PID namespace
//! with a fresh /proc (`Isolation::PidNamespace`): when init ends, the kernel kills every process
//! of the namespace (pid_namespaces(7)).
//!
//! On request the guard also reads the program's standard error (`Spawn::keep_output`). It keeps
//! a bounded part of it and never blocks the program.
//!
//! The guard of a program that runs as another user (`Spawn::account`) stays root and keeps
//! CAP_KILL alone. The program's process sets `PR_SET_PDEATHSIG` again after it has become the
//! user.
//!
//! A program that daemonizes (`Spawn::daemonizes`) has two guards, see [`daemon`]. The program
//! netlaunch then is two processes as well: a foreground process, which ends when the daemon is
//! ready, and a supervisor (`supervisor.rs`).
//!
//! A program that must have netlaunch's own process is executed there, and a sidecar supervises it
//! (`sidecar.rs`): no guard is its parent.
//!
//! A process that changes something outside of its children can have a *cleaner* (`cleaner.rs`),
//! which undoes the change if the process is killed.
//!
//! A guard signals only its own child, and only before it has waited for it, so it never hits a
//! process that got the number later. The caller learns the program's process number in its own PID
//! namespace from the credentials that the kernel attaches to a message: the program's process
//! sends that message just before it executes the program.

mod arguments;
mod caller;
mod capture;
mod child;
#[cfg(feature = "cli")]
mod cleaner;
mod daemon;
mod descriptors;
pub(super) mod fork;
mod guard;
mod inherited_fd;
mod output;
mod pidfd;
mod process_identity;
mod program_process;
mod reap;
mod report;
#[cfg(feature = "cli")]
mod sidecar;
pub(crate) mod signals;
mod spawn;
mod spawn_detached;
mod spawn_error;
mod start;
#[cfg(feature = "cli")]
mod supervisor;

pub use arguments::arguments;
pub(crate) use caller::{CallerSignals, executed_path, fill_closed_standard};
pub(crate) use capture::{CaptureError, Captured, capture, capture_holding};
pub use child::Child;
pub(crate) use child::Progress;
#[cfg(feature = "cli")]
pub(crate) use cleaner::{Cleaner, fork_cleaner};
pub use inherited_fd::InheritedFds;
pub(crate) use inherited_fd::{first_free_fd, free_fds};
pub(crate) use pidfd::ProcessHandle;
pub(crate) use process_identity::{started, still_runs};
#[cfg(feature = "cli")]
pub(crate) use sidecar::{MainLink, ProgramFds, SidecarFork, fork_sidecar};
pub(crate) use spawn::{Isolation, Reveal};
pub use spawn::{Spawn, Stdio};
pub(crate) use spawn_detached::detach;
pub use spawn_error::SpawnError;
#[cfg(feature = "cli")]
pub(crate) use supervisor::{ForegroundLink, Side, WatchedForeground, fork_supervisor};
