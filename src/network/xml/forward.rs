//! Reads `<forward>`: the mode, the interfaces, and the settings of NAT.
//!
//! Without the attribute `mode` the mode is `nat`, as in libvirt. libvirt writes the first
//! interface as an attribute and as an element; both must then name the same interface.

use super::Result;
use crate::network::fields::{address_v4, need, number};
use crate::network::model::{AddressRange, Forward, Nat};
use crate::network::places::{Part, Places};
use crate::network::values::device;
use crate::types::{InterfaceName, PortRange};
use crate::xml::{Element, ElementReader, XmlError, XmlErrorKind};

/// The modes that connect guests to an interface of the host itself, and the fix for each.
const OTHER_MODES: [(&str, &str); 4] = [
    ("private", MACVTAP),
    ("vepa", MACVTAP),
    ("passthrough", MACVTAP),
    (
        "hostdev",
        "a guest gets a device of the host by QEMU's own option -device vfio-pci, without a network",
    ),
];

/// The fix for a network that connects guests by macvtap.
const MACVTAP: &str = "make a bridge, make the interface a port of it, and use mode='bridge' with \
                       <bridge name='...'/>";

pub(super) fn forward(reader: &mut ElementReader<'_>, places: &mut Places) -> Result<Forward> {
    let mode = reader.attribute("mode");
    let text = mode.map_or("nat", |mode| mode.value.as_str());
    let other = OTHER_MODES.iter().find(|(other, _)| *other == text);
    if let (Some(mode), Some((_, fix))) = (mode, other) {
        let what = format!("<forward mode='{text}'>");
        let what = XmlErrorKind::Unsupported { what, fix };
        return Err(XmlError { place: mode.value_place, what });
    }
    reader.refuse_attributes(&["managed"])?;
    reader.refuse_children(&["address", "pf", "driver"])?;
    let devs = interfaces(reader)?;
    let nat = reader.child("nat")?;
    if let Some(nat) = nat
        && text != "nat"
    {
        return Err(ElementReader::new(nat).bad(format!(
            "NAT works with mode='nat' only, and the mode is {text:?}: remove <nat>"
        )));
    }
    match text {
        "nat" => {
            let mut settings = match nat {
                Some(element) => element.take(|reader| self::nat(reader, places))?,
                None => Nat::default(),
            };
            settings.devs = devs;
            Ok(Forward::Nat(settings))
        }
        "route" => Ok(Forward::Route { devs }),
        // Mode 'open' has no rules that could limit forwarding to one interface, and mode 'none'
        // has no forwarding.
        "open" | "none" if !devs.is_empty() => Err(first_dev(
            reader,
            format!("mode={text:?} has no interface: remove dev and <interface>"),
        )),
        // libvirt connects the guests of this form to the interface by macvtap.
        "bridge" if !devs.is_empty() => Err(first_dev(
            reader,
            format!(
                "without a bridge, mode='bridge' means macvtap, which netlaunch does not have: {MACVTAP}"
            ),
        )),
        "open" => Ok(Forward::Open),
        "none" => Ok(Forward::Isolated),
        "bridge" => Ok(Forward::Bridge),
        other => {
            let why = format!("{other:?} is not a mode: use nat, route, open, bridge or none");
            Err(mode.map_or_else(|| reader.bad(&why), |mode| reader.wrong(mode, &why)))
        }
    }
}

/// Reads the attribute `dev` and the elements `<interface>`: each interface once, in their order.
fn interfaces(reader: &mut ElementReader<'_>) -> Result<Vec<InterfaceName>> {
    let dev: Option<InterfaceName> = reader.value_with("dev", device)?;
    let mut devs: Vec<InterfaceName> = Vec::new();
    for element in reader.children("interface") {
        let other = interface(element)?;
        let bad = |why| Err(ElementReader::new(element).bad(why));
        match &dev {
            Some(dev) if devs.is_empty() && *dev != other => {
                return bad(format!(
                    "its interface is {other}, and dev of <forward>, the first one, is {dev}: write {dev} here, or remove dev"
                ));
            }
            _ if devs.contains(&other) => {
                return bad(format!("another <interface> has {other} already: remove one of them"));
            }
            _ => devs.push(other),
        }
    }
    if devs.is_empty() {
        devs.extend(dev);
    }
    Ok(devs)
}

/// Reads one `<interface>` of `<forward>`.
pub(in crate::network) fn interface(element: &Element) -> Result<InterfaceName> {
    element.take(|reader| {
        // libvirt prints the number of guests on this interface here.
        reader.attribute("connections");
        need(reader, "dev", device)
    })
}

/// Returns an error about the first interface of `<forward>`.
fn first_dev(reader: &mut ElementReader<'_>, why: String) -> XmlError {
    if let Some(dev) = reader.attribute("dev") {
        return reader.wrong(dev, why);
    }
    match reader.children("interface").next() {
        Some(element) => ElementReader::new(element).bad(why),
        None => reader.bad(why),
    }
}

fn nat(reader: &mut ElementReader<'_>, places: &mut Places) -> Result<Nat> {
    let ipv6 = reader.yes_no("ipv6")?.unwrap_or(false);
    let addresses = reader.child("address")?.map(|element| {
        places.note(Part::NatAddresses, element.place);
        element.take(|reader| {
            let (first, last) =
                (need(reader, "start", address_v4)?, need(reader, "end", address_v4)?);
            let why = || format!("{first} to {last} runs backwards: exchange them");
            AddressRange::new(first, last).ok_or_else(|| reader.bad(why()))
        })
    });
    let ports = reader.child("port")?.map(|element| {
        places.note(Part::NatPorts, element.place);
        element.take(|reader| {
            let (first, last) = (need(reader, "start", number)?, need(reader, "end", number)?);
            let why =
                || format!("{first} to {last} are no ports: use 1 to 65535, the lowest first");
            PortRange::new(first, last).ok_or_else(|| reader.bad(why()))
        })
    });
    Ok(Nat { devs: Vec::new(), ipv6, addresses: addresses.transpose()?, ports: ports.transpose()? })
}
