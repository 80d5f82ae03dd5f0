//! Changes one element of a network: the verbs and sections of libvirt's network update.
//!
//! [`NetworkUpdate::apply`] is a pure function from a network to the changed network. It refuses an
//! element that exists already, that does not exist, or that does not fit the network, so a change
//! never has a silent effect. The facts about verbs and sections come from libvirt's documentation
//! of `virsh net-update` and from its behaviour (libvirt 9 and 12).

mod dhcp;
mod error;
mod lists;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

pub use error::{SectionError, UpdateError};

use super::Network;
use super::check;
use crate::xml;

/// The change of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateVerb {
    /// Adds the element behind the others.
    AddLast,
    /// Adds the element before the others.
    AddFirst,
    /// Replaces the element that has the same key.
    Modify,
    /// Removes the element that has all given attributes.
    Delete,
}

/// A list of elements that can change. Exhaustive, because each section needs its own reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateSection {
    /// `<host>` in `<dhcp>`.
    DhcpHost,
    /// `<range>` in `<dhcp>`.
    DhcpRange,
    /// `<host>` in `<dns>`.
    DnsHost,
    /// `<txt>` in `<dns>`.
    DnsTxt,
    /// `<srv>` in `<dns>`.
    DnsSrv,
    /// `<interface>` in `<forward>`.
    ForwardInterface,
    /// `<portgroup>`.
    PortGroup,
}

impl UpdateSection {
    /// All sections, in the order of libvirt's list.
    pub const ALL: [UpdateSection; 7] = [
        UpdateSection::DhcpHost,
        UpdateSection::DhcpRange,
        UpdateSection::ForwardInterface,
        UpdateSection::PortGroup,
        UpdateSection::DnsHost,
        UpdateSection::DnsTxt,
        UpdateSection::DnsSrv,
    ];

    /// Returns libvirt's name of the section.
    pub fn name(self) -> &'static str {
        match self {
            UpdateSection::DhcpHost => "ip-dhcp-host",
            UpdateSection::DhcpRange => "ip-dhcp-range",
            UpdateSection::DnsHost => "dns-host",
            UpdateSection::DnsTxt => "dns-txt",
            UpdateSection::DnsSrv => "dns-srv",
            UpdateSection::ForwardInterface => "forward-interface",
            UpdateSection::PortGroup => "portgroup",
        }
    }
}

impl fmt::Display for UpdateSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for UpdateSection {
    type Err = SectionError;

    fn from_str(text: &str) -> Result<Self, SectionError> {
        let found = UpdateSection::ALL.into_iter().find(|section| section.name() == text);
        found.ok_or_else(|| SectionError::new(text))
    }
}

/// A change of one element of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkUpdate {
    /// The change.
    pub verb: UpdateVerb,
    /// The list of the element.
    pub section: UpdateSection,
    /// The document that is the element.
    pub xml: Vec<u8>,
    /// The number of the `<ip>` whose DHCP server changes, from 0; `None` lets the addresses of the
    /// element decide.
    pub parent: Option<usize>,
}

impl NetworkUpdate {
    /// Returns the network with the change. The result passes [`check`].
    ///
    /// # Errors
    /// [`UpdateError`] if the element is not valid or does not fit the network.
    pub fn apply(&self, network: &Network) -> Result<Network, UpdateError> {
        let element = xml::read(&self.xml)?;
        let mut changed = network.clone();
        match self.section {
            UpdateSection::DhcpHost => dhcp::host(&mut changed, self, &element)?,
            UpdateSection::DhcpRange => dhcp::range(&mut changed, self, &element)?,
            UpdateSection::DnsHost => lists::dns_host(&mut changed.dns, self, &element)?,
            UpdateSection::DnsTxt => lists::dns_txt(&mut changed.dns, self, &element)?,
            UpdateSection::DnsSrv => lists::dns_srv(&mut changed.dns, self, &element)?,
            UpdateSection::ForwardInterface => {
                lists::forward_interface(&mut changed.forward, self, &element)?;
            }
            UpdateSection::PortGroup => {
                lists::port_group(&mut changed.port_groups, self, &element)?;
            }
        }
        check(&changed).map_err(|problem| UpdateError::Check(problem.what))?;
        Ok(changed)
    }
}

/// Adds an element at the end that the verb names.
fn add<T>(list: &mut Vec<T>, verb: UpdateVerb, element: T) {
    match verb {
        UpdateVerb::AddFirst => list.insert(0, element),
        _ => list.push(element),
    }
}

/// Returns the place of the one element for which `matches` is true.
fn only<T>(
    list: &[T],
    section: UpdateSection,
    matches: impl Fn(&T) -> bool,
) -> Result<usize, UpdateError> {
    let mut found = list.iter().enumerate().filter(|(_, element)| matches(element));
    match (found.next(), found.count()) {
        (None, _) => Err(UpdateError::Missing(section)),
        (Some((at, _)), 0) => Ok(at),
        (Some(_), others) => Err(UpdateError::Several { section, count: others + 1 }),
    }
}
