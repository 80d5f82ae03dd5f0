//! Properties of random command lines.

use std::ffi::OsString;

use proptest::prelude::*;

use super::super::plan::NicRequest;
use super::super::qemu_options::{CommandLine, takes_value};
use super::tests::facts;
use super::*;

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

/// Known options that say nothing about the network, or that netlaunch only reads.
const OTHERS: [&str; 30] = [
    "-append",
    "-audiodev",
    "-bios",
    "-blockdev",
    "-boot",
    "-cdrom",
    "-chardev",
    "-cpu",
    "-daemonize",
    "-display",
    "-drive",
    "-enable-kvm",
    "-fw_cfg",
    "-global",
    "-hda",
    "-incoming",
    "-initrd",
    "-kernel",
    "-m",
    "-machine",
    "-monitor",
    "-name",
    "-nographic",
    "-object",
    "-readconfig",
    "-S",
    "-serial",
    "-set",
    "-smbios",
    "-snapshot",
];
/// Values of these options in the shape of network options.
const VALUES: [&str; 16] = [
    "-netdev",
    "--nic",
    "-net",
    "user",
    "user,id=a",
    "nic,model=virtio,netdev=a",
    "user,hostfwd=tcp::2222-:22",
    "type=user",
    "virtio-net-pci,netdev=a",
    "{\"type\":\"user\",\"id\":\"a\"}",
    "netdev.n.hostname=x",
    "virtio-net-pci.netdev=n",
    "-nodefaults",
    "none",
    "-",
    "",
];
/// User-mode networks with their cards.
const NETWORKS: [&str; 6] = [
    "-netdev user,id=n -device virtio-net-pci,netdev=n",
    "--netdev user,id=n, --device {\"driver\":\"virtio-net-pci\",\"netdev\":\"n\"}",
    "-nic user,model=virtio,mac=52:54:00:00:00:01",
    "-nic user -nic tap",
    "-net nic,model=e1000 -net user,hostfwd=tcp::2222-:22",
    "-nic user,smb=/srv",
];

/// An option of [`OTHERS`] in one of its spellings, with a value if it takes one.
fn other() -> impl Strategy<Value = Vec<OsString>> {
    use std::os::unix::ffi::OsStringExt;
    let any_bytes = prop::collection::vec(any::<u8>(), 0..8).prop_map(OsString::from_vec);
    let shaped = prop::sample::select(VALUES.to_vec()).prop_map(OsString::from);
    let value = prop_oneof![4 => shaped, 1 => any_bytes];
    let option = prop::sample::select(OTHERS.to_vec());
    (option, any::<bool>(), value).prop_map(|(option, doubled, value)| {
        let name = option.trim_start_matches('-');
        let option = OsString::from(if doubled { format!("--{name}") } else { option.to_owned() });
        match takes_value(name) {
            Some(true) => vec![option, value],
            _ => vec![option],
        }
    })
}

/// Moves each network of a line; returns the new words and the edits.
fn moved(line: &CommandLine) -> (Vec<OsString>, Vec<Edit>) {
    let settings = line.settings(&[]);
    let found = user_nics(line, &settings, &NicRequest::default(), &facts());
    let change = |nic: &UserNic| {
        let args = vec!["-netdev".into(), format!("n,id={}", nic.id).into()];
        Change::Replace { args, mtu: Some(9000) }
    };
    let leaving = found.iter().filter(|nic| nic.request.is_ok());
    let changes: Vec<_> = leaving.map(|nic| (nic, change(nic))).collect();
    let edits = edits(line, &settings, &changes);
    (apply(line, &edits), edits)
}

proptest! {
    /// Values that look like network options are data.
    #[test]
    fn options_that_are_no_networks_come_out_byte_for_byte_and_in_order(
        before in prop::collection::vec(other(), 0..6),
        network in prop::option::of(prop::sample::select(NETWORKS.to_vec())),
        after in prop::collection::vec(other(), 0..6),
    ) {
        let (before, after) = (before.concat(), after.concat());
        let network: Vec<OsString> =
            network.unwrap_or_default().split_whitespace().map(OsString::from).collect();
        let (words, edits) = moved(&CommandLine::parse(&[&before[..], &network, &after].concat()));
        prop_assert!(words.starts_with(&before), "{words:?}");
        // New words are where the network was, and behind the last word.
        let added = edits.iter().filter(|edit| edit.argument.is_none());
        let end = words.len() - added.map(|edit| edit.words.len()).sum::<usize>();
        prop_assert!(words[..end].ends_with(&after), "{words:?}");
        if network.is_empty() {
            prop_assert_eq!(&words[..end], &[before, after].concat()[..]);
        }
    }
}

#[test]
fn each_other_option_is_known() {
    assert!(OTHERS.iter().all(|option| takes_value(option.trim_start_matches('-')).is_some()));
    for network in NETWORKS {
        let words: Vec<OsString> = network.split_whitespace().map(OsString::from).collect();
        let (after, edits) = moved(&CommandLine::parse(&words));
        assert_eq!(after == words, network.contains("smb"), "{edits:?}");
    }
}
