//! A path is bytes, in every command and format.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::scene::{LIMIT, Scene, WAITS, bytes, odd};
use crate::common::schema::valid;
use crate::common::{As, finish, have_root, start, text, wait_until};

/// Checks and defines a filter whose file and whose directory have such names.
fn filters_may_be_there(dir: &Path, command: impl Fn(&[&OsStr]) -> Command) {
    let file = dir.join(odd(b"f\xff.xml"));
    let words = ["nwfilter".as_ref(), "check".as_ref(), file.as_os_str()];
    let said = text(&finish(command(&words)).stderr);
    assert!(said.contains("f\u{fffd}.xml: No such file"), "{said}");
    fs::write(&file, "<filter name='f'/>\n").unwrap();
    chown(&file, Some(fs::metadata(dir).unwrap().uid()), None).unwrap();
    let mut define = command(&["nwfilter".as_ref(), "define".as_ref(), file.as_os_str()]);
    define.env("NETLAUNCH_CONFIG_DIR", dir.join(odd(b"config\xff")));
    let output = finish(define);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(dir.join(odd(b"config\xff")).join("nwfilter/f.xml").exists());
}

#[test]
fn every_path_may_have_any_bytes() {
    if !have_root("every_path_may_have_any_bytes") {
        return;
    }
    for who in [As::Root, As::User] {
        let scene = Scene::new(who);
        let dir = scene.dir(odd(b"odd \xff\xc3"), if who == As::Root { 0o755 } else { 0o700 });
        symlink("/usr/bin/passt", dir.join("passt")).unwrap();
        symlink("/usr/bin/qemu-system-x86_64", dir.join("qemu")).unwrap();
        let state = scene.dir(odd(b"state\xfe"), 0o711);
        let command = |words: &[&OsStr]| {
            let mut command = scene.sandbox.netlaunch(words);
            command.env("NETLAUNCH_STATE_DIR", &state).env("TMPDIR", &dir);
            command.env("XDG_CACHE_HOME", dir.join(odd(b"cache\xff")));
            let mut path = dir.clone().into_os_string();
            path.push(":/usr/sbin:/usr/bin:/sbin:/bin");
            command.env("PATH", path);
            command
        };
        let (passt, pcap) = (dir.join("passt"), dir.join(odd(b"\xfe.pcap")));
        let options: Vec<&OsStr> =
            vec!["--device".as_ref(), "none".as_ref(), "--pcap".as_ref(), pcap.as_os_str()];
        let qemu: Vec<&OsStr> =
            ["--", "qemu"].iter().chain(&WAITS).map(|word| OsStr::new(*word)).collect();
        let json = |words: &[&OsStr], schema| {
            let output = finish(command(words));
            assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
            let value: Value = serde_json::from_slice(&output.stdout).unwrap();
            valid(schema, &value);
            value
        };
        let print = ["--print=json".as_ref(), "--passt".as_ref(), passt.as_os_str()];
        let plan = json(&[&print[..], &options, &qemu].concat(), "plan");
        let exact = |pointer: &str| {
            let shown = plan.pointer(pointer).and_then(Value::as_str);
            assert!(shown.is_some_and(|text| text.contains('\u{fffd}')), "{pointer}: {plan:#}");
            bytes(&plan["bytes"][pointer])
        };
        assert_eq!(exact("/passt/argv/0"), passt.as_os_str().as_bytes());
        assert_eq!(exact("/qemu/program"), dir.join("qemu").as_os_str().as_bytes());
        assert!(exact("/files/socket").starts_with(state.as_os_str().as_bytes()));
        for format in ["--print", "--print=xml"] {
            let words = [&[format.as_ref()], &options[..], &qemu].concat();
            assert!(finish(command(&words)).status.success(), "{format}");
        }
        let named = ["probe", "--json", "--qemu"].map(OsStr::new);
        let program = dir.join("qemu");
        let words = [&named[..], &[program.as_os_str()]].concat();
        for cached in [false, true] {
            let probe = json(&words, "probe");
            let path = bytes(&probe["bytes"]["/qemu/path"]);
            assert_eq!(path, program.as_os_str().as_bytes(), "{cached}");
        }

        let backend = ["--backend", "passt"].map(OsStr::new);
        let launch = start(command(&[&backend[..], &options, &qemu].concat()));
        let words = ["ps", "--json"].map(OsStr::new);
        let mut ps = Value::Null;
        let runs = || {
            ps = json(&words, "ps");
            ps["launches"].get(0).is_some_and(|one| !one["qemu"].is_null()) && pcap.exists()
        };
        assert!(wait_until(LIMIT, runs), "{ps:#}");
        let path = bytes(&ps["bytes"]["/launches/0/dir"]);
        assert!(path.starts_with(state.as_os_str().as_bytes()), "{ps:#}");
        let pid = nix::unistd::Pid::from_raw(launch.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        launch.output(LIMIT);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
        filters_may_be_there(&dir, command);
    }
}
