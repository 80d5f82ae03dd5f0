//! The errors of a change of one element.

use super::UpdateSection;
use crate::network::CheckError;
use crate::xml::XmlError;

/// The sections of libvirt's list that cannot change here. libvirt refuses all of them too, except
/// for a network that is not active, whose definition can be edited instead.
const OTHERS: [&str; 5] = ["bridge", "domain", "ip", "forward", "forward-pf"];

/// A text names no section that can change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SectionError {
    /// libvirt has this section, and here it cannot change by itself.
    #[error("the section {0} cannot be updated alone: change the whole definition of the network")]
    Whole(String),
    /// There is no such section.
    #[error(
        "{0:?} is no section: use ip-dhcp-host, ip-dhcp-range, forward-interface, portgroup, dns-host, dns-txt or dns-srv"
    )]
    Unknown(String),
}

impl SectionError {
    /// Returns the error for this text.
    pub(super) fn new(text: &str) -> Self {
        if OTHERS.contains(&text) {
            SectionError::Whole(text.to_owned())
        } else {
            SectionError::Unknown(text.to_owned())
        }
    }
}

/// Why an element of a network cannot change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The document is not a valid element; the place is in the document of the element.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// An element with the same key exists already.
    #[error(
        "the section {section} has an element with the same {key} already; delete that one first"
    )]
    Exists {
        /// The section.
        section: UpdateSection,
        /// The attribute that both have.
        key: &'static str,
    },
    /// No element matches.
    #[error("the network has no such {0}; compare the element with the network's document")]
    Missing(UpdateSection),
    /// Several elements match.
    #[error(
        "{count} elements of the section {section} match; give more attributes, so that one matches"
    )]
    Several {
        /// The section.
        section: UpdateSection,
        /// The number of the elements that match.
        count: usize,
    },
    /// Elements of this section have no key by which one could be replaced.
    #[error("an element of {0} cannot be modified; delete it, and add the new one")]
    NotModifiable(UpdateSection),
    /// The network has no such `<ip>`.
    #[error("the network has no <ip> number {index}; it has {count}, counted from 0")]
    Parent {
        /// The number.
        index: usize,
        /// The number of `<ip>` elements.
        count: usize,
    },
    /// No subnet of the network has the address of the element.
    #[error("no <ip> of the network has a subnet for this {0}; correct its address")]
    NoSubnet(UpdateSection),
    /// Only `<ip>` elements have numbers.
    #[error("an element of {0} has no parent index; leave the index out")]
    NoParent(UpdateSection),
    /// The forward mode has no interfaces.
    #[error(
        "a network with the forward mode {0} has no forward-interface; only nat and route have them"
    )]
    NoInterfaces(&'static str),
    /// The changed network has a mistake.
    #[error("the network would not be valid: {0}")]
    Check(CheckError),
}
