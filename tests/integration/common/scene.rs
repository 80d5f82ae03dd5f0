//! A real guest under netlaunch, watched while it runs: what it prints, what it is told, how it
//! ends. Waits have limits that a busy machine with two emulated guests keeps.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::{
    As, Guest, Netns, Reaped, Sandbox, finish, have_root, processes_with, start, text, wait_until,
};

/// How long a guest may take for anything.
pub const LIMIT: Duration = Duration::from_secs(180);
/// The namespace's own address, where its DNS server answers.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The output of a stream so far, collected in the background.
#[derive(Clone)]
pub struct Heard {
    text: Arc<Mutex<String>>,
    ended: Arc<AtomicBool>,
}

impl Heard {
    /// Listens to `stream` up to its end; a terminal's end is an error.
    pub fn of(mut stream: impl Read + Send + 'static) -> Self {
        let heard = Heard { text: Arc::default(), ended: Arc::default() };
        let mine = heard.clone();
        thread::spawn(move || {
            let mut bytes = [0u8; 4096];
            while let Ok(n @ 1..) = stream.read(&mut bytes) {
                mine.text.lock().unwrap().push_str(&text(&bytes[..n]));
            }
            mine.ended.store(true, Ordering::SeqCst);
        });
        heard
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// Returns the text behind `key` on its first complete line, without the line's end.
    pub fn after(&self, key: &str) -> Option<String> {
        let text = self.text();
        let (_, rest) = text.split_once(key)?;
        let (line, _) = rest.split_once('\n')?;
        Some(line.trim_end().to_owned())
    }
}

/// A program with a guest, by default netlaunch, and what it says.
pub struct Scene {
    child: Reaped,
    stdin: Option<ChildStdin>,
    /// The guest's console.
    pub out: Heard,
    /// netlaunch's messages.
    pub err: Heard,
    /// How many commands the guest was asked to run.
    asked: u32,
}

/// A guest's script for [`Scene::ask`].
pub const SHELL: &str = "echo 'SHELL .'; while read -r line; do eval \"$line\"; done";

impl Scene {
    /// Starts `command` with pipes at its standard descriptors.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped());
        let mut child = start(command);
        let stdin = child.0.stdin.take();
        let out = Heard::of(child.0.stdout.take().unwrap());
        let err = Heard::of(child.0.stderr.take().unwrap());
        Scene { child, stdin, out, err, asked: 0 }
    }

    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Everything said so far, for a failure's message.
    pub fn said(&self) -> String {
        format!("-- console:\n{}\n-- messages:\n{}", self.out.text(), self.err.text())
    }

    /// Waits until the console has a line with `key`, and returns what follows it there.
    pub fn hear(&mut self, key: &str) -> String {
        let mut status = None;
        let heard = wait_until(LIMIT, || {
            status = self.child.0.try_wait().unwrap();
            status.is_some() || self.out.after(key).is_some()
        });
        match self.out.after(key) {
            Some(rest) => rest,
            None if heard => panic!("ended with {status:?} before {key:?}\n{}", self.said()),
            None => panic!("no {key:?} within {LIMIT:?}\n{}", self.said()),
        }
    }

    /// Waits until the messages satisfy `done`.
    pub fn messages(&self, what: &str, done: impl Fn(&str) -> bool) {
        let seen = wait_until(LIMIT, || done(&self.err.text()));
        assert!(seen, "not said within {LIMIT:?}: {what}\n{}", self.said());
    }

    /// Types a line at the guest's console.
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Has a guest whose script is [`SHELL`] run a command, and returns what that prints, in one
    /// line.
    pub fn ask(&mut self, command: &str) -> String {
        self.asked += 1;
        let key = format!("ANSWER{} ", self.asked);
        self.say(&format!("answer=$({command} 2>&1); echo \"{key}\"$answer"));
        self.hear(&key)
    }

    /// Waits for the end and for the last words.
    pub fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until(LIMIT, || {
            status = self.child.0.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap_or_else(|| panic!("no end within {LIMIT:?}\n{}", self.said()));
        // `nothing_left` reports a process that keeps them open.
        wait_until(Duration::from_secs(2), || {
            [&self.out, &self.err].iter().all(|heard| heard.ended.load(Ordering::SeqCst))
        });
        status
    }
}

/// Returns a host with a resolver and the sandbox of a user on it; `None` if the test needs root
/// and has none.
pub fn host(test: &str, who: As) -> Option<(Netns, Sandbox)> {
    have_root(test).then(|| {
        let host = netns_with_resolver(HOST);
        let sandbox = Sandbox::new(who, Some(&host));
        (host, sandbox)
    })
}

/// A namespace whose programs find `server` in /etc/resolv.conf.
pub fn netns_with_resolver(server: Ipv4Addr) -> Netns {
    let netns = Netns::routed();
    netns.resolver(server);
    netns
}

/// Answers every question for an IPv4 address with `answer`, at port 53 of `at` in the namespace.
pub fn serve_dns(netns: &Netns, at: Ipv4Addr, answer: Ipv4Addr) {
    let socket = netns.inside(|| UdpSocket::bind((at, 53)).unwrap());
    thread::spawn(move || {
        let mut question = [0u8; 512];
        while let Ok((n, peer)) = socket.recv_from(&mut question) {
            if let Some(reply) = dns_reply(&question[..n], answer) {
                let _ = socket.send_to(&reply, peer);
            }
        }
    });
}

/// The reply to one DNS question (RFC 1035): an address for type A, nothing for all others.
fn dns_reply(question: &[u8], answer: Ipv4Addr) -> Option<Vec<u8>> {
    let mut end = 12;
    while *question.get(end)? != 0 {
        end += 1 + usize::from(question[end]);
    }
    let kind = question.get(end + 1..end + 3)?;
    let is_a = kind == [0, 1];
    let mut reply = question[..2].to_vec();
    reply.extend([0x85, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    reply.extend(question.get(12..end + 5)?);
    if is_a {
        // The name is that at offset 12; type A, class IN, 60 seconds, four bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(answer.octets());
    }
    Some(reply)
}

/// netlaunch's arguments `options`, then the guest that runs `script`. NETLAUNCH_TEST_PASST names
/// another passt than the one in PATH.
pub fn command_line(
    sandbox: &Sandbox,
    guest: &Guest,
    options: &[&str],
    script: &str,
) -> Vec<String> {
    let mut args: Vec<String> = options.iter().map(|s| (*s).to_owned()).collect();
    args.push("--".into());
    args.extend(qemu(sandbox, guest, script));
    args
}

/// `--passt` with the passt of NETLAUNCH_TEST_PASST, where there is one.
pub fn passt_option() -> Vec<String> {
    let named = std::env::var("NETLAUNCH_TEST_PASST").ok();
    named.map(|path| vec!["--passt".into(), path]).unwrap_or_default()
}

/// The passt under test.
pub fn passt_path() -> PathBuf {
    std::env::var_os("NETLAUNCH_TEST_PASST").map_or_else(|| "/usr/bin/passt".into(), Into::into)
}

/// Whether the passt under test names this option in its help.
pub fn passt_has(option: &str) -> bool {
    let help = Command::new(passt_path()).arg("--help").output().unwrap();
    text(&[help.stdout, help.stderr].concat()).contains(&format!("--{option}"))
}

/// The guest's QEMU, which carries the sandbox's path in its command line to be found by it.
pub fn qemu(sandbox: &Sandbox, guest: &Guest, script: &str) -> Vec<String> {
    let mut argv = guest.qemu(script);
    argv.extend(["-name".into(), sandbox.path("").to_string_lossy().into_owned()]);
    argv
}

/// The same command with arguments appended.
pub fn with<S: Into<OsString>>(mut command: Command, args: impl IntoIterator<Item = S>) -> Command {
    command.args(args.into_iter().map(Into::into));
    command
}

/// The launches that `netlaunch ps` shows.
pub fn launches(sandbox: &Sandbox) -> Vec<serde_json::Value> {
    let output = finish(sandbox.netlaunch(&["ps", "--json"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    all["launches"].as_array().unwrap().clone()
}

/// The one launch that `netlaunch ps` shows.
pub fn launch(sandbox: &Sandbox) -> serde_json::Value {
    let mut all = launches(sandbox);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// The process number under `program` (`qemu`, `passt`) of a launch.
pub fn pid_of(launch: &serde_json::Value, program: &str) -> i32 {
    launch[program]["pid"].as_i64().unwrap_or_else(|| panic!("no {program}: {launch:#}")) as i32
}

/// Whether a process runs; a zombie does not.
pub fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// No process of the sandbox, no launch directory: at once, not after a while.
pub fn nothing_left(sandbox: &Sandbox) {
    let left = processes_with(&sandbox.path("").to_string_lossy());
    assert!(left.is_empty(), "still running: {left:?}");
    assert_eq!(sandbox.launch_dirs(), [] as [String; 0]);
}

/// A directory for PATH that has QEMU and what the tests start programs with, and no passt.
pub fn path_without_passt(sandbox: &Sandbox) -> PathBuf {
    let dir = sandbox.path("path");
    std::fs::create_dir(&dir).unwrap();
    for name in ["ip", "setpriv", "qemu-system-x86_64"] {
        let usual = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        let program = usual.iter().map(|dir| Path::new(dir).join(name)).find(|p| p.exists());
        std::os::unix::fs::symlink(program.unwrap(), dir.join(name)).unwrap();
    }
    dir
}

/// A passt for `--passt` that is real as far as its help goes, and runs `body` when it is to serve;
/// `$REAL` is the passt under test.
pub fn fake_passt(sandbox: &Sandbox, body: &str) -> PathBuf {
    let real = passt_path();
    let script = format!(
        "REAL={}\ncase $* in *--help*) exec \"$REAL\" --help;; esac\n{body}",
        real.display()
    );
    sandbox.script("passt", &script)
}
