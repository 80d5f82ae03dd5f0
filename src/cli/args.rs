//! The command line: what can be written.
//!
//! Every option is optional here, so that netlaunch.conf can supply what the command line leaves
//! out (see [`super::request`]). Values are checked as they are read, by the grammar of their type.
//! What is said about mistakes is in [`super::usage`].

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use serde::Deserialize;

use crate::network::NetworkName;
use crate::nwfilter::{FilterName, Parameter};
use crate::plan::{AddressChoice, Backend, MAX_MTU, Transport};
use crate::types::{Device, DomainName, Id, InterfaceName, LaunchName, Mac, Publish, UserName};

/// Run QEMU with a network through passt, slirp or a bridge, and leave nothing behind.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "netlaunch",
    version,
    disable_help_subcommand = true,
    override_usage = "netlaunch [OPTIONS] -- QEMU [ARGS]...\n       netlaunch [OPTIONS]\n       netlaunch probe|ps|network|nwfilter|firewall|completions [OPTIONS]"
)]
pub struct Cli {
    /// What to launch.
    #[command(flatten)]
    pub launch: LaunchArgs,
    /// How to report.
    #[command(flatten)]
    pub log: LogArgs,
    /// What to do instead of a launch.
    #[command(subcommand)]
    pub command: Option<Action>,
}

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
    #[arg(help = "Publish a guest port: [ADDR:]HOSTPORT[-END][:GUESTPORT][/tcp|udp]; repeatable")]
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
    /// Run QEMU as this user, without capabilities (root only)
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

/// The options that say how to report; every command takes them.
#[derive(Debug, Clone, Default, Args)]
pub struct LogArgs {
    /// Report more; repeatable
    #[arg(short, action = ArgAction::Count, global = true, help_heading = "Messages")]
    pub verbose: u8,
    /// Report errors only
    #[arg(short, global = true, conflicts_with = "verbose", help_heading = "Messages")]
    pub quiet: bool,
    /// Report in this format [default: text]
    #[arg(long, value_name = "text|json", hide_possible_values = true, global = true)]
    #[arg(help_heading = "Messages")]
    pub log_format: Option<LogFormat>,
}

/// What to do instead of a launch.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Show what this host can do, what auto would choose, why, and how to fix the rest
    Probe(ProbeArgs),
    /// List the launches that run now
    Ps(PsArgs),
    /// Define, start and show virtual networks; see netlaunch-network(1)
    #[command(disable_help_subcommand = true, arg_required_else_help = false)]
    #[command(subcommand)]
    Network(NetworkVerb),
    /// Define network filters and put them on ports; see netlaunch-nwfilter(1)
    #[command(disable_help_subcommand = true, arg_required_else_help = false)]
    #[command(subcommand)]
    Nwfilter(NwfilterVerb),
    /// Put firewall rules back, or find what stops guests' traffic
    #[command(disable_help_subcommand = true, arg_required_else_help = false)]
    #[command(subcommand)]
    Firewall(FirewallVerb),
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
}

/// The options of `netlaunch probe`.
#[derive(Debug, Clone, Default, Args)]
pub struct ProbeArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Probe this QEMU [default: qemu-system-ARCH in PATH]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub qemu: Option<PathBuf>,
    /// Probe this passt [default: passt in PATH]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub passt: Option<PathBuf>,
}

/// The options of `netlaunch ps`.
#[derive(Debug, Clone, Default, Args)]
pub struct PsArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What to do with virtual networks.
#[derive(Debug, Clone, Subcommand)]
pub enum NetworkVerb {
    /// List all networks
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Define a network from an XML file, or define it anew
    Define {
        /// The file; - is standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Remove the definition of a network
    Undefine(NameArg),
    /// Print the definition of a network
    Dumpxml(NameArg),
    /// Change the definition of a network in an editor
    Edit(NameArg),
    /// Start a network
    Start(NameArg),
    /// End a network and remove everything that its start made
    Destroy(NameArg),
    /// Have a network start with the host; without a name, start all that are to
    Autostart {
        /// The network
        #[arg(value_name = "NAME")]
        name: Option<NetworkName>,
        /// Have it no longer start with the host
        #[arg(long, requires = "name")]
        disable: bool,
    },
}

/// The network that a verb is about.
#[derive(Debug, Clone, Args)]
pub struct NameArg {
    /// The network
    #[arg(value_name = "NAME")]
    pub name: NetworkName,
}

/// What to do with network filters.
#[derive(Debug, Clone, Subcommand)]
pub enum NwfilterVerb {
    /// List all filters
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the definition of a filter
    Dumpxml(FilterArg),
    /// Define a filter from an XML file, or define it anew
    Define {
        /// The file; - is standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Remove the definition of a filter
    Undefine(FilterArg),
    /// Change the definition of a filter in an editor
    Edit(FilterArg),
    /// Put a filter on a port, as a file of libvirt's filterbinding XML says
    BindingCreate {
        /// The file; - is standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Take the filter of a port away
    BindingDelete(PortArg),
    /// List the ports that have a filter
    BindingList {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the binding of a port
    BindingDumpxml(PortArg),
    /// Say which rule of a filter decides about frames; nothing is bound
    Explain(ExplainArgs),
    /// Check a file or a defined filter, and change nothing
    Check {
        /// The file, with a / or .xml in its name, or the filter
        #[arg(value_name = "FILE|NAME", value_hint = ValueHint::FilePath)]
        what: String,
    },
}

/// The filter that a verb is about.
#[derive(Debug, Clone, Args)]
pub struct FilterArg {
    /// The filter
    #[arg(value_name = "NAME")]
    pub name: FilterName,
}

/// The arguments of `netlaunch nwfilter explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The filter
    #[arg(value_name = "NAME")]
    pub name: FilterName,
    /// Judge this frame: hexadecimal digits from the destination's MAC address on
    #[arg(long, value_name = "HEX", required_unless_present = "pcap", conflicts_with = "pcap")]
    pub frame: Option<HexFrame>,
    /// Judge the frames of this capture, in their order
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub pcap: Option<PathBuf>,
    /// Set a variable of the filter; repeatable, a name given twice is a list
    #[arg(short, long = "param", value_name = "K=V", value_parser = parameter)]
    pub param: Vec<Parameter>,
    /// The address of the guest's network card: the variable MAC
    #[arg(long, value_name = "MAC")]
    pub mac: Option<Mac>,
    /// Which way frames go [default: out from the guest's address, else in]
    #[arg(long, value_name = "in|out", hide_possible_values = true)]
    pub direction: Option<DirectionArg>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `--direction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DirectionArg {
    /// To the guest.
    In,
    /// From the guest.
    Out,
}

/// The bytes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HexFrame(pub Vec<u8>);

impl std::str::FromStr for HexFrame {
    type Err = ValueError;

    /// Takes spaces and colons between bytes.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|c| *c != ':' && !c.is_ascii_whitespace())
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        match digits {
            Some(digits) if !digits.is_empty() && digits.len() % 2 == 0 => {
                Ok(HexFrame(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
            }
            _ => Err(ValueError::HexFrame),
        }
    }
}

/// Reads a variable and its value.
///
/// # Errors
/// [`ValueError::Parameter`] for what is no `NAME=VALUE`, else what is wrong with either.
pub fn parameter(text: &str) -> Result<Parameter, ValueError> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| ValueError::Parameter(text.to_owned()))?;
    Ok((name.parse()?, value.parse()?))
}

/// The port that a verb is about.
#[derive(Debug, Clone, Args)]
pub struct PortArg {
    /// The interface
    #[arg(value_name = "PORT")]
    pub port: InterfaceName,
}

/// What to do with the firewall.
#[derive(Debug, Clone, Subcommand)]
pub enum FirewallVerb {
    /// Put back the rules of the active networks, after another program removed them
    Reload {
        /// Stay, and do it again whenever firewalld has reloaded, started or ended
        #[arg(long)]
        follow: bool,
    },
    /// Find the rules of others that stop guests' traffic, and what to do; changes nothing
    Check {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Bridges [default: those of the active networks, else of all networks]
        #[arg(value_name = "BRIDGE")]
        bridges: Vec<InterfaceName>,
    },
}

/// The arguments of `netlaunch completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
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

/// How messages look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why a value that has no type of its own is not what its option takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not an IPv4 address.
    #[error("{0:?} is not an IPv4 address: write one such as 10.0.2.2")]
    Ipv4(String),
    /// Not an IP address.
    #[error("{0:?} is not an IP address: write one such as 9.9.9.9 or 2620:fe::fe")]
    Ip(String),
    /// No MTU of any guest.
    #[error("{0:?} is not an MTU: use 68 to {MAX_MTU} bytes")]
    Mtu(String),
    /// Not a descriptor that netlaunch can be handed for this.
    #[error(
        "{0:?} is not a file descriptor to report to: use 3 or a higher number that is open for writing"
    )]
    ReadyFd(String),
    /// Not the bytes of a frame.
    #[error(
        "it is not a frame: write its bytes as pairs of hexadecimal digits, such as ffffffffffff525400112233..."
    )]
    HexFrame,
    /// No variable with a value.
    #[error("{0:?} gives no variable a value: write NAME=VALUE, such as IP=192.0.2.5")]
    Parameter(String),
    /// Not a variable's name, or not a value.
    #[error(transparent)]
    Variable(#[from] crate::nwfilter::ValueError),
    /// A program is named by its full path or by its name alone.
    #[error("the program's name is empty: write its path, or its name to look it up in PATH")]
    NoProgram,
}

/// Reads an IPv4 address.
///
/// # Errors
/// [`ValueError::Ipv4`].
pub fn ipv4(text: &str) -> Result<Ipv4Addr, ValueError> {
    text.parse().map_err(|_| ValueError::Ipv4(text.to_owned()))
}

/// Reads an IPv4 or IPv6 address.
///
/// # Errors
/// [`ValueError::Ip`].
pub fn ip(text: &str) -> Result<IpAddr, ValueError> {
    text.parse().map_err(|_| ValueError::Ip(text.to_owned()))
}

/// Reads an MTU in bytes. The whole request decides whether it has to be higher (IPv6).
///
/// # Errors
/// [`ValueError::Mtu`] for anything but 68 to [`MAX_MTU`].
pub fn mtu(text: &str) -> Result<u16, ValueError> {
    number(text)
        .filter(|mtu| (68..=MAX_MTU).contains(mtu))
        .ok_or_else(|| ValueError::Mtu(text.to_owned()))
}

/// Reads a file descriptor that is none of the standard three: QEMU has those.
fn ready_fd(text: &str) -> Result<RawFd, ValueError> {
    number(text).filter(|fd| *fd >= 3).ok_or_else(|| ValueError::ReadyFd(text.to_owned()))
}

/// Reads a program: a path, or a name to look up in PATH.
///
/// # Errors
/// [`ValueError::NoProgram`] for an empty one.
pub fn program(text: &str) -> Result<PathBuf, ValueError> {
    if text.is_empty() { Err(ValueError::NoProgram) } else { Ok(PathBuf::from(text)) }
}

/// A decimal number without a sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
