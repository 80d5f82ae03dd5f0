use std::ffi::OsString;

use proptest::prelude::*;

use super::super::plan::{AddressChoice, Backend, Family, NicRequest};
use super::super::qemu_options::{CommandLine, ConfigFile};
use super::*;
use crate::types::facts::{Facts, Host, Passt, Problem, Qemu};

fn facts() -> Facts {
    Facts {
        passt: Passt { options: ["map-host-loopback".to_owned()].into(), ..Passt::default() },
        qemu: Qemu { default_card: Some(true), ..Qemu::default() },
        host: Host { default_v6: Some("eth0".into()), first_port: 1024, ..Host::default() },
        ..Facts::default()
    }
}

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

/// The NICs of a line, on a host with [`facts`].
fn nics(line: &str, options: &NicRequest) -> Vec<UserNic> {
    let line = CommandLine::parse(&words(line));
    user_nics(&line, &line.settings(&[]), options, &facts())
}

/// The line after each NIC that can leave slirp got a netdev `n,id=ID`.
fn adopted(line: &str, mtu: Option<u16>) -> String {
    let line = CommandLine::parse(&words(line));
    let settings = line.settings(&[]);
    let found = user_nics(&line, &settings, &NicRequest::default(), &facts());
    let moved = found.iter().filter(|nic| nic.request.is_ok());
    let change = |nic: &UserNic| {
        let args = vec!["-netdev".into(), format!("n,id={}", nic.id).into()];
        Change::Replace { args, mtu }
    };
    let changes: Vec<_> = moved.map(|nic| (nic, change(nic))).collect();
    joined(&apply(&line, &edits(&line, &settings, &changes)))
}

fn joined(words: &[OsString]) -> String {
    let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
    words.join(" ")
}

#[test]
fn each_form_keeps_its_card() {
    for (line, expected) in [
        ("-netdev user,id=a -device e1000,netdev=a", "-netdev n,id=a -device e1000,netdev=a"),
        ("--netdev id=a,type=user", "--netdev n,id=a"),
        (r#"-netdev {"type":"user","id":"a"}"#, "-netdev n,id=a"),
        ("-nic user -S", "-netdev n,id=net0 -net nic,netdev=net0 -S"),
        ("-nic model=e1000", "-netdev n,id=net0 -net nic,netdev=net0,model=e1000"),
        (
            "-nic user,id=x,mac=52:54:00:00:00:01,model=virtio,",
            "-netdev n,id=x -net nic,netdev=x,model=virtio,macaddr=52:54:00:00:00:01",
        ),
        ("-nic user -nic none", "-netdev n,id=net0 -net nic,netdev=net0 -nic none"),
        (
            "-nic user -nic user",
            "-netdev n,id=net0 -net nic,netdev=net0 -netdev n,id=net1 -net nic,netdev=net1",
        ),
        (
            "-nic user,model=e1000 -nic tap",
            "-netdev n,id=net0 -netdev hubport,id=net0-hub,hubid=1,netdev=net0 -nic hubport,hubid=1,model=e1000 -nic tap",
        ),
        (
            "-nic user -nic user,restrict=on -netdev hubport,id=net0-hub,hubid=1",
            "-netdev n,id=net0 -netdev hubport,id=net0-hub0,hubid=2,netdev=net0 -nic hubport,hubid=2 -nic user,restrict=on -netdev hubport,id=net0-hub,hubid=1",
        ),
        (
            "-net nic -nic user",
            "-net nic -netdev n,id=net0 -netdev hubport,id=net0-hub,hubid=1,netdev=net0 -nic hubport,hubid=1",
        ),
        ("-net nic,model=virtio -net user", "-net nic,model=virtio,netdev=net0 -netdev n,id=net0"),
        ("-net user,id=u -net nic,", "-netdev n,id=u -net nic,netdev=u"),
        (
            "-net nic -net nic -net user",
            "-net nic -net nic -netdev n,id=net0 -netdev hubport,id=net0-hub,hubid=0,netdev=net0",
        ),
        ("-m 1", "-m 1 -netdev n,id=net0 -net nic,netdev=net0"),
        ("-nodefaults", "-nodefaults"),
        ("-nic none", "-nic none"),
        ("-S -m", "-S -m"),
        ("-append -netdev", "-append -netdev -netdev n,id=net0 -net nic,netdev=net0"),
        (
            "-netdev tap,id=net0 -nic user",
            "-netdev tap,id=net0 -netdev n,id=net1 -net nic,netdev=net1",
        ),
    ] {
        assert_eq!(adopted(line, None), expected, "{line}");
    }
}

#[test]
fn a_virtio_card_gets_the_mtu_where_no_other_card_gets_it() {
    for (line, expected) in [
        (
            "-netdev user,id=a -device virtio-net-pci,netdev=a,",
            "-netdev n,id=a -device virtio-net-pci,netdev=a,host_mtu=9000",
        ),
        (
            r#"-netdev user,id=a -device {"driver":"virtio-net-pci","netdev":"a"}"#,
            r#"-netdev n,id=a -device {"driver":"virtio-net-pci","netdev":"a","host_mtu":9000}"#,
        ),
        (
            "-nic user,model=virtio",
            "-netdev n,id=net0 -net nic,netdev=net0,model=virtio -global virtio-net-device.host_mtu=9000",
        ),
        (
            "-nic user,model=virtio -netdev tap,id=t -device virtio-net-pci,netdev=t",
            "-netdev n,id=net0 -net nic,netdev=net0,model=virtio -netdev tap,id=t -device virtio-net-pci,netdev=t",
        ),
        (
            "-nic user,model=virtio -nic user,model=virtio-net-pci",
            "-netdev n,id=net0 -net nic,netdev=net0,model=virtio -netdev n,id=net1 -net nic,netdev=net1,model=virtio-net-pci -global virtio-net-device.host_mtu=9000",
        ),
        (
            "-nic user,model=virtio -netdev tap,id=t -device virtio-net,netdev=t,host_mtu=1300",
            "-netdev n,id=net0 -net nic,netdev=net0,model=virtio -netdev tap,id=t -device virtio-net,netdev=t,host_mtu=1300 -global virtio-net-device.host_mtu=9000",
        ),
        (
            "-netdev user,id=a -device virtio-net-pci,netdev=a,host_mtu=1400",
            "-netdev n,id=a -device virtio-net-pci,netdev=a,host_mtu=1400",
        ),
        ("-netdev user,id=a -device e1000,netdev=a", "-netdev n,id=a -device e1000,netdev=a"),
    ] {
        assert_eq!(adopted(line, Some(9000)), expected, "{line}");
    }
}

#[test]
fn parameters_are_added_to_a_nic_that_stays() {
    for (line, expected) in [
        ("-nic user,restrict=on", "-nic user,restrict=on,hostfwd=f"),
        ("-net nic -net user,tftp=/a,", "-net nic -net user,tftp=/a,hostfwd=f"),
        (
            r#"-netdev {"type":"user","id":"a","tftp":"/a,b","hostfwd":[{"str":"::1-:1"}]}"#,
            "-netdev hostfwd=::1-:1,id=a,tftp=/a,,b,type=user,hostfwd=f",
        ),
        ("-S", "-S -net nic -net user,hostfwd=f"),
    ] {
        let parsed = CommandLine::parse(&words(line));
        let settings = parsed.settings(&[]);
        let found = user_nics(&parsed, &settings, &NicRequest::default(), &facts());
        let changes = [(&found[0], Change::Append(vec!["hostfwd=f".to_owned()]))];
        let line_after = joined(&apply(&parsed, &edits(&parsed, &settings, &changes)));
        assert_eq!(line_after, expected, "{line}");
    }
}

#[test]
fn the_options_of_the_launch_are_merged() {
    let options = NicRequest {
        publish: vec!["8080:80".parse().unwrap()],
        address: AddressChoice::Fixed("10.9.0.7/24".parse().unwrap()),
        search: vec!["example.org".parse().unwrap()],
        mtu: Some(1400),
        ..NicRequest::default()
    };
    let found = nics(
        "-nic user,restrict=on -nic user,hostfwd=::2222-:22,host=10.0.2.1 -nic user,domainname=a",
        &options,
    );
    let [left, first, second] = &found[..] else { panic!("{found:?}") };
    assert_eq!(left.request, Err(Left::Restricted));
    assert!(!left.has_additions || options.mtu.is_some());
    let request = first.request.as_ref().unwrap();
    let published: Vec<_> = request.publish.iter().map(ToString::to_string).collect();
    assert_eq!(published, ["0.0.0.0:2222:22/tcp", "127.0.0.1:8080:80/tcp"]);
    assert_eq!(
        (request.address, request.gateway, request.mtu),
        (options.address, None, Some(1400))
    );
    let request = second.request.as_ref().unwrap();
    assert_eq!((request.publish.len(), request.search.clone()), (0, options.search.clone()));
    assert_eq!(request.address, AddressChoice::Fixed("10.0.2.15/24".parse().unwrap()));
    let v6 = NicRequest { family: Family::V6, ..NicRequest::default() };
    let request = nics("-nic user", &v6)[0].request.clone().unwrap();
    assert_eq!((request.address, request.gateway), (AddressChoice::Default, None));
    assert!(nics("-nic user,ipv4=on", &v6)[0].request.is_err());
    assert!(nics("-nic user,hostfwd=::2222-:22", &v6)[0].request.is_err());
}

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

fn word() -> impl Strategy<Value = OsString> {
    use std::os::unix::ffi::OsStringExt;
    let any_bytes = prop::collection::vec(any::<u8>(), 0..6).prop_map(OsString::from_vec);
    let option = prop::sample::select(vec![
        "-netdev", "--netdev", "-nic", "-net", "-device", "-set", "-m", "-append", "-S", "disk",
    ]);
    let value = prop::sample::select(vec![
        "user",
        "user,id=a",
        "user,id=a,",
        "nic",
        "nic,netdev=a",
        "nic,model=virtio",
        "none",
        "user,hostfwd=tcp::2222-:22",
        "user,restrict=on",
        "tap,id=t",
        "model=e1000",
        "{",
        "{\"type\":\"user\",\"id\":\"a\"}",
        "{\"driver\":\"virtio-net-pci\",\"netdev\":\"a\"}",
        "virtio-net-pci,netdev=a",
        "hubport,hubid=0,id=h",
        "netdev.a.net=10.0.0.0",
    ]);
    prop_oneof![
        1 => any_bytes,
        3 => option.prop_map(OsString::from),
        4 => value.prop_map(OsString::from),
    ]
}

/// The arguments of a line that no edit changes.
fn untouched(line: &CommandLine, edits: &[Edit]) -> Vec<Vec<OsString>> {
    let all = line.arguments().iter().enumerate();
    let kept = all.filter(|(index, _)| edits.iter().all(|edit| edit.argument != Some(*index)));
    kept.map(|(_, argument)| line.words_of(argument).to_vec()).collect()
}

proptest! {
    #[test]
    fn other_arguments_stay_byte_for_byte_and_in_order(words in prop::collection::vec(word(), 0..14)) {
        let line = CommandLine::parse(&words);
        prop_assert_eq!(apply(&line, &[]), words.clone());
        let settings = line.settings(&[]);
        let found = user_nics(&line, &settings, &NicRequest::default(), &facts());
        let change = |nic: &UserNic| match nic.request {
            Ok(_) => {
                let args = vec!["-netdev".into(), format!("n,id={}", nic.id).into()];
                Change::Replace { args, mtu: Some(9000) }
            }
            Err(_) => Change::Append(vec!["hostfwd=f".to_owned()]),
        };
        let changes: Vec<_> = found.iter().map(|nic| (nic, change(nic))).collect();
        let edits = edits(&line, &settings, &changes);
        for (n, edit) in edits.iter().enumerate() {
            let again = edits[..n].iter().any(|other| other.argument == edit.argument);
            prop_assert!(edit.argument.is_none() || !again, "{edits:?}");
            let name = edit.argument.map(|at| line.arguments()[at].name.clone().unwrap());
            let name = name.unwrap_or_else(|| "net".to_owned());
            prop_assert!(["netdev", "nic", "net", "device"].contains(&name.as_str()));
        }
        let after = apply(&line, &edits);
        let mut rest = &after[..];
        for kept in untouched(&line, &edits) {
            let at = rest.windows(kept.len()).position(|words| words == &kept[..]);
            prop_assert!(at.is_some(), "{after:?} lacks {kept:?}");
            rest = &rest[at.unwrap_or_default() + kept.len()..];
        }
        let line = CommandLine::parse(&after);
        let again = user_nics(&line, &line.settings(&[]), &NicRequest::default(), &facts());
        prop_assert!(again.iter().all(|nic| nic.request.is_err()), "{after:?}: {again:?}");
    }
}

#[test]
fn a_card_that_pads_frames_stays_with_a_passt_that_ignores_them() {
    let mut old = facts();
    old.passt.options.clear();
    for (line, stays) in [
        ("-nic user,model=e1000", true),
        ("-nic user", true),
        ("", true),
        ("-netdev user,id=a -device rtl8139,netdev=a", true),
        ("-net nic,model=ne2k_pci -net user", true),
        ("-nic user,model=virtio", false),
        ("-nic user,model=virtio-net-pci", false),
        ("-netdev user,id=a -device virtio-net-device,netdev=a", false),
        ("-M virt -nic user", false),
        ("-machine type=virt-9.1,accel=tcg -nic user", false),
    ] {
        let line = CommandLine::parse(&words(line));
        let found = |facts: &Facts| {
            let mut nics =
                user_nics(&line, &line.settings(&[]), &NicRequest::default(), facts).into_iter();
            nics.next().unwrap().request
        };
        assert_eq!(found(&old) == Err(Left::PaddedFrames), stays, "{line:?}");
        assert!(found(&facts()).is_ok(), "{line:?}");
    }
}
