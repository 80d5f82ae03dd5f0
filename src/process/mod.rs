//! Child processes that cannot outlive us.
//!
//! # Theory of operation
//!
//! A program that is started here has a small process of ours, its *guard*, between itself and us:
//!
//! ```text
//! we ── socket ── guard ── program
//! ```
//!
//! The guard is a fork of us that never executes anything, keeps nothing open but its end of the
//! socket, and waits for three things: the program's exit, whose status it reports; a signal number
//! from us, which it passes on; and the end of the socket, which means that we are gone, however we
//! went. Then it kills the program and leaves. The program itself has `PR_SET_PDEATHSIG` towards
//! its guard, so that killing the guard ends the program as well.
//!
//! Why not `PR_SET_PDEATHSIG` alone: the kernel clears it when the program changes its credentials
//! (passt started by root becomes another user; `-run-with user=` in QEMU; an SELinux domain transition),
//! and it belongs to the parent's *thread*, which kills the child of a library caller whose thread
//! ends (prctl(2)). The guard's credentials never change, and a socket's end is seen by everyone.
//!
//! What is left is the guard being killed while the program's `PR_SET_PDEATHSIG` is gone. For
//! passt under root the guard is therefore also the init of a PID namespace with a fresh /proc
//! ([`Isolation::PidNamespace`]): when it goes, the kernel kills everything inside
//! (pid_namespaces(7)).
//!
//! A guard also reads the program's standard error, where that is to be kept
//! ([`Spawn::keep_output`]): in a bounded amount, and without ever blocking the program.
//!
//! A program that runs as another user ([`Spawn::account`]) is signalled by a guard that stays root's
//! and keeps CAP_KILL alone; the program's `PR_SET_PDEATHSIG` is set once more after the change.
//!
//! A guard signals only its own child that it has not yet waited for, so a process number that has
//! been used again is never hit. The program's number as we see it, whatever namespace it lives in,
//! comes from the credentials that the kernel attaches to the message the program's process sends
//! just before it executes.
//!
//! All `unsafe` code of the crate is in this folder.

mod capture;
mod child;
mod detached;
mod guard;
pub mod inherited;
mod interfaces;
mod kvm;
mod namespace;
mod output;
mod packet_socket;
mod pidfd;
mod privileges;
pub mod signals;
mod spawn;
mod spawn_error;
mod started;
pub mod tap;
mod transient_user;

pub use capture::{CaptureError, Captured, capture, capture_holding};
pub use child::Child;
pub use detached::detach;
pub use interfaces::Interfaces;
pub use kvm::{KvmOutcome, KvmStep, try_kvm};
pub use namespace::{
    Elsewhere, Namespace, boot_id, find_network_namespace, is_host_pid_namespace,
    network_namespace, network_namespace_cookie, network_namespace_cookie_of, network_namespace_of,
    pid_namespace, pid_namespace_of, try_namespace,
};
pub use packet_socket::{PacketSocket, Received};
pub use pidfd::Handle;
pub use privileges::{Account, AccountError, has_file_capabilities, keep_only, keep_only_for};
pub use spawn::{Isolation, Reveal, Spawn, Stdio};
pub use spawn_error::SpawnError;
pub use started::{started, still_runs};
pub use transient_user::TransientUserError;
