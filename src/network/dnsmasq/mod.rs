//! DHCP, DNS, router advertisements and TFTP for the guests of one bridge: dnsmasq, which reads a
//! configuration that [`DhcpDns::render`] wrote and runs on its own.
//!
//! - [`config`] has the settings for the guests, as values; the text of dnsmasq's files is a pure
//!   function of it.
//! - [`files`] writes the files, so that dnsmasq can write its leases and nothing else.
//! - [`lease_file`] reads the leases that dnsmasq has given.
//! - [`record`] recognises the processes of a dnsmasq that an earlier command started.
//! - `reach` decides whether a command can see those processes.
//! - `port_user` finds the process that has a port which dnsmasq needs.
//! - `resolv` finds out whether the host has a DNS server to ask.
//! - [`process`] starts dnsmasq, reloads and stops it.
//!
//! dnsmasq becomes a daemon by itself: a network outlives the command that started it. Each one
//! runs as a user of its own, so that no process of another user, and no other network's dnsmasq,
//! can signal it or write its leases.

pub mod config;
mod error;
pub mod files;
pub mod lease_file;
mod lines;
pub(crate) mod port_user;
pub mod process;
mod program;
mod reach;
pub mod record;
mod render;
mod resolv;
#[cfg(feature = "cli")]
mod trial;

pub use config::{
    Boot, Client, ConfigError, DNS_PORT, DhcpDns, DhcpHost, Dns, DnsHost, Domain, Forwarder, Lease,
    Range, Rendered, Srv, Txt,
};
pub use error::DnsmasqError;
pub use files::Files;
pub use lease_file::{DhcpLease, LeaseFileError};
pub use port_user::PortUser;
pub use process::{Dnsmasq, Leases, Planner};
pub use program::{INSTALL, find_dnsmasq};
pub use record::{ProcessId, Record};
pub use resolv::without_servers;
#[cfg(feature = "cli")]
pub use trial::{check_dnsmasq, try_dnsmasq};
