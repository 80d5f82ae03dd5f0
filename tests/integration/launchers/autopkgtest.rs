//! autopkgtest-virt-qemu 5.28: the test bed of Debian's package tests. It starts the guest with
//! `-net nic,model=virtio -net user,hostfwd=tcp:127.0.0.1:PORT-:22`, where PORT is the first free
//! one from 10022 on.
//!
//! The test speaks its protocol at the standard streams, as autopkgtest does.

use std::process::Command;

use super::*;
use crate::common::scene::{LIMIT, Scene};
use crate::common::wait_until;

#[test]
fn the_test_bed_of_autopkgtest_runs_commands_in_a_guest_with_a_network() {
    let test = "the_test_bed_of_autopkgtest";
    let Some(bench) = Bench::new(test, "autopkgtest", As::Root) else { return };
    let seen = bench.compare(|qemu| {
        let library = bench.made.join("root/usr/share/autopkgtest/lib");
        let mut command = bench.launcher("root/usr/bin/autopkgtest-virt-qemu", qemu);
        let options = format!(
            "-machine accel=tcg -cpu max -kernel {} -initrd {} -append autopkgtest",
            bench.made.join("kernel").display(),
            bench.made.join("autopkgtest.initrd").display()
        );
        command.env("PYTHONPATH", library);
        command.args([
            "--ram-size=256",
            "--timeout-reboot=120",
            &format!("--qemu-options={options}"),
        ]);
        command.arg(bench.made.join("autopkgtest.img"));
        let mut bed = TestBed { scene: Scene::start(command), answers: 0 };
        assert_eq!(bed.answer(), "ok");
        bed.say("capabilities");
        bed.say("open");
        bed.say("print-execute-command");
        let run = bed.answers().pop().unwrap();
        let run = run.strip_prefix("ok ").unwrap();
        let page =
            bench.run_in_bed(run, &format!("wget -qO- http://10.0.2.2:{PAGE_PORT}/; exit 3"));
        assert_eq!(page, (Some(3), PAGE.to_owned()), "{}", bed.scene.said());
        let (_, address) = bench.run_in_bed(run, "ip -4 -o address show eth0");
        assert!(address.contains(" 10.0.2.15/24 "), "{address}");
        bed.say("close");
        bed.scene.say("quit");
        let status = bed.scene.end().code();
        bench.seen(qemu, status, &bed.scene.out.text(), &bed.scene.err.text())
    });
    assert_eq!(seen.status, Some(0), "{seen:?}");
    forward_moved(&bench, "-net user,hostfwd=tcp:127.0.0.1:PORT-:22");
}

/// The launcher at the other end of the protocol.
struct TestBed {
    scene: Scene,
    /// How many answers were awaited.
    answers: usize,
}

impl TestBed {
    /// Sends a command and returns its answer.
    fn say(&mut self, command: &str) -> String {
        self.scene.say(command);
        self.answer()
    }

    /// Waits for one more answer.
    fn answer(&mut self) -> String {
        self.answers += 1;
        let answered = wait_until(LIMIT, || self.answers().len() >= self.answers);
        assert!(answered, "no answer {}\n{}", self.answers, self.scene.said());
        self.answers().pop().unwrap()
    }

    /// All complete answers so far.
    fn answers(&self) -> Vec<String> {
        let text = self.scene.out.text();
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        complete.lines().map(str::to_owned).collect()
    }
}

impl Bench {
    /// Has the command that the launcher made run a script in the guest.
    fn run_in_bed(&self, command: &str, script: &str) -> (Option<i32>, String) {
        let mut command: Command = self.sandbox.program(command.as_ref());
        command.args(["sh", "-c", script]);
        let output = finish(command);
        (output.status.code(), text(&output.stdout))
    }
}
