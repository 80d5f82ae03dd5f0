//! Ports for the tests of this module.

use super::{Extras, PortText, port};
use crate::firewall::rules::port::{
    FrameKind, Origin, Path, PortRule, PortRules, PortVerdict, Step,
};

/// Returns a rule that drops ARP.
pub(super) fn arp_rule() -> PortRule {
    PortRule {
        kind: FrameKind::Arp,
        tests: Vec::new(),
        verdict: PortVerdict::Drop,
        comment: None,
        origin: Origin::default(),
    }
}

/// Returns the text of the port `vnetINDEX`, which drops ARP from the guest, in the first table.
pub(super) fn arp_port(index: u32) -> PortText {
    let from_guest = Path { frames: vec![Step::Rule(arp_rule())], ..Path::default() };
    let rules = PortRules { from_guest, ..PortRules::default() };
    let extras = Extras { trace: false, counters: false, reject: true };
    let name = format!("vnet{index}").parse().unwrap();
    port(index, &name, &rules, extras).unwrap()
}
