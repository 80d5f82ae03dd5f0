//! Parses any words as a QEMU command line, with and without a configuration file, and moves its
//! user-mode networks. All other arguments stay byte for byte and in order, and no network that can
//! leave slirp is left over.

#![no_main]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a finding is a panic")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;
use netlaunch::launcher::adopt::{Change, UserNic, apply, edits, user_nics};
use netlaunch::launcher::plan::NicRequest;
use netlaunch::launcher::qemu_options::{CommandLine, ConfigFile, pass_through, user_networks};
use netlaunch::types::facts::{Facts, Passt, Qemu};

fuzz_target!(|bytes: &[u8]| {
    // The first part is the text of the file f, and a newline ends a word.
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (text, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let words = rest.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec()));
    let words: Vec<OsString> = words.collect();
    let line = CommandLine::parse(&words);
    assert_eq!(apply(&line, &[]), words);
    pass_through(&line);
    let files = [ConfigFile { path: "f".into(), text: text.to_vec() }];
    let settings = line.settings(&files);
    user_networks(&settings);

    let passt = Passt { options: ["map-host-loopback".to_owned()].into(), ..Passt::default() };
    let qemu = Qemu { default_card: Some(true), ..Qemu::default() };
    let facts = Facts { passt, qemu, ..Facts::default() };
    let options = NicRequest::default();
    let nics = user_nics(&line, &settings, &options, &facts);
    let change = |nic: &UserNic| match &nic.request {
        Ok(request) => {
            assert_eq!(request.id, nic.id);
            let netdev = format!("stream,id={}", nic.id).into();
            Change::Replace { args: vec!["-netdev".into(), netdev], mtu: Some(65520) }
        }
        Err(_) => Change::Append(vec!["hostfwd=::2222-:22".to_owned()]),
    };
    let moved = nics.iter().filter(|nic| nic.request.is_ok());
    let changes: Vec<_> = moved.map(|nic| (nic, change(nic))).collect();
    let done = edits(&line, &settings, &changes);
    let after = apply(&line, &done);
    let mut rest = &after[..];
    for (index, argument) in line.arguments().iter().enumerate() {
        if done.iter().all(|edit| edit.argument != Some(index)) {
            let kept = line.words_of(argument);
            let at = rest.windows(kept.len()).position(|words| words == kept).unwrap();
            rest = &rest[at + kept.len()..];
        }
    }
    let line = CommandLine::parse(&after);
    let again = user_nics(&line, &line.settings(&files), &options, &facts);
    assert!(again.iter().all(|nic| nic.request.is_err()), "{after:?}");
    let all: Vec<_> = nics.iter().map(|nic| (nic, change(nic))).collect();
    edits(&CommandLine::parse(&words), &settings, &all);
});
