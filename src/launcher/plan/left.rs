//! Plans a user-mode network of the caller's arguments that stays on slirp.
//!
//! Such a NIC keeps its words. A setting of the request that would need other words is refused, so
//! that the guest never has less than the request asks for; only published ports are added, which
//! slirp has as well. A setting that the words have already is not refused, and neither is a
//! transport, which the guest does not see.

use super::card_mtu::sets_host_mtu;
use super::left_network::LeftNetwork;
use super::model::{NicPlan, Origin};
use super::request::{AddressChoice, Backend, Family, NicRequest, Request};
use super::request_error::RequestError;
use super::slirp_args::forwards;
use crate::launcher::adopt::{Left, UserNic};
use crate::launcher::qemu_options::Settings;
use crate::types::{Publish, Setting, error_text};

/// The MTU of a guest on slirp whose card tells no other one.
const SLIRP_MTU: u16 = 1500;

/// Checks that the request does not need another backend for this NIC. Returns the parameters that
/// the request adds to the NIC. `is_first` is whether the settings of the single NIC belong to it.
///
/// # Errors
/// A setting that slirp with the caller's words does not have.
pub(super) fn check_left(
    request: &Request,
    user_nic: &UserNic,
    left: &Left,
    is_first: bool,
) -> Result<Vec<String>, RequestError> {
    let (nic, written) = (&request.nic, &user_nic.written);
    if matches!(left, Left::NoValue(_)) {
        // QEMU names the mistake and runs no guest.
        return Ok(Vec::new());
    }
    if !nic.host_loopback && !matches!(left, Left::Restricted(_)) {
        return Err(RequestError::OwnNetwork(written.clone()));
    }
    let own = LeftNetwork::read(user_nic);
    let publish: Vec<&Publish> = if is_first {
        nic.publish.iter().filter(|publish| !own.publish.contains(publish)).collect()
    } else {
        Vec::new()
    };
    let can_publish = can_append(left)
        && own.family != Family::V6
        && publish.iter().all(|publish| publish.address.is_ipv4());
    let addresses = nic.address != AddressChoice::Default && nic.address != own.address;
    let settings = [
        (nic.backend == Some(Backend::Passt), Setting::Backend),
        (!nic.passt_options.is_empty(), Setting::PasstOption),
        (is_first && addresses, Setting::Address),
        (is_first && nic.gateway.is_some() && nic.gateway != own.gateway, Setting::Gateway),
        (is_first && nic.hostname.is_some() && nic.hostname != own.hostname, Setting::Hostname),
        (is_first && nic.pcap.is_some(), Setting::Pcap),
        (!publish.is_empty() && !can_publish, Setting::Publish),
    ];
    let given = settings.into_iter().find_map(|(given, setting)| given.then_some(setting));
    if let Some(setting) = given.or_else(|| missing(request, user_nic, &own)) {
        let no_ipv4 = setting == Setting::Publish && own.family == Family::V6;
        let why = match left {
            Left::NoIpv4 { .. } => error_text(left),
            _ if no_ipv4 => format!("{}, and it has no IPv4 for the port", error_text(left)),
            _ => error_text(left),
        };
        return Err(RequestError::LeftSetting { setting, written: written.clone(), why });
    }
    Ok(publish.into_iter().flat_map(forwards).collect())
}

/// Returns the first setting for each user-mode network that this one, with the caller's words,
/// does not have.
fn missing(request: &Request, user_nic: &UserNic, own: &LeftNetwork) -> Option<Setting> {
    let nic = &request.nic;
    let sets_mtu = || {
        let on_card = user_nic.card.as_ref().is_some_and(|card| card.host_mtu);
        on_card || sets_host_mtu(request)
    };
    let settings = [
        (nic.family == Family::V4 && own.family != nic.family, Setting::Ipv4Only),
        (nic.family == Family::V6 && own.family != nic.family, Setting::Ipv6Only),
        (nic.interface.is_some(), Setting::Interface),
        (nic.dns.is_some() && nic.dns != own.dns, Setting::Dns),
        (!nic.search.is_empty() && nic.search != own.search, Setting::Search),
        (nic.mtu.is_some_and(|mtu| mtu != SLIRP_MTU || sets_mtu()), Setting::Mtu),
    ];
    settings.into_iter().find_map(|(given, setting)| given.then_some(setting))
}

/// Returns whether parameters can be added to a network that stays for this reason.
fn can_append(left: &Left) -> bool {
    !matches!(
        left,
        Left::ConfigFile | Left::Set | Left::Refused { .. } | Left::Unread { .. } | Left::Id(_)
    )
}

/// Makes the plan of a NIC that keeps its words.
pub(super) fn left_plan(user_nic: &UserNic, why: String, settings: &Settings) -> NicPlan {
    let id = user_nic.id.as_str().as_bytes();
    let groups = ["netdev", "nic", "net"];
    let is_callers = groups.iter().any(|group| settings.find(group, id).is_some());
    let request = user_nic.request.clone().unwrap_or_else(|_| NicRequest {
        // A further NIC gets another subnet.
        address: LeftNetwork::read(user_nic).address,
        ..NicRequest::default()
    });
    NicPlan {
        request,
        origin: Origin::Left { written: user_nic.written.clone(), why: why.clone() },
        backend: Backend::Slirp,
        fallback: Some(why),
        transport: None,
        addresses: None,
        dns: None,
        mac: user_nic.card.as_ref().and_then(|card| card.mac),
        id: is_callers.then(|| user_nic.id.clone()),
        publish: Vec::new(),
        args: Vec::new(),
        fd: None,
        reconnects: false,
        passt: None,
        bridge: None,
    }
}
