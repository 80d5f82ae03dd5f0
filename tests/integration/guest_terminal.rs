//! Tests netlaunch at a terminal: QEMU gets the keys, the window size and the console as without
//! netlaunch.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::tcgetpgrp;

use crate::common::scene::{
    HOST, Heard, LIMIT, command_line, launch, netns_with_resolver, nothing_left, passt_option,
    pid_of, qemu,
};
use crate::common::{As, Guest, Reaped, Sandbox, have_root, start, wait_until};

/// A terminal with a shell that does job control, as a login shell does, and one job in it.
struct Terminal {
    keys: File,
    tty: OwnedFd,
    screen: Heard,
    shell: Reaped,
}

impl Terminal {
    /// Runs `argv` as the foreground job; the shell then says `STATUS n`.
    fn run(sandbox: &Sandbox, argv: &[String]) -> Self {
        let pty = openpty(None, None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = sandbox.program(Path::new("/usr/bin/setsid"));
        // `-m` gives the job a process group of its own and the terminal to that group.
        let script = "\"$@\"; echo \"STATUS $?\"";
        command.args(["--ctty", "sh", "-m", "-c", script, "sh"]).args(argv);
        command.stdin(end()).stdout(end()).stderr(end());
        let screen = Heard::of(File::from(pty.master.try_clone().unwrap()));
        let shell = start(command);
        Terminal { keys: File::from(pty.master), tty: pty.slave, screen, shell }
    }

    fn hear(&self, key: &str) -> String {
        let heard = wait_until(LIMIT, || self.screen.after(key).is_some());
        assert!(heard, "no {key:?} within {LIMIT:?}:\n{}", self.screen.text());
        self.screen.after(key).unwrap()
    }

    /// Presses keys.
    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// The process group that has the terminal.
    fn foreground(&self) -> i32 {
        tcgetpgrp(&self.keys).unwrap().as_raw()
    }

    /// Whether the terminal collects lines and echoes, as it does between programs.
    fn is_cooked(&self) -> bool {
        let flags = tcgetattr(&self.tty).unwrap().local_flags;
        flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }
}

/// The process group of a process (proc_pid_stat(5)).
fn group_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.split(' ').nth(2).unwrap().parse().unwrap()
}

const SCRIPT: &str = "\
echo 'UP .'
read line
echo \"GOT $line.\"
read line";

/// QEMU without netlaunch: what Ctrl-C does to it.
fn without_netlaunch(sandbox: &Sandbox, guest: &Guest) -> String {
    let mut terminal = Terminal::run(sandbox, &qemu(sandbox, guest, SCRIPT));
    terminal.hear("UP ");
    terminal.press("\x03");
    let status = terminal.hear("STATUS ");
    terminal.shell.0.wait().unwrap();
    status
}

fn the_terminal_is_qemus(who: As) {
    let test = format!("terminal as {who:?}");
    let (true, Some(guest)) = (have_root(&test), Guest::find(&test)) else { return };
    let netns = netns_with_resolver(HOST);
    let sandbox = Sandbox::new(who, Some(&netns));
    let usual = without_netlaunch(&sandbox, &guest);

    let passt = passt_option();
    let mut options = vec!["--backend", "passt"];
    options.extend(passt.iter().map(String::as_str));
    let mut argv = vec![sandbox.path("bin/netlaunch").to_string_lossy().into_owned()];
    argv.extend(command_line(&sandbox, &guest, &options, SCRIPT));
    let mut terminal = Terminal::run(&sandbox, &argv);
    assert!(terminal.is_cooked());
    terminal.hear("LEASE ");
    terminal.hear("UP ");
    assert!(!terminal.is_cooked(), "QEMU has set its own modes");

    let shown = launch(&sandbox);
    let netlaunch = shown["pid"].as_i64().unwrap() as i32;
    let job = group_of(netlaunch);
    assert_eq!(terminal.foreground(), job);
    assert_eq!(group_of(pid_of(&shown, "qemu")), job);
    assert_ne!(group_of(pid_of(&shown, "passt")), job);
    assert_ne!(group_of(terminal.shell.pid()), job, "the shell does job control");

    terminal.press("typed here\n");
    assert_eq!(terminal.hear("GOT "), "typed here.");
    terminal.press("\x03");
    assert_eq!(terminal.hear("STATUS "), usual, "{}", terminal.screen.text());
    terminal.shell.0.wait().unwrap();
    let screen = terminal.screen.text();
    assert!(screen.contains("terminating on signal 2"), "{screen}");
    assert!(!screen.contains("netlaunch: "), "{screen}");
    assert!(terminal.is_cooked(), "the modes are the shell's again");
    nothing_left(&sandbox);
}

#[test]
fn the_terminal_is_qemus_for_root() {
    the_terminal_is_qemus(As::Root);
}

#[test]
fn the_terminal_is_qemus_for_a_user() {
    the_terminal_is_qemus(As::User);
}

/// A script in place of QEMU that prints the signals that it gets.
fn telling_qemu(sandbox: &Sandbox) -> String {
    let script = "trap 'echo GOT-WINCH .' WINCH
trap 'echo GOT-INT .' INT
trap 'echo GOT-QUIT .' QUIT
trap 'exit 7' TERM
echo 'UP .'
while :; do sleep 0.05; done";
    sandbox.script("qemu-telling", script).to_string_lossy().into_owned()
}

/// Window sizes and keys reach QEMU, each once: netlaunch does not send them again.
#[test]
fn window_size_and_keys_reach_qemu_once() {
    if !have_root("window_size_and_keys_reach_qemu_once") {
        return;
    }
    let netns = netns_with_resolver(HOST);
    let sandbox = Sandbox::new(As::User, Some(&netns));
    let mut argv = vec![sandbox.path("bin/netlaunch").to_string_lossy().into_owned()];
    let options = ["--backend", "slirp", "--qemu", "/usr/bin/qemu-system-x86_64", "--"];
    argv.extend(options.map(str::to_owned));
    argv.push(telling_qemu(&sandbox));
    let mut terminal = Terminal::run(&sandbox, &argv);
    terminal.hear("UP ");

    let tty = terminal.tty.try_clone().unwrap();
    let mut resize = Command::new("stty");
    assert!(resize.args(["rows", "33", "cols", "99"]).stdin(tty).status().unwrap().success());
    terminal.hear("GOT-WINCH ");
    terminal.press("\x03");
    terminal.hear("GOT-INT ");
    terminal.press("\x1c");
    terminal.hear("GOT-QUIT ");
    // Time for a second copy of any of them.
    std::thread::sleep(Duration::from_millis(300));

    let netlaunch = launch(&sandbox)["pid"].as_i64().unwrap() as i32;
    let signal = nix::sys::signal::Signal::SIGTERM;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(netlaunch), signal).unwrap();
    assert_eq!(terminal.hear("STATUS "), "7");
    terminal.shell.0.wait().unwrap();
    let screen = terminal.screen.text();
    for got in ["GOT-WINCH", "GOT-INT", "GOT-QUIT"] {
        assert_eq!(screen.matches(got).count(), 1, "{screen}");
    }
    nothing_left(&sandbox);
}
