//! `netlaunch network event`: prints the events of running networks, one line each.
//!
//! The command ends with status 0 on SIGINT, SIGTERM and SIGHUP, and when the reader of its output
//! has ended, even if no event comes: the kernel reports the end of the reader of a pipe at once.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{Failure, network_leases, runtime};
use crate::network::NetworkName;
use crate::network::event::{AttachedPort, NetworkChange, NetworkEvent};
use crate::network::manager::Manager;
use crate::sys::output_reader::OutputReader;
use crate::sys::process::signals::Signals;
use crate::types::printable;

/// The version of the JSON output, described by conf/schema/network-event.schema.json.
const EVENT_VERSION: u32 = 1;

/// The form and number of the printed events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Printed {
    /// JSON objects instead of sentences.
    pub(super) json: bool,
    /// All events instead of one.
    pub(super) follow: bool,
}

/// Prints the events of one network or of all networks.
pub(super) fn event(
    manager: &Manager,
    name: Option<&NetworkName>,
    printed: Printed,
) -> Result<(), Failure> {
    runtime()?.block_on(print_events(manager, name, printed))
}

async fn print_events(
    manager: &Manager,
    name: Option<&NetworkName>,
    printed: Printed,
) -> Result<(), Failure> {
    let mut signals = Signals::take().map_err(Failure::system("wait for signals"))?;
    let mut watch = manager.watch(name).await?;
    match name {
        Some(name) => tracing::info!("waiting for events of the network {name}"),
        None => tracing::info!("waiting for events of all networks"),
    }
    let reader = OutputReader::open();
    loop {
        let event = tokio::select! {
            event = watch.next() => event?,
            _ = signals.next() => return Ok(()),
            () = reader.ended() => return Ok(()),
        };
        let subnets =
            manager.running(&event.network).map(|status| network_leases::subnets(&status));
        let subnets = subnets.unwrap_or_default();
        let line = if printed.json {
            printable::json(&as_json(&event, &subnets), false)
        } else {
            printable::lines(&sentence(&event))
        };
        if !write_line(&line)? || !printed.follow {
            return Ok(());
        }
    }
}

/// Writes a line at once. Returns false if the reader has ended.
fn write_line(line: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Output(error)),
    }
}

fn as_json(event: &NetworkEvent, subnets: &[ipnet::IpNet]) -> Value {
    let (mut port, mut lease, mut bridge) = (Value::Null, Value::Null, Value::Null);
    match &event.what {
        NetworkChange::Started { bridge: of } => bridge = json!(of),
        NetworkChange::Stopped => {}
        NetworkChange::PortAttached(of) | NetworkChange::PortDetached(of) => {
            port = json!({ "port": of.port, "launch": of.launch, "mac": of.mac });
        }
        NetworkChange::LeaseAdded(of)
        | NetworkChange::LeaseRenewed(of)
        | NetworkChange::LeaseRemoved(of) => lease = network_leases::as_json(of, subnets),
    }
    json!({
        "version": EVENT_VERSION,
        "time": network_leases::now(),
        "network": event.network,
        "event": event.what.name(),
        "bridge": bridge,
        "port": port,
        "lease": lease,
    })
}

fn sentence(event: &NetworkEvent) -> String {
    let what = match &event.what {
        NetworkChange::Started { bridge } => format!(" bridge {bridge}"),
        NetworkChange::Stopped => String::new(),
        NetworkChange::PortAttached(AttachedPort { port, launch, mac })
        | NetworkChange::PortDetached(AttachedPort { port, launch, mac }) => {
            let launch = launch.as_ref().map_or(String::new(), |name| format!(" launch {name}"));
            let mac = mac.map_or(String::new(), |mac| format!(" mac {mac}"));
            format!(" {port}{launch}{mac}")
        }
        NetworkChange::LeaseAdded(lease)
        | NetworkChange::LeaseRenewed(lease)
        | NetworkChange::LeaseRemoved(lease) => {
            let mac = lease.mac.map_or(String::new(), |mac| format!(" mac {mac}"));
            let name = lease.name.as_ref().map_or(String::new(), |name| format!(" name {name}"));
            format!(" {}{mac}{name}", lease.address)
        }
    };
    format!("{} {}{what}", event.network, event.what.name())
}
