//! Tests that documents are read, written, and accepted by libvirt's schema.

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::generate::network;
use super::*;
use crate::types::Mac;

fn fill() -> Fill {
    let mac: Mac = "52:54:00:00:00:01".parse().unwrap();
    let bridge = Some("virbr9".parse().unwrap());
    Fill { uuid: "3e3fce45-4f53-4fa7-bb32-11f34168b82b".parse().unwrap(), mac, bridge }
}

pub(super) fn read(text: &str) -> Result<Network, DocumentError> {
    load(text.as_bytes(), Some(&fill())).map(|parsed| parsed.network)
}

/// Returns the name and the text of each document in tests/fixtures/network.
fn fixtures() -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/network");
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "xml"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    found.sort();
    found
}

/// Asserts that libvirt's schema accepts every document.
fn accepted(documents: &[String]) {
    crate::xml::schema::accepted("network.rng", documents);
}

#[test]
fn every_fixture_is_read_and_written_as_libvirts_schema_requires() {
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), 20);
    let mut documents = Vec::new();
    for (name, text) in fixtures {
        let network = read(&text).unwrap_or_else(|error| panic!("{name}:{error}"));
        let written = to_xml(&network);
        let again = load(written.as_bytes(), None)
            .unwrap_or_else(|error| panic!("{name}:{error}\n{written}"));
        assert_eq!(again.network, network, "{name}");
        assert_eq!(to_xml(&again.network), written, "{name}");
        documents.push(written);
    }
    accepted(&documents);
}

/// The fixture has everything that netlaunch supports, in the form in which netlaunch writes it.
#[test]
fn a_document_with_every_supported_part_is_written_as_it_was_read() {
    let (_, text) = fixtures().into_iter().find(|(name, _)| name == "everything").unwrap();
    let network = read(&text).unwrap();
    assert_eq!(to_xml(&network), text);
    assert_eq!(network.dns.forwarders.len(), 3);
    assert_eq!(network.ips[0].dhcp.as_ref().unwrap().hosts.len(), 3);
    assert_eq!(network.routes[1].metric.unwrap().get(), 2);
}

#[test]
fn equivalent_documents_are_read_alike() {
    let long = |ip: &str, forward: &str| {
        format!("<network connections='3'><name>n</name>{forward}{ip}</network>")
    };
    let plain = read(&long(
        "<ip address='10.0.0.1' netmask='255.255.255.0'/>",
        "<forward mode='nat' dev='up0'/>",
    ))
    .unwrap();
    for (ip, forward) in [
        ("<ip address='10.0.0.1' prefix='24'/>", "<forward dev='up0'/>"),
        (
            "<ip family='ipv4' address='10.0.0.1' prefix='24' localPtr='no'/>",
            "<forward dev='up0'><interface dev='up0'/></forward>",
        ),
        (
            "<ip address='10.0.0.1' prefix='24'/>",
            "<title/><description/><metadata> </metadata><bandwidth/><forward dev='up0'/>",
        ),
        (
            "<ip address='10.0.0.1' prefix='24'></ip>",
            "<forward><interface dev='up0'/><nat ipv6='no'/></forward>",
        ),
        (
            "<dns enable='yes'/><ip address='10.0.0.1' prefix='24'/>",
            "<forward dev='up0'/><bridge/>",
        ),
        (
            "<ip address='10.0.0.1' prefix='24'/>",
            "<bridge name='virbr9' stp='off' delay='0'/><forward dev='up0'/>",
        ),
    ] {
        assert_eq!(read(&long(ip, forward)).unwrap(), plain, "{ip} {forward}");
    }
    let isolated = read(&long("", "")).unwrap();
    assert_eq!(isolated.forward, Forward::Isolated);
    assert_eq!(read(&long("", "<forward mode='none'/>")).unwrap(), isolated);
    assert!(load(long("", "").as_bytes(), None).is_err(), "no values to fill in");
}

#[test]
fn names_that_libvirt_accepts_stay_as_they_are_written() {
    let text = "<network><name>lab</name><uuid>\n 3e3fce45-4f53-4fa7-bb32-11f34168b82b\n</uuid>\
        <bridge name='b0'/><mtu size='0'/><domain name='a_b.c.' localOnly='yes'/><dns>\
        <forwarder domain='api.test.'/><host ip='10.0.0.9'><hostname>_etcd.test</hostname></host>\
        <srv service='_a_b' protocol='tcp' domain='lab.' target='x_.lab.' port='1'/>\
        <txt name='_acme-challenge.x' value='v'/></dns><ip address='10.0.0.1' prefix='24'/>\
        <portgroup name='Trunk Core'/></network>";
    let network = read(text).unwrap();
    assert_eq!(network.mtu, None, "a size of 0 sets no MTU");
    let written = to_xml(&network);
    for kept in [
        "<uuid>3e3fce45-4f53-4fa7-bb32-11f34168b82b</uuid>",
        "<domain name='a_b.c.' localOnly='yes'/>",
        "<forwarder domain='api.test.'/>",
        "<hostname>_etcd.test</hostname>",
        "<srv service='_a_b' protocol='tcp' domain='lab.' target='x_.lab.' port='1'/>",
        "<txt name='_acme-challenge.x' value='v'/>",
        "<portgroup name='Trunk Core'/>",
    ] {
        assert!(written.contains(kept), "{kept}\n{written}");
    }
    assert_eq!(load(written.as_bytes(), None).unwrap().network, network);
}

#[test]
fn the_schema_accepts_each_generated_network() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut generate = || to_xml(&network().new_tree(&mut runner).unwrap().current());
    accepted(&(0..200).map(|_| generate()).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn a_written_network_is_read_back_unchanged(network in network()) {
        let written = to_xml(&network);
        let read = parse(written.as_bytes(), None);
        prop_assert!(read.is_ok(), "{read:?}\n{written}");
        let read = read.unwrap().network;
        prop_assert_eq!(to_xml(&read), written);
        prop_assert_eq!(read, network);
    }

    #[test]
    fn a_list_element_that_is_written_alone_is_read_back_unchanged(network in network()) {
        fn same<T: ListElement + PartialEq + std::fmt::Debug>(all: &[T]) {
            for one in all {
                let written = one.to_tag().to_string();
                assert_eq!(&T::from_xml(written.as_bytes()).unwrap(), one, "{written}");
            }
        }
        same(network.forward.devs());
        same(&network.dns.hosts);
        same(&network.dns.services);
        same(&network.dns.texts);
        same(&network.port_groups);
        for dhcp in network.ips.iter().filter_map(|ip| ip.dhcp.as_ref()) {
            same(&dhcp.ranges);
            same(&dhcp.hosts);
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = load(&bytes, Some(&fill()));
    }

    /// The test moves a piece of a valid document to another position.
    #[test]
    fn a_damaged_document_is_accepted_or_refused_in_one_line(
        network in network(), from: prop::sample::Index, length in 0usize..40, to: prop::sample::Index,
    ) {
        let mut text = to_xml(&network).into_bytes();
        let from = from.index(text.len());
        let cut: Vec<u8> = text.drain(from..(from + length).min(text.len())).collect();
        let to = to.index(text.len().max(1));
        text.splice(to..to, cut);
        if let Err(error) = load(&text, Some(&fill())) {
            let mut one_line = String::new();
            write!(one_line, "{error}").unwrap();
            prop_assert_eq!(one_line.lines().count(), 1);
        }
    }

    /// If one network conflicts with another, the other conflicts with the first.
    #[test]
    fn a_conflict_between_networks_is_mutual(a in network(), b in network()) {
        prop_assert_eq!(check_against(&a, [&a]), Ok(()));
        let (one, other) = (check_against(&a, [&b]), check_against(&b, [&a]));
        prop_assert_eq!(one.is_ok(), other.is_ok());
    }
}
