//! Tests of reading and writing the values of attributes, and of the errors about them.

use proptest::prelude::*;

use super::xml_tests::{around, read, refused};
use super::{ValueType, VariableUse};

/// Checks that each element, which is line 3 of a document, is refused with this error.
fn all_refused(elements: &[(&str, &str)]) {
    for (inside, error) in elements {
        refused(&around(inside), error);
    }
}

#[test]
fn the_error_of_a_bad_link_layer_value_has_its_position() {
    all_refused(&[
        ("<mac srcmacaddr='52:54'/>", "3:18: srcmacaddr of <mac>: \"52:54\" is not a MAC address"),
        ("<mac srcmacaddr=''/>", "3:18: srcmacaddr of <mac>: \"\" is not a MAC address"),
        (
            "<mac protocolid='1535'/>",
            "3:18: protocolid of <mac>: \"1535\" is not an Ethernet protocol: write ipv4, ipv6, arp, rarp, vlan, or a number from 1536",
        ),
        ("<mac protocolid='0x5ff'/>", "3:18: protocolid of <mac>"),
        ("<mac protocolid='0x10000'/>", "3:18: protocolid of <mac>"),
        ("<mac protocolid='ARP'/>", "3:18: protocolid of <mac>"),
        (
            "<vlan vlanid='4096'/>",
            "3:15: vlanid of <vlan>: \"4096\" is not a number from 0 to 4095 (0xfff)",
        ),
        ("<vlan encap-protocol='800'/>", "3:23: encap-protocol of <vlan>"),
        ("<arp opcode='Reqest'/>", "3:14: opcode of <arp>: \"Reqest\" is not an ARP operation"),
        ("<arp opcode='65536'/>", "3:14: opcode of <arp>"),
        ("<arp gratuitous='maybe'/>", "3:18: gratuitous of <arp>: \"maybe\" is not yes or no"),
        (
            "<arp gratuitous='$A'/>",
            "3:18: gratuitous of <arp>: \"$A\" is a variable, which this attribute cannot have",
        ),
        (
            "<arp protocolid='rarp'/>",
            "3:18: protocolid of <arp>: <arp> is about arp alone: remove it",
        ),
        (
            "<rarp protocolid='$A'/>",
            "3:19: protocolid of <rarp>: \"$A\" is not an Ethernet protocol",
        ),
    ]);
}

#[test]
fn the_error_of_a_bad_address_or_mask_has_its_position() {
    all_refused(&[
        ("<ip srcipaddr='10.1.2'/>", "3:16: srcipaddr of <ip>: \"10.1.2\" is not an IPv4 address"),
        (
            "<ip srcipaddr='10.1.2.3/24'/>",
            "3:16: srcipaddr of <ip>: \"10.1.2.3/24\" is not an IPv4 address",
        ),
        ("<ip srcipaddr='010.1.2.3'/>", "3:16: srcipaddr of <ip>"),
        ("<ip srcipaddr='::1'/>", "3:16: srcipaddr of <ip>"),
        (
            "<ipv6 srcipaddr='10.1.2.3'/>",
            "3:18: srcipaddr of <ipv6>: \"10.1.2.3\" is not an IPv6 address",
        ),
        (
            "<ip srcipaddr='10.1.2.3' srcipmask='33'/>",
            "3:37: srcipmask of <ip>: \"33\" is not an IPv4 mask",
        ),
        (
            "<ip srcipaddr='10.1.2.3' srcipmask='255.0.255.0'/>",
            "3:37: srcipmask of <ip>: \"255.0.255.0\" is not an IPv4 mask: write a prefix length from 0 to 32, or a netmask without gaps",
        ),
        ("<ip srcipaddr='10.1.2.3' srcipmask='0.0.0.255'/>", "3:37: srcipmask of <ip>"),
        ("<ip srcipaddr='10.1.2.3' srcipmask='-1'/>", "3:37: srcipmask of <ip>"),
        ("<ipv6 srcipaddr='::' srcipmask='129'/>", "3:33: srcipmask of <ipv6>"),
        ("<ipv6 srcipaddr='::' srcipmask='ffff:0:ffff::'/>", "3:33: srcipmask of <ipv6>"),
    ]);
}

#[test]
fn the_error_of_a_bad_number_has_its_position() {
    all_refused(&[
        ("<ip protocol='256'/>", "3:15: protocol of <ip>: \"256\" is not an IP protocol"),
        ("<ip protocol='gre'/>", "3:15: protocol of <ip>: \"gre\" is not an IP protocol"),
        ("<ip dscp='64'/>", "3:11: dscp of <ip>: \"64\" is not a number from 0 to 63 (0x3f)"),
        ("<tcp dscp='0x40'/>", "3:12: dscp of <tcp>"),
        (
            "<tcp dstportstart='65536'/>",
            "3:20: dstportstart of <tcp>: \"65536\" is not a number from 0 to 65535 (0xffff)",
        ),
        ("<tcp dstportstart='abc'/>", "3:20: dstportstart of <tcp>: \"abc\" is not a number"),
        ("<tcp dstportstart='0x'/>", "3:20: dstportstart of <tcp>"),
        ("<tcp dstportstart='0X50'/>", "3:20: dstportstart of <tcp>"),
        ("<tcp dstportstart='+80'/>", "3:20: dstportstart of <tcp>"),
        ("<tcp dstportstart=' 80'/>", "3:20: dstportstart of <tcp>"),
        ("<tcp dstportstart='99999999999'/>", "3:20: dstportstart of <tcp>"),
        (
            "<stp root-cost='4294967296'/>",
            "3:17: root-cost of <stp>: \"4294967296\" is not a number from 0 to 4294967295",
        ),
        (
            "<icmp type='256'/>",
            "3:13: type of <icmp>: \"256\" is not a number from 0 to 255 (0xff)",
        ),
        (
            "<icmp type='$A'/>",
            "3:13: type of <icmp>: \"$A\" is a variable, which this attribute cannot have: write the value",
        ),
    ]);
}

#[test]
fn the_error_of_a_bad_flag_name_or_comment_has_its_position() {
    all_refused(&[
        (
            "<tcp flags='SYN'/>",
            "3:13: flags of <tcp>: \"SYN\" is not a set of TCP flags: write MASK/SET",
        ),
        ("<tcp flags='SYN,/ALL'/>", "3:13: flags of <tcp>"),
        ("<tcp flags='SYN,ALL/SYN'/>", "3:13: flags of <tcp>"),
        (
            "<tcp state='NEW,NONE'/>",
            "3:13: state of <tcp>: \"NEW,NONE\" is not a state of connections",
        ),
        ("<tcp state='new'/>", "3:13: state of <tcp>"),
        ("<tcp state=''/>", "3:13: state of <tcp>"),
        (
            "<all ipset='a/b' ipsetflags='src'/>",
            "3:13: ipset of <all>: \"a/b\" is not an ipset's name",
        ),
        (
            "<all ipset='a' ipsetflags='src,up'/>",
            "3:28: ipsetflags of <all>: \"src,up\" is not a list of 1 to 6 of src and dst",
        ),
        ("<all ipset='a' ipsetflags='src,src,src,src,src,src,src'/>", "3:28: ipsetflags of <all>"),
        (
            "<all comment='a&#10;b'/>",
            "3:15: comment of <all>: \"a\\nb\" is not a comment: use at most 256 bytes without control characters",
        ),
    ]);
    refused(&around(&format!("<all comment='{}'/>", "ä".repeat(129))), "3:15: comment of <all>: ");
    assert!(read(&around(&format!("<all comment='{}'/>", "ä".repeat(128)))).is_ok());
}

#[test]
fn the_error_of_a_bad_variable_has_its_position() {
    all_refused(&[
        (
            "<ip srcipaddr='$'/>",
            "3:16: srcipaddr of <ip>: \"$\" is not a variable: write $NAME, $NAME[INDEX] or $NAME[@ITERATOR]",
        ),
        ("<ip srcipaddr='$A-B'/>", "3:16: srcipaddr of <ip>: \"$A-B\" is not a variable"),
        ("<ip srcipaddr='$A[]'/>", "3:16: srcipaddr of <ip>: \"$A[]\" is not a variable"),
        ("<ip srcipaddr='$A[1'/>", "3:16: srcipaddr of <ip>: \"$A[1\" is not a variable"),
        ("<ip srcipaddr='$A[-1]'/>", "3:16: srcipaddr of <ip>: \"$A[-1]\" is not a variable"),
        (
            "<ip srcipaddr='$A[4294967296]'/>",
            "3:16: srcipaddr of <ip>: \"$A[4294967296]\" is not a variable",
        ),
        (
            "<ip srcipaddr='$A[@1001]'/>",
            "3:16: srcipaddr of <ip>: \"$A[@1001]\" has too high a number: use iterators from @0 to @1000",
        ),
        ("<ip srcipaddr='$A$B'/>", "3:16: srcipaddr of <ip>: \"$A$B\" is not a variable"),
        ("<ip srcipaddr='A$B'/>", "3:16: srcipaddr of <ip>: \"A$B\" is not an IPv4 address"),
    ]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_is_refused_or_read_back_as_written(text in "\\PC{0,12}|0x[0-9a-f]{0,9}|[0-9./:a-fA-F,$@\\[\\] ]{0,16}") {
        let types = [
            ValueType::Mac, ValueType::V4, ValueType::V4Mask, ValueType::V6, ValueType::V6Mask, ValueType::U6, ValueType::U8, ValueType::U12,
            ValueType::U16, ValueType::U32, ValueType::EtherType, ValueType::IpProtocol, ValueType::Opcode, ValueType::Boolean,
            ValueType::TcpFlags, ValueType::State, ValueType::IpSet, ValueType::IpSetFlags, ValueType::Comment,
        ];
        for value_type in types {
            if let Ok(literal) = value_type.read(&text) {
                let written = value_type.write(&literal);
                let again = value_type.read(&written).map(|again| value_type.write(&again));
                prop_assert_eq!(again, Ok(written));
            }
        }
        if let Ok(variable) = text.parse::<VariableUse>() {
            prop_assert_eq!(format!("${variable}").parse::<VariableUse>(), Ok(variable));
        }
    }
}
