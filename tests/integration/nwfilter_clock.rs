//! Tests the clock by which learned leases end: the time since boot.

use std::fs;
use std::path::Path;

use crate::common::finish;
use crate::common::frame::{Frame, PEER, VM};
use crate::common::learning_scene::{bind, is_in_force, learns, lease, on_both};
use crate::common::port_scene::done;

/// The test uses a time namespace, which moves the time since boot and leaves the wall clock
/// unchanged (time_namespaces(7)).
#[test]
fn a_lease_ends_by_the_time_since_boot() {
    on_both("a_lease_ends_by_the_time_since_boot", |scene| {
        let reload_in = |seconds: &str| {
            let mut command = scene.sandbox.program(Path::new("/usr/bin/unshare"));
            command
                .args(["--time", "--boottime", seconds])
                .arg(scene.sandbox.path("bin/netlaunch"));
            done(finish({
                command.args(["firewall", "reload"]);
                command
            }))
            .unwrap();
        };
        bind(scene, "dhcp");
        lease(scene, VM.v4, 3600);
        learns(scene, Some(VM.v4));
        reload_in("3000");
        learns(scene, Some(VM.v4));
        is_in_force(scene);
        reload_in("7200");
        learns(scene, None);
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
        // A lease of another boot is ignored, even if it has no end.
        lease(scene, VM.v4, u32::MAX);
        learns(scene, Some(VM.v4));
        let file = scene.sandbox.path("state/nwfilter/leases/vnet0.json");
        let saved = fs::read_to_string(&file).unwrap();
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        fs::write(&file, saved.replace(id.trim(), "5f1a9a0e-0000-4000-8000-000000000000")).unwrap();
        reload_in("0");
        learns(scene, None);
    });
}
