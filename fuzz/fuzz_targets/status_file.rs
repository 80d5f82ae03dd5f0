//! Reads any bytes as the status files of ports, networks and launches, as saved leases, as the
//! guard of ports and as the cache of probe results. A written status is read as the same status.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| netlaunch::fuzz::status_file(bytes));
