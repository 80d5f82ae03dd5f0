//! Tests `netlaunch logs`: the logs of a launch that runs, and those of the last run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::As;
use crate::common::bridges::{end, refused, up, waiting};
use crate::common::scene::{host, nothing_left, pid_of};

const BOTH: [As; 2] = [As::Root, As::User];

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_logs_of_a_launch_are_there_while_it_runs_and_after_its_end() {
    let test = "the_logs_of_a_launch_are_there_while_it_runs_and_after_its_end";
    for who in BOTH {
        let Some((_host, sandbox)) = host(test, who) else { return };
        let mark = sandbox.path("").to_string_lossy().into_owned();
        for run in 1..=2 {
            let options = ["--name", "web", "--backend", "passt"];
            let (scene, shown) = up(&sandbox, sandbox.netlaunch(&waiting(&options, &mark)));
            let logs = sandbox.good(&["logs", "web"]);
            // The level is debug, although the launch has no -v, and each line has its time.
            assert!(logs.starts_with("==> netlaunch.log <==\n20"), "{run}: {logs}");
            assert!(logs.contains("Z netlaunch: debug: QEMU: "), "{logs}");
            assert!(logs.contains("\n==> passt.log <==\n"), "{logs}");
            let path = shown["dir"].as_str().unwrap();
            assert_eq!(mode(&Path::new(path).join("netlaunch.log")), 0o600);
            assert!(!scene.err.text().contains("debug:"), "{}", scene.err.text());
            end(scene);
            nothing_left(&sandbox);

            let after = sandbox.good(&["logs", "web"]);
            assert!(after.starts_with(logs.split("\n\n==> ").next().unwrap()), "{after}");
            // SIGTERM can come before QEMU has its handler.
            let has_ended = |status: &str| after.contains(&format!("event=exit status={status}"));
            assert!(has_ended("0") || has_ended("143"), "{after}");
            assert_eq!(after.matches("event=exit").count(), 1, "only the last run: {after}");
            let kept = sandbox.state().join(".logs");
            assert_eq!((mode(&kept), mode(&kept.join("web"))), (0o700, 0o700));
            for file in ["netlaunch.log", "passt.log"] {
                assert_eq!(mode(&kept.join("web").join(file)), 0o600, "{file}");
            }
            assert_eq!(fs::read_dir(&kept).unwrap().count(), 1);
        }
    }
}

#[test]
fn a_launch_without_a_name_leaves_no_logs() {
    let test = "a_launch_without_a_name_leaves_no_logs";
    let Some((_host, sandbox)) = host(test, As::User) else { return };
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let (scene, shown) = up(&sandbox, sandbox.netlaunch(&waiting(&["--net", "slirp"], &mark)));
    let name = shown["name"].as_str().unwrap();
    assert!(sandbox.good(&["logs", name]).starts_with("==> netlaunch.log <==\n"));
    end(scene);
    assert!(!sandbox.state().join(".logs").exists());
    let (code, said) = refused(sandbox.netlaunch(&["logs", name]));
    assert!(
        code == Some(2) && said.contains("only a launch with a name leaves its logs"),
        "{said}"
    );
}

#[test]
fn the_log_says_that_qemu_was_killed() {
    let test = "the_log_says_that_qemu_was_killed";
    let Some((_host, sandbox)) = host(test, As::User) else { return };
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let options = ["-q", "--name", "web", "--net", "slirp"];
    let (mut scene, shown) = up(&sandbox, sandbox.netlaunch(&waiting(&options, &mark)));
    kill(Pid::from_raw(pid_of(&shown, "qemu")), Signal::SIGKILL).unwrap();
    assert_eq!(scene.end().code(), Some(137));
    assert_eq!(scene.err.text(), "", "-q reports errors only");
    let logs = sandbox.good(&["logs", "web"]);
    assert!(logs.contains("warning: QEMU was ended by SIGKILL"), "{logs}");
    nothing_left(&sandbox);
}
