//! Plans how the guest's DNS queries reach the host's DNS servers through passt.
//!
//! If passt can forward queries from an address of the guest's networks, the guest gets that
//! address as its server. Then a change of the host's servers needs a restart of passt, but no
//! change in the guest. There are two kinds of passt:
//!
//! - Newer passt (with `--dns-host`) forwards from any address to one server of each IP version. It
//!   announces [`GuestAddresses::dns`](crate::types::GuestAddresses) and [`V6_DNS`], and then the
//!   host's further servers unchanged, so the guest can ask them if the first one does not answer.
//! - Older passt cannot announce an address and forward from it (measured: with `--dns` it does not
//!   read the host's server, and with `--dns-forward` alone the server's own answers get a wrong
//!   sender). It announces the host's own servers, or the gateway for a server on the loopback
//!   address. After a change it forwards from the address that the guest got first, and announces
//!   that address last: a guest that repeats DHCP gets the new server, whose answers have the wrong
//!   sender, and then uses the other address.
//!
//! If resolv.conf(5) names no server, the server is this host, as in the C library.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::path::PathBuf;

use super::draft::Draft;
use super::request::{AddressChoice, Backend, Family};
use crate::types::facts::Facts;

/// The address at which the guest reaches the host's ::1; slirp uses the same.
pub(super) const V6_HOST: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 2);
/// The address from which IPv6 queries are forwarded; slirp uses the same.
const V6_DNS: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 3);
/// The number of servers that a guest's C library asks (MAXNS in resolv.h).
const SERVERS: usize = 3;

/// The DNS mode of passt, and the host's servers from which its arguments follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DnsPlan {
    mode: DnsMode,
    /// The host's servers at the start of the launch.
    first: Vec<IpAddr>,
    /// The host's servers in passt's arguments.
    current: Vec<IpAddr>,
    /// The range of the DNS arguments in passt's argument vector.
    range: Range<usize>,
    /// The file that names the host's servers.
    pub resolv_conf: PathBuf,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum DnsMode {
    /// The guest asks the server that the request names. The host's servers do not matter.
    #[default]
    Fixed,
    /// Newer passt forwards from addresses of the guest's networks.
    Forward {
        /// The guest's server and gateway; `None` for a guest without IPv4.
        v4: Option<(Ipv4Addr, Ipv4Addr)>,
        v6: bool,
        host_loopback: bool,
    },
    /// passt announces the host's own servers.
    Copy(CopyMode),
}

impl DnsPlan {
    /// Makes the DNS plan of a launch. [`DnsPlan::add_arguments`] completes it.
    pub(super) fn new(draft: &Draft) -> Self {
        let Draft { context, nic, addresses } = draft;
        let facts = context.facts;
        let newer = facts.passt.has("dns-host");
        let host_loopback = nic.host_loopback;
        let mode = if draft.foreign_dns().is_some() {
            DnsMode::Fixed
        } else if newer && nic.address != AddressChoice::Host {
            DnsMode::Forward {
                v4: addresses.map(|addresses| (addresses.dns, addresses.gateway)),
                v6: nic.family != Family::V4,
                host_loopback,
            }
        } else {
            let gateway = addresses.map(|addresses| addresses.gateway);
            DnsMode::Copy(CopyMode { gateway, host_loopback, newer })
        };
        let servers = servers(facts);
        let resolv_conf = facts.host.resolv_conf.clone();
        DnsPlan { mode, first: servers.clone(), current: servers, range: 0..0, resolv_conf }
    }

    /// Adds the DNS arguments to passt's argument vector, and notes their range.
    pub(super) fn add_arguments(&mut self, argv: &mut Vec<OsString>) {
        let start = argv.len();
        argv.extend(self.arguments());
        self.range = start..argv.len();
    }

    /// Makes the plan for a host with other servers, and replaces the arguments in `argv`.
    ///
    /// Returns `None`, and leaves `argv` unchanged, if the guest would see no difference. An empty
    /// list of servers counts as no difference, because a file without servers is one that another
    /// program is writing.
    pub(super) fn replace(&self, servers: &[IpAddr], argv: &mut Vec<OsString>) -> Option<Self> {
        let mut plan = DnsPlan { current: servers.to_vec(), ..self.clone() };
        if servers.is_empty() || !self.differs(&plan) {
            return None;
        }
        let args = plan.arguments();
        plan.range.end = plan.range.start + args.len();
        argv.splice(self.range.clone(), args);
        Some(plan)
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut options = Options(Vec::new());
        match &self.mode {
            DnsMode::Fixed => {}
            DnsMode::Forward { v4, v6, host_loopback } => {
                if let Some((dns, gateway)) = v4 {
                    let gateway = host_loopback.then_some(*gateway);
                    forward_v4(&mut options, *dns, gateway, &v4_of(&self.current));
                }
                if *v6 {
                    forward_v6(&mut options, &v6_of(&self.current));
                }
            }
            DnsMode::Copy(copy) => {
                copy.add_options(&mut options, &v4_of(&self.first), &v4_of(&self.current));
            }
        }
        options.0
    }

    /// Returns whether the plans differ in the servers that answer the guest's queries.
    fn differs(&self, other: &DnsPlan) -> bool {
        match self.mode {
            DnsMode::Fixed => false,
            DnsMode::Forward { .. } => self.arguments() != other.arguments(),
            DnsMode::Copy(_) => self.current != other.current,
        }
    }

    /// Returns the host's server to which newer passt forwards IPv4 queries.
    pub(super) fn forwarded_to(facts: &Facts) -> Option<Ipv4Addr> {
        v4_of(&servers(facts)).first().copied().filter(|_| facts.passt.has("dns-host"))
    }
}

/// Returns the DNS server that the guest gets by DHCP; `None` if netlaunch does not choose it.
pub(super) fn announced(draft: &Draft, backend: Backend) -> Option<IpAddr> {
    if backend == Backend::Bridge {
        return None;
    }
    let forwards =
        backend == Backend::Slirp || DnsPlan::forwarded_to(draft.context.facts).is_some();
    let forwarder = draft.dns_forwarder().filter(|_| forwards);
    draft.foreign_dns().or(forwarder.map(IpAddr::V4))
}

/// passt's options about DNS.
struct Options(Vec<OsString>);

impl Options {
    fn add(&mut self, name: &str, value: impl Into<IpAddr>) {
        self.0.push(format!("--{name}").into());
        self.0.push(value.into().to_string().into());
    }
}

/// Forwards IPv4 queries from `dns`. `gateway` is the guest's address for 127.0.0.1 of the host, if
/// the guest may reach that.
fn forward_v4(
    options: &mut Options,
    dns: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
    servers: &[Ipv4Addr],
) {
    let Some((server, others)) = servers.split_first() else { return };
    options.add("dns-forward", dns);
    options.add("dns", dns);
    options.add("dns-host", *server);
    for other in others {
        match gateway {
            _ if !other.is_loopback() => options.add("dns", *other),
            Some(gateway) if *other == Ipv4Addr::LOCALHOST => options.add("dns", gateway),
            _ => {}
        }
    }
}

/// Forwards IPv6 queries from [`V6_DNS`].
fn forward_v6(options: &mut Options, servers: &[Ipv6Addr]) {
    let Some((server, others)) = servers.split_first() else { return };
    options.add("dns-forward", V6_DNS);
    options.add("dns", V6_DNS);
    options.add("dns-host", *server);
    for other in others.iter().filter(|s| !s.is_loopback() && !s.is_unicast_link_local()) {
        options.add("dns", *other);
    }
}

/// A passt that announces the host's own servers. Of newer passt, it is the mode of a guest that
/// mirrors the host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CopyMode {
    /// The guest's gateway, if netlaunch sets it.
    gateway: Option<Ipv4Addr>,
    /// Whether the gateway stands for the host's loopback address.
    host_loopback: bool,
    newer: bool,
}

impl CopyMode {
    /// Adds the options for a host whose servers were `first` at the start and are `current` now.
    fn add_options(&self, options: &mut Options, first: &[Ipv4Addr], current: &[Ipv4Addr]) {
        let changed = current.first().filter(|server| first.first() != Some(*server));
        match changed {
            Some(server) => {
                let Some(known) = self.first_announced(first) else { return };
                if self.newer {
                    options.add("dns-forward", known);
                    options.add("dns", known);
                    options.add("dns-host", *server);
                } else {
                    self.announce_last(options, known, current);
                }
            }
            None if self.newer => {}
            None => self.announce_loopback(options, current),
        }
    }

    /// Returns the server that the guest got first.
    fn first_announced(&self, first: &[Ipv4Addr]) -> Option<Ipv4Addr> {
        let server = first.first()?;
        if !server.is_loopback() {
            return Some(*server);
        }
        self.gateway.filter(|_| self.host_loopback || *server == Ipv4Addr::LOCALHOST)
    }

    /// Makes older passt forward from the address `known`, and announce it after the new servers.
    fn announce_last(&self, options: &mut Options, known: Ipv4Addr, current: &[Ipv4Addr]) {
        options.add("dns-forward", known);
        let announced = |server: &&Ipv4Addr| self.host_loopback || !server.is_loopback();
        let announced = current.iter().filter(announced).count();
        // passt replaces the unspecified addresses by the servers that it reads.
        if announced < SERVERS {
            (0..announced).for_each(|_| options.add("dns", Ipv4Addr::UNSPECIFIED));
            options.add("dns", known);
        }
    }

    /// Makes older passt announce the gateway for a server at 127.0.0.1.
    ///
    /// passt does not take 0.0.0.0 or an empty file for this host. Without a server it forwards to
    /// 0.0.0.0, which is 127.0.0.1.
    fn announce_loopback(&self, options: &mut Options, current: &[Ipv4Addr]) {
        let (Some(gateway), Some(&Ipv4Addr::LOCALHOST)) = (self.gateway, current.first()) else {
            return;
        };
        if !self.host_loopback {
            options.add("dns-forward", gateway);
        }
        options.add("dns", gateway);
        for other in current.iter().filter(|server| !server.is_loopback()) {
            options.add("dns", *other);
        }
    }
}

/// Returns the host's servers, or this host if it names none.
fn servers(facts: &Facts) -> Vec<IpAddr> {
    match (&facts.host.resolvers_problem, &facts.host.resolvers) {
        (Some(_), none) if none.is_empty() => vec![Ipv4Addr::LOCALHOST.into()],
        (_, servers) => servers.clone(),
    }
}

fn v4_of(servers: &[IpAddr]) -> Vec<Ipv4Addr> {
    let v4 = |server: &IpAddr| match server {
        IpAddr::V4(server) => Some(*server),
        IpAddr::V6(_) => None,
    };
    servers.iter().filter_map(v4).take(SERVERS).collect()
}

fn v6_of(servers: &[IpAddr]) -> Vec<Ipv6Addr> {
    let v6 = |server: &IpAddr| match server {
        IpAddr::V6(server) => Some(*server),
        IpAddr::V4(_) => None,
    };
    servers.iter().filter_map(v6).take(SERVERS).collect()
}

/// Returns the reason why the guest cannot resolve names, or only over IPv6; `None` if it can.
pub(super) fn warning(draft: &Draft, backend: Backend) -> Option<String> {
    let Draft { context, nic, .. } = draft;
    let facts = context.facts;
    if nic.dns.is_some() || backend == Backend::Bridge {
        return None;
    }
    if let Some(problem) = &facts.host.resolvers_problem {
        return Some(match backend {
            Backend::Passt if nic.family != Family::V6 => format!(
                "{problem}: the guest's DNS queries go to 127.0.0.1 of this host; name a server in the file, or set the DNS server"
            ),
            _ => format!(
                "{problem}: the guest cannot resolve names; name a server in the file, or set the DNS server"
            ),
        });
    }
    let servers = servers(facts);
    let (v4, v6) = (v4_of(&servers), v6_of(&servers));
    let fix = "set the DNS server to another one";
    let older = backend == Backend::Passt && !facts.passt.has("dns-host");
    let has_v6 = nic.family != Family::V4 && facts.host.default_v6.is_some();
    match (v4.first(), v6.first()) {
        (Some(server), _)
            if older
                && !nic.host_loopback
                && *server != Ipv4Addr::LOCALHOST
                && v4.iter().all(Ipv4Addr::is_loopback) =>
        {
            Some(format!(
                "this passt cannot forward DNS queries to {server} alone of the host's loopback addresses: the guest cannot resolve names; {fix}"
            ))
        }
        (Some(server), None) if nic.family == Family::V6 => Some(format!(
            "the host's DNS server {server} is out of reach for a guest without IPv4: the guest cannot resolve names; {fix}"
        )),
        (None, Some(server)) if !has_v6 => Some(format!(
            "the host's DNS server {server} is out of reach for a guest without IPv6: the guest cannot resolve names; {fix}"
        )),
        // For a server on ::1 this passt announces the gateway, which is not the host here.
        (None, Some(server))
            if older && !nic.host_loopback && v6.iter().all(Ipv6Addr::is_loopback) =>
        {
            Some(format!(
                "this passt cannot forward DNS queries to {server} alone of the host's loopback addresses: the guest cannot resolve names; {fix}"
            ))
        }
        (None, Some(server)) if nic.family == Family::Both => Some(format!(
            "the host's DNS server {server} has an IPv6 address: the guest resolves names over IPv6 only; {fix}"
        )),
        _ => None,
    }
}
