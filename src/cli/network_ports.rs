//! `netlaunch network ports`: the ports on the bridge of a network, and the guests behind them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::environment::Environment;
use super::table::table;
use super::{Failure, nwfilter, print_json, print_text, runtime};
use crate::network::NetworkName;
use crate::network::guest_address::FoundAddresses;
use crate::network::manager::{Manager, NetworkPort, PortGuest};
use crate::types::{InterfaceName, error_text};

/// The version of the JSON output, described by conf/schema/network-ports.schema.json.
const PORTS_VERSION: u32 = 1;

/// The addresses that filters have learned, by the number of the port.
pub(super) type LearnedByPort = BTreeMap<u32, (InterfaceName, std::net::Ipv4Addr)>;

/// Returns the addresses that the learners of filters have set in the rules of ports.
pub(super) fn learned(config_dir: &std::path::Path, environment: &Environment) -> LearnedByPort {
    let listed = nwfilter::bindings(config_dir, environment)
        .map_err(|error| error_text(&error))
        .and_then(|bindings| bindings.list().map_err(|error| error_text(&error)));
    let ports = listed.unwrap_or_else(|error| {
        tracing::debug!("the learned addresses of ports are not known: {error}");
        Vec::new()
    });
    let of_port = ports.into_iter().filter_map(|status| {
        let address = status.address.filter(|_| status.learns)?;
        Some((status.index, (status.port, address)))
    });
    of_port.collect()
}

/// An address as this command shows it: the address and the place that it was found in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShownAddress {
    pub(super) address: IpAddr,
    pub(super) source: &'static str,
}

impl ShownAddress {
    /// Returns the addresses of a guest. The learned address of its filter comes after the lease,
    /// and before the neighbour table, which no filter has checked.
    pub(super) fn all(
        found: FoundAddresses,
        learned: Option<std::net::Ipv4Addr>,
    ) -> [Option<Self>; 2] {
        let v4 = found.v4.map(|found| ShownAddress {
            address: found.address.into(),
            source: found.source.name(),
        });
        let learned =
            learned.map(|address| ShownAddress { address: address.into(), source: "learner" });
        let v4 = match v4 {
            Some(shown) if shown.source != "neighbor" => Some(shown),
            neighbor => learned.or(neighbor),
        };
        let v6 = found.v6.map(|found| ShownAddress {
            address: found.address.into(),
            source: found.source.name(),
        });
        [v4, v6]
    }

    /// Returns it as JSON.
    pub(super) fn as_json(&self) -> Value {
        json!({ "address": self.address, "source": self.source })
    }
}

/// Prints the ports of a running network.
pub(super) fn ports(
    manager: &Manager,
    name: &NetworkName,
    json: bool,
    learned: &LearnedByPort,
) -> Result<(), Failure> {
    let status = manager.running(name)?;
    let listed = runtime()?.block_on(manager.ports(&status))?;
    listed.unread.iter().for_each(|error| tracing::warn!("{}", error_text(error)));
    let learned = |port: &NetworkPort, guest: &PortGuest| {
        let is_first = port.guests.first() == Some(guest);
        learned.get(&port.index).filter(|_| is_first).map(|(_, address)| *address)
    };
    if json {
        let port = |port: &NetworkPort| {
            let guest = |guest: &PortGuest| {
                let [v4, v6] = ShownAddress::all(guest.addresses, learned(port, guest));
                json!({
                    "mac": guest.mac,
                    "ipv4": v4.as_ref().map(ShownAddress::as_json),
                    "ipv6": v6.as_ref().map(ShownAddress::as_json),
                })
            };
            json!({
                "port": port.name,
                "launch": port.launch,
                "foreign": !port.own,
                "kind": port.kind,
                "up": port.up,
                "guests": port.guests.iter().map(guest).collect::<Vec<_>>(),
            })
        };
        let ports: Vec<Value> = listed.ports.iter().map(port).collect();
        let bridge = &status.bridge;
        return print_json(
            &json!({ "version": PORTS_VERSION, "network": name, "bridge": bridge, "ports": ports }),
        );
    }
    let mut rows = Vec::new();
    for port in &listed.ports {
        let launch = match (&port.launch, port.own) {
            (Some(launch), _) => launch.clone(),
            (None, true) => "(a launch)".to_owned(),
            (None, false) => "-".to_owned(),
        };
        let before = rows.len();
        let mut row = |mac: String, address: String, from: &str| {
            let is_first = rows.len() == before;
            let first = |text: &str| if is_first { text.to_owned() } else { String::new() };
            rows.push([first(&port.name), first(&launch), mac, address, from.to_owned()]);
        };
        for guest in &port.guests {
            let shown = ShownAddress::all(guest.addresses, learned(port, guest));
            let mut shown = shown.into_iter().flatten().peekable();
            if shown.peek().is_none() {
                row(guest.mac.to_string(), "-".to_owned(), "-");
            }
            for one in shown {
                row(guest.mac.to_string(), one.address.to_string(), one.source);
            }
        }
        if port.guests.is_empty() {
            row("-".to_owned(), "-".to_owned(), "-");
        }
    }
    print_text(&table(["PORT", "LAUNCH", "MAC", "ADDRESS", "FROM"], &rows, &[], &[1]))
}
