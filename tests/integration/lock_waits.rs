//! Tests a command that waits for another command: it names the holder of the lock, and ends at its
//! time limit.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::port_scene::{PortScene, Station};
use crate::common::{have_root, start, text, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LONG: Duration = Duration::from_secs(30);

/// A command that holds the lock and is stopped while it waits for its tool. Dropping this value
/// kills both.
struct Stopped {
    command: Option<crate::common::Reaped>,
    pid: Pid,
    tool: Pid,
}

impl Stopped {
    fn new(scene: &PortScene, args: &[&str]) -> Self {
        let sandbox = &scene.sandbox;
        let pid_file = sandbox.path("run/tool");
        let body = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 25", pid_file.display());
        sandbox.script("nft", &body);
        let mut command = sandbox.netlaunch(args);
        let bin = sandbox.path("bin");
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
        let command = start(command);
        assert!(wait_until(LONG, || pid_file.exists()), "{args:?} runs no nft");
        let tool = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        // `ip netns exec` executes netlaunch, so both have the same process id.
        let pid = Pid::from_raw(command.pid());
        kill(pid, Signal::SIGSTOP).unwrap();
        Stopped { command: Some(command), pid, tool: Pid::from_raw(tool) }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.tool, Signal::SIGKILL);
        let _ = kill(self.pid, Signal::SIGKILL);
        if let Some(command) = self.command.take() {
            command.output(LONG);
        }
    }
}

/// Runs a command beside the stopped one. It must name the stopped one within seconds, and give up
/// in time.
fn waits(scene: &PortScene, args: &[&str], stopped: &Stopped, dir: &str) {
    let began = Instant::now();
    let args = [args, &["--lock-timeout", "4"]].concat();
    let output = start(scene.sandbox.netlaunch(&args)).output(LONG);
    let took = began.elapsed();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{args:?}: {said}");
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(20), "{took:?}");
    let lines: Vec<&str> = said.lines().collect();
    let [warning, error] = lines[..] else { panic!("{args:?}: {said}") };
    for line in [warning, error] {
        for part in [
            dir,
            &format!("the process {} (", stopped.pid),
            "which is stopped",
            &format!("its tool {} (sleep 25)", stopped.tool),
        ] {
            assert!(line.contains(part), "{args:?}, {part}: {line}");
        }
    }
    assert!(warning.contains("waiting for"), "{warning}");
    assert!(error.contains("4 s have passed") && error.contains("--lock-timeout"), "{error}");
    // With a limit of 0, the command does not wait.
    let began = Instant::now();
    let now = [&args[..args.len() - 1], &["0"]].concat();
    let output = start(scene.sandbox.netlaunch(&now)).output(LONG);
    assert_eq!(output.status.code(), Some(125));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn a_command_on_ports_names_the_holder_of_the_lock_and_gives_up() {
    if !have_root("a_command_on_ports_names_the_holder_of_the_lock_and_gives_up") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    scene.define("test", "<rule action='drop' direction='out'><all-ipv6/></rule>").unwrap();
    let binding = scene.binding(Station::Vnet0, "test", &[]);
    let stopped = Stopped::new(&scene, &["nwfilter", "binding-create", &binding]);
    let other = scene.binding(Station::Vnet1, "test", &[]);
    waits(&scene, &["nwfilter", "binding-create", &other], &stopped, "nwfilter/bindings/.lock");
    waits(&scene, &["firewall", "reload"], &stopped, "nwfilter/bindings/.lock");
    // The ports can be listed during the wait, and the lock is free after the command has ended.
    scene.list();
    drop(stopped);
    fs::remove_file(scene.sandbox.path("bin/nft")).unwrap();
    scene.bind(Station::Vnet1, "test", &[]).unwrap();
}

#[test]
fn a_command_on_networks_names_the_holder_of_the_lock_and_gives_up() {
    if !have_root("a_command_on_networks_names_the_holder_of_the_lock_and_gives_up") {
        return;
    }
    let scene = PortScene::new(None);
    let sandbox = &scene.sandbox;
    fs::write(sandbox.path("config/network.conf"), "firewall_backend = \"nftables\"\n").unwrap();
    let file = sandbox.path("lab.xml");
    let xml = "<network><name>lab</name><bridge name='nlt0'/><forward mode='nat'/>\
               <ip address='10.97.0.1' prefix='24'/></network>";
    fs::write(&file, xml).unwrap();
    sandbox.good(&["network", "define", &file.to_string_lossy()]);
    let stopped = Stopped::new(&scene, &["network", "start", "lab"]);
    waits(&scene, &["network", "destroy", "lab"], &stopped, "networks/.lock");
    drop(stopped);
    fs::remove_file(Path::new(&sandbox.path("bin/nft"))).unwrap();
    sandbox.good(&["network", "start", "lab"]);
    sandbox.good(&["network", "destroy", "lab"]);
}
