//! Tests the table of IPv6 addresses.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::{GUEST_LINK, ONE, ROUTER_LINK, TWO, guest};
use crate::common::dhcp_frame::{GUEST, OTHER};
use crate::common::nd_frame::{
    DECLINE6, Dhcp6Frame, NdFrame, RELEASE6, RENEW, REQUEST6, SOLICIT, association, given, option6,
};
use netlaunch::nwfilter::learn::table6::{BETWEEN_ROUNDS, IDLE, MOST_TESTS, TEST_TIME};
use netlaunch::nwfilter::learn::{
    BootTime, Lease6, MOST_ADDRESSES, Method6, RefusalReason, Sender, Source6, Table6,
    UsedAddresses6,
};

const START: Duration = Duration::from_secs(1_000_000);

pub(super) fn any_method() -> Method6 {
    Method6 { by_test: true, servers: Vec::new() }
}

fn dhcp_method() -> Method6 {
    Method6::default()
}

/// A table and its clock.
pub(super) struct Run {
    pub(super) table: Table6,
    pub(super) now: Duration,
}

impl Run {
    pub(super) fn new(method: Method6) -> Self {
        Run { table: Table6::new(method, guest(), UsedAddresses6::default()), now: START }
    }

    pub(super) fn guest(&mut self, frame: &NdFrame) -> bool {
        self.table.process_frame(Sender::Guest, &frame.bytes(), self.now)
    }

    pub(super) fn network(&mut self, frame: &NdFrame) -> bool {
        self.table.process_frame(Sender::Network, &frame.bytes(), self.now)
    }

    /// Moves the clock and returns the addresses for which the table asks.
    pub(super) fn later(&mut self, time: Duration) -> Vec<Ipv6Addr> {
        self.now += time;
        self.table.tick(self.now).probes
    }

    /// The guest tests an address, and no machine answers.
    fn gets(&mut self, address: Ipv6Addr) {
        self.guest(&NdFrame::test(GUEST, address));
        self.later(TEST_TIME);
    }

    pub(super) fn addresses(&self) -> Vec<Ipv6Addr> {
        self.table.leases().iter().map(|lease| lease.address).collect()
    }

    pub(super) fn refusal(&self) -> Option<(Ipv6Addr, RefusalReason)> {
        self.table.refused().map(|refused| (refused.address, refused.reason.clone()))
    }
}

pub(super) fn made_up(number: u128) -> Ipv6Addr {
    (u128::from(ONE) + (1 << 32) + number).into()
}

#[test]
fn a_tested_address_is_learned_when_the_test_ends() {
    let mut run = Run::new(any_method());
    run.guest(&NdFrame::test(GUEST, ONE));
    assert_eq!(run.table.wake(), Some(START + TEST_TIME));
    run.later(TEST_TIME - Duration::from_millis(1));
    assert!(run.addresses().is_empty());
    assert!(run.table.tick(START + TEST_TIME).changed);
    assert_eq!(run.addresses(), [ONE]);
    // A second test of a guest that sends two starts the time again.
    run.guest(&NdFrame::test(GUEST, TWO));
    run.later(TEST_TIME / 2);
    run.guest(&NdFrame::test(GUEST, TWO));
    run.later(TEST_TIME / 2);
    assert_eq!(run.addresses(), [ONE]);
    run.later(TEST_TIME / 2);
    assert_eq!(run.addresses(), [ONE, TWO]);
}

#[test]
fn only_tests_of_this_guest_teach_an_address() {
    let mut run = Run::new(any_method());
    run.guest(&NdFrame::test(OTHER, ONE));
    run.network(&NdFrame::test(GUEST, ONE));
    // Packets and advertisements from an address that the guest did not test.
    run.guest(&NdFrame::advertise(GUEST, ONE, ONE, &[]));
    run.guest(&NdFrame::solicit(GUEST, ONE, TWO, &[]));
    run.later(TEST_TIME * 2);
    assert!(run.addresses().is_empty());
}

#[test]
fn an_answer_during_the_test_refuses_the_address() {
    let conflicts: [NdFrame; 2] =
        [NdFrame::advertise(OTHER, ONE, ONE, &[]), NdFrame::test(OTHER, ONE)];
    for conflict in conflicts {
        let mut run = Run::new(any_method());
        run.guest(&NdFrame::test(GUEST, ONE));
        run.network(&conflict);
        run.later(TEST_TIME * 2);
        assert!(run.addresses().is_empty());
        assert_eq!(run.refusal(), Some((ONE, RefusalReason::Conflict)));
        // Outside of the test, the guest ignores such a frame as well.
        run.gets(ONE);
        run.network(&conflict);
        assert_eq!(run.addresses(), [ONE]);
        // The guest tests the address once more, for example after its link was off.
        run.guest(&NdFrame::test(GUEST, ONE));
        assert!(run.network(&conflict));
        assert!(run.addresses().is_empty());
    }
    // A switch sent the guest's own test back.
    let mut run = Run::new(any_method());
    run.guest(&NdFrame::test(GUEST, ONE));
    run.network(&NdFrame::test(GUEST, ONE));
    run.later(TEST_TIME);
    assert_eq!(run.addresses(), [ONE]);
}

#[test]
fn a_test_does_not_count_if_frames_were_lost() {
    let mut run = Run::new(any_method());
    run.gets(ONE);
    run.guest(&NdFrame::test(GUEST, ONE));
    run.guest(&NdFrame::test(GUEST, TWO));
    run.table.distrust();
    run.later(TEST_TIME * 2);
    assert_eq!(run.addresses(), [ONE]);
    assert_eq!(run.refusal(), Some((TWO, RefusalReason::Flood)));
    run.gets(TWO);
    assert_eq!(run.addresses(), [ONE, TWO]);
}

#[test]
fn addresses_in_use_and_addresses_of_no_host_are_refused() {
    let used = UsedAddresses6 {
        hosts: vec!["2001:db8::fe/64".parse().unwrap()],
        next_hops: vec!["fe80::ffff".parse().unwrap()],
        servers: vec!["fe80::547".parse().unwrap()],
        ports: Vec::new(),
    };
    let method = Method6 { by_test: true, servers: vec!["fe80::548".parse().unwrap()] };
    for (address, reason) in [
        ("2001:db8::fe", Some(RefusalReason::Host)),
        ("fe80::ffff", Some(RefusalReason::NextHop)),
        ("fe80::547", Some(RefusalReason::Server)),
        ("fe80::548", Some(RefusalReason::Server)),
        ("::1", None),
        ("::ffff:10.0.0.1", None),
        ("::10.0.0.1", None),
        ("64:ff9b::1", None),
        ("fe80:0:0:1::1", None),
        ("fec0::1", None),
        ("2001:db8::", None),
        ("2001:db8::fdff:ffff:ffff:fffe", None),
    ] {
        let table = Table6::new(method.clone(), guest(), used.clone());
        let mut run = Run { table, now: START };
        let address: Ipv6Addr = address.parse().unwrap();
        run.gets(address);
        assert!(run.addresses().is_empty(), "{address}");
        assert_eq!(run.refusal(), reason.map(|reason| (address, reason)), "{address}");
        let lease = Lease6 { address, source: Source6::Test, until: None };
        let again = Table6::new(method.clone(), guest(), used.clone());
        assert!(again.resumed(vec![lease], START).leases().is_empty());
    }
    let mut run = Run::new(any_method());
    run.gets(ONE);
    let port = ("vnet1".parse().unwrap(), ONE);
    let ports = vec![(port.1.into(), port.0)];
    run.table.check(UsedAddresses6 { ports, ..UsedAddresses6::default() });
    assert!(run.addresses().is_empty());
    assert!(matches!(run.refusal(), Some((ONE, RefusalReason::Port(_)))));
}

#[test]
fn a_full_table_keeps_the_addresses_that_the_guest_uses_or_answers_for() {
    let mut run = Run::new(any_method());
    let own: Vec<_> = (0..MOST_ADDRESSES as u128).map(made_up).collect();
    own.iter().for_each(|address| run.gets(*address));
    assert_eq!(run.addresses(), own);
    // None is idle yet, so nothing is asked.
    run.gets(ONE);
    assert_eq!(run.refusal(), Some((ONE, RefusalReason::Full)));
    assert_eq!(run.addresses(), own);

    run.later(IDLE);
    // The guest uses the first one, and answers for the second one.
    run.guest(&NdFrame::solicit(GUEST, own[0], TWO, &[]));
    run.guest(&NdFrame::test(GUEST, ONE));
    let mut asked = run.later(TEST_TIME);
    asked.extend(run.later(Duration::ZERO));
    assert_eq!(asked, own[1..]);
    run.guest(&NdFrame::advertise(GUEST, own[1], own[1], &[]));
    assert_eq!(run.later(Duration::from_secs(1)), own[2..]);
    assert_eq!(run.later(Duration::from_secs(1)), own[2..]);
    assert!(run.later(Duration::from_secs(1)).is_empty());
    // One address made room, and no more than needed.
    let expected: Vec<_> = own[..2].iter().chain(&own[3..]).copied().chain([ONE]).collect();
    assert_eq!(run.addresses(), expected);
    // The next round is not yet due.
    run.gets(TWO);
    assert_eq!(run.refusal(), Some((TWO, RefusalReason::Full)));
    run.later(BETWEEN_ROUNDS);
    run.guest(&NdFrame::test(GUEST, TWO));
    let mut asked = run.later(TEST_TIME);
    asked.extend(run.later(Duration::ZERO));
    assert!(!asked.is_empty());
}

#[test]
fn ten_thousand_made_up_addresses_leave_the_table_bounded_and_the_own_ones_there() {
    let mut run = Run::new(any_method());
    let own = [GUEST_LINK, ONE, TWO];
    own.iter().for_each(|address| run.gets(*address));
    let mut asked = 0;
    for number in 0..10_000 {
        run.guest(&NdFrame::test(GUEST, made_up(number)));
        let probes = run.later(Duration::from_millis(20));
        asked += probes.len();
        // The guest has its own addresses, and answers for them.
        for address in probes.iter().filter(|address| own.contains(address)) {
            run.guest(&NdFrame::advertise(GUEST, *address, *address, &[]));
        }
        assert!(run.table.leases().len() <= MOST_ADDRESSES);
        assert!(own.iter().all(|address| run.addresses().contains(address)), "{number}");
    }
    // 200 seconds have at most 16 rounds of three questions for each address.
    assert!(asked <= 16 * 3 * MOST_ADDRESSES, "{asked}");
    let in_flight = (0..100).fold(0, |_, number| {
        run.guest(&NdFrame::test(GUEST, made_up(20_000 + number)));
        MOST_TESTS
    });
    assert_eq!(in_flight, MOST_TESTS);
}

#[test]
fn a_reply_to_the_last_request_gives_an_address_until_its_lifetime_ends() {
    for method in [any_method(), dhcp_method()] {
        let mut run = Run::new(method);
        let request = Dhcp6Frame::asks(REQUEST6, GUEST, GUEST_LINK);
        let options = association(3, &given(ONE, 600, &[]));
        let reply = request.replies(OTHER, ROUTER_LINK, &options);
        let hear = |run: &mut Run, frame: &Dhcp6Frame| {
            run.table.process_frame(Sender::Network, &frame.bytes(), run.now)
        };
        let say = |run: &mut Run, frame: &Dhcp6Frame| {
            run.table.process_frame(Sender::Guest, &frame.bytes(), run.now)
        };
        assert!(!hear(&mut run, &reply), "no request");
        say(&mut run, &request);
        let other_duid = [option6(1, &[0, 3, 0, 1, 1, 2, 3, 4, 5, 6]), options.clone()].concat();
        for (what, frame) in [
            ("another transaction", Dhcp6Frame { transaction: 9, ..reply.clone() }),
            ("another client", Dhcp6Frame { options: other_duid, ..reply.clone() }),
            ("another machine", Dhcp6Frame { mac_to: OTHER, ..reply.clone() }),
        ] {
            assert!(!hear(&mut run, &frame), "{what}");
        }
        assert!(hear(&mut run, &reply));
        let source = Source6::Dhcp { server: ROUTER_LINK };
        let until = Some(BootTime(START.as_secs() + 600));
        assert_eq!(run.table.leases(), [Lease6 { address: ONE, source, until }]);
        assert!(!hear(&mut run, &reply), "the transaction has ended");

        run.later(Duration::from_secs(300));
        let renew = Dhcp6Frame { message: RENEW, transaction: 7, ..request.clone() };
        say(&mut run, &renew);
        assert!(hear(&mut run, &renew.replies(OTHER, ROUTER_LINK, &options)));
        run.later(Duration::from_secs(599));
        assert_eq!(run.addresses(), [ONE]);
        run.later(Duration::from_secs(1));
        assert!(run.addresses().is_empty());

        for end in [RELEASE6, DECLINE6] {
            say(&mut run, &request);
            hear(&mut run, &reply);
            assert_eq!(run.addresses(), [ONE]);
            let mut gives_back = Dhcp6Frame { message: end, ..request.clone() };
            gives_back.options.extend(&options);
            assert!(say(&mut run, &gives_back));
            assert!(run.addresses().is_empty());
        }
        // An answer of two messages needs Rapid Commit on both sides.
        let rapid = option6(14, &[]);
        for (asked, answered) in [(false, true), (true, false), (true, true)] {
            let mut solicit = Dhcp6Frame { message: SOLICIT, ..request.clone() };
            let mut reply = reply.clone();
            solicit.options.extend(rapid.iter().filter(|_| asked));
            reply.options.extend(rapid.iter().filter(|_| answered));
            say(&mut run, &solicit);
            assert_eq!(hear(&mut run, &reply), asked && answered);
        }
    }
}

#[test]
fn only_permitted_servers_give_addresses() {
    for (servers, learned) in [(vec![ROUTER_LINK], 1), (vec![GUEST_LINK], 0)] {
        let mut run = Run::new(Method6 { by_test: false, servers });
        let request = Dhcp6Frame::asks(REQUEST6, GUEST, GUEST_LINK);
        run.table.process_frame(Sender::Guest, &request.bytes(), START);
        let reply = request.replies(OTHER, ROUTER_LINK, &association(3, &given(ONE, 600, &[])));
        run.table.process_frame(Sender::Network, &reply.bytes(), START);
        assert_eq!(run.table.leases().len(), learned);
    }
}

#[test]
fn without_any_only_link_local_addresses_are_learned_from_tests() {
    let mut run = Run::new(dhcp_method());
    run.gets(ONE);
    run.gets(GUEST_LINK);
    assert_eq!(run.addresses(), [GUEST_LINK]);
}

#[test]
fn router_advertisements_set_the_end_of_tested_addresses() {
    let prefix = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
    let advertised = |valid| NdFrame::router(OTHER, ROUTER_LINK, prefix, valid);
    let mut run = Run::new(any_method());
    run.network(&advertised(60));
    run.gets(ONE);
    run.gets(GUEST_LINK);
    let until = |run: &Run| run.table.leases().first().and_then(|lease| lease.until);
    let start = START.as_secs();
    assert_eq!(until(&run), Some(BootTime(start + 60)));
    run.later(Duration::from_secs(28));
    assert!(run.network(&advertised(60)), "a later end is to be saved");
    assert_eq!(until(&run), Some(BootTime(start + 90)));
    // A shorter lifetime below two hours does not count (RFC 4862, 5.5.3).
    run.network(&advertised(1));
    assert_eq!(until(&run), Some(BootTime(start + 90)));
    run.network(&advertised(20_000));
    run.network(&advertised(1));
    assert_eq!(until(&run), Some(BootTime(start + 30 + 7200)));
    // A guest cannot be its own router.
    run.guest(&advertised(30_000));
    assert_eq!(until(&run), Some(BootTime(start + 30 + 7200)));
    run.later(Duration::from_secs(7200));
    assert_eq!(run.addresses(), [GUEST_LINK]);
}

#[test]
fn a_restart_keeps_the_addresses_that_this_method_could_learn() {
    let source = Source6::Dhcp { server: ROUTER_LINK };
    let lease = |address, source, until| Lease6 { address, source, until };
    let later = Some(BootTime(START.as_secs() + 1));
    let all = vec![
        lease(GUEST_LINK, Source6::Test, None),
        lease(ONE, Source6::Test, None),
        lease(TWO, source, later),
        lease(made_up(0), source, Some(BootTime(START.as_secs()))),
    ];
    for (method, expected) in [
        (any_method(), vec![GUEST_LINK, ONE, TWO]),
        (dhcp_method(), vec![GUEST_LINK, TWO]),
        (Method6 { by_test: true, servers: vec![GUEST_LINK] }, vec![ONE]),
    ] {
        let table = Table6::new(method, guest(), UsedAddresses6::default());
        let run = Run { table: table.resumed(all.clone(), START), now: START };
        assert_eq!(run.addresses(), expected);
    }
}
