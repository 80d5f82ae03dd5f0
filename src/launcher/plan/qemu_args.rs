//! Writes the arguments that give QEMU one NIC.
//!
//! They are the netdev of the backend, then the capture file, then the card. They follow the
//! caller's own arguments.
//!
//! A path in an argument has each comma doubled; a single comma would end the value.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;

use super::card_mtu::card_mtu;
use super::draft::Draft;
use super::error::PlanError;
use super::model::BackendPlan;
use super::passt::PasstPlan;
use super::request::{Backend, Transport};
use super::request_error::RequestError;
use super::socket::CallerSocket;
use super::vmm::{self, Vmm};
use super::{bridge, card, memory, queues, slirp_args};
use crate::launcher::qemu_options::path_value;
use crate::types::facts::Reconnect;

/// The note about a QEMU that did not say how its netdev reconnects.
const NOT_SAID: &str = "QEMU did not say whether it can connect to passt again, so the network of \
    this launch ends if passt crashes";
/// The time that QEMU waits before it connects to a restarted passt again, in milliseconds.
///
/// It must be well below one second: guest traffic flows again about a second after passt's
/// restart (measured), and a longer wait would add to that.
const RECONNECT_MS: u32 = 200;

/// QEMU's arguments for one NIC.
pub(super) struct NicArgs {
    pub(super) args: Vec<OsString>,
    /// The descriptor number that QEMU inherits.
    pub(super) fd: Option<RawFd>,
    /// Whether QEMU connects again after a restart of passt.
    pub(super) reconnects: bool,
    /// The MTU that a virtio card must tell the guest.
    pub(super) card_mtu: Option<u16>,
}

/// A netdev with its properties.
#[derive(Default)]
struct Netdev {
    args: Vec<OsString>,
    /// The descriptor number that QEMU inherits.
    fd: Option<RawFd>,
    /// Whether QEMU connects again after a restart of passt.
    reconnects: bool,
}

/// Writes QEMU's arguments for the NIC of the draft.
pub(super) fn nic_args(
    draft: &Draft,
    backend_plan: &BackendPlan,
    notes: &mut Vec<String>,
) -> Result<NicArgs, PlanError> {
    let (nic, id) = (draft.nic, &draft.nic.id);
    if let BackendPlan::Passt(_, passt) = backend_plan
        && let Some(args) = without_netdev(draft, passt, notes)?
    {
        return Ok(NicArgs { args, fd: None, reconnects: false, card_mtu: None });
    }
    let Netdev { mut args, fd, reconnects } = match backend_plan {
        BackendPlan::Passt(transport, passt) => passt_netdev(draft, *transport, passt, notes)?,
        BackendPlan::Slirp => Netdev {
            args: vec!["-netdev".into(), slirp_args::netdev(draft).into()],
            ..Netdev::default()
        },
        BackendPlan::Bridge(bridge) => {
            let (netdev, fd) = bridge::netdev(draft, bridge)?;
            Netdev { args: vec!["-netdev".into(), netdev], fd, reconnects: false }
        }
    };
    // QEMU writes the file with the caller's rights; root's passt would write it as another user.
    // With vhost-user, the frames do not pass through QEMU, and passt writes the file.
    let is_vhost_user = matches!(backend_plan, BackendPlan::Passt(Transport::VhostUser, _));
    if let Some(pcap) = nic.pcap.as_ref().filter(|_| !is_vhost_user) {
        let mut dump = OsString::from(format!("filter-dump,id={id}-dump,netdev={id},file="));
        dump.push(path_value(pcap));
        args.extend(["-object".into(), dump]);
    }
    let (backend, queues) = match backend_plan {
        BackendPlan::Passt(..) => (Backend::Passt, 1),
        BackendPlan::Slirp => (Backend::Slirp, 1),
        BackendPlan::Bridge(bridge) => (Backend::Bridge, bridge.queue_fds.len()),
    };
    let card_mtu = card_mtu(draft.context.request, nic, backend, draft.context.facts);
    // QEMU does not offer the feature for 0, which is its own default.
    let none = draft.context.has_global_mtu.then_some(0);
    let mtu = card_mtu.or(none).filter(|_| nic.device.is_virtio());
    let mtu = mtu.map(|mtu| format!(",host_mtu={mtu}")).unwrap_or_default();
    let queues = queues::card_properties(&nic.device, queues);
    args.extend(card::device_args(draft, &(mtu + &queues)));
    Ok(NicArgs { args, fd, reconnects, card_mtu })
}

/// Returns the arguments of a NIC that needs no netdev of QEMU's: of another VMM, or of a QEMU that
/// has its end of the caller's socket already.
fn without_netdev(
    draft: &Draft,
    passt: &PasstPlan,
    notes: &mut Vec<String>,
) -> Result<Option<Vec<OsString>>, RequestError> {
    let request = draft.context.request;
    if request.socket == Some(CallerSocket::Connected) {
        notes.push("the guest's program has its end of the caller's socket".to_owned());
        return Ok(Some(Vec::new()));
    }
    Ok(match (request.vmm, socket_path(draft, passt)) {
        (Vmm::Qemu, Some(_)) => None,
        (_, Some(path)) => Some(vmm::args(draft, path, notes)?),
        // A listening socket without a path, or the pair of the fd transport.
        (_, None) if request.socket.is_some() => {
            notes.push("the guest's program must know the caller's socket".to_owned());
            Some(Vec::new())
        }
        (_, None) => None,
    })
}

/// Returns the path at which the guest's program connects; `None` if there is none.
fn socket_path<'a>(draft: &'a Draft, passt: &'a PasstPlan) -> Option<&'a Path> {
    match &draft.context.request.socket {
        Some(CallerSocket::Listening(path)) => path.as_deref(),
        Some(CallerSocket::Connected) => None,
        None => draft.context.request.listen.as_deref().or(passt.socket.as_deref()),
    }
}

/// Returns the netdev that is connected to passt.
fn passt_netdev(
    draft: &Draft,
    transport: Transport,
    passt: &PasstPlan,
    notes: &mut Vec<String>,
) -> Result<Netdev, PlanError> {
    let (id, qemu) = (&draft.nic.id, &draft.context.facts.qemu);
    let Some(socket) = socket_path(draft, passt).map(path_value) else {
        let number = draft.qemu_fd().ok_or(PlanError::NoDescriptor)?;
        let netdev = format!("stream,id={id},server=off,addr.type=fd,addr.str={number}");
        let args = vec!["-netdev".into(), netdev.into()];
        return Ok(Netdev { args, fd: Some(number), ..Netdev::default() });
    };
    if transport == Transport::VhostUser {
        let mut chardev = OsString::from(format!("socket,id={id}-chr,path="));
        chardev.push(socket);
        let netdev = format!("vhost-user,id={id},chardev={id}-chr").into();
        let mut args = vec!["-chardev".into(), chardev, "-netdev".into(), netdev];
        if !draft.context.memory_is_shared {
            args.extend(memory::shared(draft.context.request, id, qemu, notes)?);
        }
        return Ok(Netdev { args, ..Netdev::default() });
    }
    let mut netdev = OsString::from(format!("stream,id={id},server=off,addr.type=unix,addr.path="));
    netdev.push(socket);
    // netlaunch accepts one connection of the caller's socket.
    let reconnect =
        if draft.context.request.socket.is_some() { Reconnect::No } else { qemu.reconnect };
    match reconnect {
        Reconnect::Milliseconds => netdev.push(format!(",reconnect-ms={RECONNECT_MS}")),
        Reconnect::Seconds => netdev.push(",reconnect=1"),
        Reconnect::No => {}
        Reconnect::Unknown => notes.push(NOT_SAID.to_owned()),
    }
    let reconnects = matches!(reconnect, Reconnect::Milliseconds | Reconnect::Seconds);
    Ok(Netdev { args: vec!["-netdev".into(), netdev], reconnects, ..Netdev::default() })
}
