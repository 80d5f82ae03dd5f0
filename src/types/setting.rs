//! The settings of a launch, which errors and fixes name.

use std::fmt;

/// A setting of a launch.
///
/// Errors and fixes name settings by these nouns. A front end adds its own word for each setting,
/// as the command line adds the name of the option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Setting {
    /// The backend.
    Backend,
    /// The connection of passt and QEMU.
    Transport,
    /// The virtual network that the guest joins.
    Network,
    /// The bridge that the guest joins.
    Bridge,
    /// The filter of the guest's port.
    Filter,
    /// The limits of the guest's traffic.
    Bandwidth,
    /// The QEMU program.
    Qemu,
    /// The id of the netdev.
    Id,
    /// The guest's network card.
    Device,
    /// The address of the guest's card.
    Mac,
    /// The list of NICs.
    Nics,
    /// Whether the NICs of the QEMU arguments stay as they are.
    KeepNics,
    /// The file with the guest's frames.
    Pcap,
    /// The published ports.
    Publish,
    /// Whether the guest reaches the host's loopback services.
    HostLoopback,
    /// The guest's IPv4 address.
    Address,
    /// The guest's IPv4 gateway.
    Gateway,
    /// The guest's DNS server.
    Dns,
    /// The guest's DNS search domains.
    Search,
    /// The guest's host name.
    Hostname,
    /// The guest's MTU.
    Mtu,
    /// The host interface for passt.
    Interface,
    /// The queue pairs of the card.
    Queues,
    /// A further option for passt.
    PasstOption,
    /// The program that the arguments are for.
    Vmm,
    /// The path at which passt's socket is offered.
    Listen,
    /// The socket that the caller brings.
    ListenFd,
    /// The restriction to IPv4.
    Ipv4Only,
    /// The restriction to IPv6.
    Ipv6Only,
    /// The user that QEMU runs as.
    User,
    /// The time for the guest to power down.
    StopTimeout,
    /// The command that starts QEMU.
    Command,
    /// The directory of launch directories.
    StateDir,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Setting::Backend => "the backend",
            Setting::Transport => "the transport",
            Setting::Network => "the network",
            Setting::Bridge => "the bridge",
            Setting::Filter => "the filter",
            Setting::Bandwidth => "the bandwidth",
            Setting::Qemu => "the QEMU program",
            Setting::Id => "the netdev's id",
            Setting::Device => "the network card",
            Setting::Mac => "the card's address",
            Setting::Nics => "the list of NICs",
            Setting::KeepNics => "the choice to keep the NICs",
            Setting::Publish => "a published port",
            Setting::HostLoopback => "the closed host loopback",
            Setting::Address => "the guest's address",
            Setting::Gateway => "the gateway",
            Setting::Dns => "the DNS server",
            Setting::Search => "a search domain",
            Setting::Hostname => "the host name",
            Setting::Mtu => "the MTU",
            Setting::Interface => "the host interface",
            Setting::Pcap => "the capture file",
            Setting::Queues => "the queues",
            Setting::PasstOption => "a passt option",
            Setting::Vmm => "the VMM",
            Setting::Listen => "the path of the socket",
            Setting::ListenFd => "the caller's socket",
            Setting::Ipv4Only => "the restriction to IPv4",
            Setting::Ipv6Only => "the restriction to IPv6",
            Setting::User => "the user",
            Setting::StopTimeout => "the stop timeout",
            Setting::Command => "the QEMU command",
            Setting::StateDir => "the state directory",
        })
    }
}
