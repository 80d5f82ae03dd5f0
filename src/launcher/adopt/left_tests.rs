//! Tests which networks stay on slirp, and the reasons.

use super::super::plan::{Backend, Family, NicRequest};
use super::super::qemu_options::{CommandLine, ConfigFile};
use super::tests::{facts, words};
use super::*;
use crate::types::error_text;
use crate::types::facts::{Facts, Host, Passt, Problem};

#[test]
fn a_reason_against_passt_does_not_count_where_slirp_is_named() {
    let mut old = facts();
    old.passt.options.clear();
    let line =
        CommandLine::parse(&words("-nic user,hostfwd=::2222-:22 -nic user,hostfwd=::80-:80"));
    let left = |backend| {
        let options = NicRequest { backend, ..NicRequest::default() };
        let found = user_nics(&line, &line.settings(&[]), &options, &old);
        found.into_iter().filter_map(|nic| nic.request.err()).collect::<Vec<_>>()
    };
    assert!(matches!(left(None)[..], [Left::ServerFirst(_), Left::Forward { .. }]));
    assert_eq!(left(Some(Backend::Slirp)), []);
    old.passt.problem = Some(Problem::new("passt is not installed", "install it"));
    let without = user_nics(&line, &line.settings(&[]), &NicRequest::default(), &old);
    assert!(without[0].request.is_ok(), "the choice of the backend gives the reason");
}

#[test]
fn a_network_of_a_file_or_changed_by_set_stays() {
    let file = ConfigFile { path: "f".into(), text: b"[netdev \"a\"]\ntype = \"user\"\n".to_vec() };
    let line =
        CommandLine::parse(&words("-readconfig f -netdev user,id=b -set netdev.b.dns=1.1.1.1"));
    let found = user_nics(&line, &line.settings(&[file]), &NicRequest::default(), &facts());
    let reasons: Vec<_> = found.iter().map(|nic| nic.request.clone().unwrap_err()).collect();
    assert_eq!(reasons, [Left::ConfigFile, Left::Set]);
}

#[test]
fn a_netdev_without_a_card_stays() {
    let left = |line: &str, facts: &Facts| {
        let line = CommandLine::parse(&words(line));
        let found = user_nics(&line, &line.settings(&[]), &NicRequest::default(), facts);
        found.into_iter().filter_map(|nic| nic.request.err()).collect::<Vec<_>>()
    };
    for line in [
        "-netdev user,id=a",
        "-netdev user,id=a -device e1000,netdev=b",
        "-netdev user,id=a -device e1000 -global e1000.mac=a",
        "-netdev user,id=a -netdev hubport,id=p,hubid=1",
        "-netdev user,id=a -netdev hubport,id=p,hubid=1,netdev=a",
        "-netdev user,id=a -netdev hubport,id=p,hubid=1,netdev=a -netdev hubport,id=q,hubid=1",
        "-net user",
    ] {
        assert_eq!(left(line, &facts()), [Left::NoCard], "{line}");
    }
    let mut script = facts();
    script.qemu.emulator = Some("/usr/bin/qemu-system-x86_64".into());
    for (line, facts) in [
        ("-netdev user,id=a -device e1000,netdev=a", &facts()),
        (r#"-netdev user,id=a -device {"driver":"e1000","netdev":"a"}"#, &facts()),
        ("-netdev user,id=a -net nic,netdev=a", &facts()),
        ("-netdev user,id=a -netdev hubport,id=p,hubid=1,netdev=a -nic hubport,hubid=1", &facts()),
        ("-netdev user,id=a -device e1000 -global e1000.netdev=a", &facts()),
        ("-netdev user,id=a -device e1000 -global driver=e1000,property=netdev,value=a", &facts()),
        ("-netdev user,id=a -device e1000,id=d -set device.d.netdev=a", &facts()),
        ("-netdev user,id=a -readconfig unreadable", &facts()),
        ("-netdev user,id=a", &script),
    ] {
        assert_eq!(left(line, facts), [], "{line}");
    }
}

#[test]
fn a_network_of_a_hub_with_several_stations_stays() {
    let hub = "-netdev user,id=a -netdev hubport,id=p,hubid=1,netdev=a";
    let port = "-netdev hubport,id=q,hubid=1 -device e1000,netdev=q";
    for (line, others) in [
        ("-net nic -net nic -net user".to_owned(), "-net nic -net nic"),
        ("-net nic -net user -net tap".to_owned(), "-net nic -net tap"),
        ("-net user -net socket,mcast=m".to_owned(), "-net socket,mcast=m"),
        (
            "-net nic -net user -netdev hubport,id=h,hubid=0".to_owned(),
            "-net nic -netdev hubport,id=h,hubid=0",
        ),
        ("-net nic -net user -nic hubport,hubid=0".to_owned(), "-net nic -nic hubport,hubid=0"),
        (
            format!("{hub} {port} -nic hubport,hubid=1"),
            "-netdev hubport,id=q,hubid=1 -nic hubport,hubid=1",
        ),
        (
            format!("{hub} {port} -netdev tap,id=t -netdev hubport,id=r,hubid=1,netdev=t"),
            "-netdev hubport,id=q,hubid=1 -netdev hubport,id=r,hubid=1,netdev=t",
        ),
    ] {
        let line = CommandLine::parse(&words(&line));
        let left = |backend, facts: &Facts| {
            let options = NicRequest { backend, ..NicRequest::default() };
            user_nics(&line, &line.settings(&[]), &options, facts)[0].request.clone().err()
        };
        assert_eq!(left(None, &facts()), Some(Left::Hub(others.to_owned())), "{line:?}");
        assert_eq!(left(Some(Backend::Slirp), &facts()), None, "{line:?}");
        let mut without = facts();
        without.passt.problem = Some(Problem::new("passt is not installed", "install it"));
        assert_eq!(left(None, &without), None, "{line:?}");
    }
}

/// The reason why the first NIC of a line stays.
fn reason(line: &str, options: &NicRequest, facts: &Facts) -> String {
    let line = CommandLine::parse(&words(line));
    let found = user_nics(&line, &line.settings(&[]), options, facts);
    error_text(found[0].request.as_ref().unwrap_err())
}

#[test]
fn a_reason_names_the_options_in_the_words_of_the_caller() {
    let host = Host { first_port: 1024, ..Host::default() };
    let old = Facts { host, passt: Passt::default(), ..facts() };
    for (line, own) in [
        ("-nic user,hostfwd=::22-:22", "(hostfwd=::22-:22)"),
        ("-nic user,hostfwd=udp::5353-:53,hostfwd=tcp::2222-:22", "(hostfwd=tcp::2222-:22)"),
        (
            r#"-netdev {"type":"user","id":"a","hostfwd":["::2222-:22"]} -net nic,netdev=a"#,
            r#"("hostfwd":["::2222-:22"])"#,
        ),
        (
            r#"-netdev {"type":"user","id":"a","hostfwd":[{"str":"::2222-:22"}]} -net nic,netdev=a"#,
            "(hostfwd=::2222-:22)",
        ),
        ("-nic user,hostfwd=tcp::0-:22", "(hostfwd=tcp::0-:22)"),
        ("-nic user,hostfwd=::2-:2,hostfwd=:0.0.0.0:2-:3", "(hostfwd=:0.0.0.0:2-:3)"),
        ("-nic user,ipv4=off,hostfwd=::2-:2", "(hostfwd=::2-:2)"),
        ("-nic user,ipv6=y", "(ipv6=y)"),
        ("-nic user,ipv4=no,ipv6=off", "(ipv4=no,ipv6=off)"),
        ("-nic user,ipv4=n,host=10.0.2.1", "(host=10.0.2.1)"),
        ("-nic user,restrict=yes", "restrict=yes"),
        ("-nic user,restrict=1", "(restrict=1)"),
        ("-nic user,smb=/srv", "smb"),
        ("-nic user,new=1", "new"),
        ("-nic user,net=10.0/8", "(net=10.0/8)"),
        ("-nic user,dns=1.1.1.1", "(dns=1.1.1.1)"),
        ("-nic user,net=0.0.0.0/8", "(net=0.0.0.0/8)"),
        ("-nic user,hostname=-", "(hostname=-)"),
        ("-nic user,dnssearch=a,dnssearch=,,", "(dnssearch=,,)"),
        ("-nic user,domainname=-", "(domainname=-)"),
        ("-nic user,id=a -nic user,id=a", "(id=a)"),
        ("-netdev user", "(-netdev user)"),
        ("-netdev user,id=a/b", "a/b"),
        ("-nic user -append", "QEMU refuses -append without its value"),
        ("-nic user --name", "--name"),
    ] {
        let reason = reason(line, &NicRequest::default(), &old);
        assert!(reason.contains(own), "{line}: {reason}");
    }
    let family = |family| NicRequest { family, ..NicRequest::default() };
    for (line, launch, own) in [
        ("-nic user,ipv4=on", Family::V6, "IPv4 alone (ipv4=on)"),
        ("-nic user,hostfwd=::22-:22", Family::V6, "(hostfwd=::22-:22)"),
        ("-nic user,ipv6=on", Family::V4, "IPv6 alone (ipv6=on)"),
    ] {
        // As root, which can publish any port.
        let host = Host { default_v6: Some("eth0".into()), ..Host::default() };
        let reason = reason(line, &family(launch), &Facts { host, ..facts() });
        assert!(reason.contains(own), "{line}: {reason}");
    }
}

#[test]
fn a_port_stays_only_if_the_user_cannot_listen_on_it() {
    let is_left = |line: &str| {
        let line = CommandLine::parse(&words(line));
        user_nics(&line, &line.settings(&[]), &NicRequest::default(), &facts())[0].request.is_err()
    };
    let lines = ["-nic user,hostfwd=::1023-:22", "-nic user,hostfwd=::1024-:22"];
    assert_eq!(lines.map(is_left), [true, false]);
}
