//! Filters as they are written: goldens, what is read again, and what libvirt's schema accepts.

use std::path::Path;

use proptest::prelude::*;

use super::attribute::NEEDS;
use super::xml_tests::{around, read};
use super::{Attribute, Filter, Kind, Layer, Protocol, generate, parse, to_xml};
use crate::xml::schema::accepted;

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
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn libvirts_schema_accepts_what_is_written(
        filters in prop::collection::vec(generate::filter(), 25),
    ) {
        // xmllint's time is exponential in the number of an element's attributes.
        let few = |filter: &&Filter| {
            filter.rules().flat_map(|rule| &rule.element).all(|e| e.attributes.len() <= 8)
        };
        let filters = filters.iter().filter(|filter| !beyond_schema(filter)).filter(few);
        accepted("nwfilter.rng", &filters.map(to_xml).collect::<Vec<_>>());
    }
}
