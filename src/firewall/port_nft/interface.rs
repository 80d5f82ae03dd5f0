//! The filter of a port without a bridge: a macvtap or macvlan interface.
//!
//! The kernel sends each frame of the guest on the port's own interface, and receives each frame
//! for the guest on it. So the table of the family netdev has two base chains for such a port, and
//! the same rules as the bridge's table would have:
//!
//! ```text
//! egress  of m0 ─ number 7 ─▶ p7-sent ─▶ p7-from ─▶ p7-from-1 … ─▶ p7-from-ip
//! ingress of m0 ─ number 7 ─▶ p7-to ─▶ …
//! ```
//!
//! # The hooks
//!
//! Frames that each hook saw, with macvtap and with macvlan alike (Linux 6.18, and the modes bridge
//! and passthru of macvtap on Debian's Linux 6.1; nft 1.0.6; x: seen).
//! `m0` is the port, `lower` the interface below it, `wire` a station behind that:
//!
//! | Frame | mode | egress of m0 | ingress of m0 | lower |
//! |---|---|---|---|---|
//! | m0 to wire: unicast, broadcast, multicast, link-local, forged source | all | x | | egress |
//! | wire to m0: unicast, broadcast, and what else the mode lets pass | all | | x | ingress |
//! | m0 to another port of lower, or to itself | bridge | x | x of that port | ingress |
//! | m0 to another port of lower, broadcast | bridge | x | x of that port | egress only |
//! | m0 to another port of lower | vepa, private, source | x | | egress |
//! | wire to another address | passthru, source | | x | ingress |
//! | m0 to wire, by a packet socket with PACKET_QDISC_BYPASS | all | x | | egress |
//!
//! So the hooks of the port itself see both directions in every mode (bridge, private, vepa,
//! passthru, source), and each local frame once on each port. The hooks of the lower interface do
//! not: broadcasts between two ports do not come in there, and only the source address, which a
//! guest can forge, tells which port sent a frame. netlaunch uses the port's own hooks alone.
//!
//! The egress hook exists since Linux 5.16 (CONFIG_NETFILTER_EGRESS). Without it a bind is refused.
//! At first the kernel gave the interface on this hook as the incoming one, and later as the
//! outgoing one, so the base chain has a rule for each.
//!
//! # Frames with a false protocol
//!
//! A process with CAP_NET_RAW that sends by a packet socket on a macvlan chooses the protocol that
//! the kernel notes beside the frame, and can leave the start of the frame unknown. nft then finds
//! no transport protocol, or reads no field of the Ethernet header, so a rule that refuses the
//! frame does not match (measured on 6.18). The queue of a macvtap sets both itself. So the chain
//! `p7-sent` passes a frame on only if the noted protocol is that of the header and the header can
//! be read. On Linux 6.1 the kernel notes no protocol for a frame of a macvlan's packet socket that
//! names none, so IP packets of such sockets are dropped there (measured).
//!
//! nft adds a test of the interface's type to each test of the header. If a kernel does not give
//! the type on this hook, `p7-sent` drops all frames.
//!
//! # Limits
//!
//! - The hooks are on the interface's name. Since Linux 6.16 a renamed interface leaves both chains
//!   (measured on 6.18: no frame came to them, and frames came again after the interface had its
//!   old name back). The rules test the number, too, so they apply to no other interface.
//! - An interface that moves to another network namespace leaves both chains (measured). The open
//!   queue of a macvtap works on then, without a filter.
//! - There is no connection tracking on these hooks, and no rule can answer; see
//!   [`crate::firewall::PortHooks::check`].
//! - The sender of a dropped frame may learn of the drop: send(2) on a packet socket fails with
//!   ENOBUFS. The write to the queue of a macvtap succeeds.

use std::sync::Arc;

use super::ingress::{BaseChain, IngressText, base};
use super::{Extras, IngressObjects, PortHook, PortObjects, PortTable, PortText, by_number, entry};
use crate::firewall::port_hooks::{NotOnInterface, PortHooks};
use crate::firewall::rules::port::PortRules;
use crate::types::InterfaceName;

/// The tags of a VLAN, as EtherTypes.
const TAGS: &str = "{ 0x8100, 0x88a8 }";

/// Returns the name of a port's base chain on the egress hook.
pub(super) fn egress_base(index: u32) -> String {
    format!("p{index}-egress")
}

/// Renders the rules of a port without a bridge.
///
/// # Errors
/// Returns [`NotOnInterface`] if the hooks cannot carry out a rule.
pub fn interface_port(
    index: u32,
    port: &InterfaceName,
    rules: &PortRules,
    extras: Extras,
) -> Result<PortText, NotOnInterface> {
    PortHooks::Interface.check(rules)?;
    let extras = Extras { reject: false, ..extras };
    let mut text = PortText::new(index);
    for (hook, path) in [(PortHook::From, &rules.from_guest), (PortHook::To, &rules.to_guest)] {
        text.path(hook, path, extras).map_err(|error| NotOnInterface {
            origin: error.origin,
            what: "looks addresses up in an ipset",
            fix: "name the addresses in the filter, or put the guest on a bridge",
        })?;
    }
    text.chain(sent(index), &sent_rules(index, extras));
    let PortText { objects, body, .. } = text;
    let PortObjects { chains, mut rules, counters, equal_bytes, .. } =
        Arc::unwrap_or_clone(objects);
    let (to, number) = (entry(index, PortHook::To), by_number(index));
    let bases = [
        (base(index), "ingress", vec![format!("iif {number} goto {to}")]),
        (
            egress_base(index),
            "egress",
            ["iif", "oif"].map(|side| format!("{side} {number} goto {}", sent(index))).to_vec(),
        ),
    ];
    let mut own = IngressText { bases: Vec::new(), body };
    for (chain, hook, lines) in bases {
        rules.insert(chain.clone(), u32::try_from(lines.len()).unwrap_or(u32::MAX));
        own.bases.push(BaseChain { chain, hook, port: port.clone(), rules: lines });
    }
    let table = Some(PortTable::of_interface(index));
    let ingress = IngressObjects { table, chains, rules, counters, equal_bytes, has_egress: true };
    let objects = PortObjects { index, ingress: Some(ingress), ..PortObjects::default() };
    Ok(PortText { objects: Arc::new(objects), body: String::new(), ingress: Some(own) })
}

/// Returns the name of the chain that drops frames whose noted protocol is false.
fn sent(index: u32) -> String {
    format!("p{index}-sent")
}

/// Returns the rules of that chain.
fn sent_rules(index: u32, extras: Extras) -> Vec<String> {
    let from = entry(index, PortHook::From);
    let drop = if extras.counters {
        format!("counter name \"{from}-dropped\" drop")
    } else {
        "drop".to_owned()
    };
    // Raw loads, so that nft adds no test of its own.
    let false_protocols = [
        format!("meta protocol {TAGS} @ll,96,16 != {TAGS}"),
        "@ll,96,16 0x0800 meta protocol != 0x0800".to_owned(),
        "@ll,96,16 0x86dd meta protocol != 0x86dd".to_owned(),
    ];
    let mut rules: Vec<String> =
        false_protocols.iter().map(|test| format!("{test} {drop}")).collect();
    rules.push(format!("meta iiftype ether @ll,0,8 >= 0x0 goto {from}"));
    rules.push(drop);
    rules
}

#[cfg(test)]
mod tests {
    use super::super::testing::arp_rule;
    use std::collections::BTreeSet;

    use super::super::{Attempt, Families, FurtherTables, change, missing, port, remove_tables};
    use super::*;
    use crate::firewall::nft_dump::{ChainShape, TableShape};
    use crate::firewall::port_nft::{PortTable, TableShapes};
    use crate::firewall::rules::port::{Path, PortRule, PortVerdict, Step};

    const EXTRAS: Extras = Extras { trace: true, counters: true, reject: true };

    fn rules() -> PortRules {
        let path = |verdict| Path {
            frames: vec![Step::Rule(PortRule { verdict, ..arp_rule() })],
            packets: vec![arp_rule()],
            ..Path::default()
        };
        PortRules { from_guest: path(PortVerdict::Drop), to_guest: path(PortVerdict::Accept) }
    }

    fn text() -> PortText {
        interface_port(7, &"m0".parse().unwrap(), &rules(), EXTRAS).unwrap()
    }

    #[test]
    fn the_rules_are_those_of_a_bridge_on_other_hooks() {
        let on_bridge = port(7, &"m0".parse().unwrap(), &rules(), EXTRAS).unwrap();
        let own = text().ingress.unwrap();
        assert!(own.body.starts_with(&on_bridge.body) && on_bridge.body.contains("p7-to-ip"));
        let drop = "counter name \"p7-from-dropped\" drop";
        assert_eq!(
            own.body.strip_prefix(&on_bridge.body).unwrap(),
            format!(
                "\tchain p7-sent {{\n\
                 \t\tmeta protocol {TAGS} @ll,96,16 != {TAGS} {drop}\n\
                 \t\t@ll,96,16 0x0800 meta protocol != 0x0800 {drop}\n\
                 \t\t@ll,96,16 0x86dd meta protocol != 0x86dd {drop}\n\
                 \t\tmeta iiftype ether @ll,0,8 >= 0x0 goto p7-from\n\
                 \t\t{drop}\n\
                 \t}}\n"
            )
        );
        let rules: Vec<_> =
            own.bases.iter().map(|base| (&*base.chain, base.hook, &*base.rules)).collect();
        let expected = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let to: Vec<String> = expected(&["iif \" 7\" goto p7-to"]);
        let from: Vec<String> = expected(&["iif \" 7\" goto p7-sent", "oif \" 7\" goto p7-sent"]);
        assert_eq!(rules, [("p7-ingress", "ingress", &*to), ("p7-egress", "egress", &*from)]);
    }

    #[test]
    fn no_text_names_the_family_bridge() {
        let port = text();
        let none = BTreeSet::new();
        let added = change(&[], &[&port], Families::All, &none);
        let removed = change(&[&port.objects], &[], Families::All, &none);
        for text in [&added, &removed, &remove_tables(&["netdev"], &FurtherTables::default())] {
            assert!(!text.contains("bridge") && text.starts_with(Families::NETDEV), "{text}");
        }
        for chain in ["ingress", "egress", "sent", "from", "from-ip", "to", "to-ip"] {
            let line = format!("delete chain netdev netlaunch_nwfilter p7-{chain}\n");
            assert!(removed.contains(&line), "{chain}: {removed}");
        }
        assert!(removed.contains("delete counter netdev netlaunch_nwfilter p7-to-passed\n"));
    }

    #[test]
    fn a_port_without_a_bridge_needs_its_hooks() {
        let texts = [text()];
        let mut attempt = Attempt::new(&texts, None);
        assert!(!attempt.adapt(Families::NETDEV, "Operation not supported"));
        for base in &text().ingress.unwrap().bases {
            let line = base.declaration(PortTable::FIRST);
            assert!(!attempt.adapt(&line, "No such file or directory"), "{line}");
        }
        assert_eq!(attempt.texts(), [&text()]);
    }

    fn netdev(table: TableShape) -> TableShapes {
        let netdev = [(PortTable::FIRST, table)].into();
        TableShapes { netdev, ..TableShapes::default() }
    }

    #[test]
    fn each_chain_that_is_gone_is_missed() {
        let objects = text().objects;
        let rules = objects.ingress.clone().unwrap().rules;
        let chain = |(name, rules): (&String, &u32)| {
            (name.clone(), ChainShape { rules: *rules as usize, drops: false })
        };
        let table = TableShape { chains: rules.iter().map(chain).collect(), ..Default::default() };
        let whole = netdev(table.clone());
        assert_eq!(missing(&objects, &whole, true), None);
        assert!(missing(&objects, &TableShapes::default(), true).unwrap().contains("netdev"));
        assert_eq!(rules.len(), 7);
        for name in rules.keys() {
            let mut table = table.clone();
            table.chains.remove(name);
            let now = netdev(table);
            let what = missing(&objects, &now, true).unwrap();
            assert!(what.contains(name.as_str()), "{name}: {what}");
        }
    }
}
