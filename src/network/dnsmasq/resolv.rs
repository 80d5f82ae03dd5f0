//! Checks whether the host has DNS servers that dnsmasq can ask.
//!
//! dnsmasq starts without servers, and refuses queries that it cannot answer itself until
//! /etc/resolv.conf names a server, which it notices. It reports this only in its log.

use crate::types::error_text;
use std::fs;
use std::path::Path;

/// Returns the reason why this file, usually /etc/resolv.conf, names no server; `None` if it names
/// one.
pub fn without_servers(file: &Path) -> Option<String> {
    let shown = file.display();
    match fs::read_to_string(file) {
        Ok(text) => {
            let is_server = |line: &str| {
                let mut words = line.split_ascii_whitespace();
                words.next() == Some("nameserver") && words.next().is_some()
            };
            (!text.lines().any(is_server)).then(|| format!("{shown} names no nameserver"))
        }
        Err(error) => match fs::read_link(file) {
            Ok(to) if error.kind() == std::io::ErrorKind::NotFound => {
                Some(format!("{shown} is a link to {}, which does not exist", to.display()))
            }
            _ => Some(format!("{shown} cannot be read: {}", error_text(&error))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dangling_link_and_a_file_without_servers_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        assert!(without_servers(&file).unwrap().contains("cannot be read"));
        std::os::unix::fs::symlink("/nonexistent/stub", &file).unwrap();
        let why = without_servers(&file).unwrap();
        assert!(why.ends_with("is a link to /nonexistent/stub, which does not exist"), "{why}");
        fs::remove_file(&file).unwrap();
        fs::write(&file, "search example.org\n#nameserver 192.0.2.1\n").unwrap();
        assert!(without_servers(&file).unwrap().ends_with("names no nameserver"));
        fs::write(&file, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(without_servers(&file), None);
    }
}
