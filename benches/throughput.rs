//! Measures the throughput of a real guest through netlaunch, compared with plain QEMU.
//!
//! Run `cargo bench --bench throughput` as root: it makes its own network namespaces, and all
//! traffic stays in them. `NETLAUNCH_BENCH_PASST` names another passt. The guest has the habits of
//! systemd-networkd: it ignores the MTU of DHCP and takes that of its card. The ways of a
//! comparison run alternately, and each pair gives one ratio, so that a machine that slows down
//! slows both. The figures go to standard output. The benchmark has no pass or fail.
//!
//! | comparison | this | that |
//! |---|---|---|
//! | typed | `netlaunch -- qemu`, on passt and on slirp | the same by hand |
//! | adopted | the same QEMU command behind `netlaunch --`, on passt | `-nic user`, slirp, untouched |
//! | vhost-net | a tap of netlaunch's, with vhost-net | a tap that `ip tuntap` made, without |

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench stops by panicking")]

#[allow(dead_code, unreachable_pub, reason = "a bench uses some of the helpers")]
#[path = "../tests/integration/common/mod.rs"]
mod common;
#[path = "shared/goal.rs"]
mod goal;
#[path = "shared/place.rs"]
mod place;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{As, Guest, Netns, Reaped, Sandbox, have_root, skipped, text};
use goal::{Goal, median, row};

/// How many pairs of runs give a median.
const PAIRS: usize = 5;
/// The bytes of one transfer.
const BYTES: usize = 64 << 20;
/// The size of a write on both sides.
const BLOCK: usize = 64 << 10;
/// The longest run of one guest: its boot and two transfers.
const LIMIT: Duration = Duration::from_secs(180);
/// The ports of the servers: the first sends to the guest, the second receives.
const PORTS: [u16; 2] = [9001, 9002];

/// The throughput of one guest in Mbit/s.
#[derive(Debug, Clone, Copy)]
struct Rates {
    up: f64,
    down: f64,
}

fn main() {
    place::in_memory();
    if !have_root("the throughput benchmark") {
        return;
    }
    let Some(guest) = Guest::find("the throughput benchmark") else { return };
    typed(&guest);
    adopted(&guest);
    vhost(&guest);
}

/// Compares each backend with the same command lines by hand.
fn typed(guest: &Guest) {
    let netns = Netns::routed();
    let sandbox = Sandbox::new(As::Root, Some(&netns));
    let run_dir = sandbox.path("run/hand");
    std::fs::create_dir(&run_dir).unwrap();
    // Under root, Debian's passt makes its files as nobody.
    std::fs::set_permissions(&run_dir, std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .unwrap();
    let dir = run_dir.display();
    let passt = format!(
        "rm -f {dir}/*; passt --one-off --socket {dir}/s --pid {dir}/p --address 10.0.2.15 \
         --netmask 24 --gateway 10.0.2.2 2>/dev/null && exec \"$@\""
    );
    let stream =
        format!("stream,id=n,server=off,addr.type=unix,addr.path={dir}/s,reconnect-ms=200");
    let card = ["-device", "virtio-net-pci,netdev=n"];
    for (backend, line, netdev) in
        [("passt", passt.as_str(), stream.as_str()), ("slirp", "exec \"$@\"", "user,id=n")]
    {
        let plain_qemu = qemu(guest, &[]);
        let by_hand = qemu(guest, &[&["-netdev", netdev], &card[..]].concat());
        let with = || {
            let options = ["--backend", backend, "--"].map(str::to_owned);
            sandbox.netlaunch(&[&options[..], &plain_qemu[..]].concat())
        };
        let without = || {
            let mut command = sandbox.program(Path::new("/bin/sh"));
            command.args(["-c", line, "sh"]).args(&by_hand);
            command
        };
        let what = format!("{backend}, against the same by hand");
        let ratios = compare(&what, with, without, &netns, Ipv4Addr::LOCALHOST);
        for (direction, ratio) in ["up", "down"].into_iter().zip(ratios) {
            let work = format!("guest throughput, {backend}, {direction}");
            row(&work, "the same by hand", ratio, "×", Goal::AtLeast(0.97));
        }
    }
}

/// Compares passt, to which netlaunch moves the guest's network, with slirp.
fn adopted(guest: &Guest) {
    let netns = Netns::routed();
    let sandbox = Sandbox::new(As::Root, Some(&netns));
    let qemu = qemu(guest, &["-nic", "user,model=virtio-net-pci"]);
    let passt = std::env::var("NETLAUNCH_BENCH_PASST").unwrap_or_else(|_| "passt".to_owned());
    let with = || {
        let options = ["--backend", "passt", "--passt", &passt, "--"].map(str::to_owned);
        sandbox.netlaunch(&[&options[..], &qemu[..]].concat())
    };
    let without = || plain(&sandbox, &qemu);
    compare(
        "adopted on passt, against slirp untouched",
        with,
        without,
        &netns,
        Ipv4Addr::LOCALHOST,
    );
}

/// Compares a tap with vhost-net with one without.
fn vhost(guest: &Guest) {
    if !Path::new("/dev/vhost-net").exists() {
        return skipped("the comparison of vhost-net", "this kernel has no /dev/vhost-net");
    }
    let netns = Netns::bare();
    netns.ip("link add br0 type bridge");
    netns.ip("address add 10.0.2.2/24 dev br0");
    netns.ip("link set br0 up");
    netns.ip("tuntap add dev hand0 mode tap vnet_hdr");
    netns.ip("link set hand0 master br0 up");
    let sandbox = Sandbox::new(As::Root, Some(&netns));
    let (made, by_hand) = (
        qemu(guest, &[]),
        qemu(
            guest,
            &[
                "-netdev",
                "tap,id=n,ifname=hand0,script=no,downscript=no,vhost=off",
                "-device",
                "virtio-net-pci,netdev=n",
            ],
        ),
    );
    let with = || {
        let options = ["--bridge", "br0", "--"].map(str::to_owned);
        sandbox.netlaunch(&[&options[..], &made[..]].concat())
    };
    let without = || plain(&sandbox, &by_hand);
    compare("tap with vhost-net, against one without", with, without, &netns, [10, 0, 2, 2].into());
}

/// Returns the QEMU command of a guest that sends and receives, with further arguments. The guest
/// waits at the end, because its kernel still sends when dd has ended.
fn qemu(guest: &Guest, network: &[&str]) -> Vec<String> {
    let (blocks, [down, up]) = (BYTES / BLOCK, PORTS);
    let script = format!(
        "ip address add 10.0.2.15/24 dev eth0\n\
         ip route add default via 10.0.2.2\n\
         echo \"MTU $(cat /sys/class/net/eth0/mtu)\"\n\
         nc 10.0.2.2 {down} -e sh -c 'echo; dd of=/dev/null bs={BLOCK} count={blocks} iflag=fullblock; echo'\n\
         nc 10.0.2.2 {up} -e dd if=/dev/zero bs={BLOCK} count={blocks}\n\
         sleep 2\n"
    );
    let mut argv = guest.qemu(&script);
    argv.last_mut().unwrap().push_str(" nl.dhcp=no");
    argv.extend(network.iter().map(|word| (*word).to_owned()));
    argv
}

/// Returns QEMU without netlaunch.
fn plain(sandbox: &Sandbox, argv: &[String]) -> Command {
    let mut command = sandbox.program(Path::new(&argv[0]));
    command.args(&argv[1..]);
    command
}

/// Runs both ways alternately, and prints the medians of the rates and of the ratios. Returns the
/// median ratios of both directions, up first.
fn compare(
    what: &str,
    with: impl Fn() -> Command,
    without: impl Fn() -> Command,
    netns: &Netns,
    server: Ipv4Addr,
) -> [f64; 2] {
    let (mut up, mut down) = ([vec![], vec![], vec![]], [vec![], vec![], vec![]]);
    for _ in 0..PAIRS {
        let (a, b) = (run(with(), netns, server), run(without(), netns, server));
        println!("  {what}: {a:.0?} against {b:.0?}");
        for (all, a, b) in [(&mut up, a.up, b.up), (&mut down, a.down, b.down)] {
            all[0].push(a);
            all[1].push(b);
            all[2].push(a / b);
        }
    }
    for (direction, [a, b, ratio]) in [("up", &mut up), ("down", &mut down)] {
        println!(
            "{what}, {direction}: {:.0} against {:.0} Mbit/s, ratio {:.2} (medians of {PAIRS}; lowest ratio {:.2})",
            median(a),
            median(b),
            median(ratio),
            ratio[0],
        );
    }
    [median(&mut up[2]), median(&mut down[2])]
}

/// Runs one guest, and returns its rates.
fn run(mut command: Command, netns: &Netns, server: Ipv4Addr) -> Rates {
    let [down, up] = PORTS.map(|port| serve(netns, server, port));
    command.stdin(Stdio::null());
    let output = Reaped(command.spawn().unwrap()).output(LIMIT);
    let rate = |took: Receiver<Duration>| {
        let took = took.recv_timeout(Duration::from_secs(5)).unwrap_or_else(|_| {
            panic!("no transfer: {}{}", text(&output.stdout), text(&output.stderr))
        });
        BYTES as f64 * 8e-6 / took.as_secs_f64()
    };
    Rates { up: rate(up), down: rate(down) }
}

/// Serves one transfer at a port of the namespace, and sends its duration.
fn serve(netns: &Netns, server: Ipv4Addr, port: u16) -> Receiver<Duration> {
    let listener = netns.inside(|| TcpListener::bind((server, port)).unwrap());
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        let took = if port == PORTS[0] { send(&mut stream) } else { receive(&mut stream) };
        let _ = sender.send(took);
    });
    receiver
}

/// Sends all bytes after the guest's first byte, and waits for its second one.
fn send(stream: &mut TcpStream) -> Duration {
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    let begun = Instant::now();
    let block = vec![b'x'; BLOCK];
    (0..BYTES / BLOCK).for_each(|_| stream.write_all(&block).unwrap());
    stream.read_exact(&mut byte).unwrap();
    begun.elapsed()
}

/// Receives all bytes, and measures from the first one on.
fn receive(stream: &mut TcpStream) -> Duration {
    let mut block = vec![0; BLOCK];
    let mut left = BYTES - stream.read(&mut block).unwrap();
    let begun = Instant::now();
    while left > 0 {
        let got = stream.read(&mut block).unwrap();
        assert!(got > 0, "the guest closed the connection");
        left -= got;
    }
    begun.elapsed()
}
