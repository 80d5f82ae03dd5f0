//! Tests of the lines for mistakes in the command line.

use super::parse::{Stop, parse};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

fn refusal(line: &str) -> String {
    let words = std::iter::once("netlaunch").chain(line.split_whitespace());
    match parse(words.map(OsString::from)) {
        Err(Stop::Usage(error)) => error.to_string(),
        other => panic!("{line}: {other:?}"),
    }
}

fn check(cases: &[(&str, &str)]) {
    for (line, expected) in cases {
        assert_eq!(refusal(line), *expected, "{line}");
    }
}

#[test]
fn an_option_with_a_mistake_is_one_line() {
    check(&[
        ("--bakend slirp", "unknown option --bakend; a similar option exists: --backend"),
        (
            "-m 256",
            "unknown option -m; see netlaunch --help, and put QEMU's own options behind -- QEMU",
        ),
        ("--backend pasts", "--backend: unknown value \"pasts\"; a similar value exists: passt"),
        ("--backend xyz", "--backend: unknown value \"xyz\"; use auto, passt, slirp or bridge"),
        ("--backend", "--backend needs a value; write --backend auto, passt, slirp or bridge"),
        ("--mac", "--mac needs a value; write --mac MAC"),
        ("-p", "--publish needs a value; write --publish PORT"),
        (
            "--backend -- qemu",
            "--backend needs a value; write --backend auto, passt, slirp or bridge",
        ),
        (
            "qemu-system-x86_64 -m 256",
            "\"qemu-system-x86_64\" is not a command of netlaunch; put -- before QEMU: netlaunch [OPTIONS] -- qemu-system-x86_64 ...",
        ),
        (
            "--backend slirp /usr/bin/qemu -m 1",
            "\"/usr/bin/qemu\" is not a command of netlaunch; put -- before QEMU: netlaunch [OPTIONS] -- /usr/bin/qemu ...",
        ),
        ("prob", "unknown command \"prob\"; a similar command exists: probe"),
        ("--print json", "unknown command \"json\"; write --print=json"),
        ("--print=", "--print needs a value; write --print= followed by shell, json or xml"),
        ("--passt=", "--passt needs a value; write --passt PATH"),
        ("--print=qqq", "--print: unknown value \"qqq\"; use shell, json or xml"),
        ("--network default --bridge br0", "--network cannot go with --bridge; drop one of them"),
        (
            "--user a:b",
            "--user: \"a:b\" cannot be a user's name: use 1 to 32 letters, digits, '-', '.' or '_'",
        ),
        ("--ipv4-only --ipv6-only", "--ipv4-only cannot go with --ipv6-only; drop one of them"),
        ("-q -v", "-q cannot go with -v; drop one of them"),
        ("--mac 52:54:00:1:2:3 --mac 52:54:00:1:2:3", "--mac was given twice; give it once"),
        (
            "--no-host-loopback=yes",
            "--no-host-loopback: wrong number of values; see netlaunch --help",
        ),
    ]);
}

#[test]
fn a_value_with_a_mistake_is_one_line() {
    check(&[
        (
            "--gateway 10.0.2",
            "--gateway: \"10.0.2\" is not an IPv4 address: write one such as 10.0.2.2",
        ),
        (
            "--dns nine",
            "--dns: \"nine\" is not an IP address: write one such as 9.9.9.9 or 2620:fe::fe",
        ),
        ("--mtu 70000", "--mtu: \"70000\" is not an MTU: use 68 to 65520 bytes"),
        ("--mtu +70", "--mtu: \"+70\" is not an MTU: use 68 to 65520 bytes"),
        (
            "--ready-fd 1",
            "--ready-fd: \"1\" is not a file descriptor to report to: use 3 or a higher number that is open for writing",
        ),
        (
            "--address 10.0.2.0/24",
            "--address: 10.0.2.0 is the network address of 10.0.2.0/24, not a host's: use 10.0.2.1 to 10.0.2.254",
        ),
        (
            "-p 0",
            "--publish: \"0\" in \"0\" is not a port: use 1 to 65535, or 0:GUESTPORT for a free port of the host",
        ),
        ("--", "no program behind --; name QEMU there, or drop -- to serve the network only"),
        (
            "--backend slirp probe",
            "--backend is an option of a launch, not of probe; drop one of them",
        ),
    ]);
}

#[test]
fn a_command_with_a_mistake_is_one_line() {
    check(&[
        ("probe --jsn", "unknown option --jsn; a similar option exists: --json"),
        ("probe extra", "unexpected argument \"extra\"; drop it"),
        ("network define", "FILE is missing; write netlaunch network define FILE"),
        (
            "network update lab add",
            "SECTION is missing; write netlaunch network update NAME CHANGE SECTION XML|FILE",
        ),
        (
            "network update lab add portgroup x --parent-index x",
            "--parent-index: \"x\" is not the number of an <ip> element: use 0 for the first one, 1 for the second",
        ),
        ("network event", "NAME is missing; write netlaunch network event NAME"),
        ("attach web", "--net NIC is missing; write netlaunch attach --net NIC NAME"),
        (
            "detach --timeout 1 web",
            "ID is missing; write netlaunch detach --timeout SECONDS NAME ID",
        ),
        ("network start", "NAME is missing; write netlaunch network start NAME"),
        (
            "nwfilter explain clean-traffic",
            "--frame HEX is missing; write netlaunch nwfilter explain NAME --frame HEX, or --pcap FILE",
        ),
        ("network start a b", "unexpected argument \"b\"; drop it"),
        (
            "network start a/b",
            "NAME: \"a/b\" cannot name a network: use 1 to 64 letters, digits, inner spaces, '-', '.', '_' or '+', a letter, digit or '_' first",
        ),
        (
            "network autostart a/b",
            "NAME: \"a/b\" cannot name a network: use 1 to 64 letters, digits, inner spaces, '-', '.', '_' or '+', a letter, digit or '_' first",
        ),
        (
            "firewall check a/b",
            "BRIDGE: \"a/b\" is not a network interface name: 1 to 15 characters, no spaces, '/' or ':'",
        ),
        (
            "--lock-timeout x ps",
            "--lock-timeout: \"x\" is not a number of seconds: use 0 to 4294967295",
        ),
        (
            "--lock-timeout -1 ps",
            "--lock-timeout: \"-1\" is not a number of seconds: use 0 to 4294967295",
        ),
        (
            "--lock-timeout=4294967296 ps",
            "--lock-timeout: \"4294967296\" is not a number of seconds: use 0 to 4294967295",
        ),
        ("network defin", "unknown command \"defin\"; a similar command exists: define"),
        ("network xyz", "unknown command \"xyz\"; see netlaunch network --help"),
        (
            "network",
            "netlaunch network needs a command; use list, define, undefine, dumpxml, edit, start, destroy, info, leases, ports, event, update or autostart",
        ),
        ("firewall", "netlaunch firewall needs a command; use reload or check"),
        (
            "nwfilter",
            "netlaunch nwfilter needs a command; use list, dumpxml, define, undefine, edit, binding-create, binding-update, binding-delete, bind, unbind, watch, binding-learn, binding-list, binding-dumpxml, explain or check",
        ),
        (
            "nwfilter dumpxml a/b",
            "NAME: \"a/b\" cannot name a filter: use 1 to 128 letters, digits, '-', '.' or '_', a letter or '_' first",
        ),
        ("network list --jsn", "unknown option --jsn; a similar option exists: --json"),
        (
            "--backend slirp network list",
            "--backend is an option of a launch, not of network; drop one of them",
        ),
        ("completions", "SHELL is missing; use bash, elvish, fish, powershell or zsh"),
        ("completions 1", "SHELL: unknown value \"1\"; use bash, elvish, fish, powershell or zsh"),
    ]);
}

#[test]
fn arguments_cannot_break_the_line() {
    for word in ["--fo\no", "--fo\u{1b}[31m", "a\nb", "--mac=a\nb", "--backend=a\nb", ""] {
        let Err(Stop::Usage(error)) = parse(["netlaunch", word].map(OsString::from)) else {
            panic!("{word:?}")
        };
        let line = error.to_string();
        assert!(!line.is_empty() && !line.contains(char::is_control), "{line:?}");
    }
    let bad = OsString::from_vec(b"--mac=\xff".to_vec());
    assert!(matches!(parse(["netlaunch".into(), bad]), Err(Stop::Usage(_))));
}
