//! Checks the parsers of foreign bytes for the fuzz targets in `fuzz/`.
//!
//! A function of this module takes any bytes, gives them to all parsers of one kind, and checks
//! each result: a written value is read back as the same value, an error has one line, a result is
//! not larger than its input. It panics if one of these does not hold. The parsers are private, so
//! the checks are in the library, behind the feature `fuzz`. The ordinary tests run each check on
//! its seeds in `fuzz/seeds/`.
//!
//! The targets that need only public functions are complete in `fuzz/fuzz_targets/`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a finding is a panic")]

use std::fmt::{Debug, Display};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::config_error::ConfigMistake;
use crate::cli::{args_file, config, network_config, nwfilter_config};
pub use crate::firewall::fuzz::{dbus, listings, netlink};
use crate::launcher::probe;
use crate::launcher::record::Record;
use crate::network::dnsmasq::lease_file::LeaseFile as DnsmasqLeases;
use crate::network::dnsmasq::port_user;
use crate::network::manager::NetworkStatus;
use crate::nwfilter::Binding;
use crate::nwfilter::learn::lease::LeaseFile;
use crate::nwfilter::learn::{BootTime, Clock, UnixTime};
use crate::nwfilter::port::{PortGuard, PortStatus};
use crate::sys::netlink::guest_tap::TapHome;
use crate::sys::state_file::parse_version;
use crate::types::split_words;

/// Checks the parsers of the settings files and of a file of arguments.
pub fn settings(bytes: &[u8]) {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
    let is_place = |(line, column): (usize, usize)| {
        (1..=lines).contains(&line) && (1..=bytes.len() + 1).contains(&column)
    };
    let mistake = |mistake: ConfigMistake| {
        in_one_line(&mistake);
        assert!(mistake.position.is_none_or(is_place), "{:?}", mistake.position);
    };
    let _ = config::parse(bytes).map_err(mistake);
    let _ = network_config::parse(bytes).map_err(mistake);
    match nwfilter_config::parse(bytes) {
        Err(error) => mistake(error),
        Ok(config) => assert!(config.watch.iter().all(|rule| is_place(rule.place))),
    }
    if let Ok(words) = args_file::split(bytes, Path::new("f")) {
        let words: Vec<String> =
            words.into_iter().map(|word| word.into_string().unwrap()).collect();
        assert_eq!(split_words(&shell_words::join(&words)), Some(words));
    }
}

/// Checks the parsers of the files about running ports, networks and launches.
pub fn status_file(bytes: &[u8]) {
    let status: Option<PortStatus> = read_again(bytes);
    if let Some(status) = status {
        let _ = Binding::parse(status.xml.as_bytes()).map_err(|error| in_one_line(&error));
    }
    let network: Option<NetworkStatus> = read_again(bytes);
    network.map(|network| network.network());
    let _: Option<Record> = read_again(bytes);
    let _: Option<PortGuard> = read_again(bytes);
    let _: Option<TapHome> = serde_json::from_slice(bytes).ok();
    let boot_id = || Some("3e3fce45-4f53-4fa7-bb32-11f34168b82b".to_owned());
    let clock = Clock { boot: BootTime(1000), wall: UnixTime(1_790_000_000), boot_id: boot_id() };
    let leases = read_again(bytes).and_then(|file: LeaseFile| file.into_saved(&clock));
    if let Some(saved) = leases {
        let written = serde_json::to_vec(&LeaseFile::new(&saved, &clock)).unwrap();
        let again = parse_version::<LeaseFile>(Path::new("f"), &written, 1).unwrap().unwrap();
        assert_eq!(again.into_saved(&clock), Some(saved));
    }
    probe::fuzz::cache(bytes);
}

/// Checks the parsers of the outputs of other programs, and of dnsmasq's leases.
pub fn outputs(bytes: &[u8]) {
    probe::fuzz::outputs(bytes);
    let DnsmasqLeases { leases, damaged, .. } = DnsmasqLeases::parse(bytes);
    let lines = bytes.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"duid "));
    assert_eq!(leases.len() + damaged, lines.count());
    for client in leases.iter().filter_map(|lease| lease.client.as_ref()) {
        assert!(client.octets().len() <= 255);
    }
}

/// Checks the parsers of the kernel's files below /proc, of resolv.conf(5), and of the profiles of
/// AppArmor.
pub fn proc_files(bytes: &[u8]) {
    probe::fuzz::proc_files(bytes);
    for line in String::from_utf8_lossy(bytes).lines() {
        for is_tcp in [true, false] {
            port_user::socket(line, is_tcp);
        }
    }
}

/// Reads a status file of version 1, writes it, and reads it again.
///
/// # Panics
/// Panics if the second text differs from the first one.
fn read_again<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Option<T> {
    let read = |text: &[u8]| parse_version::<T>(Path::new("f"), text, 1);
    let status = read(bytes).ok().flatten()?;
    let written = serde_json::to_string(&status).unwrap();
    let again = serde_json::to_string(&read(written.as_bytes()).unwrap().unwrap()).unwrap();
    assert_eq!(again, written);
    Some(status)
}

/// Checks that a message for the user is one line.
///
/// # Panics
/// Panics if the text is empty or has control characters.
pub(crate) fn in_one_line(text: &dyn Display) {
    let text = text.to_string();
    assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
}

/// Parses a written value again.
///
/// # Panics
/// Panics if the parser returns another value.
pub(crate) fn comes_back<T: PartialEq + Debug>(value: &T, parsed: &T, written: &dyn Debug) {
    assert_eq!(parsed, value, "{written:?}");
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_check_passes_on_its_seeds() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        for (target, check) in [
            ("dbus", dbus as fn(&[u8])),
            ("listings", listings),
            ("netlink", netlink),
            ("outputs", outputs),
            ("proc_files", proc_files),
            ("settings", settings),
            ("status_file", status_file),
        ] {
            let files: Vec<_> = fs::read_dir(seeds.join(target)).unwrap().flatten().collect();
            assert!(!files.is_empty(), "{target} has no seeds");
            for file in files {
                eprintln!("{}", file.path().display());
                check(&fs::read(file.path()).unwrap());
            }
        }
    }
}
