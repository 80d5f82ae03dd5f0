//! Reads any bytes as messages of D-Bus, whole and in two parts, and as the address of a bus.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| netlaunch::fuzz::dbus(bytes));
