//! DHCP, DNS, router advertisements and TFTP for the guests of one bridge: dnsmasq, which reads a
//! configuration that [`DhcpDns::render`] wrote and runs on its own.
//!
//! - [`config`] says what the guests shall get, as values; the text of dnsmasq's files is a pure
//!   function of it.
//! - [`process`] writes the files, starts dnsmasq, finds it again, reloads and stops it.
//!
//! dnsmasq becomes a daemon by itself: a network outlives the command that started it. Which
//! process is ours is therefore not known by a number alone, but by the configuration file on its
//! command line.

pub mod config;
pub mod process;
mod render;

pub use config::{
    Boot, Client, ConfigError, DhcpDns, DhcpHost, Dns, DnsHost, Domain, Files, Forwarder, Lease,
    Range, Rendered, Srv, Txt,
};
pub use process::{Dnsmasq, DnsmasqError, INSTALL, Leases};
