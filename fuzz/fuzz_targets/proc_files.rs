//! Reads any bytes as the files of the kernel below /proc, and as resolv.conf.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| netlaunch::fuzz::proc_files(bytes));
