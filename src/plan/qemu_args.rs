//! The arguments that connect QEMU to its network.

use std::ffi::OsString;

use super::{
    Draft, Link, PlanError, QemuPlan, Transport, bridge, device_args, memory, option_path,
    slirp_args,
};
use crate::facts::Reconnect;

/// How long QEMU waits before it connects to a restarted passt again. Guest traffic is back about
/// a second after passt is (measured), so this stays well below that.
const RECONNECT_MS: u32 = 200;

/// QEMU's side of the plan.
pub(super) fn qemu_plan(
    draft: &Draft,
    link: &Link,
    notes: &mut Vec<String>,
) -> Result<QemuPlan, PlanError> {
    let (request, qemu) = (draft.request, &draft.facts.qemu);
    let id = &request.id;
    let mut args: Vec<OsString> = Vec::new();
    let mut fd = None;
    let mut reconnects = false;
    let mut card_mtu = None;
    let transport = match link {
        Link::Passt(transport, _) => Some(*transport),
        _ => None,
    };
    let socket = match link {
        Link::Passt(_, passt) => passt.socket.as_deref().map(option_path),
        _ => None,
    };
    match (link, socket) {
        (Link::Passt(Transport::Unix, _), Some(socket)) => {
            let mut netdev =
                OsString::from(format!("stream,id={id},server=off,addr.type=unix,addr.path="));
            netdev.push(socket);
            match qemu.reconnect {
                Reconnect::Milliseconds => netdev.push(format!(",reconnect-ms={RECONNECT_MS}")),
                Reconnect::Seconds => netdev.push(",reconnect=1"),
                Reconnect::No => {}
            }
            reconnects = qemu.reconnect != Reconnect::No;
            args.extend(["-netdev".into(), netdev]);
        }
        (Link::Passt(Transport::VhostUser, _), Some(socket)) => {
            let mut chardev = OsString::from(format!("socket,id={id}-chr,path="));
            chardev.push(socket);
            args.extend(["-chardev".into(), chardev]);
            args.push("-netdev".into());
            args.push(format!("vhost-user,id={id},chardev={id}-chr").into());
            args.extend(memory::shared(request.command.as_ref(), id, notes)?);
        }
        (Link::Passt(..), _) => {
            let number = draft.particulars.qemu_fd;
            fd = Some(number);
            args.push("-netdev".into());
            args.push(format!("stream,id={id},server=off,addr.type=fd,addr.str={number}").into());
        }
        (Link::Slirp, _) => {
            args.extend(["-netdev".into(), slirp_args::netdev(draft).into()]);
            card_mtu = request.mtu;
        }
        (Link::Bridge(plan), _) => {
            let (netdev, inherited) = bridge::netdev(draft, plan);
            args.extend(["-netdev".into(), netdev]);
            fd = inherited;
            card_mtu = bridge::card_mtu(request, draft.facts);
        }
    }
    // QEMU writes the file with the caller's rights; passt under root would do it as another user.
    // vhost-user frames do not pass through QEMU.
    if let Some(pcap) = request.pcap.as_ref().filter(|_| transport != Some(Transport::VhostUser)) {
        let mut dump = OsString::from(format!("filter-dump,id={id}-dump,netdev={id},file="));
        dump.push(option_path(pcap));
        args.extend(["-object".into(), dump]);
    }
    let mtu = card_mtu.map(|mtu| format!(",host_mtu={mtu}")).unwrap_or_default();
    args.extend(device_args(draft, &mtu));
    let command = request.command.as_ref();
    Ok(QemuPlan {
        program: command.and(qemu.path.clone()),
        name: command.map(|c| c.program.clone()),
        user_args: command.map(|c| c.args.clone()).unwrap_or_default(),
        args,
        fd,
        reconnects,
    })
}
