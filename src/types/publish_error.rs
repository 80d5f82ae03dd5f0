//! The reasons why a text does not describe a published port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::publish::PortRange;

/// The reason why a text does not describe a published port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishTextError {
    /// The text does not have the form that the module's documentation gives.
    #[error(
        "{0:?} is not [ADDR:]HOSTPORT[-END][:GUESTPORT[-END]][/tcp|udp], such as 2222:22 or [::1]:8080:80/tcp"
    )]
    Form(String),
    /// The part before the ports is not an IP address.
    #[error("{address:?} in {text:?} is not an IP address: write 127.0.0.1, 0.0.0.0 or [::1]")]
    Address {
        /// The whole text.
        text: String,
        /// The part that should be an address.
        address: String,
    },
    /// No socket can listen on this address.
    #[error(
        "{address} in {text:?} cannot be listened on: use one of the host's addresses, or 0.0.0.0 for all"
    )]
    NotLocal {
        /// The whole text.
        text: String,
        /// The address.
        address: IpAddr,
    },
    /// The address is an IPv4 address in the form of an IPv6 address, on which no IPv6 socket that
    /// serves IPv6 alone can listen.
    #[error("{text:?} has an IPv4 address in IPv6 form: write {address} without brackets")]
    Mapped {
        /// The whole text.
        text: String,
        /// The IPv4 address.
        address: Ipv4Addr,
    },
    /// The address is that of one link, and the text cannot name the interface.
    #[error(
        "{address} in {text:?} is a link-local address, which needs the name of an interface: use another address of the host, or [::] for all"
    )]
    LinkLocal {
        /// The whole text.
        text: String,
        /// The address.
        address: Ipv6Addr,
    },
    /// A part of the text is not a port number.
    #[error("{port:?} in {text:?} is not a port: use 1 to 65535{}", free(text))]
    Port {
        /// The whole text.
        text: String,
        /// The part that should be a port.
        port: String,
    },
    /// The range starts at a higher port than it ends.
    #[error("the range {first}-{last} in {text:?} runs backwards: write {last}-{first}")]
    Backwards {
        /// The whole text.
        text: String,
        /// The first port written.
        first: u16,
        /// The second port written.
        last: u16,
    },
    /// The guest's range would go past port 65535.
    #[error("the guest's ports in {0:?} would run past 65535: start lower or shorten the range")]
    GuestRange(String),
    /// The guest's range and the host's range have different lengths.
    #[error(
        "the ranges {host} and {guest} in {text:?} have different lengths: write {host}:{first}"
    )]
    Length {
        /// The whole text.
        text: String,
        /// The host's ports.
        host: PortRange,
        /// The guest's ports.
        guest: PortRange,
        /// The first of the guest's ports.
        first: u16,
    },
    /// One free port is for one port of the guest.
    #[error("{0:?} asks for one free port for several ports of the guest: publish each of them")]
    FreeRange(String),
    /// The protocol is neither tcp nor udp.
    #[error("{protocol:?} in {text:?} is not a protocol: use tcp or udp")]
    Protocol {
        /// The whole text.
        text: String,
        /// The part after the slash.
        protocol: String,
    },
}

/// Returns the fix for a text that asks for port 0 and names no port of the guest.
fn free(text: &str) -> &'static str {
    match text.split('/').next() {
        Some("0") => ", or 0:GUESTPORT for a free port of the host",
        _ => "",
    }
}

impl PublishTextError {
    /// Returns the same error about another text.
    pub(super) fn about(mut self, whole: &str) -> Self {
        let (PublishTextError::Form(text)
        | PublishTextError::GuestRange(text)
        | PublishTextError::FreeRange(text)
        | PublishTextError::Address { text, .. }
        | PublishTextError::NotLocal { text, .. }
        | PublishTextError::Mapped { text, .. }
        | PublishTextError::LinkLocal { text, .. }
        | PublishTextError::Port { text, .. }
        | PublishTextError::Backwards { text, .. }
        | PublishTextError::Length { text, .. }
        | PublishTextError::Protocol { text, .. }) = &mut self;
        whole.clone_into(text);
        self
    }
}
