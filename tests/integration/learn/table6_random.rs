//! Tests the table of IPv6 addresses with random events.

use std::net::Ipv6Addr;
use std::time::Duration;

use netlaunch::nwfilter::learn::{BootTime, MOST_ADDRESSES, Sender, UsedAddresses6};
use proptest::prelude::*;

use super::table6::{Run, any_method, made_up};
use super::{GUEST_LINK, ROUTER_LINK, TWO};
use crate::common::dhcp_frame::{GUEST, OTHER};
use crate::common::nd_frame::{Dhcp6Frame, NdFrame, REQUEST6, association, given};

#[derive(Debug, Clone)]
enum Event {
    Test(bool, u8),
    Advertise(bool, u8),
    Use(u8),
    Router(u16),
    Reply(u8, u16),
    Later(u16),
    Check(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (any::<bool>(), 0..40_u8).prop_map(|(own, number)| Event::Test(own, number)),
        (any::<bool>(), 0..40_u8).prop_map(|(own, number)| Event::Advertise(own, number)),
        (0..40_u8).prop_map(Event::Use),
        any::<u16>().prop_map(Event::Router),
        (0..40_u8, any::<u16>()).prop_map(|(number, valid)| Event::Reply(number, valid)),
        (0..3000_u16).prop_map(Event::Later),
        (0..40_u8).prop_map(Event::Check),
    ]
}

proptest! {
    /// Whatever happens: the table is bounded, has no address twice and none that has ended, and
    /// the next wake is never in the past.
    #[test]
    fn the_table_is_bounded_and_has_no_address_that_has_ended(
        events in proptest::collection::vec(event(), 1..200),
    ) {
        let mut run = Run::new(any_method());
        let prefix = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
        for event in events {
            match event {
                Event::Test(true, number) => drop(run.guest(&NdFrame::test(GUEST, made_up(number.into())))),
                Event::Test(false, number) => drop(run.network(&NdFrame::test(OTHER, made_up(number.into())))),
                Event::Advertise(own, number) => {
                    let address = made_up(number.into());
                    let mac = if own { GUEST } else { OTHER };
                    let frame = NdFrame::advertise(mac, address, address, &[]);
                    if own { run.guest(&frame) } else { run.network(&frame) };
                }
                Event::Use(number) => {
                    run.guest(&NdFrame::solicit(GUEST, made_up(number.into()), TWO, &[]));
                }
                Event::Router(valid) => {
                    run.network(&NdFrame::router(OTHER, ROUTER_LINK, prefix, valid.into()));
                }
                Event::Reply(number, valid) => {
                    let request = Dhcp6Frame::asks(REQUEST6, GUEST, GUEST_LINK);
                    run.table.process_frame(Sender::Guest, &request.bytes(), run.now);
                    let options = association(3, &given(made_up(number.into()), valid.into(), &[]));
                    let reply = request.replies(OTHER, ROUTER_LINK, &options);
                    run.table.process_frame(Sender::Network, &reply.bytes(), run.now);
                }
                Event::Later(millis) => drop(run.later(Duration::from_millis(millis.into()))),
                Event::Check(number) => {
                    let ports = vec![(made_up(number.into()).into(), "vnet1".parse().unwrap())];
                    run.table.check(UsedAddresses6 { ports, ..UsedAddresses6::default() });
                }
            }
            run.later(Duration::ZERO);
            run.later(Duration::ZERO);
            let mut addresses = run.addresses();
            prop_assert!(addresses.len() <= MOST_ADDRESSES);
            addresses.sort();
            addresses.dedup();
            prop_assert_eq!(addresses.len(), run.addresses().len());
            let now = BootTime(run.now.as_secs());
            prop_assert!(run.table.leases().iter().all(|lease| !lease.is_over(now)));
            prop_assert!(run.table.wake().is_none_or(|wake| wake > run.now));
        }
    }
}
