//! Tests of writing filters: expected texts, parsing them again, and validation with libvirt's
//! schema.

use std::path::Path;

use proptest::prelude::*;

use super::attribute::NEEDS;
use super::xml_tests::{around, read};
use super::{Attribute, Filter, Layer, Protocol, ValueType, generate, parse, to_xml};
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
        // libvirt accepts a prefix length in a parameter, but its schema does not.
        documents.push(written.replace("10.2.3.0/24", "10.2.3.0"));
    }
    accepted("nwfilter.rng", &documents);
}

/// netlaunch has exactly the elements and attributes of libvirt's schema, and those that only
/// libvirt's documentation has.
#[test]
fn the_tables_equal_libvirts_schema() {
    let beyond = |protocol: Protocol, attribute: Attribute| {
        use Attribute as A;
        let tracked = [A::ConnlimitAbove, A::State, A::IpSet, A::IpSetFlags].contains(&attribute);
        let masks = [A::ArpSrcIpMask, A::ArpDstIpMask].contains(&attribute);
        masks || (tracked && protocol.layer() == Layer::Ipv6)
    };
    let sample = |kind: ValueType| match kind {
        ValueType::Mac | ValueType::MacMask => "52:54:00:00:00:01",
        ValueType::V4 => "10.1.2.3",
        ValueType::V6 => "2001:db8::1",
        ValueType::EtherType => "0x1234",
        ValueType::Boolean => "true",
        ValueType::TcpFlags => "SYN/ALL",
        ValueType::State => "NEW",
        ValueType::IpSet => "set",
        ValueType::IpSetFlags => "src",
        ValueType::Comment => "words",
        _ => "7",
    };
    // Each document has one attribute and those it needs, since xmllint's time is exponential in
    // their number.
    let mut documents = Vec::new();
    for (protocol, name) in Protocol::NAMES {
        let write = |attribute: Attribute| {
            let kind =
                protocol.value_type(attribute).unwrap_or_else(|| panic!("{name} {attribute:?}"));
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
    // Attributes beyond the schema are also parsed and written.
    let text = "<filter name='a'><rule action='drop' direction='in'><all-ipv6 state='NEW' connlimit-above='1' ipset='a' ipsetflags='src'/></rule><rule action='drop' direction='in'><arp arpsrcipaddr='10.0.0.0' arpsrcipmask='255.0.0.0'/></rule></filter>";
    let written = to_xml(&read(text).unwrap());
    for part in [
        "<all-ipv6 connlimit-above='1' state='NEW' ipset='a' ipsetflags='src'/>",
        "<arp arpsrcipaddr='10.0.0.0' arpsrcipmask='8'/>",
    ] {
        assert!(written.contains(part), "{written}");
    }
}

/// Returns whether a filter has parts that libvirt accepts but its schema does not describe.
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
    fn a_written_filter_is_read_back_unchanged(filter in generate::filter()) {
        let written = to_xml(&filter);
        let read = parse(written.as_bytes(), None);
        prop_assert_eq!(read.as_ref(), Ok(&filter), "{}", &written);
        prop_assert_eq!(to_xml(&filter), written);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn libvirts_schema_accepts_written_filters(
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
