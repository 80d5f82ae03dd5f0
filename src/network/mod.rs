//! Virtual networks: libvirt's network XML as a value, and the store that keeps the definitions.
//!
//! ```text
//! bytes ──xml::parse──▶ Network + Places ──check──▶ ok ──store──▶ CONFIG/networks/NAME.xml
//!                          └──write──▶ XML that libvirt's schema accepts
//! ```
//!
//! [`parse`], [`check`], [`check_against`] and [`to_xml`] are pure; only [`NetworkStore`] touches
//! files. What libvirt's format has and netlaunch does not is refused by name. The facts about the
//! format are from libvirt's documentation ("Network XML format").

mod check;
mod fields;
#[cfg(test)]
mod generate;
mod model;
mod places;
mod problem;
#[cfg(test)]
mod refused_tests;
mod store;
mod store_error;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod tests;
mod values;
mod write;
mod xml;

use std::fmt;

pub use check::{check, check_against};
pub use model::{
    AddressRange, Bootp, Bridge, Client, Dhcp, DhcpHost, DhcpRange, Dns, DnsHost, Domain, Forward,
    Forwarder, Ip, Lease, Nat, Network, Route, Srv, SrvTarget, Txt,
};
pub use places::{Part, Places};
pub use problem::{CheckError, Problem};
pub use store::{Broken, Define, Definition, NetworkStore};
pub use store_error::StoreError;
pub use values::{
    BootFile, Duid, NetworkName, ServiceName, TftpRoot, TxtValue, ValueError, ZoneName,
};
pub use write::to_xml;
pub use xml::{Fill, Parsed, parse};

pub use crate::definitions::Origin;
use crate::xml::{Mistake, Place, XmlError};

/// A mistake in a network's document and where it is. Its text is `LINE:COLUMN: what; fix`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct DocumentError {
    /// Where.
    pub place: Place,
    /// What, and what to write instead.
    pub what: Fault,
}

/// A mistake in a network's document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not XML, or not a network.
    Xml(Mistake),
    /// Its parts do not go together, or not with other networks.
    Check(CheckError),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Xml(mistake) => mistake.fmt(f),
            Fault::Check(error) => error.fmt(f),
        }
    }
}

impl From<XmlError> for DocumentError {
    fn from(error: XmlError) -> Self {
        DocumentError { place: error.place, what: Fault::Xml(error.what) }
    }
}

impl Parsed {
    /// The error that `problem` is in this document.
    pub fn locate(&self, problem: Problem) -> DocumentError {
        DocumentError { place: self.places.of(problem.part), what: Fault::Check(problem.what) }
    }
}

/// Reads a document and checks it: [`parse`], then [`check`].
///
/// # Errors
/// The first mistake.
pub fn load(bytes: &[u8], fill: Option<&Fill>) -> Result<Parsed, DocumentError> {
    let parsed = parse(bytes, fill)?;
    match check(&parsed.network) {
        Ok(()) => Ok(parsed),
        Err(problem) => Err(parsed.locate(problem)),
    }
}
