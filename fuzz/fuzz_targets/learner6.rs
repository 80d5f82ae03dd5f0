//! Runs a table of IPv6 addresses through any sequence of frames and waits.
//!
//! The input is a list of records: a byte for the kind, a byte for a length, and that many bytes.
//! Kind 0 is a frame of the guest, 1 a frame to the guest, 2 a wait of `length` / 20 seconds, 3 a
//! restart with the saved addresses. Frames get the right checksum, since no input would find it.

#![no_main]
#![allow(clippy::unwrap_used, reason = "a finding is a panic")]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use netlaunch::nwfilter::learn::packet6::{MOST_IN_MESSAGE, Message6, read};
use netlaunch::nwfilter::learn::{
    BootTime, MOST_ADDRESSES, Method6, Sender, Table6, UsedAddresses6,
};

fuzz_target!(|bytes: &[u8]| {
    let by_test = bytes.first().is_some_and(|byte| byte & 1 == 0);
    let method = Method6 { by_test, servers: Vec::new() };
    let guest = "52:54:00:11:22:33".parse().unwrap();
    let new = || Table6::new(method.clone(), guest, UsedAddresses6::default());
    let (mut table, mut now) = (new(), Duration::from_secs(1000));
    let mut rest = bytes.get(1..).unwrap_or_default();
    while let [kind, length, after @ ..] = rest {
        let (record, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        match kind % 4 {
            2 => now += Duration::from_millis(50) * u32::from(*length),
            3 => table = new().resumed(table.leases(), now),
            kind => {
                let sender = if kind == 0 { Sender::Guest } else { Sender::Network };
                let frame = mended(record);
                check_frame(&frame);
                table.process_frame(sender, &frame, now);
            }
        }
        for _ in 0..2 {
            let probes = table.tick(now).probes;
            assert!(probes.len() <= MOST_ADDRESSES);
        }
        let leases = table.leases();
        assert!(leases.len() <= MOST_ADDRESSES);
        for (at, lease) in leases.iter().enumerate() {
            assert!(!lease.is_over(BootTime(now.as_secs())) && method.accepts(lease));
            assert!(!lease.address.is_multicast() && !lease.address.is_loopback());
            assert!(leases[..at].iter().all(|other| other.address != lease.address));
        }
        assert!(table.wake().is_none_or(|wake| wake > now));
    }
});

fn check_frame(frame: &[u8]) {
    let Some(read) = read(frame) else { return };
    assert_eq!(read.source.octets(), frame[6..12]);
    match read.content {
        Message6::Router(prefixes) => assert!(prefixes.len() <= MOST_IN_MESSAGE),
        Message6::Dhcp(dhcp) => assert!(dhcp.addresses.len() <= MOST_IN_MESSAGE),
        Message6::Test(_) | Message6::Solicitation | Message6::Advertisement(_) => {}
    }
}

/// Sets the checksum of an ICMPv6 message.
fn mended(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame.len() < 58 || frame[20] != 58 {
        return frame;
    }
    let end = frame.len().min(54 + usize::from(u16::from_be_bytes([frame[18], frame[19]])));
    if end < 58 {
        return frame;
    }
    frame[56..58].fill(0);
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
    let mut sum: u32 = frame[22..54].chunks(2).map(word).sum::<u32>()
        + frame[54..end].chunks(2).map(word).sum::<u32>()
        + (end - 54) as u32
        + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[56..58].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame
}
