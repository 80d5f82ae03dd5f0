//! Random port properties, metadata and options for dnsmasq, for tests.

use std::num::NonZeroU32;

use proptest::option::of;
use proptest::prelude::*;

use super::generate::text;
use super::*;
use crate::types::{Bandwidth, Native, Rate, Vlan, VlanId};
use crate::xml::Foreign;

fn bandwidth() -> impl Strategy<Value = Bandwidth> {
    let rate = || {
        (1..=u32::MAX, of(any::<u32>()), of(1..=Rate::LONGEST_BURST)).prop_map(
            |(average, peak, seconds)| {
                let number = |number: u32| NonZeroU32::new(number).unwrap();
                let burst = |seconds| average.saturating_mul(seconds).min(Rate::LARGEST_BURST);
                Rate {
                    average: number(average),
                    peak: peak.map(|more| number(average.saturating_add(more))),
                    burst: seconds.map(|seconds| number(burst(seconds))),
                }
            },
        )
    };
    (of(rate()), of(rate())).prop_map(|(inbound, outbound)| Bandwidth { inbound, outbound })
}

fn vlan() -> impl Strategy<Value = Vlan> {
    let id = || (1u16..4095).prop_map(|id| VlanId::try_from(id).unwrap());
    let tags = prop::collection::btree_set(id(), 1..4).prop_map(|set| set.into_iter().collect());
    let trunk = (tags, of((any::<prop::sample::Index>(), any::<bool>()))).prop_map(
        |(tags, native): (Vec<VlanId>, _)| {
            let native = native.map(|(index, tagged)| Native { id: *index.get(&tags), tagged });
            Vlan::Trunk { tags, native }
        },
    );
    prop_oneof![id().prop_map(Vlan::Access), trunk]
}

pub(super) fn properties() -> impl Strategy<Value = PortProperties> {
    (bandwidth(), of(vlan()), of(any::<bool>()), of(any::<bool>())).prop_map(
        |(bandwidth, vlan, isolated, trust_guest_rx_filters)| PortProperties {
            bandwidth,
            vlan,
            isolated,
            trust_guest_rx_filters,
        },
    )
}

pub(super) fn port_groups() -> impl Strategy<Value = Vec<PortGroup>> {
    let group = (text("[A-Za-z0-9._:/-]{1,20}"), any::<bool>(), properties())
        .prop_map(|(name, default, port)| PortGroup { name, default, port });
    prop::collection::vec(group, 0..3)
}

pub(super) fn option() -> impl Strategy<Value = DnsmasqOption> {
    text("(address|txt-record|dhcp-option)=[ -~ä]{0,20}|no-hosts|server=/[a-z]{1,9}/[0-9.]{1,9}")
}

/// Generates the content of a `<metadata>` from pieces of XML.
pub(super) fn metadata() -> impl Strategy<Value = Foreign> {
    let piece = prop::sample::select(vec![
        "<!-- note -->",
        "<a:b xmlns:a='urn:a'>\n  <a:c d='&lt;1&gt;'/>\n</a:b>",
        "<e xmlns='urn:e'><f/>x<f>y</f></e>",
        "<g a:h='1' xmlns:a='urn:a'><![CDATA[<raw>]]></g>",
        "  \n",
        "<i xml:space='preserve'> </i>",
    ]);
    prop::collection::vec(piece, 1..5).prop_filter_map("blank", |pieces| {
        let document = format!(
            "<network><name>n</name><metadata>{}</metadata><bridge name='b'/><uuid>{:032}</uuid>\
             <forward mode='bridge'/></network>",
            pieces.concat(),
            0
        );
        parse(document.as_bytes(), None).unwrap().network.metadata
    })
}
