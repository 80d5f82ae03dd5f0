//! Documents: read, refused, written, and accepted by libvirt's schemas.

use std::path::Path;

use proptest::prelude::*;

use super::attribute::NEEDS;
use super::generate;
use super::*;
use crate::types::Uuid;
use crate::xml::XmlError;
use crate::xml::schema::accepted;

fn uuid() -> Uuid {
    "3e3fce45-4f53-4fa7-bb32-11f34168b82b".parse().unwrap()
}

fn read(text: &str) -> Result<Filter, XmlError> {
    parse(text.as_bytes(), Some(uuid()))
}

fn fixture(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nwfilter");
    std::fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn goldens() {
    let mut documents = Vec::new();
    for name in ["everything", "forms"] {
        let filter =
            read(&fixture(&format!("{name}.xml"))).unwrap_or_else(|e| panic!("{name}:{e}"));
        let written = to_xml(&filter);
        assert_eq!(written, fixture(&format!("{name}.out.xml")), "{name}");
        assert_eq!(parse(written.as_bytes(), None).unwrap(), filter, "{name}");
        // A prefix length in a parameter is libvirt's practice, and not in its schema.
        documents.push(written.replace("10.2.3.0/24", "10.2.3.0"));
    }
    accepted("nwfilter.rng", &documents);
}

#[test]
fn what_is_left_out() {
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

/// Every element and attribute of libvirt's schema is known here, and the other way around, but for
/// those that libvirt's documentation has beyond the schema.
#[test]
fn the_tables_are_the_schemas() {
    let beyond = |protocol: Protocol, attribute: Attribute| {
        use Attribute as A;
        let tracked = [A::ConnlimitAbove, A::State, A::IpSet, A::IpSetFlags].contains(&attribute);
        let masks = [A::ArpSrcIpMask, A::ArpDstIpMask].contains(&attribute);
        masks || (tracked && protocol.layer() == Layer::Ipv6)
    };
    let sample = |kind: Kind| match kind {
        Kind::Mac | Kind::MacMask => "52:54:00:00:00:01",
        Kind::V4 => "10.1.2.3",
        Kind::V6 => "2001:db8::1",
        Kind::EtherType => "0x1234",
        Kind::Boolean => "true",
        Kind::TcpFlags => "SYN/ALL",
        Kind::State => "NEW",
        Kind::IpSet => "set",
        Kind::IpSetFlags => "src",
        Kind::Comment => "words",
        _ => "7",
    };
    // One attribute a document, with what it needs: xmllint's time is exponential in their number.
    let mut documents = Vec::new();
    for (protocol, name) in Protocol::NAMES {
        let write = |attribute: Attribute| {
            let kind = protocol.kind(attribute).unwrap_or_else(|| panic!("{name} {attribute:?}"));
            format!(" {}='{}'", attribute.name(), sample(kind))
        };
        for (attribute, _) in protocol.fields().iter().filter(|(a, _)| !beyond(protocol, *a)) {
            let mut all = vec![*attribute];
            while let Some((_, other)) =
                NEEDS.iter().find(|(one, other)| all.contains(one) && !all.contains(other))
            {
                all.push(*other);
            }
            let attributes: String = all.into_iter().map(write).collect();
            let text = around(&format!("<{name}{attributes}/>"));
            let filter = read(&text).unwrap_or_else(|e| panic!("{e} {text}"));
            let element = filter.rules().next().unwrap().element.as_ref().unwrap();
            assert_eq!(element.protocol, protocol);
            assert!(element.get(*attribute).is_some());
            documents.push(text);
        }
    }
    accepted("nwfilter.rng", &documents);
    // What is beyond it is read and written, too.
    let text = "<filter name='a'><rule action='drop' direction='in'><all-ipv6 state='NEW' connlimit-above='1' ipset='a' ipsetflags='src'/></rule><rule action='drop' direction='in'><arp arpsrcipaddr='10.0.0.0' arpsrcipmask='255.0.0.0'/></rule></filter>";
    let written = to_xml(&read(text).unwrap());
    for part in [
        "<all-ipv6 connlimit-above='1' state='NEW' ipset='a' ipsetflags='src'/>",
        "<arp arpsrcipaddr='10.0.0.0' arpsrcipmask='8'/>",
    ] {
        assert!(written.contains(part), "{written}");
    }
}

/// A document in which a rule with this inside is line 2, its element from column 1 of line 3.
fn around(inside: &str) -> String {
    format!("<filter name='f'>\n<rule action='drop' direction='in'>\n{inside}</rule></filter>")
}

fn refused(text: &str, error: &str) {
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
fn filters_refused_where_it_stands() {
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
fn rules_refused_where_it_stands() {
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
        // Values.
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
            "3:18: gratuitous of <arp>: \"$A\" is a variable, and there can be none here",
        ),
        (
            "<arp protocolid='rarp'/>",
            "3:18: protocolid of <arp>: <arp> is about arp alone: remove it",
        ),
        (
            "<rarp protocolid='$A'/>",
            "3:19: protocolid of <rarp>: \"$A\" is not an Ethernet protocol",
        ),
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
            "3:13: type of <icmp>: \"$A\" is a variable, and there can be none here: write the value",
        ),
        (
            "<tcp flags='SYN'/>",
            "3:13: flags of <tcp>: \"SYN\" is not a set of TCP flags: write MASK/SET",
        ),
        ("<tcp flags='SYN/'/>", "3:13: flags of <tcp>"),
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
        // Variables.
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
        // What does not go together.
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
    refused(&around(&format!("<all comment='{}'/>", "ä".repeat(129))), "3:15: comment of <all>: ");
    assert!(read(&around(&format!("<all comment='{}'/>", "ä".repeat(128)))).is_ok());
    // Where one of the two is a variable, the binding tells.
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

#[test]
fn stock_filters() {
    let names: Vec<FilterName> = stock_names().collect();
    assert_eq!(names.len(), 24);
    assert!(names.is_sorted());
    let filters: Filters = names
        .iter()
        .map(|name| (name.clone(), stock(name).unwrap().unwrap_or_else(|e| panic!("{name}:{e}"))))
        .collect();
    let uuids: std::collections::BTreeSet<_> = filters.values().map(|filter| filter.uuid).collect();
    assert_eq!(uuids.len(), 24, "each has a UUID of its own");
    let parameters = [
        ("MAC", "52:54:00:00:00:01"),
        ("IP", "10.0.0.1"),
        ("IP", "10.0.0.2"),
        ("IPV6", "2001:db8::1"),
        ("DHCPSERVER", "10.0.0.3"),
        ("GATEWAY_MAC", "52:54:00:00:00:02"),
    ];
    let variables: Variables =
        parameters.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
    for (name, filter) in &filters {
        assert_eq!(filter.name, *name);
        assert_eq!(find_loop(filter, &filters), None);
        assert_eq!(needs(filter, &filters).filters, []);
        let mut variables = variables.clone();
        if name.as_str() == "allow-dhcpv6-server" {
            variables = [("DHCPSERVER".parse().unwrap(), "2001:db8::3".parse().unwrap())]
                .into_iter()
                .collect();
        }
        let flat = flatten(filter, &filters, &variables).unwrap_or_else(|e| panic!("{e}"));
        assert!(!flat.is_empty(), "{name}");
    }
    let documents: Vec<String> = filters.values().map(to_xml).collect();
    accepted("nwfilter.rng", &documents);
}

#[test]
fn bindings() {
    let text = "<filterbinding>\n  <owner>\n    <name>vm &amp; 1</name>\n    <uuid>d54df46f-1ab5-4a22-8618-4560ef5fac2c</uuid>\n  </owner>\n  <portdev name='vnet0'/>\n  <mac address='52:54:00:11:22:33'/>\n  <filterref filter='clean-traffic'>\n    <parameter name='IP' value='10.2.3.4'/>\n    <parameter name='IP' value='10.2.3.5'/>\n  </filterref>\n</filterbinding>\n";
    let binding = Binding::parse(text.as_bytes()).unwrap();
    assert_eq!(binding.to_xml(), text);
    accepted("nwfilterbinding.rng", &[text.to_owned()]);
    let variables = binding.variables();
    let get = |name: &str| {
        let values = variables.get(&name.parse().unwrap()).unwrap();
        values.iter().map(VariableValue::as_str).collect::<Vec<_>>()
    };
    assert_eq!(get("IP"), ["10.2.3.4", "10.2.3.5"]);
    assert_eq!(get("MAC"), ["52:54:00:11:22:33"]);
    let mut named = binding.clone();
    named.parameters.push(("MAC".parse().unwrap(), "52:54:00:00:00:99".parse().unwrap()));
    assert_eq!(named.variables().get(&"MAC".parse().unwrap()).unwrap().len(), 1);

    let rest = "<mac address='52:54:00:11:22:33'/><filterref filter='a'/>";
    for (inside, error) in [
        (String::new(), "1:1: <filterbinding> needs a <portdev>"),
        ("<portdev/>".to_owned(), "1:16: <portdev> needs the attribute name"),
        (
            "<portdev name='a b'/>".to_owned(),
            "1:31: name of <portdev>: \"a b\" is not a network interface name",
        ),
        ("<portdev name='a'/>".to_owned(), "1:1: <filterbinding> needs a <mac>"),
        (
            "<portdev name='a'/><mac address='01:00:5e:00:00:01'/>".to_owned(),
            "1:49: address of <mac>: ",
        ),
        (
            "<portdev name='a'/><mac address='52:54:00:11:22:33'/>".to_owned(),
            "1:1: <filterbinding> needs a <filterref>",
        ),
        (
            format!("<portdev name='a'/><linkdev name='eth0'/>{rest}"),
            "1:35: <linkdev>, a port without a bridge, is not supported",
        ),
        (format!("<portdev name='a'/><owner/>{rest}"), "1:35: <owner> needs a <name>"),
        (
            format!("<portdev name='a'/><owner><name>a&#9;b</name><uuid/></owner>{rest}"),
            "1:48: <name>: \"a\\tb\" cannot name a guest",
        ),
        (
            format!("<portdev name='a'/><vlan/>{rest}"),
            "1:35: <vlan> is not known in <filterbinding>",
        ),
        (
            format!("<portdev name='a' mode='x'/>{rest}"),
            "1:34: the attribute mode is not known in <portdev>",
        ),
    ] {
        let error_found =
            Binding::parse(format!("<filterbinding>{inside}</filterbinding>").as_bytes());
        let found = error_found.unwrap_err().to_string();
        assert!(found.starts_with(error), "{inside}\n{found}");
    }
    let least = format!("<filterbinding><portdev name='a'/>{rest}</filterbinding>");
    assert_eq!(Binding::parse(least.as_bytes()).unwrap().owner, None);
}

/// What libvirt's schema does not describe, although libvirt reads it.
fn beyond_schema(filter: &Filter) -> bool {
    filter.rules().filter_map(|rule| rule.element.as_ref()).any(|element| {
        let tracked = [Attribute::State, Attribute::ConnlimitAbove, Attribute::IpSet];
        let layer6 = element.protocol.layer() == Layer::Ipv6;
        let has = |name: &Attribute| element.get(*name).is_some();
        (layer6 && tracked.iter().any(has))
            || has(&Attribute::ArpSrcIpMask)
            || has(&Attribute::ArpDstIpMask)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_written_filter_is_read_as_it_was(filter in generate::filter()) {
        let written = to_xml(&filter);
        let read = parse(written.as_bytes(), None);
        prop_assert_eq!(read.as_ref(), Ok(&filter), "{}", &written);
        prop_assert_eq!(to_xml(&filter), written);
    }

    #[test]
    fn a_written_binding_is_read_as_it_was(binding in generate::binding()) {
        let written = binding.to_xml();
        prop_assert_eq!(Binding::parse(written.as_bytes()), Ok(binding), "{}", &written);
    }

    /// Whatever is changed in a document, it is read or refused with a place that is in it, and what
    /// is read is read again.
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

    #[test]
    fn any_text_of_a_value_is_refused_or_comes_back(text in "\\PC{0,12}|0x[0-9a-f]{0,9}|[0-9./:a-fA-F,$@\\[\\] ]{0,16}") {
        let kinds = [
            Kind::Mac, Kind::V4, Kind::V4Mask, Kind::V6, Kind::V6Mask, Kind::U6, Kind::U8, Kind::U12,
            Kind::U16, Kind::U32, Kind::EtherType, Kind::IpProtocol, Kind::Opcode, Kind::Boolean,
            Kind::TcpFlags, Kind::State, Kind::IpSet, Kind::IpSetFlags, Kind::Comment,
        ];
        for kind in kinds {
            if let Ok(literal) = kind.read(&text) {
                let written = kind.write(&literal);
                let again = kind.read(&written).map(|again| kind.write(&again));
                prop_assert_eq!(again, Ok(written));
            }
        }
        if let Ok(variable) = text.parse::<VariableUse>() {
            prop_assert_eq!(format!("${variable}").parse::<VariableUse>(), Ok(variable));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn libvirts_schema_accepts_what_is_written(
        filters in prop::collection::vec(generate::filter(), 25),
        bindings in prop::collection::vec(generate::binding(), 10),
    ) {
        // xmllint's time is exponential in the number of an element's attributes.
        let few = |filter: &&Filter| {
            filter.rules().flat_map(|rule| &rule.element).all(|e| e.attributes.len() <= 8)
        };
        let filters = filters.iter().filter(|filter| !beyond_schema(filter)).filter(few);
        accepted("nwfilter.rng", &filters.map(to_xml).collect::<Vec<_>>());
        let bindings = bindings.iter().filter(|binding| binding.owner.is_some());
        accepted("nwfilterbinding.rng", &bindings.map(Binding::to_xml).collect::<Vec<_>>());
    }
}
