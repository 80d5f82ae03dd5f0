//! netlaunch gives QEMU guests their network: through passt, through slirp where passt cannot
//! serve, or on a bridge. It starts, supervises and cleans up.
//!
//! The program `netlaunch` is the `cli` module of this library. Programs that start guests
//! themselves, such as appliance launchers, use [`launcher::Launcher`]:
//!
//! ```no_run
//! use netlaunch::launcher::Launcher;
//!
//! # async fn boot() -> Result<u8, netlaunch::launcher::LaunchError> {
//! let mut launch = Launcher::builder()
//!     .qemu("qemu-system-x86_64", ["-m", "512", "disk.img"])
//!     .publish("2222:22")
//!     .from_env()
//!     .launch()
//!     .await?;
//! println!("QEMU is process {:?}, on {}", launch.info().qemu_pid, launch.info().backend);
//! Ok(launch.wait().await.code())
//! # }
//! ```
//!
//! `examples/appliance.rs` boots a real guest this way, `examples/appliance_blocking.rs` does so
//! without an asynchronous runtime.
//!
//! # What callers can rely on
//!
//! - The environment is read only by [`from_env`](launcher::LauncherBuilder::from_env). Every other
//!   value comes from the caller.
//! - All futures of [`launcher`] are `Send` and work in every asynchronous runtime. Each launch has
//!   one thread of its own, which does the work. The futures of `network` and `nwfilter` need a
//!   runtime of tokio with I/O and time.
//! - A launch may be made in any thread and outlive it: each program has a guard process between
//!   itself and the caller, and PR_SET_PDEATHSIG, which belongs to a thread, is only between guard
//!   and program.
//! - However a launch ends, also by a dropped [`launcher::Launch`] or a killed caller, QEMU and
//!   passt do not outlive it. Dropping does not block an executor of tokio: the thread of the
//!   launch ends the programs, and the runtime waits for it when it ends.
//! - An error says in its text what failed and on which thing; its source says why, and is not
//!   repeated in the text. [`types::error_text`] joins both. [`launcher::LaunchError::kind`] is for
//!   programs.
//! - Enums of errors, events and backends grow: they are `#[non_exhaustive]`, and so are structs
//!   that only netlaunch makes, such as plans, reports and status. An enum whose every variant a
//!   caller must treat is exhaustive, and its documentation says why. Structs that a caller fills
//!   are exhaustive: requests, settings, the facts for a plan, and the parts of networks and
//!   filters. These grow too, so a caller writes `..Default::default()` where there is a default.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---------|--------------|
//! | (none) | the launcher with passt and slirp |
//! | `bridged` (default) | `network` and `nwfilter`: virtual networks and filters of ports |
//! | `cli` (default) | the program `netlaunch`; includes `bridged` |
//! | `capi` | the C interface; the command in include/netlaunch.h makes its library |
//!
//! # Layout
//!
//! Three wings, [`launcher`] (user-mode guests), `network` (virtual networks) and `nwfilter`
//! (filters of ports), stand on `firewall` (rule values and their rendering) and `xml` (documents
//! and their store), these on `sys` (system calls), and all on [`types`] (values with a grammar).
//! `cli` stands on top and is the only module that knows all wings; `capi` stands on the launcher.
//! Imports go down, and the launcher imports neither networks nor filters.

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "module heads lead maintainers to private items: cargo doc --document-private-items"
)]

pub mod launcher;
#[cfg(feature = "bridged")]
pub mod network;
#[cfg(feature = "bridged")]
pub mod nwfilter;
pub mod types;

#[cfg(feature = "capi")]
mod capi;

/// The program in README.md compiles: `cargo test --doc` builds it.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// The modules below are public for the tests in tests/ and the benches; they are not part of the
// library's interface.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "bridged")]
#[doc(hidden)]
pub mod firewall;
#[cfg(all(feature = "cli", any(test, feature = "fuzz")))]
#[doc(hidden)]
pub mod fuzz;
#[doc(hidden)]
pub mod sys;
#[cfg(feature = "bridged")]
#[doc(hidden)]
pub mod xml;
