//! What can be wrong with a request, in one line each.

use std::net::IpAddr;

use crate::types::{GuestViewError, Id, Publish, UserName};

/// Parts of a request that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Two published ports are the same.
    #[error("-p {first} and -p {second} both want port {port}: give one of them another host port")]
    Overlap {
        /// The earlier one.
        first: Publish,
        /// The later one.
        second: Publish,
        /// The port both want.
        port: u16,
    },
    /// A port is published on an address of the protocol version that is switched off.
    #[error(
        "-p {publish} listens on {has}, but {option} leaves the guest without it: publish on an address of the other kind, or drop {option}"
    )]
    FamilyPublish {
        /// The published port.
        publish: Publish,
        /// "IPv4" or "IPv6".
        has: &'static str,
        /// The option that switches it off.
        option: &'static str,
    },
    /// An IPv4 setting of a guest without IPv4.
    #[error(
        "{0} is an IPv4 setting, but --ipv6-only leaves the guest without IPv4: drop one of them"
    )]
    FamilyAddress(&'static str),
    /// An IPv6 DNS server for a guest without IPv6.
    #[error(
        "--dns {0} is an IPv6 address, but --ipv4-only leaves the guest without IPv6: use an IPv4 address, or drop --ipv4-only"
    )]
    FamilyDns(IpAddr),
    /// `--address host` and an own gateway.
    #[error(
        "--gateway cannot go with --address host, which takes the host's own gateway: drop one of them"
    )]
    HostGateway,
    /// The addresses make no network.
    #[error("{0}")]
    View(#[from] GuestViewError),
    /// No guest can be reached at such an address.
    #[error(
        "--dns {0} is not a server's address: use one such as 9.9.9.9, or leave --dns out for the host's resolver"
    )]
    Dns(IpAddr),
    /// The MTU is out of range.
    #[error("--mtu {mtu} is out of range: use {least} to 65520")]
    Mtu {
        /// What was asked for.
        mtu: u16,
        /// The least that works.
        least: u16,
    },
    /// QEMU would leave the supervisor behind.
    #[error(
        "QEMU's {0} would take it away from netlaunch, which supervises it: drop {0} and let netlaunch run in the background instead"
    )]
    Daemonize(String),
    /// QEMU's arguments use the id already.
    #[error("the QEMU arguments have a netdev with id={0} already: choose another with --id")]
    IdTaken(Id),
    /// The bridge backend, and nothing to join.
    #[error(
        "--backend bridge needs what the guest is to join: add --network NAME, or --bridge IFNAME"
    )]
    NothingToJoin,
    /// Something to join, and another backend.
    #[error(
        "{option} is for the bridge backend, and --backend {backend} was given: drop one of them"
    )]
    JoinWithout {
        /// `--network` or `--bridge`.
        option: &'static str,
        /// The backend, or auto.
        backend: &'static str,
    },
    /// A filter of a guest without a port.
    #[error(
        "--filter is for a guest's port on a bridge: add --network NAME or --bridge IFNAME, or drop --filter"
    )]
    FilterWithout,
    /// A setting of user-mode networks for a bridged guest.
    #[error(
        "{0} is for passt and slirp, and a guest on a bridge has its network from there: drop {0}"
    )]
    NotOnBridge(&'static str),
    /// passt's socket is closed to the user.
    #[error(
        "--user {user} cannot reach passt's socket with --transport {transport}: use --transport fd"
    )]
    UserSocket {
        /// The user.
        user: UserName,
        /// The transport.
        transport: &'static str,
    },
    /// Serve mode has no QEMU to run as somebody.
    #[error(
        "--user {0} says whom QEMU runs as, so netlaunch must start QEMU itself: add -- QEMU ARGS"
    )]
    ServeUser(UserName),
    /// The fd transport needs a child to hand the descriptor to.
    #[error(
        "--transport fd hands QEMU an open descriptor, so netlaunch must start QEMU itself: add -- QEMU ARGS, or use --transport unix"
    )]
    ServeFd,
}
