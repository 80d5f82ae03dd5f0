//! Tests a network whose rollback fails in part or meets a full state directory: netlaunch removes
//! the rest, the status records what is left, and a later command removes it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::killed::{Moment, noted, traced};
use crate::common::network_host::NetworkHost;
use crate::common::{finish, have_root, run, text};

const NAT: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000097</uuid>\
    <forward mode='nat'/><bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:97'/>\
    <ip address='10.97.0.1' netmask='255.255.255.0'><dhcp><range start='10.97.0.100' \
    end='10.97.0.200'/></dhcp></ip><ip family='ipv6' address='fd00:97::1' prefix='64'/>\
    <route address='10.96.0.0' prefix='24' gateway='10.97.0.2'/></network>";

/// The rules of the host's own nft, which a test replaces by one that fails.
fn broken_nft(host: &NetworkHost) {
    host.sandbox.script("nft", "echo 'Error: Could not process rule: No buffer space' >&2; exit 1");
}

#[test]
fn a_step_that_cannot_be_undone_is_kept_and_finished_later() {
    if !have_root("a_step_that_cannot_be_undone_is_kept_and_finished_later") {
        return;
    }
    let host = NetworkHost::new(NAT);
    let before = host.state();
    for later in ["firewall reload", "network start lab", "network destroy lab"] {
        host.good("network start lab");
        broken_nft(&host);
        let said = host.bad("network destroy lab", 125);
        assert!(said.contains("No buffer space"), "{said}");
        let status = host.status();
        assert_eq!(status["complete"], false);
        assert_eq!(status["links"].as_array().unwrap().len(), 0, "{status}");
        assert_eq!((&status["dnsmasq"], &status["settings"]), (&false.into(), &[(); 0][..].into()));
        assert!(status["firewall"].is_object(), "{status}");
        // Commands that cannot finish it say so, and change nothing.
        for line in ["network start lab", "firewall reload"] {
            let said = host.bad(line, 125);
            let why = "the network lab has parts of an earlier start that cannot be removed: ";
            assert!(said.contains(why), "{line}: {said}");
            assert_eq!(host.status(), status, "{line}");
        }
        fs::remove_file(host.sandbox.path("bin/nft")).unwrap();
        host.good(later);
        if later == "network start lab" {
            host.good("network destroy lab");
        }
        assert_eq!(host.state(), before, "{later}");
    }
}

#[test]
fn a_failed_start_that_cannot_be_undone_keeps_its_status() {
    if !have_root("a_failed_start_that_cannot_be_undone_keeps_its_status") {
        return;
    }
    let host = NetworkHost::new(NAT);
    let before = host.state();
    // The rules are added, dnsmasq fails, and from then on nft, too.
    let script = "if [ -e \"$0.broken\" ]; then echo 'Error: No buffer space' >&2; exit 1; fi; \
        exec /usr/sbin/nft \"$@\"";
    let nft = host.sandbox.script("nft", script);
    let broken = nft.with_extension("broken");
    host.sandbox.script("dnsmasq", &format!("echo > {}; exit 3", broken.display()));
    fs::write(&broken, "").unwrap();
    fs::remove_file(&broken).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(host.sandbox.path("bin"), open).unwrap();
    let said = host.bad("network start lab", 125);
    assert!(said.contains("the network lab is not completely undone"), "{said}");
    assert!(host.status()["firewall"].is_object());
    assert!(!host.state().contains("nlt0:"), "the bridge is gone");
    fs::remove_file(broken).unwrap();
    host.good("firewall reload");
    assert_eq!(host.state(), before);
}

/// netlaunch under strace with one error injected.
fn injected(host: &NetworkHost, line: &str, at: &Moment, error: &str) -> Output {
    let words: Vec<&str> = line.split(' ').collect();
    let mut command = traced(&host.sandbox, &words, Some(at));
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut changed = Command::new(command.get_program());
    changed.env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    for arg in args {
        let kill = format!("inject={}:signal=KILL:when={}", at.call, at.n);
        if arg.to_str() == Some(&kill) {
            changed.arg(format!("inject={}:error={error}:when={}", at.call, at.n))
        } else {
            changed.arg(arg)
        };
    }
    command = changed;
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    finish(command)
}

/// One system call of a destroy fails. Exit status 0 means that nothing is left; after any other
/// one the next command finishes.
#[test]
fn a_destroy_in_which_a_call_fails_is_finished_by_the_next_command() {
    if !have_root("a_destroy_in_which_a_call_fails_is_finished_by_the_next_command") {
        return;
    }
    let host = NetworkHost::new(NAT);
    let before = host.state();
    host.good("network start lab");
    let output = finish(traced(&host.sandbox, &["network", "destroy", "lab"], None));
    assert!(output.status.success(), "{}", text(&output.stderr));
    // A request to the kernel that gets lost is a matter of the link module's tests.
    let mut moments = noted(&host.sandbox);
    moments.retain(|at| !["sendto", "sendmsg"].contains(&at.call.as_str()));
    let mut failed = 0;
    for (index, at) in moments.iter().enumerate() {
        let about = format!("{at} fails");
        host.good("network start lab");
        let error = ["EIO", "ENOSPC", "ENOMEM"][index % 3];
        let output = injected(&host, "network destroy lab", at, error);
        let said = text(&output.stderr);
        match output.status.code() {
            Some(0) => assert_eq!(host.state(), before, "{about}: {said}"),
            Some(125) => {
                failed += 1;
                assert!(!said.is_empty(), "{about}");
                host.netlaunch(["firewall reload", "network destroy lab"][index % 2]);
                host.netlaunch("network destroy lab");
                assert_eq!(host.state(), before, "{about}: {said}");
            }
            other => panic!("{about}: {other:?}: {said}"),
        }
    }
    println!("{failed} of {} calls failed the command", moments.len());
    assert!(failed > 5, "{failed} of {}", moments.len());
}

/// A small file system over the state directory.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(dir: &'a Path) -> Self {
        let options = ["-t", "tmpfs", "-o", "size=256k,mode=0755", "none"];
        let mounted = Command::new("mount").args(options).arg(dir).status();
        assert!(mounted.unwrap().success());
        Small(dir)
    }

    /// Fills it up to the last byte.
    fn fill(&self) {
        let file = self.0.join("filler");
        let chunk = [0u8; 512];
        use std::io::Write;
        let mut file = fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
        while file.write_all(&chunk).is_ok() {}
        assert!(fs::write(self.0.join("more"), chunk).is_err(), "it is full");
        let _ = fs::remove_file(self.0.join("more"));
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

#[test]
fn a_full_state_directory_stops_neither_destroy_nor_reload() {
    if !have_root("a_full_state_directory_stops_neither_destroy_nor_reload") {
        return;
    }
    let host = NetworkHost::new(NAT);
    let state = host.sandbox.state();
    let small = Small::mount(&state);
    let backend = |name: &str| {
        let line = format!("firewall_backend = \"{name}\"\n");
        fs::write(host.sandbox.path("config/network.conf"), line).unwrap();
    };
    // Makes the directory, the lock, and the tables of iptables, which stay.
    host.good("network start lab");
    backend("iptables");
    host.good("firewall reload");
    host.good("network destroy lab");
    backend("nftables");
    let before = host.state();
    for what in ["destroy", "reload", "another backend", "a step fails", "without the spare"] {
        host.good("network start lab");
        let active = host.state();
        small.fill();
        match what {
            "reload" => {
                let tables = "nft delete table ip netlaunch_network; \
                    nft delete table ip6 netlaunch_network";
                host.sh(&format!("{tables}; kill -9 {}", host.dnsmasq()));
                host.good("firewall reload");
                assert_eq!(host.state(), active);
            }
            "another backend" => {
                backend("iptables");
                host.good("firewall reload");
                assert_eq!(host.status()["backend"], "iptables");
                backend("nftables");
                host.good("firewall reload");
                assert_eq!(host.status()["backend"], "nftables");
            }
            "a step fails" => {
                broken_nft(&host);
                host.bad("network destroy lab", 125);
                assert_eq!(host.status()["complete"], false);
                fs::remove_file(host.sandbox.path("bin/nft")).unwrap();
            }
            "without the spare" => {
                fs::remove_file(host.file("status.spare")).unwrap();
                small.fill();
            }
            _ => {}
        }
        host.good("network destroy lab");
        let left = host.state();
        let left: Vec<&str> = left.lines().filter(|line| !before.contains(line)).collect();
        assert_eq!(left, [""; 0], "{what}");
        fs::remove_file(state.join("filler")).unwrap();
    }
}
