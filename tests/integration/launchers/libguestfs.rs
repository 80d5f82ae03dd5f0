//! libguestfs 1.48: guestfish with a network. It asks QEMU four times about itself, then starts the
//! guest with `-netdev user,id=usernet,net=169.254.0.0/16`.

use super::*;
use crate::common::scene::LIMIT;
use crate::common::start;

/// The guest's gateway, which leads to the namespace's loopback.
const GATEWAY: &str = "169.254.2.2";

#[test]
fn guestfish_has_its_network_on_passt_and_its_probes_go_to_qemu() {
    let test = "guestfish_has_its_network_on_passt";
    let Some(bench) = Bench::new(test, "libguestfs", As::User) else { return };
    let fetch = format!("wget -qO- http://{GATEWAY}:{PAGE_PORT}/; ip -4 -o address show eth0");
    let seen = bench.compare(|qemu| {
        let mut command = bench.launcher("root/usr/bin/guestfish", qemu);
        let root = bench.made.join("root").display().to_string();
        let here = format!("{}-linux-gnu", std::env::consts::ARCH);
        let libraries = format!("{root}/usr/lib/{here}:{root}/lib/{here}");
        let hypervisor = match qemu {
            Qemu::Plain => "/usr/bin/qemu-system-x86_64".into(),
            Qemu::StandIn => bench.stand_ins().join(QEMU),
        };
        command
            .env("LD_LIBRARY_PATH", libraries)
            .env("LIBGUESTFS_PATH", bench.made.join("appliance"))
            .env("LIBGUESTFS_BACKEND", "direct")
            .env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")
            .env("LIBGUESTFS_MEMSIZE", "512")
            // It remembers the probes' answers there.
            .env("LIBGUESTFS_CACHEDIR", bench.directory(qemu))
            .env("LIBGUESTFS_HV", hypervisor);
        command.args(["--network", "scratch", "1M", ":", "run", ":", "debug", "sh", &fetch]);
        let output = start(command).output(LIMIT);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        bench.seen(qemu, output.status.code(), &out, &err)
    });
    assert_eq!((seen.status, seen.err.as_str()), (Some(0), ""), "{seen:?}");
    assert!(seen.out.contains(PAGE) && seen.out.contains(" 169.254.2.15/16 "), "{seen:?}");
    moved_to_passt(&bench.log(), 4, "-netdev user,id=usernet,net=169.254.0.0/16");
}
