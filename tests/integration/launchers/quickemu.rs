//! quickemu 4.9: a script that writes QEMU's line, starts it in the background and ends. The
//! guest's network is `-netdev user,hostname=vm,hostfwd=tcp::22220-:22,id=nic`.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::common::scene::{LIMIT, alive};
use crate::common::wait_until;

const CONF: &str = "guest_os=\"linux\"
disk_img=\"disk.qcow2\"
iso=\"boot.iso\"
boot=\"legacy\"
cpu_cores=\"1\"
ram=\"512M\"
";

/// quickemu refuses a processor without SVM or VT-x if lscpu names Intel or AMD.
const LSCPU: &str = "#!/bin/sh\n/usr/bin/lscpu \"$@\" | sed 's/^\\(Vendor ID: *\\).*/\\1other/'\n";

#[test]
fn a_guest_of_quickemu_lives_on_with_its_network_on_passt() {
    let test = "a_guest_of_quickemu_lives_on";
    let Some(bench) = Bench::new(test, "quickemu", As::Root) else { return };
    bench.use_newer_passt();
    let seen = bench.compare(|qemu| {
        let dir = bench.directory(qemu);
        let ended = quickemu(&bench, qemu);
        assert!(ended.status.success(), "{}\n{}", text(&ended.stdout), text(&ended.stderr));
        // quickemu ends a quarter of a second after it started QEMU.
        assert!(
            wait_until(LIMIT, || read(&dir, "vm.pid").ends_with('\n')),
            "{}",
            read(&dir, "vm.log")
        );
        let pid: i32 = read(&dir, "vm.pid").trim().parse().unwrap();
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert!(alive(pid) && program.ends_with(QEMU), "the pid file has {pid}, {program:?}");
        assert!(!read(&dir, "console").contains("PAGE "), "the guest was faster than quickemu");

        let page = wait_until(LIMIT, || read(&dir, "console").contains(&format!("PAGE {PAGE}")));
        let said = ["console", "vm.log"].map(|name| read(&dir, name));
        assert!(page, "{}\n{}", said[0], said[1]);
        assert!(wait_until(LIMIT, || !alive(pid)), "the guest does not end");
        assert!(!dir.join("vm.pid").exists());
        let out = text(&ended.stdout).replace(&bench.stand_ins().display().to_string(), "/usr/bin");
        bench.seen(qemu, ended.status.code(), &without_pid(&out), &said[1])
    });
    assert_eq!(seen.err, "", "{seen:?}");
    moved_to_passt(&bench.log(), 1, "-netdev user,hostname=vm,hostfwd=tcp::22220-:22,id=nic");
}

/// Runs quickemu in the run's directory up to its end.
fn quickemu(bench: &Bench, qemu: Qemu) -> std::process::Output {
    let dir = bench.directory(qemu);
    let root = bench.made.join("root");
    let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    fs::create_dir(dir.join("bin")).unwrap();
    fs::write(dir.join("bin/lscpu"), LSCPU).unwrap();
    fs::set_permissions(dir.join("bin/lscpu"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("vm.conf"), CONF).unwrap();
    fs::write(dir.join("boot.iso"), vec![0; 1 << 20]).unwrap();
    let mut disk = bench.sandbox.program(Path::new("/usr/bin/qemu-img"));
    disk.args(["create", "-q", "-f", "qcow2"]).arg(dir.join("disk.qcow2")).arg("64M");
    assert!(finish(disk).status.success());

    let guest = format!(
        "-kernel {} -initrd {} -append nl.fetch=http://10.0.2.2:{PAGE_PORT}/",
        word(&bench.made.join("kernel")),
        word(&bench.made.join("autopkgtest.initrd"))
    );
    let console = word(&dir.join("console"));
    let extra = format!("-machine accel=tcg -cpu max -serial file:{console} {guest}");
    let mut command = bench.launcher("root/usr/bin/quickemu", qemu);
    let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path);
    let path = format!("{}:{}", word(&dir.join("bin")), path.unwrap().to_string_lossy());
    // SPICE is a module of QEMU.
    command
        .env("PATH", path)
        .env("LD_LIBRARY_PATH", &libraries)
        .env("QEMU_MODULE_DIR", libraries.join("qemu"))
        .current_dir(&dir);
    command
        .args("--vm vm.conf --display none --viewer none --monitor none --serial none".split(' '));
    command.args(["--extra_args", &extra]);
    finish(command)
}

fn read(dir: &Path, name: &str) -> String {
    fs::read(dir.join(name)).map(|bytes| text(&bytes)).unwrap_or_default()
}

/// quickemu ends with QEMU's process number, in parentheses.
fn without_pid(out: &str) -> String {
    let lines = out.lines().map(|line| match line.rsplit_once(" (") {
        Some((before, after)) if line.contains("Process: ") && after.ends_with(')') => before,
        _ => line,
    });
    lines.map(|line| format!("{line}\n")).collect()
}
