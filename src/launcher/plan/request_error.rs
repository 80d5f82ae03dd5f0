//! The errors of a request whose parts contradict each other.
//!
//! Each message is one line: the contradiction, then the fix. None of them depends on the host.

use std::net::IpAddr;
use std::path::PathBuf;

use super::socket::MAX_LISTEN_PATH;
use crate::types::{
    BandwidthError, GuestAddressesError, Id, InterfaceName, Mac, PortGroupName, Publish,
    PublishRequest, Setting, UserName,
};

/// A contradiction between parts of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Two published ports use the same host port.
    #[error(
        "the published ports {first} and {second} both use port {port} of the host: give one of them another host port"
    )]
    Overlap {
        /// The earlier one.
        first: Publish,
        /// The later one.
        second: Publish,
        /// The host port of both.
        port: u16,
    },
    /// A port is published on an address of a protocol version that the guest does not have.
    #[error(
        "the published port {publish} listens on {has}, and the guest has no {has}: publish on an address of the other version, or give the guest {has}"
    )]
    FamilyPublish {
        /// The published port.
        publish: PublishRequest,
        /// "IPv4" or "IPv6".
        has: &'static str,
        /// The setting that switches this version off.
        restriction: Setting,
    },
    /// A guest without IPv4 has an IPv4 setting.
    #[error("{0} is an IPv4 setting, and the guest has only IPv6: drop one of the two settings")]
    FamilyAddress(Setting),
    /// A guest without IPv6 has an IPv6 DNS server.
    #[error(
        "the DNS server {0} has an IPv6 address, and the guest has only IPv4: use an IPv4 address, or give the guest IPv6"
    )]
    FamilyDns(IpAddr),
    /// `--address host` and an own gateway.
    #[error(
        "a gateway cannot go with the host's addresses, which bring the host's gateway: drop one of the two settings"
    )]
    HostGateway,
    /// The gateway or the DNS server does not fit the guest's address.
    #[error(transparent)]
    GuestAddresses(#[from] GuestAddressesError),
    /// The DNS server has an unspecified, multicast or loopback address.
    #[error(
        "the DNS server {0} is not a server's address: use one such as 9.9.9.9, or leave the server out for the host's resolver"
    )]
    Dns(IpAddr),
    /// The MTU is out of range.
    #[error("the MTU {mtu} is out of range: use {least} to 65520")]
    Mtu {
        /// The requested MTU in bytes.
        mtu: u16,
        /// The smallest allowed MTU in bytes.
        least: u16,
    },
    /// A setting of the single NIC is given besides a list of NICs.
    #[error(
        "{0} is for a launch with a single NIC, and this launch lists its NICs: write the setting into the list"
    )]
    SingleWithList(Setting),
    /// A setting of the card is given, and the caller's QEMU arguments have the card.
    #[error(
        "{} is only for a card that netlaunch adds, and the QEMU arguments bring their own NIC ({written}), which keeps its card: drop the setting, or keep that NIC as it is and add another one",
        of_card(setting)
    )]
    CardKept {
        /// The setting.
        setting: Setting,
        /// The NIC as the caller wrote it.
        written: String,
    },
    /// A setting needs a backend to which the NIC of the caller's QEMU arguments cannot move.
    #[error(
        "{setting} cannot be applied to {written} of the QEMU arguments, which stays on slirp ({why}): drop the setting, or keep that NIC as it is and add another one"
    )]
    LeftSetting {
        /// The setting.
        setting: Setting,
        /// The NIC as the caller wrote it.
        written: String,
        /// The reason why the NIC stays.
        why: String,
    },
    /// An MTU is requested, and the caller's QEMU arguments set another one on the card.
    #[error(
        "the MTU {mtu} is requested, and {written} of the QEMU arguments sets another host_mtu: drop one of the two"
    )]
    CardMtu {
        /// The requested MTU in bytes.
        mtu: u16,
        /// The option that sets the card's MTU, as the caller wrote it.
        written: String,
    },
    /// An MTU is requested, and QEMU can set it only for all cards of the caller's arguments.
    #[error(
        "the MTU {mtu} is requested, and QEMU would set it on each virtio card of its arguments, not only on that of {written}: write that card as -device with host_mtu={mtu}, or drop the MTU"
    )]
    SharedMtu {
        /// The requested MTU in bytes.
        mtu: u16,
        /// The NIC as the caller wrote it.
        written: String,
    },
    /// vhost-user is requested, and the card of the caller's arguments gets a hub.
    #[error(
        "vhost-user faces the card itself, and QEMU keeps the order of its cards only with a hub between {0} and its card: use the transport unix, or attach the card with -device"
    )]
    VhostUserHub(String),
    /// A setting for user-mode networks is given besides a list of NICs without one.
    #[error(
        "{0} is for passt and slirp, and each NIC of this launch is on a bridge, which has its network from there: drop the setting, or add a NIC on passt or slirp"
    )]
    UserModeWithList(Setting),
    /// A setting for passt is given besides a list of NICs without passt.
    #[error(
        "{0} is for the backend passt, and no NIC of this launch can have it: drop the setting, or add a NIC on passt"
    )]
    PasstWithList(Setting),
    /// Two NICs have the same id.
    #[error("two NICs have the id {0}: give each NIC an id of its own")]
    SameId(Id),
    /// Two NICs have the same hardware address.
    #[error("two NICs have the address {0}: give each card an address of its own")]
    SameMac(Mac),
    /// Two NICs are in one subnet.
    #[error(
        "two NICs have addresses of one subnet ({first} and {second}), and the guest would use one NIC for both: give each NIC a subnet of its own"
    )]
    SameSubnet {
        /// The address of the earlier NIC.
        first: String,
        /// The address of the later NIC.
        second: String,
    },
    /// The request has no NIC.
    #[error("the launch has no NIC: add one, or start QEMU without a launcher")]
    NoNic,
    /// The caller's QEMU arguments already use the id of the netdev.
    #[error("the QEMU arguments have a netdev with id={0} already: choose another id")]
    IdTaken(Id),
    /// The caller's QEMU arguments already use another id that netlaunch needs.
    #[error(
        "the QEMU arguments have a {kind} with id={taken} already, which netlaunch needs: choose another id"
    )]
    PartTaken {
        /// `-chardev` or `-object` without the dash.
        kind: &'static str,
        /// The id.
        taken: String,
    },
    /// The caller's QEMU arguments attach a card to the netdev, which takes one card only.
    #[error(
        "the QEMU arguments attach a card of their own to the netdev {id} ({card}), which takes one card: set the network card to none, or choose another id"
    )]
    CardTaken {
        /// The netdev.
        id: Id,
        /// The option that attaches the card.
        card: String,
    },
    /// A user-mode network of the caller's QEMU arguments reaches the host's loopback addresses.
    #[error(
        "the host's loopback is not closed to the user-mode network of the QEMU arguments ({0}): drop that network from the QEMU arguments, or drop the setting that closes the loopback"
    )]
    OwnNetwork(String),
    /// The bridge backend is requested without a network or bridge to join.
    #[error("the backend bridge needs a network or bridge that the guest joins: name one")]
    NoBridgeNamed,
    /// A network or bridge to join is requested with another backend.
    #[error(
        "{attachment} is for the backend bridge, and the backend is {backend}: drop one of the two settings"
    )]
    BackendNotBridge {
        /// The network or the bridge.
        attachment: Setting,
        /// The backend, or auto.
        backend: &'static str,
    },
    /// A filter is requested for a guest that is not on a bridge.
    #[error(
        "a filter is for a guest's port on a bridge: name a network or a bridge, or drop the filter"
    )]
    FilterNeedsBridge,
    /// A port group is requested without a network.
    #[error("the port group {0} is one of a network's: name the network, or drop the port group")]
    GroupNeedsNetwork(PortGroupName),
    /// Limits of traffic are requested for a guest that is not on a bridge.
    #[error(
        "a bandwidth is for a guest's port on a bridge: name a network or a bridge, or drop the bandwidth"
    )]
    BandwidthNeedsBridge,
    /// The limits of traffic are not possible.
    #[error(transparent)]
    Bandwidth(#[from] BandwidthError),
    /// A bridged guest has a setting of user-mode networks.
    #[error(
        "{0} is for passt and slirp, and a guest on a bridge has its network from there: drop this setting"
    )]
    NotOnBridge(Setting),
    /// A port is published to a guest on a bridge that no network has.
    #[error(
        "{publish} cannot be published to a guest on the bridge {bridge}, because only a network has rules for that: define a network with <forward mode='bridge'/> and <bridge name='{bridge}'/>, and join that network"
    )]
    PublishWithoutNetwork {
        /// The published port.
        publish: PublishRequest,
        /// The bridge.
        bridge: InterfaceName,
    },
    /// A guest on passt or slirp cannot have several queues.
    #[error(
        "a guest on passt or slirp has one queue, and {0} are requested, because one thread moves all its frames: drop the queues, or put the guest on a bridge"
    )]
    QueuesOfUserMode(u16),
    /// The card cannot have several queues.
    #[error(
        "only virtio cards have several queues, and {count} are requested for {model}: drop the queues, or use the card virtio-net-pci"
    )]
    QueuesOfCard {
        /// The requested number.
        count: u16,
        /// The card.
        model: String,
    },
    /// QEMU writes the frames of one queue only to a file.
    #[error(
        "QEMU captures the frames of a card with one queue only, and {0} are requested: drop the queues or the capture file"
    )]
    QueuesCaptured(u16),
    /// An option for passt is one that netlaunch itself decides.
    #[error("netlaunch itself decides passt's --{name}: drop this passt option{}", or_use(instead))]
    PasstOption {
        /// The option's name without dashes.
        name: &'static str,
        /// The setting for it.
        instead: Option<Setting>,
    },
    /// netlaunch starts QEMU only.
    #[error(
        "netlaunch starts QEMU only, and the arguments are requested for {0}: drop the QEMU command, and start {0} with the printed arguments"
    )]
    VmmCommand(&'static str),
    /// Another VMM than QEMU has no such backend.
    #[error(
        "{vmm} gets its network from passt, and the backend is {backend}: use the backend passt"
    )]
    VmmBackend {
        /// The VMM.
        vmm: &'static str,
        /// The backend.
        backend: &'static str,
    },
    /// The VMM has no such connection to passt.
    #[error(
        "{vmm} connects to passt by {needed}, and the transport is {other}: drop the transport"
    )]
    VmmTransport {
        /// The VMM.
        vmm: &'static str,
        /// Its transport.
        needed: &'static str,
        /// The requested transport.
        other: &'static str,
    },
    /// QEMU would write the capture file.
    #[error("with this transport QEMU writes the capture file, and {0} does not: drop the file")]
    VmmCapture(&'static str),
    /// The path of the socket is longer than the path of any socket.
    #[error(
        "the socket path {} is {length} bytes long, and {MAX_LISTEN_PATH} is the most to which a program can connect: use a shorter path", path.display()
    )]
    ListenPath {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// The path of the socket has a comma, which the VMM's arguments cannot have in a value.
    #[error(
        "a comma ends a value in the arguments of {vmm}, and the socket path {} has one: change {setting}", path.display()
    )]
    VmmPath {
        /// The VMM.
        vmm: &'static str,
        /// The path.
        path: PathBuf,
        /// The setting that names the path.
        setting: Setting,
    },
    /// Both a path and a socket are given.
    #[error(
        "the caller's socket needs no path, because it has its own connection: drop one of the two settings"
    )]
    TwoSockets,
    /// The caller decides about the socket, and netlaunch starts QEMU.
    #[error(
        "{0} is for programs that the caller starts, and netlaunch starts QEMU: drop the QEMU command or this setting"
    )]
    SocketCommand(Setting),
    /// The guest has several NICs, and the setting is for one socket.
    #[error("{0} is for a guest with one NIC: drop this setting, or request one NIC")]
    SocketOfSeveral(Setting),
    /// The backend has no socket.
    #[error("{0} is for the backend passt: use that backend, or drop this setting")]
    SocketBackend(Setting),
    /// The transport does not go with the socket.
    #[error("{0} does not go with this transport: drop the transport, or use another VMM")]
    SocketTransport(Setting),
    /// QEMU's user cannot open passt's socket.
    #[error(
        "the user {user} cannot reach passt's socket with the transport {transport}: use the transport fd"
    )]
    UserSocket {
        /// The user.
        user: UserName,
        /// The transport.
        transport: &'static str,
    },
    /// A user for QEMU is requested in serve mode, in which netlaunch does not start QEMU.
    #[error("QEMU can run as the user {0} only if netlaunch starts it: add the QEMU command")]
    ServeUser(UserName),
    /// A stop timeout is requested in serve mode, in which netlaunch does not start QEMU.
    #[error(
        "a guest can get a time to power down only if netlaunch starts its QEMU: drop the stop timeout, or add the QEMU command"
    )]
    ServeStopTimeout,
    /// The fd transport is requested in serve mode, in which no child inherits the descriptor.
    #[error(
        "with the transport fd QEMU inherits a descriptor, so netlaunch must start it: add the QEMU command, or use the transport unix"
    )]
    ServeFd,
}

/// Returns the words for a setting of the card. Of the card itself, the model is the setting.
fn of_card(setting: &Setting) -> String {
    match setting {
        Setting::Device => "a device model".to_owned(),
        other => other.to_string(),
    }
}

/// Returns the clause that names the setting to use in place of an option for passt.
fn or_use(instead: &Option<Setting>) -> String {
    instead.map(|setting| format!(", and set {setting} instead")).unwrap_or_default()
}
