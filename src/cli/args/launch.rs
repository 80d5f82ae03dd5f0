//! The options of a launch, which is the command without a verb.
//!
//! The documentation comment of an option is its help text. The first sentence of the option's
//! entry in the manual is the same, word for word (tests/integration/options_once.rs).

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use serde::Deserialize;

use super::values::{ip, ipv4, listen_fd, mtu, parameter, passt_option, ready_fd, seconds};
use crate::launcher::plan::{AddressChoice, Backend, NicRequest, Transport, Vmm};
use crate::nwfilter::{FilterName, Parameter};
use crate::types::{
    Bandwidth, Device, DomainName, Id, InterfaceName, LaunchName, Mac, NetworkChoice, PasstOption,
    PublishRequest, Queues, UserName,
};

/// The options of a launch: run mode with a QEMU command, serve mode without.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct LaunchArgs {
    /// Uses only this backend; auto is passt, else slirp [default: auto]
    #[arg(long, value_name = "auto|passt|slirp|bridge", hide_possible_values = true)]
    #[arg(help_heading = "Backend")]
    pub backend: Option<BackendArg>,
    /// Puts the guest on the bridge of this active virtual network; NAME:GROUP names a port group
    #[arg(long, value_name = "NAME", conflicts_with = "bridge", help_heading = "Backend")]
    pub network: Option<NetworkChoice>,
    /// Limits the traffic of a guest on a bridge: inbound=AVERAGE[/PEAK[/BURST]],outbound=... in
    /// KiB per second, and BURST in KiB
    #[arg(long, value_name = "LIMITS", help_heading = "Backend")]
    pub bandwidth: Option<Bandwidth>,
    /// Filters the guest's packets on the bridge with this network filter
    #[arg(long, value_name = "NAME", help_heading = "Backend")]
    pub filter: Option<FilterName>,
    /// Sets a variable of the filter; repeatable, the same name twice makes a list
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter, requires = "filter", help_heading = "Backend")]
    pub filter_param: Vec<Parameter>,
    /// Puts the guest on this bridge of the host
    #[arg(long, value_name = "IFNAME", help_heading = "Backend")]
    pub bridge: Option<InterfaceName>,
    /// Adds a NIC: passt, slirp, network=NAME or bridge=IFNAME, then ,key=value...; repeatable
    #[arg(long, value_name = "NIC", help_heading = "Backend")]
    pub net: Vec<NicRequest>,
    /// Leaves the user-mode networks in the QEMU arguments as they are, and adds a NIC
    #[arg(long, help_heading = "Backend")]
    pub keep_nics: bool,
    /// Connects passt and QEMU by this transport [default: unix]
    #[arg(long, value_name = "unix|fd|vhost-user", hide_possible_values = true)]
    #[arg(help_heading = "Backend")]
    pub transport: Option<TransportArg>,
    /// Passes this option to passt, by its long name without dashes; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = passt_option())]
    #[arg(help_heading = "Backend")]
    pub passt_option: Vec<PasstOption>,
    /// Uses this passt program [default: passt in PATH]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    #[arg(help_heading = "Backend")]
    pub passt: Option<PathBuf>,

    /// Sets the id of QEMU's netdev [default: net0]
    #[arg(long, value_name = "ID", help_heading = "Network card")]
    pub id: Option<Id>,
    /// Sets the guest's MAC address [default: random, or made from the name]
    #[arg(long, value_name = "MAC", help_heading = "Network card")]
    pub mac: Option<Mac>,
    /// Adds this QEMU device as the card, or none [default: virtio-net-pci]
    #[arg(long, value_name = "MODEL|none", help_heading = "Network card")]
    pub device: Option<Device>,
    /// Gives the card of a guest on a bridge this many queues, or one per processor [default: 1]
    #[arg(long, value_name = "NUMBER|auto", help_heading = "Network card")]
    pub queues: Option<Queues>,

    /// The ports of the host that reach the guest.
    #[arg(short, long, value_name = "PORT", help_heading = "Ports")]
    #[arg(
        help = "Publishes a guest port: [ADDR:]HOSTPORT[-END][:GUESTPORT[-END]][/tcp|udp]; repeatable"
    )]
    pub publish: Vec<PublishRequest>,
    /// Keeps the guest from the services on the host's loopback address
    #[arg(long, help_heading = "Ports")]
    pub no_host_loopback: bool,

    /// Sets the guest's IPv4 address, or mirrors the host's [default: 10.0.2.15/24]
    #[arg(long, value_name = "ADDR/PREFIX|host", help_heading = "Addresses")]
    pub address: Option<AddressChoice>,
    /// Sets the guest's IPv4 gateway [default: 10.0.2.2]
    #[arg(long, value_name = "ADDRESS", value_parser = ipv4, help_heading = "Addresses")]
    pub gateway: Option<Ipv4Addr>,
    /// Sets the guest's DNS server [default: 10.0.2.3, which forwards to the host's]
    #[arg(long, value_name = "ADDRESS", value_parser = ip, help_heading = "Addresses")]
    pub dns: Option<IpAddr>,
    /// Adds a DNS search domain; repeatable
    #[arg(long, value_name = "DOMAIN", help_heading = "Addresses")]
    pub search: Vec<DomainName>,
    /// Sets the guest's host name in DHCP
    #[arg(long, value_name = "NAME", help_heading = "Addresses")]
    pub hostname: Option<DomainName>,
    /// Sets the guest's MTU, in bytes
    #[arg(long, value_name = "BYTES", value_parser = mtu, help_heading = "Addresses")]
    pub mtu: Option<u16>,
    /// Takes addresses and routes from this host interface
    #[arg(long, value_name = "IFNAME", help_heading = "Addresses")]
    pub interface: Option<InterfaceName>,
    /// Gives the guest only IPv4
    #[arg(long, conflicts_with = "ipv6_only", help_heading = "Addresses")]
    pub ipv4_only: bool,
    /// Gives the guest only IPv6
    #[arg(long, help_heading = "Addresses")]
    pub ipv6_only: bool,

    /// Sets the name of the launch in netlaunch ps
    #[arg(long, value_name = "NAME", help_heading = "Launch")]
    pub name: Option<LaunchName>,
    /// Runs QEMU as this user, without capabilities (root only)
    #[arg(long, value_name = "NAME", help_heading = "Launch")]
    pub user: Option<UserName>,
    /// Asks the guest to power down on SIGTERM, and ends QEMU after this time; 0 ends it at once
    /// [default: 0]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    #[arg(help_heading = "Launch")]
    pub stop_timeout: Option<u32>,
    /// Returns when the network serves and QEMU runs; the launch goes on in the background
    #[arg(long, help_heading = "Launch")]
    pub detach: bool,
    /// Adds the words of this file to the command line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Launch")]
    pub args_file: Option<PathBuf>,
    /// Writes the guest's frames to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Launch")]
    pub pcap: Option<PathBuf>,
    /// Writes READY=1 to this file descriptor when the network is up
    #[arg(long, value_name = "NUMBER", value_parser = ready_fd, help_heading = "Launch")]
    pub ready_fd: Option<RawFd>,
    /// Asks this QEMU for its features, in serve mode or if the program is a script [default:
    /// qemu-system-ARCH in PATH]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    #[arg(help_heading = "Launch")]
    pub qemu: Option<PathBuf>,
    /// Writes the arguments of this VMM, in serve mode and with --print [default: qemu]
    #[arg(long, value_name = "qemu|cloud-hypervisor|crosvm|libkrun", hide_possible_values = true)]
    #[arg(help_heading = "Launch")]
    pub vmm: Option<VmmArg>,
    /// Offers passt's socket at this path, in serve mode
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with = "listen_fd", help_heading = "Launch")]
    pub listen: Option<PathBuf>,
    /// Connects passt to this inherited socket, in serve mode
    #[arg(long, value_name = "NUMBER", value_parser = listen_fd, help_heading = "Launch")]
    pub listen_fd: Option<RawFd>,
    /// Prints the launch as shell commands, JSON or libvirt's XML, and starts nothing
    #[arg(long, value_name = "shell|json|xml", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "shell", hide_possible_values = true, help_heading = "Launch")]
    pub print: Option<PrintFormat>,

    /// QEMU and its arguments
    #[arg(last = true, id = "qemu_command", value_name = "QEMU", hide = true)]
    pub command: Vec<OsString>,
}

impl LaunchArgs {
    /// Returns whether there is any option, besides QEMU's command line.
    pub fn has_options(&self) -> bool {
        LaunchArgs { command: Vec::new(), ..self.clone() } != LaunchArgs::default()
    }
}

/// `--backend`, and `backend` in the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendArg {
    /// passt, or slirp if passt cannot serve.
    Auto,
    /// Only passt.
    Passt,
    /// Only slirp.
    Slirp,
    /// A bridge.
    Bridge,
}

impl BackendArg {
    /// Returns the named backend; `None` for auto.
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

/// `--vmm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VmmArg {
    /// QEMU.
    Qemu,
    /// cloud-hypervisor.
    CloudHypervisor,
    /// crosvm.
    Crosvm,
    /// libkrun.
    Libkrun,
}

impl From<VmmArg> for Vmm {
    fn from(arg: VmmArg) -> Vmm {
        match arg {
            VmmArg::Qemu => Vmm::Qemu,
            VmmArg::CloudHypervisor => Vmm::CloudHypervisor,
            VmmArg::Crosvm => Vmm::Crosvm,
            VmmArg::Libkrun => Vmm::Libkrun,
        }
    }
}

/// The format of `--print`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrintFormat {
    /// Commands for a shell.
    Shell,
    /// One JSON object.
    Json,
    /// The `<interface>` element of a libvirt domain.
    Xml,
}
