//! virtme-ng 1.42: `vng --network user`. It asks QEMU for its version, then starts the guest with
//! `-net none -netdev user,id=n0`; QEMU reads the initramfs from an inherited descriptor.

use super::*;
use crate::common::scene::LIMIT;
use crate::common::start;

#[test]
fn vng_has_its_network_on_passt_and_its_status_is_the_commands() {
    let Some(bench) = Bench::new("vng_has_its_network_on_passt", "virtme-ng", As::Root) else {
        return;
    };
    let root = bench.made.join("virtme-root");
    let kernel = fs::read_dir(root.join("boot")).unwrap().next().unwrap().unwrap().path();
    // On a busy machine the command can start before the guest has its address, also with plain
    // QEMU.
    let address = "ip -4 -o address show eth0";
    let fetch = format!(
        "for n in $(seq 30); do {address} | grep -q inet && break; sleep 1; done; \
         wget -qO- http://10.0.2.2:{PAGE_PORT}/; {address}; exit 7"
    );
    let seen = bench.compare(|qemu| {
        let mut command = bench.launcher("virtme-ng/bin/vng", qemu);
        let programs = bench.made.join("virtme-ng");
        let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path);
        let path = path.unwrap().to_string_lossy().into_owned();
        command
            .env("PYTHONPATH", &programs)
            .env("PATH", format!("{path}:{}", programs.join("bin").display()));
        command.args(["--run", &word(&kernel), "--root", &word(&root)]);
        command.args("--disable-kvm --force-9p --network user --cpus 1 --memory 512M".split(' '));
        command.args(["--exec", &fetch]);
        let output = start(command).output(LIMIT);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        bench.seen(qemu, output.status.code(), &out, &err)
    });
    assert_eq!(seen.status, Some(7), "{seen:?}");
    assert!(seen.out.contains(PAGE) && seen.out.contains(" 10.0.2.15/24 "), "{seen:?}");
    moved_to_passt(&bench.log(), 1, "-netdev user,id=n0");
}
