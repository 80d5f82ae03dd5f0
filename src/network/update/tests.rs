//! Tests each change of each section on one network.

use super::*;
use crate::network::{parse, to_xml};

const NETWORK: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000075</uuid>\
    <forward mode='nat'><interface dev='eth0'/></forward><bridge name='nlt0'/>\
    <mac address='52:54:00:00:00:75'/><domain name='lab.test'/><dns><txt name='a' value='1'/>\
    <srv service='ldap' protocol='tcp' target='one.lab.test' port='389'/>\
    <srv service='ldap' protocol='tcp' target='two.lab.test' port='389'/>\
    <host ip='10.75.0.5'><hostname>db</hostname><hostname>sql</hostname></host></dns>\
    <ip address='10.75.0.1' netmask='255.255.255.0'><dhcp><range start='10.75.0.100' \
    end='10.75.0.200'/><host mac='52:54:00:00:00:01' name='web' ip='10.75.0.11'/>\
    <host mac='52:54:00:00:00:02' name='db' ip='10.75.0.12'/></dhcp></ip>\
    <ip family='ipv6' address='fd00:75::1' prefix='64'/>\
    <portgroup name='g' default='yes'/></network>";

fn update(line: &str) -> Result<String, UpdateError> {
    let network = parse(NETWORK.as_bytes(), None).unwrap().network;
    let (verb, rest) = line.split_once(' ').unwrap();
    let (section, xml) = rest.split_once(' ').unwrap();
    let (parent, xml) = match xml.strip_prefix('#') {
        Some(rest) => (Some(rest[..1].parse().unwrap()), &rest[2..]),
        None => (None, xml),
    };
    let verb = match verb {
        "last" => UpdateVerb::AddLast,
        "first" => UpdateVerb::AddFirst,
        "modify" => UpdateVerb::Modify,
        _ => UpdateVerb::Delete,
    };
    let update = NetworkUpdate {
        verb,
        section: section.parse().unwrap(),
        xml: xml.as_bytes().into(),
        parent,
    };
    update.apply(&network).map(|network| to_xml(&network))
}

/// Returns whether the words are in the text in this order.
fn in_order(text: &str, words: &[&str]) -> bool {
    let mut rest = text;
    words.iter().all(|word| match rest.split_once(word) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[test]
fn each_change_has_its_effect() {
    for (line, has, lacks) in [
        (
            "last ip-dhcp-host <host mac='52:54:00:00:00:03' ip='10.75.0.13'/>",
            &["0.11'", "0.12'", "0.13'"][..],
            "",
        ),
        (
            "first ip-dhcp-host <host mac='52:54:00:00:00:03' ip='10.75.0.13'/>",
            &["0.13'", "0.11'", "0.12'"],
            "",
        ),
        (
            "last ip-dhcp-host <host id='00:03:00:01:52:54:00:00:00:03' ip='fd00:75::13'/>",
            &["fd00:75::1'", "<dhcp>", "fd00:75::13'"],
            "",
        ),
        (
            "modify ip-dhcp-host <host mac='52:54:00:00:00:01' ip='10.75.0.21'/>",
            &["10.75.0.21'"],
            "10.75.0.11'",
        ),
        (
            "modify ip-dhcp-host <host mac='52:54:00:00:00:09' name='web' ip='10.75.0.11'/>",
            &["00:09' name='web'"],
            "52:54:00:00:00:01'",
        ),
        (
            "modify ip-dhcp-host <host mac='52:54:00:00:00:02' name='sql' ip='10.75.0.12'/>",
            &["00:01' name='web'", "00:02' name='sql'"],
            "name='db'",
        ),
        ("delete ip-dhcp-host <host name='db'/>", &["10.75.0.11'"], "10.75.0.12'"),
        ("delete ip-dhcp-host #0 <host ip='10.75.0.12'/>", &["10.75.0.11'"], "10.75.0.12'"),
        (
            "first ip-dhcp-range <range start='10.75.0.30' end='10.75.0.39'/>",
            &["10.75.0.30'", "10.75.0.100'"],
            "",
        ),
        (
            "delete ip-dhcp-range <range start='10.75.0.100' end='10.75.0.200'/>",
            &["<host"],
            "<range",
        ),
        ("last dns-host <host ip='10.75.0.6'><hostname>x</hostname></host>", &["0.5'", "0.6'"], ""),
        ("delete dns-host <host><hostname>sql</hostname></host>", &["lab"], "10.75.0.5'"),
        ("first dns-txt <txt name='b' value='2'/>", &["name='b'", "name='a'"], ""),
        ("delete dns-txt <txt name='a'/>", &["lab"], "<txt"),
        (
            "delete dns-srv <srv service='ldap' protocol='tcp' target='one.lab.test'/>",
            &["two.lab.test"],
            "one.lab.test",
        ),
        ("first forward-interface <interface dev='eth1'/>", &["eth1", "eth0"], ""),
        ("delete forward-interface <interface dev='eth0'/>", &["nat"], "eth0"),
        ("last portgroup <portgroup name='h'/>", &["name='g'", "name='h'"], ""),
        ("modify portgroup <portgroup name='g'/>", &["name='g'"], "default="),
        ("delete portgroup <portgroup name='g'/>", &["lab"], "<portgroup"),
    ] {
        let text = update(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(in_order(&text, has), "{line}: {text}");
        assert!(lacks.is_empty() || !text.contains(lacks), "{line}: {text}");
    }
}

#[test]
fn a_change_without_a_clear_effect_is_refused() {
    for (line, why) in [
        ("last ip-dhcp-host <host mac='52:54:00:00:00:01' ip='10.75.0.13'/>", "same mac"),
        ("last ip-dhcp-host <host mac='52:54:00:00:00:03' ip='10.75.0.11'/>", "same ip"),
        (
            "last ip-dhcp-host <host mac='52:54:00:00:00:03' name='db' ip='10.75.0.13'/>",
            "same name",
        ),
        ("modify ip-dhcp-host <host mac='52:54:00:00:00:03' ip='10.75.0.13'/>", "no such"),
        ("last ip-dhcp-host <host mac='52:54:00:00:00:03' ip='192.0.2.1'/>", "no <ip>"),
        ("last ip-dhcp-host #7 <host mac='52:54:00:00:00:03' ip='192.0.2.1'/>", "number 7"),
        ("delete ip-dhcp-host <host/>", "add mac, id, name or ip"),
        ("delete ip-dhcp-host <range/>", "1:1"),
        (
            "modify ip-dhcp-range <range start='10.75.0.100' end='10.75.0.201'/>",
            "cannot be modified",
        ),
        ("last ip-dhcp-range <range start='10.75.0.100' end='10.75.0.200'/>", "same start and end"),
        ("last dns-host <host ip='10.75.0.6'><hostname>db</hostname></host>", "same hostname"),
        ("last dns-txt <txt name='a' value='2'/>", "same name"),
        ("modify dns-srv <srv service='ldap' protocol='tcp'/>", "cannot be modified"),
        ("delete dns-srv <srv service='ldap' protocol='tcp'/>", "2 elements"),
        ("delete dns-srv <srv service='ldap' protocol='tcp' domain='x'/>", "no such"),
        ("last dns-txt #0 <txt name='b' value='2'/>", "no parent index"),
        ("last forward-interface <interface dev='eth0'/>", "same dev"),
        ("last portgroup <portgroup name='g'/>", "same name"),
        ("delete portgroup <portgroup/>", "1:1: <portgroup> needs the attribute name"),
        ("delete portgroup <portgroup name='a b'/>", "no such portgroup"),
        ("last portgroup <portgroup name='h' default='yes'/>", "would not be valid"),
    ] {
        let error = update(line).unwrap_err().to_string();
        assert!(error.contains(why), "{line}: {error}");
    }
}

#[test]
fn sections_that_cannot_change_alone_are_refused_by_name() {
    for section in UpdateSection::ALL {
        assert_eq!(section.name().parse(), Ok(section));
    }
    for name in ["bridge", "domain", "ip", "forward", "forward-pf"] {
        assert_eq!(name.parse::<UpdateSection>(), Err(SectionError::Whole(name.to_owned())));
    }
    assert_eq!("dns".parse::<UpdateSection>(), Err(SectionError::Unknown("dns".to_owned())));
}
