//! Tests the test host with Debian's kernel (tests/guest/host): its kernel has what others may
//! lack, a command runs there as on this machine, and nothing is left.

use crate::common::scene::Scene;
use crate::common::{AT_MOST, have_root, processes_with, start, test_host, text, wait_until};

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a test host may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);

/// Rules that a kernel without bridge conntrack, reject and meta refuses, one per line.
const RULES: [&str; 3] = ["ct state new accept", "reject", "meta ibrname br0 accept"];
const CHAIN: &str = "add table bridge t; add chain bridge t c { type filter hook prerouting priority 0; }; add rule bridge t c";

/// The test host's files under a name that only this test has, so that its processes show.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    /// The test host, if root runs this and it was built.
    fn find(test: &str) -> Option<Self> {
        if !have_root(test) {
            return None;
        }
        let built = test_host::built(test)?;
        let dir = tempfile::Builder::new().prefix("nltest-").tempdir().unwrap();
        std::os::unix::fs::symlink(built, dir.path().join("guest")).unwrap();
        Some(Host { dir })
    }

    /// `program` with `args`, which start the test host or are its own.
    fn command<S: AsRef<OsStr>>(&self, program: impl AsRef<OsStr>, args: &[S]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("NETLAUNCH_TEST_GUEST", self.dir.path().join("guest"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end, and shows that nothing is left.
    fn finish(&self, command: Command) -> Output {
        let output = start(command).output(LIMIT);
        self.nothing_left();
        output
    }

    /// Waits until no process, and looks whether a mount or a file, is left of the test host.
    fn nothing_left(&self) {
        let needle = self.dir.path().to_string_lossy().into_owned();
        // QEMU and the script's parts have it among their arguments
        let gone = wait_until(AT_MOST, || processes_with(&needle).is_empty());
        assert!(gone, "{:?}", processes_with(&needle));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains("/run/share"), "{mounts}");
        assert!(!Path::new("/run/share").exists());
        let files = fs::read_dir(self.dir.path()).unwrap();
        let files: Vec<_> = files.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, ["guest"]);
    }
}

impl Drop for Host {
    /// Ends what a failed test left.
    fn drop(&mut self) {
        for (pid, _) in processes_with(&self.dir.path().to_string_lossy()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/host")
}

#[test]
fn the_kernel_of_the_test_host_tracks_connections_of_bridges() {
    let Some(host) = Host::find("the_kernel_of_the_test_host_tracks_connections_of_bridges") else {
        return;
    };
    let try_rules = "\
unshare --net sh -c 'for rule; do
    nft \"$CHAIN $rule\" 2>/dev/null && echo \"loads: $rule\" || echo \"fails: $rule\"
    nft flush ruleset
done' sh \"$@\"
uname -r";
    let mut words: Vec<&str> = vec!["sh", "-c", try_rules, "sh"];
    words.extend(RULES);

    let mut here = host.command(words[0], &words[1..]);
    here.env("CHAIN", CHAIN);
    let here = start(here).output(LIMIT);
    println!("this machine's kernel:\n{}", text(&here.stdout));

    let mut args = vec!["--"];
    args.extend(words);
    let mut command = host.command(script(), &args);
    command.env("CHAIN", CHAIN);
    let output = host.finish(command);
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    println!("the test host's kernel:\n{said}{errors}");
    assert!(output.status.success(), "{:?}", output.status);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], RULES.map(|rule| format!("loads: {rule}")));
    assert!(lines[3].ends_with("-amd64"), "{said}");
}

#[test]
fn a_command_in_the_test_host_has_the_callers_directory_and_environment() {
    let Some(host) =
        Host::find("a_command_in_the_test_host_has_the_callers_directory_and_environment")
    else {
        return;
    };
    let words: [&[u8]; 9] = [
        b"two words",
        b"'single' \"double\"",
        b"line\nline\n",
        b"",
        b"$HOME `id` \\ * ; & #",
        b"--",
        b"A=1",
        b"\xff\x01",
        b"\t ",
    ];
    // The directory is on a file system of its own, as a workspace may be; "file" stays in there.
    let place = "\
mount -t tmpfs tmpfs /mnt && mkdir '/mnt/my dir' && cd '/mnt/my dir' && echo outside >file || exit
\"$@\"
status=$?
cat file >&2
exit $status";
    let inside = "\
cat file; pwd; id -u; echo \"$MARK\"; cat
echo inside >file
echo message >/dev/stderr
sleep 1000 &
printf '%s\\0' \"$@\"
exit 7";
    let mut args: Vec<OsString> = ["--mount", "sh", "-c", place, "sh"].map(OsString::from).to_vec();
    args.push(script().into());
    args.extend(["--memory", "768", "--", "bash", "-c", inside, "bash"].map(OsString::from));
    args.extend(words.map(|word| OsStr::from_bytes(word).to_owned()));
    let mut command = host.command("unshare", &args);
    command.env("MARK", "of the\ncaller");
    let output = host.finish(command);

    let mut expected = b"outside\n/mnt/my dir\n0\nof the\ncaller\n".to_vec();
    expected.extend(words.iter().flat_map(|word| [word, b"\0".as_slice()].concat()));
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.stdout == expected, "{said:?}\n{errors}");
    assert_eq!(errors, "message\noutside\n");
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn a_timeout_ends_the_test_host() {
    let Some(host) = Host::find("a_timeout_ends_the_test_host") else { return };
    let command = host.command(script(), &["--timeout", "5", "--", "sleep", "100000"]);
    let output = host.finish(command);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(124), "{errors}");
    assert_eq!(errors, "tests/guest/host: ended after 5 seconds: sleep\n");
}

#[test]
fn a_signal_ends_the_test_host() {
    let Some(host) = Host::find("a_signal_ends_the_test_host") else { return };
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let mark = host.dir.path().to_string_lossy().into_owned();
        let args = ["--", "sh", "-c", "echo UP .; exec sleep 100000", &mark];
        let mut scene = Scene::start(host.command(script(), &args));
        scene.hear("UP ");
        kill(Pid::from_raw(scene.pid()), signal).unwrap();
        let status = scene.end();
        match signal {
            Signal::SIGKILL => assert_eq!(status.signal(), Some(9)),
            _ => assert_eq!(status.code(), Some(128 + signal as i32), "{}", scene.said()),
        }
        host.nothing_left();
    }
}

#[test]
fn a_command_that_cannot_run_is_reported() {
    let Some(host) = Host::find("a_command_that_cannot_run_is_reported") else { return };
    let cases: [(&[&str], i32, &str); 5] = [
        (&[], 2, "usage: "),
        (&["--"], 2, "usage: "),
        (&["--timeout", "0", "--", "true"], 2, "usage: "),
        // too little for this kernel
        (&["--memory", "20", "--", "true"], 125, "the machine ended before its command"),
        (&["--", "/nonexistent/program"], 127, "/nonexistent/program"),
    ];
    for (args, status, message) in cases {
        let output = host.finish(host.command(script(), args));
        let errors = text(&output.stderr);
        assert!(errors.contains(message), "{args:?}: {errors}");
        assert_eq!(output.status.code(), Some(status), "{args:?}: {errors}");
    }
}
