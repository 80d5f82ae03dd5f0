//! Chooses the MTU that a virtio card tells the guest (VIRTIO_NET_F_MTU).
//!
//! Large frames are the gain of passt, and DHCP's MTU option does not reach every guest: a guest
//! with systemd-networkd ignores it and stays at 1500 bytes. The card reaches every driver that
//! knows the feature, in Linux since 4.9; all other drivers ignore it. So a card on passt tells
//! passt's own default. Measured with such a guest: about twice the throughput for both directions.
//!
//! A card on slirp tells nothing by default. slirp's frames have at most 1500 bytes (IF_MTU_DEFAULT
//! of libslirp, and QEMU has no option for it), and its TCP announces segments for that. Measured
//! with `host_mtu=9000` and `65520`: a third of the throughput from the guest, no gain to it.
//!
//! `host_mtu` is a property of QEMU's virtio cards since 2.10, on each machine type. QEMU loads a
//! guest's state that was saved without it, because the card then has one feature more than the
//! guest uses. QEMU refuses the opposite (both measured with QEMU 10.0).

use super::bridge;
use super::request::{Backend, MAX_MTU, NicRequest, Request};
use super::request_error::RequestError;
use crate::launcher::adopt::UserNic;
use crate::launcher::qemu_options::{Parameters, Settings, card_on};
use crate::types::facts::Facts;

/// The MTU of passt if it gets no option; each known passt has it.
const PASST_MTU: u16 = MAX_MTU;

/// Returns the MTU that the NIC's card tells the guest; `None` if it tells nothing.
///
/// The caller must check that the card is a virtio card.
pub(super) fn card_mtu(
    request: &Request,
    nic: &NicRequest,
    backend: Backend,
    facts: &Facts,
) -> Option<u16> {
    match backend {
        Backend::Passt => nic.mtu.or_else(|| (!sets_host_mtu(request)).then_some(PASST_MTU)),
        Backend::Slirp => nic.mtu,
        Backend::Bridge => bridge::card_mtu(nic, facts),
    }
}

/// Returns whether the caller's QEMU arguments set the MTU of all virtio cards, which a property of
/// one card would replace.
pub(super) fn sets_host_mtu(request: &Request) -> bool {
    request.settings().of_group("global").any(|setting| global_mtu(&setting.parameters).is_some())
}

/// Returns the driver and the value of a `-global` that sets `host_mtu`, in either of its forms.
fn global_mtu(parameters: &Parameters) -> Option<(&[u8], &[u8])> {
    if parameters.is("property", "host_mtu") {
        return parameters.get("driver").zip(parameters.get("value"));
    }
    parameters.iter().find_map(|(key, value)| Some((key.strip_suffix(b".host_mtu")?, value)))
}

/// Checks that the card of an adopted NIC does not keep another MTU than the requested one.
///
/// The caller's `host_mtu` of a `-device` stays. A card of `-nic` and `-net nic` gets its MTU by a
/// `-global` for the driver `virtio-net-device`, which is a part of each virtio card: the caller's
/// `-global` for the whole card, such as `virtio-net-pci`, wins (measured with QEMU 10.0).
///
/// # Errors
/// [`RequestError::CardMtu`].
pub(super) fn check_card_mtu(
    nic: &NicRequest,
    user_nic: &UserNic,
    settings: &Settings,
) -> Result<(), RequestError> {
    let is_virtio = user_nic.card.as_ref().is_some_and(|card| card.is_virtio());
    let Some(mtu) = nic.mtu.filter(|_| is_virtio) else { return Ok(()) };
    let at = user_nic.card.as_ref().and_then(|card| card.device);
    let behind_hub = settings.of_group("device").find(|card| at.is_some() && card.argument == at);
    let device = card_on(settings, user_nic.id.as_str()).filter(|card| card.group == "device");
    let device = device.or(behind_hub);
    let kept = match device {
        Some(device) => device.parameters.get("host_mtu").map(|value| (device, value)),
        None => settings
            .of_group("global")
            .filter_map(|setting| {
                let (driver, value) = global_mtu(&setting.parameters)?;
                (driver != b"virtio-net-device").then_some((setting, value))
            })
            .last(),
    };
    match kept.filter(|(_, value)| *value != mtu.to_string().as_bytes()) {
        Some((setting, _)) => Err(RequestError::CardMtu { mtu, written: setting.written.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::Command;
    use super::*;

    fn mtu_of(line: &str, backend: Backend, mtu: Option<u16>) -> Option<u16> {
        let words = line.split(' ').map(Into::into).collect();
        let command = Some(Command { program: "qemu".into(), args: words });
        let nic = NicRequest { mtu, ..NicRequest::default() };
        let request = Request { command, nic: nic.clone(), ..Request::default() };
        card_mtu(&request, &nic, backend, &Facts::default())
    }

    #[test]
    fn a_card_on_passt_tells_passts_mtu_unless_the_caller_sets_one() {
        for (line, mtu, expected) in [
            ("-m 1", None, Some(65520)),
            ("-m 1", Some(1400), Some(1400)),
            ("-global virtio-net-pci.host_mtu=1300", None, None),
            ("-global driver=virtio-net-device,property=host_mtu,value=1300", None, None),
            ("-global virtio-net-pci.host_mtu=1300", Some(1400), Some(1400)),
            ("-global virtio-net-pci.mq=on", None, Some(65520)),
            ("-append x.host_mtu=1", None, Some(65520)),
        ] {
            assert_eq!(mtu_of(line, Backend::Passt, mtu), expected, "{line} {mtu:?}");
        }
    }

    #[test]
    fn a_card_on_slirp_tells_only_a_requested_mtu() {
        assert_eq!(mtu_of("-m 1", Backend::Slirp, None), None);
        assert_eq!(mtu_of("-m 1", Backend::Slirp, Some(1400)), Some(1400));
    }
}
