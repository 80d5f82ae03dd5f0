//! Properties of the plan of a command line without network options: QEMU gets each of the caller's
//! words, in their order.

use std::ffi::OsString;

use netlaunch::launcher::plan::{Backend, Command, LaunchIds, NicRequest, Request, json, plan};
use netlaunch::launcher::qemu_options::takes_value;
use netlaunch::types::facts::{Facts, Host, Passt, Qemu};
use proptest::prelude::*;
use serde_json::Value;

use crate::common::{As, Sandbox, finish, text};

/// Known options that say nothing about the network.
const OPTIONS: [&str; 22] = [
    "-S",
    "-append",
    "-bios",
    "-boot",
    "-cdrom",
    "-chardev",
    "-cpu",
    "-display",
    "-drive",
    "-enable-kvm",
    "-initrd",
    "-kernel",
    "-m",
    "-monitor",
    "-name",
    "-no-reboot",
    "-nodefaults",
    "-nographic",
    "-object",
    "-serial",
    "-smp",
    "-snapshot",
];
const VALUES: [&str; 12] = [
    "-netdev",
    "--nic",
    "-net user",
    "user,id=net0",
    "nic,model=virtio",
    "id=net0",
    "type=user,netdev=net0",
    "virtio-net-pci,netdev=net0,mac=52:54:00:12:34:56",
    "{\"type\":\"user\",\"id\":\"net0\"}",
    "a,,b",
    "1",
    "",
];

fn facts(default_card: bool) -> Facts {
    let help = include_str!("../../fixtures/probe/passt-2026-10-help.txt");
    let options = help.split_whitespace();
    let options = options.filter_map(|word| word.trim_end_matches(',').strip_prefix("--"));
    Facts {
        passt: Passt {
            path: Some("/usr/bin/passt".into()),
            options: options.map(str::to_owned).collect(),
            ..Passt::default()
        },
        qemu: Qemu {
            path: Some("/usr/bin/qemu".into()),
            netdevs: ["user", "stream"].map(str::to_owned).into(),
            default_card: Some(default_card),
            ..Qemu::default()
        },
        host: Host { default_v4: Some("eth0".into()), ..Host::default() },
        ..Facts::default()
    }
}

fn option() -> impl Strategy<Value = Vec<String>> {
    let option = prop::sample::select(OPTIONS.to_vec());
    let value = prop::sample::select(VALUES.to_vec());
    (option, any::<bool>(), value).prop_map(|(option, doubled, value)| {
        let name = option.trim_start_matches('-');
        let option = if doubled { format!("--{name}") } else { option.to_owned() };
        let value = (takes_value(name) == Some(true)).then(|| value.to_owned());
        [option].into_iter().chain(value).collect()
    })
}

/// QEMU's argument vector in a plan's JSON, without QEMU's own name.
fn argv(plan: &Value) -> Vec<String> {
    let words = plan["qemu"]["argv"].as_array().unwrap().iter().skip(1);
    words.map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// Whether `words` has all of `part`, in their order.
fn is_subsequence(part: &[String], words: &[String]) -> bool {
    let mut rest = words.iter();
    part.iter().all(|word| rest.any(|other| other == word))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_plan_has_each_word_of_a_line_without_network_options(
        line in prop::collection::vec(option(), 0..8),
        default_card in any::<bool>(),
        backend in prop::sample::select(vec![None, Some(Backend::Passt), Some(Backend::Slirp)]),
        publish in any::<bool>(),
    ) {
        let words = line.concat();
        let publish = publish.then(|| "2222:22".parse().unwrap());
        let nic = NicRequest { backend, publish: publish.into_iter().collect(), ..NicRequest::default() };
        let args = words.iter().map(OsString::from).collect();
        let command = Some(Command { program: "qemu".into(), args });
        let request = Request { nic, command, ..Request::default() };
        let launch_ids = LaunchIds {
            dir: "/run/netlaunch/launch-abcdefgh".into(),
            mac: "52:54:00:12:34:56".parse().unwrap(),
            qemu_fds: vec![7],
            free_ports: Vec::new(), passt_users: Vec::new(),
        };
        let shown = json(&plan(&request, &facts(default_card), &launch_ids).unwrap());
        prop_assert!(is_subsequence(&words, &argv(&shown)), "{words:?}: {shown}");
        let nics = shown["nics"].as_array().unwrap();
        prop_assert_eq!(nics.len(), 1, "{}", shown);
    }
}

/// The same with the program and the QEMU of this machine.
#[test]
fn the_printed_plan_has_each_word_of_a_line_without_network_options() {
    let sandbox = Sandbox::new(As::User, None);
    for line in [
        vec![],
        vec!["-m", "64", "-append", "-netdev user,id=a", "-name", "-nic"],
        vec!["-kernel", "-net", "--append", "-nodefaults", "--nodefaults", "disk,id=net0.img"],
        vec!["-chardev", "null,id=net0", "-serial", "chardev:net0", "-M", "microvm"],
    ] {
        let options = ["--print=json", "--backend", "slirp", "--", "qemu-system-x86_64"];
        let output = finish(sandbox.netlaunch(&[&options[..], &line].concat()));
        assert!(output.status.success(), "{line:?}: {}", text(&output.stderr));
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        let line: Vec<String> = line.into_iter().map(str::to_owned).collect();
        assert!(is_subsequence(&line, &argv(&shown)), "{line:?}: {shown}");
    }
}
