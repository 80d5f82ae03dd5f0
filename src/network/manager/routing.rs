//! Finds routes and policy rules of the host that lead a network's packets elsewhere.
//!
//! First the kernel is asked where packets for guests go: for the first and the last address of
//! each subnet, and for each route of any table that concerns a part of the subnet. These packets
//! must leave by the bridge. Then the kernel is asked where packets go that the first and the last
//! guest of a subnet send beyond the host. They must leave by the network's `dev`, or by a default
//! route of the main table. A policy rule that leads to another table first, as those of VPNs and
//! of exit nodes do, is reported, and so is a rule that refuses the packets. A fix never removes a
//! route that is wider than the subnet, since the host itself uses such a route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::inspect::{SubnetRoute, subnet_route, uplinks};
use super::{Fault, ManagerError};
use crate::network::{Forward, Network};
use crate::sys::netlink::{HostNet, HostRoute, Netlink, PolicyRule, RouteDecision};

/// The main table's number (rtnetlink(7)).
const MAIN: u32 = 254;
/// The limit of addresses in one subnet about which the kernel is asked.
const MOST: usize = 64;

/// Documentation addresses (RFC 5737, RFC 3849, RFC 9637), which stand for all destinations beyond
/// the host.
const BEYOND: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xffff, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1)),
];

/// A running network whose bridge, with this interface index, is up.
pub(super) struct RouteCheck<'a> {
    pub(super) netlink: &'a Netlink,
    pub(super) host: &'a HostNet,
    pub(super) network: &'a Network,
    pub(super) bridge: u32,
    /// Whether forwarding is on where the network needs it.
    pub(super) forwards: bool,
}

impl RouteCheck<'_> {
    /// Returns the faults of routes and policy rules for this network.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(super) async fn faults(&self) -> Result<Vec<Fault>, ManagerError> {
        let mut faults = Vec::new();
        let has = |subnet: &IpNet| {
            let there = self.host.addresses.iter().filter(|one| one.link == self.bridge);
            there.into_iter().any(|one| one.address == *subnet)
                && subnet_route(self.host, self.bridge, subnet) != SubnetRoute::Missing
        };
        // A subnet whose address or route is missing is reported already.
        for own in self.network.ips.iter().map(|ip| ip.net).filter(has) {
            let rules = self.netlink.policy_rules(own.addr().is_ipv6()).await?;
            let found = self.to_guests(own, &rules).await?;
            let misrouted = !found.is_empty();
            faults.extend(found);
            // A policy rule may apply to only some guests.
            let subnet = own.trunc();
            let guests = [guest(subnet, &own), last(subnet, &own)];
            for guest in guests.into_iter().flatten() {
                if let Some(fault) = self.beyond(own, guest, &rules, misrouted).await? {
                    faults.push(fault);
                    break;
                }
            }
        }
        Ok(faults)
    }

    fn routes(&self) -> impl Iterator<Item = &HostRoute> {
        self.host.routes.iter().chain(&self.host.other_routes)
    }

    /// Returns the addresses of a subnet about which the kernel is asked.
    fn samples(&self, own: IpNet) -> Vec<IpAddr> {
        let subnet = own.trunc();
        let of = |net: IpNet| [guest(net, &own), last(net, &own)];
        let mut samples: Vec<IpAddr> = of(subnet).into_iter().flatten().collect();
        let within = self.routes().filter(|route| {
            subnet.contains(&route.to) && route.links != [self.bridge] && route.to != subnet
        });
        for address in within.flat_map(|route| of(route.to)).flatten() {
            if !samples.contains(&address) {
                samples.push(address);
            }
        }
        samples.truncate(MOST);
        samples
    }

    /// Finds where packets for the guests of a subnet go elsewhere, once for each route.
    async fn to_guests(
        &self,
        own: IpNet,
        rules: &[PolicyRule],
    ) -> Result<Vec<Fault>, ManagerError> {
        let mut found: Vec<(RouteDecision, Fault)> = Vec::new();
        for address in self.samples(own) {
            let looked = self.netlink.lookup(address, None).await?;
            let table = match looked {
                RouteDecision::By { link, .. } if link == self.bridge => continue,
                // The address is the bridge's broadcast address or another address of the host.
                RouteDecision::Local => continue,
                RouteDecision::By { table, .. } => table,
                RouteDecision::Filtered | RouteDecision::Nowhere => None,
            };
            if found.iter().any(|(other, _)| *other == looked) {
                continue;
            }
            let by = match table {
                Some(table) => Some(DecidedBy::Table(table)),
                None => self.refusing(address, rules),
            };
            let fault = self.misrouted(own, address, looked, by, rules);
            found.push((looked, fault));
        }
        Ok(found.into_iter().map(|(_, fault)| fault).collect())
    }

    /// Finds the first policy rule that refuses packets to an address, or that leads to a table
    /// with a route that refuses them (blackhole, unreachable, prohibit). Such a route has no
    /// interface.
    fn refusing(&self, address: IpAddr, rules: &[PolicyRule]) -> Option<DecidedBy> {
        let refuses = |table: u32| {
            let all = self.routes().filter(|route| route.table == table);
            let best = all.filter(|route| route.to.contains(&address));
            let best = best.max_by_key(|route| route.to.prefix_len());
            best.is_some_and(|route| route.links.is_empty())
        };
        let found = |rule: &PolicyRule| {
            if rule.refuses {
                return Some(DecidedBy::Rule(rule.clone()));
            }
            refuses(rule.table).then_some(DecidedBy::Table(rule.table))
        };
        rules.iter().find_map(found)
    }

    fn misrouted(
        &self,
        own: IpNet,
        address: IpAddr,
        looked: RouteDecision,
        by: Option<DecidedBy>,
        rules: &[PolicyRule],
    ) -> Fault {
        let bridge = &self.network.bridge.name;
        let to = match looked {
            RouteDecision::By { link, .. } => format!("leave by {}", self.host.name(link)),
            _ => "are refused by the host's routes".to_owned(),
        };
        let table = match by {
            Some(DecidedBy::Table(table)) => Some(table),
            _ => None,
        };
        let (by, rule) = decision(by, rules);
        let what = format!(
            "packets for the guest address {address} {to}{by} and not by the bridge {bridge}, and \
             so guests get no replies"
        );
        let route = self
            .routes()
            .filter(|route| table.is_none_or(|table| table == route.table))
            .filter(|route| route.to.contains(&address) && !route.links.contains(&self.bridge))
            // A wider route, such as the default route, serves the host itself.
            .filter(|route| own.trunc().contains(&route.to))
            .max_by_key(|route| route.to.prefix_len());
        let mut commands = match (rule, route) {
            (None, Some(route)) => vec![self.delete(route)],
            (rule, _) => vec![prefer_main(&["to", &own.trunc().to_string()], rule)],
        };
        if subnet_route(self.host, self.bridge, &own) == SubnetRoute::Replaced {
            commands.push(["netlaunch", "firewall", "reload"].map(str::to_owned).to_vec());
        }
        Fault::Misrouted { what, table, commands }
    }

    /// Returns the command that removes a route.
    fn delete(&self, route: &HostRoute) -> Vec<String> {
        let version = if route.to.addr().is_ipv6() { " -6" } else { "" };
        let mut line = format!("ip{version} route del {}", route.to);
        if let Some(link) = route.link {
            line.push_str(&format!(" dev {}", self.host.name(link)));
        }
        if route.table != MAIN {
            line.push_str(&format!(" table {}", route.table));
        }
        line.split(' ').map(str::to_owned).collect()
    }

    /// Finds where packets that guests send beyond the host leave by a wrong interface. While
    /// packets for guests are `misrouted`, `rp_filter` drops these packets as well.
    async fn beyond(
        &self,
        own: IpNet,
        guest: IpAddr,
        rules: &[PolicyRule],
        misrouted: bool,
    ) -> Result<Option<Fault>, ManagerError> {
        if !matches!(self.network.forward, Forward::Nat(_) | Forward::Route { .. }) {
            return Ok(None);
        }
        let v6 = own.addr().is_ipv6();
        let same = |route: &&HostRoute| route.to.addr().is_ipv6() == v6;
        // VPNs also write a default route as two halves.
        let special = |to: &IpAddr| {
            self.routes().any(|route| route.to.prefix_len() > 1 && route.to.contains(to))
        };
        let expected: Vec<String> = if self.network.forward.devs().is_empty() {
            let main = self.host.routes.iter().filter(same);
            let default = main.filter(|route| route.to.prefix_len() == 0);
            default.flat_map(|route| &route.links).map(|link| self.host.name(*link)).collect()
        } else {
            uplinks(self.network, self.host)
        };
        let to = BEYOND.into_iter().find(|to| to.is_ipv6() == v6 && !special(to));
        let Some(to) = to else { return Ok(None) };
        let looked = self.netlink.lookup(to, Some((guest, self.bridge))).await?;
        let (outcome, by) = match looked {
            RouteDecision::By { link, table } if !expected.is_empty() => {
                let name = self.host.name(link);
                if expected.contains(&name) {
                    return Ok(None);
                }
                (format!("leave by {name}"), table.map(DecidedBy::Table))
            }
            RouteDecision::Filtered if !misrouted => {
                ("are dropped by the kernel's rp_filter".to_owned(), None)
            }
            // Without forwarding, or without a route beyond the host, no packet of a guest leaves
            // anyway.
            RouteDecision::Nowhere if self.forwards && !expected.is_empty() => {
                let Some(by) = self.refusing(to, rules) else { return Ok(None) };
                ("are refused by the host's routes".to_owned(), Some(by))
            }
            _ => return Ok(None),
        };
        let (by, rule) = decision(by, rules);
        let what = format!(
            "packets that guests of {} send beyond the host {outcome}{by} and not by {}",
            own.trunc(),
            expected.join(" or ")
        );
        let commands = match looked {
            RouteDecision::Filtered => {
                let bridge = &self.network.bridge.name;
                let line = format!("sysctl -w net/ipv4/conf/{bridge}/rp_filter=0");
                vec![line.split(' ').map(str::to_owned).collect()]
            }
            _ => vec![prefer_main(&["from", &own.trunc().to_string()], rule)],
        };
        Ok(Some(Fault::Diverted { what, commands }))
    }
}

/// The route table or policy rule that decides where a packet goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum DecidedBy {
    /// A route in this table.
    Table(u32),
    /// A policy rule that refuses packets itself.
    Rule(PolicyRule),
}

/// Returns the rule or table in brackets for a message, and the rule that refuses or leads to the
/// table. The text is empty for the main table.
fn decision(by: Option<DecidedBy>, rules: &[PolicyRule]) -> (String, Option<PolicyRule>) {
    let table = match by {
        Some(DecidedBy::Rule(rule)) => return (format!(" (rule {})", rule.priority), Some(rule)),
        Some(DecidedBy::Table(table)) if table != MAIN => table,
        _ => return (String::new(), None),
    };
    match rules.iter().find(|rule| rule.table == table) {
        Some(rule) => (format!(" (rule {}, table {table})", rule.priority), Some(rule.clone())),
        None => (format!(" (table {table})"), None),
    }
}

/// Returns the command that puts a lookup of the main table before a rule.
fn prefer_main(selector: &[&str; 2], rule: Option<PolicyRule>) -> Vec<String> {
    let priority = rule.map_or(100, |rule| rule.priority.saturating_sub(1).max(1));
    let version = if selector[1].contains(':') { " -6" } else { "" };
    let [side, subnet] = selector;
    let line = format!("ip{version} rule add {side} {subnet} lookup main priority {priority}");
    line.split(' ').map(str::to_owned).collect()
}

/// Returns the first address of `net` that a guest can have, where `own` is the bridge's address.
fn guest(net: IpNet, own: &IpNet) -> Option<IpAddr> {
    hosts(net).into_iter().find(|address| *address != own.addr() && !is_edge(*address, own))
}

/// Returns the last such address.
fn last(net: IpNet, own: &IpNet) -> Option<IpAddr> {
    let broadcast = net.broadcast();
    let before = match broadcast {
        IpAddr::V4(address) => u32::from(address).checked_sub(1).map(|n| Ipv4Addr::from(n).into()),
        IpAddr::V6(_) => None,
    };
    [Some(broadcast), before]
        .into_iter()
        .flatten()
        .find(|one| net.contains(one) && *one != own.addr() && !is_edge(*one, own))
}

/// Returns the first three addresses of a subnet.
fn hosts(net: IpNet) -> Vec<IpAddr> {
    let next = |address: IpAddr| match address {
        IpAddr::V4(one) => u32::from(one).checked_add(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(one) => u128::from(one).checked_add(1).map(|n| IpAddr::V6(n.into())),
    };
    let all = std::iter::successors(Some(net.network()), |address| next(*address));
    all.take(3).filter(|address| net.contains(address)).collect()
}

/// Returns whether an address is the first or last one of a subnet, which no guest has.
fn is_edge(address: IpAddr, own: &IpNet) -> bool {
    let narrow = own.max_prefix_len() - own.prefix_len() < 2;
    !narrow && (address == own.network() || own.addr().is_ipv4() && address == own.broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_addresses_that_guests_can_have() {
        let own: IpNet = "10.91.0.1/24".parse().unwrap();
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let text = |address: Option<IpAddr>| address.map(|one| one.to_string());
        for (part, first, end) in [
            ("10.91.0.0/24", Some("10.91.0.2"), Some("10.91.0.254")),
            ("10.91.0.128/25", Some("10.91.0.128"), Some("10.91.0.254")),
            ("10.91.0.9/32", Some("10.91.0.9"), Some("10.91.0.9")),
            ("10.91.0.1/32", None, None),
        ] {
            assert_eq!(text(guest(net(part), &own)).as_deref(), first, "{part}");
            assert_eq!(text(last(net(part), &own)).as_deref(), end, "{part}");
        }
        let own: IpNet = "fd00::1/64".parse().unwrap();
        assert_eq!(text(guest(own.trunc(), &own)).as_deref(), Some("fd00::2"));
    }

    #[test]
    fn a_fix_has_the_main_table_asked_first() {
        let rule = Some(PolicyRule { priority: 5270, table: 52, refuses: false });
        assert_eq!(
            prefer_main(&["to", "10.91.0.0/24"], rule).join(" "),
            "ip rule add to 10.91.0.0/24 lookup main priority 5269"
        );
    }
}
