//! Tests the systemd units: systemd accepts each, and none is more exposed than its row below says.
//! tests/packages/booted runs them within these limits.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::{skipped, text};

/// The highest exposure level (systemd-analyze(1), security) of each unit, in tenths, and
/// the reasons for it. systemd 252 counts a little more than systemd 257.
const ACCEPTED: [(&str, u32, &str); 4] = [
    (
        "netlaunch-firewalld.service",
        60,
        "root in the network of the host, with the capabilities for links, firewall rules, network \
         namespaces and modules, and for a dnsmasq that changes its user",
    ),
    (
        "netlaunch-networks.service",
        60,
        "root in the network of the host, with the capabilities for links, firewall rules, network \
         namespaces and modules, and for a dnsmasq that changes its user",
    ),
    (
        "netlaunch-nwfilter.service",
        51,
        "root in the network of the host, with packet sockets, and the capabilities for firewall \
         rules and modules",
    ),
    (
        "netlaunch@.service",
        79,
        "a guest may need devices, files of any directory, huge pages, locked memory, memory with \
         code, VFIO, another user and namespaces (passt, virtiofsd)",
    ),
];

/// Copies the units of the tree to a directory, with a program that exists; a template becomes an
/// instance of it.
fn units(dir: &Path) -> Vec<(String, PathBuf)> {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut units = Vec::new();
    for entry in fs::read_dir(conf).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "service") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let unit = fs::read_to_string(&path).unwrap();
        let copy = dir.join(name.replace("@.", "@web."));
        fs::write(&copy, unit.replace("/usr/bin/netlaunch", env!("CARGO_BIN_EXE_netlaunch")))
            .unwrap();
        units.push((name, copy));
    }
    units
}

/// Runs systemd-analyze; `None` if it is not installed.
fn analyze(arguments: &[&str], unit: &Path) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).arg(unit).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        output => Some(output.unwrap()),
    }
}

#[test]
fn systemd_accepts_every_unit() {
    let dir = tempfile::tempdir().unwrap();
    for (name, copy) in units(dir.path()) {
        let Some(output) = analyze(&["verify", "--man=no"], &copy) else {
            return skipped("systemd_accepts_every_unit", "systemd-analyze is not installed");
        };
        let said = text(&[output.stdout, output.stderr].concat());
        let about: Vec<&str> = said.lines().filter(|line| line.contains("netlaunch")).collect();
        assert_eq!(about, [] as [&str; 0], "{name}");
    }
}

#[test]
fn no_unit_is_more_exposed_than_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let units = units(dir.path());
    let found: BTreeSet<&str> = units.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(found, ACCEPTED.iter().map(|(name, ..)| *name).collect(), "a row for each unit");
    for (name, copy) in &units {
        let (_, level, reason) = ACCEPTED.iter().find(|(unit, ..)| unit == name).unwrap();
        let threshold = format!("--threshold={level}");
        let arguments = ["security", "--no-pager", "--offline=true", &threshold];
        let Some(output) = analyze(&arguments, copy) else {
            let test = "no_unit_is_more_exposed_than_accepted";
            return skipped(test, "systemd-analyze is not installed");
        };
        let said = text(&[output.stdout, output.stderr].concat());
        if said.contains("Failed to parse offline") || said.contains("unrecognized option") {
            return skipped("no_unit_is_more_exposed_than_accepted", "this systemd is too old");
        }
        assert!(output.status.success(), "{name}: accepted is {level}, for {reason}\n{said}");
    }
}
