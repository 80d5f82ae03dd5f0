//! The limits of a real guest's traffic: its card sends and gets frames of up to 64 KiB, which the
//! namespaces of `port_settings` do not.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::bridges::{host, neighbour, without_dhcp};
use crate::common::rates::assert_rate;
use crate::common::scene::{Scene, command_line, launch};
use crate::common::{AT_MOST, As, Guest, Sandbox, have_root, wait_until};

/// Sends as fast as it can, then takes what comes.
const SCRIPT: &str = "\
ip address add 10.77.0.2/24 dev eth0
ip link set eth0 up
nc -l -p 5000 >/dev/null &
nc 10.77.0.1 6000 </dev/zero
echo 'SENT .'
read go
exit_qemu 33";

/// The time in which the burst is used up and TCP finds its rate, and that of one measurement.
const SETTLE: Duration = Duration::from_secs(2);
const MEASURE: Duration = Duration::from_secs(4);
/// The part of the rate that is data or a counter's bytes: between the data (95.6%) and all bytes.
const ALLOWED: RangeInclusive<f64> = 0.92..=1.05;

/// Returns the KiB/s that pass, by a counter of bytes.
fn rate(counted: impl Fn() -> u64) -> f64 {
    let (before, start) = (counted(), Instant::now());
    thread::sleep(MEASURE);
    (counted() - before) as f64 / 1024.0 / start.elapsed().as_secs_f64()
}

#[test]
fn a_guest_has_the_rates_of_its_launch() {
    let test = "a_guest_has_the_rates_of_its_launch";
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return };
    let host = host();
    let (neighbour, _) = neighbour(&host);
    let listener = neighbour.inside(|| TcpListener::bind("10.77.0.1:6000").unwrap());
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let options = ["--bridge", "br0", "--bandwidth", "inbound=800,outbound=500"];
    let args = without_dhcp(command_line(&sandbox, &guest, &options, SCRIPT));
    let mut scene = Scene::start(sandbox.netlaunch(&args));

    let mut from_guest = listener.accept().unwrap().0;
    let mut bytes = vec![0; 64 * 1024];
    let mut received = |length: Duration| {
        let (mut sum, start) = (0, Instant::now());
        while start.elapsed() < length {
            sum += from_guest.read(&mut bytes).unwrap();
        }
        sum as f64 / 1024.0 / start.elapsed().as_secs_f64()
    };
    received(SETTLE);
    assert_rate("outbound", 500.0, ALLOWED, || received(MEASURE));
    drop(from_guest);
    scene.hear("SENT ");

    let tap = launch(&sandbox)["bridge"]["tap"].as_str().unwrap().to_owned();
    let to_guest = || {
        let file = format!("/sys/class/net/{tap}/statistics/tx_bytes");
        host.says("cat", &[&file]).trim().parse::<u64>().unwrap()
    };
    let mut stream = None;
    let connected = wait_until(AT_MOST, || {
        stream = neighbour.inside(|| TcpStream::connect("10.77.0.2:5000").ok());
        stream.is_some()
    });
    assert!(connected, "{}", scene.said());
    let mut stream = stream.unwrap();
    let end = stream.try_clone().unwrap();
    thread::spawn(move || while stream.write_all(&[0; 16 * 1024]).is_ok() {});
    thread::sleep(SETTLE);
    // The counter of the tap has the headers of large frames once.
    assert_rate("inbound", 800.0, ALLOWED, || rate(to_guest));
    end.shutdown(std::net::Shutdown::Both).unwrap();
    scene.say("go");
    scene.end();
}
