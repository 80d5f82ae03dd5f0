//! Tests that definitions of filters belong to their user: root and an ordinary user do not disturb
//! each other.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{USER, finish, have_root, text, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The limit for each expected event.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `netlaunch nwfilter` as an ordinary user whose configuration directory is this.
fn as_user(scene: &PortScene, config: &Path, args: &[&str]) -> Output {
    let mut command = scene.sandbox.program(Path::new("setpriv"));
    command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups"]);
    command.args(["--inh-caps=-all", "--bounding-set=-all"]);
    command.arg(scene.sandbox.path("bin/netlaunch")).arg("nwfilter").args(args);
    command.env("NETLAUNCH_CONFIG_DIR", config);
    finish(command)
}

fn document(scene: &PortScene, name: &str, rule: &str) -> String {
    let file = scene.sandbox.path("user.xml");
    fs::write(&file, format!("<filter name='{name}'>{rule}</filter>\n")).unwrap();
    file.to_str().unwrap().to_owned()
}

const TELNET: &str = "<rule action='drop' direction='out'><tcp dstportstart='23'/></rule>";

#[test]
fn an_ordinary_user_has_definitions_of_its_own() {
    if !have_root("an_ordinary_user_has_definitions_of_its_own") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    scene.filter("<filterref filter='no-mac-spoofing'/>").unwrap();
    let rules = scene.ruleset();
    let own = scene.sandbox.path("own");
    fs::create_dir(&own).unwrap();
    chown(&own, Some(USER), Some(USER)).unwrap();
    // Names that root's port uses are none of it.
    for name in ["mine", "test", "no-mac-spoofing"] {
        let file = document(&scene, name, TELNET);
        done(as_user(&scene, &own, &["define", &file])).unwrap();
        let dumped = as_user(&scene, &own, &["dumpxml", name]);
        assert!(text(&dumped.stdout).contains("dstportstart='23'"), "{}", text(&dumped.stderr));
        done(as_user(&scene, &own, &["undefine", name])).unwrap();
    }
    assert_eq!(scene.ruleset(), rules);
    done(finish(scene.sandbox.netlaunch(&["firewall", "reload"]))).unwrap();
    assert_eq!(scene.ruleset(), rules);
}

/// A command of a user that may not learn addresses of root's ports starts no learner for them, and
/// does not report that.
#[test]
fn a_command_of_a_user_does_not_touch_the_ports_of_root() {
    if !have_root("a_command_of_a_user_does_not_touch_the_ports_of_root") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    scene.bind(Station::Vnet0, "clean-traffic", &[]).unwrap();
    let own = scene.sandbox.path("own");
    fs::create_dir(&own).unwrap();
    chown(&own, Some(USER), Some(USER)).unwrap();
    let says = |rule: &str| {
        let file = document(&scene, "mine", rule);
        let output = as_user(&scene, &own, &["define", &file]);
        let said = text(&output.stderr);
        assert!(output.status.success() && said.lines().count() == 1, "{said}");
        assert!(said.contains("the filter mine is defined in"), "{said}");
    };
    says(TELNET);
    // Nor if its learner has ended.
    let pid = || scene.list()["bindings"][0]["learning"]["pid"].as_i64();
    kill(Pid::from_raw(pid().unwrap() as i32), Signal::SIGKILL).unwrap();
    assert!(wait_until(LIMIT, || pid().is_none()));
    says("");
    scene.define("unrelated", "").unwrap();
    assert!(wait_until(LIMIT, || pid().is_some()), "root's next command does");
}

/// A user who may write the definitions of root's ports cannot change their rules: definition and
/// rules change together.
#[test]
fn a_user_cannot_change_definitions_that_ports_of_root_use() {
    if !have_root("a_user_cannot_change_definitions_that_ports_of_root_use") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    scene.filter("<filterref filter='no-mac-spoofing'/>").unwrap();
    let config = scene.sandbox.path("config");
    let definitions = config.join("nwfilter");
    for entry in fs::read_dir(&definitions).unwrap() {
        fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o666)).unwrap();
    }
    fs::set_permissions(&definitions, fs::Permissions::from_mode(0o777)).unwrap();
    // By another name, too.
    let link = scene.sandbox.path("link");
    std::os::unix::fs::symlink(&config, &link).unwrap();
    let before = fs::read_to_string(definitions.join("test.xml")).unwrap();
    for config in [&config, &link] {
        let file = document(&scene, "test", TELNET);
        for args in [&["define", &file][..], &["undefine", "test"]] {
            let output = as_user(&scene, config, args);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{args:?}: {said}");
            assert!(said.contains("bindings") && said.lines().count() == 1, "{said}");
        }
        assert_eq!(fs::read_to_string(definitions.join("test.xml")).unwrap(), before);
    }
    // Where no port uses any of them they belong to their user, if no other user can write them.
    scene.unbind(Station::Vnet0);
    let entries = fs::read_dir(&definitions).unwrap().map(|entry| entry.unwrap().path());
    for path in entries.chain([definitions.clone()]) {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(USER), Some(USER)).unwrap();
    }
    let file = document(&scene, "test", TELNET);
    done(as_user(&scene, &link, &["define", &file])).unwrap();
}
