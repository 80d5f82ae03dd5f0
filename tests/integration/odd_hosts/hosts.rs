//! Callers with few rights, and hosts that are short of something.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::scene::{LAUNCH, Scene, launched};
use crate::common::{As, Sandbox, finish, have_root, text};

#[test]
fn capabilities_and_not_the_user_id_decide_what_root_does() {
    if !have_root("capabilities_and_not_the_user_id_decide_what_root_does") {
        return;
    }
    let scene = Scene::new(As::Root);
    let without = |what: &str| format!("setpriv --inh-caps=-all --bounding-set={what}");
    let mut before = vec![without("-all"), without("-all,+setuid,+setgid,+chown")];
    for one in ["chown", "setuid", "setgid", "kill", "dac_override", "sys_admin", "sys_ptrace"] {
        before.push(without(&format!("-{one}")));
    }
    before.push("unshare -r".to_owned());
    for before in &before {
        let said = launched(&finish(scene.launch(before, "--backend passt")));
        assert_eq!(said.matches("netlaunch: ").count(), 0, "{before}: {said}");
        assert_eq!(scene.sandbox.launch_dirs(), [] as [String; 0], "{before}");
    }
    let scene = Scene::new(As::User);
    for before in ["unshare -r", "env -u NETLAUNCH_STATE_DIR -u XDG_RUNTIME_DIR unshare -r"] {
        for options in ["--backend passt", "--backend passt --transport fd", ""] {
            let mut command = scene.launch(before, options);
            command.env("TMPDIR", scene.sandbox.path("run"));
            let said = launched(&finish(command));
            assert_eq!(said.matches("netlaunch: ").count(), 0, "{before}: {said}");
        }
        // Twice: what the first left would be in the way.
        assert_eq!(scene.sandbox.launch_dirs(), [] as [String; 0], "{before}");
        assert_eq!(fs::read_dir(scene.sandbox.path("run")).unwrap().count(), 0);
    }
}

#[test]
fn root_of_a_user_namespace_can_have_networks_and_filters_of_its_own() {
    if !have_root("root_of_a_user_namespace_can_have_networks_and_filters_of_its_own") {
        return;
    }
    let scene = Scene::new(As::User);
    let files = scene.dir("files", 0o755);
    fs::write(
        files.join("net.xml"),
        "<network><name>own</name><bridge name='nlodd0'/>\
         <ip address='192.168.99.1' netmask='255.255.255.0'>\
         <dhcp><range start='192.168.99.10' end='192.168.99.20'/></dhcp></ip></network>",
    )
    .unwrap();
    fs::write(
        files.join("port.xml"),
        "<filterbinding><portdev name='nlodd1'/><mac address='52:54:00:00:00:01'/>\
         <filterref filter='clean-traffic'><parameter name='IP' value='192.168.99.10'/>\
         </filterref></filterbinding>",
    )
    .unwrap();
    // The kernel shows the names of the old iptables' tables to real root only.
    let line = format!(
        "cd {} && {{}} network define net.xml && {{}} network start own \
         && {{}} network list && {{ {{}} firewall check; [ $? -le 1 ]; }} \
         && ip link add nlodd1 type veth peer nlodd2 && ip link set nlodd1 master nlodd0 up \
         && {{}} nwfilter binding-create port.xml && {{}} nwfilter binding-list \
         && {{}} nwfilter binding-delete nlodd1 && ip link delete nlodd1 \
         && {{}} network destroy own && ip -br link",
        files.display()
    );
    let mut command = scene.sandbox.program(Path::new("unshare"));
    let netlaunch = scene.sandbox.path("bin/netlaunch").display().to_string();
    command.args(["-rn", "sh", "-c", &line.replace("{}", &netlaunch)]);
    let output = finish(command);
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{said}");
    assert!(out.contains(" active ") && out.contains(" in force "), "{out}");
    let links = out.lines().skip_while(|line| !line.starts_with("lo "));
    assert_eq!(links.count(), 1, "{out}");
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    if !have_root("modes_do_not_depend_on_the_umask") {
        return;
    }
    for who in [As::Root, As::User] {
        for mask in ["022", "177", "777"] {
            let scene = Scene::new(who);
            let state = scene.sandbox.path("state/new");
            let cache = scene.sandbox.path("home/cache");
            let config = scene.sandbox.path("config/new");
            let run = |before: &str, line: &str| {
                let mut command = scene.shell(&format!("{before} {line}"));
                command.env("NETLAUNCH_STATE_DIR", &state).env("XDG_CACHE_HOME", &cache);
                command.env("NETLAUNCH_CONFIG_DIR", &config);
                command.env("EDITOR", "sed -i s/accept/drop/").env("TMPDIR", "/tmp");
                command
            };
            let masked = format!("umask {mask};");
            let filter = "<filter name=\"f\"><rule action=\"accept\" direction=\"in\"/></filter>";
            let define = format!("echo '{filter}' | {{}} nwfilter define -");
            for line in [define.as_str(), "{} nwfilter edit f", "{} nwfilter dumpxml f"] {
                let output = finish(run(&masked, line));
                assert!(output.status.success(), "{mask} {line}: {}", text(&output.stderr));
            }
            let launch = format!("{{}} --backend passt {}", LAUNCH.join(" "));
            // A second launch under the umask needs what the first has left.
            for before in [masked.as_str(), &masked, ""] {
                launched(&finish(run(before, &launch)));
            }
            let modes = ["state/new", "home/cache", "home/cache/netlaunch/probe.json"]
                .into_iter()
                .chain(["config/new", "config/new/nwfilter", "config/new/nwfilter/f.xml"])
                .map(|name| fs::metadata(scene.sandbox.path(name)).unwrap().mode() & 0o777);
            let modes: Vec<u32> = modes.collect();
            assert_eq!(modes[..3], [0o711, 0o700, 0o600], "{who:?} {mask}");
            assert_eq!(modes[3..], [0o755, 0o755, 0o644], "{who:?} {mask}");
        }
    }
}

#[test]
fn a_runtime_directory_that_cannot_be_used_is_not_used() {
    if !have_root("a_runtime_directory_that_cannot_be_used_is_not_used") {
        return;
    }
    let scene = Scene::new(As::User);
    let run = |dir: &Path| {
        let mut command = scene.launch("", "-v --backend slirp");
        command.env_remove("NETLAUNCH_STATE_DIR").env("XDG_RUNTIME_DIR", dir);
        command.env("TMPDIR", scene.sandbox.path("home"));
        launched(&finish(command))
    };
    let there = scene.dir("there", 0o700);
    assert!(!run(&there).contains("XDG_RUNTIME_DIR is not used"));
    // A directory that root made there by mistake.
    fs::create_dir(there.join("netlaunch")).unwrap();
    let closed = scene.dir("closed", 0o500);
    for (dir, why) in [
        (there.as_path(), "there/netlaunch belongs to user 0"),
        (&closed, "Permission denied"),
        (Path::new("/run/user/4294967"), "No such file"),
        (Path::new("/etc/passwd"), "Not a directory"),
        (Path::new("/root"), "belongs to user 0"),
    ] {
        let said = run(dir);
        assert!(said.contains("XDG_RUNTIME_DIR is not used") && said.contains(why), "{said}");
    }

    // `sudo -E`: root with the user's environment leaves nothing of root's in the user's places.
    let root = Sandbox::new(As::Root, None);
    let mut command = root.program(Path::new("unshare"));
    let netlaunch = root.path("bin/netlaunch").display().to_string();
    let line = format!("mount -t tmpfs none /run && {netlaunch} {}", LAUNCH.join(" "));
    command.args(["--mount", "--propagation", "private", "sh", "-c", &line]);
    command.env_remove("NETLAUNCH_STATE_DIR").env_remove("NETLAUNCH_CONFIG_DIR");
    let places = ["home", "run"].map(|name| scene.sandbox.path(name));
    for place in &places {
        let old = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
        old.for_each(|path| fs::remove_dir_all(path).unwrap());
    }
    command.env("HOME", &places[0]).env("XDG_CONFIG_HOME", &places[0]);
    command.env("XDG_CACHE_HOME", &places[0]).env("XDG_RUNTIME_DIR", &places[1]);
    launched(&finish(command));
    for place in &places {
        assert_eq!(fs::read_dir(place).unwrap().count(), 0, "{}", place.display());
    }
}

#[test]
fn a_shortage_of_the_host_is_named_as_the_reason() {
    if !have_root("a_shortage_of_the_host_is_named_as_the_reason") {
        return;
    }
    for who in [As::Root, As::User] {
        let scene = Scene::new(who);
        // No answer is cached: netlaunch reads the QEMU file to learn what that is.
        let said = text(&finish(scene.launch("prlimit --nofile=8", "")).stderr);
        assert!(said.contains("Too many open files") && said.contains("ulimit -n"), "{said}");
        assert!(!said.contains("does not look like"), "{said}");
        // The answers about QEMU and passt are cached, as on a host that has launched before.
        launched(&finish(scene.launch("", "")));
        for (before, words) in [
            ("prlimit --nofile=8", ["Too many open files", "ulimit -n"]),
            ("prlimit --fsize=0", ["File too large", "ulimit -a"]),
        ] {
            let output = finish(scene.launch(before, ""));
            let said = text(&output.stderr);
            assert!(output.status.code().is_some_and(|code| code >= 125), "{before}: {said}");
            assert!(words.iter().all(|word| said.contains(word)), "{before}: {said}");
            assert_eq!(scene.sandbox.launch_dirs(), [] as [String; 0], "{before}");
        }
    }
    let scene = Scene::new(As::Root);
    let line =
        format!("mount -t tmpfs none /dev && exec {{}} --backend passt {}", LAUNCH.join(" "));
    let mut command = scene.sandbox.program(Path::new("unshare"));
    let netlaunch = scene.sandbox.path("bin/netlaunch").display().to_string();
    command.args(["--mount", "sh", "-c", &line.replace("{}", &netlaunch)]);
    let said = text(&finish(command).stderr);
    assert!(said.contains("there is no /dev/null") && said.contains("mount /dev"), "{said}");
}
