//! Tests of refused documents: properties of ports, and networks on a bridge of the host.

use super::refused_tests::are_refused;

/// Parts that are unsupported or invalid.
const PARTS: &[(&str, &str)] = &[
    ("<virtualport type='x'/>", "2:1: <virtualport> is not supported by netlaunch; remove it"),
    (
        "<virtualport type='openvswitch'/>",
        "2:1: <virtualport type='openvswitch'> is not supported by netlaunch; make a Linux bridge",
    ),
    ("<virtualport/>", "2:1: <virtualport> is not supported by netlaunch; name a Linux bridge"),
    (
        "<portgroup name='a'><virtualport type='802.1Qbh'/></portgroup>",
        "2:21: <virtualport type='802.1Qbh'> is not supported",
    ),
    (
        "<bandwidth><inbound average='1' floor='2'/></bandwidth>",
        "2:33: the attribute floor (a guaranteed rate) is not supported by netlaunch; limit",
    ),
    (
        "<forward mode='bridge' dev='a'/>",
        "2:29: dev of <forward>: without a bridge, mode='bridge' means macvtap",
    ),
    (
        "<forward mode='bridge'><interface dev='a'/></forward>",
        "2:24: <interface>: without a bridge, mode='bridge' means macvtap",
    ),
    ("<forward mode='bridge'/>", "1:1: <network> needs a <bridge>: add one"),
    ("<forward mode='bridge'/><bridge/>", "2:25: <bridge> needs the attribute name"),
    ("<bandwidth><inbound peak='1'/></bandwidth>", "2:12: <inbound> needs the attribute average"),
    (
        "<bandwidth><outbound average='0'/></bandwidth>",
        "2:31: average of <outbound>: \"0\" is not a number of KiB",
    ),
    ("<vlan/>", "2:1: <vlan> needs a <tag>"),
    ("<vlan trunk='no'><tag id='1'/></vlan>", "2:14: trunk of <vlan>: \"no\" is not a value"),
    ("<vlan><tag id='4095'/></vlan>", "2:16: id of <tag>: \"4095\" is not a VLAN"),
    ("<vlan><tag id='1'/><tag id='1'/></vlan>", "2:20: <tag>: another <tag> has 1 already"),
    (
        "<vlan><tag id='1' nativeMode='tagged'/><tag id='2' nativeMode='tagged'/></vlan>",
        "2:40: <tag>: the native VLAN is 1 already",
    ),
    ("<portgroup/>", "2:1: <portgroup> needs the attribute name"),
    ("<portgroup name='a '/>", "2:18: name of <portgroup>: \"a \" cannot name a port group"),
];

#[test]
fn each_unsupported_or_invalid_property_of_a_port_is_refused_at_its_place() {
    are_refused(PARTS);
}

#[test]
fn a_network_on_a_bridge_of_the_host_has_no_part_that_changes_the_host() {
    for (part, place, what) in [
        ("<mac address='52:54:00:00:00:02'/>", "3:1", "<mac>"),
        ("<mtu size='1500'/>", "3:1", "<mtu>"),
        ("<domain name='a'/>", "3:1", "<domain>"),
        ("<dns enable='no'/>", "3:1", "<dns>"),
        ("<ip address='10.0.0.1' prefix='24'/>", "3:1", "<ip>"),
        ("<route address='10.9.0.0' prefix='16' gateway='10.0.0.2'/>", "3:1", "<route>"),
        ("<bandwidth><inbound average='1'/></bandwidth>", "3:1", "<bandwidth> of the network"),
    ] {
        let document = format!("<forward mode='bridge'/><bridge name='br0'/>\n{part}");
        let error =
            format!("{place}: mode='bridge' leaves the bridge as the host has it, so {what} has");
        are_refused(&[(document, &error)]);
    }
    for (attribute, what) in [
        ("stp='on'", "stp='on' of <bridge>"),
        ("delay='1'", "delay of <bridge>"),
        ("zone='a'", "zone of <bridge>"),
    ] {
        let document = format!("<forward mode='bridge'/>\n<bridge name='br0' {attribute}/>");
        are_refused(&[(
            document,
            &format!("3:1: mode='bridge' leaves the bridge as the host has it, so {what}"),
        )]);
    }
}

#[test]
fn port_groups_that_do_not_fit_together_are_refused() {
    are_refused(&[
        (
            "<portgroup name='a'/>\n<portgroup name='a'/>",
            "3:1: another <portgroup> has the name a already",
        ),
        (
            "<bandwidth><inbound average='10' peak='9'/></bandwidth>",
            "2:1: the inbound peak of 9 KiB/s is lower than the average of 10 KiB/s",
        ),
        (
            "<portgroup name='a'><bandwidth><outbound average='1' burst='257'/></bandwidth></portgroup>",
            "2:1: the outbound burst of 257 KiB is too large for its average rate",
        ),
        (
            "<portgroup name='a' default='yes'/>\n<portgroup name='b' default='yes'/>",
            "3:1: the <portgroup> a is the default already",
        ),
    ]);
}
