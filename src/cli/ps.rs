//! `netlaunch ps`: lists the running launches.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::args::PsArgs;
use super::environment::Environment;
use super::network_ports::ShownAddress;
use super::table::table;
use super::{Failure, network, print_json, print_text, runtime};
use crate::launcher::record::{BridgeAttachment, NicRecord, RECORD_VERSION, Record, running};
use crate::network::guest_address::AddressTable;
use crate::types::printable::printable;
use crate::types::{InterfaceName, NetworkName, error_text};

/// Lists the running launches of this user.
pub(super) fn ps(args: &PsArgs, environment: &Environment) -> Result<u8, Failure> {
    let records = running(&environment.launch_root())?;
    let bridges = Bridges::read(&records, environment);
    if args.json {
        let launches: Vec<Value> = records.iter().map(|record| as_json(record, &bridges)).collect();
        print_json(&json!({ "version": RECORD_VERSION, "launches": launches }))?;
    } else {
        print_text(&text(&records, &bridges))?;
    }
    Ok(0)
}

/// The addresses that are known on the bridges of the launches.
#[derive(Default)]
struct Bridges(BTreeMap<(Option<NetworkName>, InterfaceName), AddressTable>);

impl Bridges {
    /// Reads them once for each bridge. A bridge that cannot be read has no addresses.
    fn read(records: &[Record], environment: &Environment) -> Self {
        let nics = records.iter().flat_map(|record| &record.nics);
        let mut bridges = Bridges::default();
        let Ok(runtime) = runtime() else { return bridges };
        for bridge in nics.filter_map(|nic| nic.bridge.as_ref()) {
            let key = (bridge.network.clone(), bridge.bridge.clone());
            if bridges.0.contains_key(&key) {
                continue;
            }
            let table = runtime.block_on(table_of(bridge, environment)).unwrap_or_else(|error| {
                tracing::debug!("the addresses on {} are not known: {error}", bridge.bridge);
                AddressTable::default()
            });
            bridges.0.insert(key, table);
        }
        bridges
    }

    /// Returns the IPv4 and the IPv6 address of the guest of a NIC on a bridge.
    fn addresses(&self, nic: &NicRecord) -> [Option<ShownAddress>; 2] {
        let Some(bridge) = &nic.bridge else { return [None, None] };
        let table = self.0.get(&(bridge.network.clone(), bridge.bridge.clone()));
        let found = nic.guest.mac.and_then(|mac| table.map(|table| table.find(mac)));
        let learned = bridge.learning.as_ref().and_then(|learned| learned.address);
        ShownAddress::all(found.unwrap_or_default(), learned)
    }
}

async fn table_of(
    bridge: &BridgeAttachment,
    environment: &Environment,
) -> Result<AddressTable, String> {
    let Some(name) = &bridge.network else {
        return AddressTable::of_bridge(&bridge.bridge).await.map_err(|error| error_text(&error));
    };
    let config_dir = environment.config_dir().map_err(|error| error.to_string())?;
    let config_dir = config_dir.ok_or("there is no configuration directory")?;
    let manager = network::manager(&config_dir, environment).map_err(|error| error.to_string())?;
    let status = manager.running(name).map_err(|error| error_text(&error))?;
    let (table, unread) = AddressTable::of_network(&status).await;
    unread.iter().for_each(|error| tracing::debug!("{}", error_text(error)));
    Ok(table)
}

/// Returns a record with the addresses of the guest on each bridge.
fn as_json(record: &Record, bridges: &Bridges) -> Value {
    let mut value = json!(record);
    let Some(nics) = value.get_mut("nics").and_then(Value::as_array_mut) else { return value };
    for (nic, value) in record.nics.iter().zip(nics) {
        let [v4, v6] = bridges.addresses(nic);
        let address = |shown: Option<ShownAddress>| shown.as_ref().map(ShownAddress::as_json);
        let found =
            nic.bridge.as_ref().map(|_| json!({ "ipv4": address(v4), "ipv6": address(v6) }));
        value["addresses"] = json!(found);
    }
    value
}

/// The guest's address: the address of its plan, or the one that its bridge knows, IPv4 first.
fn address(nic: &NicRecord, bridges: &Bridges) -> String {
    if let Some(address) = nic.guest.address {
        return address.address().to_string();
    }
    let [v4, v6] = bridges.addresses(nic);
    let learns = nic.bridge.as_ref().is_some_and(|bridge| bridge.learning.is_some());
    match (v4, v6) {
        (Some(v4), _) => v4.address.to_string(),
        (None, _) if learns => "learning".to_owned(),
        (None, Some(v6)) => v6.address.to_string(),
        (None, None) => "-".to_owned(),
    }
}

/// The name of a launch in the row of its first NIC, and the id of an attached NIC behind a `+`.
fn name(record: &Record, nic: &NicRecord, is_first: bool) -> String {
    match (is_first, &nic.attached, &nic.id) {
        (true, ..) => printable(&record.name).into_owned(),
        (false, Some(_), Some(id)) => format!("+{id}"),
        _ => String::new(),
    }
}

fn text(records: &[Record], bridges: &Bridges) -> String {
    let pid = |pid: Option<i32>| pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let row = |(record, nic, is_first): (&Record, &NicRecord, bool)| {
        let transport = nic.transport.map(|t| format!("/{}", t.name()));
        let bridge = nic.bridge.as_ref();
        let joined = bridge.map(|bridge| match &bridge.network {
            Some(network) => format!("/{network}"),
            None => format!("/{}", bridge.bridge),
        });
        let by = transport.or(joined).unwrap_or_default();
        let supervisor = nic.attached.as_ref().map(|attached| attached.pid.to_string());
        let ports: Vec<String> = nic.publish.iter().map(|p| p.to_string()).collect();
        [
            name(record, nic, is_first),
            if is_first { record.pid.to_string() } else { supervisor.unwrap_or_default() },
            format!("{}{by}", nic.backend),
            if is_first { pid(record.qemu.as_ref().map(|p| p.pid)) } else { String::new() },
            pid(nic.passt.as_ref().map(|p| p.pid)),
            bridge
                .and_then(|bridge| bridge.tap.as_ref())
                .map_or_else(|| "-".to_owned(), ToString::to_string),
            address(nic, bridges),
            if ports.is_empty() { "-".to_owned() } else { ports.join(" ") },
        ]
    };
    let header = ["NAME", "PID", "BACKEND", "QEMU", "PASST", "TAP", "ADDRESS", "PORTS"];
    // A launch has a row for each of its NICs.
    let rows = records.iter().flat_map(|record| {
        record.nics.iter().enumerate().map(move |(place, nic)| (record, nic, place == 0))
    });
    table(header, &rows.map(row).collect::<Vec<_>>(), &[7], &[0, 2])
}
