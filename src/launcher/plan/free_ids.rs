//! Chooses the ids of added NICs: the named one, or the first of net0, net1, ... that neither the
//! caller's QEMU arguments nor another NIC uses.

use super::own_options::further_ids;
use super::request::NicRequest;
use crate::launcher::adopt::UserNic;
use crate::launcher::qemu_options::Settings;
use crate::types::Id;

/// Returns the NICs with their ids.
pub(super) fn with_free_ids(
    nics: &[NicRequest],
    settings: &Settings,
    user_nics: &[UserNic],
) -> Vec<NicRequest> {
    let named = nics.iter().filter(|nic| nic.id_named).map(|nic| nic.id.clone());
    let mut taken: Vec<Id> = user_nics.iter().map(|nic| nic.id.clone()).chain(named).collect();
    let mut with_ids = Vec::new();
    for nic in nics {
        let mut nic = nic.clone();
        if !nic.id_named {
            nic.id = free_id(&nic, settings, &taken);
            taken.push(nic.id.clone());
        }
        with_ids.push(nic);
    }
    with_ids
}

fn free_id(nic: &NicRequest, settings: &Settings, taken: &[Id]) -> Id {
    let is_free = |id: &Id| {
        let is_set = |group: &str, id: &str| settings.find(group, id.as_bytes()).is_some();
        let networks = ["netdev", "nic", "net"];
        !taken.contains(id)
            && !networks.iter().any(|group| is_set(group, id.as_str()))
            && !further_ids(nic, id).iter().any(|(group, id)| is_set(group, id))
    };
    let stem = settings.id_stem();
    let numbered = (0..=u32::MAX).filter_map(|number| format!("{stem}{number}").parse().ok());
    // The caller's arguments are fewer than the numbers, so one of them is free.
    let own = Some(nic.id.clone()).filter(|_| settings.unreadable_files().is_empty());
    own.into_iter().chain(numbered).find(is_free).unwrap_or_default()
}
