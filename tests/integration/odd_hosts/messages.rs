//! Messages for programs, and with -v; the commands of the README.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::scene::{Scene, launched};
use crate::common::{As, Sandbox, finish, have_root, text};

#[test]
fn messages_for_programs_cover_mistakes_and_have_the_events_of_a_launch() {
    if !have_root("messages_for_programs_cover_mistakes_and_have_the_events_of_a_launch") {
        return;
    }
    let scene = Scene::new(As::User);
    let lines = |output: &Output| -> Vec<Value> {
        let said = text(&output.stderr);
        let own = said.lines().filter(|line| !line.starts_with("qemu"));
        own.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {said}")))
            .collect()
    };
    for words in [
        &["--log-format", "json", "--bakend", "x"][..],
        &["--log-format=json", "-p", "0"],
        &["network", "start", "--log-format", "json"],
        &["probe", "x", "--log-format=json"],
    ] {
        let output = finish(scene.sandbox.netlaunch(words));
        let lines = lines(&output);
        assert_eq!((output.status.code(), lines.len()), (Some(2), 1), "{words:?}");
        assert_eq!(lines[0]["level"], "error", "{words:?}");
    }
    let said = text(&finish(scene.sandbox.netlaunch(&["--bakend", "x"])).stderr);
    assert!(said.starts_with("netlaunch: error: unknown option --bakend"), "{said}");

    let options = "--log-format json --backend passt -p 28022:22 -p 28080-28081:80/udp";
    let output = finish(scene.launch("", options));
    let lines = lines(&output);
    let events: Vec<&Value> =
        lines.iter().map(|line| &line["fields"]).filter(|f| !f["event"].is_null()).collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let expected = ["backend-chosen", "port-published", "port-published", "ready", "exit"];
    assert_eq!(names, expected, "{lines:#?}");
    assert_eq!((&events[0]["backend"], &events[0]["transport"]), (&"passt".into(), &"unix".into()));
    for (name, value) in [("port", 28080), ("last_port", 28081), ("guest_port", 80)] {
        assert_eq!(events[2][name], value, "{name}");
    }
    assert_eq!(
        (&events[2]["address"], &events[2]["protocol"]),
        (&"127.0.0.1".into(), &"udp".into())
    );
    assert!(events[3]["qemu_pid"].is_number() && events[3]["passt_pid"].is_number());
    assert_eq!(events[4]["status"], 1);
    // As text they are for -v.
    let said = launched(&finish(scene.launch("", "--backend passt")));
    assert_eq!(said.matches("netlaunch: ").count(), 0, "{said}");
}

#[test]
fn verbose_and_the_manual_say_that_published_ports_wait_for_the_guest() {
    if !have_root("verbose_and_the_manual_say_that_published_ports_wait_for_the_guest") {
        return;
    }
    let scene = Scene::new(As::Root);
    let said = launched(&finish(scene.launch("", "-v --backend passt -p 28023:22")));
    assert!(said.contains("published ports answer from the guest's first packet on"), "{said}");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/netlaunch.1");
    let page = fs::read_to_string(page).unwrap().replace('\n', " ");
    assert!(page.contains("ends on passt until the guest has sent its first packet"));
}

#[test]
fn verbose_says_what_commands_decide_run_and_write() {
    if !have_root("verbose_says_what_commands_decide_run_and_write") {
        return;
    }
    let scene = Scene::new(As::Root);
    let files = scene.dir("files", 0o755);
    let net = files.join("net.xml");
    fs::write(
        &net,
        "<network><name>talk</name><forward mode='nat'/><bridge name='nlodd1'/>\
         <ip address='192.168.98.1' netmask='255.255.255.0'/></network>",
    )
    .unwrap();
    let run = |words: &[&str]| {
        let output = finish(scene.sandbox.netlaunch(words));
        let said = text(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        said
    };
    let said = run(&["-v", "network", "define", net.to_str().unwrap()]);
    assert!(said.contains("debug: writes ") && said.contains("networks/talk.xml"), "{said}");
    let said = run(&["-v", "network", "start", "talk"]);
    for words in ["firewall backend", "the settings name none", "1 added", "status.json"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("trace:"), "{said}");
    let binding = files.join("binding.xml");
    fs::write(
        &binding,
        "<filterbinding><portdev name='nlodd2'/><mac address='52:54:00:00:00:09'/>\
         <filterref filter='no-mac-spoofing'/></filterbinding>",
    )
    .unwrap();
    scene.netns.ip("tuntap add dev nlodd2 mode tap");
    scene.netns.ip("link set dev nlodd2 master nlodd1");
    let said = run(&["-vv", "nwfilter", "binding-create", binding.to_str().unwrap()]);
    for words in ["the rules of nlodd2 are in nftables", "runs /", "its input: ", "nlodd2.json"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    for line in ["network list", "network dumpxml talk", "nwfilter list", "nwfilter binding-list"] {
        let words: Vec<&str> = ["-v"].into_iter().chain(line.split(' ')).collect();
        assert!(run(&words).contains("debug: definitions are read below "), "{line}");
    }
    let said = run(&["-vv", "network", "destroy", "--force", "talk"]);
    assert!(said.contains("trace: runs /") && said.contains("1 removed"), "{said}");
}

#[test]
fn the_readmes_install_commands_work_in_a_new_home() {
    if !have_root("the_readmes_install_commands_work_in_a_new_home") {
        return;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(source.join("README.md")).unwrap();
    let block = readme.split("## Building").nth(1).unwrap().split("```").nth(1).unwrap();
    let lines: Vec<&str> = block.lines().filter(|line| line.contains("~/.local")).collect();
    assert!(lines.len() >= 4, "{block}");
    let sandbox = Sandbox::new(As::User, None);
    // The result of `cargo build --release`, and the manual pages.
    let place = sandbox.path("source");
    fs::create_dir_all(place.join("target/release")).unwrap();
    fs::copy(sandbox.path("bin/netlaunch"), place.join("target/release/netlaunch")).unwrap();
    fs::create_dir(place.join("man")).unwrap();
    for page in fs::read_dir(source.join("man")).unwrap() {
        let page = page.unwrap();
        fs::copy(page.path(), place.join("man").join(page.file_name())).unwrap();
    }
    let mut command = sandbox.program(Path::new("sh"));
    command.args(["-ec", &lines.join("\n")]).current_dir(&place);
    let output = finish(command);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let home = sandbox.path("home/.local");
    for file in ["bin/netlaunch", "share/man/man1/netlaunch.1", "share/man/man5/netlaunch.conf.5"] {
        assert!(home.join(file).exists(), "{file}");
    }
    let script = home.join("share/bash-completion/completions/netlaunch");
    assert!(fs::metadata(&script).unwrap().len() > 1000);
    let mut check = Command::new("bash");
    check.arg("-n").arg(&script).stderr(Stdio::piped()).stdout(Stdio::piped());
    assert!(finish(check).status.success());
}
