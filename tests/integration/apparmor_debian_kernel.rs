//! Tests the AppArmor profile: the parser takes it, and on Debian's kernel (tests/guest/host)
//! netlaunch, passt, QEMU, dnsmasq and the learner do their work under it.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::test_host::{dir, netlaunch, test_host};
use crate::common::{have_root, skipped, start, text};

const PROFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/apparmor/netlaunch");

#[test]
fn the_parser_takes_the_profile() {
    let parser = Command::new("/usr/sbin/apparmor_parser").args(["-Q", "-K", PROFILE]).output();
    let output = match parser {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return skipped("the_parser_takes_the_profile", "apparmor is not installed");
        }
        output => output.unwrap(),
    };
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// The script of the test host: its parameters are the program and the profile.
///
/// QEMU stops before the guest runs. The last two commands must be refused: netlaunch may neither
/// read the passwords nor write outside its directories.
const HOST: &str = r#"
set -e
dmesg --console-off
mount -t securityfs securityfs /sys/kernel/security
sed "s|/usr/bin/netlaunch|$1|" "$2" >/tmp/profile
apparmor_parser -r -K /tmp/profile
confined() { aa-exec -p netlaunch -- "$@"; }
profiles() { for pid in $(pgrep "$1"); do echo "$1 IS $(cat /proc/$pid/attr/current)"; done; }
denied() { dmesg | grep -c 'apparmor="DENIED"' || true; }

ip link set lo up
ip link add up0 type veth peer name up1
ip link set up0 up
ip link set up1 up
ip address add 192.0.2.2/24 dev up0
ip route add default via 192.0.2.1

aa-exec -p netlaunch -- "$1" --backend passt -p 2222:22 --ready-fd 3 -- \
    qemu-system-x86_64 -M q35 -accel tcg -nodefaults -display none -S \
    -nic user,model=virtio-net-pci 3>/tmp/ready 2>/tmp/log &
launch=$!
for i in $(seq 600); do grep -q READY /tmp/ready && break; sleep 0.2; done
cat /tmp/log
for name in netlaunch passt qemu; do profiles $name; done
kill $launch
wait $launch || true

confined "$1" network start default
ip link add vnet0 type veth peer name guest0
ip link set vnet0 master virbr0 up
confined "$1" nwfilter bind vnet0 clean-traffic --mac 52:54:00:00:00:01
confined "$1" nwfilter binding-list
profiles dnsmasq
profiles netlaunch
confined "$1" nwfilter unbind vnet0
ip link delete vnet0
confined "$1" network destroy default
echo "DENIED $(denied) BEFORE"
dmesg | grep 'apparmor="DENIED"' || true

confined "$1" network define /etc/shadow 2>&1 || true
NETLAUNCH_STATE_DIR=/var/lib/other confined "$1" network start default 2>&1 || true
echo "DENIED $(denied) AFTER""#;

#[test]
fn passt_qemu_networks_and_filters_work_under_the_profile() {
    let test = "passt_qemu_networks_and_filters_work_under_the_profile";
    if !have_root(test) {
        return;
    }
    let Some(mut host) = test_host(test, 800) else { return };
    if !Path::new("/usr/bin/aa-exec").exists() {
        return skipped(test, "apparmor is not installed");
    }
    let dir = dir();
    host.args(["bash", "-c", HOST, "bash"]).arg(netlaunch(&dir)).arg(PROFILE);
    let output = start(host).output(Duration::from_secs(900));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    for part in [
        "netlaunch IS netlaunch (enforce)",
        "passt IS netlaunch//passt (enforce)",
        "qemu IS unconfined",
        "dnsmasq IS netlaunch (enforce)",
        "in force",
        "DENIED 0 BEFORE",
    ] {
        assert!(out.contains(part), "no {part}: {out}\n{err}");
    }
    let refused = out.lines().filter(|line| line.contains("Permission denied")).count();
    assert_eq!(refused, 2, "{out}\n{err}");
    assert!(output.status.success() && !out.contains("DENIED 0 AFTER"), "{out}\n{err}");
}
