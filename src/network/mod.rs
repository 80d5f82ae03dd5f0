//! Virtual networks: libvirt's network XML as a value, the store of definitions, and the parts that
//! run a network on the host.
//!
//! ```text
//! bytes ──xml::parse──▶ Network + Places ──check──▶ ok ──store──▶ CONFIG/networks/NAME.xml
//!                          └──write──▶ XML that libvirt's schema accepts
//! ```
//!
//! [`parse`], [`check`], [`check_against`], [`to_xml`], [`update`] and [`event`] are pure, and
//! [`NetworkStore`] uses the files of definitions. The other parts work on the host: [`manager`]
//! starts, changes, repairs and ends networks, [`dnsmasq`] runs their DHCP and DNS server,
//! [`relay`] carries connections from the host's loopback addresses to guests, and
//! [`guest_address`] reads the addresses of guests.
//!
//! An element or attribute that libvirt's format has and netlaunch does not support is
//! an error that names it. The facts about the format come from libvirt's documentation ("Network
//! XML format").

mod check;
mod check_error;
pub mod dnsmasq;
mod dnsmasq_option;
pub mod event;
mod fields;
#[cfg(test)]
mod generate;
#[cfg(test)]
mod generate_port;
pub mod guest_address;
mod list_element;
pub mod manager;
mod model;
mod places;
#[cfg(test)]
mod refused_port_tests;
#[cfg(test)]
mod refused_tests;
pub mod relay;
mod store;
mod store_error;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod tests;
pub mod update;
mod values;
mod write;
mod xml;

use std::fmt;

pub use check::{check, check_against};
pub use check_error::{CheckError, CheckFailure};
pub use dnsmasq_option::{DnsmasqOption, DnsmasqOptionError};
pub use list_element::ListElement;
pub use model::{
    AddressRange, Bootp, Bridge, Client, Dhcp, DhcpHost, DhcpRange, Dns, DnsHost, DnsServer,
    Domain, Forward, Forwarder, Ip, Lease, Nat, Network, PortGroup, PortProperties, Route, Srv,
    SrvTarget, Txt,
};
pub use places::{Part, Places};
pub use store::{BrokenFile, DefineRequest, Definition, NetworkStore};
pub use store_error::StoreError;
pub use values::{
    BootFile, Duid, NetworkName, PortGroupName, ServiceName, TftpRoot, Title, TxtValue, ValueError,
    ZoneName,
};
pub use write::to_xml;
pub use xml::{Fill, Parsed, parse};

pub use crate::xml::store::Origin;
use crate::xml::{Position, XmlError, XmlErrorKind};

/// A mistake in a network's document and its place; the text is `LINE:COLUMN: mistake; fix`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
#[non_exhaustive]
pub struct DocumentError {
    /// The line and column of the mistake.
    pub place: Position,
    /// The mistake and its fix.
    pub what: DocumentErrorKind,
}

/// A mistake in a network's document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DocumentErrorKind {
    /// The document is not XML, or it is not a network.
    Xml(XmlErrorKind),
    /// The parts of the network do not fit together, or the network conflicts with another one.
    Check(CheckError),
}

impl fmt::Display for DocumentErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DocumentErrorKind::Xml(mistake) => mistake.fmt(f),
            DocumentErrorKind::Check(error) => error.fmt(f),
        }
    }
}

impl From<XmlError> for DocumentError {
    fn from(error: XmlError) -> Self {
        DocumentError { place: error.place, what: DocumentErrorKind::Xml(error.what) }
    }
}

impl Parsed {
    /// Returns the error for `problem` in this document, with its place.
    pub fn locate(&self, problem: CheckFailure) -> DocumentError {
        DocumentError {
            place: self.places.of(problem.part),
            what: DocumentErrorKind::Check(problem.what),
        }
    }
}

/// Reads a document and checks it: [`parse`], then [`check`].
///
/// # Errors
/// The first mistake in the document.
pub fn load(bytes: &[u8], fill: Option<&Fill>) -> Result<Parsed, DocumentError> {
    let parsed = parse(bytes, fill)?;
    match check(&parsed.network) {
        Ok(()) => Ok(parsed),
        Err(problem) => Err(parsed.locate(problem)),
    }
}
