//! Reads any bytes as the output of iptables-save, ebtables-save and nft. A change from a state to
//! itself is empty, and a change touches only the chains of netlaunch.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| netlaunch::fuzz::listings(bytes));
