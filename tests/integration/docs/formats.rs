//! The manual pages of documents, the sample files and README.

use super::*;

/// The literal lines of an example that begins so.
fn example(lines: &[&str], first: &str) -> String {
    let begin = lines.iter().copied().skip_while(|line| *line != first);
    begin.take_while(|line| !line.starts_with('.')).collect::<Vec<_>>().join("\n")
}

/// The filter in the examples of a page.
fn example_filter(page: &str) -> netlaunch::nwfilter::Filter {
    let page = read(page);
    let lines = section(&page, ".Sh EXAMPLES");
    let start = lines.iter().position(|line| line.starts_with("<filter ")).unwrap();
    let xml: Vec<&str> =
        lines[start..].iter().copied().take_while(|line| !line.starts_with('.')).collect();
    let uuid = "3e3fce45-4f53-4fa7-bb32-11f34168b82b".parse().unwrap();
    netlaunch::nwfilter::parse(xml.join("\n").as_bytes(), Some(uuid)).unwrap()
}

#[test]
fn the_manuals_of_filters_have_filters_calls_and_stock_filters() {
    assert_eq!(example_filter("man/netlaunch-nwfilter.1").name.as_str(), "web");
    assert_eq!(example_filter("man/netlaunch-nwfilter.5").name.as_str(), "servers");
    let page = read("man/netlaunch-nwfilter.1");
    assert!(readable_calls(page.lines()) > 2);
    let stock = section(&page, ".Ss Stock filters").join(" ");
    let words: BTreeSet<&str> = stock.split_whitespace().collect();
    for name in netlaunch::nwfilter::stock_names() {
        assert!(words.contains(name.as_str()), "{name}");
    }
}

#[test]
fn the_manual_of_the_filter_format_names_every_element_and_attribute() {
    let page = read("man/netlaunch-nwfilter.5");
    let text = section(&page, ".Ss Protocols").join(" ");
    let words: BTreeSet<&str> = text.split([' ', '<', '>']).collect();
    for (protocol, name) in netlaunch::nwfilter::Protocol::NAMES {
        assert!(words.contains(name), "<{name}>");
        for (attribute, _) in protocol.fields() {
            assert!(words.contains(attribute.name()), "{} of <{name}>", attribute.name());
        }
    }
    for (name, _) in netlaunch::nwfilter::Action::NAMES {
        assert!(page.contains(&format!(".Cm {name}\n")), "{name}");
    }
}

#[test]
fn the_document_in_the_manual_of_networks_is_a_network() {
    let page = read("man/netlaunch-network.1");
    let lines = section(&page, ".Sh EXAMPLES");
    let xml = example(&lines, "<network>");
    let fill = netlaunch::network::Fill {
        uuid: "3e3fce45-4f53-4fa7-bb32-11f34168b82b".parse().unwrap(),
        mac: "52:54:00:00:00:01".parse().unwrap(),
        bridge: Some("virbr9".parse().unwrap()),
    };
    let network = netlaunch::network::load(xml.as_bytes(), Some(&fill)).unwrap();
    assert_eq!(network.network.name.as_str(), "lab");
    assert!(readable_calls(lines) > 2);
}

#[test]
fn the_documents_in_the_manual_of_filters_can_be_bound() {
    use netlaunch::nwfilter::{Binding, Filters, compile, flatten, parse, stock, stock_names};
    let page = read("man/netlaunch-nwfilter.1");
    let lines = section(&page, ".Sh EXAMPLES");
    let uuid = "3e3fce45-4f53-4fa7-bb32-11f34168b82b".parse().unwrap();
    let filter = example(&lines, "<filter name='web'>");
    let filter = parse(filter.as_bytes(), Some(uuid)).unwrap();
    let binding = Binding::parse(example(&lines, "<filterbinding>").as_bytes()).unwrap();
    assert_eq!(binding.filter, filter.name);
    let mut filters: Filters =
        stock_names().map(|name| (name.clone(), stock(&name).unwrap().unwrap())).collect();
    filters.insert(filter.name.clone(), filter);
    let parts = flatten(&filters[&binding.filter], &filters, &binding.variables()).unwrap();
    let (rules, warnings) = compile(&parts).unwrap();
    assert!(rules.is_stateful() && warnings.is_empty());
    assert!(readable_calls(lines) > 3);
}
