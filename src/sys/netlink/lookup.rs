//! Asks the kernel where it sends a packet, and which policy rules it has.
//!
//! The question is `RTM_GETROUTE`, as in `ip route get`. The kernel applies all its rules, tables
//! and checks, including `rp_filter`, and sends no packet. Reading the tables instead would mean
//! repeating the kernel's decision.

use std::net::IpAddr;

use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{LinkError, Netlink};

/// The kernel's decision about one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteDecision {
    /// The packet leaves by this interface, by a route of this table.
    By {
        /// The interface's number.
        link: u32,
        /// The table's number; `None` if the kernel does not give it.
        table: Option<u32>,
    },
    /// The packet is for the host itself.
    Local,
    /// The packet is dropped, since its source address belongs to another interface (`rp_filter`).
    Filtered,
    /// The host has no route for the packet, or a route that refuses it.
    Nowhere,
}

/// A policy rule (`ip rule`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// The priority; lower numbers come first.
    pub priority: u32,
    /// The table that the rule leads to; 0 if there is none.
    pub table: u32,
    /// Whether the rule refuses packets itself (`blackhole`, `unreachable`, `prohibit`).
    pub refuses: bool,
}

impl Netlink {
    /// Asks the kernel where a packet to `to` goes. Without `from` it is a packet of the host. With
    /// `from` it is a packet that arrives with this source address on the interface of this number.
    ///
    /// # Errors
    /// Returns an error if the kernel does not answer.
    pub async fn lookup(
        &self,
        to: IpAddr,
        from: Option<(IpAddr, u32)>,
    ) -> Result<RouteDecision, LinkError> {
        let whole = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let mut query = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(to, whole(&to))
            .map(RouteMessageBuilder::build)
            .unwrap_or_default();
        // The builder sets fields for a new route, which a question must not have.
        query.header = rtnetlink::packet_route::route::RouteHeader {
            address_family: query.header.address_family,
            destination_prefix_length: whole(&to),
            flags: RouteFlags::LookupTable,
            ..Default::default()
        };
        if let Some((source, link)) = from {
            query.header.source_prefix_length = whole(&source);
            let address = match source {
                IpAddr::V4(source) => RouteAddress::Inet(source),
                IpAddr::V6(source) => RouteAddress::Inet6(source),
            };
            query.attributes.push(RouteAttribute::Source(address));
            query.attributes.push(RouteAttribute::Iif(link));
        }
        let answer = match self.requests.get(RouteNetlinkMessage::GetRoute(query)).await {
            Ok(answer) => answer,
            Err(failure) => {
                let error = LinkError::failed(format!("look up the route to {to}"), failure);
                return match error.errno() {
                    Some(Errno::EXDEV) => Ok(RouteDecision::Filtered),
                    Some(
                        Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL,
                    ) => Ok(RouteDecision::Nowhere),
                    _ => Err(error),
                };
            }
        };
        let route = answer.iter().find_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        });
        Ok(route.map_or(RouteDecision::Nowhere, looked))
    }

    /// Returns the policy rules of an IP version, in the order in which the kernel tries them. A
    /// kernel without policy routing has none.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub async fn policy_rules(&self, ipv6: bool) -> Result<Vec<PolicyRule>, LinkError> {
        let mut query = RuleMessage::default();
        query.header.family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let listed = match self.requests.list(RouteNetlinkMessage::GetRule(query)).await {
            Ok(listed) => listed,
            Err(failure) => {
                let error = LinkError::failed("list the policy rules of the host", failure);
                return match error.errno() {
                    Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => Ok(Vec::new()),
                    _ => Err(error),
                };
            }
        };
        let rule = |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewRule(message) => Some(rule(message)),
            _ => None,
        };
        let mut rules: Vec<PolicyRule> = listed.iter().filter_map(rule).collect();
        rules.sort_by_key(|rule| rule.priority);
        Ok(rules)
    }
}

fn looked(route: &RouteMessage) -> RouteDecision {
    match route.header.kind {
        RouteType::Local | RouteType::Broadcast | RouteType::Multicast => {
            return RouteDecision::Local;
        }
        RouteType::Unicast => {}
        _ => return RouteDecision::Nowhere,
    }
    let (mut link, mut table) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Table(number) => table = Some(*number),
            _ => {}
        }
    }
    let table = table.or(Some(u32::from(route.header.table)).filter(|table| *table != 0));
    link.map_or(RouteDecision::Nowhere, |link| RouteDecision::By { link, table })
}

fn rule(message: &RuleMessage) -> PolicyRule {
    let refuses = matches!(
        message.header.action,
        RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit
    );
    let mut rule = PolicyRule { priority: 0, table: u32::from(message.header.table), refuses };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            _ => {}
        }
    }
    rule
}
