//! Tests the processes and files that a network's commands and its dnsmasq trust: no process that
//! only looks like dnsmasq, no process of a shared account, and no status of another network
//! namespace.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::network_host::NetworkHost;
use crate::common::{
    AT_MOST, Netns, Reaped, Sandbox, USER, finish, have_root, run, skipped, status_field, text,
    wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const NAT: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000098</uuid>\
    <forward mode='nat'/><bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:98'/>\
    <ip address='10.98.0.1' netmask='255.255.255.0'><dhcp><range start='10.98.0.100' \
    end='10.98.0.200'/></dhcp></ip></network>";

/// Kills on drop a process that another program started for the test.
struct Ended(i32);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}

fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Starts four processes of an ordinary user that have dnsmasq's arguments and ignore SIGTERM.
fn imitators(host: &NetworkHost) -> Vec<Reaped> {
    let yes = host.sandbox.path("bin/yes");
    let busybox = text(&run("sh", &["-c", "command -v busybox"]).stdout);
    std::os::unix::fs::symlink(busybox.trim(), &yes).unwrap();
    let argument = format!("--conf-file={}", host.file("dnsmasq.conf").display());
    let script = "trap '' TERM; exec \"$@\"";
    let one = || {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &host.netns.name, "setpriv"]);
        command.args([format!("--reuid={USER}"), format!("--regid={USER}")]);
        command.args(["--clear-groups", "sh", "-c", script, "sh"]).arg(&yes).arg(&argument);
        // The process blocks when the pipe is full, so it uses no processor time.
        Reaped(command.stdout(Stdio::piped()).spawn().unwrap())
    };
    let all: Vec<Reaped> = (0..4).map(|_| one()).collect();
    let looks = |pid: i32| {
        let line = text(&fs::read(format!("/proc/{pid}/cmdline")).unwrap());
        line == format!("{}\0{argument}\0", yes.display())
    };
    assert!(wait_until(AT_MOST, || all.iter().all(|one| looks(one.pid()))));
    all
}

#[test]
fn a_process_that_only_looks_like_dnsmasq_is_ignored() {
    if !have_root("a_process_that_only_looks_like_dnsmasq_is_ignored") {
        return;
    }
    let host = NetworkHost::new(NAT);
    let before = host.state();
    let imitators = imitators(&host);
    let begun = Instant::now();
    host.good("network start lab");
    // The pid file names an imitator, too.
    fs::write(host.file("dnsmasq.pid"), imitators[0].pid().to_string()).unwrap();
    let dnsmasq = host.dnsmasq();
    host.good("firewall reload");
    assert!(runs(dnsmasq));
    host.good("network destroy lab");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(imitators.iter().all(|one| runs(one.pid())), "an imitator was killed");
    assert!(!runs(dnsmasq));
    drop(imitators);
    assert_eq!(host.state(), before);
}

#[test]
fn a_dnsmasq_of_another_namespace_is_never_signalled() {
    if !have_root("a_dnsmasq_of_another_namespace_is_never_signalled") {
        return;
    }
    let host = NetworkHost::new(NAT);
    let other = Netns::bare();
    // A container can have the same path: root runs the same program with the same argument there.
    let dir = host.file("dnsmasq.conf").parent().unwrap().to_owned();
    fs::create_dir_all(&dir).unwrap();
    let pid_file = host.sandbox.path("run/other.pid");
    let conf = format!("pid-file={}\nport=0\n", pid_file.display());
    fs::write(host.file("dnsmasq.conf"), conf).unwrap();
    let argument = format!("--conf-file={}", host.file("dnsmasq.conf").display());
    let started = run("ip", &["netns", "exec", &other.name, "/usr/sbin/dnsmasq", &argument]);
    assert!(started.status.success(), "{}", text(&started.stderr));
    let foreign = Ended(fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap());
    fs::remove_dir_all(&dir).unwrap();
    host.good("network start lab");
    host.good("network destroy lab");
    assert!(runs(foreign.0));
}

#[test]
fn dnsmasq_has_its_own_user_and_three_capabilities() {
    if !have_root("dnsmasq_has_its_own_user_and_three_capabilities") {
        return;
    }
    let host = NetworkHost::new(NAT);
    host.good("network start lab");
    let pid = host.dnsmasq();
    let user = host.status()["served"]["user"].as_u64().unwrap();
    assert!(user > 60_000 && user != 65_534, "{user}");
    assert_eq!(status_field(pid, "Uid"), format!("{user}\t{user}\t{user}\t{user}"));
    assert_eq!(status_field(pid, "Gid"), format!("{user}\t{user}\t{user}\t{user}"));
    assert_eq!(status_field(pid, "Groups"), "");
    assert_eq!(status_field(pid, "NoNewPrivs"), "1");
    // These are CAP_NET_BIND_SERVICE, CAP_NET_ADMIN and CAP_NET_RAW.
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status_field(pid, set), "0000000000003400", "{set}");
    }
    // dnsmasq can write its leases and nothing else.
    for (name, uid, mode) in [
        (".", 0, 0o755),
        ("status.json", 0, 0o644),
        ("dnsmasq.conf", 0, 0o644),
        ("dnsmasq.dhcp-hosts", 0, 0o644),
        ("dnsmasq.dns-hosts", 0, 0o644),
        ("private", 0, 0o700),
        ("leases", user as u32, 0o755),
        ("leases/dnsmasq.leases", user as u32, 0o644),
    ] {
        let is = fs::metadata(host.file(name)).unwrap();
        assert_eq!((is.uid(), is.mode() & 0o7777), (uid, mode), "{name}");
    }
    // A restarted dnsmasq gets another user and keeps the leases.
    fs::write(host.file("leases/dnsmasq.leases"), "").unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert!(wait_until(AT_MOST, || !runs(pid)));
    // A compromised dnsmasq could leave a link to one of root's files in place of the leases.
    let secret = host.sandbox.path("run/secret");
    fs::write(&secret, "secret").unwrap();
    fs::remove_file(host.file("leases/dnsmasq.leases")).unwrap();
    std::os::unix::fs::symlink(&secret, host.file("leases/dnsmasq.leases")).unwrap();
    let said = host.good("firewall reload");
    assert!(said.contains("dnsmasq of the network lab was gone and runs again"), "{said}");
    let next = host.status()["served"]["user"].as_u64().unwrap();
    assert_ne!(next, user);
    assert_eq!(fs::metadata(&secret).unwrap().uid(), 0);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    let leases = fs::symlink_metadata(host.file("leases/dnsmasq.leases")).unwrap();
    assert!(leases.is_file() && u64::from(leases.uid()) == next);
    host.good("network destroy lab");
}

/// The test runs in its own PID and mount namespace, so that it reaches no other process of these
/// accounts.
#[test]
fn no_process_of_a_shared_account_can_end_or_replace_dnsmasq() {
    if !have_root("no_process_of_a_shared_account_can_end_or_replace_dnsmasq") {
        return;
    }
    let host = NetworkHost::new(NAT);
    let script = r#"
        netlaunch=$1; dir=$2
        "$netlaunch" network start lab
        pid=$(tr -d ' ,' <"$dir/status.json" | sed -n 's/^"pid"://p')
        [ "$pid" ] || pid=$(cat "$dir/dnsmasq.pid")
        [ "$(cat /proc/$pid/comm)" = dnsmasq ]
        for account in nobody dnsmasq; do
            setpriv --reuid=$account --regid=nogroup --clear-groups sh -c '
                kill -9 '$pid' 2>/dev/null && echo killed by '$account'
                cd '"$dir"' || exit 0
                for file in dnsmasq.pid private/dnsmasq.pid leases/dnsmasq.leases dnsmasq.conf; do
                    { echo 1 >$file; } 2>/dev/null && echo $file written by '$account'
                    mv -f $file stolen 2>/dev/null && echo $file moved by '$account'
                    rm -f $file 2>/dev/null
                done
                true'
        done
        kill -0 $pid && echo runs
        "$netlaunch" network destroy lab
        [ ! -d /proc/$pid ] || grep -q '^State:.Z' /proc/$pid/status
        echo ended"#;
    let mut command = host.sandbox.program(std::path::Path::new("/usr/bin/unshare"));
    command.args(["--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]);
    command.args(["sh", "-ec", script, "sh"]);
    command.arg(host.sandbox.path("bin/netlaunch")).arg(host.sandbox.state().join("networks/lab"));
    let output = finish(command);
    let said = text(&output.stdout);
    assert_eq!(said, "runs\nended\n", "{}", text(&output.stderr));
}

fn state_of(sandbox: &Sandbox) -> Value {
    let output = finish(sandbox.netlaunch(&["network", "list", "--json"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let networks = all["networks"].as_array().unwrap();
    networks.iter().find(|network| network["name"] == "lab").unwrap().clone()
}

/// Returns a function that runs netlaunch in another namespace with the directories of the host.
fn beside(host: &NetworkHost, netns: &Netns) -> impl Fn(&str) -> Output + use<> {
    let program = host.sandbox.path("bin/netlaunch");
    let usual = host.sandbox.netlaunch::<&str>(&[]);
    let env: Vec<_> =
        usual.get_envs().map(|(k, v)| (k.to_owned(), v.map(OsString::from))).collect();
    let netns = netns.name.clone();
    move |line: &str| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &netns]).arg(&program).args(line.split(' ')).env_clear();
        command.envs(env.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command)
    }
}

#[test]
fn a_command_in_another_namespace_does_not_change_a_network() {
    if !have_root("a_command_in_another_namespace_does_not_change_a_network") {
        return;
    }
    let host = NetworkHost::new(NAT);
    let other = Netns::routed();
    let there = beside(&host, &other);
    let before = host.state();
    host.good("network start lab");
    let active = host.state();
    let status = fs::read(host.file("status.json")).unwrap();
    let quiet = other.says("nft", &["list", "ruleset"]);
    for line in ["network destroy lab", "network start lab", "firewall reload"] {
        let output = there(line);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        let why = "the network lab was started in another network namespace";
        assert!(said.contains(why) && said.contains("nsenter --net=/"), "{line}: {said}");
        assert_eq!(host.state(), active, "{line}");
        assert_eq!(fs::read(host.file("status.json")).unwrap(), status, "{line}");
        assert_eq!(other.says("nft", &["list", "ruleset"]), quiet, "{line}");
    }
    let row = text(&there("network list").stdout);
    let row = row.lines().find(|line| line.contains("lab")).unwrap().to_owned();
    assert_eq!(row.split_whitespace().nth(1), Some("elsewhere"), "{row}");
    let json: Value = serde_json::from_slice(&there("network list --json").stdout).unwrap();
    assert!(json["networks"].as_array().unwrap().iter().any(|network| {
        network["name"] == "lab" && network["state"] == "active" && network["elsewhere"] == true
    }));
    assert_eq!(there("network undefine lab").status.code(), Some(2));
    assert_eq!(state_of(&host.sandbox)["elsewhere"], false);
    // The command that the message names removes the network.
    let said = text(&there("network destroy lab").stderr);
    let entry = said.split("nsenter --net=").nth(1).unwrap().split([' ', ',', ';']).next().unwrap();
    let program = host.sandbox.path("bin/netlaunch");
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={entry}")).arg(program).args(["network", "destroy", "lab"]);
    command.env("NETLAUNCH_STATE_DIR", host.sandbox.state());
    command.env("NETLAUNCH_CONFIG_DIR", host.sandbox.path("config"));
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(host.state(), before);
}

#[test]
fn the_remains_of_a_network_in_a_removed_namespace_are_removed() {
    let test = "the_remains_of_a_network_in_a_removed_namespace_are_removed";
    if !have_root(test) {
        return;
    }
    // PROC_PID_INIT_INO in linux/proc_ns.h
    if fs::metadata("/proc/self/ns/pid").unwrap().ino() != 0xEFFF_FFFC {
        skipped(test, "this PID namespace does not show every process of the host");
        return;
    }
    let host = NetworkHost::new(NAT);
    let first = Netns::routed();
    let gone = beside(&host, &first);
    let started = gone("network start lab");
    assert!(started.status.success(), "{}", text(&started.stderr));
    let pid = host.dnsmasq();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert!(wait_until(AT_MOST, || !runs(pid)));
    assert_eq!(state_of(&host.sandbox)["elsewhere"], true);
    drop(first);
    let before = host.sh("ip -o link");
    assert!(wait_until(AT_MOST, || { state_of(&host.sandbox)["state"] == "inactive" }));
    host.good("network start lab");
    // After a boot, only the files of the network are left.
    let text = fs::read_to_string(host.file("status.json")).unwrap();
    host.good("network destroy lab");
    fs::create_dir_all(host.file("")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(host.file("status.json"), text.replace(boot.trim(), "another")).unwrap();
    assert_eq!(state_of(&host.sandbox)["state"], "inactive");
    host.good("network start lab");
    host.good("network destroy lab");
    assert_eq!(host.sh("ip -o link"), before);
}

/// An earlier release recorded neither the process nor the namespace.
#[test]
fn a_network_of_an_earlier_release_can_be_destroyed() {
    if !have_root("a_network_of_an_earlier_release_can_be_destroyed") {
        return;
    }
    let host = NetworkHost::new(NAT);
    let before = host.state();
    host.good("network start lab");
    let first = host.dnsmasq();
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    assert!(wait_until(AT_MOST, || !runs(first)));
    let mut status = host.status();
    for member in ["served", "place"] {
        status.as_object_mut().unwrap().remove(member).unwrap();
    }
    fs::write(host.file("status.json"), status.to_string()).unwrap();
    fs::remove_dir_all(host.file("private")).unwrap();
    fs::remove_dir_all(host.file("leases")).unwrap();
    let mut conf = fs::read_to_string(host.file("dnsmasq.conf")).unwrap();
    conf = conf.replace("/leases/dnsmasq.leases", "/dnsmasq.leases");
    conf.push_str(&format!("pid-file={}\n", host.file("dnsmasq.pid").display()));
    fs::write(host.file("dnsmasq.conf"), conf).unwrap();
    host.sh(&format!("/usr/sbin/dnsmasq --conf-file={}", host.file("dnsmasq.conf").display()));
    let pid: i32 = fs::read_to_string(host.file("dnsmasq.pid")).unwrap().trim().parse().unwrap();
    let _ended = Ended(pid);
    host.good("firewall reload");
    assert!(runs(pid), "a reload does not restart dnsmasq");
    assert_eq!(host.good("network list").lines().count(), 3);
    host.good("network destroy lab");
    assert!(!runs(pid));
    assert_eq!(host.state(), before);
}

/// A command that is killed right after it starts dnsmasq has not recorded the process.
#[test]
fn a_dnsmasq_that_is_not_recorded_is_found_and_ended() {
    if !have_root("a_dnsmasq_that_is_not_recorded_is_found_and_ended") {
        return;
    }
    let host = NetworkHost::new(NAT);
    let before = host.state();
    // In a private directory, dnsmasq runs under its own account.
    for (mode, is_transient) in [(0o755, true), (0o700, false)] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(host.sandbox.path(""), mode).unwrap();
        let said = host.netlaunch("-v network start lab");
        let said = text(&said.stderr);
        assert_ne!(said.contains("dnsmasq for nlt0 runs under its own account"), is_transient);
        let pid = host.dnsmasq();
        assert_ne!(status_field(pid, "Uid").split_whitespace().next(), Some("0"));
        let mut status = host.status();
        assert_eq!(status["served"]["user"].is_number(), is_transient, "{said}");
        host.good("firewall reload");
        assert_eq!(host.dnsmasq(), pid, "a reload does not restart dnsmasq");
        status["served"]["process"] = Value::Null;
        status["complete"] = false.into();
        fs::write(host.file("status.json"), status.to_string()).unwrap();
        host.good("firewall reload");
        assert!(!runs(pid));
        assert_eq!(host.state(), before);
    }
}
