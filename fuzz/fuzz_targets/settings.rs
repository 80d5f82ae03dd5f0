//! Reads any bytes as the three settings files, and as a file of arguments.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| netlaunch::fuzz::settings(bytes));
