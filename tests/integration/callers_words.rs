//! Messages about the QEMU arguments of the caller name them as the caller wrote them, and a
//! mistake in them is QEMU's own.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Output;

use crate::common::wrapped::qemu;
use crate::common::{As, Netns, Sandbox, finish, have_root, text};

/// A QEMU that ends at once.
const QEMU: &str = "qemu-system-x86_64 -M pc -accel tcg -display none -nodefaults -S";

struct Bench {
    sandbox: Sandbox,
    netns: Netns,
}

impl Bench {
    fn new(test: &str) -> Option<Self> {
        if !have_root(test) || qemu(test).is_none() {
            return None;
        }
        let netns = Netns::routed();
        Some(Bench { sandbox: Sandbox::new(As::User, Some(&netns)), netns })
    }

    fn netlaunch(&self, options: &str, qemu: &[&str]) -> Output {
        let options = options.split(' ').filter(|word| !word.is_empty());
        let args: Vec<&str> = options.chain(["--"]).chain(QEMU.split(' ')).collect();
        let mut command = self.sandbox.netlaunch(&args);
        command.args(qemu);
        finish(command)
    }

    /// Checks that netlaunch refuses with one line that has these words.
    fn refuses(&self, output: &Output, status: i32, words: &[&str]) {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{word} is not in {said}"));
        assert!(self.sandbox.launch_dirs().is_empty());
    }
}

#[test]
fn a_busy_forward_of_a_network_that_moved_is_named_as_the_caller_wrote_it() {
    let test = "a_busy_forward_of_a_network_that_moved_is_named_as_the_caller_wrote_it";
    let Some(bench) = Bench::new(test) else { return };
    let socket = bench.netns.inside(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    let port = socket.local_addr().unwrap().port();
    let forward = format!("hostfwd=udp:127.0.0.1:{port}-:53");
    let nic = format!("user,model=virtio-net-pci,{forward}");
    let output = bench.netlaunch("", &["-nic", &nic]);
    let words = format!("forward another port than {forward} of -nic {nic}");
    bench.refuses(&output, 125, &[&format!("port {port}/udp on 127.0.0.1 is in use"), &words]);
    // The port of the launch's own option.
    let own = format!("-p {port}:53/udp");
    let output = bench.netlaunch(&own, &["-nic", "user,model=virtio-net-pci"]);
    bench.refuses(
        &output,
        125,
        &[&format!("publish another port than -p 127.0.0.1:{port}:53/udp")],
    );
}

#[test]
fn a_passt_option_has_a_value_exactly_if_the_installed_passt_takes_one() {
    let test = "a_passt_option_has_a_value_exactly_if_the_installed_passt_takes_one";
    let Some(bench) = Bench::new(test) else { return };
    for (option, words) in [
        ("outbound-if4", "passt's --outbound-if4 needs a value"),
        ("outbound-if6", "write outbound-if6=VALUE"),
        ("no-ndp=1", "passt's --no-ndp takes no value"),
    ] {
        let output = bench.netlaunch(&format!("--passt-option {option}"), &[]);
        bench.refuses(&output, 125, &[words, "--passt-option"]);
    }
}

#[test]
fn a_mistake_in_a_network_that_moved_comes_with_the_callers_own_words() {
    let test = "a_mistake_in_a_network_that_moved_comes_with_the_callers_own_words";
    let Some(bench) = Bench::new(test) else { return };
    let output = bench.netlaunch("", &["-nic", "user,model=virtio-net-pci", "-nosuch"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let [qemus, own] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert!(qemus.contains("-nosuch: invalid option"), "{said}");
    let start = "netlaunch: warning: QEMU ended at once; in its arguments -nic user,model=virtio-net-pci became -netdev 'stream,";
    assert!(
        own.starts_with(start) && own.ends_with("--keep-nics leaves them as they are"),
        "{own}"
    );
    // Nothing moved.
    let output = bench.netlaunch("--keep-nics --device none", &["-nosuch"]);
    assert_eq!(text(&output.stderr).lines().count(), 1, "{}", text(&output.stderr));
}

#[test]
fn a_json_network_with_a_value_of_another_type_is_refused_by_qemu_itself() {
    let test = "a_json_network_with_a_value_of_another_type_is_refused_by_qemu_itself";
    let Some(bench) = Bench::new(test) else { return };
    for member in [
        r#""ipv4":"off""#,
        r#""restrict":"off""#,
        r#""hostname":true"#,
        r#""net":10"#,
        r#""dnssearch":"example.org""#,
        r#""dnssearch":["example.org"]"#,
    ] {
        let netdev = format!(r#"{{"type":"user","id":"a",{member}}}"#);
        let args = ["-netdev", &netdev, "-device", "virtio-net-pci,netdev=a"];
        let mut plain = bench.sandbox.program(Path::new("/usr/bin/qemu-system-x86_64"));
        plain.args(QEMU.split(' ').skip(1)).args(args);
        let plain = finish(plain);
        assert_eq!(plain.status.code(), Some(1), "{member}: {}", text(&plain.stderr));
        let output = bench.netlaunch("-q", &args);
        assert_eq!(output.status.code(), Some(1), "{member}: {}", text(&output.stderr));
        let words = |output: &Output| {
            let said = text(&output.stderr);
            said.split_once("qemu-system-x86_64: ").map(|(_, words)| words.to_owned())
        };
        assert!(words(&plain).is_some(), "{member}");
        assert_eq!(words(&output), words(&plain), "{member}");
    }
}

#[test]
fn an_mtu_that_the_card_of_a_moved_network_cannot_get_is_refused() {
    let test = "an_mtu_that_the_card_of_a_moved_network_cannot_get_is_refused";
    let Some(bench) = Bench::new(test) else { return };
    let nic = "user,model=virtio-net-pci";
    let other = ["-netdev", "hubport,hubid=1,id=h", "-device", "virtio-net-pci,netdev=h"];
    let args = [&["-nic", nic][..], &other].concat();
    let output = bench.netlaunch("--mtu 1400", &args);
    let words = ["the MTU 1400", "-nic user,model=virtio-net-pci", "host_mtu=1400", "(--mtu)"];
    bench.refuses(&output, 2, &words);
    // Without a requested MTU the card keeps QEMU's, and one card alone gets the requested one.
    for (options, args, sets) in [
        ("--print", &args[..], false),
        ("--print --mtu 1400", &["-nic", nic], true),
        (
            "--print --mtu 1400",
            &["-netdev", "user,id=a", "-device", "virtio-net-pci,netdev=a"],
            true,
        ),
    ] {
        let output = bench.netlaunch(options, args);
        let printed = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(printed.contains("host_mtu"), sets, "{options} {args:?}: {printed}");
    }
}
