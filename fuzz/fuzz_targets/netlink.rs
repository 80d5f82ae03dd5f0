//! Reads any bytes as a datagram of nfnetlink: chains, rules, elements of maps, and traced frames.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| netlaunch::fuzz::netlink(bytes));
