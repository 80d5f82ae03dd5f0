//! Reads and writes one element of a network's lists, such as `<host>`, in a document of its own.
//!
//! A live change of a network adds, replaces or removes one such element. The whole document is
//! read and written by the same functions, so an element means the same in both.

use super::model::{DhcpHost, DhcpRange, DnsHost, PortGroup, Srv, Txt};
use super::{write, xml as reader};
use crate::types::InterfaceName;
use crate::xml::{self, Element, ElementReader, Tag, XmlError};

/// An element of one of a network's lists.
pub trait ListElement: Sized {
    /// The element's name.
    const NAME: &'static str;

    /// Reads the element. Whether it fits the other parts of the network is the question of
    /// [`super::check`].
    ///
    /// # Errors
    /// The first [`XmlError`].
    fn from_element(element: &Element) -> Result<Self, XmlError>;

    /// Returns the element for writing.
    fn to_tag(&self) -> Tag;

    /// Reads a document that is this element.
    ///
    /// # Errors
    /// The first [`XmlError`].
    fn from_xml(bytes: &[u8]) -> Result<Self, XmlError> {
        let root = xml::read(bytes)?;
        let reader = ElementReader::root(&root, Self::NAME)?;
        Self::from_element(reader.element())
    }
}

/// Implements [`ListElement`] by a function of the reader and one of the writer.
macro_rules! list_element {
    ($type:ty, $name:literal, $function:ident) => {
        impl ListElement for $type {
            const NAME: &'static str = $name;

            fn from_element(element: &Element) -> Result<Self, XmlError> {
                reader::$function(element)
            }

            fn to_tag(&self) -> Tag {
                write::$function(self)
            }
        }
    };
}

list_element!(DhcpHost, "host", dhcp_host);
list_element!(DhcpRange, "range", dhcp_range);
list_element!(DnsHost, "host", dns_host);
list_element!(Txt, "txt", txt);
list_element!(Srv, "srv", srv);
list_element!(InterfaceName, "interface", interface);
list_element!(PortGroup, "portgroup", port_group);
