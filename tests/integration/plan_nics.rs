//! Tests that no two NICs of a plan share anything that belongs to one of them, for lists of NICs
//! beside QEMU arguments with networks of their own.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Debug;

use netlaunch::launcher::plan::{
    AddressChoice, Backend, Command, LaunchIds, NicPlan, NicRequest, Origin, Plan, PlanError,
    Request, Transport, plan,
};
use netlaunch::types::facts::{BridgeAccess, Facts, Host, Passt, Qemu, TargetBridge};
use netlaunch::types::{PortSettings, TransientUser, shell_line};
use proptest::prelude::*;

const NICS: [&str; 9] = [
    "passt",
    "slirp",
    "bridge=br0",
    "passt,id=net1",
    "passt,id=x,device=e1000",
    "slirp,mac=52:54:00:00:00:01",
    "slirp,address=10.0.2.20/24",
    "passt,publish=80,publish=81:81/udp",
    "slirp,publish=82",
];

const QEMU: [&str; 9] = [
    "-m 64",
    "-nic user",
    "-nic user -nic user,net=10.9.0.0/24,mac=52:54:00:00:00:02",
    "-netdev user,id=net0 -device e1000,netdev=net0",
    "-netdev user,id=net1,hostfwd=tcp::83-:22 -device e1000,netdev=net1",
    "-nic user,smb=/srv",
    "-nic user,smb=/srv,hostfwd=tcp::83-:22 -nic user,restrict=on,net=10.0.3.0/24",
    "-netdev tap,id=net0 -device e1000,netdev=net0",
    "-net nic -net user -append -nic",
];

fn facts() -> Facts {
    let help = include_str!("../fixtures/probe/passt-2026-10-help.txt");
    let options = help.split_whitespace();
    let options =
        options.filter_map(|word| word.trim_end_matches(',').strip_prefix("--")).map(str::to_owned);
    let target = TargetBridge {
        bridge: "br0".parse().unwrap(),
        mtu: 1500,
        port: PortSettings::default(),
        firewall: Vec::new(),
    };
    Facts {
        passt: Passt {
            path: Some("/usr/bin/passt".into()),
            options: options.collect(),
            ..Passt::default()
        },
        qemu: Qemu {
            path: Some("/usr/bin/qemu".into()),
            netdevs: ["user", "stream", "tap", "vhost-user"].map(str::to_owned).into(),
            ..Qemu::default()
        },
        host: Host { root: true, default_v4: Some("eth0".into()), ..Host::default() },
        bridge: BridgeAccess { tun: true, net_admin: true, ..BridgeAccess::default() },
        target: Some(target.clone()),
        further_targets: vec![target; 4],
    }
}

fn made(nics: &[&str], qemu: &str, keep_nics: bool, fd: bool) -> Option<Plan> {
    plan(&request(nics, qemu, keep_nics, fd), &facts(), &launch_ids()).ok()
}

fn request(nics: &[&str], qemu: &str, keep_nics: bool, fd: bool) -> Request {
    let transport = fd.then_some(Transport::Fd);
    let nic = |text: &&str| {
        let nic: NicRequest = text.parse().unwrap();
        let is_passt = text.starts_with("passt");
        NicRequest { transport: transport.filter(|_| is_passt), ..nic }
    };
    let args = qemu.split(' ').map(OsString::from).collect();
    Request {
        nics: nics.iter().map(nic).collect(),
        keep_nics,
        command: Some(Command { program: "qemu".into(), args }),
        ..Request::default()
    }
}

fn launch_ids() -> LaunchIds {
    let user = |id| TransientUser { uid: id, gid: id };
    LaunchIds {
        dir: "/run/netlaunch/launch-abcdefgh".into(),
        mac: "52:54:00:12:34:56".parse().unwrap(),
        qemu_fds: (7..20).collect(),
        free_ports: Vec::new(),
        passt_users: (1_900_000_000..1_900_000_020).map(user).collect(),
    }
}

/// No two NICs have the same value.
fn distinct<T: Ord + Debug>(
    plan: &Plan,
    value: impl Fn(&NicPlan) -> Option<T>,
) -> Result<(), TestCaseError> {
    let all: Vec<T> = plan.nics.iter().filter_map(value).collect();
    let shown = format!("{all:?}");
    let count = all.len();
    prop_assert_eq!(all.into_iter().collect::<BTreeSet<T>>().len(), count, "{}", shown);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nics_share_no_id_address_descriptor_or_file(
        nics in prop::collection::vec(prop::sample::select(NICS.to_vec()), 0..4),
        qemu in prop::sample::select(QEMU.to_vec()),
        keep in any::<bool>(),
        fd in any::<bool>(),
    ) {
        let Some(plan) = made(&nics, qemu, keep, fd) else { return Ok(()) };
        distinct(&plan, |nic| nic.id.as_ref().map(|id| id.as_str().to_owned()))?;
        distinct(&plan, |nic| nic.mac)?;
        distinct(&plan, |nic| nic.fd)?;
        distinct(&plan, |nic| nic.passt.as_ref().map(|passt| passt.pid.clone()))?;
        distinct(&plan, |nic| nic.passt.as_ref().and_then(|passt| passt.socket.clone()))?;
        distinct(&plan, |nic| nic.passt.as_ref().and_then(|passt| passt.user).map(|user| user.uid))?;
        let is_added = |nic: &&NicPlan| nic.origin == Origin::Added;
        let added = plan.nics.iter().filter(is_added).count();
        let own = plan.nics.len() - added;
        prop_assert_eq!(added, if own == 0 { nics.len().max(1) } else { nics.len() });
        for nic in plan.nics.iter().filter(is_added) {
            let subnet = |nic: &NicPlan| match (nic.addresses, nic.request.address) {
                (Some(own), _) => Some(own.address.subnet()),
                (None, AddressChoice::Fixed(address)) => Some(address.subnet()),
                _ => None,
            };
            let same = plan.nics.iter().filter(|other| subnet(other) == subnet(nic)).count();
            prop_assert!(subnet(nic).is_none() || same == 1, "{:?}", plan.nics);
        }
        // The words that are no network stay, in their order.
        let words: Vec<OsString> = plan.qemu.argv().unwrap();
        let of_card: Vec<&str> = qemu.split(' ').filter(|word| word.contains("e1000")).collect();
        prop_assert!(of_card.iter().all(|word| words.iter().any(|other| other == word)), "{:?}", words);
    }
}

/// netlaunch's words for QEMU.
fn written(nics: &[&str], qemu: &str) -> String {
    let plan = made(nics, qemu, false, false).unwrap();
    shell_line(&plan.qemu.args)
}

#[test]
fn the_mtu_of_all_virtio_cards_does_not_reach_a_card_on_another_backend() {
    let global = "-global 'virtio-net-device.host_mtu=65520'";
    for (nic, own) in [("slirp", ",host_mtu=0"), ("bridge=br0", ",host_mtu=0")] {
        let words = written(&[nic], "-nic user,model=virtio");
        assert!(words.contains(global) && words.contains(own), "{words}");
        // No card gets a value that it does not need.
        for qemu in ["-nic user", "-netdev user,id=a -device virtio-net-pci,netdev=a"] {
            let words = written(&[nic], qemu);
            assert!(!words.contains("-global") && !words.contains(own), "{words}");
        }
    }
    let words = written(&["passt"], "-nic user,model=virtio");
    assert!(words.contains(global) && words.contains(",host_mtu=65520'"), "{words}");
    let words = written(&["slirp,device=e1000"], "-nic user,model=virtio");
    assert!(words.contains(global) && !words.contains(",host_mtu"), "{words}");
    // An attached card is one beside a guest that runs.
    let mut attached = request(&["slirp"], "-m 64", false, false);
    attached.present.has_global_mtu = true;
    let plan = plan(&attached, &facts(), &launch_ids()).unwrap();
    assert!(shell_line(&plan.qemu.args).contains(",host_mtu=0"), "{:?}", plan.qemu.args);
    // A file that is not readable may have a card.
    let words = written(&[], "-nic user,model=virtio -readconfig none");
    assert!(!words.contains("-global"), "{words}");
}

#[test]
fn a_line_whose_last_option_lacks_its_value_gets_no_word() {
    for qemu in ["-S -nic user -name", "-m", "-append x -kernel", "-nic tap --append"] {
        for nics in [&[][..], &["slirp", "passt"]] {
            let plan = made(nics, qemu, false, false).unwrap();
            let words: Vec<OsString> =
                ["qemu"].into_iter().chain(qemu.split(' ')).map(OsString::from).collect();
            assert_eq!(plan.qemu.supervised_argv(), Some(words), "{nics:?}");
            assert!(plan.qemu.args.is_empty(), "{nics:?}");
        }
    }
}

/// A plan with these settings of the single NIC.
fn with(nic: NicRequest, qemu: &str, keep_nics: bool) -> Result<Plan, PlanError> {
    let request = Request { nic, ..request(&[], qemu, keep_nics, false) };
    plan(&request, &facts(), &launch_ids())
}

#[test]
fn a_setting_that_the_network_has_already_is_accepted() {
    let publish =
        |port: &str| NicRequest { publish: vec![port.parse().unwrap()], ..NicRequest::default() };
    let hostname = |name: &str| NicRequest { hostname: name.parse().ok(), ..NicRequest::default() };
    let address = |address: &str| NicRequest {
        address: AddressChoice::Fixed(address.parse().unwrap()),
        ..NicRequest::default()
    };
    let gateway =
        |gateway: &str| NicRequest { gateway: gateway.parse().ok(), ..NicRequest::default() };
    let forward = "hostfwd=tcp:127.0.0.1:2222-:22";
    for (same, other, own) in [
        (publish("2222:22"), publish("2222:23"), forward),
        (hostname("a"), hostname("b"), "hostname=a"),
        (address("10.0.2.15/24"), address("10.0.2.16/24"), "ipv6=off"),
        (gateway("10.0.2.9"), gateway("10.0.2.2"), "host=10.0.2.9"),
    ] {
        let left = format!("-nic user,smb=/srv,{own}");
        let plan = with(same.clone(), &left, false).unwrap();
        assert!(plan.qemu.args.is_empty(), "{own}: {:?}", plan.qemu.args);
        assert!(with(other, &left, false).is_err(), "{own}");
        let nic = &with(same, &format!("-nic user,{own}"), false).unwrap().nics[0];
        assert_eq!(nic.publish.len(), usize::from(own == forward), "{own}");
    }
    // The gateway stays if the address is the network's own.
    let plan = with(address("10.0.2.15/24"), "-nic user,host=10.0.2.9", false).unwrap();
    assert_eq!(plan.nics[0].addresses.map(|own| own.gateway), "10.0.2.9".parse().ok());
}

#[test]
fn a_port_needs_ipv4_and_no_forward_of_a_network_that_is_kept() {
    let port: NicRequest =
        NicRequest { publish: vec!["2222:22".parse().unwrap()], ..NicRequest::default() };
    for (qemu, keep, words) in [
        ("-nic user,ipv4=off", false, "has no IPv4 for the port"),
        ("-nic user,ipv4=off,smb=/srv", false, "has no IPv4 for the port"),
        ("-nic user,hostfwd=tcp::2222-:22", true, "both use port 2222"),
        ("-nic user,smb=/srv,hostfwd=tcp::2222-:22", true, "both use port 2222"),
    ] {
        let error = with(port.clone(), qemu, keep).unwrap_err().to_string();
        assert!(error.contains(words), "{qemu}: {error}");
    }
    assert!(with(port, "-nic user,hostfwd=tcp::2223-:22", true).is_ok());
}

#[test]
fn vhost_user_needs_a_network_that_faces_its_card() {
    let hub = "-m 64 -netdev user,id=u -netdev hubport,id=h,hubid=1,netdev=u";
    let nic = NicRequest {
        transport: Some(Transport::VhostUser),
        backend: Some(Backend::Passt),
        ..NicRequest::default()
    };
    for (qemu, accepted) in [
        (format!("{hub} -nic hubport,hubid=1,model=virtio"), false),
        ("-m 64 -net nic,model=virtio -net user".to_owned(), true),
        (
            "-m 64 -net user -netdev hubport,id=h,hubid=0 -device virtio-net-pci,netdev=h"
                .to_owned(),
            false,
        ),
        ("-m 64 -nic user,model=virtio -nic tap".to_owned(), false),
        ("-m 64 -nic user,model=virtio".to_owned(), true),
    ] {
        let made = with(nic.clone(), &qemu, false);
        let error = made.err().map(|error| error.to_string());
        assert_eq!(error.is_none(), accepted, "{qemu}: {error:?}");
        assert!(error.is_none_or(|error| error.contains("vhost-user faces the card")), "{qemu}");
    }
}

#[test]
fn a_file_that_is_not_readable_leaves_the_usual_ids_alone() {
    for (nics, qemu) in
        [(&[][..], "-nic user -readconfig none"), (&["passt"], "-nic none -readconfig none")]
    {
        let plan = made(nics, qemu, false, false).unwrap();
        let id = plan.nics[0].id.as_ref().map(ToString::to_string);
        assert_eq!(id.as_deref(), Some("netlaunch-net0"), "{qemu}");
    }
}

#[test]
fn a_list_has_plans_on_this_host() {
    // The property above holds for plans only.
    for nics in NICS {
        assert!(made(&[nics, "slirp"], QEMU[0], false, false).is_some(), "{nics}");
    }
    for qemu in QEMU {
        assert!(made(&[], qemu, false, false).is_some(), "{qemu}");
        assert!(made(&["passt"], qemu, true, true).is_some(), "{qemu}");
    }
}
