//! The NICs that a running guest has already, as far as they matter for another one.

use ipnet::Ipv4Net;

/// The NICs that the guest of an attachment has already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresentNics {
    /// Their IPv4 subnets. An added NIC gets another one.
    pub subnets: Vec<Ipv4Net>,
    /// Whether a passt among them may give the guest an address by DHCPv6.
    pub has_dhcpv6: bool,
    /// Whether an option of their QEMU sets the MTU of each virtio card. A card for another network
    /// must then have its own.
    pub has_global_mtu: bool,
}
