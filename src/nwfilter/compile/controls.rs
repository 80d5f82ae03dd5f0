//! Adds the tests of control variables to accepting rules: fields of messages for which libvirt's
//! XML has no attribute.
//!
//! | variable | rule | additional test |
//! |---|---|---|
//! | `CTRL_DHCP_CLIENT` = `own` | UDP to port 67 | the message's client has that address |
//! | `CTRL_ND_MESSAGE` = `own` | ICMPv6 type 133, 135 or 136 | at most one option, see below |
//! | | ICMPv6 type 136 | `srcipaddr` is the message's target, not the packet's source |
//!
//! The option is that MAC address, or a nonce. The rules accept, are from the guest, are without
//! `match='no'`, and name the MAC address that the test compares. For libvirt, which does not know
//! the variables, they accept the same packets without the additional tests.

use ipnet::IpNet;

use crate::firewall::rules::port::{
    Address, Addresses, Hardware, NeighborKind, NeighborMessage, NeighborOption, Test,
};
use crate::nwfilter::{
    Action, Attribute as A, Condition, Direction as RuleDirection, Protocol, RuleInstance,
};

/// Returns the test that a DHCP message to a server has the rule's MAC address as its client.
pub(super) fn dhcp_client(rule: &RuleInstance, condition: &Condition) -> Option<Test> {
    const SERVER: u32 = 67;
    let is_server = |attribute| condition.number(attribute).is_none_or(|port| port == SERVER);
    let is_to_server = condition.get(A::DstPortStart).is_some()
        && [A::DstPortStart, A::DstPortEnd].into_iter().all(is_server);
    let is_about = condition.protocol == Protocol::Udp && !condition.negated && is_to_server;
    let accepts = rule.action == Action::Accept && rule.direction == RuleDirection::Out;
    let address = condition.mac(A::SrcMacAddr).filter(|_| is_about && accepts)?.octets();
    let field = Hardware::DhcpClient;
    Some(Test::Hardware { field, address, mask: [0xff; 6], negated: false })
}

/// Returns the tests of each form of a neighbor discovery message that the rule with these tests
/// accepts. A rule about other packets keeps its tests.
pub(super) fn nd_message(
    rule: &RuleInstance,
    condition: &Condition,
    tests: &[Test],
) -> Vec<Vec<Test>> {
    let kind = match condition.number(A::Type) {
        Some(133) => Some(NeighborKind::RouterSolicitation),
        Some(135) => Some(NeighborKind::Solicitation),
        Some(136) => Some(NeighborKind::Advertisement),
        _ => None,
    };
    let is_about = condition.protocol == Protocol::Icmpv6 && !condition.negated;
    let accepts = rule.action == Action::Accept && rule.direction == RuleDirection::Out;
    let address = condition.mac(A::SrcMacAddr).filter(|_| is_about && accepts);
    let (Some(kind), Some(address)) = (kind, address) else { return vec![tests.to_vec()] };
    let is_target = |test: &Test| {
        kind == NeighborKind::Advertisement
            && matches!(test, Test::Address { field: Address::Source, .. })
    };
    let target = tests.iter().find(|test| is_target(test)).and_then(|test| match test {
        Test::Address { addresses: Addresses::Net(IpNet::V6(net)), .. } => Some(*net),
        _ => None,
    });
    let mut options = vec![NeighborOption::None, NeighborOption::LinkAddress(address.octets())];
    if kind == NeighborKind::Solicitation {
        options.push(NeighborOption::Nonce);
    }
    let others = tests.iter().filter(|test| target.is_none() || !is_target(test));
    let others: Vec<Test> = others.cloned().collect();
    let form = |option| {
        let message = Test::Neighbor(NeighborMessage { kind, target, option });
        [others.as_slice(), &[message]].concat()
    };
    options.into_iter().map(form).collect()
}
