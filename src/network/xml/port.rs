//! Reads the properties of the guests' ports: `<bandwidth>`, `<vlan>`, `<port>` and
//! `<portgroup>`.
//!
//! libvirt's documentation ("Network XML format": Quality of service, VLAN tag, Portgroups, Port
//! options) defines the elements.

use std::num::NonZeroU32;

use super::Result;
use crate::network::fields::{need, number};
use crate::network::model::{PortGroup, PortProperties};
use crate::types::{Bandwidth, Native, Rate, Vlan, VlanId};
use crate::xml::{Element, ElementReader, XmlError, XmlErrorKind};

/// The types of `<virtualport>`, each with the fix.
const VIRTUAL_PORTS: [(&str, &str); 5] = [
    (
        "openvswitch",
        "make a Linux bridge instead, name it in <bridge>, and remove <virtualport>; <vlan> works on \
         such a bridge too",
    ),
    ("802.1Qbg", SWITCH),
    ("802.1Qbh", SWITCH),
    ("midonet", "name a Linux bridge in <bridge>, and remove <virtualport>"),
    ("", "name a Linux bridge in <bridge>, and remove <virtualport>"),
];

/// The fix for a virtual port whose parameters are for the switch at the other end of the cable.
const SWITCH: &str = "set up the port on the switch itself, since only macvtap can send the \
                      parameters to it, use mode='bridge' with a Linux bridge, and remove \
                      <virtualport>";

/// Refuses `<virtualport>`, which no network here can have.
pub(super) fn refuse_virtual_port(reader: &mut ElementReader<'_>) -> Result<()> {
    let found = reader.element().children.iter().find(|child| child.name == "virtualport");
    let Some(element) = found else { return Ok(()) };
    let kind = ElementReader::new(element).attribute("type").map_or("", |kind| &kind.value);
    let known = VIRTUAL_PORTS.iter().find(|(known, _)| *known == kind);
    let (what, fix) = match known {
        Some(("", fix)) => ("<virtualport>".to_owned(), *fix),
        Some((kind, fix)) => (format!("<virtualport type='{kind}'>"), *fix),
        None => ("<virtualport>".to_owned(), "remove it"),
    };
    Err(XmlError { place: element.place, what: XmlErrorKind::Unsupported { what, fix } })
}

/// Reads the properties that a network and a port group have alike.
pub(super) fn properties(reader: &mut ElementReader<'_>) -> Result<PortProperties> {
    refuse_virtual_port(reader)?;
    let trust_guest_rx_filters = reader.yes_no("trustGuestRxFilters")?;
    let bandwidth =
        reader.child("bandwidth")?.map(|element| element.take(bandwidth)).transpose()?;
    let vlan = reader.child("vlan")?.map(|element| element.take(vlan)).transpose()?;
    let isolated = match reader.child("port")? {
        Some(element) => element.take(|reader| reader.yes_no("isolated"))?,
        None => None,
    };
    let bandwidth = bandwidth.unwrap_or_default();
    Ok(PortProperties { bandwidth, vlan, isolated, trust_guest_rx_filters })
}

/// Reads one `<portgroup>`.
pub(in crate::network) fn port_group(element: &Element) -> Result<PortGroup> {
    element.take(|reader| {
        let name = reader.required("name")?;
        let default = reader.yes_no("default")?.unwrap_or(false);
        Ok(PortGroup { name, default, port: properties(reader)? })
    })
}

fn bandwidth(reader: &mut ElementReader<'_>) -> Result<Bandwidth> {
    let mut direction = |name| match reader.child(name)? {
        Some(element) => element.take(rate).map(Some),
        None => Ok(None),
    };
    Ok(Bandwidth { inbound: direction("inbound")?, outbound: direction("outbound")? })
}

fn rate(reader: &mut ElementReader<'_>) -> Result<Rate> {
    let floor = reader.element().attributes.iter().find(|attribute| attribute.name == "floor");
    if let Some(floor) = floor {
        let what = "the attribute floor (a guaranteed rate)".to_owned();
        let fix = "limit the other guests with average, and remove floor";
        return Err(XmlError { place: floor.place, what: XmlErrorKind::Unsupported { what, fix } });
    }
    Ok(Rate {
        average: need(reader, "average", kibibytes)?,
        peak: reader.value_with("peak", kibibytes)?,
        burst: reader.value_with("burst", kibibytes)?,
    })
}

/// Reads a number of KiB, or of KiB per second.
fn kibibytes(text: &str) -> std::result::Result<NonZeroU32, String> {
    number(text).map_err(|_| {
        format!("{text:?} is not a number of KiB: write decimal digits, 1 to {}", u32::MAX)
    })
}

fn vlan(reader: &mut ElementReader<'_>) -> Result<Vlan> {
    let trunk = reader.value_with("trunk", |text| match text {
        "yes" => Ok(()),
        // libvirt accepts no other value: without the attribute, the tags decide.
        other => Err(format!("{other:?} is not a value of it: write yes, or remove trunk")),
    })?;
    let (mut tags, mut native): (Vec<VlanId>, Option<Native>) = (Vec::new(), None);
    for element in reader.children("tag") {
        let (id, tagged) = element.take(|reader| {
            let id = reader.required("id")?;
            Ok((id, reader.choice("nativeMode", &[("tagged", true), ("untagged", false)])?))
        })?;
        let bad = |why| Err(ElementReader::new(element).bad(why));
        if tags.contains(&id) {
            return bad(format!("another <tag> has {id} already: remove one of them"));
        }
        tags.push(id);
        match (tagged, native) {
            (None, _) => {}
            (Some(tagged), None) => native = Some(Native { id, tagged }),
            (Some(_), Some(first)) => {
                return bad(format!(
                    "the native VLAN is {} already: remove nativeMode from one of them",
                    first.id
                ));
            }
        }
    }
    match tags[..] {
        [] => Err(reader.missing_child("tag")),
        [id] if trunk.is_none() && native.is_none() => Ok(Vlan::Access(id)),
        _ => Ok(Vlan::Trunk { tags, native }),
    }
}
