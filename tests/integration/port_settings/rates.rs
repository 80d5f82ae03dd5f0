//! The rates that the limits give, measured with traffic between namespaces.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::common::rates::assert_rate;

/// The payload of a datagram in the tests, in bytes.
const DATAGRAM: usize = 1400;
/// The bytes of data among those of a full frame with Ethernet, IPv4 and TCP headers (with time
/// stamps), and with UDP headers.
const TCP_SHARE: f64 = 1448.0 / 1514.0;
const UDP_SHARE: f64 = DATAGRAM as f64 / 1442.0;

/// The time before a measurement, in which the burst is used up and TCP finds its rate.
const SETTLE: Duration = Duration::from_millis(700);
const MEASURE: Duration = Duration::from_millis(2000);

/// Returns the data that TCP delivers from one namespace to an address of another, in KiB/s.
fn tcp(from: &Netns, to: &Netns, address: &str) -> f64 {
    let listener = to.inside(|| TcpListener::bind((address, 5998)).unwrap());
    let at = listener.local_addr().unwrap();
    let mut sender = from.inside(|| TcpStream::connect(at).unwrap());
    let mut receiver = listener.accept().unwrap().0;
    let data = vec![0; 64 * 1024];
    thread::scope(|scope| {
        // The receiver's end ends the writes.
        scope.spawn(move || while sender.write_all(&data).is_ok() {});
        let mut bytes = vec![0; 64 * 1024];
        let mut received = |length: Duration| {
            let (mut sum, start) = (0, Instant::now());
            while start.elapsed() < length {
                sum += receiver.read(&mut bytes).unwrap();
            }
            sum as f64 / 1024.0 / start.elapsed().as_secs_f64()
        };
        received(SETTLE);
        let rate = received(MEASURE);
        drop(receiver);
        rate
    })
}

/// Returns what of `offered` KiB/s of datagrams arrives, in KiB/s, first within `SETTLE`, then
/// within `MEASURE`.
fn udp(from: &Netns, to: &Netns, address: &str, offered: f64) -> (f64, f64) {
    let receiver = to.inside(|| UdpSocket::bind((address, 5997)).unwrap());
    receiver.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let sender = from.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut sent, start) = (0.0, Instant::now());
            while !ended.load(Ordering::Relaxed) {
                if sent > start.elapsed().as_secs_f64() * offered * 1024.0 {
                    thread::sleep(Duration::from_millis(1));
                } else {
                    let _ = sender.send(&[0; DATAGRAM]);
                    sent += DATAGRAM as f64;
                }
            }
        });
        let mut bytes = [0; DATAGRAM];
        let mut received = |length: Duration| {
            let (mut sum, start) = (0, Instant::now());
            while start.elapsed() < length {
                sum += receiver.recv(&mut bytes).unwrap_or_default();
            }
            sum as f64 / 1024.0 / start.elapsed().as_secs_f64()
        };
        let rates = (received(SETTLE), received(MEASURE));
        ended.store(true, Ordering::Relaxed);
        rates
    })
}

fn assert_exact(what: &str, asked: f64, measure: impl FnMut() -> f64) {
    assert_rate(what, asked, 0.95..=1.05, measure);
}

#[test]
fn each_direction_has_the_rate_that_was_asked_for() {
    if !have_root("each_direction_has_the_rate_that_was_asked_for") {
        return;
    }
    let host = host();
    let limited = guest(&host, "p1", "10.77.0.11");
    let other = guest(&host, "p2", "10.77.0.12");
    limit(&host, "p1", "inbound=2000,outbound=1000").unwrap();
    let to =
        |address| if address == "10.77.0.11" { (&other, &limited) } else { (&limited, &other) };
    for (what, address, asked) in
        [("inbound", "10.77.0.11", 2000.0), ("outbound", "10.77.0.12", 1000.0)]
    {
        let (from, to) = to(address);
        assert_exact(&format!("TCP {what}"), asked * TCP_SHARE, || tcp(from, to, address));
        let datagrams = || udp(from, to, address, 3.0 * asked).1;
        assert_exact(&format!("UDP {what}"), asked * UDP_SHARE, datagrams);
    }
}

#[test]
fn the_bridge_limits_the_traffic_between_host_and_guests() {
    if !have_root("the_bridge_limits_the_traffic_between_host_and_guests") {
        return;
    }
    let host = host();
    let guest = guest(&host, "p1", "10.77.0.11");
    limit(&host, "br0", "inbound=1000,outbound=2000").unwrap();
    assert_exact("inbound", 1000.0 * TCP_SHARE, || tcp(&host, &guest, "10.77.0.11"));
    assert_exact("outbound", 2000.0 * TCP_SHARE, || tcp(&guest, &host, "10.77.0.1"));
}

#[test]
fn a_burst_passes_at_the_peak_rate() {
    if !have_root("a_burst_passes_at_the_peak_rate") {
        return;
    }
    let host = host();
    let limited = guest(&host, "p1", "10.77.0.11");
    let other = guest(&host, "p2", "10.77.0.12");
    // At 2000 KiB/s, the burst of 1500 KiB is used up after 0.79 s, and it is there again after
    // 15 s without traffic.
    limit(&host, "p1", "inbound=100/2000/1500,outbound=100/2000/1500").unwrap();
    for (what, from, to, address) in
        [("inbound", &other, &limited, "10.77.0.11"), ("outbound", &limited, &other, "10.77.0.12")]
    {
        let mut is_first = true;
        assert_exact(&format!("{what} peak"), 2000.0 * UDP_SHARE, || {
            if !std::mem::take(&mut is_first) {
                thread::sleep(Duration::from_secs(16));
            }
            udp(from, to, address, 4000.0).0
        });
        let later = || udp(from, to, address, 400.0).1;
        assert_exact(&format!("{what} average"), 100.0 * UDP_SHARE, later);
    }
}
