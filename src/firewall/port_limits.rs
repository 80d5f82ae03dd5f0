//! What of a port's rules a backend does not do as documented. Pure: both renderers are asked, rule
//! by rule, and what they render but the kernel does otherwise is known here.

use super::backend::Backend;
use super::port_iptables;
use super::port_nft::{self, Extras, has_hook};
use crate::rules::Version;
use crate::rules::port::{
    Hardware, Kind, Number, Origin, Path, PortRule, PortRules, PortVerdict, Step, Test,
};
use crate::types::InterfaceName;

/// A rule that is not what it seems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The rule.
    pub origin: Origin,
    /// What becomes of it.
    pub text: String,
}

/// A rule's place: whether frames go to the guest, and whether it is one for IP protocols.
#[derive(Debug, Clone, Copy)]
struct Place {
    to_guest: bool,
    packets: bool,
}

/// The limits of both backends, each once. `port` is any interface's name.
pub fn limits(port: &InterfaceName, rules: &PortRules) -> Vec<Limit> {
    let mut all: Vec<Limit> = Vec::new();
    for (to_guest, path) in [(false, &rules.from_guest), (true, &rules.to_guest)] {
        let root = path.frames.iter().filter_map(|step| match step {
            Step::Rule(rule) => Some(rule),
            Step::Chain(_) => None,
        });
        let frames = root.chain(path.chains.iter().flat_map(|chain| &chain.rules));
        let placed =
            frames.map(|rule| (false, rule)).chain(path.packets.iter().map(|rule| (true, rule)));
        for (packets, rule) in placed {
            for text in of_rule(port, rule, Place { to_guest, packets }) {
                let limit = Limit { origin: rule.origin.clone(), text };
                if !all.contains(&limit) {
                    all.push(limit);
                }
            }
        }
    }
    all
}

/// Whether the bridge handles a port's link-local frames without its filter, and why; `None` where
/// the filter lets all of them through.
pub fn link_local(port: &InterfaceName, rules: &PortRules, backend: Backend) -> Option<String> {
    const FRAMES: &str = "the guest's frames to 01:80:c2:00:00:00 to 0f (STP, LLDP and others)";
    let why = match backend {
        // nftables refuses stateful rules where the bridge family cannot track connections.
        Backend::Iptables if rules.is_stateful() => {
            "ebtables has no hook before the bridge's own handling, and the filter needs connection tracking; a kernel without nf_conntrack_bridge can do only one of both".to_owned()
        }
        Backend::Iptables => {
            "ebtables has no hook before the bridge's own handling; use firewall_backend = \"nftables\" in nwfilter.conf".to_owned()
        }
        Backend::Nftables if !has_hook(port) => {
            format!("nft cannot name the port {port}; rename it")
        }
        Backend::Nftables => return None,
    };
    let refuses = rules.for_link_local().refuses();
    refuses.then(|| format!("{FRAMES} come to the bridge without the filter: {why}"))
}

fn of_rule(port: &InterfaceName, rule: &PortRule, place: Place) -> Vec<String> {
    let mut texts = Vec::new();
    let alone = alone(rule, place);
    let extras = Extras { trace: false, counters: false, reject: true };
    if let Err(error) = port_nft::port(1, port, &alone, extras) {
        texts.push(format!("not with firewall_backend = \"nftables\": {error}"));
    }
    if let Err(error) = port_iptables::port(1, port, &alone) {
        texts.push(format!("not with firewall_backend = \"iptables\": {error}"));
    }
    if rule.verdict == PortVerdict::Reject {
        match place {
            Place { packets: false, .. } => texts.push(
                "it drops and tells nobody: the link layer has no answer; name an IP protocol"
                    .to_owned(),
            ),
            Place { to_guest: true, .. } => texts.push(
                "with nftables it drops and tells nobody: a bridge answers only frames that come in"
                    .to_owned(),
            ),
            _ => {}
        }
    }
    let stp = |test: &Test| test.is_stp() && *test != Test::is(Number::StpType, 0);
    if rule.tests.iter().any(stp) {
        texts.push(
            "with iptables it may apply to other frames or none: ebtables knows type 0 alone, and reads the other fields of STP at other places; use nftables"
                .to_owned(),
        );
    }
    const AH: u8 = 51;
    let is_ah = |test: &Test| *test == Test::is(Number::Protocol, AH.into());
    if rule.kind == Kind::Ip(Version::V6, Some(AH))
        || (rule.kind == Kind::Ip(Version::V6, None) && rule.tests.iter().any(is_ah))
    {
        texts.push(
            "with iptables it never applies: ebtables and ip6tables look at what is behind AH; use nftables"
                .to_owned(),
        );
    }
    let mac = |test: &Test| {
        matches!(test, Test::Hardware { field: Hardware::ArpSender | Hardware::ArpTarget, .. })
    };
    let other = |test: &Test| match test {
        Test::Number { field: Number::ArpHardware, first, last, negated } => {
            (*first <= 1 && 1 <= *last) == *negated
        }
        _ => false,
    };
    if rule.tests.iter().any(mac) && rule.tests.iter().any(other) {
        texts.push(
            "it never applies: ARP has MAC addresses with hwtype 1 alone; remove hwtype, or the addresses"
                .to_owned(),
        );
    }
    texts
}

/// A port with this rule and no other.
fn alone(rule: &PortRule, place: Place) -> PortRules {
    let mut path = Path::default();
    match place.packets {
        true => path.packets.push(rule.clone()),
        false => path.frames.push(Step::Rule(rule.clone())),
    }
    match place.to_guest {
        true => PortRules { to_guest: path, ..PortRules::default() },
        false => PortRules { from_guest: path, ..PortRules::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(kind: Kind, tests: Vec<Test>, verdict: PortVerdict) -> PortRule {
        PortRule { kind, tests, verdict, comment: None, origin: Origin::default() }
    }

    fn texts(rule: PortRule, place: Place) -> Vec<String> {
        let port = "vnet0".parse().unwrap();
        limits(&port, &alone(&rule, place)).into_iter().map(|limit| limit.text).collect()
    }

    #[test]
    fn each_limit_names_its_backend() {
        let tcp = Kind::Ip(Version::V4, Some(6));
        let (frames, packets) =
            (Place { to_guest: true, packets: false }, Place { to_guest: true, packets: true });
        let set = Test::Set { name: "s".to_owned(), sides: vec![], negated: false };
        let mac =
            |field| Test::Hardware { field, address: [2; 6], mask: [0xff; 6], negated: false };
        let is = |field, value| vec![Test::is(field, value)];
        for (rule, place, word) in [
            (rule(tcp, vec![set], PortVerdict::Drop), packets, "nftables"),
            (rule(Kind::Vlan, is(Number::VlanId, 4095), PortVerdict::Drop), frames, "ebtables"),
            (rule(tcp, vec![], PortVerdict::Reject), packets, "tells nobody"),
            (rule(Kind::Any, vec![], PortVerdict::Reject), frames, "tells nobody"),
            (rule(Kind::Stp, is(Number::StpPort, 1), PortVerdict::Drop), frames, "STP"),
            (rule(Kind::Stp, vec![mac(Hardware::StpRoot)], PortVerdict::Drop), frames, "STP"),
            (
                rule(Kind::Ip(Version::V6, Some(51)), vec![], PortVerdict::Drop),
                packets,
                "behind AH",
            ),
            (
                rule(
                    Kind::Arp,
                    [is(Number::ArpHardware, 12), vec![mac(Hardware::ArpSender)]].concat(),
                    PortVerdict::Drop,
                ),
                frames,
                "never applies",
            ),
        ] {
            let texts = texts(rule.clone(), place);
            assert!(texts.len() == 1 && texts[0].contains(word), "{rule:?}: {texts:?}");
        }
    }

    #[test]
    fn most_rules_have_none() {
        let frames = Place { to_guest: false, packets: false };
        let tests = vec![Test::is(Number::StpType, 0)];
        assert_eq!(texts(rule(Kind::Stp, tests, PortVerdict::Drop), frames), [] as [&str; 0]);
        let tests = vec![Test::is(Number::ArpHardware, 1)];
        assert_eq!(texts(rule(Kind::Arp, tests, PortVerdict::Drop), frames), [] as [&str; 0]);
        let packets = Place { to_guest: false, packets: true };
        let tcp = rule(Kind::Ip(Version::V4, Some(6)), vec![], PortVerdict::Reject);
        assert_eq!(texts(tcp, packets), [] as [&str; 0]);
    }
}
