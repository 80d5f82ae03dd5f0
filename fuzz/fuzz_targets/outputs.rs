//! Reads any bytes as the output of QEMU, passt, virsh and dnsmasq, and as dnsmasq's leases.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| netlaunch::fuzz::outputs(bytes));
