//! Checks a request against the caller's own QEMU arguments.
//!
//! The arguments must not use an id that netlaunch's arguments need, attach a second card to
//! netlaunch's netdev, or give the guest a network that breaks a promise of the request. A further
//! user-mode network that breaks no promise gives a warning.
//!
//! The user-mode networks that the launch moves ([`super::nics`]) are not judged here.

use super::nics::adoptable;
use super::request::{Attachment, Command, NicRequest, Request, Transport};
use super::request_error::RequestError;
use crate::launcher::adopt::UserNic;
use crate::launcher::qemu_options::{CommandLine, Settings, UserNetwork, card_on, user_networks};
use crate::types::facts::Facts;
use crate::types::{Device, Id};

/// Checks that the QEMU arguments do not conflict with the request.
pub(super) fn check_command(request: &Request, command: &Command) -> Result<(), RequestError> {
    let line = CommandLine::parse(&command.args);
    let settings = line.settings(&request.config_files);
    // The place of a NIC and its spelling do not depend on the host.
    let moved = adoptable(request, &line, &settings, &Facts::default());
    let added = if moved.is_empty() { request.added() } else { &request.nics };
    for nic in added {
        check_ids(nic, &settings)?;
    }
    let open = own_networks(&moved, &settings).into_iter().find(|own| !own.restricted);
    match open.filter(|_| !request.nic.host_loopback) {
        Some(network) => Err(RequestError::OwnNetwork(network.written)),
        None => Ok(()),
    }
}

/// Checks that the QEMU arguments use no id that the NIC needs, and attach no card to its netdev.
fn check_ids(nic: &NicRequest, settings: &Settings) -> Result<(), RequestError> {
    let id = &nic.id;
    let networks = ["netdev", "nic", "net"];
    let is_network = |id: &Id| {
        networks.iter().any(|group| settings.find(group, id.as_str().as_bytes()).is_some())
    };
    if nic.id_named && is_network(id) {
        return Err(RequestError::IdTaken(id.clone()));
    }
    for (group, taken) in further_ids(nic, id).into_iter().filter(|_| nic.id_named) {
        if settings.find(group, taken.as_bytes()).is_some() {
            return Err(RequestError::PartTaken { kind: group, taken });
        }
    }
    match card_on(settings, id.as_str()).filter(|_| nic.device != Device::None && !is_network(id)) {
        Some(card) => Err(RequestError::CardTaken { id: id.clone(), card: card.written.clone() }),
        None => Ok(()),
    }
}

/// Returns the ids that netlaunch's arguments for a NIC with this id use besides the netdev's, each
/// with its option.
pub(super) fn further_ids(nic: &NicRequest, id: &Id) -> Vec<(&'static str, String)> {
    let vhost_user = nic.transport == Some(Transport::VhostUser);
    if vhost_user {
        vec![("chardev", format!("{id}-chr")), ("object", format!("{id}-mem"))]
    } else if nic.pcap.is_some() {
        vec![("object", format!("{id}-dump"))]
    } else {
        Vec::new()
    }
}

/// Returns the user-mode networks of the caller's arguments besides those that the launch moves.
fn own_networks(moved: &[UserNic], settings: &Settings) -> Vec<UserNetwork> {
    let mut networks = user_networks(settings);
    networks.retain(|network| !moved.iter().any(|nic| nic.written == network.written));
    networks
}

/// Returns a warning about user-mode networks of the caller's own arguments; `None` if there are
/// none.
pub(super) fn warning(request: &Request) -> Option<String> {
    let line = request.command_line()?;
    let settings = line.settings(&request.config_files);
    let moved = adoptable(request, &line, &settings, &Facts::default());
    let networks = own_networks(&moved, &settings);
    let written = networks.iter().map(|network| network.written.as_str());
    let written = written.collect::<Vec<_>>().join(" and ");
    let attachment = request.added().iter().find_map(|nic| nic.attachment.as_ref());
    let second = match attachment {
        _ if written.is_empty() => return None,
        None => "a second network with the same addresses and other rules",
        Some(Attachment::Network(_) | Attachment::Bridge(_)) => {
            "a second network that avoids the bridge and its filter"
        }
    };
    Some(format!(
        "the QEMU arguments bring a user-mode network of their own ({written}), so the guest gets {second}: drop it from the QEMU arguments"
    ))
}
