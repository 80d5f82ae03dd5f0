//! Checks the parsers of the outputs of QEMU, passt and virsh, and of the kernel's files below
//! /proc (see [`crate::fuzz`]).

#![allow(clippy::unwrap_used, reason = "a finding is a panic")]

use std::path::Path;

use super::{apparmor, cache, features, first_line, host, libvirt, machine, passt, qemu};
use crate::fuzz::comes_back;
use crate::launcher::passt_failure::failure_lines;
use crate::launcher::qmp::Message;
use crate::launcher::serving::listening;
use crate::sys::file_pages::read_only_file;
use crate::sys::transient_user::parse_map;
use crate::types::name_servers;

/// The longest reason in bytes that a message repeats, with its quotes and dots.
const LONGEST_REASON: usize = 310;
/// The longest first line of a program's output, in characters.
const LONGEST_LINE: usize = 120;

/// Checks the parsers of the outputs of QEMU, passt and virsh.
pub(crate) fn outputs(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let options = passt::options(&text);
    let help = |(name, takes): (&String, &bool)| {
        format!("  --{name}{}\ttext\n", if *takes { " NAME" } else { "" })
    };
    let written: String = options.iter().map(help).collect();
    comes_back(&options, &passt::options(&written), &written);
    let types = qemu::types(&text);
    let written: String = types.iter().map(|name| format!("{name}\n")).collect();
    comes_back(&types, &qemu::types(&written), &written);
    let reason = failure_lines(&text);
    assert!((1..=LONGEST_REASON).contains(&reason.len()), "{reason}");
    let line = first_line(&text);
    assert!(line.is_none_or(|line| (1..=LONGEST_LINE).contains(&line.chars().count())));
    features::read(bytes);
    machine::read(bytes);
    libvirt::backends(&text);
    for line in bytes.split(|byte| *byte == b'\n') {
        let _ = serde_json::from_slice::<Message>(line);
    }
}

/// Checks the parsers of the kernel's files below /proc, of resolv.conf(5), and of the profiles of
/// AppArmor.
pub(crate) fn proc_files(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (default, routes) = host::routes_v4(&text);
    for interface in default.iter().chain(&host::routes_v6(&text)) {
        assert!(!interface.is_empty() && interface != "lo");
    }
    for (at, route) in routes.iter().enumerate() {
        assert!(*route == route.trunc() && !routes[..at].contains(route));
    }
    let servers = name_servers(&text);
    let written: String = servers.iter().map(|one| format!("nameserver {one}\n")).collect();
    comes_back(&servers, &name_servers(&written), &written);
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
    assert!(listening(bytes, Path::new("/run/netlaunch/1/passt.sock")).len() <= lines);
    let ranges = parse_map(&text);
    assert!(ranges.len() <= lines && ranges.iter().all(|ids| ids.start() <= ids.end()));
    for profile in apparmor::profiles(&text).iter().chain(&apparmor::loaded(&text)) {
        apparmor::glob(&profile.programs, "/usr/lib/passt/passt.avx2");
        // A pattern without wildcards covers its own text.
        let is_plain = !profile.programs.contains(['{', '}', '*', '?']);
        assert!(!is_plain || apparmor::glob(&profile.programs, &profile.programs));
    }
    for line in text.lines() {
        if let Some((start, length)) = read_only_file(line.as_bytes()) {
            assert!(start.get().checked_add(length).is_some());
        }
    }
}

/// Checks the parser of the cache of probe results.
pub(crate) fn cache(bytes: &[u8]) {
    let Ok(entries) = cache::parse(bytes) else { return };
    let write = |entries| serde_json::json!({ "version": cache::VERSION, "entries": entries });
    let written = write(&entries);
    let again = cache::parse(written.to_string().as_bytes()).unwrap();
    assert_eq!(write(&again), written);
}
