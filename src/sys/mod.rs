//! System calls: all `unsafe` code, and all code that uses the kernel's interfaces directly.
//!
//! Each module wraps one part of the kernel's interface in types that clean up when they are
//! dropped: [`process`] starts programs that cannot outlive the caller, `netlink` changes links and
//! routes, `tap` makes taps, `traffic` limits the traffic of a device, `state_file` keeps the
//! records of running ports and networks, and `dir` walks directories by descriptor. The modules
//! know nothing of launches, networks or filters.
//!
//! The rest of the crate denies `unsafe` code. Each `unsafe` block here has a comment that says why
//! it is sound, and each `unsafe` function has a section that says what its caller must ensure.

#![allow(unsafe_code)]

#[cfg_attr(
    not(feature = "bridged"),
    allow(dead_code, reason = "networks and filters use all of it")
)]
pub(crate) mod dir;
#[cfg(any(feature = "bridged", test))]
pub(crate) mod exchange;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the command line uses all of it"))]
pub(crate) mod file_events;
pub(crate) mod file_limit;
#[cfg(feature = "cli")]
pub(crate) mod file_pages;
pub(crate) mod fine_timer;
pub(crate) mod flock;
pub(crate) mod host_id;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the command line uses all of it"))]
pub(crate) mod input;
#[cfg(feature = "bridged")]
pub(crate) mod interfaces;
#[cfg(feature = "cli")]
pub(crate) mod kvm;
#[cfg(feature = "bridged")]
pub(crate) mod namespace;
#[cfg(feature = "bridged")]
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the command line uses all of it"))]
pub(crate) mod netfilter_events;
#[cfg(feature = "bridged")]
pub mod netlink;
#[cfg(feature = "cli")]
pub(crate) mod output_reader;
#[cfg(feature = "cli")]
pub(crate) mod own_network;
#[cfg(feature = "bridged")]
pub mod packet_socket;
#[cfg(feature = "cli")]
pub(crate) mod ping_socket;
#[cfg_attr(
    not(all(feature = "bridged", feature = "cli")),
    allow(dead_code, unused_imports, reason = "networks and the command line use all of it")
)]
pub(crate) mod privileges;
#[cfg(feature = "bridged")]
pub(crate) mod proc_file;
#[cfg_attr(
    not(all(feature = "bridged", feature = "cli")),
    allow(dead_code, unused_imports, reason = "networks and the command line use all of it")
)]
pub mod process;
pub mod program;
#[cfg_attr(
    not(feature = "bridged"),
    allow(dead_code, unreachable_pub, reason = "networks and filters use all of it")
)]
pub(crate) mod state_file;
#[cfg(feature = "bridged")]
pub mod tap;
#[cfg(feature = "bridged")]
pub mod traffic;
pub(crate) mod transient_user;
