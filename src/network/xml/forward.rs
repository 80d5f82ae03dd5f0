//! Reads `<forward>`: the mode, the device, and the settings of NAT.
//!
//! Without the attribute `mode` the mode is `nat`, as in libvirt. libvirt writes the device as
//! an attribute and as an element; both must then name the same device.

use super::Result;
use crate::network::fields::{address_v4, need, number};
use crate::network::model::{AddressRange, Forward, Nat};
use crate::network::places::{Part, Places};
use crate::network::values::device;
use crate::types::PortRange;
use crate::xml::{ElementReader, XmlError, XmlErrorKind};

pub(super) fn forward(take: &mut ElementReader<'_>, places: &mut Places) -> Result<Forward> {
    take.refuse_attributes(&["managed"])?;
    let mode = take.attribute("mode");
    let text = mode.map_or("nat", |mode| mode.value.as_str());
    if let (Some(mode), "bridge" | "passthrough" | "private" | "vepa" | "hostdev") = (mode, text) {
        let what = XmlErrorKind::Unsupported {
            what: format!("<forward mode='{text}'>"),
            fix: "use nat, route or open, or no <forward> for an isolated network",
        };
        return Err(XmlError { place: mode.value_place, what });
    }
    take.refuse_children(&["address", "pf", "driver"])?;
    let mut dev = take.value_with("dev", device)?;
    // libvirt prints the device a second time, as an element.
    if let Some(interface) = take.child("interface")? {
        let other = interface.take(|interface| {
            interface.attribute("connections");
            need(interface, "dev", device)
        })?;
        let first = dev.get_or_insert_with(|| other.clone());
        if *first != other {
            let why =
                format!("its device is {other}, and dev of <forward> is {first}: write one device");
            return Err(ElementReader::new(interface).bad(why));
        }
    }
    let nat = take.child("nat")?;
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
                Some(element) => element.take(|take| self::nat(take, places))?,
                None => Nat::default(),
            };
            settings.dev = dev;
            Ok(Forward::Nat(settings))
        }
        "route" => Ok(Forward::Route { dev }),
        // Mode 'open' has no rules that could limit forwarding to one device, and mode 'none' has
        // no forwarding.
        "open" | "none" => match take.attribute("dev") {
            None if text == "open" => Ok(Forward::Open),
            None => Ok(Forward::Isolated),
            Some(dev) => Err(take.wrong(dev, format!("mode={text:?} has no device: remove dev"))),
        },
        other => {
            let why = format!("{other:?} is not a mode: use nat, route, open or none");
            Err(mode.map_or_else(|| take.bad(&why), |mode| take.wrong(mode, &why)))
        }
    }
}

fn nat(take: &mut ElementReader<'_>, places: &mut Places) -> Result<Nat> {
    let ipv6 = take.yes_no("ipv6")?.unwrap_or(false);
    let addresses = take.child("address")?.map(|element| {
        places.note(Part::NatAddresses, element.place);
        element.take(|take| {
            let (first, last) = (need(take, "start", address_v4)?, need(take, "end", address_v4)?);
            let why = || format!("{first} to {last} runs backwards: exchange them");
            AddressRange::new(first, last).ok_or_else(|| take.bad(why()))
        })
    });
    let ports = take.child("port")?.map(|element| {
        places.note(Part::NatPorts, element.place);
        element.take(|take| {
            let (first, last) = (need(take, "start", number)?, need(take, "end", number)?);
            let why =
                || format!("{first} to {last} are no ports: use 1 to 65535, the lowest first");
            PortRange::new(first, last).ok_or_else(|| take.bad(why()))
        })
    });
    Ok(Nat { dev: None, ipv6, addresses: addresses.transpose()?, ports: ports.transpose()? })
}
