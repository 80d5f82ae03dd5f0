use super::super::change::change;
use super::super::testing::arp_port;
use super::super::{Families, PortTables, fetch_less, remove_tables};
use super::*;

const SECOND: &str = "netlaunch_nwfilter_2";

fn text(index: u32, table: &str) -> PortText {
    let bridge = PortTable::named(table).unwrap();
    arp_port(index).in_tables(PortTables { bridge, netdev: PortTable::of_interface(index) })
}

fn second() -> FurtherTables {
    let tables = BTreeSet::from([PortTable::named(SECOND).unwrap()]);
    FurtherTables { bridge: tables.clone(), netdev: tables }
}

fn changed(remove: &[&PortText], add: &[&PortText], emptied: &BTreeSet<PortTable>) -> String {
    let remove: Vec<_> = remove.iter().map(|port| &*port.objects).collect();
    change(&remove, add, Families::All, emptied)
}

#[test]
fn a_new_port_of_a_further_table_gets_an_element_in_the_first_tables_maps() {
    let expected = "\
add table bridge netlaunch_nwfilter_2
add set bridge netlaunch_nwfilter_2 empty { type mark; }
add map bridge netlaunch_nwfilter_2 from_guest { type iface_index : verdict; }
add chain bridge netlaunch_nwfilter_2 prerouting { type filter hook prerouting priority -99; policy accept; }
flush chain bridge netlaunch_nwfilter_2 prerouting
add rule bridge netlaunch_nwfilter_2 prerouting iif vmap @from_guest
add map bridge netlaunch_nwfilter_2 to_guest { type iface_index : verdict; }
add chain bridge netlaunch_nwfilter_2 postrouting { type filter hook postrouting priority 1; policy accept; }
flush chain bridge netlaunch_nwfilter_2 postrouting
add rule bridge netlaunch_nwfilter_2 postrouting oif vmap @to_guest
add chain bridge netlaunch_nwfilter_2 p71-from
flush chain bridge netlaunch_nwfilter_2 p71-from
add chain bridge netlaunch_nwfilter_2 p71-to
flush chain bridge netlaunch_nwfilter_2 p71-to
table bridge netlaunch_nwfilter_2 {
\tchain p71-from {
\t\tether type 0x0806 drop
\t\taccept
\t}
\tchain p71-to {
\t\taccept
\t}
}
add element bridge netlaunch_nwfilter_2 from_guest { \" 71\" : jump p71-from }
add element bridge netlaunch_nwfilter_2 to_guest { \" 71\" : jump p71-to }
add table bridge netlaunch_nwfilter
add map bridge netlaunch_nwfilter from_guest { type iface_index : verdict; }
add element bridge netlaunch_nwfilter from_guest { \" 71\" : accept }
add map bridge netlaunch_nwfilter to_guest { type iface_index : verdict; }
add element bridge netlaunch_nwfilter to_guest { \" 71\" : accept }
add table netdev netlaunch_nwfilter_2
add chain netdev netlaunch_nwfilter_2 p71-ingress
flush chain netdev netlaunch_nwfilter_2 p71-ingress
delete chain netdev netlaunch_nwfilter_2 p71-ingress
add chain netdev netlaunch_nwfilter_2 p71-from
flush chain netdev netlaunch_nwfilter_2 p71-from
add chain netdev netlaunch_nwfilter_2 p71-ingress { type filter hook ingress device \"vnet71\" priority 0; policy accept; }
table netdev netlaunch_nwfilter_2 {
\tchain p71-from {
\t\tether type 0x0806 drop
\t\taccept
\t}
}
add rule netdev netlaunch_nwfilter_2 p71-ingress ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 iif \" 71\" goto p71-from
";
    assert_eq!(changed(&[], &[&text(71, SECOND)], &BTreeSet::new()), expected);
}

/// Returns the lines of a text that concern the first table.
fn of_first(text: &str) -> Vec<&str> {
    let is_first = |line: &&str| line.split(' ').any(|word| word == "netlaunch_nwfilter");
    text.lines().filter(is_first).collect()
}

#[test]
fn a_swap_adds_the_same_elements_again() {
    let port = text(71, SECOND);
    let swapped = changed(&[&port], &[&port], &BTreeSet::new());
    let added = changed(&[], &[&port], &BTreeSet::new());
    assert_eq!(of_first(&swapped), of_first(&added));
    assert_eq!(of_first(&added).len(), 5);
}

#[test]
fn a_removed_port_leaves_its_table_and_the_first_tables_maps() {
    let (seven, eight) = (text(71, SECOND), text(72, SECOND));
    let removed = changed(&[&seven], &[], &BTreeSet::new());
    for line in [
        "delete element bridge netlaunch_nwfilter_2 from_guest { \" 71\" : jump p71-from }",
        "delete chain bridge netlaunch_nwfilter_2 p71-from",
        "delete chain netdev netlaunch_nwfilter_2 p71-ingress",
        "delete element bridge netlaunch_nwfilter from_guest { \" 71\" : accept }",
        "delete element bridge netlaunch_nwfilter to_guest { \" 71\" : accept }",
    ] {
        assert!(removed.lines().any(|is| is == line), "{line}\n{removed}");
    }
    assert!(!removed.contains("delete table"), "{removed}");
    // The same transaction binds another port.
    let both = changed(&[&seven], &[&eight], &BTreeSet::new());
    for line in [
        "delete element bridge netlaunch_nwfilter to_guest { \" 71\" : accept }",
        "add element bridge netlaunch_nwfilter to_guest { \" 72\" : accept }",
    ] {
        assert!(both.lines().any(|is| is == line), "{line}\n{both}");
    }
}

#[test]
fn the_last_port_of_a_further_table_takes_the_table_with_it() {
    let expected = "\
add table bridge netlaunch_nwfilter_2
delete table bridge netlaunch_nwfilter_2
add table bridge netlaunch_nwfilter
add map bridge netlaunch_nwfilter from_guest { type iface_index : verdict; }
add element bridge netlaunch_nwfilter from_guest { \" 71\" : accept }
delete element bridge netlaunch_nwfilter from_guest { \" 71\" : accept }
add map bridge netlaunch_nwfilter to_guest { type iface_index : verdict; }
add element bridge netlaunch_nwfilter to_guest { \" 71\" : accept }
delete element bridge netlaunch_nwfilter to_guest { \" 71\" : accept }
add table netdev netlaunch_nwfilter_2
add chain netdev netlaunch_nwfilter_2 p71-ingress
flush chain netdev netlaunch_nwfilter_2 p71-ingress
delete chain netdev netlaunch_nwfilter_2 p71-ingress
add chain netdev netlaunch_nwfilter_2 p71-from
flush chain netdev netlaunch_nwfilter_2 p71-from
delete chain netdev netlaunch_nwfilter_2 p71-from
";
    assert_eq!(changed(&[&text(71, SECOND)], &[], &second().bridge), expected);
}

#[test]
fn ports_of_two_tables_change_in_one_text() {
    let ports = [text(7, "netlaunch_nwfilter"), text(72, SECOND)];
    let both = changed(&[], &[&ports[0], &ports[1]], &BTreeSet::new());
    let alone = changed(&[], &[&ports[0]], &BTreeSet::new());
    let (bridge, netdev) = alone.split_at(alone.find("add table netdev").unwrap());
    assert!(both.starts_with(bridge) && both.contains(netdev), "{both}");
    assert!(
        both.contains(
            "add element bridge netlaunch_nwfilter_2 to_guest { \" 72\" : jump p72-to }\n"
        )
    );
    assert!(
        both.contains("add element bridge netlaunch_nwfilter from_guest { \" 72\" : accept }\n")
    );
    assert!(!both.contains("{ \" 7\" : accept }"), "{both}");
}

#[test]
fn a_guarded_port_leaves_the_first_tables_maps_before_its_filter_goes() {
    let ports = [text(7, "netlaunch_nwfilter"), text(72, SECOND)];
    let objects: Vec<_> = ports.iter().map(|port| &*port.objects).collect();
    assert_eq!(close_ports(&objects[..1]), "");
    let closed = close_ports(&objects);
    let expected = changed(&[&ports[1]], &[], &second().bridge);
    assert_eq!(closed.lines().collect::<Vec<_>>(), of_first(&expected));
    let opened = open_ports(&objects);
    assert!(
        opened.contains("add element bridge netlaunch_nwfilter to_guest { \" 72\" : accept }\n")
    );
    assert!(!opened.contains("delete") && !opened.contains(SECOND), "{opened}");
}

#[test]
fn all_tables_are_removed_together() {
    let removed = remove_tables(&["bridge", "netdev"], &second());
    let first = remove_tables(&["bridge", "netdev"], &FurtherTables::default());
    assert_eq!(
        first,
        "add table bridge netlaunch_nwfilter\ndelete table bridge netlaunch_nwfilter\n\
         add table netdev netlaunch_nwfilter\ndelete table netdev netlaunch_nwfilter\n"
    );
    let rest = removed.strip_prefix(&first).unwrap();
    assert_eq!(rest, first.replace("netlaunch_nwfilter", SECOND));
    assert!(!remove_tables(&["bridge"], &second()).contains("netdev"));
}

#[test]
fn nft_fetches_a_chain_that_the_table_has() {
    let table = PortTable::named(SECOND).unwrap();
    assert_eq!(
        fetch_less(table),
        "list chain bridge netlaunch_nwfilter_2 prerouting\n\
         list set bridge netlaunch_nwfilter_2 empty\n"
    );
    assert!(fetch_less(PortTable::FIRST).contains("netlaunch_nwfilter guard-from\n"));
}

/// After an interrupted change, a port has two records with mostly the same objects.
#[test]
fn each_deleted_object_was_declared_since_its_last_deletion() {
    for table in ["netlaunch_nwfilter", SECOND] {
        let (seven, eight) = (text(71, table), text(72, table));
        for remove in [&[&seven, &seven][..], &[&seven, &eight, &seven]] {
            for add in [&[][..], &[&seven], &[&eight]] {
                let text = changed(remove, add, &BTreeSet::new());
                let mut declared = BTreeSet::new();
                for line in text.lines() {
                    let object = |verb: &str| line.strip_prefix(verb)?.split(" {").next();
                    if let Some(object) = object("add ") {
                        declared.insert(object);
                    } else if let Some(object) = object("delete ") {
                        let is_element = object.starts_with("element ");
                        assert!(is_element || declared.remove(object), "{line}:\n{text}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_port_leaves_the_netdev_table_of_an_earlier_version() {
    let port = text(71, "netlaunch_nwfilter");
    let mut earlier = PortObjects::clone(&port.objects);
    earlier.ingress.as_mut().unwrap().table = None;
    assert_eq!(earlier.netdev_table(), Some(PortTable::FIRST));
    assert_eq!(port.objects.netdev_table(), PortTable::named(SECOND));
    let moved = change(&[&earlier], &[&port], Families::All, &BTreeSet::new());
    for line in [
        "delete chain netdev netlaunch_nwfilter p71-ingress",
        "delete chain netdev netlaunch_nwfilter p71-from",
        "table netdev netlaunch_nwfilter_2 {",
    ] {
        assert!(moved.lines().any(|is| is == line), "{line}\n{moved}");
    }
    assert!(!moved.contains("delete chain bridge"), "{moved}");
}
