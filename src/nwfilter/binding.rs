//! Bindings, which assign a filter to a port of the host, in the form of libvirt's filterbinding
//! XML.

use super::model::FilterRef;
use super::value::FilterName;
use super::variable::Variables;
use super::{write, xml};
use crate::types::checked_text::checked_text;
use crate::types::{InterfaceName, Mac, Parameter, Uuid};
use crate::xml::{ElementReader, Tag, XmlError, read};

/// The assignment of a filter to a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The guest of the port. libvirt's schema requires it; netlaunch does not.
    pub owner: Option<Owner>,
    /// The port: a tap, veth, macvtap or macvlan interface of the host.
    pub port: InterfaceName,
    /// The interface below a macvtap or macvlan port. libvirt learns the guest's address there;
    /// netlaunch learns it on the port, and checks that this is the interface below it.
    pub linkdev: Option<InterfaceName>,
    /// The hardware address of the guest's network card.
    pub mac: Mac,
    /// The filter.
    pub filter: FilterName,
    /// Values for the filter's variables, in the document's order; a name that occurs several times
    /// is a list.
    pub parameters: Vec<Parameter>,
}

/// A guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The name.
    pub name: OwnerName,
    /// The identifier; `None` if the document does not have one.
    pub uuid: Option<Uuid>,
}

/// The text is not a guest's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// The name is empty, too long, or has control characters.
    #[error("{0:?} cannot name a guest: use 1 to 256 bytes without control characters")]
    Name(String),
}

checked_text!(
    /// The name of the owner of a port.
    OwnerName, OwnerError::Name, |text| {
        (1..=256).contains(&text.len()) && !text.contains(char::is_control)
    }
);

impl Binding {
    /// Parses a document.
    ///
    /// # Errors
    /// Returns the first [`XmlError`].
    pub fn parse(bytes: &[u8]) -> Result<Binding, XmlError> {
        let root = read(bytes)?;
        let mut reader = ElementReader::root(&root, "filterbinding")?;
        let owner = reader.child("owner")?.map(|element| element.take(owner)).transpose()?;
        let port = reader.child("portdev")?.ok_or_else(|| reader.missing_child("portdev"))?;
        let port = port.take(|reader| reader.required("name"))?;
        let linkdev = reader.child("linkdev")?;
        let linkdev =
            linkdev.map(|link| link.take(|reader| reader.required("name"))).transpose()?;
        let mac = reader.child("mac")?.ok_or_else(|| reader.missing_child("mac"))?;
        let mac = mac.take(|reader| reader.required("address"))?;
        let reference =
            reader.child("filterref")?.ok_or_else(|| reader.missing_child("filterref"))?;
        let FilterRef { filter, parameters } = reference.take(xml::reference)?;
        reader.finish()?;
        Ok(Binding { owner, port, linkdev, mac, filter, parameters })
    }

    /// Returns the binding as a document, with a newline at its end.
    pub fn to_xml(&self) -> String {
        let owner = self.owner.as_ref().map(|owner| {
            let uuid = owner.uuid.map(|uuid| Tag::text("uuid", uuid));
            Tag::new("owner").children([Tag::text("name", &owner.name)]).children(uuid)
        });
        let reference =
            FilterRef { filter: self.filter.clone(), parameters: self.parameters.clone() };
        Tag::new("filterbinding")
            .children(owner)
            .children([Tag::new("portdev").attribute("name", &self.port)])
            .children(self.linkdev.as_ref().map(|link| Tag::new("linkdev").attribute("name", link)))
            .children([
                Tag::new("mac").attribute("address", self.mac),
                write::reference(&reference),
            ])
            .to_string()
    }

    /// Returns the values of the filter's variables: the parameters, and the card's address as
    /// `MAC` unless the parameters set `MAC`.
    pub fn variables(&self) -> Variables {
        let mut variables: Variables = self.parameters.iter().cloned().collect();
        // Both parses always succeed: an address is a valid value, and `MAC` is a valid name.
        if let (Ok(name), Ok(value)) = ("MAC".parse(), self.mac.to_string().parse()) {
            variables.set_default(name, value);
        }
        variables
    }
}

fn owner(reader: &mut ElementReader<'_>) -> Result<Owner, XmlError> {
    let name = reader.child("name")?.ok_or_else(|| reader.missing_child("name"))?;
    let name = name.take(ElementReader::text_value)?;
    let uuid =
        reader.child("uuid")?.map(|uuid| uuid.take(ElementReader::text_value)).transpose()?;
    Ok(Owner { name, uuid })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{VariableValue, generate};
    use super::*;
    use crate::xml::schema::accepted;

    #[test]
    fn bindings() {
        let text = "<filterbinding>\n  <owner>\n    <name>vm &amp; 1</name>\n    <uuid>d54df46f-1ab5-4a22-8618-4560ef5fac2c</uuid>\n  </owner>\n  <portdev name='vnet0'/>\n  <mac address='52:54:00:11:22:33'/>\n  <filterref filter='clean-traffic'>\n    <parameter name='IP' value='10.2.3.4'/>\n    <parameter name='IP' value='10.2.3.5'/>\n  </filterref>\n</filterbinding>\n";
        let binding = Binding::parse(text.as_bytes()).unwrap();
        assert_eq!(binding.to_xml(), text);
        accepted("nwfilterbinding.rng", &[text.to_owned()]);
        let variables = binding.variables();
        let get = |name: &str| {
            let values = variables.get(&name.parse().unwrap()).unwrap();
            values.iter().map(VariableValue::as_str).collect::<Vec<_>>()
        };
        assert_eq!(get("IP"), ["10.2.3.4", "10.2.3.5"]);
        assert_eq!(get("MAC"), ["52:54:00:11:22:33"]);
        let mut named = binding.clone();
        named.parameters.push(("MAC".parse().unwrap(), "52:54:00:00:00:99".parse().unwrap()));
        assert_eq!(named.variables().get(&"MAC".parse().unwrap()).unwrap().len(), 1);

        let rest = "<mac address='52:54:00:11:22:33'/><filterref filter='a'/>";
        for (inside, error) in [
            (String::new(), "1:1: <filterbinding> needs a <portdev>"),
            ("<portdev/>".to_owned(), "1:16: <portdev> needs the attribute name"),
            (
                "<portdev name='a b'/>".to_owned(),
                "1:31: name of <portdev>: \"a b\" is not a network interface name",
            ),
            ("<portdev name='a'/>".to_owned(), "1:1: <filterbinding> needs a <mac>"),
            (
                "<portdev name='a'/><mac address='01:00:5e:00:00:01'/>".to_owned(),
                "1:49: address of <mac>: ",
            ),
            (
                "<portdev name='a'/><mac address='52:54:00:11:22:33'/>".to_owned(),
                "1:1: <filterbinding> needs a <filterref>",
            ),
            (
                format!("<portdev name='a'/><linkdev/>{rest}"),
                "1:35: <linkdev> needs the attribute name",
            ),
            (format!("<portdev name='a'/><owner/>{rest}"), "1:35: <owner> needs a <name>"),
            (
                format!("<portdev name='a'/><owner><name>a&#9;b</name><uuid/></owner>{rest}"),
                "1:48: <name>: \"a\\tb\" cannot name a guest",
            ),
            (
                format!("<portdev name='a'/><vlan/>{rest}"),
                "1:35: <vlan> is not known in <filterbinding>",
            ),
            (
                format!("<portdev name='a' mode='x'/>{rest}"),
                "1:34: the attribute mode is not known in <portdev>",
            ),
        ] {
            let error_found =
                Binding::parse(format!("<filterbinding>{inside}</filterbinding>").as_bytes());
            let found = error_found.unwrap_err().to_string();
            assert!(found.starts_with(error), "{inside}\n{found}");
        }
        let owner = "<owner><name>vm</name></owner><portdev name='a'/>";
        let named = format!("<filterbinding>{owner}{rest}</filterbinding>");
        let named = Binding::parse(named.as_bytes()).unwrap();
        assert_eq!(named.owner.as_ref().unwrap().uuid, None, "an owner needs no UUID");
        assert_eq!(Binding::parse(named.to_xml().as_bytes()).unwrap(), named);
        let least = format!("<filterbinding><portdev name='a'/>{rest}</filterbinding>");
        assert_eq!(Binding::parse(least.as_bytes()).unwrap().owner, None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn a_written_binding_is_read_back_unchanged(binding in generate::binding()) {
            let written = binding.to_xml();
            prop_assert_eq!(Binding::parse(written.as_bytes()), Ok(binding), "{}", &written);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4))]

        #[test]
        fn libvirts_schema_accepts_written_filters(
            // The schema requires an owner.
            bindings in prop::collection::vec(
                generate::binding().prop_filter("an owner", |binding| binding.owner.is_some()),
                10,
            ),
        ) {
            let written: Vec<_> = bindings.iter().map(Binding::to_xml).collect();
            accepted("nwfilterbinding.rng", &written);
        }
    }
}
