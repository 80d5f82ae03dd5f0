//! Tests with strace that a user-mode network needs no privilege: what netlaunch does as an
//! ordinary user without any capability.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::{
    AT_MOST, As, Netns, Sandbox, finish, have_root, skipped, start, text, wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const PASST: &str = "/usr/bin/passt";
/// The system calls that start programs, make sockets and make namespaces.
const TRACED: &str =
    "trace=execve,execveat,socket,unshare,clone,clone3,setns,mount,bpf,setsockopt,init_module";

/// Whether strace is there and may trace; says so when not.
fn have_strace(test: &str) -> bool {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    let works = works.is_ok_and(|status| status.success());
    if !works {
        skipped(test, "strace is not installed, or may not trace (./tests/setup)");
    }
    works
}

/// One system call of one process.
#[derive(Debug)]
struct Call {
    pid: i32,
    text: String,
}

/// The calls of a trace written by `strace -f -o`.
fn calls(trace: &str) -> Vec<Call> {
    trace
        .lines()
        .filter_map(|line| {
            let (pid, text) = line.split_once(' ')?;
            Some(Call { pid: pid.parse().ok()?, text: text.trim_start().to_owned() })
        })
        .collect()
}

/// The programs that were executed, each with the process that did.
fn executed(calls: &[Call]) -> Vec<(i32, String)> {
    calls
        .iter()
        .filter(|call| call.text.starts_with("execve"))
        // passt tries for a build of itself for this processor, which may not be there.
        .filter(|call| !call.text.contains("= -1 ENOENT"))
        .map(|call| (call.pid, call.text.split('"').nth(1).unwrap().to_owned()))
        .collect()
}

/// netlaunch's own calls: without those of programs it executed, and of what these start.
fn own(calls: &[Call]) -> Vec<&Call> {
    // Lines of several processes interleave: a child may be seen before its parent's clone returns,
    // and a call may come in two parts.
    let parents: BTreeMap<i32, i32> = calls
        .iter()
        .filter(|call| call.text.contains("clone"))
        .filter_map(|call| {
            let child = call.text.rsplit_once("= ")?.1.trim().parse().ok()?;
            Some((child, call.pid))
        })
        .collect();
    let is_other = |call: &Call| {
        let exec = call.text.starts_with("execve") && !call.text.contains("= -1");
        exec && !call.text.contains("/bin/netlaunch\"")
    };
    let others: BTreeSet<i32> = calls.iter().filter(|c| is_other(c)).map(|c| c.pid).collect();
    let descends = |pid: i32| {
        let mut above = parents.get(&pid);
        while let Some(pid) = above {
            if others.contains(pid) {
                return true;
            }
            above = parents.get(pid);
        }
        false
    };
    let mut executed = BTreeSet::new();
    let mut own = Vec::new();
    for call in calls {
        if is_other(call) {
            executed.insert(call.pid);
        }
        if !executed.contains(&call.pid) && !descends(call.pid) {
            own.push(call);
        }
    }
    own
}

struct Traced {
    calls: Vec<Call>,
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

/// Runs netlaunch under strace, as the sandbox's user, without a capability and without a way to
/// get one.
fn traced(sandbox: &Sandbox, name: &str, args: &[&str]) -> Traced {
    let trace = sandbox.path("home").join(name);
    let mut command = sandbox.program(Path::new("setpriv"));
    command.args(["--no-new-privs", "strace", "-f", "-qq", "-s", "200", "-e", TRACED, "-o"]);
    command.arg(&trace).arg(sandbox.path("bin/netlaunch")).args(args);
    let output = finish(command);
    Traced {
        calls: calls(&fs::read_to_string(&trace).unwrap()),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
        code: output.status.code(),
    }
}

fn programs(calls: &[Call]) -> BTreeSet<String> {
    executed(calls).into_iter().map(|(_, program)| program).collect()
}

fn set(programs: &[&Path]) -> BTreeSet<String> {
    programs.iter().map(|path| path.display().to_string()).collect()
}

/// QEMU's arguments for a run that ends by itself.
const RUN: [&str; 6] = [QEMU, "-M", "none", "-nodefaults", "-display", "none"];

#[test]
fn a_user_mode_launch_needs_no_privilege() {
    if !have_root("a_user_mode_launch_needs_no_privilege")
        || !have_strace("a_user_mode_launch_needs_no_privilege")
    {
        return;
    }
    let netns = Netns::routed();
    for options in [
        &["--backend", "passt", "-p", "2222:22", "-p", "5353:53/udp"][..],
        &["--backend", "passt", "--transport", "fd"],
        &["--backend", "slirp", "-p", "2222:22"],
    ] {
        let sandbox = Sandbox::new(As::User, Some(&netns));
        let netlaunch = sandbox.path("bin/netlaunch");
        let mut args = options.to_vec();
        args.extend(["--device", "none", "--"]);
        args.extend(RUN);
        // A version number is printed before anything is done, and after it QEMU leaves.
        args.push("-version");

        let cold = traced(&sandbox, "cold", &args);
        assert_eq!(cold.code, Some(0), "{options:?}: {}", cold.stderr);
        assert!(cold.stdout.contains("QEMU emulator version"), "QEMU ran: {}", cold.stdout);
        check_own_calls(&cold.calls);
        let allowed = set(&[&netlaunch, Path::new(QEMU), Path::new(PASST), &avx2()]);
        let found = programs(&cold.calls);
        assert!(found.is_subset(&allowed), "{options:?}: {found:?}");

        // The second time nothing is asked: passt and QEMU are executed once each, to run.
        let warm = traced(&sandbox, "warm", &args);
        assert_eq!(warm.code, Some(0), "{options:?}: {}", warm.stderr);
        check_own_calls(&warm.calls);
        let found: Vec<String> = executed(&warm.calls)
            .into_iter()
            .map(|(_, program)| program)
            .filter(|program| *program != avx2().display().to_string())
            .collect();
        let mut expected = vec![netlaunch.display().to_string()];
        if options[1] == "passt" {
            expected.push(PASST.to_owned());
        }
        expected.push(QEMU.to_owned());
        assert_eq!(found, expected, "{options:?}");
        assert!(executed(&cold.calls).len() > executed(&warm.calls).len());
        assert_eq!(sandbox.launch_dirs(), [] as [String; 0]);
    }
}

/// passt executes itself again as this, where the processor has AVX2.
fn avx2() -> PathBuf {
    PathBuf::from(format!("{PASST}.avx2"))
}

/// No netfilter socket, no namespace, no mount, no privileged call by netlaunch itself.
fn check_own_calls(calls: &[Call]) {
    let own = own(calls);
    assert!(own.len() > 3, "the trace shows netlaunch: {calls:?}");
    for call in own {
        let text = &call.text;
        let family = ["AF_NETLINK", "AF_PACKET", "SOCK_RAW", "NETLINK_NETFILTER"];
        assert!(!family.iter().any(|family| text.contains(family)), "{text}");
        let name = text.split('(').next().unwrap_or_default();
        let forbidden = ["unshare", "setns", "mount", "bpf", "init_module"];
        assert!(!forbidden.contains(&name), "{text}");
        assert!(!text.contains("CLONE_NEW"), "{text}");
        // Options of netfilter are set on raw sockets by iptables (IPT_SO_SET_REPLACE).
        assert!(!text.contains("_SO_SET_"), "{text}");
    }
    // passt makes namespaces and one netlink socket for addresses and routes, and QEMU neither.
    // No program needs a netfilter socket.
    assert!(!calls.iter().any(|call| call.text.contains("NETLINK_NETFILTER")), "{calls:?}");
}

#[test]
fn printing_and_listing_execute_nothing() {
    let test = "printing_and_listing_execute_nothing";
    if !have_root(test) || !have_strace(test) {
        return;
    }
    let netns = Netns::routed();
    let sandbox = Sandbox::new(As::User, Some(&netns));
    let print = ["--print=json", "--", QEMU];
    let cold = traced(&sandbox, "cold", &print);
    assert_eq!(cold.code, Some(0), "{}", cold.stderr);
    for (name, args) in [
        ("print", &print[..]),
        ("ps", &["ps"]),
        ("completions", &["completions", "bash"]),
        ("help", &["--help"]),
        ("usage", &["--no-such-option"]),
    ] {
        let traced = traced(&sandbox, name, args);
        check_nothing(&sandbox, &traced.calls);
    }
    // A probe makes namespaces to see whether they work, starts passt as a launch does, and asks
    // libvirt where it is installed.
    let probe = traced(&sandbox, "probe", &["probe", "--json", "--qemu", QEMU]);
    let found = programs(&probe.calls);
    assert!(!found.contains(QEMU), "cached: {found:?}");
    let helps = probe.calls.iter().filter(|call| call.text.contains("\"--help\"")).count();
    assert_eq!(helps, 0, "cached: {:?}", probe.calls);
}

fn check_nothing(sandbox: &Sandbox, calls: &[Call]) {
    assert_eq!(programs(calls), set(&[&sandbox.path("bin/netlaunch")]));
    assert!(!calls.iter().any(|call| call.text.starts_with("clone")), "{calls:?}");
    assert!(!calls.iter().any(|call| call.text.starts_with("socket(")), "{calls:?}");
}

#[test]
fn a_users_netlaunch_has_no_capability() {
    if !have_root("a_users_netlaunch_has_no_capability") {
        return;
    }
    let netns = Netns::routed();
    for transport in ["unix", "fd"] {
        let sandbox = Sandbox::new(As::User, Some(&netns));
        let mut command = sandbox.program(Path::new("setpriv"));
        command.arg("--no-new-privs").arg(sandbox.path("bin/netlaunch"));
        command.args(["--backend", "passt", "--transport", transport, "--device", "none", "--"]);
        command.args(RUN).arg("-S");
        let launch = start(command);
        let record = || {
            let dir = sandbox.launch_dirs().pop()?;
            let text = fs::read(sandbox.state().join(dir).join("launch.json")).ok()?;
            serde_json::from_slice::<serde_json::Value>(&text).ok()
        };
        let up = || record().is_some_and(|record| !record["qemu"].is_null());
        assert!(wait_until(AT_MOST, up), "{transport}");
        let record = record().unwrap();
        let number = |program: &str| record[program]["pid"].as_i64().unwrap() as i32;
        let guard_of_qemu = field(number("qemu"), "PPid").parse().unwrap();
        for pid in [launch.pid(), guard_of_qemu, number("qemu")] {
            for set in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
                assert_eq!(field(pid, set), "0000000000000000", "{set} of {pid}");
            }
            assert_eq!(field(pid, "NoNewPrivs"), "1");
            assert!(field(pid, "Uid").starts_with(&format!("{}\t", crate::common::USER)));
        }
        kill(Pid::from_raw(launch.pid()), Signal::SIGTERM).unwrap();
        let output = launch.output(Duration::from_secs(30));
        let code = output.status.code();
        assert!([Some(0), Some(143)].contains(&code), "{}", text(&output.stderr));
        assert_eq!(sandbox.launch_dirs(), [] as [String; 0]);
    }
}

/// A field of /proc/PID/status.
fn field(pid: i32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let prefix = format!("{name}:");
    status.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap().trim().to_owned()
}
