//! Tests of the store in real directories, by one user and by several threads and processes at the
//! same time.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{DefineRequest, Definition, NetworkName, NetworkStore, Origin, StoreError, to_xml};
use crate::types::InterfaceName;
use crate::xml::store::testing::{self, WORKERS, files};

fn name(text: &str) -> NetworkName {
    text.parse().unwrap()
}

fn define(store: &NetworkStore, xml: &str) -> Result<Definition, StoreError> {
    define_edited(store, xml, None)
}

fn define_edited(
    store: &NetworkStore,
    xml: &str,
    edited: Option<&Definition>,
) -> Result<Definition, StoreError> {
    let interfaces = ["virbr1".parse().unwrap()];
    let source = Path::new("in.xml");
    let define = DefineRequest { xml: xml.as_bytes(), source, interfaces: &interfaces, edited };
    store.define(&define, &mut rand::rng())
}

fn simple(name: &str, number: usize) -> String {
    format!(
        "<network><name>{name}</name><ip address='10.{number}.0.1' netmask='255.255.255.0'/></network>"
    )
}

#[test]
fn a_network_is_defined_redefined_marked_and_undefined() {
    let dir = tempfile::tempdir().unwrap();
    let store = NetworkStore::new(&dir.path().join("etc/netlaunch"));
    assert_eq!(store.list().unwrap().0.len(), 1, "the compiled-in network is the only one");
    assert!(!dir.path().join("etc").exists(), "list() makes no directory");

    let made = define(&store, &simple("n1", 1)).unwrap();
    assert_eq!(made.network.bridge.name.as_str(), "virbr2", "virbr1 is an interface of the host");
    assert!(made.network.mac.unwrap().to_string().starts_with("52:54:00:"));
    let path = store.path(&name("n1"));
    assert_eq!(made.origin, Origin::File(path.clone()));
    assert_eq!(fs::read_to_string(&path).unwrap(), to_xml(&made.network));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(store.get(&name("n1")).unwrap(), made);

    // A new definition keeps the values that the store chose.
    let again = define(&store, &simple("n1", 2)).unwrap();
    let chosen = |d: &Definition| (d.network.uuid, d.network.mac, d.network.bridge.name.clone());
    assert_eq!(chosen(&again), chosen(&made));
    assert_ne!(again.network.ips, made.network.ips);

    store.set_autostart(&name("n1"), true).unwrap();
    store.set_autostart(&name("n1"), true).unwrap();
    assert!(store.get(&name("n1")).unwrap().autostart);
    assert!(define(&store, &simple("n1", 3)).unwrap().autostart);
    store.set_autostart(&name("n1"), false).unwrap();
    store.set_autostart(&name("n1"), false).unwrap();
    assert!(!store.get(&name("n1")).unwrap().autostart);
    store.set_autostart(&name("n1"), true).unwrap();

    store.undefine(&name("n1")).unwrap();
    assert_eq!(files(dir.path()), [], "undefine removes the mark too");
    for error in [
        store.get(&name("n1")).unwrap_err(),
        store.undefine(&name("n1")).unwrap_err(),
        store.set_autostart(&name("n1"), true).unwrap_err(),
        store.set_autostart(&name("n1"), false).unwrap_err(),
    ] {
        assert!(matches!(&error, StoreError::Unknown(_)), "{error}");
    }
}

/// A reader that opened the old file reads all of it, and no reader sees a part of the new file.
#[test]
fn a_definition_is_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = NetworkStore::new(dir.path());
    let old = define(&store, &simple("n1", 1)).unwrap();
    let mut open = fs::File::open(store.path(&name("n1"))).unwrap();
    define(&store, &simple("n1", 2)).unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, to_xml(&old.network));

    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..200 {
                define(&store, &simple("n1", round)).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            store.get(&name("n1")).unwrap();
        }
    });
}

#[test]
fn the_compiled_in_network_exists_while_no_file_defines_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = NetworkStore::new(dir.path());
    let default = name("default");
    let built_in = store.get(&default).unwrap();
    assert_eq!(built_in.origin, Origin::BuiltIn);
    assert_eq!(built_in.network.bridge.name.as_str(), "virbr0");
    assert_eq!(to_xml(&built_in.network), include_str!("default.xml"), "to_xml writes this form");
    assert!(matches!(store.undefine(&default), Err(StoreError::BuiltIn(_))));
    store.set_autostart(&default, true).unwrap();
    assert!(store.get(&default).unwrap().autostart);

    // Another network may have its bridge and subnet, but not its UUID.
    let same = to_xml(&built_in.network).replace("<name>default", "<name>other");
    let error = define(&store, &same).unwrap_err().to_string();
    assert!(error.starts_with("in.xml:3:3: the network default has the UUID"), "{error}");
    define(&store, &simple("other", 0).replace("10.0.0.1", "192.168.122.1")).unwrap();
    store.undefine(&name("other")).unwrap();

    let mine = define(&store, &simple("default", 1)).unwrap();
    assert_eq!(store.get(&default).unwrap(), mine);
    assert_eq!(store.list().unwrap().0, [mine]);
    store.undefine(&default).unwrap();
    let back = store.get(&default).unwrap();
    assert_eq!((back.origin, back.autostart), (Origin::BuiltIn, false));
}

#[test]
fn a_refused_definition_changes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = NetworkStore::new(dir.path());
    let n1 = define(&store, &simple("n1", 1)).unwrap();
    let before = files(dir.path());
    let uuid = n1.network.uuid;
    let other = simple("n2", 2);
    for (xml, error) in [
        ("<network>\n <bogus/></network>".to_owned(), "in.xml:1:1: <network> needs a <name>"),
        (other.replace("<ip ", "\n<bogus/><ip "), "in.xml:2:1: <bogus> is not known in <network>"),
        (
            other.replace("10.2", "10.1"),
            "in.xml:1:25: the subnet 10.1.0.0/24 overlaps 10.1.0.0/24 of the network n1",
        ),
        (
            other.replace("<ip ", "<bridge name='virbr2'/><ip "),
            "in.xml:1:25: the network n1 has the bridge virbr2 already",
        ),
        (
            other.replace("<ip ", &format!("<uuid>{uuid}</uuid><ip ")),
            "in.xml:1:25: the network n1 has the UUID",
        ),
        (
            simple("n1", 3)
                .replace("<ip ", "<uuid>3e3fce45-4f53-4fa7-bb32-11f34168b82b</uuid><ip "),
            "in.xml:1:10: the network n1 exists already, with the UUID",
        ),
        (
            other.replace("<ip ", &format!("<mac address='{}'/><ip ", n1.network.mac.unwrap())),
            "in.xml:1:25: the network n1 has the MAC",
        ),
    ] {
        let found = define(&store, &xml).unwrap_err().to_string();
        assert!(found.starts_with(error), "{xml}: {found}");
        assert_eq!(files(dir.path()), before);
    }
}

#[test]
fn a_broken_file_hides_no_other_definition() {
    let dir = tempfile::tempdir().unwrap();
    let store = NetworkStore::new(dir.path());
    define(&store, &simple("n1", 1)).unwrap();
    let path = store.path(&name("n2"));
    fs::write(&path, "<network>\n  <nme>n2</nme>\n</network>").unwrap();
    fs::write(store.path(&name("n3")), fs::read(store.path(&name("n1"))).unwrap()).unwrap();
    fs::write(store.path(&name("n4")), simple("n4", 4)).unwrap();
    fs::write(dir.path().join("networks/notes.txt"), "x").unwrap();
    fs::write(dir.path().join("networks/.new-dead"), "x").unwrap();
    let (definitions, broken) = store.list().unwrap();
    let names: Vec<_> = definitions.iter().map(|d| d.network.name.as_str()).collect();
    assert_eq!(names, ["default", "n1"]);
    let errors: Vec<_> = broken.iter().map(|b| b.error.to_string()).collect();
    assert_eq!(errors.len(), 3);
    assert!(
        errors[0].starts_with(&format!("{}:1:1: <network> needs a <name>", path.display())),
        "{errors:?}"
    );
    assert!(errors[1].contains("n3.xml defines the network n1"), "{errors:?}");
    assert!(errors[2].contains("n4.xml:1:1: <network> needs a <uuid>"), "{errors:?}");
    // A broken file can be replaced or removed.
    define(&store, &simple("n2", 2)).unwrap();
    store.undefine(&name("n3")).unwrap();
    assert!(!dir.path().join("networks/.new-dead").exists());
    assert!(dir.path().join("networks/notes.txt").exists());
}

#[test]
fn an_edit_of_a_definition_that_changed_meanwhile_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = NetworkStore::new(dir.path());
    let seen = define(&store, &simple("n1", 1)).unwrap();
    let new = to_xml(&seen.network).replace("10.1.", "10.2.");
    let renamed = define_edited(&store, &new.replace("n1", "n2"), Some(&seen)).unwrap_err();
    assert!(matches!(renamed, StoreError::Renamed { .. }), "{renamed}");
    let now = define_edited(&store, &new, Some(&seen)).unwrap();
    let late = define_edited(&store, &new.replace("10.2.", "10.3."), Some(&seen)).unwrap_err();
    assert!(matches!(late, StoreError::Changed(_)), "{late}");
    assert_eq!(store.get(&name("n1")).unwrap(), now);
    store.undefine(&name("n1")).unwrap();
    let gone = define_edited(&store, &new, Some(&now)).unwrap_err();
    assert!(matches!(gone, StoreError::Changed(_)), "{gone}");
    // An edit of the compiled-in network makes a file.
    let default = store.get(&name("default")).unwrap();
    let edited = to_xml(&default.network).replace("virbr0", "virbr7");
    let made = define_edited(&store, &edited, Some(&default)).unwrap();
    assert_eq!(made.network.uuid, default.network.uuid);
}

#[test]
fn a_failed_write_is_an_error_that_names_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("networks"), "").unwrap();
    let store = NetworkStore::new(dir.path());
    let error = define(&store, &simple("n1", 1)).unwrap_err();
    assert!(!error.is_callers(), "{error}");
    assert!(error.to_string().contains("networks"), "{error}");
}

/// Defines and undefines networks in one directory as one of several workers, and checks the
/// results.
fn hammer(config: &Path, worker: usize) {
    let store = NetworkStore::new(config);
    for round in 0..12 {
        // All workers define a network with the same subnet and bridge; only one can have them.
        let rival = format!("rival{worker}");
        let xml = simple(&rival, 0).replace("<ip ", "<bridge name='shared'/><ip ");
        if define(&store, &xml).is_ok() {
            let (definitions, broken) = store.list().unwrap();
            assert!(broken.is_empty(), "{broken:?}");
            let with = definitions.iter().filter(|d| d.network.bridge.name.as_str() == "shared");
            assert_eq!(with.count(), 1);
            store.undefine(&name(&rival)).unwrap();
        }
        // All workers define this network; each read returns one complete definition.
        define(&store, &simple("common", 100 + worker)).unwrap();
        let common = store.get(&name("common")).unwrap().network;
        assert_eq!(common.ips.len(), 1);
        // Each worker defines networks of its own; the other workers must not remove them.
        let own = format!("own{worker}-{round}");
        define(
            &store,
            &simple(&own, 0).replace("10.0.0.1", &format!("10.{}.{round}.1", 200 + worker)),
        )
        .unwrap();
        store.get(&name(&own)).unwrap();
    }
}

fn check_hammered(config: &Path) {
    let store = NetworkStore::new(config);
    let (definitions, broken) = store.list().unwrap();
    assert!(broken.is_empty(), "{broken:?}");
    assert_eq!(definitions.len(), 2 + WORKERS * 12, "default, common, and every worker's own");
    let mut bridges: Vec<InterfaceName> =
        definitions.iter().map(|d| d.network.bridge.name.clone()).collect();
    bridges.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    bridges.dedup();
    assert_eq!(bridges.len(), definitions.len(), "each network has its own bridge");
}

#[test]
fn threads_at_once_lose_no_definition() {
    testing::threads(hammer, check_hammered);
}

#[test]
fn processes_at_once_lose_no_definition() {
    let test = "network::store_tests::processes_at_once_lose_no_definition";
    testing::processes(test, hammer, check_hammered);
}
