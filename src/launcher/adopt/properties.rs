//! Properties of random command lines.

use std::ffi::OsString;

use proptest::prelude::*;

use super::super::plan::NicRequest;
use super::super::qemu_options::CommandLine;
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
