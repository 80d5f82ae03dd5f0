//! The programs in examples/ boot a guest. They are built with the library alone, without the
//! features of the command line, as a launcher of appliances builds it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::scene::{HOST, Scene, netns_with_resolver, nothing_left, qemu};
use crate::common::{AT_MOST, As, Guest, Sandbox, have_root, text};

/// Builds both examples, and returns their directory. `tests/run` has built them the same way, so
/// this takes a second.
fn examples() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--no-default-features", "--examples"]);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let program = Path::new(env!("CARGO_BIN_EXE_netlaunch"));
    program.parent().unwrap().join("examples")
}

#[test]
fn the_rust_examples_boot_a_guest_without_default_features() {
    let test = "the_rust_examples_boot_a_guest_without_default_features";
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return };
    let examples = examples();
    for name in ["appliance", "appliance_blocking"] {
        let netns = netns_with_resolver(HOST);
        let sandbox = Sandbox::new(As::User, Some(&netns));
        let program = sandbox.path("bin/program");
        std::fs::copy(examples.join(name), &program).unwrap();
        let mut command = sandbox.program(&program);
        let script = "serve_tcp 80 tcp-answer\necho 'UP .'\nread go\nexit_qemu 33";
        command.arg("2280:80").args(qemu(&sandbox, &guest, script));
        let mut scene = Scene::start(command);
        let started = scene.hear("QEMU is process ");
        assert!(started.ends_with(", on passt"), "{started}");
        scene.hear("UP ");
        let answer = netns.ask_tcp(2280, AT_MOST);
        assert_eq!(answer, "tcp-answer\n", "{}", scene.said());
        scene.say("go");
        assert_eq!(scene.end().code(), Some(33), "{name}: {}", scene.said());
        assert_eq!(scene.err.text(), "", "{name}");
        nothing_left(&sandbox);
    }
}
