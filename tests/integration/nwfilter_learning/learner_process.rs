//! The learner process of a port: one, without descriptors of its caller, seen by all users.

use super::*;

/// Checks that `binding-learn` refuses this port with an error of one line.
fn refused(scene: &PortScene, port: &str, why: &str) {
    let output = scene.nwfilter(&["binding-learn", port]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{port}: {said}");
    assert!(said.contains(port) && said.contains(why) && said.lines().count() == 1, "{said}");
}

#[test]
fn each_port_has_one_learner_process() {
    if !have_root("each_port_has_one_learner_process") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    bind(&scene, "any");
    let pid = learner(&scene);
    // A second learner has nothing to do.
    done(scene.nwfilter(&["binding-learn", "vnet0"])).unwrap();
    for numbers in ["7", "0,1", "7,7", "100,101", "7,8,9"] {
        let said = done(scene.nwfilter(&["binding-learn", "vnet0", numbers])).unwrap_err();
        assert!(said.contains("FD,FD: ") && said.lines().count() == 1, "{said}");
    }
    assert!(runs(pid));
    // `binding-learn` refuses a port without a filter, and a port whose filter needs no address.
    for (port, why) in [("nothere", "has no filter"), ("vnet1", "has no filter")] {
        refused(&scene, port, why);
    }
    scene.bind(Station::Vnet1, "clean-traffic", &[("IP", "10.2.3.5")]).unwrap();
    refused(&scene, "vnet1", "is not learned");
    assert_eq!(learner(&scene), pid);
    let status =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    let may = u64::from_str_radix(effective, 16).unwrap();
    const NET_ADMIN_AND_RAW: u64 = 1 << 12 | 1 << 13;
    assert_eq!(
        may & !NET_ADMIN_AND_RAW & !2,
        0,
        "only CAP_DAC_OVERRIDE may remain, too: {effective}"
    );
}

/// The learner process inherits no other open file of the caller, such as a lock, because it would
/// keep the file open as long as the port exists.
#[test]
fn the_learner_process_inherits_no_open_file_of_the_caller() {
    if !have_root("the_learner_process_inherits_no_open_file_of_the_caller") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let kept = scene.sandbox.path("kept");
    let file = scene.binding(Station::Vnet0, "clean-traffic", &[]);
    let netlaunch = env!("CARGO_BIN_EXE_netlaunch");
    let line = "exec 4>\"$1\" 9>\"$1\"; exec \"$2\" nwfilter binding-create \"$3\"";
    let mut command = scene.sandbox.program(Path::new("/bin/sh"));
    command.args(["-ec", line, "sh"]).arg(&kept).args([netlaunch, &file]);
    done(crate::common::finish(command)).unwrap();
    let pid = learner(&scene);
    let open = || -> Vec<PathBuf> {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect()
    };
    assert!(!open().contains(&kept), "{:?}", open());
    assert!(open().contains(
        &scene.sandbox.state().join("nwfilter/learners").join(learner_lock_name(&scene))
    ));
}

/// Returns the file name of vnet0's learner lock.
fn learner_lock_name(scene: &PortScene) -> String {
    let list = scene.list();
    let bindings = list["bindings"].as_array().unwrap();
    let bound = bindings.iter().find(|binding| binding["port"] == "vnet0").unwrap();
    format!("{}.seat", bound["index"])
}

/// An ordinary user can see the learner process, but cannot lock a file that a command waits for.
#[test]
fn an_ordinary_user_sees_the_learner_and_cannot_block_commands() {
    if !have_root("an_ordinary_user_sees_the_learner_and_cannot_block_commands") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    for dir in ["", "config", "state"] {
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(scene.sandbox.path(dir), open).unwrap();
    }
    // Earlier releases made the lock file with a mode that allows other users to open it.
    let lock = scene.sandbox.path("state/nwfilter/bindings/.lock");
    fs::create_dir_all(lock.parent().unwrap()).unwrap();
    fs::write(&lock, "").unwrap();
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o644)).unwrap();
    bind(&scene, "dhcp");
    let pid = learner(&scene);

    let as_user = |program: &[&str]| {
        let mut command = scene.sandbox.program(Path::new("setpriv"));
        command.arg(format!("--reuid={USER}")).arg(format!("--regid={USER}"));
        command.args(["--clear-groups", "--"]).args(program);
        crate::common::finish(command)
    };
    let netlaunch = scene.sandbox.path("bin/netlaunch");
    let list = [netlaunch.to_str().unwrap(), "nwfilter", "binding-list", "--json"];
    let seen = || -> Value {
        let output = as_user(&list);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        list["bindings"][0]["learning"]["pid"].clone()
    };
    assert_eq!(seen(), json!(pid.as_raw()));
    let learners = scene.sandbox.path("state/nwfilter/learners");
    for file in [lock, learners.join(".lock"), learners.join(learner_lock_name(&scene))] {
        let file = file.to_str().unwrap();
        let output = as_user(&["flock", "--nonblock", "--shared", file, "true"]);
        assert!(text(&output.stderr).contains("Permission denied"), "{file}: {output:?}");
    }
    // A command without permission reports that, and does not act as if the port had no learner.
    let output = as_user(&[&list[..2], &["binding-delete", "vnet0"]].concat());
    let said = text(&output.stderr);
    assert!(said.contains("Permission denied") && said.lines().count() == 1, "{said}");
    kill(pid, Signal::SIGKILL).unwrap();
    assert!(wait_until(LIMIT, || seen() == Value::Null));
}
