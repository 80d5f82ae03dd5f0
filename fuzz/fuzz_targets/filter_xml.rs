//! Parses any bytes as a network filter.

#![no_main]

use libfuzzer_sys::fuzz_target;
use netlaunch_fuzz::check_filter;

fuzz_target!(|bytes: &[u8]| check_filter(bytes));
