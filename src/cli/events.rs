//! The events of a launch: messages with fields, for programs that read `--log-format json`.
//!
//! The field `event` has the name of the event; netlaunch(1) has the table of all fields. The
//! supervisor writes the event `passt-restarted` itself ([`crate::launcher`]).

use crate::launcher::plan::{Backend, NicPlan, Plan};
use crate::launcher::record::Record;
use crate::launcher::{EventSink, LaunchEvent};
use std::net::Ipv6Addr;

/// Writes the events of the chosen backends and of each published port.
pub(super) fn chosen(plan: &Plan) {
    plan.nics.iter().for_each(chosen_for);
}

fn chosen_for(nic: &NicPlan) {
    let id = nic.id.as_ref().map(|id| id.as_str());
    let transport = nic.transport.map(|transport| format!("{transport:?}").to_lowercase());
    let transport = transport.map(|name| name.replace("vhostuser", "vhost-user"));
    tracing::info!(
        target: "netlaunch::event",
        event = "backend-chosen",
        nic = id,
        backend = nic.backend.name(),
        transport,
        fallback = nic.fallback,
        "the backend is {}", nic.backend
    );
    if nic.backend == Backend::Bridge {
        return;
    }
    for publish in &nic.publish {
        tracing::info!(
            target: "netlaunch::event",
            event = "port-published",
            nic = id,
            address = publish.address.to_string(),
            port = publish.host.first(),
            last_port = publish.host.last(),
            guest_port = publish.guest.first(),
            protocol = publish.protocol.to_string(),
            "published {publish}"
        );
    }
}

/// Writes the event of a network that serves; in run mode QEMU runs as well.
pub(super) fn ready(plan: &Plan, record: Option<&Record>) {
    let pid = |program: Option<&crate::launcher::record::Program>| program.map(|p| p.pid);
    tracing::info!(
        target: "netlaunch::event",
        event = "ready",
        name = record.map(|record| record.name.as_str()),
        qemu_pid = pid(record.and_then(|record| record.qemu.as_ref())),
        passt_pid = pid(record.and_then(|record| record.passt.as_ref())),
        mac = plan.nics.first().mac.map(|mac| mac.to_string()),
        "ready"
    );
}

/// Returns a sink that writes the events about one NIC of a launch that runs.
pub(super) fn sink(plan: &Plan) -> EventSink {
    let id = |nic: &NicPlan| nic.id.as_ref().map(|id| id.as_str().to_owned());
    let ids: Vec<Option<String>> = plan.nics.iter().map(id).collect();
    EventSink::new(move |event| of_nic(&event, &ids))
}

fn of_nic(event: &LaunchEvent, ids: &[Option<String>]) {
    let id = |nic: &usize| ids.get(*nic).and_then(Option::as_deref);
    match event {
        LaunchEvent::BackendLost { nic } => tracing::info!(
            target: "netlaunch::event",
            event = "backend-lost",
            nic = id(nic),
            "the network of the NIC is lost"
        ),
        LaunchEvent::AddressLearned { nic, address, addresses6 } => tracing::info!(
            target: "netlaunch::event",
            event = "address-learned",
            nic = id(nic),
            address = address.map(|address| address.to_string()),
            addresses6 = (!addresses6.is_empty()).then(|| joined(addresses6)),
            "the guest's address has changed"
        ),
        _ => {}
    }
}

fn joined(addresses: &[Ipv6Addr]) -> String {
    addresses.iter().map(Ipv6Addr::to_string).collect::<Vec<_>>().join(",")
}

/// Writes the event of the end of netlaunch, with its exit status.
pub(super) fn ended(status: u8) {
    tracing::info!(target: "netlaunch::event", event = "exit", status, "exit");
}
