//! Compares how netlaunch reads QEMU's command line with the installed QEMU, and tests what
//! netlaunch does with the options that it finds.

mod memory;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::common::{As, Netns, Sandbox, finish, have_root, run, start, text, wait_until};
use netlaunch::launcher::plan::{self, Backend, LaunchIds, NicRequest, Request, Transport, plan};
use netlaunch::launcher::qemu_options::{ConfigFile, takes_value};
use netlaunch::types::facts::{Facts, Host, Passt, Qemu, Reconnect};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const LIMIT: Duration = Duration::from_secs(60);
/// Asks QEMU's control protocol for its cards, and ends it.
const CARDS: &str = "{\"execute\":\"qmp_capabilities\"}\n\
    {\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"info network\"}}\n\
    {\"execute\":\"quit\"}\n";

/// The system emulators in /usr/bin.
fn emulators() -> Vec<PathBuf> {
    let entries = fs::read_dir("/usr/bin").unwrap().map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("qemu-system-") && !path.is_symlink()
    };
    entries.filter(is_one).collect()
}

/// The options of a help text.
fn options(help: &str) -> BTreeSet<String> {
    let words = help.lines().filter_map(|line| line.split([' ', '\t']).next());
    let names = words.filter(|word| word.starts_with('-')).flat_map(|word| word.split('/'));
    names.map(|name| name.trim_start_matches('-').to_owned()).collect()
}

/// The first option that this emulator does not know among these words.
fn first_unknown(emulator: &Path, words: &[String]) -> String {
    let output = Command::new(emulator).args(words).stdin(Stdio::null()).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let word = said.split(": ").find(|word| word.starts_with('-')).unwrap_or_default();
    assert!(said.contains("invalid option"), "{said}");
    word.trim_start_matches('-').to_owned()
}

#[test]
fn every_option_of_the_installed_emulators_takes_a_value_as_the_list_says() {
    let emulators = emulators();
    assert!(!emulators.is_empty(), "no emulator in /usr/bin (./tests/setup)");
    for emulator in emulators {
        let help = run(emulator.to_str().unwrap(), &["-help"]);
        let listed = options(&text(&help.stdout));
        assert!(listed.len() > 80, "{emulator:?}: {listed:?}");
        let valued = |name: &&String| {
            takes_value(name).unwrap_or_else(|| panic!("{emulator:?}: -{name} is not in the list"))
        };
        let (valued, flags): (Vec<_>, Vec<_>) = listed.iter().partition(valued);
        // The emulator reads all words before it acts on one, so nothing of this is carried out.
        let spellings = |name: &&String| [format!("-{name}"), format!("--{name}")];
        let words = |word: String| [word, "-nosuch-value".to_owned()];
        let mut line: Vec<String> = valued.iter().flat_map(spellings).flat_map(words).collect();
        line.push("-nosuch-option".to_owned());
        assert_eq!(first_unknown(&emulator, &line), "nosuch-option", "{emulator:?}");
        for word in flags.iter().map(|name| format!("-{name}")) {
            let line = [&word, "-nosuch-1", "-nosuch-2"].map(str::to_owned);
            assert_eq!(first_unknown(&emulator, &line), "nosuch-1", "{emulator:?}: {word}");
        }
    }
}

/// Returns the answer of QEMU with these arguments to [`CARDS`].
fn cards(args: &[&str]) -> String {
    let fixed = ["-display", "none", "-S", "-qmp", "stdio"];
    let mut child = Command::new(QEMU)
        .args(args)
        .args(fixed)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(CARDS.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// How many cards an answer to [`CARDS`] has.
fn count(answer: &str) -> usize {
    answer.matches("type=nic").count()
}

#[test]
fn beside_a_netdev_qemu_has_no_default_card_and_nic_none_takes_none_away() {
    let ours = ["-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0"];
    assert_eq!(count(&cards(&[])), 1, "the default card");
    for own in [&[][..], &["-nic", "none"], &["-net", "none"], &["-nodefaults"]] {
        assert_eq!(count(&cards(&[own, &ours].concat())), 1, "{own:?}");
    }
    assert_eq!(count(&cards(&[&["-nic", "user"][..], &ours].concat())), 2);
}

/// A sandbox with a network, and netlaunch on slirp with a QEMU that answers [`CARDS`].
struct Bench {
    sandbox: Sandbox,
    _netns: Netns,
}

impl Bench {
    fn new() -> Self {
        let netns = Netns::routed();
        Bench { sandbox: Sandbox::new(As::User, Some(&netns)), _netns: netns }
    }

    /// Runs netlaunch with these arguments; standard input asks QEMU for its cards.
    fn run(&self, args: &[&str]) -> Output {
        let questions = self.sandbox.path("questions");
        fs::write(&questions, CARDS).unwrap();
        let mut command = self.sandbox.netlaunch(args);
        command.stdin(fs::File::open(questions).unwrap());
        finish(command)
    }

    /// The same with the options of netlaunch and of QEMU.
    fn launch(&self, options: &[&str], qemu: &[&str]) -> Output {
        let program = ["--", QEMU, "-display", "none", "-S", "-qmp", "stdio"];
        self.run(&[&["--backend", "slirp"], options, &program, qemu].concat())
    }

    /// A script that leaves a mark when it is run.
    fn trap(&self, name: &str, rest: &str) -> String {
        let path = self.sandbox.script(name, &format!("echo run >> {}\n{rest}", self.mark()));
        path.to_str().unwrap().to_owned()
    }

    fn mark(&self) -> String {
        self.sandbox.path("home/mark").display().to_string()
    }

    /// How often a trap was run.
    fn runs(&self) -> usize {
        fs::read_to_string(self.mark()).map_or(0, |text| text.lines().count())
    }
}

#[test]
fn a_kept_user_network_in_the_qemu_arguments_gives_one_warning() {
    if !have_root("a_kept_user_network_in_the_qemu_arguments_gives_one_warning") {
        return;
    }
    let bench = Bench::new();
    let config = bench.sandbox.path("qemu.cfg");
    fs::write(&config, "[netdev \"own\"]\n  type = \"user\"\n").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let config = config.to_str().unwrap();
    for (own, said) in [
        (&["-nic", "user,model=e1000"][..], Some("-nic user,model=e1000")),
        (&["-net", "nic", "--net", "user"], Some("-net user")),
        (&["-netdev", "{'type':'user','id':'a'}"], Some("-netdev {'type':'user','id':'a'}")),
        (&["-readconfig", config], Some("[netdev \"own\"] of ")),
        (&["-nic", "none"], None),
        (&["-append", "-netdev user,id=a", "-kernel", "/dev/null"], None),
        (&[], None),
    ] {
        let output = bench.launch(&["--keep-nics"], own);
        let words = text(&output.stderr);
        let warned = words.matches("bring a user-mode network of their own").count();
        assert_eq!(warned, usize::from(said.is_some()), "{own:?}: {words}");
        assert!(said.is_none_or(|said| words.contains(said)), "{own:?}: {words}");
        if own.is_empty() || own[0] == "-nic" {
            let expected = 1 + usize::from(said.is_some());
            assert_eq!(count(&text(&output.stdout)), expected, "{own:?}: {words}");
        }
        // The promise that this network would break is refused, whatever the backend.
        let passt =
            ["--keep-nics", "--backend", "passt", "--no-host-loopback", "--print", "--", QEMU];
        let refused = finish(bench.sandbox.netlaunch(&[&passt[..], own].concat()));
        let words = text(&refused.stderr);
        assert_eq!(refused.status.code() == Some(2), said.is_some(), "{own:?}: {words}");
        if let Some(said) = said {
            assert!(words.contains("--no-host-loopback"), "{words}");
            assert!(words.contains(said), "{words}");
        }
    }
    let restricted = ["-netdev", "user,id=a,restrict=on"];
    let line = ["--keep-nics", "--no-host-loopback", "--print", "--", QEMU];
    let output = finish(bench.sandbox.netlaunch(&[&line[..], &restricted].concat()));
    assert!(!text(&output.stderr).contains("does not hold"), "{}", text(&output.stderr));
}

#[test]
fn a_program_that_is_not_known_to_be_qemu_runs_only_as_the_guest() {
    if !have_root("a_program_that_is_not_known_to_be_qemu_runs_only_as_the_guest") {
        return;
    }
    let bench = Bench::new();
    let script = bench.trap("run-vm.sh", &format!("exec {QEMU} -nodefaults \"$@\""));
    for args in [
        &["--backend", "slirp", "--", &script][..],
        &["--print", "--", &script],
        &["--qemu", &script],
        &["--qemu", &script, "--", &script],
        &["probe", "--json", "--qemu", &script],
    ] {
        let output = finish(bench.sandbox.netlaunch(args));
        let words = text(&[output.stdout, output.stderr].concat());
        assert!(
            words.contains(&format!("{script} does not look like QEMU: it is a script")),
            "{args:?}: {words}"
        );
        assert!(words.contains("(--qemu"), "{args:?}: {words}");
        let status = if args[0] == "probe" { 0 } else { 126 };
        assert_eq!(output.status.code(), Some(status), "{args:?}: {words}");
        assert_eq!(bench.runs(), 0, "{args:?}");
    }
    // Named with its emulator, it is run once, with netlaunch's arguments.
    let options = ["--backend", "slirp", "--qemu", QEMU, "--", &script];
    let output = bench.run(&[&options[..], &["-display", "none", "-S", "-qmp", "stdio"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!((bench.runs(), count(&text(&output.stdout))), (1, 1));
    // An ELF file with QEMU's name is no QEMU by that.
    let other = bench.sandbox.path("bin/qemu-system-x86_64");
    fs::copy("/usr/bin/touch", &other).unwrap();
    let output = finish(bench.sandbox.netlaunch(&["--", other.to_str().unwrap(), "/dev/null"]));
    assert_eq!(output.status.code(), Some(126));
    assert!(text(&output.stderr).contains("does not contain QEMU's texts"), "{output:?}");
    // And a QEMU is one under any name.
    let renamed = bench.sandbox.path("bin/my-vm");
    fs::copy(QEMU, &renamed).unwrap();
    fs::set_permissions(&renamed, fs::Permissions::from_mode(0o755)).unwrap();
    let renamed = renamed.to_str().unwrap();
    let output = finish(bench.sandbox.netlaunch(&["--backend", "slirp", "--print", "--", renamed]));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_machine_without_pci_gets_a_card_that_fits_and_a_wrong_one_is_explained() {
    if !have_root("a_machine_without_pci_gets_a_card_that_fits_and_a_wrong_one_is_explained") {
        return;
    }
    let bench = Bench::new();
    for (machine, model) in [
        ("microvm", "virtio-net-device"),
        ("microvm,pcie=on", "virtio-net-pci"),
        ("isapc", "ne2k_isa"),
        ("q35", "virtio-net-pci"),
    ] {
        let output = bench.launch(&[], &["-M", machine, "-nodefaults"]);
        let (out, words) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && count(&out) == 1, "{machine}: {out} {words}");
        assert!(out.contains(&format!("model={model},")), "{machine}: {out}");
    }
    // A machine with a card of its own keeps it.
    let out = text(&bench.launch(&[], &["-M", "q35"]).stdout);
    assert!(count(&out) == 1 && out.contains("model=e1000e,"), "{out}");
    for (options, machine, said) in [
        (&["--device", "virtio-net-pci"][..], "microvm", "use --device virtio-net-device"),
        (&["--device", "e1000"], "isapc", "use --device ne2k_isa"),
        (&["--device", "nosuch"], "q35", "use another --device"),
        (&[], "none", "--device none"),
    ] {
        let output = bench.launch(options, &["-M", machine]);
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{machine}: {words}");
        let line = words.lines().find(|line| line.contains("QEMU cannot make the card"));
        assert!(line.is_some_and(|line| line.contains(said)), "{machine}: {words}");
    }
    // A failure of the caller's is QEMU's to explain.
    let output = bench.launch(&[], &["-drive", "file=/nonexistent,format=raw"]);
    assert!(!text(&output.stderr).contains("--device"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn ids_and_cards_that_clash_are_refused_with_the_option() {
    if !have_root("ids_and_cards_that_clash_are_refused_with_the_option") {
        return;
    }
    let bench = Bench::new();
    for (options, own, said) in [
        (&[][..], &["-device", "e1000,netdev=net0"][..], "set the network card to none"),
        (&[], &["-net", "nic,netdev=net0"], "set the network card to none"),
        (&["--id", "net0"], &["-netdev", "{'type':'socket','id':'net0'}"], "id=net0 already"),
        (&["--id", "net0", "--keep-nics"], &["-nic", "user,id=net0"], "id=net0 already"),
        (&["--id", "lan", "--keep-nics"], &["-net", "user,id=lan"], "id=lan already"),
        (&["--id", "lan"], &["-net", "user,id=lan"], "bring their own NIC"),
        (
            &["--id", "net0", "--pcap", "f"],
            &["-object", "rng-builtin,id=net0-dump"],
            "object with id=net0-dump",
        ),
    ] {
        let output = bench.launch(options, own);
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{own:?}: {words}");
        assert!(words.contains(said) && words.contains("--id"), "{own:?}: {words}");
    }
    let none = bench.launch(&["--device", "none"], &["-device", "e1000,netdev=net0"]);
    assert_eq!((none.status.code(), count(&text(&none.stdout))), (Some(0), 1));
}

#[test]
fn a_killed_qemu_is_reported_as_killed() {
    if !have_root("a_killed_qemu_is_reported_as_killed") {
        return;
    }
    let bench = Bench::new();
    let pid = bench.sandbox.path("home/pid");
    let qemu = ["--", QEMU, "-M", "q35", "-display", "none", "-S", "-pidfile"];
    let line = [&["--backend", "slirp"], &qemu[..], &[pid.to_str().unwrap()]].concat();
    let netlaunch = start(bench.sandbox.netlaunch(&line));
    let read = || fs::read_to_string(&pid).ok().and_then(|text| text.trim().parse().ok());
    assert!(wait_until(LIMIT, || read().is_some()));
    kill(Pid::from_raw(read().unwrap()), Signal::SIGKILL).unwrap();
    let output = netlaunch.output(LIMIT);
    assert_eq!(output.status.code(), Some(137));
    assert!(text(&output.stderr).contains("QEMU was ended by SIGKILL"), "{output:?}");
}
