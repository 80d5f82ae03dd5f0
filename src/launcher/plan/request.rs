//! What the caller asks for, already validated part by part; [`Request::check`] validates the whole.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::RequestError;
use crate::network::NetworkName;
use crate::nwfilter::{FilterName, Parameter};
use crate::types::{
    Device, DomainName, GuestView, HostAddress, Id, InterfaceName, LaunchName, Mac, Publish,
    UserName, overlap,
};

/// A way to give a guest its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The passt program, connected to QEMU by a socket.
    Passt,
    /// The user network inside QEMU (libslirp).
    Slirp,
    /// A tap device on a bridge; only where it is named.
    Bridge,
}

impl Backend {
    /// The name used on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Passt => "passt",
            Backend::Slirp => "slirp",
            Backend::Bridge => "bridge",
        }
    }

    /// Whether "auto" may choose it.
    pub fn is_automatic(self) -> bool {
        self != Backend::Bridge
    }
}

/// What a bridged guest joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// A virtual network of netlaunch's, which must be active.
    Network(NetworkName),
    /// A bridge of this host, whoever made it.
    Bridge(InterfaceName),
}

impl Attachment {
    /// The option that asks for it.
    pub fn option(&self) -> &'static str {
        match self {
            Attachment::Network(_) => "--network",
            Attachment::Bridge(_) => "--bridge",
        }
    }
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How passt and QEMU are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// A listening UNIX socket in the launch directory; survives a restart of passt.
    Unix,
    /// A connected pair of sockets, inherited; needs no path, cannot reconnect.
    Fd,
    /// vhost-user over a UNIX socket; the guest's memory must be shared.
    VhostUser,
}

impl Transport {
    /// The name used on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Unix => "unix",
            Transport::Fd => "fd",
            Transport::VhostUser => "vhost-user",
        }
    }
}

/// Which internet protocol versions the guest gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4, and IPv6 where the host has it.
    #[default]
    Both,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// Which IPv4 address the guest gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AddressChoice {
    /// 10.0.2.15/24, or the like in another private subnet where the host routes that one.
    #[default]
    Default,
    /// The host's own, mirrored by passt.
    Host,
    /// This one.
    Fixed(HostAddress),
}

impl FromStr for AddressChoice {
    type Err = crate::types::AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "host" => Ok(AddressChoice::Host),
            _ => text.parse().map(AddressChoice::Fixed),
        }
    }
}

/// The network filter of a guest on a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFilter {
    /// The filter.
    pub name: FilterName,
    /// Values for its variables, in the order given; a name that comes several times is a list.
    pub parameters: Vec<Parameter>,
}

/// A request for a guest's network. [`Request::default`] is what `netlaunch` does without options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The backend to use and no other; `None` is "auto": passt, else slirp.
    pub backend: Option<Backend>,
    /// What a guest on the bridge backend joins; `None` on the others.
    pub attachment: Option<Attachment>,
    /// The filter of a guest on the bridge backend.
    pub filter: Option<GuestFilter>,
    /// The transport to use and no other; `None` is `unix`, or `fd` where no socket path can be.
    pub transport: Option<Transport>,
    /// `id=` of the netdev.
    pub id: Id,
    /// The guest card's address; `None` is a random one.
    pub mac: Option<Mac>,
    /// The guest's card.
    pub device: Device,
    /// Ports of the host that reach the guest.
    pub publish: Vec<Publish>,
    /// The guest's IPv4 address.
    pub address: AddressChoice,
    /// The guest's router; `None` is the second address of the guest's subnet.
    pub gateway: Option<Ipv4Addr>,
    /// The guest's DNS server. An address of the guest's subnet forwards to the host's resolver;
    /// any other is handed to the guest as it is (passt only). `None` is the former.
    pub dns: Option<IpAddr>,
    /// DNS search domains.
    pub search: Vec<DomainName>,
    /// The guest's name in DHCP.
    pub hostname: Option<DomainName>,
    /// The MTU the guest is told; on a bridge `None` is the bridge's. 68 to 65520 bytes (1280 at least where IPv6 is used).
    pub mtu: Option<u16>,
    /// The host interface whose addresses and routes passt takes.
    pub interface: Option<InterfaceName>,
    /// Protocol versions.
    pub family: Family,
    /// Whether the guest reaches the host's loopback services at the gateway's address.
    pub host_loopback: bool,
    /// A file to which passt or QEMU writes the guest's frames.
    pub pcap: Option<PathBuf>,
    /// What to call the launch in `netlaunch ps`.
    pub name: Option<LaunchName>,
    /// Whom QEMU runs as, without capabilities; only for root.
    pub user: Option<UserName>,
    /// QEMU and its arguments; `None` is serve mode, in which the caller starts QEMU.
    pub command: Option<Command>,
}

/// A QEMU command line, as the caller gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program, a path or a name to look up in PATH.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl Default for Request {
    fn default() -> Self {
        Request {
            backend: None,
            attachment: None,
            filter: None,
            transport: None,
            id: Id::default(),
            mac: None,
            device: Device::default(),
            publish: Vec::new(),
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
            name: None,
            user: None,
            command: None,
        }
    }
}

/// The largest MTU that every passt takes (measured: larger ones are refused).
pub const MAX_MTU: u16 = 65520;

impl Request {
    /// Checks that the parts of the request go together.
    ///
    /// # Errors
    /// The first [`RequestError`] found; each is the caller's mistake (exit status 2).
    pub fn check(&self) -> Result<(), RequestError> {
        self.check_bridge()?;
        if let Some((first, second, port)) = overlap(&self.publish) {
            return Err(RequestError::Overlap {
                first: first.clone(),
                second: second.clone(),
                port,
            });
        }
        self.check_family()?;
        self.check_addresses()?;
        let least = if self.family == Family::V6 { 1280 } else { 68 };
        if let Some(mtu) = self.mtu.filter(|mtu| !(least..=MAX_MTU).contains(mtu)) {
            return Err(RequestError::Mtu { mtu, least });
        }
        match &self.command {
            None if self.transport == Some(Transport::Fd) => Err(RequestError::ServeFd),
            None => match &self.user {
                Some(user) => Err(RequestError::ServeUser(user.clone())),
                None => Ok(()),
            },
            Some(command) => self.check_command(command),
        }
    }

    fn check_bridge(&self) -> Result<(), RequestError> {
        if self.filter.is_some() && self.attachment.is_none() {
            return Err(RequestError::FilterWithout);
        }
        match (&self.attachment, self.backend) {
            (None, Some(Backend::Bridge)) => return Err(RequestError::NothingToJoin),
            (Some(attachment), backend) if backend != Some(Backend::Bridge) => {
                let (option, backend) =
                    (attachment.option(), backend.map_or("auto", Backend::name));
                return Err(RequestError::JoinWithout { option, backend });
            }
            (None, _) => {
                return match (&self.user, self.transport) {
                    (Some(user), Some(other)) if other != Transport::Fd => {
                        let (user, transport) = (user.clone(), other.name());
                        Err(RequestError::UserSocket { user, transport })
                    }
                    _ => Ok(()),
                };
            }
            _ => {}
        }
        let stray = [
            (!self.publish.is_empty(), "-p"),
            (self.address != AddressChoice::Default, "--address"),
            (self.gateway.is_some(), "--gateway"),
            (self.dns.is_some(), "--dns"),
            (!self.search.is_empty(), "--search"),
            (self.hostname.is_some(), "--hostname"),
            (self.interface.is_some(), "--interface"),
            (self.family == Family::V4, "--ipv4-only"),
            (self.family == Family::V6, "--ipv6-only"),
            (!self.host_loopback, "--no-host-loopback"),
            (self.transport.is_some(), "--transport"),
        ];
        match stray.into_iter().find(|(given, _)| *given) {
            Some((_, option)) => Err(RequestError::NotOnBridge(option)),
            None => Ok(()),
        }
    }

    fn check_family(&self) -> Result<(), RequestError> {
        let (off, has, option): (fn(&IpAddr) -> bool, _, _) = match self.family {
            Family::Both => return Ok(()),
            Family::V4 => (IpAddr::is_ipv6, "IPv6", "--ipv4-only"),
            Family::V6 => (IpAddr::is_ipv4, "IPv4", "--ipv6-only"),
        };
        if let Some(publish) = self.publish.iter().find(|p| off(&p.address)) {
            return Err(RequestError::FamilyPublish { publish: publish.clone(), has, option });
        }
        if let Some(dns) = self.dns.filter(off) {
            return Err(match self.family {
                Family::V6 => RequestError::FamilyAddress("--dns with an IPv4 address"),
                _ => RequestError::FamilyDns(dns),
            });
        }
        if self.family == Family::V6 {
            if matches!(self.address, AddressChoice::Fixed(_)) {
                return Err(RequestError::FamilyAddress("--address"));
            }
            if self.gateway.is_some() {
                return Err(RequestError::FamilyAddress("--gateway"));
            }
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), RequestError> {
        if let Some(dns) =
            self.dns.filter(|d| d.is_unspecified() || d.is_multicast() || d.is_loopback())
        {
            return Err(RequestError::Dns(dns));
        }
        match self.address {
            AddressChoice::Host if self.gateway.is_some() => Err(RequestError::HostGateway),
            AddressChoice::Fixed(address) => {
                GuestView::new(address, self.gateway, self.forwarder(address))?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The DNS server asked for, where it is an address of the guest's subnet.
    pub fn forwarder(&self, guest: HostAddress) -> Option<Ipv4Addr> {
        match self.dns {
            Some(IpAddr::V4(dns)) if guest.subnet().contains(&dns) => Some(dns),
            _ => None,
        }
    }

    fn check_command(&self, command: &Command) -> Result<(), RequestError> {
        let args: Vec<_> = command.args.iter().map(|a| a.to_string_lossy()).collect();
        if let Some(arg) = args.iter().find(|a| *a == "-daemonize" || *a == "--daemonize") {
            return Err(RequestError::Daemonize(arg.to_string()));
        }
        let taken = args.windows(2).any(|pair| {
            let netdev = pair[0] == "-netdev" || pair[0] == "--netdev";
            netdev
                && pair[1].split(',').any(|part| part.strip_prefix("id=") == Some(self.id.as_str()))
        });
        if taken { Err(RequestError::IdTaken(self.id.clone())) } else { Ok(()) }
    }
}
