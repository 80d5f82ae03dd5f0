//! The options of a launch: what there is to write without a verb.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use serde::Deserialize;

use super::values::{ip, ipv4, mtu, parameter, ready_fd};
use crate::network::NetworkName;
use crate::nwfilter::{FilterName, Parameter};
use crate::plan::{AddressChoice, Backend, Transport};
use crate::types::{Device, DomainName, Id, InterfaceName, LaunchName, Mac, Publish, UserName};

/// The options of a launch: run mode with a QEMU command, serve mode without.
#[derive(Debug, Clone, Default, Args)]
pub struct LaunchArgs {
    /// Use this backend and no other; auto is passt, else slirp [default: auto]
    #[arg(long, value_name = "auto|passt|slirp|bridge", hide_possible_values = true)]
    #[arg(help_heading = "Backend")]
    pub backend: Option<BackendArg>,
    /// Put the guest on the bridge of this virtual network, which must be active
    #[arg(long, value_name = "NAME", conflicts_with = "bridge", help_heading = "Backend")]
    pub network: Option<NetworkName>,
    /// Filter the guest's packets on the bridge with this network filter
    #[arg(long, value_name = "NAME", help_heading = "Backend")]
    pub filter: Option<FilterName>,
    /// Give a variable of the filter a value; several times for a list
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter, requires = "filter", help_heading = "Backend")]
    pub filter_param: Vec<Parameter>,
    /// Put the guest on this bridge of the host
    #[arg(long, value_name = "IFNAME", help_heading = "Backend")]
    pub bridge: Option<InterfaceName>,
    /// Connect passt and QEMU this way [default: unix]
    #[arg(long, value_name = "unix|fd|vhost-user", hide_possible_values = true)]
    #[arg(help_heading = "Backend")]
    pub transport: Option<TransportArg>,
    /// Use this passt program [default: passt in PATH]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    #[arg(help_heading = "Backend")]
    pub passt: Option<PathBuf>,

    /// Name the netdev [default: net0]
    #[arg(long, value_name = "ID", help_heading = "Network card")]
    pub id: Option<Id>,
    /// Set the guest's MAC address [default: random, 52:54:00:...]
    #[arg(long, value_name = "MAC", help_heading = "Network card")]
    pub mac: Option<Mac>,
    /// Add this QEMU device as the card, or none [default: virtio-net-pci]
    #[arg(long, value_name = "MODEL|none", help_heading = "Network card")]
    pub device: Option<Device>,

    /// Ports of the host that reach the guest.
    #[arg(short, long, value_name = "PORT", help_heading = "Ports")]
    #[arg(
        help = "Publish a guest port: [ADDR:]HOSTPORT[-END][:GUESTPORT[-END]][/tcp|udp]; repeatable"
    )]
    pub publish: Vec<Publish>,
    /// Keep the guest from the host's loopback services
    #[arg(long, help_heading = "Ports")]
    pub no_host_loopback: bool,

    /// Set the guest's IPv4 address, or mirror the host's [default: 10.0.2.15/24]
    #[arg(long, value_name = "ADDR/PREFIX|host", help_heading = "Addresses")]
    pub address: Option<AddressChoice>,
    /// Set the guest's IPv4 gateway [default: 10.0.2.2]
    #[arg(long, value_name = "ADDR", value_parser = ipv4, help_heading = "Addresses")]
    pub gateway: Option<Ipv4Addr>,
    /// Set the guest's DNS server [default: 10.0.2.3, which forwards to the host's]
    #[arg(long, value_name = "ADDR", value_parser = ip, help_heading = "Addresses")]
    pub dns: Option<IpAddr>,
    /// Add a DNS search domain; repeatable
    #[arg(long, value_name = "DOMAIN", help_heading = "Addresses")]
    pub search: Vec<DomainName>,
    /// Set the guest's host name in DHCP
    #[arg(long, value_name = "NAME", help_heading = "Addresses")]
    pub hostname: Option<DomainName>,
    /// Set the MTU the guest is told, in bytes
    #[arg(long, value_name = "BYTES", value_parser = mtu, help_heading = "Addresses")]
    pub mtu: Option<u16>,
    /// Take addresses and routes from this host interface
    #[arg(long, value_name = "IFNAME", help_heading = "Addresses")]
    pub interface: Option<InterfaceName>,
    /// Give the guest IPv4 only
    #[arg(long, conflicts_with = "ipv6_only", help_heading = "Addresses")]
    pub ipv4_only: bool,
    /// Give the guest IPv6 only
    #[arg(long, help_heading = "Addresses")]
    pub ipv6_only: bool,

    /// Name the launch for netlaunch ps
    #[arg(long, value_name = "NAME", help_heading = "Launch")]
    pub name: Option<LaunchName>,
    /// Run QEMU as this user, who should run nothing else, without capabilities (root only)
    #[arg(long, value_name = "NAME", help_heading = "Launch")]
    pub user: Option<UserName>,
    /// Write the guest's frames to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Launch")]
    pub pcap: Option<PathBuf>,
    /// Write READY=1 to this file descriptor when the network is up
    #[arg(long, value_name = "N", value_parser = ready_fd, help_heading = "Launch")]
    pub ready_fd: Option<RawFd>,
    /// Print the arguments for this QEMU (serve mode) [default: qemu-system-ARCH in PATH]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    #[arg(conflicts_with = "qemu_command", help_heading = "Launch")]
    pub qemu: Option<PathBuf>,
    /// Print the command lines for a shell or as JSON, or libvirt's XML, and start nothing
    #[arg(long, value_name = "shell|json|xml", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "shell", hide_possible_values = true, help_heading = "Launch")]
    pub print: Option<PrintFormat>,

    /// QEMU and its arguments
    #[arg(last = true, id = "qemu_command", value_name = "QEMU", hide = true)]
    pub command: Vec<OsString>,
}

/// `--backend`, and `backend` in the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendArg {
    /// passt, else slirp.
    Auto,
    /// passt and nothing else.
    Passt,
    /// slirp and nothing else.
    Slirp,
    /// A bridge.
    Bridge,
}

impl BackendArg {
    /// The backend that was named; `None` for auto.
    pub fn named(self) -> Option<Backend> {
        match self {
            BackendArg::Auto => None,
            BackendArg::Passt => Some(Backend::Passt),
            BackendArg::Slirp => Some(Backend::Slirp),
            BackendArg::Bridge => Some(Backend::Bridge),
        }
    }
}

/// `--transport`, and `transport` in the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransportArg {
    /// A listening UNIX socket.
    Unix,
    /// A pair of connected sockets.
    Fd,
    /// vhost-user.
    VhostUser,
}

impl From<TransportArg> for Transport {
    fn from(arg: TransportArg) -> Transport {
        match arg {
            TransportArg::Unix => Transport::Unix,
            TransportArg::Fd => Transport::Fd,
            TransportArg::VhostUser => Transport::VhostUser,
        }
    }
}

/// How `--print` shows a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrintFormat {
    /// Command lines that a shell understands.
    Shell,
    /// One JSON object.
    Json,
    /// The interface of a libvirt domain.
    Xml,
}
