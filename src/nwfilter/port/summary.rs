//! The facts of a port that a change of another port needs.
//!
//! A status file names every chain and set of its port, and has the binding as XML. A change of one
//! port needs little of that from the other ports: which table of nftables has their rules, and
//! which addresses their guests have. [`PortSummary`] has these facts, and [`super::index`] keeps
//! the summaries of all ports in one file. This module reads no file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::PortStatus;
use crate::firewall::port_nft::PortTable;
use crate::nwfilter::Binding;
use crate::types::{InterfaceName, Mac};

/// The facts of a bound port that changes of other ports need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PortSummary {
    /// The current name of the port.
    pub(super) port: InterfaceName,
    /// The interface index.
    pub(super) index: u32,
    /// The table of the family bridge with the port's rules; `None` if there is none.
    pub(super) table: Option<PortTable>,
    /// Whether the port learns the IPv4 address of its guest.
    pub(super) learns4: bool,
    /// Whether the port learns the IPv6 addresses of its guest.
    pub(super) learns6: bool,
    /// The learned IPv4 address in the rules.
    pub(super) address: Option<Ipv4Addr>,
    /// The learned IPv6 addresses in the rules, the oldest first.
    pub(super) addresses6: Vec<Ipv6Addr>,
    /// The facts of the binding; `None` if its XML cannot be parsed.
    pub(super) guest: Option<GuestSummary>,
}

/// The facts of a binding about the guest of its port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GuestSummary {
    /// The MAC address.
    #[serde(with = "octets")]
    pub(super) mac: Mac,
    /// The addresses and subnets of the guest.
    pub(super) nets: Vec<IpNet>,
    /// The DHCP servers of the guest.
    pub(super) servers: Vec<Ipv4Addr>,
    /// The DHCPv6 servers of the guest.
    pub(super) servers6: Vec<Ipv6Addr>,
}

/// A MAC address as its six bytes: a text of each of 1,000 addresses would take longer.
mod octets {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::types::Mac;

    pub(super) fn serialize<S: Serializer>(mac: &Mac, serializer: S) -> Result<S::Ok, S::Error> {
        mac.octets().serialize(serializer)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Mac, D::Error> {
        Mac::new(Deserialize::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl PortSummary {
    /// Returns the summary of a status; `dir` is the directory of the status files.
    pub(super) fn of(status: &PortStatus, dir: &Path) -> Self {
        PortSummary {
            port: status.port.clone(),
            index: status.index,
            table: status.table(),
            learns4: status.learns4(),
            learns6: status.learns && status.learns6,
            address: status.address,
            addresses6: status.addresses6.clone(),
            guest: status.binding(dir).ok().map(|binding| GuestSummary::of(&binding)),
        }
    }

    /// Returns the addresses that the port has learned.
    pub(super) fn learned(&self) -> impl Iterator<Item = IpAddr> {
        learned(self.address, &self.addresses6)
    }

    /// Returns whether the port learns an address.
    pub(super) fn learns(&self) -> bool {
        self.learns4 || self.learns6
    }
}

impl GuestSummary {
    fn of(binding: &Binding) -> Self {
        GuestSummary {
            mac: binding.mac,
            nets: address_nets(binding),
            servers: address_values(binding, "DHCPSERVER"),
            servers6: address_values(binding, "DHCPV6SERVER"),
        }
    }
}

/// Returns the learned addresses of both IP versions.
pub(super) fn learned(
    address: Option<Ipv4Addr>,
    addresses6: &[Ipv6Addr],
) -> impl Iterator<Item = IpAddr> {
    address.map(IpAddr::V4).into_iter().chain(addresses6.iter().copied().map(IpAddr::V6))
}

/// Returns the addresses among the values of a binding's variable.
fn address_values<A: FromStr>(binding: &Binding, name: &str) -> Vec<A> {
    binding
        .parameters
        .iter()
        .filter(|(variable, _)| variable.as_str() == name)
        .filter_map(|(_, value)| value.as_str().parse().ok())
        .collect()
}

/// Returns the addresses and subnets that a binding gives the guest. A value can be an address, or
/// an address with a prefix length or a netmask.
pub(super) fn address_nets(binding: &Binding) -> Vec<IpNet> {
    let net = |text: &str| -> Option<IpNet> {
        let Some((address, mask)) = text.split_once('/') else {
            return Some(IpNet::from(text.parse::<IpAddr>().ok()?));
        };
        let by_mask = || IpNet::with_netmask(address.parse().ok()?, mask.parse().ok()?).ok();
        text.parse().ok().or_else(by_mask)
    };
    let parameters = binding.parameters.iter();
    let values = parameters.filter(|(name, _)| ["IP", "IPV6"].contains(&name.as_str()));
    values.filter_map(|(_, value)| net(value.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn summary(changes: &Value) -> PortSummary {
        let record = |backend: &str| match backend {
            "nftables" => json!({ "backend": backend, "index": 7, "chains": [] }),
            _ => json!({ "backend": backend, "index": 7, "port": "tap0", "parts": [] }),
        };
        let mut file = json!({
            "version": 1, "port": "tap0", "index": 7, "xml": "<nonsense/>", "complete": true,
            "backend": "nftables", "recorded": [],
        });
        for (name, value) in changes.as_object().unwrap() {
            file[name] = match name.as_str() {
                "recorded" => {
                    let backends = value.as_array().unwrap().iter();
                    backends.map(|backend| record(backend.as_str().unwrap())).collect()
                }
                _ => value.clone(),
            };
        }
        let status: PortStatus = serde_json::from_value(file).unwrap();
        PortSummary::of(&status, Path::new("/state"))
    }

    #[test]
    fn a_summary_has_what_changes_of_other_ports_need() {
        let parameter =
            |name: &str, value: &str| format!("<parameter name='{name}' value='{value}'/>");
        let parameters = [
            parameter("IP", "10.0.0.1"),
            parameter("IP", "10.1.0.0/255.255.0.0"),
            parameter("IPV6", "2001:db8::/64"),
            parameter("IP", "no_address"),
            parameter("DHCPSERVER", "10.0.0.9"),
            parameter("DHCPV6SERVER", "fe80::9"),
            parameter("OTHER", "10.9.9.9"),
        ];
        let xml = format!(
            "<filterbinding><portdev name='tap0'/><mac address='52:54:00:00:00:01'/>\
             <filterref filter='f'>{}</filterref></filterbinding>",
            parameters.concat()
        );
        let none = json!({
            "port": "tap0", "index": 7, "table": null, "learns4": false, "learns6": false,
            "address": null, "addresses6": [], "guest": null,
        });
        for (status, expected) in [
            (json!({}), json!({})),
            (json!({ "recorded": ["nftables"] }), json!({ "table": 1 })),
            (json!({ "recorded": ["iptables", "nftables", "iptables"] }), json!({ "table": 1 })),
            (json!({ "learns": true }), json!({ "learns4": true })),
            (
                json!({ "learns": true, "learns6": true }),
                json!({ "learns4": true, "learns6": true }),
            ),
            (json!({ "learns": true, "learns6": true, "only6": true }), json!({ "learns6": true })),
            (
                json!({ "address": "10.0.0.2", "addresses6": ["2001:db8::2", "2001:db8::1"] }),
                json!({ "address": "10.0.0.2", "addresses6": ["2001:db8::2", "2001:db8::1"] }),
            ),
            // Facts that only a command on this port needs.
            (json!({ "failed": "no", "trace": true, "refused": "10.0.0.3" }), json!({})),
            (
                json!({ "xml": xml }),
                json!({ "guest": {
                    "mac": [0x52, 0x54, 0, 0, 0, 1],
                    "nets": ["10.0.0.1/32", "10.1.0.0/16", "2001:db8::/64"],
                    "servers": ["10.0.0.9"], "servers6": ["fe80::9"],
                } }),
            ),
        ] {
            let mut all = none.clone();
            for (name, value) in expected.as_object().unwrap() {
                all[name] = value.clone();
            }
            let summary = summary(&status);
            assert_eq!(serde_json::to_value(&summary).unwrap(), all, "{status}");
            assert_eq!(serde_json::from_value::<PortSummary>(all).unwrap(), summary);
        }
    }
}
