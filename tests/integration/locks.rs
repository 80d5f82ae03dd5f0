//! Tests a killed command whose tool still runs: its lock stays held until the tool has ended.

use std::fs::{self, File};
use std::time::Duration;

use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{Sandbox, have_root, start, status_field, wait_until};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

const LONG: Duration = Duration::from_secs(20);

/// The backends, each with a tool that changes rules.
const BACKENDS: [(&str, &str); 2] = [("nftables", "nft"), ("iptables", "ip6tables-restore")];

/// Returns whether a process holds the lock of a directory below the state directory.
fn is_locked(sandbox: &Sandbox, dir: &str) -> bool {
    let file = File::open(sandbox.state().join(dir).join(".lock")).unwrap();
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_) => false,
        Err((_, Errno::EWOULDBLOCK)) => true,
        Err((_, errno)) => panic!("{errno}"),
    }
}

/// Kills a command that waits for a tool, and checks its lock while the tool continues.
fn kill_while_runs(tool: &str, sandbox: &Sandbox, args: &[&str], dir: &str) {
    let pid_file = sandbox.path("run/tool");
    let never_ends = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 60", pid_file.display());
    let script = sandbox.script(tool, &never_ends);
    let mut command = sandbox.netlaunch(args);
    let bin = sandbox.path("bin");
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
    let netlaunch = start(command);
    assert!(wait_until(LONG, || pid_file.exists()), "{args:?} runs no {tool}");
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();

    // The guard would end the tool at once, so ptrace holds the guard. (SIGSTOP is not enough: it
    // ends with the process that the guard belongs to, setpgid(2).)
    let guard = Pid::from_raw(status_field(pid, "PPid").parse().unwrap());
    ptrace::attach(guard).unwrap();
    waitpid(guard, None).unwrap();
    kill(Pid::from_raw(netlaunch.pid()), Signal::SIGKILL).unwrap();
    netlaunch.output(LONG);
    assert!(is_locked(sandbox, dir), "{args:?}: the next command could begin beside {tool}");
    ptrace::detach(guard, None).unwrap();
    let is_free = || !is_locked(sandbox, dir);
    assert!(wait_until(LONG, is_free), "{args:?}: the guard does not end {tool}");
    fs::remove_file(script).unwrap();
}

#[test]
fn a_killed_command_on_ports_keeps_its_lock_until_its_tool_ends() {
    if !have_root("a_killed_command_on_ports_keeps_its_lock_until_its_tool_ends") {
        return;
    }
    for (backend, tool) in BACKENDS {
        let scene = PortScene::new(Some(backend));
        scene.define("test", "<rule action='drop' direction='out'><all-ipv6/></rule>").unwrap();
        let binding = scene.binding(Station::Vnet0, "test", &[]);
        let bind = ["nwfilter", "binding-create", &binding];
        kill_while_runs(tool, &scene.sandbox, &bind, "nwfilter/bindings");
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        scene.unbind(Station::Vnet0);
        done(scene.nwfilter(&["undefine", "test"])).unwrap();
    }
}

#[test]
fn a_killed_command_on_networks_keeps_its_lock_until_its_tool_ends() {
    if !have_root("a_killed_command_on_networks_keeps_its_lock_until_its_tool_ends") {
        return;
    }
    for (backend, tool) in BACKENDS {
        let scene = PortScene::new(None);
        let sandbox = &scene.sandbox;
        let settings = format!("firewall_backend = \"{backend}\"\n");
        fs::write(sandbox.path("config/network.conf"), settings).unwrap();
        let file = sandbox.path("lab.xml");
        let xml = "<network><name>lab</name><bridge name='nlt0'/><forward mode='nat'/>\
                   <ip address='10.97.0.1' prefix='24'/></network>";
        fs::write(&file, xml).unwrap();
        sandbox.good(&["network", "define", file.to_str().unwrap()]);
        kill_while_runs(tool, sandbox, &["network", "start", "lab"], "networks");
        sandbox.good(&["network", "start", "lab"]);
        sandbox.good(&["network", "destroy", "lab"]);
    }
}
