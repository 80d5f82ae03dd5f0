//! The reasons why a NIC stays on slirp.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;

use crate::launcher::qemu_options::{Parameters, path_value};
use crate::types::{AddressError, GuestAddressesError, IdError, TextError};

/// The reason why a user-mode network of QEMU's arguments stays as it is. The text is a clause that
/// follows "stays on slirp:". It names the options at fault as the caller writes them,
/// `hostfwd=tcp::2222-:22`, and not netlaunch's form of their meaning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Left {
    /// slirp has a service that passt does not have.
    #[error("passt has no equivalent of {0}")]
    NoEquivalent(String),
    /// The guest must not reach other networks than slirp's own.
    #[error("passt cannot keep the guest from all other networks as {0} does")]
    Restricted(String),
    /// The option is not known here.
    #[error("netlaunch does not know the option {0}")]
    UnknownOption(String),
    /// QEMU refuses the options, with its own message.
    #[error("QEMU refuses {what} ({option})")]
    Refused {
        /// The mistake.
        what: &'static str,
        /// The options that have it.
        option: String,
    },
    /// QEMU may accept the text, but it is not read here.
    #[error("netlaunch does not read {what} ({option})")]
    Unread {
        /// The kind of text.
        what: &'static str,
        /// The option.
        option: String,
    },
    /// A forward that passt cannot do in the same way.
    #[error("{why} ({forward})")]
    Forward {
        /// The option `hostfwd`, or a port of the launch in netlaunch's form.
        forward: String,
        /// The reason.
        why: &'static str,
    },
    /// This passt delays the first bytes of a server in the guest.
    #[error(
        "this passt delivers the first bytes of a server in the guest only after the client has sent some, so a client that waits for the server hangs ({0})"
    )]
    ServerFirst(String),
    /// Another option, such as a filter, names a port of the hub, and the move removes it.
    #[error("another option names a port of its hub (netdev={0})")]
    HubPort(String),
    /// The guest's address cannot be given to passt.
    #[error("the guest's address cannot be moved ({option})")]
    Address {
        /// The options that give the address.
        option: String,
        /// The reason.
        source: AddressError,
    },
    /// The guest's gateway or DNS server cannot be given to passt.
    #[error("the addresses of the guest's network cannot be moved ({option})")]
    Addresses {
        /// The options that give the addresses.
        option: String,
        /// The reason.
        source: GuestAddressesError,
    },
    /// slirp answers for a DNS server outside of the guest's subnet.
    #[error(
        "slirp passes queries for {0} to the host's DNS server, and with passt they would go to {0} itself (dns={0})"
    )]
    ForeignDns(Ipv4Addr),
    /// A host name or a search domain cannot be given to passt.
    #[error("the name cannot be moved ({option})")]
    Name {
        /// The option that has the name.
        option: String,
        /// The reason.
        source: TextError,
    },
    /// The guest asks for IPv6 alone, and the host has none.
    #[error("the network has IPv6 alone ({0}), and this host has no IPv6 route")]
    NoIpv6Route(String),
    /// The launch publishes a port on IPv4, which the network does not have.
    #[error("{option} leaves it without IPv4, which the published port {publish} needs")]
    NoIpv4 {
        /// The options that choose the IP version.
        option: String,
        /// The port of the launch in netlaunch's form.
        publish: String,
    },
    /// The options of the launch switch off the only IP version of the network.
    #[error("the network has {has} alone ({option}), which this launch switches off")]
    OtherFamily {
        /// `IPv4` or `IPv6`.
        has: &'static str,
        /// The options that choose the IP version.
        option: String,
    },
    /// The last option of the line lacks its value, and a new word would become that value.
    #[error("QEMU refuses {0} without its value")]
    NoValue(String),
    /// The id is not one that netlaunch can use.
    #[error("its id cannot be used")]
    Id(#[source] IdError),
    /// A file of `-readconfig` defines it.
    #[error("a file defines it, and netlaunch changes command lines only")]
    ConfigFile,
    /// A `-set` changes it, and QEMU takes `-set` for old netdev types only.
    #[error("-set changes it, and QEMU has no -set for the netdev of another backend")]
    Set,
    /// No card is attached to it.
    #[error("no card is attached to it")]
    NoCard,
    /// The network serves several stations of a hub.
    #[error(
        "a hub joins it with several stations ({0}), and passt has one address for all of them"
    )]
    Hub(String),
    /// Several user-mode networks serve one hub.
    #[error("another user-mode network serves the same hub")]
    SharedHub,
}

impl Left {
    /// Makes the reason that a forward stays, from the value of its `hostfwd`.
    pub(super) fn forward(forward: &[u8], why: &'static str) -> Self {
        Left::Forward { forward: option("hostfwd", forward), why }
    }
}

/// Returns an option as the caller writes it, `key=value`.
pub(super) fn option(key: &str, value: &[u8]) -> String {
    let value = path_value(OsStr::from_bytes(value).as_ref());
    format!("{key}={}", value.display())
}

/// Returns those of these options that the caller gives, as the caller writes them.
pub(super) fn given(options: &Parameters, keys: &[&str]) -> String {
    let given = keys.iter().filter_map(|key| Some(option(key, options.get(key)?)));
    given.collect::<Vec<_>>().join(",")
}
