//! Tests of the store in real directories, with many concurrent users.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::xml::store::Origin;
use crate::xml::store::testing::{self, WORKERS, files};

fn name(text: &str) -> FilterName {
    text.parse().unwrap()
}

fn define_edited(
    store: &FilterStore,
    xml: &str,
    edited: Option<&Definition>,
) -> Result<DefinitionChange, StoreError> {
    let draft = UncheckedFilter::read(xml.as_bytes(), Path::new("in.xml"), &mut rand::rng())?;
    let locked = store.lock()?;
    let change = store.plan_define(draft, edited)?;
    locked.commit(&change)?;
    Ok(change)
}

fn define(store: &FilterStore, xml: &str) -> Result<DefinitionChange, StoreError> {
    define_edited(store, xml, None)
}

fn undefine(store: &FilterStore, name: &FilterName) -> Result<DefinitionChange, StoreError> {
    let change = store.plan_undefine(name)?;
    store.lock()?.commit(&change)?;
    Ok(change)
}

fn simple(name: &str, port: usize) -> String {
    format!(
        "<filter name='{name}'><rule action='drop' direction='in'><tcp dstportstart='{port}'/></rule></filter>"
    )
}

fn referring(name: &str, other: &str) -> String {
    format!("<filter name='{name}'><filterref filter='{other}'/></filter>")
}

#[test]
fn a_definition_is_made_replaced_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("etc/netlaunch");
    let store = FilterStore::new(&config);
    assert_eq!(store.list().unwrap().0.len(), 36, "the stock filters");
    assert!(!dir.path().join("etc").exists(), "looking makes nothing");

    let made = define(&store, &simple("f1", 1)).unwrap();
    let new = made.new.clone().unwrap();
    assert_eq!((&made.old, made.is_same_filter()), (&None, false));
    let path = store.path(&name("f1"));
    assert_eq!(new.origin, Origin::File(path.clone()));
    assert_eq!(fs::read_to_string(&path).unwrap(), to_xml(&new.filter));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(store.get(&name("f1")).unwrap(), new);

    // The UUID stays, and an equal definition is not written again.
    let again = define(&store, &simple("f1", 2)).unwrap();
    assert_eq!(again.new.as_ref().unwrap().filter.uuid, new.filter.uuid);
    assert!(!again.is_same_filter());
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    let same = define(&store, &to_xml(&again.new.as_ref().unwrap().filter)).unwrap();
    assert!(same.is_same_filter() && same.old == same.new);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);

    let gone = undefine(&store, &name("f1")).unwrap();
    assert_eq!((gone.new, gone.filters.len()), (None, 36));
    assert_eq!(files(&config), []);
    for error in [store.get(&name("f1")).unwrap_err(), undefine(&store, &name("f1")).unwrap_err()] {
        assert!(matches!(&error, StoreError::Unknown(_)), "{error}");
    }
}

#[test]
fn a_definition_replaces_the_stock_filter_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = FilterStore::new(dir.path());
    let arp = name("allow-arp");
    let stock = store.get(&arp).unwrap();
    assert_eq!(stock.origin, Origin::BuiltIn);
    assert!(matches!(undefine(&store, &arp), Err(StoreError::BuiltIn(_))));

    let mine = define(&store, &simple("allow-arp", 1)).unwrap();
    assert_eq!(mine.old, Some(stock.clone()));
    assert_eq!(mine.new.unwrap().filter.uuid, stock.filter.uuid);
    assert_eq!(store.list().unwrap().0.len(), 36);
    // The UUID of the stock filter stays reserved.
    let copy = to_xml(&stock.filter).replace("name='allow-arp'", "name='copy'");
    assert!(matches!(define(&store, &copy), Err(StoreError::UuidTaken { .. })));
    let back = undefine(&store, &arp).unwrap();
    assert_eq!(back.new, Some(stock.clone()));
    assert_eq!(store.get(&arp).unwrap(), stock);

    // A replacement with another UUID does not free the UUID of the stock filter.
    let uuid = "<uuid>3e3fce45-4f53-4fa7-bb32-11f34168b82b</uuid>";
    define(&store, &simple("allow-arp", 1).replace("<rule", &format!("{uuid}<rule"))).unwrap();
    assert!(matches!(define(&store, &copy), Err(StoreError::UuidTaken { .. })));
}

#[test]
fn a_refused_change_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = FilterStore::new(dir.path());
    let uuid = define(&store, &simple("f1", 1)).unwrap().new.unwrap().filter.uuid;
    // A referenced filter may be defined later.
    define(&store, &referring("a", "b")).unwrap();
    define(&store, &referring("b", "c")).unwrap();
    let before = files(dir.path());
    let with = |xml: &str, uuid: &str| xml.replacen('>', &format!("><uuid>{uuid}</uuid>"), 1);
    for (xml, error) in [
        ("<filter>".to_owned(), "in.xml:1:1: "),
        (
            with(&simple("f1", 2), "3e3fce45-4f53-4fa7-bb32-11f34168b82b"),
            &format!("the filter f1 exists already, with the UUID {uuid}"),
        ),
        (with(&simple("f2", 2), &uuid.to_string()), "the filter f1 has the UUID"),
        (
            referring("c", "a"),
            "the filters would refer to each other in a circle, c -> a -> b -> c: ",
        ),
        (referring("a", "a"), "the filters would refer to each other in a circle, a -> a: "),
    ] {
        let found = define(&store, &xml).unwrap_err();
        assert!(found.to_string().starts_with(error), "{xml}: {found}");
        assert!(found.is_callers());
        assert_eq!(files(dir.path()), before);
    }
    // A filter that others refer to can be removed.
    undefine(&store, &name("b")).unwrap();
    assert_eq!(store.tree(&name("a")).unwrap().len(), 1);
    // A plan alone does not change the files.
    let before = files(dir.path());
    store.plan_undefine(&name("f1")).unwrap();
    assert_eq!(files(dir.path()), before);
}

/// A stock filter that returns must not close a circle of references.
#[test]
fn an_undefine_that_would_make_a_loop_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = FilterStore::new(dir.path());
    define(&store, &simple("qemu-announce-self", 1)).unwrap();
    define(&store, &referring("qemu-announce-self-rarp", "qemu-announce-self")).unwrap();
    let error = undefine(&store, &name("qemu-announce-self")).unwrap_err();
    assert!(matches!(error, StoreError::Loop(_)), "{error}");
}

#[test]
fn an_invalid_file_does_not_hide_other_filters() {
    let dir = tempfile::tempdir().unwrap();
    let store = FilterStore::new(dir.path());
    define(&store, &simple("f1", 1)).unwrap();
    fs::write(store.path(&name("f2")), "<filter name='f2'>\n<bogus/></filter>").unwrap();
    fs::copy(store.path(&name("f1")), store.path(&name("f3"))).unwrap();
    fs::write(store.path(&name("allow-arp")), "").unwrap();
    fs::write(dir.path().join("nwfilter/.new-dead"), "x").unwrap();
    fs::write(dir.path().join("nwfilter/notes.txt"), "x").unwrap();
    let (definitions, broken) = store.list().unwrap();
    assert_eq!(definitions.len(), 36, "35 stock ones and f1");
    let errors: Vec<_> = broken.iter().map(|broken| broken.error.to_string()).collect();
    assert_eq!(errors.len(), 3);
    assert!(errors[0].contains("allow-arp.xml:1:1: "), "{errors:?}");
    assert!(errors[1].contains("f2.xml:1:1: <filter> needs a <uuid>"), "{errors:?}");
    assert!(errors[2].contains("f3.xml defines the filter f1"), "{errors:?}");
    assert!(store.tree(&name("f2")).is_err());
    // It can be replaced, and removed.
    define(&store, &simple("f2", 2)).unwrap();
    undefine(&store, &name("f3")).unwrap();
    undefine(&store, &name("allow-arp")).unwrap();
    assert!(!dir.path().join("nwfilter/.new-dead").exists());
    assert!(dir.path().join("nwfilter/notes.txt").exists());
    assert!(store.list().unwrap().1.is_empty());
}

#[test]
fn an_edit_does_not_undo_another_edit() {
    let dir = tempfile::tempdir().unwrap();
    let store = FilterStore::new(dir.path());
    let seen = define(&store, &simple("f1", 1)).unwrap().new.unwrap();
    let error = define_edited(&store, &simple("f2", 2), Some(&seen)).unwrap_err();
    assert!(matches!(error, StoreError::Renamed { .. }), "{error}");
    let now = define_edited(&store, &simple("f1", 2), Some(&seen)).unwrap().new.unwrap();
    let error = define_edited(&store, &simple("f1", 3), Some(&seen)).unwrap_err();
    assert!(matches!(error, StoreError::Changed(_)), "{error}");
    assert_eq!(store.get(&name("f1")).unwrap(), now);
    undefine(&store, &name("f1")).unwrap();
    let error = define_edited(&store, &simple("f1", 3), Some(&now)).unwrap_err();
    assert!(matches!(error, StoreError::Changed(_)), "{error}");
}

#[test]
fn the_error_of_a_failed_write_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("nwfilter"), "").unwrap();
    let error = define(&FilterStore::new(dir.path()), &simple("f1", 1)).unwrap_err();
    assert!(!error.is_callers() && error.to_string().contains("nwfilter"), "{error}");
}

/// Runs one of several processes that define filters in one directory, and checks the results.
fn hammer(config: &Path, worker: usize) {
    let store = FilterStore::new(config);
    for round in 0..12 {
        // Half of the workers want a -> b, the others b -> a; only one of these can exist at a
        // time.
        let (one, other) = if worker.is_multiple_of(2) { ("a", "b") } else { ("b", "a") };
        if define(&store, &referring(one, other)).is_ok() {
            // Another worker of the same half may have removed it; under the lock it cannot change.
            let locked = store.lock().unwrap();
            let all = store.tree(&name(one)).unwrap_or_default();
            for filter in all.values() {
                assert_eq!(find_loop(filter, &all), None);
            }
            if let Ok(change) = store.plan_undefine(&name(one)) {
                locked.commit(&change).unwrap();
            }
        }
        // All workers define one filter; a reader always gets one complete definition.
        define(&store, &simple("common", 100 + worker)).unwrap();
        assert_eq!(store.get(&name("common")).unwrap().filter.rules().count(), 1);
        // Each worker has its own filter, which no other worker may remove.
        let own = format!("own{worker}-{round}");
        define(&store, &simple(&own, round)).unwrap();
        store.get(&name(&own)).unwrap();
    }
}

fn check_hammered(config: &Path) {
    let store = FilterStore::new(config);
    let (definitions, broken) = store.list().unwrap();
    assert!(broken.is_empty(), "{broken:?}");
    let own = definitions.iter().filter(|d| d.filter.name.as_str().starts_with("own")).count();
    assert_eq!(own, WORKERS * 12);
    let uuids: std::collections::BTreeSet<_> = definitions.iter().map(|d| d.filter.uuid).collect();
    assert_eq!(uuids.len(), definitions.len());
}

#[test]
fn threads_define_filters_at_once() {
    testing::threads(hammer, check_hammered);
}

#[test]
fn processes_define_filters_at_once() {
    let test = "nwfilter::store_tests::processes_define_filters_at_once";
    testing::processes(test, hammer, check_hammered);
}
