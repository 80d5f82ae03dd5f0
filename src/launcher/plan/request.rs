//! The request of the caller for a guest's network.
//!
//! Each part is valid by its type. [`Request::check`] checks that the parts go together; the checks
//! here cover one group of settings each.
//!
//! A default request describes `netlaunch` without options. A field that is `None` lets the plan
//! choose.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use super::guest_addresses::AddressChoice;
use super::present::PresentNics;
use super::request_error::RequestError;
use super::socket::CallerSocket;
use super::vmm::Vmm;
use crate::launcher::qemu_options::{CommandLine, ConfigFile, Settings};
use crate::types::{
    Bandwidth, Device, DomainName, FilterName, FreePort, GuestAddresses, HostAddress, Id,
    InterfaceName, LaunchName, Mac, NetworkName, Parameter, PasstOption, PortGroupName, Publish,
    Queues, Setting, UserName,
};

/// The program or kernel feature that gives a guest its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Backend {
    /// The passt program, connected to QEMU by a socket.
    Passt,
    /// The user network inside QEMU (libslirp).
    Slirp,
    /// A tap device on a bridge; used only if the request names it.
    Bridge,
}

impl Backend {
    /// Returns the name that the command line and JSON use.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Passt => "passt",
            Backend::Slirp => "slirp",
            Backend::Bridge => "bridge",
        }
    }

    /// Returns whether the backend can be chosen automatically.
    pub fn is_automatic(self) -> bool {
        self != Backend::Bridge
    }
}

/// The network or bridge that a bridged guest joins.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attachment {
    /// A virtual network that netlaunch manages. It must be active.
    Network(NetworkName),
    /// Any bridge of this host.
    Bridge(InterfaceName),
}

impl Attachment {
    /// Returns the setting that names it.
    pub fn setting(&self) -> Setting {
        match self {
            Attachment::Network(_) => Setting::Network,
            Attachment::Bridge(_) => Setting::Bridge,
        }
    }
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The connection of passt and QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Transport {
    /// A listening UNIX socket in the launch directory. QEMU can connect again after a restart of
    /// passt.
    Unix,
    /// A connected pair of inherited sockets. It needs no path, and QEMU cannot connect again.
    Fd,
    /// vhost-user over a UNIX socket. The guest's memory must be shared.
    VhostUser,
}

impl Transport {
    /// Returns the name that the command line and JSON use.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Unix => "unix",
            Transport::Fd => "fd",
            Transport::VhostUser => "vhost-user",
        }
    }
}

/// The internet protocol versions of the guest. Exhaustive, because there is no fourth choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4, and IPv6 if the host has it.
    #[default]
    Both,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// The network filter of a guest on a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFilter {
    /// The filter's name.
    pub name: FilterName,
    /// Values for its variables, in the given order. A name that comes several times is a list.
    pub parameters: Vec<Parameter>,
}

/// The request for one NIC of a guest: its network and its card. [`NicRequest::default`] is the NIC
/// of `netlaunch` without options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicRequest {
    /// The only allowed backend; `None` is passt, or slirp if passt cannot serve.
    pub backend: Option<Backend>,
    /// The network or bridge that a guest on the bridge backend joins; `None` on the others.
    pub attachment: Option<Attachment>,
    /// The port group of the network; `None` is its default one, if it has one.
    pub port_group: Option<PortGroupName>,
    /// The filter of a guest on the bridge backend.
    pub filter: Option<GuestFilter>,
    /// The limits of the traffic of a guest on the bridge backend, which replace those of its port
    /// group; `None` takes those of the port group.
    pub bandwidth: Option<Bandwidth>,
    /// The only allowed transport; `None` is `unix`, or `fd` if a socket path cannot be used.
    pub transport: Option<Transport>,
    /// `id=` of the netdev.
    pub id: Id,
    /// Whether the caller named the id. If not, and if the id is taken, another one is chosen.
    pub id_named: bool,
    /// The address of the guest's card; `None` is a random one.
    pub mac: Option<Mac>,
    /// The guest's card.
    pub device: Device,
    /// Whether the caller named the card. If not, a machine without a PCI bus gets a card for one
    /// of its buses.
    pub device_named: bool,
    /// Ports of the host that are forwarded to the guest.
    pub publish: Vec<Publish>,
    /// Ports of the guest that get a free port of the host; [`LaunchIds`](super::LaunchIds) has the
    /// numbers.
    pub free_ports: Vec<FreePort>,
    /// The guest's IPv4 address.
    pub address: AddressChoice,
    /// The guest's router; `None` is the second address of the guest's subnet.
    pub gateway: Option<Ipv4Addr>,
    /// The guest's DNS server. An address of the guest's subnet forwards to the host's resolver;
    /// the guest gets any other address unchanged (passt only). `None` is an address of the guest's
    /// subnet.
    pub dns: Option<IpAddr>,
    /// DNS search domains.
    pub search: Vec<DomainName>,
    /// The guest's name in DHCP.
    pub hostname: Option<DomainName>,
    /// The guest's MTU, 68 to 65520 bytes (at least 1280 for a guest with IPv6 only). `None` is the
    /// backend's default; on a bridge it is the bridge's MTU.
    pub mtu: Option<u16>,
    /// The host interface whose addresses and routes passt uses.
    pub interface: Option<InterfaceName>,
    /// Protocol versions.
    pub family: Family,
    /// Whether the guest reaches the host's loopback services at the gateway's address.
    pub host_loopback: bool,
    /// The file to which passt or QEMU writes the guest's frames.
    pub pcap: Option<PathBuf>,
    /// The queue pairs of the card, for a guest on a bridge; `None` is one.
    pub queues: Option<Queues>,
    /// Further options for passt. A NIC with such options is never on slirp.
    pub passt_options: Vec<PasstOption>,
}

/// A request for a guest's network. [`Request::default`] is the request of `netlaunch` without
/// options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The NIC of a launch whose request lists no NICs and whose QEMU arguments have no user-mode
    /// network. If the arguments have such networks, these are the settings for them: backend,
    /// transport, DNS, MTU, interface, IP versions and access to the host's loopback services for
    /// each of them; published ports, address, gateway, host name and capture file for the first.
    pub nic: NicRequest,
    /// The NICs that are added besides those of the QEMU arguments; empty for the single one above.
    pub nics: Vec<NicRequest>,
    /// Whether the NICs of the QEMU arguments stay as they are.
    pub keep_nics: bool,
    /// The launch's name in `netlaunch ps`.
    pub name: Option<LaunchName>,
    /// The user that QEMU runs as, without capabilities; only for root.
    pub user: Option<UserName>,
    /// The time for the guest to power down when the launch ends; `None` ends QEMU at once.
    pub stop_timeout: Option<Duration>,
    /// QEMU and its arguments; `None` is serve mode, in which the caller starts QEMU.
    pub command: Option<Command>,
    /// The program that runs the guest; another one than QEMU only in serve mode.
    pub vmm: Vmm,
    /// The path at which passt's socket is offered, in serve mode.
    pub listen: Option<PathBuf>,
    /// The socket that the caller brings, in serve mode.
    pub socket: Option<CallerSocket>,
    /// The files of QEMU's `-readconfig` that the caller was able to read.
    pub config_files: Vec<ConfigFile>,
    /// The NICs of a guest that runs already; none for a launch that starts QEMU.
    pub present: PresentNics,
}

/// The caller's QEMU command line, unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program, a path or a name to look up in PATH.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl Default for NicRequest {
    fn default() -> Self {
        NicRequest {
            backend: None,
            attachment: None,
            port_group: None,
            filter: None,
            bandwidth: None,
            transport: None,
            id: Id::default(),
            id_named: false,
            mac: None,
            device: Device::default(),
            device_named: false,
            publish: Vec::new(),
            free_ports: Vec::new(),
            address: AddressChoice::Default,
            gateway: None,
            dns: None,
            search: Vec::new(),
            hostname: None,
            mtu: None,
            interface: None,
            family: Family::Both,
            host_loopback: true,
            pcap: None,
            queues: None,
            passt_options: Vec::new(),
        }
    }
}

/// The largest MTU that every passt accepts, in bytes (measured: passt refuses larger ones).
pub const MAX_MTU: u16 = 65520;

impl NicRequest {
    /// Returns whether the NIC needs a port of a bridge or a network.
    pub(crate) fn is_on_bridge(&self) -> bool {
        self.attachment.is_some() || self.backend == Some(Backend::Bridge)
    }

    /// Checks the attachment, the filter and the user, and the settings that a bridged guest cannot
    /// have.
    pub(super) fn check_bridge(&self, user: Option<&UserName>) -> Result<(), RequestError> {
        if self.filter.is_some() && self.attachment.is_none() {
            return Err(RequestError::FilterNeedsBridge);
        }
        match (&self.attachment, self.backend) {
            (None, Some(Backend::Bridge)) => return Err(RequestError::NoBridgeNamed),
            (Some(attachment), backend) if backend != Some(Backend::Bridge) => {
                let (attachment, backend) =
                    (attachment.setting(), backend.map_or("auto", Backend::name));
                return Err(RequestError::BackendNotBridge { attachment, backend });
            }
            (None, _) => {
                return match (user, self.transport) {
                    (Some(user), Some(other)) if other != Transport::Fd => {
                        let (user, transport) = (user.clone(), other.name());
                        Err(RequestError::UserSocket { user, transport })
                    }
                    _ => Ok(()),
                };
            }
            _ => {}
        }
        self.check_published()?;
        let stray = [
            (self.address != AddressChoice::Default, Setting::Address),
            (self.gateway.is_some(), Setting::Gateway),
            (self.dns.is_some(), Setting::Dns),
            (!self.search.is_empty(), Setting::Search),
            (self.hostname.is_some(), Setting::Hostname),
            (self.interface.is_some(), Setting::Interface),
            (self.family == Family::V4, Setting::Ipv4Only),
            (self.family == Family::V6, Setting::Ipv6Only),
            (!self.host_loopback, Setting::HostLoopback),
            (self.transport.is_some(), Setting::Transport),
            (!self.passt_options.is_empty(), Setting::PasstOption),
        ];
        match stray.into_iter().find(|(given, _)| *given) {
            Some((_, setting)) => Err(RequestError::NotOnBridge(setting)),
            None => Ok(()),
        }
    }

    /// Checks that no setting is for a protocol version that the guest does not have.
    pub(super) fn check_family(&self) -> Result<(), RequestError> {
        let (off, has, restriction): (fn(&IpAddr) -> bool, _, _) = match self.family {
            Family::Both => return Ok(()),
            Family::V4 => (IpAddr::is_ipv6, "IPv6", Setting::Ipv4Only),
            Family::V6 => (IpAddr::is_ipv4, "IPv4", Setting::Ipv6Only),
        };
        if let Some(publish) = self.publish_requests().find(|(address, _)| off(address)) {
            return Err(RequestError::FamilyPublish { publish: publish.1, has, restriction });
        }
        if let Some(dns) = self.dns.filter(off) {
            return Err(match self.family {
                Family::V6 => RequestError::FamilyAddress(Setting::Dns),
                _ => RequestError::FamilyDns(dns),
            });
        }
        if self.family == Family::V6 {
            if matches!(self.address, AddressChoice::Fixed(_)) {
                return Err(RequestError::FamilyAddress(Setting::Address));
            }
            if self.gateway.is_some() {
                return Err(RequestError::FamilyAddress(Setting::Gateway));
            }
        }
        Ok(())
    }

    /// Checks the gateway and the DNS server.
    pub(super) fn check_addresses(&self) -> Result<(), RequestError> {
        if let Some(dns) =
            self.dns.filter(|d| d.is_unspecified() || d.is_multicast() || d.is_loopback())
        {
            return Err(RequestError::Dns(dns));
        }
        match self.address {
            AddressChoice::Host if self.gateway.is_some() => Err(RequestError::HostGateway),
            AddressChoice::Fixed(address) => {
                GuestAddresses::new(address, self.gateway, self.forwarder(address))?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Returns the requested DNS server if it is an address of the subnet of `guest`.
    pub fn forwarder(&self, guest: HostAddress) -> Option<Ipv4Addr> {
        match self.dns {
            Some(IpAddr::V4(dns)) if guest.subnet().contains(&dns) => Some(dns),
            _ => None,
        }
    }
}

impl Request {
    /// Returns the largest number of NICs that a plan for this request has.
    pub(crate) fn nic_count(&self) -> usize {
        let settings = self.settings();
        let groups = ["netdev", "nic", "net"].into_iter();
        1 + self.nics.len() + groups.map(|group| settings.of_group(group).count()).sum::<usize>()
    }

    /// Returns the NICs that are added to QEMU arguments without a user-mode network.
    pub fn added(&self) -> &[NicRequest] {
        if self.nics.is_empty() { std::slice::from_ref(&self.nic) } else { &self.nics }
    }

    /// Returns the caller's QEMU command line; `None` in serve mode.
    pub fn command_line(&self) -> Option<CommandLine> {
        self.command.as_ref().map(|command| CommandLine::parse(&command.args))
    }

    /// Returns the settings of the caller's QEMU command line; none in serve mode.
    pub fn settings(&self) -> Settings {
        let line = self.command_line();
        line.map(|line| line.settings(&self.config_files)).unwrap_or_default()
    }
}
