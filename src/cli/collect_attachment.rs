//! `netlaunch collect-attachment`: removes an attachment whose supervisor was killed.
//!
//! The cleaner of the attachment runs it. If the cleaner was killed, too, the next `netlaunch
//! attach` or `netlaunch detach` does the same. QEMU still has the tap then, so the tap is turned
//! off and taken off its bridge first. When QEMU has lost the card and the netdev, the kernel
//! removes the tap, and its rules go afterwards. QEMU would abort without its tap, so a tap that
//! QEMU keeps stays off, with its rules, until QEMU ends.

use std::path::Path;

use super::attach_error::AttachError;
use super::environment::Environment;
use super::guest_port::HostPorts;
use super::{Failure, runtime};
use crate::launcher::attach::{ANSWER_LIMIT, TargetGuest, unplug};
use crate::launcher::record::{self, AttachedTo, NicRecord, Record, running};
use crate::sys::netlink::{GuestTap, Netlink};
use crate::types::Id;

/// Removes the attachment whose launch directory is `dir`. Goes on after an error.
pub(super) fn collect(dir: &Path, environment: &Environment) -> Result<u8, Failure> {
    let collected = match record::read(dir) {
        Some(record) => runtime()?.block_on(collect_recorded(&record, environment)),
        // The supervisor was killed before it changed anything.
        None => Ok(()),
    };
    environment.launch_root().remove_collected(dir)?;
    collected.map(|()| 0)
}

/// Removes the attachments whose supervisor and cleaner were killed, and returns their records. A
/// failure is reported, and the record of that attachment is not returned.
pub(super) async fn collect_left(environment: &Environment) -> Result<Vec<Record>, Failure> {
    let root = environment.launch_root();
    if !root.dir.exists() {
        return Ok(Vec::new());
    }
    let mut collected = Vec::new();
    for dir in root.left_attachments()? {
        let Some(record) = record::read(&dir) else { continue };
        if let Err(error) = collect_recorded(&record, environment).await {
            tracing::warn!("a NIC that a killed attachment left stays: {error}");
            continue;
        }
        root.remove_collected(&dir)?;
        collected.push(record);
    }
    Ok(collected)
}

/// Removes the attachment with this record, but not its launch directory.
async fn collect_recorded(record: &Record, environment: &Environment) -> Result<(), Failure> {
    let (Some(to), [nic, ..]) = (&record.attached_to, &record.nics[..]) else { return Ok(()) };
    turn_port_off(&record.name, nic).await?;
    let unplugged = match &nic.id {
        Some(id) => unplug_left(to, id, environment).await,
        None => Ok(()),
    };
    if nic.bridge.is_some() {
        // The rules of a tap that still exists stay.
        HostPorts::with(true, !nic.publish.is_empty(), environment)?.collect().await;
    }
    unplugged
}

/// Turns off the tap with the name and the home of the record: another interface may have the name
/// by now.
async fn turn_port_off(launch: &str, nic: &NicRecord) -> Result<(), Failure> {
    let Some(bridge) = &nic.bridge else { return Ok(()) };
    let netlink = Netlink::open()?;
    let taps = netlink.guest_taps().await?;
    let is_meant = |tap: &&GuestTap| {
        let home = &tap.home;
        Some(&tap.port) == bridge.tap.as_ref()
            && home.launch.as_deref().is_none_or(|name| name == launch)
            && (home.mac.is_none() || home.mac == nic.guest.mac)
    };
    match taps.iter().find(is_meant) {
        Some(tap) => Ok(netlink.turn_off(&tap.port, tap.index).await?),
        None => Ok(()),
    }
}

/// Takes the NIC away from QEMU.
async fn unplug_left(to: &AttachedTo, id: &Id, environment: &Environment) -> Result<(), Failure> {
    let lock = TargetGuest::lock(&to.dir, environment.lock_limit).await;
    let _lock = lock.map_err(AttachError::Lock)?;
    // If the NIC was not in QEMU yet, another attachment may have its id by now.
    let launches = running(&environment.launch_root())?;
    let mut nics = launches.iter().filter(|launch| launch.dir == to.dir).flat_map(|one| &one.nics);
    if nics.any(|nic| nic.id.as_ref() == Some(id)) {
        return Ok(());
    }
    unplug(&to.qmp, id, ANSWER_LIMIT, true).map_err(|error| AttachError::Unplug(error).into())
}
