//! Tests that a status file which cannot be read stops the commands on its own port or network, and
//! no others.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::common::frame::{Frame, PEER, VM};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::schema::valid;
use crate::common::{Sandbox, finish, have_root, text};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

const RULE: &str = "<rule action='drop' direction='out'><all-ipv6/></rule>";

/// The kinds of damage to a file, each with the words of its message.
const DAMAGES: [(&str, &str); 9] = [
    ("bad JSON", "is damaged"),
    ("truncated", "is damaged"),
    ("empty", "is damaged"),
    ("wrong types", "is damaged"),
    ("no binding", "is damaged"),
    ("newer", "was written by a newer netlaunch"),
    ("directory", "is damaged"),
    ("FIFO", "is damaged"),
    ("loop", "symbolic links"),
];

/// Damages a file; returns its text of before.
fn damage(path: &Path, how: &str) -> String {
    let text = fs::read_to_string(path).unwrap();
    fs::remove_file(path).unwrap();
    let newer = text.replace("\"version\": 1", "\"version\": 99");
    match how {
        "bad JSON" => fs::write(path, "{\"version\": 1, nonsense").unwrap(),
        "truncated" => fs::write(path, &text[..text.len() / 2]).unwrap(),
        "empty" => fs::write(path, "").unwrap(),
        "wrong types" => fs::write(path, "{\"version\": 1, \"port\": 7, \"name\": []}").unwrap(),
        "no binding" => fs::write(path, text.replace("<filterbinding>", "<nonsense>")).unwrap(),
        "newer" => fs::write(path, newer).unwrap(),
        "directory" => fs::create_dir(path).unwrap(),
        "FIFO" => mkfifo(path, Mode::S_IRUSR).unwrap(),
        _ => symlink(path, path).unwrap(),
    }
    text
}

fn mend(path: &Path, text: &str) {
    if path.is_dir() {
        fs::remove_dir(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
    fs::write(path, text).unwrap();
}

/// The file as it is, so that a change would be seen.
fn look(path: &Path) -> (String, u64) {
    use std::os::unix::fs::MetadataExt;
    let is = fs::symlink_metadata(path).unwrap();
    let text = if is.is_file() { fs::read_to_string(path).unwrap() } else { String::new() };
    (text, is.ino())
}

fn reload(sandbox: &Sandbox) -> String {
    let output = finish(sandbox.netlaunch(&["firewall", "reload"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn a_damaged_status_of_a_port_stops_that_port_alone() {
    if !have_root("a_damaged_status_of_a_port_stops_that_port_alone") {
        return;
    }
    for backend in ["nftables", "iptables"] {
        let scene = PortScene::new(Some(backend));
        scene.define("test", RULE).unwrap();
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        let path = scene.sandbox.path("state/nwfilter/bindings/vnet0.json");
        for (how, why) in DAMAGES {
            println!("{backend}, {how}");
            let text_before = damage(&path, how);
            let before = look(&path);
            let filters = || !scene.leaves(&Frame::udp6(VM, PEER, 1, 2));
            // Others are bound, changed, put back and unbound, and listed.
            scene.bind(Station::Vnet1, "test", &[]).unwrap();
            scene.bind(Station::Peer, "clean-traffic", &[("IP", "10.2.3.9")]).unwrap();
            let list = scene.list();
            valid("bindings", &list);
            let named = |list: &Value, member: &str| -> Vec<String> {
                let all = list[member].as_array().unwrap();
                all.iter().map(|one| one["port"].as_str().unwrap().to_owned()).collect()
            };
            assert_eq!(named(&list, "bindings"), ["peer0", "vnet1"]);
            assert_eq!(named(&list, "damaged"), ["vnet0"]);
            assert!(list["damaged"][0]["error"].as_str().unwrap().contains(why), "{list}");
            let table = scene.nwfilter(&["binding-list"]);
            let shown = text(&table.stdout);
            assert!(shown.lines().any(|l| l.contains("vnet0") && l.contains("damaged")), "{shown}");
            assert!(text(&table.stderr).contains(why), "{}", text(&table.stderr));
            scene.define("test", &format!("{RULE}<!-- again -->")).unwrap();
            assert!(reload(&scene.sandbox).contains("vnet0.json"));
            scene.unbind(Station::Peer);
            scene.unbind(Station::Vnet1);
            assert!(filters(), "the last of the others opened the port");
            // A verb that needs the file reports why it cannot use it.
            let binding = scene.binding(Station::Vnet0, "test", &[]);
            for args in [
                vec!["binding-create", &binding],
                vec!["binding-delete", "vnet0"],
                vec!["binding-dumpxml", "vnet0"],
            ] {
                if how == "no binding" && args[0] != "binding-dumpxml" {
                    continue;
                }
                let said = done(scene.nwfilter(&args)).unwrap_err();
                assert!(said.contains(why) && said.contains("vnet0.json"), "{args:?}: {said}");
                assert_eq!(said.lines().count(), 1, "{said}");
            }
            assert_eq!(look(&path), before);
            assert!(filters());
            mend(&path, &text_before);
        }
        scene.unbind(Station::Vnet0);
        assert!(scene.leaves(&Frame::udp6(VM, PEER, 1, 2)));
    }
}

/// Defines a network; returns its name.
fn network(sandbox: &Sandbox, name: &str, number: u8) {
    let xml = format!(
        "<network><name>{name}</name><bridge name='nlt{number}'/><forward mode='nat'/>\
         <ip address='10.97.{number}.1' prefix='24'/></network>"
    );
    let file: PathBuf = sandbox.path("network.xml");
    fs::write(&file, xml).unwrap();
    sandbox.good(&["network", "define", &file.to_string_lossy()]);
}

#[test]
fn a_damaged_status_of_a_network_stops_that_network_alone() {
    if !have_root("a_damaged_status_of_a_network_stops_that_network_alone") {
        return;
    }
    let scene = PortScene::new(None);
    let sandbox = &scene.sandbox;
    fs::write(sandbox.path("config/network.conf"), "firewall_backend = \"nftables\"\n").unwrap();
    network(sandbox, "lab", 1);
    network(sandbox, "web", 2);
    sandbox.good(&["network", "start", "lab"]);
    let path = sandbox.path("state/networks/lab/status.json");
    let rules = || scene.ruleset().contains("nlt1");
    for (how, why) in DAMAGES.into_iter().filter(|(how, _)| *how != "no binding") {
        println!("{how}");
        let text_before = damage(&path, how);
        let before = look(&path);
        sandbox.good(&["network", "start", "web"]);
        reload(sandbox);
        let list: Value =
            serde_json::from_str(&sandbox.good(&["network", "list", "--json"])).unwrap();
        valid("networks", &list);
        let of = |name: &str| {
            let all = list["networks"].as_array().unwrap();
            all.iter().find(|network| network["name"] == name).unwrap().clone()
        };
        assert_eq!(of("web")["state"], "active");
        assert_eq!(of("lab")["state"], "unknown");
        assert!(of("lab")["error"].as_str().unwrap().contains(why), "{list}");
        sandbox.good(&["network", "destroy", "web"]);
        assert!(rules(), "{how}: the end of another network took its rules");
        for verb in ["start", "destroy", "undefine"] {
            let output = finish(sandbox.netlaunch(&["network", verb, "lab"]));
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{verb}: {said}");
            assert!(said.contains(why) && said.contains("lab/status.json"), "{verb}: {said}");
        }
        assert_eq!(look(&path), before);
        mend(&path, &text_before);
    }
    sandbox.good(&["network", "destroy", "lab"]);
    assert!(!rules());
}
