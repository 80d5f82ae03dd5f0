//! Tests the commands of `netlaunch network` that do not change the host: definitions, their list,
//! the editor, and the messages about mistakes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::common::definitions::{Host, complaint, err};
use crate::common::have_root;
use crate::common::schema::valid;
use serde_json::Value;

const WEB: &str = "<network>\n  <name>web</name>\n  <forward mode='nat'/>\n  <ip address='10.77.1.1' netmask='255.255.255.0'>\n    <dhcp><range start='10.77.1.2' end='10.77.1.254'/></dhcp>\n  </ip>\n</network>\n";

fn list(host: &Host) -> Vec<Value> {
    let all: Value = serde_json::from_str(&host.good("list --json")).unwrap();
    valid("networks", &all);
    all["networks"].as_array().unwrap().clone()
}

#[test]
fn a_network_can_be_defined_dumped_defined_again_and_undefined() {
    let host = Host::of("network");
    let file = host.file("web.xml", WEB);
    host.good(&format!("define {file}"));
    let first = host.good("dumpxml web");
    for part in ["<uuid>", "<mac address='52:54:00:", "<bridge name='virbr", "start='10.77.1.2'"] {
        assert!(first.contains(part), "{part}: {first}");
    }
    // A redefinition keeps the values that the document leaves out; a dumped document defines the
    // same network; - is standard input.
    host.good(&format!("define {file}"));
    assert_eq!(host.good("dumpxml web"), first);
    let mut command = host.command("define -");
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(first.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(host.good("dumpxml web"), first);

    host.good("undefine web");
    assert!(host.bad("dumpxml web", 2).contains("no network is called web"));
    assert!(host.bad("undefine web", 2).contains("no network is called web"));
    assert!(host.bad("undefine default", 2).contains("is compiled in"));
    assert!(host.good("dumpxml default").contains("<name>default</name>"));
}

#[test]
fn mistakes_have_file_line_and_column() {
    let host = Host::of("network");
    for (text, place) in [
        ("<network>\n  <name>web</name>\n  <nonsense/>\n</network>", "3:3"),
        (WEB.replace("10.77.1.254", "10.78.1.254").as_str(), "5:11"),
        ("<network>", "1:"),
        ("", "1:1"),
    ] {
        let file = host.file("bad.xml", text);
        let line = host.bad(&format!("define {file}"), 2);
        assert!(line.starts_with(&format!("{file}:{place}")), "{line}");
    }
    let line = host.bad("define /nowhere.xml", 2);
    assert!(line.starts_with("/nowhere.xml: No such file"), "{line}");
    assert!(!host.path("config/networks").exists(), "nothing is made for a mistake");

    host.good(&format!("define {}", host.file("web.xml", WEB)));
    let other = host.file("other.xml", &WEB.replace("<name>web", "<name>other"));
    let line = host.bad(&format!("define {other}"), 2);
    assert!(line.starts_with(&format!("{other}:4:3: the subnet 10.77.1.0/24 overlaps")), "{line}");
}

#[test]
fn networks_are_listed_for_people_and_for_programs() {
    let host = Host::of("network");
    let default = &list(&host)[0];
    assert_eq!((&default["name"], &default["state"]), (&"default".into(), &"inactive".into()));
    assert_eq!((&default["mode"], &default["bridge"]), (&"nat".into(), &"virbr0".into()));
    assert_eq!((&default["file"], &default["error"]), (&Value::Null, &Value::Null));

    host.good(&format!("define {}", host.file("web.xml", WEB)));
    host.good("autostart web");
    host.file("config/networks/broken.xml", "<network>");
    let list = list(&host);
    let names: Vec<_> = list.iter().map(|network| network["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["broken", "default", "web"]);
    assert_eq!(list[0]["state"], "broken");
    assert!(list[0]["error"].as_str().unwrap().contains("broken.xml:1:"), "{}", list[0]);
    assert_eq!(list[2]["autostart"], true);
    assert_eq!(Path::new(list[2]["file"].as_str().unwrap()), host.path("config/networks/web.xml"));
    assert_eq!(list[2]["uuid"].as_str().unwrap().len(), 36);

    let output = host.run("list");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let rows: Vec<Vec<_>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "STATE", "AUTOSTART", "BRIDGE", "MODE"]);
    assert_eq!(rows[1], ["broken", "broken", "no", "-", "-"]);
    assert_eq!(rows[2], ["default", "inactive", "no", "virbr0", "nat"]);
    assert_eq!((rows[3][0], rows[3][2], rows[3][4]), ("web", "yes", "nat"));
    assert!(err(&output).contains("broken.xml:1:"), "{}", err(&output));
}

#[test]
fn autostart_can_be_turned_on_and_off() {
    let host = Host::of("network");
    let mark = host.path("config/networks/autostart/default");
    host.good("autostart default");
    assert!(mark.exists());
    host.good("autostart default");
    host.good("autostart default --disable");
    assert!(!mark.exists());
    host.good("autostart default --disable");
    // Nothing is marked any more, so nothing is started.
    assert_eq!(host.good("autostart"), "");
    assert!(host.bad("autostart --disable", 2).contains("NAME"));
    assert!(host.bad("autostart nosuch", 2).contains("no network is called nosuch"));
}

#[test]
fn an_edit_defines_the_network_that_the_editor_saves() {
    let host = Host::of("network");
    host.good(&format!("define {}", host.file("web.xml", WEB)));
    let before = host.good("dumpxml web");

    let output = host.edit("web", "true");
    assert!(output.status.success());
    assert!(err(&output).contains("was not changed"), "{}", err(&output));

    // The command has arguments, quoted as for a shell, and no shell sees it.
    let output = host.edit("web", "sed -i 's/10.77.1.254/10.77.1.99/; s/$(x)/y/'");
    assert!(output.status.success(), "{}", err(&output));
    assert_eq!(host.good("dumpxml web"), before.replace("10.77.1.254", "10.77.1.99"));
    assert!(host.kept().is_empty(), "{:?}", host.kept());

    // VISUAL comes before EDITOR.
    let mut command = host.command("edit web");
    let output = command.env("VISUAL", "true").env("EDITOR", "false").output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
}

#[test]
fn an_edit_of_the_network_that_is_compiled_in_defines_it() {
    let host = Host::of("network");
    let output = host.edit("default", "sed -i s/192.168.122/192.168.123/g");
    assert!(output.status.success(), "{}", err(&output));
    assert!(host.path("config/networks/default.xml").exists());
    assert!(host.good("dumpxml default").contains("192.168.123.1"));
}

#[test]
fn an_edit_with_a_mistake_keeps_the_text() {
    for (editor, text, says) in [
        ("sed -i s/10.77.1.254/10.78.1.254/", "10.78.1.254", ".xml:9:7: 10.78.1.254 is outside"),
        ("sed -i s/<name>web/<name>new/", "<name>new", "cannot be renamed to new"),
        ("sh -c 'echo typed > \"$1\"; exit 3' sh", "typed", "sh failed (exit status: 3)"),
    ] {
        let host = Host::of("network");
        host.good(&format!("define {}", host.file("web.xml", WEB)));
        let before = host.good("dumpxml web");
        let line = complaint(&host.edit("web", editor), if text == "typed" { 125 } else { 2 });
        let kept = host.kept();
        let [kept] = kept.as_slice() else { panic!("{kept:?}: {line}") };
        assert!(line.contains(says), "{line}");
        assert!(line.ends_with(&format!("the text is kept in {}", kept.display())), "{line}");
        assert!(fs::read_to_string(kept).unwrap().contains(text));
        assert_eq!(host.good("dumpxml web"), before);
    }
}

/// Starts an edit whose editor runs `body` and then stays, and waits until it does.
fn long_edit(host: &Host, body: &str) -> std::process::Child {
    host.good(&format!("define {}", host.file("web.xml", WEB)));
    let begun = host.path("begun");
    let script = format!("sh -c '{body}; echo > {}; exec sleep 60' sh", begun.display());
    let mut command = host.command("edit web");
    let child = command.env("EDITOR", script).stderr(Stdio::piped()).spawn().unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !begun.exists() {
        assert!(std::time::Instant::now() < end, "the editor does not run");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child
}

#[test]
fn an_interrupted_edit_leaves_only_the_edited_text() {
    use nix::sys::signal::{Signal, kill};
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        for typed in [false, true] {
            let host = Host::of("network");
            let child = long_edit(&host, if typed { "echo typed > \"$1\"" } else { ":" });
            let before = host.good("dumpxml web");
            kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
            let line = complaint(&child.wait_with_output().unwrap(), 125);
            assert!(line.contains("the editor sh failed (signal: "), "{signal}: {line}");
            assert_eq!(host.good("dumpxml web"), before);
            assert_eq!(host.kept().len(), usize::from(typed), "{signal}: {line}");
            let left = fs::read_dir(host.path("tmp")).unwrap().count();
            assert_eq!(left, usize::from(typed), "{signal}");
        }
    }
}

#[test]
fn a_definition_that_cannot_be_read_is_not_edited() {
    let host = Host::of("network");
    fs::create_dir_all(host.path("config/networks")).unwrap();
    let file = host.file("config/networks/web.xml", "<network>");
    let line = complaint(&host.edit("web", "touch"), 2);
    assert!(line.starts_with(&format!("{file}:1:1: <network> is never closed")), "{line}");
    assert!(line.ends_with("; correct that file, or define the network anew"), "{line}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "<network>");
    assert!(host.kept().is_empty());
    host.good(&format!("define {}", host.file("web.xml", WEB)));
    assert!(host.edit("web", "true").status.success());
}

#[test]
fn an_editor_that_cannot_run_or_fails_is_reported() {
    let host = Host::of("network");
    for (editor, status, says) in [
        ("/nowhere/vi", 125, "the editor /nowhere/vi cannot be run: No such file"),
        ("vi 'x", 125, "is not a command; correct VISUAL or EDITOR"),
        (" ", 125, "is not a command; correct VISUAL or EDITOR"),
        ("false", 125, "the editor false failed (exit status: 1)"),
    ] {
        let line = complaint(&host.edit("default", editor), status);
        assert!(line.contains(says), "{line}");
        assert!(host.kept().is_empty(), "{editor}");
    }
}

#[test]
fn a_mistake_in_network_conf_has_its_place() {
    let host = Host::of("network");
    let file = host.file("config/network.conf", "\nfirewall_backend = \"ufw\"\n");
    let placed = |line: &str| {
        assert!(line.starts_with(&format!("{file}:2:20: firewall_backend cannot be")), "{line}");
    };
    placed(&host.bad("list", 2));
    placed(&host.bad("start default", 2));
    // A verb that needs no driver does not read the driver's settings.
    host.good("dumpxml default");
    placed(&host.also("firewall").bad("reload", 2));
}

#[test]
fn an_inactive_network_cannot_be_destroyed_and_a_reload_without_networks_succeeds() {
    let host = Host::of("network");
    host.bad("destroy default", 2);
    assert!(host.bad("start nosuch", 2).contains("no network is called nosuch"));
    assert_eq!(host.also("firewall").good("reload"), "");
}

/// A status as the driver writes it, of a network that is not really there.
fn pretend(host: &Host, name: &str) {
    let dir = host.path("state/networks").join(name);
    fs::create_dir_all(&dir).unwrap();
    let status = serde_json::json!({
        "version": 1, "name": name, "uuid": "3e3fce45-4f53-4fa7-bb32-11f34168b82b",
        "bridge": "virbr77", "backend": null, "complete": true,
        "xml": host.good(&format!("dumpxml {name}")),
        "links": [], "settings": [], "firewall": null, "dnsmasq": false, "dir": dir,
    });
    fs::write(dir.join("status.json"), status.to_string()).unwrap();
}

#[test]
fn an_active_network_is_not_undefined() {
    let host = Host::of("network");
    let file = host.file("web.xml", WEB);
    host.good(&format!("define {file}"));
    pretend(&host, "web");
    let line = host.bad("undefine web", 2);
    assert_eq!(line, "the network web is active; destroy it first: netlaunch network destroy web");
    assert!(host.path("config/networks/web.xml").exists());
    let web = &list(&host)[1];
    assert_eq!((&web["state"], &web["bridge"]), (&"active".into(), &"virbr77".into()));

    // The same definition again has nothing that waits for the next start.
    let output = host.run(&format!("define {file}"));
    let says = "is active and has the new definition now";
    assert!(err(&output).contains(says), "{}", err(&output));

    // An active network is listed also when its definition has gone.
    fs::remove_file(host.path("config/networks/web.xml")).unwrap();
    let web = &list(&host)[1];
    assert_eq!((&web["state"], &web["mode"]), (&"active".into(), &"nat".into()));
    assert_eq!(web["file"], Value::Null);
}

#[test]
fn a_definition_with_the_name_of_another_active_network_is_undefined() {
    let host = Host::of("network");
    host.good(&format!("define {}", host.file("web.xml", WEB)));
    pretend(&host, "web");
    // An ordinary user's definition has another UUID than the network that root has started.
    let file = host.path("config/networks/web.xml");
    let text = fs::read_to_string(&file).unwrap();
    let at = text.find("<uuid>").unwrap() + "<uuid>".len();
    let uuid = &text[at..at + 36];
    fs::write(&file, text.replace(uuid, "0f8dd1a4-5d5c-4f6a-9d2e-000000000075")).unwrap();
    host.good("undefine web");
    assert!(!file.exists());
}

#[test]
fn a_state_that_cannot_be_read_hides_no_definition() {
    let host = Host::of("network");
    fs::create_dir_all(host.path("state/networks/web")).unwrap();
    host.file("state/networks/web/status.json", "{");
    let output = host.run("list");
    assert!(output.status.success(), "{}", err(&output));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let words: Vec<Vec<&str>> =
        text.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    assert_eq!(words[1..], [["default", "inactive"], ["web", "unknown"]], "{text}");
    assert!(err(&output).contains("status.json is damaged"), "{}", err(&output));
    let web = &list(&host)[1];
    assert_eq!((&web["name"], &web["state"]), (&"web".into(), &"unknown".into()));
    assert!(web["error"].as_str().unwrap().contains("status.json is damaged"), "{web}");
    // A verb that needs the status reports why it cannot have it.
    host.good(&format!("define {}", host.file("web.xml", WEB)));
    assert!(host.bad("undefine web", 125).contains("status.json is damaged"));
}

#[test]
fn a_refusal_names_the_alternative_and_destroy_does_not_advise_to_start() {
    let host = Host::of("network");
    let text =
        "<network><name>n</name><forward mode='private'><interface dev='up0'/></forward></network>";
    let line = host.bad(&format!("define {}", host.file("n.xml", text)), 2);
    assert!(
        line.contains("a launch also puts its guest on a bridge of the host with --bridge IFNAME")
    );
    if have_root("a_refusal_names_the_alternative_and_destroy_does_not_advise_to_start") {
        assert!(host.bad("destroy nosuch", 2).contains("no network is called nosuch"));
        let line = host.bad("destroy default", 2);
        assert_eq!(line, "the network default is not active; there is nothing to destroy");
    }
}

#[test]
fn a_list_that_is_not_for_a_terminal_has_one_line_for_each_network() {
    let host = Host::of("network");
    let name = "n".repeat(64);
    let text = format!("<network><name>{name}</name></network>");
    host.good(&format!("define {}", host.file("n.xml", &text)));
    let listed = host.good("list");
    assert!(listed.lines().any(|line| line.starts_with(&format!("{name} "))), "{listed}");
}
