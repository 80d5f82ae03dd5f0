//! netlaunch as a stand-in for QEMU: which program it becomes, and when it becomes none.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::common::wrapped::{NAME, Wrapped, qemu};
use crate::common::{finish, text};

#[test]
fn stand_ins_and_scripts_in_path_never_call_each_other_without_end() {
    let wrapped = Wrapped::new();
    let further = wrapped.sandbox.path("further");
    let scripts = wrapped.sandbox.path("scripts");
    fs::create_dir(&further).unwrap();
    fs::create_dir(&scripts).unwrap();
    fs::copy(wrapped.program(), further.join(NAME)).unwrap();
    // Another version has other bytes, and the same note.
    let mut bytes = fs::read(further.join(NAME)).unwrap();
    bytes.extend(b"another version");
    fs::write(further.join(NAME), bytes).unwrap();
    let script = wrapped.sandbox.script("script", &format!("exec {NAME} -S \"$@\""));
    fs::copy(script, scripts.join(NAME)).unwrap();
    let real = wrapped.real("echo real \"$@\"");
    let path = [wrapped.dir(), further, scripts.clone(), real.parent().unwrap().to_owned()];
    let path = std::env::join_paths(path).unwrap();
    for named in [None, Some(scripts.join(NAME)), Some(PathBuf::from("qemu-system-x86_64"))] {
        let mut command = wrapped.command();
        command.args(["-version"]).env("PATH", &path);
        command.envs(named.map(|named| ("NETLAUNCH_QEMU", named)));
        let output = finish(command);
        assert_eq!(text(&output.stdout), "real -S -version\n", "{}", text(&output.stderr));
    }
}

#[test]
fn a_wrapper_that_calls_qemu_by_name_never_comes_back_to_itself() {
    let wrapped = Wrapped::new();
    let path = [wrapped.dir(), wrapped.sandbox.path("real"), "/usr/bin:/bin".into()];
    let path = path.map(|dir| dir.display().to_string()).join(":");
    fs::create_dir(wrapped.sandbox.path("real")).unwrap();
    fs::create_dir(wrapped.sandbox.path("a:b")).unwrap();
    let real = wrapped.sandbox.script("real-qemu", "echo real \"$@\"");
    fs::copy(&real, wrapped.sandbox.path("real").join(NAME)).unwrap();
    let colon = wrapped.sandbox.path("a:b/script");
    for (body, place) in [
        (format!("exec {NAME} \"$@\""), colon),
        (format!("exec {NAME} \"$@\""), wrapped.sandbox.path("real/my-qemu")),
        (
            format!("env -i PATH=\"$PATH\" NETLAUNCH_QEMU=\"$0\" {NAME} \"$@\""),
            wrapped.sandbox.path("real/clears"),
        ),
    ] {
        fs::copy(wrapped.sandbox.script("wrapper", &body), &place).unwrap();
        let by_name = place.file_name().unwrap().to_owned();
        let names =
            if place.parent() == Some(&wrapped.sandbox.path("real")) && !body.starts_with("env") {
                vec![place.clone().into_os_string(), by_name]
            } else {
                vec![place.clone().into_os_string()]
            };
        for named in names {
            let mut command = wrapped.command();
            command.args(["-version"]).env("PATH", &path).env("NETLAUNCH_QEMU", &named);
            let output = finish(command);
            assert_eq!(
                text(&output.stdout),
                "real -version\n",
                "{named:?}: {}",
                text(&output.stderr)
            );
        }
    }
}

#[test]
fn a_link_of_another_name_to_a_stand_in_is_that_stand_in() {
    let wrapped = Wrapped::new();
    let real = wrapped.real("echo real \"$@\"");
    let link = wrapped.sandbox.path("bin/my-machine");
    symlink(wrapped.program(), &link).unwrap();
    let mut command = wrapped.sandbox.program(&link);
    command.args(["-version"]).env("NETLAUNCH_QEMU", &real);
    let output = finish(command);
    assert_eq!(text(&output.stdout), "real -version\n", "{}", text(&output.stderr));
}

#[test]
fn a_setting_that_must_hold_is_never_dropped() {
    if qemu("settings that must hold").is_none() {
        return;
    }
    let wrapped = Wrapped::new();
    let config = wrapped.sandbox.path("config/netlaunch.conf");
    let tftp = "-M pc -accel tcg -display none -nodefaults -S -nic user,tftp=/tmp";
    let incoming = "-M pc -accel tcg -display none -nodefaults -S -nic user -incoming defer";
    let other = "-M pc -accel tcg -display none -nodefaults -no-such-option";
    for (options, settings, line, status, words) in [
        ("--no-host-loopback", "", tftp, 2, "the options of wrap cannot hold"),
        ("--no-host-loopback", "", incoming, 125, "the options of wrap cannot hold"),
        ("--backend passt", "", tftp, 2, "cannot hold"),
        ("--passt-option no-such", "", tftp, 2, "cannot hold"),
        ("--pcap /tmp/frames", "", tftp, 2, "cannot hold"),
        (
            "",
            "host_loopback = false",
            tftp,
            2,
            "host_loopback = false in netlaunch.conf cannot hold",
        ),
        ("", "host_loopback = false", incoming, 125, "cannot hold"),
        // A mistake in another key does not open the host's loopback services.
        ("", "host_loopback = false\nno_such = 1", tftp, 2, "unknown key `no_such`"),
        ("", "host_loopback = \"no\"", tftp, 2, "cannot hold"),
        ("", "host_loopback = false\nmtu =", tftp, 2, "cannot hold"),
        // A call without a user-mode network needs neither.
        ("--no-host-loopback", "", other, 1, "no-such-option"),
        ("", "host_loopback = false", other, 1, "no-such-option"),
    ] {
        fs::write(&config, format!("[wrap]\n{settings}\n")).unwrap();
        let words_of =
            |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
        let mut args = vec!["wrap".to_owned()];
        args.extend(words_of(options));
        args.extend(["--".to_owned(), NAME.to_owned()]);
        args.extend(words_of(line));
        // A log changes nothing about the message.
        for log in [Path::new(""), &wrapped.log_path()] {
            let mut command = wrapped.sandbox.netlaunch(&args);
            command.env("NETLAUNCH_WRAP_LOG", log);
            let output = finish(command);
            let said = text(&output.stderr);
            let what = format!("{options} {settings} {log:?}: {said}");
            assert!(said.contains(words) && said.lines().count() == 1, "{what}");
            assert_eq!(output.status.code(), Some(status), "{what}");
        }
    }
}

#[test]
fn without_a_real_program_the_status_is_that_of_a_shell() {
    let wrapped = Wrapped::new();
    let not_executable = wrapped.sandbox.path("run").join(NAME);
    fs::write(&not_executable, "x").unwrap();
    let run = wrapped.sandbox.path("run");
    let itself = wrapped.program();
    for (path, named, status, message) in [
        (wrapped.dir(), None, 127, "no qemu-system-x86_64 besides netlaunch itself is in PATH"),
        (run.clone(), None, 126, "is not a program that this user can execute"),
        (run.clone(), Some(run.join("none")), 127, "does not exist"),
        (run.clone(), Some(itself), 126, "is netlaunch itself"),
    ] {
        let mut command = wrapped.command();
        command.arg("-version").env("PATH", path);
        command.envs(named.map(|named| ("NETLAUNCH_QEMU", named)));
        let output = finish(command);
        assert_eq!(output.status.code(), Some(status), "{message}");
        let said = text(&output.stderr);
        assert!(said.starts_with("netlaunch: error: ") && said.contains(message), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(wrapped.log().contains(message), "{}", wrapped.log());
    }
}
