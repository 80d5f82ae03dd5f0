//! `--print` for a shell, run by a shell.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use super::scene::Scene;
use crate::common::{As, have_root, text};

#[test]
fn the_printed_shell_text_runs_and_leaves_nothing() {
    if !have_root("the_printed_shell_text_runs_and_leaves_nothing") {
        return;
    }
    for who in [As::Root, As::User] {
        let scene = Scene::new(who);
        let print = |options: &[&str]| {
            let qemu = ["--", "qemu-system-x86_64", "-M", "q35", "-S", "-display", "none"];
            let words = [&["--print"][..], options, &qemu, &["-monitor", "stdio"]].concat();
            scene.sandbox.good(&words)
        };
        // Serves until QEMU has answered and left.
        let run = |shell: &str, script: &str| {
            let file = scene.sandbox.path("home/script");
            fs::write(&file, script).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
            let mut command = scene.sandbox.program(Path::new(shell));
            let path = scene.sandbox.path("bin").display().to_string();
            command.env("PATH", format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin"));
            command.arg(&file).stdin(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            input.write_all(b"info network\nquit\n").unwrap();
            drop(input);
            let output = child.wait_with_output().unwrap();
            (output.status.code(), text(&output.stdout) + &text(&output.stderr))
        };
        let state = || scene.sandbox.launch_dirs();
        for (options, serves) in [
            (&["--backend", "passt"][..], "type=stream,"),
            (&["--backend", "passt", "--transport", "fd"], "type=stream"),
            (&["--backend", "slirp", "--keep-nics"], "type=user"),
        ] {
            for shell in ["sh", "bash"] {
                let (status, said) = run(shell, &print(options));
                assert!(said.contains(serves) && said.contains("net0"), "{options:?}: {said}");
                assert_eq!(status, Some(0), "{options:?}: {said}");
                assert_eq!(state(), [] as [String; 0], "{options:?}");
            }
        }
        // The failure of passt is reported, and nothing is left.
        let script =
            print(&["--backend", "passt"]).replace("--foreground", "--foreground --bad-option");
        let (status, said) = run("sh", &script);
        assert!(status == Some(1) && said.contains("bad-option"), "{said}");
        assert_eq!(state(), [] as [String; 0]);
        if who == As::User {
            continue;
        }
        scene.netns.ip("link add nlodd3 type bridge");
        let (filter, ip) = (["--filter", "clean-traffic"], ["--filter-param", "IP=192.0.2.9"]);
        let shown = print(&[&["--bridge", "nlodd3"][..], &filter, &ip].concat());
        assert!(
            shown.contains("# rules of the guest's port, by the filter clean-traffic"),
            "{shown}"
        );
        assert!(!shown.contains("rules of the network"), "{shown}");
        let (status, said) = run("sh", &shown);
        assert!(status == Some(0) && said.contains("type=tap,ifname=nl-"), "{said}");
        assert_eq!(scene.netns.says("ip", &["-br", "link", "show", "master", "nlodd3"]), "");
        let tables = scene.netns.says("nft", &["list", "tables"]);
        assert!(!tables.contains("netlaunch"), "{tables}");
    }
}
