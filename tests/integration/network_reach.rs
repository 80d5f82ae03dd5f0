//! Tests a network's dnsmasq in another PID namespace, and an ended one whose forks still run.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::network_host::NetworkHost;
use crate::common::{Reaped, finish, have_root, text, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const NAT: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000095</uuid>\
    <forward mode='nat'/><bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:95'/>\
    <ip address='10.95.0.1' netmask='255.255.255.0'><dhcp><range start='10.95.0.100' \
    end='10.95.0.200'/></dhcp></ip></network>";

const LIMIT: Duration = Duration::from_secs(60);

/// A command in a PID namespace of its own, in the network namespace of the host.
fn in_pid_namespace(host: &NetworkHost, words: &[&str]) -> Command {
    let mut command = host.sandbox.program(Path::new("/usr/bin/unshare"));
    command.args(["--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]);
    command.args(words);
    command
}

/// The processes of the network's transient user that run.
fn served(host: &NetworkHost) -> Vec<i32> {
    let user = host.status()["served"]["user"].as_u64().unwrap().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
        if of("Uid:").split_whitespace().next() == Some(&user)
            && !of("State:").trim_start().starts_with(['Z', 'X'])
        {
            found.push(pid);
        }
    }
    found
}

#[test]
fn a_dnsmasq_that_another_pid_namespace_hides_is_neither_forgotten_nor_replaced() {
    if !have_root("a_dnsmasq_that_another_pid_namespace_hides_is_neither_forgotten_nor_replaced") {
        return;
    }
    let host = NetworkHost::new(NAT);
    let before = host.state();
    host.good("network start lab");
    let (active, pids) = (host.state(), served(&host));
    assert_eq!(pids, [host.dnsmasq()]);
    let program = host.sandbox.path("bin/netlaunch");
    // An incomplete network is as well left as it is.
    for complete in [true, false] {
        let mut status = host.status();
        status["complete"] = complete.into();
        fs::write(host.file("status.json"), status.to_string()).unwrap();
        for words in [["network", "destroy", "lab"], ["network", "start", "lab"]] {
            let words = [&[program.to_str().unwrap()][..], &words].concat();
            let output = finish(in_pid_namespace(&host, &words));
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
            assert!(said.contains("has a dnsmasq in another PID namespace"), "{words:?}: {said}");
            assert!(said.contains("run the command in that PID namespace"), "{words:?}: {said}");
        }
        let words = [program.to_str().unwrap(), "firewall", "reload"];
        let output = finish(in_pid_namespace(&host, &words));
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert_eq!((host.state(), host.status()), (active.clone(), status));
        assert_eq!(served(&host), pids);
    }
    host.good("firewall reload");
    assert_eq!(host.state(), before);
    // A dnsmasq that has ended holds no socket: any PID namespace may end the network.
    host.good("network start lab");
    let pid = host.dnsmasq();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert!(wait_until(LIMIT, || served(&host).is_empty()));
    let words = [program.to_str().unwrap(), "network", "destroy", "lab"];
    let output = finish(in_pid_namespace(&host, &words));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(host.state(), before);
}

#[test]
fn a_dnsmasq_in_a_lower_pid_namespace_is_kept_by_a_reload_and_ended_by_a_destroy() {
    if !have_root("a_dnsmasq_in_a_lower_pid_namespace_is_kept_by_a_reload_and_ended_by_a_destroy") {
        return;
    }
    let host = NetworkHost::new(NAT);
    let before = host.state();
    let up = host.sandbox.path("run/up");
    let script = "\"$0\" network start lab && : >\"$1\"; exec sleep 60";
    let program = host.sandbox.path("bin/netlaunch");
    let words = ["sh", "-c", script, program.to_str().unwrap(), up.to_str().unwrap()];
    let mut command = in_pid_namespace(&host, &words);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let _lower = Reaped(command.spawn().unwrap());
    assert!(wait_until(LIMIT, || up.exists()));
    let (status, pids) = (host.status(), served(&host));
    assert_eq!(pids.len(), 1);
    let said = host.good("firewall reload");
    assert!(!said.contains("was gone"), "{said}");
    assert_eq!((&host.status()["served"], served(&host)), (&status["served"], pids.clone()));
    host.good("network destroy lab");
    assert!(!Path::new(&format!("/proc/{}/exe", pids[0])).exists());
    assert_eq!(host.state(), before);
}

#[test]
fn a_fork_of_an_ended_dnsmasq_does_not_count_as_dnsmasq() {
    if !have_root("a_fork_of_an_ended_dnsmasq_does_not_count_as_dnsmasq") {
        return;
    }
    let host = NetworkHost::new(NAT);
    let before = host.state();
    host.good("network start lab");
    let first = host.dnsmasq();
    let server = SocketAddr::from(([10, 95, 0, 1], 53));
    let connect = || TcpStream::connect_timeout(&server, LIMIT).unwrap();
    let _held = host.netns.inside(connect);
    assert!(wait_until(LIMIT, || served(&host).len() == 2));
    let forks: Vec<i32> = served(&host).into_iter().filter(|pid| *pid != first).collect();
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    assert!(wait_until(LIMIT, || served(&host) == forks));
    let said = host.good("firewall reload");
    assert!(said.contains("dnsmasq of the network lab was gone and runs again"), "{said}");
    assert_eq!(served(&host), [host.dnsmasq()]);
    let is_gone = |pid: &i32| !Path::new(&format!("/proc/{pid}/exe")).exists();
    assert!(forks.iter().all(is_gone), "a fork of the earlier dnsmasq runs");
    host.good("network destroy lab");
    assert_eq!(host.state(), before);
}

/// Another user can make a mount namespace and mount the network namespace there at any path.
#[test]
fn a_hint_names_no_path_that_another_mount_namespace_chose() {
    if !have_root("a_hint_names_no_path_that_another_mount_namespace_chose") {
        return;
    }
    let host = NetworkHost::new(NAT);
    host.good("network start lab");
    let program = host.sandbox.path("bin/netlaunch");
    // The hint of a command in another network namespace, after a script in this mount namespace.
    let hint = |script: &str| {
        let script = format!("{script}; exec unshare --net \"$0\" network destroy lab");
        let mut command = host.sandbox.program(Path::new("/usr/bin/unshare"));
        command.args(["--mount", "sh", "-ec", &script]).arg(&program);
        command.args([host.sandbox.path("run").as_os_str(), host.netns.name.as_ref()]);
        let output = finish(command);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        said.split("enter that namespace with ")
            .nth(1)
            .unwrap()
            .split(", or remove")
            .next()
            .unwrap()
            .into()
    };
    // Ends dnsmasq, so that only mounts keep the namespace.
    let pid = host.dnsmasq();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert!(wait_until(LIMIT, || served(&host).is_empty()));
    let mine: String = hint(":");
    assert_eq!(mine, format!("nsenter --net=/run/netns/{}", host.netns.name));
    let quoted =
        "umount /run/netns/$2; : >\"$1/a b;c\"; mount --bind /proc/self/ns/net \"$1/a b;c\"";
    let path = host.sandbox.path("run/a b;c");
    assert_eq!(hint(quoted), format!("nsenter --net='{}'", path.display()));
    let strange = "umount /run/netns/$2; p=$(printf '%s/a\\033[31m' \"$1\"); : >\"$p\"; \
         mount --bind /proc/self/ns/net \"$p\"";
    let said = hint(strange);
    assert!(!said.contains("31m"), "{said}");
    // Only other mount namespaces have the namespace mounted.
    let said = hint("umount /run/netns/$2");
    assert!(!said.contains("root/"), "{said}");
    host.good("network destroy lab");
}
