//! Tests that another user of the host cannot make root use another path, through that user's
//! environment variables or directories.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{As, Netns, Sandbox, USER, finish, have_root, text};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// The attacker: a user id without an account, different from the tests' ordinary user.
const ATTACKER: u32 = 54_321;
/// A launch that ends soon: it makes its directory, and then QEMU refuses an option.
const LAUNCH: &str = "-v --backend slirp -- qemu-system-x86_64 -M none -no-such-option";

struct Scene {
    sandbox: Sandbox,
    _netns: Netns,
}

impl Scene {
    fn new(who: As) -> Self {
        let netns = Netns::routed();
        Scene { sandbox: Sandbox::new(who, Some(&netns)), _netns: netns }
    }

    fn dir(&self, name: &str, owner: u32, mode: u32) -> PathBuf {
        let path = self.sandbox.path(name);
        fs::create_dir(&path).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Makes a directory of root with a launch directory that the attacker wants to have removed.
    fn victim(&self) -> PathBuf {
        let victim = self.dir("victim", 0, 0o755);
        fs::create_dir(victim.join("launch-aaaaaaaa")).unwrap();
        fs::write(victim.join("launch-aaaaaaaa/file"), "precious").unwrap();
        victim
    }

    fn link(&self, to: &Path, at: &Path) {
        symlink(to, at).unwrap();
        lchown(at, Some(ATTACKER), Some(ATTACKER)).unwrap();
    }

    /// Returns a shell command of the sandbox's user, in which `{}` stands for netlaunch. For root,
    /// it has private mounts, so that it can mount over the host's directories.
    fn shell(&self, line: &str) -> Command {
        let netlaunch = self.sandbox.path("bin/netlaunch").display().to_string();
        let line = line.replace("{}", &netlaunch);
        let root = self.sandbox.who == As::Root;
        let mut command = self.sandbox.program(Path::new(if root { "unshare" } else { "sh" }));
        if root {
            command.args(["--mount", "--propagation", "private", "sh"]);
        }
        command.args(["-c", &line]).env_remove("NETLAUNCH_STATE_DIR");
        command
    }
}

/// Checks that the launch reached QEMU, which refused the option, and returns the messages.
fn launched(output: &Output) -> String {
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("no-such-option"), "{said}");
    said
}

fn untouched(victim: &Path) {
    assert_eq!(fs::read_to_string(victim.join("launch-aaaaaaaa/file")).unwrap(), "precious");
    let is = fs::metadata(victim).unwrap();
    assert_eq!((is.uid(), is.mode() & 0o7777), (0, 0o755));
    assert_eq!(fs::read_dir(victim).unwrap().count(), 1);
}

#[test]
fn root_does_not_use_another_users_runtime_directory() {
    if !have_root("root_does_not_use_another_users_runtime_directory") {
        return;
    }
    let scene = Scene::new(As::Root);
    let victim = scene.victim();
    let theirs = scene.dir("theirs", ATTACKER, 0o700);
    let below = scene.dir("theirs/mine", 0, 0o700);
    scene.link(&victim, &theirs.join("netlaunch"));
    let pretty = scene.sandbox.path("link");
    scene.link(&theirs, &pretty);
    scene.link(&victim, &below.join("netlaunch"));
    let inside =
        format!("mount -t tmpfs none /run && {{}} {LAUNCH}; ls /run/netlaunch* 2>/dev/null");
    for (dir, why) in [
        (&theirs, format!("{} belongs to user {ATTACKER}", theirs.display())),
        (&below, format!("{} belongs to user {ATTACKER}", theirs.display())),
        (&pretty, format!("{} is a symbolic link of user {ATTACKER}", pretty.display())),
    ] {
        let line = format!("mount -t tmpfs none /run && exec {{}} {LAUNCH}");
        let mut command = scene.shell(&line);
        command.env("XDG_RUNTIME_DIR", dir);
        let said = launched(&finish(command));
        assert!(said.contains(&format!("XDG_RUNTIME_DIR is not used: {why}")), "{said}");
        untouched(&victim);
    }
    // The directory must be unchanged, because the user's own launches need it.
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 2);
    let mut command = scene.shell(&inside);
    command.env("XDG_RUNTIME_DIR", &theirs);
    assert_eq!(text(&finish(command).stdout), "", "nothing is left in /run");
}

#[test]
fn links_in_roots_runtime_directory_are_not_followed() {
    if !have_root("links_in_roots_runtime_directory_are_not_followed") {
        return;
    }
    let scene = Scene::new(As::Root);
    let victim = scene.victim();
    let mine = scene.dir("mine", 0, 0o700);
    let run = |line: &str| {
        let mut command = scene.shell(line);
        command.env("XDG_RUNTIME_DIR", &mine);
        finish(command)
    };
    let said = launched(&run(&format!("exec {{}} {LAUNCH}")));
    assert!(!said.contains("XDG_RUNTIME_DIR"), "{said}");
    scene.link(&victim, &mine.join("netlaunch"));
    let output = run(&format!("exec {{}} {LAUNCH}"));
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(125) && said.contains("symbolic link"), "{said}");
    untouched(&victim);
}

#[test]
fn roots_directory_below_run_is_refused_if_others_can_change_it() {
    if !have_root("roots_directory_below_run_is_refused_if_others_can_change_it") {
        return;
    }
    let scene = Scene::new(As::Root);
    for make in [
        format!("mkdir /run/netlaunch && chown {ATTACKER} /run/netlaunch"),
        format!("mkdir -m 770 /run/netlaunch && chgrp {ATTACKER} /run/netlaunch"),
        "mkdir -m 777 /run/netlaunch".to_owned(),
    ] {
        let line = format!("mount -t tmpfs none /run && {make} && exec {{}} {LAUNCH}");
        let mut command = scene.shell(&line);
        command.env_remove("XDG_RUNTIME_DIR");
        let output = finish(command);
        let said = text(&output.stderr);
        let why = "/run/netlaunch belongs to another user or is open to others";
        assert!(output.status.code() == Some(125) && said.contains(why), "{make}: {said}");
    }
}

/// The owner of the parent directory exchanges root's state directory and a link while root
/// launches.
#[test]
fn a_state_directory_that_is_exchanged_for_a_link_does_not_lead_elsewhere() {
    if !have_root("a_state_directory_that_is_exchanged_for_a_link_does_not_lead_elsewhere") {
        return;
    }
    let scene = Scene::new(As::Root);
    let victim = scene.victim();
    let theirs = scene.dir("theirs", ATTACKER, 0o755);
    let state = scene.dir("theirs/state", 0, 0o711);
    let link = theirs.join("link");
    scene.link(&victim, &link);
    let done = AtomicBool::new(false);
    let mut codes = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &state, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).unwrap();
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        });
        for _ in 0..60 {
            let mut command = scene.shell(&format!("exec {{}} {LAUNCH}"));
            command.env("NETLAUNCH_STATE_DIR", &state);
            codes.push(finish(command).status.code());
        }
        done.store(true, Ordering::Relaxed);
    });
    untouched(&victim);
    assert!(codes.contains(&Some(125)), "{codes:?}");
}

#[test]
fn a_temporary_directory_without_a_sticky_bit_is_not_used() {
    if !have_root("a_temporary_directory_without_a_sticky_bit_is_not_used") {
        return;
    }
    let scene = Scene::new(As::User);
    let print = |tmp: &Path| {
        let mut command =
            scene.shell("exec {} -v --print --device virtio-net-pci -- qemu-system-x86_64");
        command.env("TMPDIR", tmp).env_remove("XDG_RUNTIME_DIR");
        let output = finish(command);
        (text(&output.stdout), text(&output.stderr))
    };
    let sticky = scene.dir("sticky", 0, 0o1777);
    let (plan, said) = print(&sticky);
    assert!(plan.contains(&format!("{}/netlaunch-{USER}/launch-", sticky.display())), "{plan}");
    assert!(!said.contains("TMPDIR"), "{said}");
    for (dir, why) in [
        (scene.dir("open", 0, 0o777), "can be written by other users"),
        (scene.dir("theirs", ATTACKER, 0o1777), "belongs to user 54321"),
    ] {
        let (plan, said) = print(&dir);
        assert!(plan.contains(&format!("/tmp/netlaunch-{USER}/launch-")), "{plan}");
        assert!(said.contains("TMPDIR is not used: ") && said.contains(why), "{said}");
    }
    // Another user can make a directory of that name first.
    let taken = scene.dir(&format!("sticky/netlaunch-{USER}"), ATTACKER, 0o700);
    let mut command = scene.shell(&format!("exec {{}} {LAUNCH}"));
    command.env("TMPDIR", &sticky).env_remove("XDG_RUNTIME_DIR");
    let said = text(&finish(command).stderr);
    let why = format!("{} belongs to another user or is open to others", taken.display());
    assert!(said.contains(&why), "{said}");
}

#[test]
fn the_umask_does_not_change_modes() {
    if !have_root("the_umask_does_not_change_modes") {
        return;
    }
    for who in [As::User, As::Root] {
        let scene = Scene::new(who);
        for mask in ["0177", "0777", "0000"] {
            let state = scene.sandbox.path("home").join(mask).join("below");
            let line = format!(
                "umask {mask}; {{}} {LAUNCH} >/dev/null; stat -c %a {} {}",
                state.parent().unwrap().display(),
                state.display()
            );
            let mut command = scene.shell(&line);
            command.env("NETLAUNCH_STATE_DIR", &state);
            let output = finish(command);
            let mode = if who == As::Root { "711" } else { "700" };
            let modes = text(&output.stdout);
            let said = text(&output.stderr);
            assert_eq!(modes, format!("{mode}\n{mode}\n"), "{who:?} {mask}: {said}");
            assert!(said.contains("no-such-option"), "{who:?} {mask}: {said}");
        }
    }
}

#[test]
fn a_configuration_that_another_user_can_change_is_refused() {
    if !have_root("a_configuration_that_another_user_can_change_is_refused") {
        return;
    }
    for (who, user) in [(As::User, USER), (As::Root, 0)] {
        let scene = Scene::new(who);
        let conf = |dir: &Path, owner: u32, mode: u32| {
            let file = dir.join("netlaunch.conf");
            fs::write(&file, "mtu = 1").unwrap();
            chown(&file, Some(owner), Some(owner)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        };
        // If netlaunch reads the file, its mistake gives status 2.
        let own = scene.dir("own", user, 0o775);
        conf(&own, user, 0o664);
        let linked = scene.sandbox.path("linked");
        symlink(&own, &linked).unwrap();
        let roots = scene.dir("roots", 0, 0o755);
        symlink(own.join("netlaunch.conf"), roots.join("netlaunch.conf")).unwrap();
        let theirs = scene.dir("theirs", ATTACKER, 0o755);
        conf(&theirs, ATTACKER, 0o644);
        let below = scene.dir("theirs/netlaunch", user, 0o755);
        conf(&below, user, 0o644);
        let open = scene.dir("open", user, 0o777);
        conf(&open, user, 0o644);
        let foreign_file = scene.dir("foreign_file", user, 0o755);
        conf(&foreign_file, ATTACKER, 0o644);
        let open_file = scene.dir("open_file", user, 0o755);
        conf(&open_file, user, 0o666);
        let link = scene.sandbox.path("link");
        scene.link(&own, &link);
        for (dir, code, why) in [
            (&own, 2, "is not an MTU"),
            (&linked, 2, "is not an MTU"),
            (&roots, 2, "is not an MTU"),
            (&theirs, 125, "belongs to user 54321"),
            (&below, 125, "belongs to user 54321"),
            (&open, 125, "can be written by other users"),
            (&foreign_file, 125, "belongs to user 54321"),
            (&open_file, 125, "can be written by other users"),
            (&link, 125, "is a symbolic link of user 54321"),
        ] {
            let mut command = scene.sandbox.netlaunch(&["ps"]);
            command.env("NETLAUNCH_CONFIG_DIR", dir);
            let output = finish(command);
            let said = text(&output.stderr);
            let is = (output.status.code(), said.contains(why), said.lines().count());
            assert_eq!(is, (Some(code), true, 1), "{who:?} {}: {said}", dir.display());
        }
        if who == As::User {
            let mut command = scene.sandbox.netlaunch(&["ps"]);
            command.env_remove("NETLAUNCH_CONFIG_DIR").env("XDG_CONFIG_HOME", &theirs);
            let output = finish(command);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{said}");
            assert!(said.contains("is not safe"), "{said}");
        }
        // Definitions in a directory of another user are not used either.
        let config = scene.sandbox.path("config");
        let networks = config.join("networks");
        fs::create_dir(&networks).unwrap();
        chown(&networks, Some(ATTACKER), Some(ATTACKER)).unwrap();
        let output = finish(scene.sandbox.netlaunch(&["network", "list"]));
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains("belongs to user 54321"), "{said}");
    }
}
