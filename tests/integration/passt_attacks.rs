//! Tests attacks on the passt of a root guest by other processes of the host: by those of the
//! user nobody, of the group nogroup, and of passt's own user.
//!
//! The launch and its attackers run in their own PID and mount namespaces, so an attack that
//! succeeds reaches nothing else.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::scene::{
    HOST, Scene, command_line, fake_passt, netns_with_resolver, nothing_left, passt_option,
};
use crate::common::{
    As, Guest, Netns, Sandbox, finish, have_root, processes_with, status_field, text, wait_until,
};

/// The time limit, much longer than any step takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A Python program that tries to take over the passt processes of a launch root. It prints each
/// successful attempt once. Its arguments are the launch root and its own name.
const ATTACKER: &str = r#"
import ctypes, glob, os, signal, socket, sys, time
root, tag = sys.argv[1], sys.argv[2]
libc = ctypes.CDLL(None)
said = set()
def attempt(what, work):
    try:
        work()
    except (OSError, ValueError):
        return
    if what not in said:
        said.add(what)
        print(what, flush=True)
def names(pid):
    with open(f'/proc/{pid}/comm') as f:
        return f.read().strip()
def victims():
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            name = names(pid)
        except OSError:
            continue
        if name.startswith(('passt', 'netlaunch', 'qemu')):
            yield int(pid), name
def write(path):
    with open(path, 'r+') as f:
        f.write('1\n')
def trace(pid):
    if libc.ptrace(0x4206, pid, 0, 0) != 0:
        raise OSError
def connect(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
own = f'{root}/../open/{tag}'
def listen(path):
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    s.listen()
    return s
kept = listen(own)
print('ready', flush=True)
while True:
    for dir in glob.glob(f'{root}/launch-*'):
        attempt('list', lambda: os.listdir(dir))
        attempt('chmod', lambda: os.chmod(dir, 0o777))
        attempt('create', lambda: open(f'{dir}/{tag}', 'x').close())
        attempt('rename a socket over passt.sock', lambda: os.rename(own, f'{dir}/passt.sock'))
        for name in ['passt.sock', 'passt.pid', 'passt.log', 'launch.json']:
            path = f'{dir}/{name}'
            attempt(f'rename {name}', lambda: os.rename(path, f'{dir}/x'))
            attempt(f'unlink {name}', lambda: os.unlink(path))
            attempt(f'write {name}', lambda: write(path))
            attempt(f'link {name}', lambda: os.symlink('/etc/passwd', path))
        attempt('connect', lambda: connect(f'{dir}/passt.sock'))
    for pid, name in victims():
        attempt(f'signal {name}', lambda: os.kill(pid, signal.SIGKILL))
        attempt(f'trace {name}', lambda: trace(pid))
        attempt(f'memory of {name}', lambda: write(f'/proc/{pid}/mem'))
        attempt(f'descriptors of {name}', lambda: os.listdir(f'/proc/{pid}/fd'))
    time.sleep(0.005)
"#;

/// The names of the attackers and their options for setpriv(1).
const ATTACKERS: [(&str, &str); 3] = [
    ("nobody", "--reuid 65534 --regid 65534 --clear-groups"),
    ("nogroup", "--reuid 12345 --regid 65534 --clear-groups"),
    ("groups", "--reuid 65534 --regid 12345 --groups 65534,12345"),
];

/// Makes the directory in which the attackers may write, and the program of the attackers.
fn arm(sandbox: &Sandbox) {
    let open = sandbox.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(sandbox.path("attack.py"), ATTACKER).unwrap();
}

/// Returns netlaunch in namespaces in which the attackers work before it starts.
fn under_attack(sandbox: &Sandbox, args: &[String]) -> Command {
    let mut script = String::new();
    for (name, options) in ATTACKERS {
        let [attack, root, report] =
            ["attack.py", "state", &format!("report-{name}")].map(|name| sandbox.path(name));
        script += &format!(
            "setpriv {options} python3 {} {} {name} >{} 2>&1 &\n",
            attack.display(),
            root.display(),
            report.display()
        );
    }
    for (name, _) in ATTACKERS {
        let report = sandbox.path(&format!("report-{name}"));
        script += &format!("until grep -q ready {}; do sleep 0.1; done\n", report.display());
    }
    // The shell stays PID 1 of the namespace and ends with netlaunch's status.
    script += "\"$@\"; exit $?";
    let mut command = sandbox.program(Path::new("unshare"));
    command.args(["--pid", "--mount", "--mount-proc", "--fork", "--kill-child"]);
    command.args(["sh", "-c", &script, "sh"]).arg(sandbox.path("bin/netlaunch")).args(args);
    command
}

/// Returns the only launch directory.
fn launch_dir(sandbox: &Sandbox) -> PathBuf {
    let mut dirs = sandbox.launch_dirs();
    assert_eq!(dirs.len(), 1, "{dirs:?}");
    sandbox.state().join(dirs.remove(0))
}

/// Waits for a passt that is not `before`, and returns its process id on the host.
fn passt(sandbox: &Sandbox, before: i32) -> i32 {
    let socket = sandbox.state().display().to_string();
    let find = || {
        let all = processes_with(&socket).into_iter();
        let mut passts = all.filter(|(pid, line)| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            *pid != before && comm.starts_with("passt") && line.contains("--foreground")
        });
        passts.next().map(|(pid, _)| pid)
    };
    assert!(wait_until(LIMIT, || find().is_some()), "no passt");
    find().unwrap()
}

/// Asks the guest once, with a short time limit. A passt without its guest never answers.
fn ask() -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", 2281))?;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    stream.write_all(b"hello\n")?;
    let mut bytes = [0u8; 64];
    let n = stream.read(&mut bytes)?;
    Ok(text(&bytes[..n]))
}

/// Returns whether the guest answers within a minute.
fn answers(netns: &Netns) -> bool {
    let answered = || {
        let asked = ask().is_ok_and(|answer| answer == "tcp-answer\n");
        sleep(Duration::from_millis(20));
        asked
    };
    netns.inside(|| wait_until(LIMIT, answered))
}

#[test]
fn other_users_cannot_touch_a_root_guests_passt() {
    let test = "other_users_cannot_touch_a_root_guests_passt";
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return };
    let netns = netns_with_resolver(HOST);
    let sandbox = Sandbox::new(As::Root, Some(&netns));
    arm(&sandbox);
    let passt_options = passt_option();
    let mut options = vec!["-p", "2281:80", "--backend", "passt", "--transport", "unix"];
    options.extend(passt_options.iter().map(String::as_str));
    let script = "serve_tcp 80 tcp-answer\necho 'UP .'\nread go\nexit_qemu 33";
    let args = command_line(&sandbox, &guest, &options, script);
    let mut scene = Scene::start(under_attack(&sandbox, &args));
    scene.hear("UP ");
    assert!(answers(&netns), "{}", scene.said());

    // passt runs under a user id that no other process has.
    let first = passt(&sandbox, 0);
    let ids = status_field(first, "Uid");
    let uid: u32 = ids.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(ids, [uid; 4].map(|id| id.to_string()).join("\t"));
    assert_eq!(status_field(first, "Gid"), ids);
    assert!((2_000_200_001..=2_147_352_575).contains(&uid), "{uid}");
    // While passt serves, not even its own user can make files beside the socket.
    let dir = launch_dir(&sandbox);
    let is = dir.metadata().unwrap();
    assert_eq!((is.mode() & 0o7777, is.uid(), is.gid()), (0o700, 0, 0));

    // The attackers get some time. Then passt restarts while they attack.
    sleep(Duration::from_secs(1));
    assert!(answers(&netns), "{}", scene.said());
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let second = passt(&sandbox, first);
    assert!(answers(&netns), "{}", scene.said());
    assert_eq!(status_field(second, "Uid"), ids, "the same user");
    assert_eq!(dir.metadata().unwrap().mode() & 0o7777, 0o700);
    sleep(Duration::from_secs(1));
    assert!(answers(&netns), "{}", scene.said());

    scene.say("go");
    assert_eq!(scene.end().code(), Some(33), "{}", scene.said());
    for (name, _) in ATTACKERS {
        let report = fs::read_to_string(sandbox.path(&format!("report-{name}"))).unwrap();
        assert_eq!(report, "ready\n", "successful attacks of {name}");
    }
    nothing_left(&sandbox);
}

/// The shell code of a compromised passt: during its start, it tries as passt's own user to replace
/// the files of netlaunch, and then it serves.
const COMPROMISED: &str = r#"
for word; do
    [ "$last" = --runas ] && user=$word
    [ "$last" = --pid ] && dir=${word%/*}
    last=$word
done
cat > "$HOME/attack" <<'END'
cd "$1" || exit
try() { "$@" 2>/dev/null && echo "$*"; }
for file in launch.json passt.log; do
    try mv "$file" moved
    try mv mine "$file"
    try ln -sf /etc/passwd "$file"
    try rm -f "$file"
    try cp mine "$file"
    try cat "$file"
done
try chmod 777 .
touch mine && echo made
END
setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups \
    sh "$HOME/attack" "$dir" > "$HOME/report"
exec "$REAL" "$@""#;

#[test]
fn passts_own_user_cannot_replace_the_files_of_a_launch() {
    let test = "passts_own_user_cannot_replace_the_files_of_a_launch";
    if !have_root(test) {
        return;
    }
    let netns = Netns::routed();
    for transport in ["unix", "fd"] {
        let sandbox = Sandbox::new(As::Root, Some(&netns));
        let fake = fake_passt(&sandbox, COMPROMISED).display().to_string();
        let qemu = ["--", "qemu-system-x86_64", "-M", "none", "-nodefaults", "-version"];
        let options = ["--backend", "passt", "--transport", transport, "--device", "none"];
        let args = [&options[..], &["--passt", &fake], &qemu].concat();
        let output = finish(sandbox.netlaunch(&args));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        // passt's user may make a file while passt starts, and can do nothing else.
        let report = fs::read_to_string(sandbox.path("home/report")).unwrap();
        assert_eq!(report, "made\n", "{transport}");
        nothing_left(&sandbox);
    }
}

#[test]
fn passt_keeps_the_callers_id_if_no_other_id_is_mapped() {
    let test = "passt_keeps_the_callers_id_if_no_other_id_is_mapped";
    if !have_root(test) {
        return;
    }
    let netns = Netns::routed();
    let sandbox = Sandbox::new(As::Root, Some(&netns));
    let mut command = sandbox.program(Path::new("unshare"));
    command.args(["--user", "--map-root-user", "--pid", "--mount-proc", "--fork"]);
    command.arg(sandbox.path("bin/netlaunch")).args(["-v", "--backend", "passt"]);
    command.args(passt_option()).args(["--device", "none", "--", "qemu-system-x86_64"]);
    command.args(["-M", "none", "-nodefaults", "-version"]);
    let output = finish(command);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("passt has no user of its own and runs as this one"), "{said}");
    assert!(said.contains("--foreground --one-off"), "passt does not change its user: {said}");
    nothing_left(&sandbox);
}

#[test]
fn a_user_that_services_share_gives_one_warning() {
    let test = "a_user_that_services_share_gives_one_warning";
    if !have_root(test) {
        return;
    }
    let sandbox = Sandbox::new(As::Root, None);
    for (user, warnings) in [("nobody", 1), ("daemon", 1), ("games", 0)] {
        let options = ["--backend", "slirp", "--user", user, "--", "qemu-system-x86_64"];
        let qemu = ["-M", "none", "-nodefaults", "-version"];
        let output = finish(sandbox.netlaunch(&[&options[..], &qemu].concat()));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let warning = format!("netlaunch: warning: QEMU runs as {user}, whose processes can all");
        assert_eq!(said.matches(&warning).count(), warnings, "{said}");
        assert_eq!(said.lines().count(), warnings, "{said}");
    }
}
