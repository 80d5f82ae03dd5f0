//! Tests that no two NICs of a plan share anything that belongs to one of them, for lists of NICs
//! beside QEMU arguments with networks of their own.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Debug;

use netlaunch::launcher::plan::{
    AddressChoice, Command, LaunchIds, NicPlan, NicRequest, Origin, Plan, Request, plan,
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
            netdevs: ["user", "stream", "tap"].map(str::to_owned).into(),
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
    let transport = fd.then_some(netlaunch::launcher::plan::Transport::Fd);
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
    let global = "-global virtio-net-device.host_mtu=65520";
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
