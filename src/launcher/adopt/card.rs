//! The card of a NIC: its model, its MAC address, and the place at which it takes its MTU.

use super::super::qemu_options::{Parameters, Settings};
use crate::types::Mac;

/// A card that the caller's arguments attach to a user-mode network, or QEMU's default card.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Card {
    /// The model as it is written; `None` is the machine's default model.
    pub model: Option<String>,
    /// The MAC address; `None` if QEMU chooses it.
    pub mac: Option<Mac>,
    /// Whether the caller sets `host_mtu`.
    pub host_mtu: bool,
    /// Whether the machine's default model is a virtio card.
    pub(super) default_is_virtio: bool,
    /// The argument that is its `-device`; `None` for a card of `-nic` and `-net nic`.
    pub(in crate::launcher) device: Option<usize>,
}

impl Card {
    /// Returns whether it is a virtio card, which can take its MTU from `host_mtu`.
    pub fn is_virtio(&self) -> bool {
        match self.model.as_deref() {
            Some(model) => is_virtio(model),
            None => self.default_is_virtio && self.device.is_none(),
        }
    }

    /// Returns whether it can take its MTU from netlaunch: it is a virtio card, and the caller does
    /// not set its MTU.
    pub(super) fn takes_mtu(&self) -> bool {
        self.is_virtio() && !self.host_mtu
    }

    /// Reads the card of a `-nic`, `-net nic` or `-device`; the keys of the model and the MAC
    /// address differ.
    pub(super) fn read(parameters: &Parameters, model: &str, mac: &str) -> Self {
        let text = |key| Some(String::from_utf8_lossy(parameters.get(key)?).into_owned());
        Card {
            model: text(model),
            mac: text(mac).and_then(|mac| mac.parse().ok()),
            host_mtu: parameters.get("host_mtu").is_some(),
            ..Card::default()
        }
    }

    /// Returns the card on the netdev `id`; `None` if there is no card, or more than one.
    ///
    /// A `-global` attaches a card of its driver, so it is read if no card names the netdev.
    pub(super) fn on(settings: &Settings, id: &str) -> Option<Self> {
        let devices = settings.of_group("device").filter(|s| s.parameters.is("netdev", id));
        let devices = devices.map(|setting| Card {
            device: setting.argument,
            ..Card::read(&setting.parameters, "driver", "mac")
        });
        let boards = settings.of_group("net").filter(|s| s.parameters.is("netdev", id));
        let boards = boards.map(|setting| Card::read(&setting.parameters, "model", "macaddr"));
        let mut cards = devices.chain(boards);
        match cards.next() {
            Some(card) => Some(card).filter(|_| cards.next().is_none()),
            None => attached_by_global(settings, id.as_bytes()).map(|driver| Card {
                model: Some(String::from_utf8_lossy(driver).into_owned()),
                ..Card::default()
            }),
        }
    }
}

/// Returns the driver of a `-global` that attaches a card to the netdev `id`: DRIVER.netdev=ID, or
/// driver=DRIVER,property=netdev,value=ID.
pub(super) fn attached_by_global<'a>(settings: &'a Settings, id: &[u8]) -> Option<&'a [u8]> {
    settings.of_group("global").find_map(|setting| {
        let parameters = &setting.parameters;
        if parameters.is("property", "netdev") && parameters.get("value") == Some(id) {
            return parameters.get("driver");
        }
        let mut all = parameters.iter().filter(|(_, value)| *value == id);
        all.find_map(|(key, _)| key.strip_suffix(b".netdev"))
    })
}

/// Returns whether the model is a virtio card, which can take its MTU from `host_mtu`.
pub(super) fn is_virtio(model: &str) -> bool {
    model == "virtio" || model.starts_with("virtio-net")
}
