use std::ffi::OsString;

use super::super::plan::{AddressChoice, Family, NicRequest};
use super::super::qemu_options::CommandLine;
use super::*;
use crate::types::facts::{Facts, Host, Machine, Passt, Qemu};

pub(super) fn facts() -> Facts {
    Facts {
        passt: Passt { options: ["map-host-loopback".to_owned()].into(), ..Passt::default() },
        qemu: Qemu { default_card: Some(true), ..Qemu::default() },
        host: Host { default_v6: Some("eth0".into()), first_port: 1024, ..Host::default() },
        ..Facts::default()
    }
}

pub(super) fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

/// The NICs of a line, on a host with [`facts`].
fn nics(line: &str, options: &NicRequest) -> Vec<UserNic> {
    let line = CommandLine::parse(&words(line));
    user_nics(&line, &line.settings(&[]), options, &facts())
}

/// The line after each NIC that can leave slirp got a netdev `n,id=ID`.
fn adopted(line: &str, mtu: Option<u16>) -> String {
    adopted_on(line, mtu, "e1000")
}

/// The same on a machine whose default card is of this model.
fn adopted_on(line: &str, mtu: Option<u16>, model: &str) -> String {
    let line = CommandLine::parse(&words(line));
    let settings = line.settings(&[]);
    let machine = Machine { card_model: Some(model.to_owned()), ..Machine::default() };
    let qemu = Qemu { machine: Some(machine), ..facts().qemu };
    let found = user_nics(&line, &settings, &NicRequest::default(), &Facts { qemu, ..facts() });
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
        (
            "--netdev id=a,type=user --device e1000,netdev=a",
            "--netdev n,id=a --device e1000,netdev=a",
        ),
        (
            r#"-netdev {"type":"user","id":"a"} -net nic,netdev=a"#,
            "-netdev n,id=a -net nic,netdev=a",
        ),
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
            "-nic user -nic user,model=e1000 -nic tap",
            "-netdev n,id=net0 -netdev hubport,id=net0-hub,hubid=1,netdev=net0 -nic hubport,hubid=1 -netdev n,id=net1 -netdev hubport,id=net1-hub,hubid=2,netdev=net1 -nic hubport,hubid=2,model=e1000 -nic tap",
        ),
        // A card that -set changes.
        (
            "-net nic,id=c -net user -set net.c.model=e1000",
            "-net nic,id=c -netdev n,id=net0 -netdev hubport,id=net0-hub,hubid=0,netdev=net0 -set net.c.model=e1000",
        ),
        // One card on a hub of the caller.
        (
            "-net user -netdev hubport,id=h,hubid=0 -device e1000,netdev=h",
            "-netdev n,id=net0 -netdev hubport,id=net0-hub,hubid=0,netdev=net0 -netdev hubport,id=h,hubid=0 -device e1000,netdev=h",
        ),
        (
            "-netdev user,id=a -netdev hubport,id=p,hubid=1,netdev=a -nic hubport,hubid=1,model=e1000",
            "-netdev n,id=a -netdev hubport,id=p,hubid=1,netdev=a -nic hubport,hubid=1,model=e1000",
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
        // QEMU refuses the second card, and the message shows the caller's own words.
        (
            "-netdev user,id=a -device virtio-net-pci,netdev=a -device virtio-net-pci,netdev=a",
            "-netdev n,id=a -device virtio-net-pci,netdev=a -device virtio-net-pci,netdev=a",
        ),
    ] {
        assert_eq!(adopted(line, Some(9000)), expected, "{line}");
    }
}

#[test]
fn a_card_without_a_model_gets_the_mtu_if_the_machine_makes_a_virtio_card() {
    let global = "-global virtio-net-device.host_mtu=9000";
    for (line, expected) in [
        ("-M virt", "-M virt -netdev n,id=net0 -net nic,netdev=net0"),
        ("-nic user", "-netdev n,id=net0 -net nic,netdev=net0"),
        ("-net nic -net user", "-net nic,netdev=net0 -netdev n,id=net0"),
        ("-netdev user,id=a -net nic,netdev=a", "-netdev n,id=a -net nic,netdev=a"),
        (
            "-nic user -device virtio-net-pci,netdev=a,host_mtu=1300",
            "-netdev n,id=net0 -net nic,netdev=net0 -device virtio-net-pci,netdev=a,host_mtu=1300",
        ),
    ] {
        assert_eq!(adopted_on(line, Some(9000), "virtio-net-pci"), format!("{expected} {global}"));
        assert_eq!(adopted_on(line, Some(9000), "e1000"), expected);
        assert_eq!(adopted_on(line, None, "virtio-net-pci"), expected);
    }
    // The card of another network would get it as well.
    for (line, expected) in [
        (
            "-nic tap -nic user,model=virtio",
            "-nic tap -netdev n,id=net0 -net nic,netdev=net0,model=virtio",
        ),
        ("-nic user,model=e1000", "-netdev n,id=net0 -net nic,netdev=net0,model=e1000"),
    ] {
        assert_eq!(adopted_on(line, Some(9000), "virtio-net-pci"), expected);
    }
}

#[test]
fn parameters_are_added_to_a_nic_that_stays() {
    for (line, expected) in [
        ("-nic user,restrict=on", "-nic user,restrict=on,hostfwd=f"),
        ("-net nic -net user,tftp=/a,", "-net nic -net user,tftp=/a,hostfwd=f"),
        ("-nic user,tftp=/a,,", "-nic user,tftp=/a,,,hostfwd=f"),
        ("-nic user,tftp=/a,,,", "-nic user,tftp=/a,,,hostfwd=f"),
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
    assert_eq!(left.request, Err(Left::Restricted("restrict=on".to_owned())));
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
fn a_request_has_the_cards_address_and_each_search_domain_once() {
    for line in [
        "-nic user,mac=52:54:00:00:00:07",
        "-netdev user,id=a -device e1000,netdev=a,mac=52:54:00:00:00:07",
        "-netdev user,id=a -net nic,netdev=a,macaddr=52:54:00:00:00:07",
        "-net nic,macaddr=52:54:00:00:00:07 -net user",
    ] {
        let request = nics(line, &NicRequest::default())[0].request.clone().unwrap();
        assert_eq!(request.mac, Some("52:54:00:00:00:07".parse().unwrap()), "{line}");
    }
    let line = "-nic user,dnssearch=a,dnssearch=b,dnssearch=a,domainname=b";
    let request = nics(line, &NicRequest::default())[0].request.clone().unwrap();
    let search: Vec<_> = request.search.iter().map(|domain| domain.as_str()).collect();
    assert_eq!(search, ["a", "b"]);
}

#[test]
fn the_dns_server_of_the_launch_wins() {
    let line = "-nic user,dns=10.0.2.53";
    let dns = |options: NicRequest| nics(line, &options)[0].request.as_ref().unwrap().dns;
    let own = Some("10.0.2.53".parse().unwrap());
    let other = Some("9.9.9.9".parse().unwrap());
    assert_eq!(dns(NicRequest::default()), own);
    assert_eq!(dns(NicRequest { dns: other, ..NicRequest::default() }), other);
    // The network's own server belongs to its former subnet.
    let address = AddressChoice::Fixed("10.9.0.7/24".parse().unwrap());
    assert_eq!(dns(NicRequest { address, ..NicRequest::default() }), None);
}

#[test]
fn a_card_that_pads_frames_is_known_to_a_passt_that_ignores_them() {
    let mut old = facts();
    old.passt.options.clear();
    for (line, pads) in [
        ("-nic user,model=e1000", true),
        ("-nic user", true),
        ("", true),
        ("-netdev user,id=a -device rtl8139,netdev=a", true),
        ("-net nic,model=ne2k_pci -net user", true),
        ("-nic user,model=virtio", false),
        ("-nic user,model=virtio-net-pci", false),
        ("-netdev user,id=a -device virtio-net-device,netdev=a", false),
        // A card behind a hub, and a card by -global.
        (
            "-netdev user,id=a -netdev hubport,id=p,hubid=1,netdev=a -netdev hubport,id=q,hubid=1 -device e1000,netdev=q",
            true,
        ),
        (
            "-netdev user,id=a -netdev hubport,id=p,hubid=1,netdev=a -nic hubport,hubid=1,model=virtio",
            false,
        ),
        ("-netdev user,id=a -device e1000 -global e1000.netdev=a", true),
        ("-netdev user,id=a -device e1000 -global driver=e1000,property=netdev,value=a", true),
        ("-netdev user,id=a -device virtio-net-pci -global virtio-net-pci.netdev=a", false),
        ("-netdev user,id=a -readconfig unreadable", true),
        ("-M of-virtio -nic user", false),
    ] {
        let line = CommandLine::parse(&words(line));
        if line.settings(&[]).machine_type().is_some() {
            let card_model = Some("virtio-net-pci".to_owned());
            old.qemu.machine = Some(Machine { card_model, ..Machine::default() });
        }
        let found = |facts: &Facts| {
            let nics = user_nics(&line, &line.settings(&[]), &NicRequest::default(), facts);
            nics[0].pads_frames
        };
        assert_eq!((found(&old), found(&facts())), (pads, false), "{line:?}");
    }
}
