//! Bindings: which filter a port of the host has, as libvirt's filterbinding XML says it.

use super::model::{FilterRef, Parameter};
use super::value::FilterName;
use super::variable::Variables;
use super::{write, xml};
use crate::types::checked_text::checked_text;
use crate::types::{InterfaceName, Mac, Uuid};
use crate::xml::{Mistake, Tag, Take, XmlError, read};

/// A filter on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The guest that has the port. libvirt's schema wants one; netlaunch does without.
    pub owner: Option<Owner>,
    /// The port: a tap or veth interface of the host.
    pub port: InterfaceName,
    /// The hardware address of the guest's card.
    pub mac: Mac,
    /// The filter.
    pub filter: FilterName,
    /// Values for its variables, in the document's order; a name that comes several times is a
    /// list.
    pub parameters: Vec<Parameter>,
}

/// A guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// What it is called.
    pub name: OwnerName,
    /// What it is known by.
    pub uuid: Uuid,
}

/// The text is not what a guest is called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// It is empty, too long, or not printable.
    #[error("{0:?} cannot name a guest: use 1 to 256 bytes without control characters")]
    Name(String),
}

checked_text!(
    /// What the owner of a port is called.
    OwnerName, OwnerError::Name, |text| {
        (1..=256).contains(&text.len()) && !text.contains(char::is_control)
    }
);

impl Binding {
    /// Reads a document.
    ///
    /// # Errors
    /// The first [`XmlError`].
    pub fn parse(bytes: &[u8]) -> Result<Binding, XmlError> {
        let root = read(bytes)?;
        let mut take = Take::root(&root, "filterbinding")?;
        let owner = take.child("owner")?.map(|element| element.take(owner)).transpose()?;
        let port = take.child("portdev")?.ok_or_else(|| take.missing_child("portdev"))?;
        let port = port.take(|take| take.required("name"))?;
        if let Some(link) = take.child("linkdev")? {
            let what = Mistake::Unsupported {
                what: "<linkdev>, a port without a bridge,".to_owned(),
                fix: "remove it, and attach the port to a bridge",
            };
            return Err(XmlError { place: link.place, what });
        }
        let mac = take.child("mac")?.ok_or_else(|| take.missing_child("mac"))?;
        let mac = mac.take(|take| take.required("address"))?;
        let reference = take.child("filterref")?.ok_or_else(|| take.missing_child("filterref"))?;
        let FilterRef { filter, parameters } = reference.take(xml::reference)?;
        take.finish()?;
        Ok(Binding { owner, port, mac, filter, parameters })
    }

    /// The binding as a document, with a newline at its end.
    pub fn to_xml(&self) -> String {
        let owner = self.owner.as_ref().map(|owner| {
            let tags = [Tag::text("name", &owner.name), Tag::text("uuid", owner.uuid)];
            Tag::new("owner").children(tags)
        });
        let reference =
            FilterRef { filter: self.filter.clone(), parameters: self.parameters.clone() };
        Tag::new("filterbinding")
            .children(owner)
            .children([
                Tag::new("portdev").attribute("name", &self.port),
                Tag::new("mac").attribute("address", self.mac),
                write::reference(&reference),
            ])
            .to_string()
    }

    /// The values of the filter's variables: the parameters, and the card's address as `MAC` unless
    /// that is one of them.
    pub fn variables(&self) -> Variables {
        let mut variables: Variables = self.parameters.iter().cloned().collect();
        // The text of an address is a value, and `MAC` is a name.
        if let (Ok(name), Ok(value)) = ("MAC".parse(), self.mac.to_string().parse()) {
            variables.set_default(name, value);
        }
        variables
    }
}

fn owner(take: &mut Take<'_>) -> Result<Owner, XmlError> {
    let name = take.child("name")?.ok_or_else(|| take.missing_child("name"))?;
    let uuid = take.child("uuid")?.ok_or_else(|| take.missing_child("uuid"))?;
    Ok(Owner { name: name.take(Take::text_value)?, uuid: uuid.take(Take::text_value)? })
}
