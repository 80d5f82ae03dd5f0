//! Tests the files for packages: their versions agree, and `make install` installs every file that
//! the tree has for users, with the paths of the prefix. tests/packages/run tries the packages.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::tree::files_below;

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the names of the files of a directory of the tree that end with `suffix`.
fn names(dir: &str, suffix: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(source(dir)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let found: BTreeSet<String> = names.filter(|name| name.ends_with(suffix)).collect();
    assert!(!found.is_empty(), "{dir} has no file that ends with {suffix}");
    found
}

/// Returns the files below a directory, as paths from it on.
fn files(dir: &Path) -> BTreeSet<String> {
    let name = |path: &PathBuf| path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
    files_below(dir).iter().map(name).collect()
}

/// Runs a target of the Makefile with the program of the tests and without a build.
fn make(target: &str, root: &Path, variables: &[&str]) {
    let notices = root.with_extension("notices").join("NOTICES");
    fs::create_dir_all(notices.parent().unwrap()).unwrap();
    fs::write(&notices, "licences\n").unwrap();
    let mut command = Command::new("make");
    command.arg("-C").arg(source("")).arg(target).args(variables);
    command.arg(format!("DESTDIR={}", root.display()));
    command.arg(format!("PROGRAM={}", env!("CARGO_BIN_EXE_netlaunch")));
    command.arg(format!("NOTICES={}", notices.display())).env_remove("MAKEFLAGS");
    let output = command.output().unwrap_or_else(|error| panic!("make: {error} (./tests/setup)"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_package_has_the_version_of_the_crate() {
    let version = env!("CARGO_PKG_VERSION");
    let debian = read(&source("debian/changelog"));
    assert!(debian.starts_with(&format!("netlaunch ({version}) ")), "{debian}");
    let spec = read(&source("packaging/netlaunch.spec"));
    let lines: Vec<Vec<&str>> = spec.lines().map(|l| l.split_whitespace().collect()).collect();
    assert!(lines.contains(&vec!["Version:", version]), "{version}");
    assert!(spec.contains(&format!("> - {version}-1\n")), "the changelog of the spec");
}

#[test]
fn make_install_installs_every_file_for_users() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    make("install-program", &root, &["PREFIX=/usr"]);
    let installed = files(&root);
    let mut expected: BTreeSet<String> = [
        "usr/bin/netlaunch",
        "usr/share/bash-completion/completions/netlaunch",
        "usr/share/zsh/site-functions/_netlaunch",
        "usr/share/fish/vendor_completions.d/netlaunch.fish",
    ]
    .map(String::from)
    .into();
    for (from, suffix, to) in [
        ("man", ".1", "usr/share/man/man1"),
        ("man", ".5", "usr/share/man/man5"),
        ("conf", ".service", "usr/lib/systemd/system"),
        ("conf", ".conf", "etc/netlaunch"),
        ("conf/schema", ".json", "usr/share/netlaunch/schema"),
        ("conf/firewalld/zones", ".xml", "usr/lib/firewalld/zones"),
        ("conf/firewalld/policies", ".xml", "usr/lib/firewalld/policies"),
        ("conf/apparmor", "netlaunch", "etc/apparmor.d"),
    ] {
        expected.extend(names(from, suffix).iter().map(|name| format!("{to}/{name}")));
    }
    let document = |path: &&String| path.starts_with("usr/share/doc/netlaunch/");
    assert_eq!(installed.iter().filter(document).count(), 5, "{installed:?}");
    let others: BTreeSet<String> = installed.iter().filter(|p| !document(p)).cloned().collect();
    assert_eq!(others, expected);
}

#[test]
fn an_installation_below_another_prefix_refers_to_that_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    make("install-program", &root, &["PREFIX=/opt/net"]);
    for unit in names("conf", ".service") {
        let text = read(&root.join("opt/net/lib/systemd/system").join(&unit));
        assert!(!text.contains("/usr/bin/netlaunch"), "{unit}: {text}");
        assert!(text.contains("=/opt/net/bin/netlaunch "), "{unit}: {text}");
    }
    let profile = read(&root.join("etc/apparmor.d/netlaunch"));
    assert!(profile.contains("  /opt/net/bin/netlaunch ix,\n"), "{profile}");
    // firewalld reads no directory below another prefix.
    assert!(root.join("etc/firewalld/zones/netlaunch.xml").exists());
}

#[test]
fn changed_settings_survive_an_installation_and_an_uninstallation() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    make("install-program", &root, &[]);
    let settings = root.join("etc/netlaunch/netlaunch.conf");
    fs::write(&settings, "backend = \"slirp\"\n").unwrap();
    make("install-program", &root, &[]);
    assert_eq!(read(&settings), "backend = \"slirp\"\n");
    make("uninstall", &root, &[]);
    let left = files(&root);
    let expected = names("conf", ".conf").iter().map(|n| format!("etc/netlaunch/{n}")).collect();
    assert_eq!(left, expected);
    assert_eq!(read(&settings), "backend = \"slirp\"\n");
}
