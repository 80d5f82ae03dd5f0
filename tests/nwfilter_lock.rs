//! A command that is killed while a tool of its own still runs: the lock on filters is given up
//! when the tool has ended, and not before.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::time::Duration;

use common::port_scene::{PortScene, Station, done};
use common::{have_root, start, status_field, wait_until};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

const LONG: Duration = Duration::from_secs(20);

/// Whether somebody holds the lock on filters.
fn is_locked(scene: &PortScene) -> bool {
    let file = File::open(scene.sandbox.path("state/nwfilter/bindings/.lock")).unwrap();
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_) => false,
        Err((_, Errno::EWOULDBLOCK)) => true,
        Err((_, errno)) => panic!("{errno}"),
    }
}

#[test]
fn the_lock_is_held_until_the_last_tool_has_ended() {
    if !have_root("the_lock_is_held_until_the_last_tool_has_ended") {
        return;
    }
    for (backend, tool) in [("nftables", "nft"), ("iptables", "ip6tables-restore")] {
        let scene = PortScene::new(Some(backend));
        let pid_file = scene.sandbox.path("run/tool");
        let never_ends = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 60", pid_file.display());
        let script = scene.sandbox.script(tool, &never_ends);
        scene.define("test", "<rule action='drop' direction='out'><all-ipv6/></rule>").unwrap();

        let binding = scene.binding(Station::Vnet0, "test", &[]);
        let mut command = scene.sandbox.netlaunch(&["nwfilter", "binding-create", &binding]);
        let bin = script.parent().unwrap();
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
        let netlaunch = start(command);
        assert!(wait_until(LONG, || pid_file.exists()), "{backend}");
        let tool: i32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();

        // Its guard, which ends it at once, is held up, so that it goes on. (A mere SIGSTOP ends
        // with the process that the guard belongs to, setpgid(2).)
        let guard = Pid::from_raw(status_field(tool, "PPid").parse().unwrap());
        ptrace::attach(guard).unwrap();
        waitpid(guard, None).unwrap();
        kill(Pid::from_raw(netlaunch.pid()), Signal::SIGKILL).unwrap();
        netlaunch.output(LONG);
        assert!(is_locked(&scene), "{backend}: the next command could begin");
        ptrace::detach(guard, None).unwrap();
        assert!(wait_until(LONG, || !is_locked(&scene)), "{backend}: it waits for nothing");

        fs::remove_file(&script).unwrap();
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        scene.unbind(Station::Vnet0);
        done(scene.nwfilter(&["undefine", "test"])).unwrap();
    }
}
