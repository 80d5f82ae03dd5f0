//! Tests a real guest with stateless addresses and privacy addresses under clean-traffic-dual: its
//! packets pass from each of its addresses, and packets and neighbor discovery with another address
//! never leave its port.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::lab::{BRIDGE, LEASE_AND_PAGE, Lab, leased};
use crate::common::scene::{LIMIT, Scene};
use crate::common::wait_until;
use crate::common::wire::{Carried, Wire};

const NEIGHBOUR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 9);
/// The address of no machine.
const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 0x66);

/// Turns the card off and on, so that the guest makes its addresses again, with privacy addresses.
const ADDRESSES: &str = "\
ip link set eth0 down; echo 2 > /proc/sys/net/ipv6/conf/eth0/use_tempaddr; ip link set eth0 up; \
n=0; while [ $n -lt 60 ]; do n=$((n+1)); sleep 1; \
a=$(ip -6 -o address show dev eth0 | grep -v tentative | grep -c inet6); [ $a -ge 3 ] && break; \
done; sleep 1; ip -6 -o address show dev eth0 | awk '{printf \"%s \", $4}'; echo";

/// The source of an IPv6 frame, and the target of a neighbor advertisement in it.
fn claims(frame: &Carried) -> Option<(Ipv6Addr, Option<Ipv6Addr>)> {
    let address = |at: usize| -> Option<Ipv6Addr> {
        let bytes: [u8; 16] = frame.bytes.get(at..at + 16)?.try_into().ok()?;
        Some(bytes.into())
    };
    let is_ipv6 = frame.bytes.get(12..14) == Some(&[0x86, 0xdd]);
    let is_advertisement = frame.bytes.get(20) == Some(&58) && frame.bytes.get(54) == Some(&136);
    Some((address(22).filter(|_| is_ipv6)?, address(62).filter(|_| is_advertisement)))
}

/// Asserts that the guest's IPv6 frames on these wires claim only these addresses.
fn judge(wires: &[Wire], known: &[[u8; 6]], own: &[Ipv6Addr], what: &str) {
    for frame in wires.iter().flat_map(|wire| wire.others_than(known)) {
        let Some((source, target)) = claims(&frame) else { continue };
        let is_own = |address: &Ipv6Addr| own.contains(address);
        let is_good =
            (source.is_unspecified() || is_own(&source)) && target.as_ref().is_none_or(is_own);
        assert!(is_good, "{what}: {source} {target:?} came out: {:02x?}", frame.bytes);
        let icmp = (frame.bytes[20] == 58).then(|| frame.bytes[54]);
        assert!(!matches!(icmp, Some(134 | 137)), "{what}: a router's message came out");
    }
}

/// Whether the neighbour answers the guest's address.
fn reaches(scene: &mut Scene, address: Ipv6Addr) -> bool {
    let said = scene.ask(&format!(
        "ping -6 -c 3 -W 2 -I {address} {NEIGHBOUR6} >/dev/null 2>&1 && echo yes || echo no"
    ));
    said == "yes"
}

/// Prints how long after the end of its test each address was in the port's status file, which the
/// rules precede.
fn print_times(test: &str, tap: &Wire, learned: &[(Ipv6Addr, Instant)]) {
    for (address, at) in learned {
        let is_test = |frame: &&Carried| {
            let bytes = &frame.bytes;
            bytes.get(54) == Some(&135)
                && bytes.get(62..78) == Some(&address.octets())
                && bytes.get(22..38) == Some(&[0; 16])
                && frame.at < *at
        };
        if let Some(tested) = tap.all().iter().filter(is_test).map(|frame| frame.at).max() {
            let late = at.saturating_duration_since(tested).as_secs_f64() - 1.0;
            println!("{test}: {address} is in the status {late:.3} s after the end of its test");
        }
    }
}

/// Notes when each address appears in a status file, until `done`.
fn watch(status: PathBuf, done: Arc<AtomicBool>) -> JoinHandle<Vec<(Ipv6Addr, Instant)>> {
    std::thread::spawn(move || {
        let mut found: Vec<(Ipv6Addr, Instant)> = Vec::new();
        while !done.load(Ordering::Relaxed) {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let status: Value = serde_json::from_str(&text).unwrap_or_default();
            for address in status["addresses6"].as_array().into_iter().flatten() {
                let address = address.as_str().unwrap().parse().unwrap();
                if !found.iter().any(|(known, _)| *known == address) {
                    found.push((address, Instant::now()));
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        found
    })
}

fn addresses_of(lab: &Lab) -> Vec<Ipv6Addr> {
    let listed = lab.listed();
    let all = listed["learning"]["addresses6"].as_array().cloned().unwrap_or_default();
    all.iter().map(|one| one["address"].as_str().unwrap().parse().unwrap()).collect()
}

/// Whether the guest's server at this port answers the neighbour's client.
fn ask_server(lab: &Lab, guest: Ipv6Addr, port: u16, client: u16) -> bool {
    lab.neighbour.inside(|| {
        let socket = UdpSocket::bind((NEIGHBOUR6, client)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut buffer = [0; 100];
        (0..5).any(|_| {
            socket.send_to(b"question", (guest, port)).unwrap();
            socket.recv(&mut buffer).is_ok()
        })
    })
}

fn passes_with_its_own_addresses(backend: &str) {
    let test = format!("a_guest_uses_all_its_ipv6_addresses_and_no_others_with_{backend}");
    let Some(lab) = Lab::with_ipv6(&test, backend) else { return };
    lab.neighbour.ip(&format!("address add {NEIGHBOUR6}/64 dev eth0 nodad"));
    let mut scene = lab.start(&["clean-traffic-dual"], |_| ());
    let shown = lab.shown(&mut scene);
    let tap = Wire::tap(&lab.host, shown["bridge"]["tap"].as_str().unwrap());
    let wires = [Wire::tap(&lab.host, BRIDGE), Wire::tap(&lab.neighbour, "eth0")];
    let known =
        [lab.mac(&lab.host, BRIDGE), lab.mac(&lab.host, "port0"), lab.mac(&lab.neighbour, "eth0")];

    let tap_name = shown["bridge"]["tap"].as_str().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let status = lab.sandbox.state().join(format!("nwfilter/bindings/{tap_name}.json"));
    let watch = watch(status, done.clone());
    let said = scene.ask(ADDRESSES);
    let own: Vec<Ipv6Addr> = said
        .split_whitespace()
        .map(|net| net.split('/').next().unwrap().parse().unwrap())
        .collect();
    assert!(own.len() >= 3, "a link-local, a stable and a privacy address: {said}");
    let all_learned = || {
        let learned = addresses_of(&lab);
        own.iter().all(|address| learned.contains(address))
    };
    assert!(wait_until(LIMIT, all_learned), "{own:?}: {}", lab.listed());
    done.store(true, Ordering::Relaxed);
    print_times(&test, &tap, &watch.join().unwrap());

    let global: Vec<Ipv6Addr> =
        own.iter().copied().filter(|address| !address.is_unicast_link_local()).collect();
    for address in &global {
        assert!(reaches(&mut scene, *address), "{address}: {}", scene.said());
    }
    // IPv4 waits for its own address.
    let address: Ipv4Addr = leased(&scene.ask(LEASE_AND_PAGE));
    assert_eq!(scene.ask("fetch 10.77.0.9 80 /"), "page of a neighbour");
    lab.shows(tap_name, address, |_| ());

    // The guest takes the address of no machine, and that of the neighbour.
    for forged in [STRANGER6, NEIGHBOUR6] {
        let before = tap.all().len();
        let said = scene.ask(&format!(
            "cd /proc/sys/net/ipv6/conf/eth0; echo 0 > accept_dad; echo 0 > dad_transmits; \
             ip -6 address add {forged}/64 dev eth0; \
             ping -6 -c 2 -W 1 -I {forged} 2001:db8:77::1 >/dev/null 2>&1 && echo yes || echo no; \
             ip -6 address del {forged}/64 dev eth0 2>/dev/null; cd /"
        ));
        assert_eq!(said, "no", "{forged}");
        let tried = |frame: &Carried| claims(frame).is_some_and(|(source, _)| source == forged);
        assert!(tap.all()[before..].iter().any(tried), "the guest never used {forged}");
    }
    // It answers as a DHCPv6 server, and as another one.
    for (port, client, comes) in [(5000, 5001, true), (547, 546, false)] {
        assert!(scene.ask(&format!("serve_udp {port} answer")).contains("READY"));
        let before = tap.all().len();
        let answered = ask_server(&lab, global[0], port, client);
        assert_eq!(answered, comes, "from port {port} to port {client}");
        let is_answer = |frame: &Carried| {
            !frame.outgoing && frame.bytes.get(56..58) == Some(&client.to_be_bytes()[..])
        };
        let has_answered = || tap.all()[before..].iter().any(&is_answer);
        assert!(wait_until(LIMIT, has_answered), "the guest never answered: {port}");
    }
    judge(&wires, &known, &own, "in the end");
    for address in &global {
        assert!(reaches(&mut scene, *address), "{address} in the end: {}", scene.said());
    }
    scene.say("exit_qemu 41");
    assert_eq!(scene.end().code(), Some(41), "{}", scene.said());
    lab.nothing_left();
}

#[test]
fn a_guest_uses_all_its_ipv6_addresses_and_no_others_with_nftables() {
    passes_with_its_own_addresses("nftables");
}

#[test]
fn a_guest_uses_all_its_ipv6_addresses_and_no_others_with_iptables() {
    passes_with_its_own_addresses("iptables");
}
