//! Chooses the model of the guest's network card, and writes QEMU's argument for it.
//!
//! A card needs a bus: `virtio-net-pci` cannot be used on a machine without PCI. If the caller
//! names no card, the card follows from the buses of the machine. A card that the caller names is
//! kept, and QEMU refuses it if the machine has no bus for it.

use std::borrow::Cow;
use std::ffi::OsString;

use super::draft::Draft;
use super::request::NicRequest;
use crate::types::Device;
use crate::types::facts::Facts;

/// Returns the NIC's request, with a card for a bus of the machine if the caller names no card.
pub(super) fn fitting<'a>(
    nic: &'a NicRequest,
    facts: &Facts,
    notes: &mut Vec<String>,
) -> Cow<'a, NicRequest> {
    let Device::Model(model) = &nic.device else { return Cow::Borrowed(nic) };
    let machine = facts.qemu.machine.as_ref().filter(|_| !nic.device_named);
    match machine.and_then(|machine| machine.card()) {
        Some(card) if card != model => {
            notes.push(format!("this machine has no bus for {model}, so the card is {card}"));
            let device = Device::Model(card.to_owned());
            Cow::Owned(NicRequest { device, ..nic.clone() })
        }
        _ => Cow::Borrowed(nic),
    }
}

/// Returns `-device` for the guest's card, with `extra` after its MAC address; no arguments if the
/// caller attaches a card.
pub(super) fn device_args(draft: &Draft, extra: &str) -> Vec<OsString> {
    match &draft.nic.device {
        Device::None => Vec::new(),
        Device::Model(model) => {
            let (id, mac) = (&draft.nic.id, draft.mac());
            vec!["-device".into(), format!("{model},netdev={id},mac={mac}{extra}").into()]
        }
    }
}
