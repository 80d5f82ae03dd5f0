//! Tests of parsing documents, and of errors with their position.

use proptest::prelude::*;

use super::{Filter, generate, parse, to_xml};
use crate::types::Uuid;
use crate::xml::XmlError;

fn uuid() -> Uuid {
    "3e3fce45-4f53-4fa7-bb32-11f34168b82b".parse().unwrap()
}

pub(super) fn read(text: &str) -> Result<Filter, XmlError> {
    parse(text.as_bytes(), Some(uuid()))
}

/// Returns a document with a rule in line 2; its contents start in column 1 of line 3.
pub(super) fn around(inside: &str) -> String {
    format!("<filter name='f'>\n<rule action='drop' direction='in'>\n{inside}</rule></filter>")
}

/// Checks that parsing a document fails with an error that starts with this text.
pub(super) fn refused(text: &str, error: &str) {
    match read(text) {
        Ok(filter) => panic!("{text} is taken:\n{}", to_xml(&filter)),
        Err(found) => {
            let found = found.to_string();
            assert!(found.starts_with(error), "{text}\n{found}\n{error}");
            assert_eq!(found.lines().count(), 1);
        }
    }
}

#[test]
fn omitted_attributes_have_defaults() {
    for (chain, priority) in [
        ("", 0),
        ("chain='root'", 0),
        ("chain='stp'", -810),
        ("chain='mac-x'", -800),
        ("chain='vlan'", -750),
        ("chain='ipv4'", -700),
        ("chain='ipv6'", -600),
        ("chain='arp-mac'", -500),
        ("chain='rarp'", -400),
        ("chain='ipv4' priority='7'", 7),
    ] {
        let filter = read(&format!("<filter name='a' {chain}/>")).unwrap();
        assert_eq!((filter.priority, filter.uuid), (priority, uuid()), "{chain}");
        assert!(filter.entries.is_empty());
    }
    let filter = read("<filter name='a'><rule action='drop' direction='in'/></filter>").unwrap();
    let rule = filter.rules().next().unwrap();
    assert_eq!((rule.priority, rule.statematch, &rule.element), (500, true, &None));
    assert!(parse(b"<filter name='a'/>", None).is_err(), "nothing chooses a UUID");
}

#[test]
fn the_error_of_a_bad_filter_has_its_position() {
    for (text, error) in [
        ("", "1:1: "),
        ("<network/>", "1:1: "),
        ("<filter/>", "1:1: <filter> needs the attribute name"),
        ("<filter name=''/>", "1:15: name of <filter>: \"\" cannot name a filter"),
        ("<filter name='../a'/>", "1:15: name of <filter>: \"../a\" cannot name a filter"),
        ("<filter name='1a'/>", "1:15: name of <filter>: \"1a\" cannot name a filter"),
        ("<filter name='a b'/>", "1:15: name of <filter>: \"a b\" cannot name a filter"),
        ("<filter name='a' chain='nat'/>", "1:25: chain of <filter>: \"nat\" is not a chain"),
        ("<filter name='a' chain='roots'/>", "1:25: chain of <filter>: \"roots\" is not a chain"),
        ("<filter name='a' chain='ipv4-12345678'/>", "1:25: chain of <filter>: "),
        ("<filter name='a' chain='ipv4;'/>", "1:25: chain of <filter>: "),
        (
            "<filter name='a' priority='1001'/>",
            "1:28: priority of <filter>: \"1001\" is not a priority: use a number from -1000 to 1000",
        ),
        ("<filter name='a' priority='-1001'/>", "1:28: priority of <filter>"),
        ("<filter name='a' priority='+1'/>", "1:28: priority of <filter>"),
        ("<filter name='a' priority=''/>", "1:28: priority of <filter>"),
        ("<filter name='a' priority='-'/>", "1:28: priority of <filter>"),
        ("<filter name='a' nmae='b'/>", "1:18: the attribute nmae is not known in <filter>"),
        ("<filter name='a'><uuid>x</uuid></filter>", "1:24: <uuid>: \"x\" is not a UUID"),
        (
            "<filter name='a'>\n<uuid/>\n<uuid/></filter>",
            "3:1: <filter> has a <uuid> already, at 2:1",
        ),
        (
            "<filter name='a'>\n<rules/></filter>",
            "2:1: <rules> is not known in <filter>: use uuid, rule, filterref",
        ),
        ("<filter name='a'>\ntext</filter>", "2:1: <filter> has no text"),
    ] {
        refused(text, error);
    }
}

#[test]
fn the_error_of_a_bad_reference_or_rule_element_has_its_position() {
    for (text, error) in [
        ("<filter name='a'>\n<filterref/></filter>", "2:1: <filterref> needs the attribute filter"),
        (
            "<filter name='a'>\n<filterref filter='b c'/></filter>",
            "2:20: filter of <filterref>: \"b c\" cannot name",
        ),
        (
            "<filter name='a'>\n<filterref filter='b'><param/></filterref></filter>",
            "2:23: <param> is not known in <filterref>: use parameter",
        ),
        (
            "<filter name='a'>\n<filterref filter='b'><parameter value='1'/></filterref></filter>",
            "2:23: <parameter> needs the attribute name",
        ),
        (
            "<filter name='a'>\n<filterref filter='b'><parameter name='A'/></filterref></filter>",
            "2:23: <parameter> needs the attribute value",
        ),
        (
            "<filter name='a'>\n<filterref filter='b'><parameter name='A-B' value='1'/></filterref></filter>",
            "2:40: name of <parameter>: \"A-B\" cannot name a variable",
        ),
        (
            "<filter name='a'>\n<filterref filter='b'><parameter name='A' value='$B'/></filterref></filter>",
            "2:50: value of <parameter>: \"$B\" cannot be a variable's value",
        ),
        (
            "<filter name='a'>\n<rule direction='in'/></filter>",
            "2:1: <rule> needs the attribute action",
        ),
        (
            "<filter name='a'>\n<rule action='drop'/></filter>",
            "2:1: <rule> needs the attribute direction",
        ),
        (
            "<filter name='a'>\n<rule action='pass' direction='in'/></filter>",
            "2:15: action of <rule>: \"pass\" is not a value of it: use accept or drop or",
        ),
        (
            "<filter name='a'>\n<rule action='drop' direction='IN'/></filter>",
            "2:32: direction of <rule>: \"IN\" is not a value of it: use in or out or inout",
        ),
        (
            "<filter name='a'>\n<rule action='drop' direction='in' priority='1001'/></filter>",
            "2:46: priority of <rule>: \"1001\" is not a priority",
        ),
        (
            "<filter name='a'>\n<rule action='drop' direction='in' statematch='maybe'/></filter>",
            "2:48: statematch of <rule>: \"maybe\" is not a value of it: use true or false, or 1 or 0",
        ),
        (
            "<filter name='a'>\n<rule action='drop' direction='in' state='NEW'/></filter>",
            "2:36: the attribute state is not known in <rule>",
        ),
    ] {
        refused(text, error);
    }
}

#[test]
fn the_error_of_a_bad_rule_has_its_position() {
    for (inside, error) in [
        (
            "<ipx/>",
            "3:1: <ipx> is not known in <rule>: use mac, vlan, stp, arp, rarp, ip, ipv6, tcp",
        ),
        (
            "<tcp/><udp/>",
            "3:7: <udp>: a rule has one protocol, and this one has <tcp> at 3:1 already: write another <rule>",
        ),
        ("<tcp/><tcp/>", "3:7: <tcp>: a rule has one protocol"),
        ("<tcp><udp/></tcp>", "3:6: <udp> is not known in <tcp>"),
        ("<tcp>x</tcp>", "3:6: <tcp> has no text"),
        (
            "<tcp dstport='80'/>",
            "3:6: the attribute dstport is not known in <tcp>: use match, srcmacaddr, ",
        ),
        ("<udp flags='SYN/ALL'/>", "3:6: the attribute flags is not known in <udp>"),
        ("<igmp type='1'/>", "3:7: the attribute type is not known in <igmp>"),
        (
            "<tcp match='maybe'/>",
            "3:13: match of <tcp>: \"maybe\" is not a value of it: use yes or no",
        ),
        ("<tcp match='NO'/>", "3:13: match of <tcp>"),
        // These attributes contradict each other.
        (
            "<mac srcmacmask='ff:ff:ff:ff:ff:ff'/>",
            "3:18: srcmacmask of <mac>: srcmacmask means nothing without srcmacaddr: add it, or remove srcmacmask",
        ),
        ("<stp root-address-mask='ff:ff:ff:ff:ff:ff'/>", "3:25: root-address-mask of <stp>: "),
        (
            "<ip dstipmask='8'/>",
            "3:16: dstipmask of <ip>: dstipmask means nothing without dstipaddr",
        ),
        ("<arp arpdstipmask='8'/>", "3:20: arpdstipmask of <arp>: "),
        (
            "<tcp srcipto='10.0.0.1'/>",
            "3:15: srcipto of <tcp>: srcipto means nothing without srcipfrom",
        ),
        (
            "<tcp dstportend='80'/>",
            "3:18: dstportend of <tcp>: dstportend means nothing without dstportstart",
        ),
        ("<icmp code='1'/>", "3:13: code of <icmp>: code means nothing without type"),
        ("<ipv6 typeend='1'/>", "3:16: typeend of <ipv6>: "),
        ("<all ipset='a'/>", "3:13: ipset of <all>: ipset means nothing without ipsetflags"),
        (
            "<all ipsetflags='src'/>",
            "3:18: ipsetflags of <all>: ipsetflags means nothing without ipset",
        ),
        (
            "<tcp dstportstart='81' dstportend='80'/>",
            "3:36: dstportend of <tcp>: the range from 81 (dstportstart) to 80 (dstportend) runs backwards: exchange them",
        ),
        (
            "<tcp dstportstart='0x51' dstportend='80'/>",
            "3:38: dstportend of <tcp>: the range from 0x51",
        ),
        (
            "<tcp srcipfrom='10.0.0.2' srcipto='10.0.0.1'/>",
            "3:36: srcipto of <tcp>: the range from 10.0.0.2",
        ),
        (
            "<all-ipv6 dstipfrom='::2' dstipto='::1'/>",
            "3:36: dstipto of <all-ipv6>: the range from ::2",
        ),
        ("<ipv6 type='9' typeend='8'/>", "3:25: typeend of <ipv6>: "),
        ("<stp age='2' age-hi='1'/>", "3:22: age-hi of <stp>: "),
    ] {
        refused(&around(inside), error);
    }
    // If one of the two values is a variable, the binding is checked instead.
    assert!(read(&around("<tcp dstportstart='$A' dstportend='80'/>")).is_ok());
}

#[test]
fn dangerous_xml_is_refused() {
    let bomb = "<!DOCTYPE filter [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><filter name='&b;'/>";
    refused(bomb, "1:1: ");
    refused("<filter name='&b;'/>", "1:15: ");
    refused("<filter xmlns='u' name='a'/>", "1:9: ");
    refused("<?php?><filter name='a'/>", "1:1: ");
    let deep = format!("{}{}", "<rule>".repeat(5000), "</rule>".repeat(5000));
    refused(&format!("<filter name='a'>{deep}</filter>"), "1:");
    let long = format!("<filter name='a'>{}</filter>", " ".repeat(crate::xml::MAX_BYTES));
    refused(&long, "1:1: the document has");
    let wide = "<rule action='drop' direction='in'/>".repeat(crate::xml::MAX_NODES);
    assert!(read(&format!("<filter name='a'>{wide}</filter>")).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// After any change of a document, parsing it succeeds or fails with a position in the
    /// document, and a parsed filter can be written and parsed again.
    #[test]
    fn mutated_documents(
        filter in generate::filter(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
    ) {
        let mut bytes = to_xml(&filter).into_bytes();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => bytes[at] ^= 1 << (byte % 8),
                _ => bytes.truncate(at.max(1)),
            }
        }
        match parse(&bytes, Some(uuid())) {
            Ok(filter) => {
                let written = to_xml(&filter);
                prop_assert_eq!(parse(written.as_bytes(), None), Ok(filter));
            }
            Err(error) => {
                let lines = bytes.iter().filter(|b| matches!(b, b'\n' | b'\r')).count() + 1;
                prop_assert!(error.place.line <= lines, "{}", &error);
                prop_assert_eq!(error.to_string().lines().count(), 1);
            }
        }
    }
}
