//! debvm 0.2: `debvm-run`, with and without `-s PORT`. It starts the guest with
//! `-netdev user,id=net0[,hostfwd=tcp:127.0.0.1:PORT-:22]`.

use super::*;
use crate::common::scene::{LIMIT, Scene, alive};
use crate::common::start;

/// The forwarded port.
const SSH_PORT: &str = "8022";

/// Starts debvm-run with these options, and QEMU with a pid file.
fn debvm(bench: &Bench, qemu: Qemu, options: &[&str]) -> Scene {
    let mut command = bench.launcher("root/usr/bin/debvm-run", qemu);
    command.args(options).arg("-i").arg(bench.made.join("debvm.ext4"));
    command.args("-- -snapshot -machine accel=tcg -cpu max -m 256 -smp 1 -pidfile".split(' '));
    command.arg(pid_file(bench, qemu));
    let mut scene = Scene::start(command);
    scene.hear("SHELL ");
    let pid = fs::read_to_string(pid_file(bench, qemu)).unwrap();
    let pid: i32 = pid.trim().parse().unwrap();
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert!(alive(pid) && name.starts_with("qemu-system"), "the pid file has {pid}, {name}");
    scene
}

fn pid_file(bench: &Bench, qemu: Qemu) -> PathBuf {
    bench.directory(qemu).join("qemu.pid")
}

/// Waits for the end, which removes the pid file.
fn end(bench: &Bench, qemu: Qemu, mut scene: Scene) -> Seen {
    let status = scene.end().code();
    assert!(!pid_file(bench, qemu).exists());
    // The kernel starts in the middle of a line of the firmware.
    let out = scene.out.text();
    let of_the_guest = out.split_once("SHELL ").map_or("", |(_, rest)| rest);
    bench.seen(qemu, status, of_the_guest, &scene.err.text())
}

#[test]
fn debvm_has_its_network_on_passt() {
    let Some(bench) = Bench::new("debvm_has_its_network_on_passt", "debvm", As::Root) else {
        return;
    };
    let seen = bench.compare(|qemu| {
        let mut scene = debvm(&bench, qemu, &[]);
        let page = scene.ask(&format!("wget -qO- http://10.0.2.2:{PAGE_PORT}/"));
        assert_eq!(page, PAGE, "{}", scene.said());
        let address = scene.ask("ip -4 -o address show eth0");
        assert!(address.contains(" 10.0.2.15/24 "), "{address}");
        scene.say("poweroff -f");
        end(&bench, qemu, scene)
    });
    assert_eq!(seen.status, Some(0), "{seen:?}");
    moved_to_passt(&bench.log(), 0, "-netdev user,id=net0");
}

/// debvm-waitssh waits for the first words of the guest's SSH server, and ssh runs a command there.
#[test]
fn debvm_waitssh_and_ssh_reach_the_guest() {
    let Some(bench) = Bench::new("debvm_waitssh_and_ssh_reach_the_guest", "debvm", As::Root) else {
        return;
    };
    let seen = bench.compare(|qemu| {
        let scene = debvm(&bench, qemu, &["-s", SSH_PORT]);
        let mut wait = bench.launcher("root/usr/bin/debvm-waitssh", qemu);
        wait.args(["-t", "80", SSH_PORT]);
        let waited = start(wait).output(LIMIT);
        assert!(waited.status.success(), "{}\n{}", text(&waited.stderr), scene.said());
        let mut ssh = bench.sandbox.program(Path::new("/usr/bin/ssh"));
        let option = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"];
        ssh.args(["-q", "-o", option[0], "-o", option[1], "-p", SSH_PORT, "root@127.0.0.1"]);
        ssh.arg(format!("wget -qO- http://10.0.2.2:{PAGE_PORT}/; poweroff -f"));
        let page = finish(ssh);
        assert_eq!(text(&page.stdout), PAGE, "{}\n{}", text(&page.stderr), scene.said());
        end(&bench, qemu, scene)
    });
    assert_eq!(seen.status, Some(0), "{seen:?}");
    forward_moved(&bench, "-netdev user,id=net0,hostfwd=tcp:127.0.0.1:PORT-:22");
}
