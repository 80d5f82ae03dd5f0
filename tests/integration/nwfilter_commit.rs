//! Tests that a definition and the rules of the ports that use it change together, also if the
//! definition's file cannot be written or the first port is bound meanwhile. strace makes fsync(2),
//! which only definitions need, fail or take long.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{AT_MOST, finish, have_root, start, text, wait_until};

const BACKENDS: [&str; 2] = ["nftables", "iptables"];

const OLD: &str = "<filterref filter='no-mac-spoofing'/><filterref filter='no-arp-mac-spoofing'/>";
const NEW: &str = "<rule action='drop' direction='out'><udp dstportstart='7'/></rule>";

/// Defines a filter while strace does this to fsync.
fn define(scene: &PortScene, rules: &str, inject: &str) -> Command {
    let file = scene.sandbox.path("traced.xml");
    fs::write(&file, format!("<filter name='test'>{rules}</filter>\n")).unwrap();
    let mut command = scene.sandbox.program(Path::new("/usr/bin/strace"));
    let log = scene.sandbox.path("run/strace");
    command.args(["-qq", "-e", "trace=fsync", "-e"]).arg(format!("inject=fsync:{inject}:when=1"));
    command.arg("-o").arg(log).arg(scene.sandbox.path("bin/netlaunch"));
    command.args(["nwfilter", "define"]).arg(file);
    command
}

fn status(scene: &PortScene) -> String {
    fs::read_to_string(scene.sandbox.path("state/nwfilter/bindings/vnet0.json")).unwrap()
}

/// A ruleset without regard to the order in which chains were made.
fn sorted(ruleset: &str) -> Vec<&str> {
    let mut lines: Vec<_> = ruleset.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_definition_that_cannot_be_written_leaves_rules_and_statuses_as_they_were() {
    if !have_root("a_definition_that_cannot_be_written_leaves_rules_and_statuses_as_they_were") {
        return;
    }
    for backend in BACKENDS {
        let scene = PortScene::new(Some(backend));
        scene.foreign_rules();
        // The table stays when vnet0 goes.
        scene.define("other", NEW).unwrap();
        scene.bind(Station::Vnet1, "other", &[]).unwrap();
        let before = scene.ruleset();
        scene.filter(OLD).unwrap();
        let (rules, kept) = (scene.ruleset(), status(&scene));
        let output = finish(define(&scene, NEW, "error=EIO"));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{backend}: {said}");
        assert!(said.contains("Input/output error") && said.lines().count() == 1, "{said}");
        assert_eq!(sorted(&scene.ruleset()), sorted(&rules), "{backend}");
        assert_eq!(status(&scene), kept, "{backend}");
        scene.unbind(Station::Vnet0);
        assert_eq!(sorted(&scene.ruleset()), sorted(&before), "{backend}");
    }
}

#[test]
fn the_first_port_has_the_filter_that_is_being_defined() {
    if !have_root("the_first_port_has_the_filter_that_is_being_defined") {
        return;
    }
    for backend in BACKENDS {
        let scene = PortScene::new(Some(backend));
        scene.define("test", OLD).unwrap();
        // As after the host's start.
        let _ = fs::remove_dir_all(scene.sandbox.path("state/nwfilter"));
        let defining = start(define(&scene, NEW, "delay_enter=1500000"));
        let begun = || {
            let entries = fs::read_dir(scene.sandbox.path("config/nwfilter")).unwrap().flatten();
            entries.into_iter().any(|e| e.file_name().to_string_lossy().starts_with(".new-"))
        };
        assert!(wait_until(AT_MOST, begun));
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        done(defining.output(Duration::from_secs(20))).unwrap();
        let rules = scene.ruleset();
        done(finish(scene.sandbox.netlaunch(&["firewall", "reload"]))).unwrap();
        assert_eq!(sorted(&rules), sorted(&scene.ruleset()), "{backend}");
    }
}
