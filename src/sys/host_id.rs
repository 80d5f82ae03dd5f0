//! The identity of this host.

use std::io::Read;

/// The longest identity that is read, in bytes; a machine ID has 32 digits (machine-id(5)).
const MOST: u64 = 256;

/// Returns a text that differs between hosts and stays the same on one: the machine ID, or on a
/// host without one its name. It is not for display: a machine ID must not leave the host
/// (machine-id(5)), so the caller hashes it.
pub(crate) fn host_id() -> Vec<u8> {
    let mut id = Vec::new();
    let read = std::fs::File::open("/etc/machine-id")
        .and_then(|file| file.take(MOST).read_to_end(&mut id));
    match read {
        Ok(_) if !id.trim_ascii().is_empty() => id.trim_ascii().to_vec(),
        _ => nix::unistd::gethostname().map(|name| name.into_encoded_bytes()).unwrap_or_default(),
    }
}
