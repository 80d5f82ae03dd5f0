//! Tests that only frames which other machines get, too, change the table of IPv6 addresses.

use std::net::Ipv6Addr;
use std::time::Duration;

use netlaunch::nwfilter::learn::table6::TEST_TIME;
use netlaunch::nwfilter::learn::{RefusalReason, Sender};

use super::table6::{Run, any_method};
use super::{ONE, ROUTER_LINK, TWO};
use crate::common::dhcp_frame::{GUEST, OTHER};
use crate::common::nd_frame::NdFrame;

#[test]
fn a_test_in_a_longer_frame_than_its_packet_does_not_count() {
    for bytes in [1, 4, 2000] {
        let long = |frame: NdFrame| [frame.bytes(), vec![0; bytes]].concat();
        let mut run = Run::new(any_method());
        run.table.process_frame(Sender::Guest, &long(NdFrame::test(GUEST, ONE)), run.now);
        assert_eq!(run.table.wake(), None, "{bytes}");
        run.later(TEST_TIME * 2);
        assert!(run.addresses().is_empty(), "{bytes}");
        // A switch may add bytes to the frame of another machine, and hosts ignore them.
        run.guest(&NdFrame::test(GUEST, ONE));
        let answer = long(NdFrame::advertise(OTHER, ONE, ONE, &[]));
        run.table.process_frame(Sender::Network, &answer, run.now);
        run.later(TEST_TIME * 2);
        assert!(run.addresses().is_empty(), "{bytes}");
        assert_eq!(run.refusal(), Some((ONE, RefusalReason::Conflict)));
    }
}

#[test]
fn a_test_that_the_bridge_does_not_forward_does_not_count() {
    let mut run = Run::new(any_method());
    assert!(!run.table.has_test_to_check(run.now));
    run.guest(&NdFrame::test(GUEST, ONE));
    assert!(run.table.has_test_to_check(run.now), "when it begins");
    run.table.check_tests(false);
    assert_eq!(run.refusal(), Some((ONE, RefusalReason::NotForwarded)));
    assert!(!run.table.has_test_to_check(run.now));
    run.later(TEST_TIME * 2);
    assert!(run.addresses().is_empty());

    run.guest(&NdFrame::test(GUEST, ONE));
    run.table.check_tests(true);
    assert!(!run.table.has_test_to_check(run.now));
    let end = run.now + TEST_TIME;
    assert!(!run.table.has_test_to_check(end - Duration::from_millis(1)));
    assert!(run.table.has_test_to_check(end), "when it ends");
    run.table.check_tests(false);
    run.later(TEST_TIME * 2);
    assert!(run.addresses().is_empty());

    run.guest(&NdFrame::test(GUEST, ONE));
    run.table.check_tests(true);
    // A repetition of the test needs no further look.
    run.guest(&NdFrame::test(GUEST, ONE));
    assert!(!run.table.has_test_to_check(run.now));
    run.later(TEST_TIME);
    assert_eq!(run.addresses(), [ONE]);
    // An address that the guest has stays if a later test is not forwarded.
    run.guest(&NdFrame::test(GUEST, ONE));
    run.guest(&NdFrame::test(GUEST, TWO));
    run.table.check_tests(false);
    run.later(TEST_TIME);
    assert_eq!(run.addresses(), [ONE]);
    assert_eq!(run.refusal(), Some((TWO, RefusalReason::NotForwarded)));
}

/// Hosts ignore prefixes of another length (RFC 4862, 5.5.3 d).
#[test]
fn only_prefixes_of_64_bits_set_the_end_of_an_address() {
    let prefix = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
    let advertised = |length, valid| {
        let mut frame = NdFrame::router(OTHER, ROUTER_LINK, prefix, valid);
        // The prefix length of the first option.
        frame.message[18] = length;
        frame
    };
    for length in [0, 48, 56, 63, 65, 96, 127, 128] {
        let mut run = Run::new(any_method());
        run.network(&advertised(length, 4));
        run.network(&advertised(64, 86_400));
        run.guest(&NdFrame::test(GUEST, ONE));
        run.later(TEST_TIME);
        run.network(&advertised(length, 4));
        run.later(Duration::from_secs(80_000));
        assert_eq!(run.addresses(), [ONE], "/{length}");
        run.later(Duration::from_secs(6_400));
        assert!(run.addresses().is_empty(), "/{length}");
    }
}
