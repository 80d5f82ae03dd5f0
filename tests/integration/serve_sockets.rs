//! Tests serve mode with a socket that the caller decides about: `--listen` and `--listen-fd`. The
//! guest's program is a client that speaks QEMU's socket protocol with passt.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::scene::nothing_left;
use crate::common::{As, Netns, Reaped, Sandbox, finish, have_root, text, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// The guest's question for the hardware address of 10.0.2.2, as passt's socket takes it: the
/// length, then the frame (RFC 826).
fn question() -> Vec<u8> {
    let mac = [0x52, 0x54, 0, 1, 2, 3];
    let mut frame = vec![0, 0, 0, 42];
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend([10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
    frame
}

/// Asks passt, and checks that its answer is from 10.0.2.2. A newer passt asks for the guest's
/// hardware address first.
fn passt_answers(stream: &mut UnixStream) {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(&question()).unwrap();
    let mut frame = || {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut frame).unwrap();
        frame
    };
    let is_answer = |frame: &[u8]| frame[12..14] == [8, 6] && frame[20..22] == [0, 2];
    let answer = std::iter::repeat_with(&mut frame).find(|frame| is_answer(frame)).unwrap();
    assert_eq!(answer[28..32], [10, 0, 2, 2]);
}

/// Starts netlaunch in serve mode. A socket becomes its descriptor 5.
fn serve(sandbox: &Sandbox, options: &[&str], socket: Option<OwnedFd>) -> Reaped {
    let mut command = sandbox.program(Path::new("/bin/sh"));
    let script = "netlaunch=$1; shift; exec \"$netlaunch\" \"$@\" 5<&0 </dev/null";
    command.args(["-c", script, "sh"]).arg(sandbox.path("bin/netlaunch"));
    command.args(["--backend", "passt"]).args(options);
    command.stdin(socket.map_or_else(Stdio::null, Stdio::from));
    Reaped(command.spawn().unwrap())
}

fn refused(command: Command, part: &str) {
    let output = finish(command);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(part) && said.lines().count() == 1, "{said}");
}

#[test]
fn passts_socket_is_offered_at_a_path_until_netlaunch_ends() {
    let test = "passts_socket_is_offered_at_a_path_until_netlaunch_ends";
    if !have_root(test) {
        return;
    }
    let netns = Netns::routed();
    for who in [As::User, As::Root] {
        let sandbox = Sandbox::new(who, Some(&netns));
        let path = sandbox.path("run/vm.sock");
        let shown = path.to_str().unwrap();
        let serving = serve(&sandbox, &["--listen", shown], None);
        assert!(wait_until(LIMIT, || path.exists()), "no socket");
        let mut busy = sandbox.netlaunch(&["--backend", "passt", "--listen"]);
        busy.arg(&path);
        let pid = serving.pid();
        let launch = sandbox.launch_dirs().remove(0);
        refused(busy, &format!("the launch {launch} (pid {pid}) has its socket there"));
        let own = sandbox.path("run/vm.file");
        fs::write(&own, "").unwrap();
        let mut busy = sandbox.netlaunch(&["--backend", "passt", "--listen"]);
        busy.arg(&own);
        refused(busy, "the path exists");
        let mut stream = UnixStream::connect(&path).unwrap();
        passt_answers(&mut stream);
        drop(stream);
        let output = serving.output(LIMIT);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains(&format!("addr.path={shown}")));
        assert!(fs::symlink_metadata(&path).is_err(), "the link is left");
        nothing_left(&sandbox);
    }
}

/// On a busy machine passt can end before netlaunch looks whether it serves.
#[test]
fn a_passt_whose_peer_has_left_already_has_served() {
    let test = "a_passt_whose_peer_has_left_already_has_served";
    if !have_root(test) {
        return;
    }
    let netns = Netns::routed();
    let sandbox = Sandbox::new(As::User, Some(&netns));
    // The file exists for a moment only, and netlaunch looks every 10 ms by then: six of ten such
    // launches failed without the check.
    let serves = "while [ \"$1\" != --pid ]; do shift; done; echo $$ >\"$2.new\"; sleep 0.2; exec mv \"$2.new\" \"$2\"";
    for (body, status) in [(serves, 0); 5].into_iter().chain([("exit 0", 125)]) {
        let help = "case $* in *--help*) exec passt --help;; esac";
        let passt = sandbox.script("short-passt", &format!("{help}; {body}"));
        let (_mine, theirs) = UnixStream::pair().unwrap();
        let options = ["--listen-fd", "5", "--passt", passt.to_str().unwrap()];
        let output = serve(&sandbox, &options, Some(theirs.into())).output(LIMIT);
        assert_eq!(output.status.code(), Some(status), "{}", text(&output.stderr));
        nothing_left(&sandbox);
    }
}

#[test]
fn passt_serves_the_socket_that_the_caller_brings() {
    let test = "passt_serves_the_socket_that_the_caller_brings";
    if !have_root(test) {
        return;
    }
    let netns = Netns::routed();
    for who in [As::User, As::Root] {
        let sandbox = Sandbox::new(who, Some(&netns));
        let path = sandbox.path("brought.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let serving = serve(&sandbox, &["--listen-fd", "5"], Some(listener.into()));
        let mut stream = UnixStream::connect(&path).unwrap();
        passt_answers(&mut stream);
        drop(stream);
        let output = serving.output(LIMIT);
        let (said, printed) = (text(&output.stderr), text(&output.stdout));
        assert!(printed.contains(&format!("addr.path={}", path.display())), "{printed}{said}");
        assert_eq!(output.status.code(), Some(0), "{said}");
        nothing_left(&sandbox);

        let (mine, theirs) = UnixStream::pair().unwrap();
        let options = ["--listen-fd", "5", "--vmm", "libkrun"];
        let serving = serve(&sandbox, &options, Some(theirs.into()));
        let mut mine = mine;
        passt_answers(&mut mine);
        drop(mine);
        let output = serving.output(LIMIT);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "\n", "the program has its end of the pair");
        nothing_left(&sandbox);
    }
    let sandbox = Sandbox::new(As::User, Some(&netns));
    let file = fs::File::open("/dev/null").unwrap();
    let output = serve(&sandbox, &["--listen-fd", "5"], Some(file.into())).output(LIMIT);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--listen-fd 5 is not a UNIX stream socket"));
    refused(sandbox.netlaunch(&["--listen-fd", "6"]), "--listen-fd 6: not open");
}
