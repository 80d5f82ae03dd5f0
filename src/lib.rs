//! netlaunch gives QEMU guests their network: through passt, or through slirp where passt cannot
//! serve, or on a bridge; started, supervised and cleaned up.
//!
//! The program `netlaunch` is a thin front of this library. Programs that start guests themselves,
//! such as appliance launchers, call it in three steps, each usable alone:
//!
//! 1. **Plan.** [`probe::Prober::facts`] finds out what the host has; [`plan::plan`] turns a
//!    [`plan::Request`] and those [`facts::Facts`] into a [`plan::Plan`]: every command line, and
//!    why this backend. It is a pure function; nothing is started.
//! 2. **Start.** [`launch::start`] carries a plan out. [`launch::launch`] is plan and start in one,
//!    and plans again without passt when passt turns out not to start.
//! 3. **Supervise.** [`launch::Running::supervise`] (or `wait`, or `stop`) restarts a crashed passt
//!    and returns QEMU's exit status when everything is gone.
//!
//! ```no_run
//! use netlaunch::launch::{LaunchRoot, Surroundings, launch};
//! use netlaunch::plan::{Command, Request};
//! use netlaunch::probe::Prober;
//!
//! # async fn boot() -> Result<u8, Box<dyn std::error::Error>> {
//! let request = Request {
//!     publish: vec!["2222:22".parse()?],
//!     command: Some(Command {
//!         program: "qemu-system-x86_64".into(),
//!         args: vec!["-m".into(), "512".into(), "disk.img".into()],
//!     }),
//!     ..Request::default()
//! };
//! let prober = Prober {
//!     path: vec!["/usr/bin".into()],
//!     cache_dir: None,
//!     home: None,
//!     runtime_dir: None,
//!     root: false,
//!     system: "/".into(),
//! };
//! let facts = prober.facts(Some("qemu-system-x86_64".as_ref()), None).await;
//! let surroundings = Surroundings {
//!     root: LaunchRoot {
//!         dir: "/run/user/1000/netlaunch".into(),
//!         shared_parent: false,
//!         ours: true,
//!     },
//!     env: std::env::vars_os().collect(),
//!     mask: None,
//!     qemu_fd: 3,
//!     is_root: false,
//!     bindings: None,
//! };
//! let running = launch(&request, &facts, &surroundings).await?;
//! Ok(running.wait().await.code())
//! # }
//! ```
//!
//! `examples/appliance.rs` boots a real guest this way.
//!
//! # What callers can rely on
//!
//! - Nothing is read from the environment: a value that says where things are is passed in.
//! - Functions that start something need a tokio runtime with I/O and time enabled; a
//!   current-thread one is enough, and no other thread is made.
//! - Whatever way a launch ends, a dropped [`launch::Running`] and a killed caller included, QEMU
//!   and passt do not outlive it ([`process`] says how).
//! - Errors say what, where and how to fix it in one line, and carry their source.
//!
//! # Layout
//!
//! Imports go one way. For guests: [`types`] ← [`facts`] ← [`plan`] (pure) ← [`process`] ←
//! [`probe`], [`launch`] (effects) ← `cli` ← `main`. For virtual networks: [`xml`] ← [`definitions`]
//! (files) ← [`network`] and [`rules`] (pure) ← [`dbus`] ← [`firewall`], [`link`], [`dnsmasq`]
//! (effects) ← [`driver`] ← `cli`. A guest on a network: [`plan`] knows its name, [`driver`] tells
//! what it is ([`facts::Target`]), and [`launch`] uses [`link`]. For network filters: [`xml`] ←
//! [`definitions`] ← [`nwfilter`] (pure, but for its store) ← [`firewall`] ← [`binding`] ← `cli`; a
//! guest's address is learnt by [`learn`], between [`rules`], [`process`] and [`binding`]. [`state`]
//! imports `dir` and `flock` only, and each module that keeps files about running things imports
//! it; `dir` (directories by descriptor), `flock` and `input` (bounded reading) import nothing else.

pub mod binding;
#[doc(hidden)]
pub mod cli;
pub mod dbus;
pub mod definitions;
mod dir;
pub mod dnsmasq;
pub mod driver;
pub mod facts;
pub mod firewall;
mod flock;
mod input;
pub mod launch;
pub mod learn;
pub mod link;
pub mod network;
pub mod nwfilter;
pub mod plan;
mod printable;
pub mod probe;
pub mod process;
pub mod rules;
pub mod state;
pub mod types;
pub mod xml;
