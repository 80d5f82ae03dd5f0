//! Finds QEMU, and asks it for its netdev types, its features and the machine of a launch.
//!
//! [`super::identity`] first decides whether the program may be run at all. The netdev types come
//! from `-netdev help`. At the same time [`super::features`] asks the control protocol for the
//! options of the stream netdev, which takes about three times as long. [`super::machine`] asks
//! about a machine. Each answer is cached.
//!
//! An incomplete answer is used but not cached, so the next launch asks again.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Prober;
use super::cache::{Cache, Key};
use super::features::ask_features;
use super::identity::{Identity, NAME_AN_EMULATOR, identify};
use super::machine::{self, MachineName};
use super::qmp::LIMIT;
use crate::sys::process::{Captured, capture};
use crate::sys::program::{Lookup, find, find_first, not_run};
use crate::types::Setting;
use crate::types::facts::{Machine, Problem, Qemu, Reconnect};

/// The fix for a missing QEMU.
const INSTALL: &str = "install QEMU for this machine (Debian, Ubuntu: the package qemu-system; Fedora, RHEL: \
     qemu-kvm), or name the program";
/// The path of QEMU in Red Hat's distributions, outside of PATH.
const REDHAT_QEMU: &str = "usr/libexec/qemu-kvm";
/// Netdev types of which every QEMU has at least one.
const COMMON_TYPES: [&str; 6] = ["hubport", "socket", "user", "tap", "bridge", "stream"];
/// The kind of the cached answer. Change it when the code below finds a different answer.
const CACHE_KIND: &str = "qemu-abilities";

/// QEMU's answer about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    netdevs: BTreeSet<String>,
    reconnect: Reconnect,
    shared_ram: bool,
}

/// The QEMU to ask, and the machine to ask about.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Question<'a> {
    /// The program that a launch runs; `None` is the QEMU of this machine's architecture.
    pub(super) program: Option<&'a OsStr>,
    /// The emulator to ask instead of a program that is a script.
    pub(super) emulator: Option<&'a OsStr>,
    /// The machine of the launch.
    pub(super) machine: Option<&'a MachineName>,
}

/// New answers for the cache.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NewAnswers {
    pub(super) answer: Option<(Key, Answer)>,
    pub(super) machine: Option<(Key, Machine)>,
}

/// Finds QEMU and asks it. A program that is not known to be QEMU is not run.
///
/// Returns new answers for the cache too: those that are complete and did not come from the cache.
pub(super) async fn probe(
    prober: &Prober,
    cache: &Cache,
    question: Question<'_>,
) -> (Qemu, NewAnswers) {
    let mut new = NewAnswers::default();
    let default = OsString::from(format!("qemu-system-{}", system(std::env::consts::ARCH)));
    let lookup = match question.program {
        Some(name) => find(name, &prober.path),
        None => default_lookup(&default, prober),
    };
    if let Some(problem) = lookup.problem(question.program.unwrap_or(&default), INSTALL) {
        let path = lookup.existing_path();
        // A program that the caller names cannot be replaced by the setting.
        let settings: &[Setting] = if question.program.is_none() { &[Setting::Qemu] } else { &[] };
        let problem = problem.about(settings);
        return (Qemu { path, problem: Some(problem), ..Qemu::default() }, new);
    }
    let Some(path) = lookup.found() else { return (Qemu::default(), new) };
    let mut qemu = Qemu { path: Some(path.clone()), ..Qemu::default() };
    let emulator = match emulator(&path, &question, prober, cache, &default) {
        Ok(emulator) => emulator,
        Err((path, problem)) => return (Qemu { path, problem: Some(problem), ..qemu }, new),
    };
    let key = Key::new(CACHE_KIND, &emulator).ok();
    let cached: Option<Answer> = key.as_ref().and_then(|key| cache.get(key));
    let answer = match cached {
        Some(answer) => answer,
        None => match ask(&emulator).await {
            Ok((answer, complete)) => {
                new.answer = key.filter(|_| complete).map(|key| (key, answer.clone()));
                answer
            }
            Err(problem) => return (Qemu { problem: Some(problem), ..qemu }, new),
        },
    };
    let Answer { netdevs, reconnect, shared_ram } = answer;
    qemu = Qemu { netdevs, reconnect, shared_ram, ..qemu };
    let named = question.machine.and_then(|name| Some((name, name.cache_name(&emulator)?)));
    if let Some((name, kind)) = named {
        let key = Key::new(&kind, &emulator).ok();
        qemu.machine = key.as_ref().and_then(|key| cache.get(key));
        if qemu.machine.is_none() {
            qemu.machine = machine::ask(&emulator, name).await;
            new.machine = key.zip(qemu.machine.clone());
        }
    }
    qemu.default_card = question.machine.and_then(|name| match name.cache_name(&emulator) {
        None => Some(name.known_card()),
        Some(_) => qemu.machine.as_ref().map(|machine| machine.makes_card),
    });
    qemu.emulator = Some(emulator).filter(|emulator| *emulator != path);
    (qemu, new)
}

/// Returns the emulator to ask: the one that the caller names, or `path`, or the one that the
/// script at `path` runs.
///
/// # Errors
/// The problem, with the path of the program that has it; `None` if that program was not found.
fn emulator(
    path: &Path,
    question: &Question<'_>,
    prober: &Prober,
    cache: &Cache,
    default: &OsStr,
) -> Result<PathBuf, (Option<PathBuf>, Problem)> {
    let path = match question.emulator {
        None => path.to_owned(),
        Some(name) => {
            let lookup = find(name, &prober.path);
            let place = lookup.existing_path();
            match (lookup.problem(name, INSTALL), lookup.found()) {
                (None, Some(path)) => path,
                (problem, _) => {
                    let problem = problem.unwrap_or_else(|| Problem::new("", INSTALL));
                    return Err((place, problem.about(&[Setting::Qemu])));
                }
            }
        }
    };
    // A program with a cached answer has been identified as QEMU before.
    if Key::new(CACHE_KIND, &path).is_ok_and(|key| cache.get::<Answer>(&key).is_some()) {
        return Ok(path);
    }
    match identify(&path, &prober.path, default) {
        Ok(Identity::Qemu) => Ok(path),
        Ok(Identity::Script(emulator)) => {
            let (script, emulator_path) = (path.display(), emulator.display());
            tracing::debug!("{script} is a script, so {emulator_path} is asked for its features");
            Ok(emulator)
        }
        Err(problem) => Err((Some(path), problem)),
    }
}

/// Asks the QEMU at `path`. The second value is whether the answer is complete.
async fn ask(path: &Path) -> Result<(Answer, bool), Problem> {
    // Both at the same time: the first launch waits for the slower one.
    let (netdevs, features) = tokio::join!(ask_types(path), ask_features(path));
    let netdevs = netdevs?;
    let features = if netdevs.contains("stream") { features } else { Some((Reconnect::No, false)) };
    let (reconnect, shared_ram) = features.unwrap_or((Reconnect::Unknown, false));
    Ok((Answer { netdevs, reconnect, shared_ram }, features.is_some()))
}

/// Returns QEMU's name for an architecture that Rust names.
fn system(arch: &str) -> &str {
    match arch {
        "x86" => "i386",
        "powerpc" => "ppc",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// Looks for the QEMU of this machine's architecture, then for qemu-kvm.
fn default_lookup(default: &OsStr, prober: &Prober) -> Lookup {
    let redhat = prober.system.join(REDHAT_QEMU);
    find_first(&[default, OsStr::new("qemu-kvm"), redhat.as_os_str()], &prober.path)
}

/// Asks for the netdev types.
async fn ask_types(path: &Path) -> Result<BTreeSet<String>, Problem> {
    let args = ["-M", "none", "-netdev", "help"].map(OsString::from);
    let Captured { stdout, stderr, status, .. } =
        capture(path, &args, b"", LIMIT).await.map_err(|error| not_run(path, &error))?;
    let text = String::from_utf8_lossy(&stdout);
    let types = types(&text);
    if COMMON_TYPES.iter().any(|name| types.contains(*name)) {
        return Ok(types);
    }
    let error = String::from_utf8_lossy(&stderr);
    let why = match (status, super::first_line(&error).or(super::first_line(&text))) {
        (None, _) => format!("did not answer within {} s", LIMIT.as_secs()),
        (_, None) => "does not look like QEMU: it lists no netdev types".to_owned(),
        (_, Some(line)) => {
            format!("does not look like QEMU: asked for its netdev types it says {line:?}")
        }
    };
    Err(Problem::new(format!("{} {why}", path.display()), NAME_AN_EMULATOR))
}

/// Returns the types in the output of `-netdev help`. They are lines of one plain word; some
/// versions print a header above them.
pub(super) fn types(help: &str) -> BTreeSet<String> {
    help.lines()
        .map(str::trim)
        .filter(|line| {
            line.starts_with(|c: char| c.is_ascii_lowercase())
                && line.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::Host;
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn netdev_types_are_read_with_and_without_a_header() {
        for (text, expected) in [
            (
                "Available netdev backend types:\nsocket\nstream\nvhost-user\nl2tpv3\n",
                &["socket", "stream", "vhost-user", "l2tpv3"][..],
            ),
            ("user\r\n  tap\n\n", &["user", "tap"]),
            ("qemu: -netdev help: Parameter 'type' expects a type\n", &[]),
            ("-M none -netdev help\n", &[]),
            ("", &[]),
        ] {
            assert_eq!(types(text), set(expected), "{text}");
        }
    }

    /// Returns a script that lists these types and prints QEMU 10.0's answers to QMP commands.
    fn fake(types: &str) -> String {
        let qmp = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/probe/qemu-10.0-qmp.txt");
        format!("case \"$*\" in *help) printf '{types}';; *) cat >/dev/null; cat {qmp};; esac")
    }

    #[tokio::test]
    async fn the_default_is_this_machines_emulator_then_qemu_kvm() {
        let host = Host::new();
        let (qemu, _) = probe(&host.prober, &Cache::default(), Question::default()).await;
        let why = qemu.problem.unwrap().why;
        assert!(why.starts_with("qemu-system-") && why.contains("is not installed"), "{why}");
        let default = format!("qemu-system-{}", system(std::env::consts::ARCH));
        for name in ["../usr/libexec/qemu-kvm", "qemu-kvm", &default] {
            let path = host.script(name, "exit 1");
            let found = default_lookup(OsStr::new(&default), &host.prober).found().unwrap();
            assert_eq!(found.canonicalize().unwrap(), path.canonicalize().unwrap());
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_known_to_be_qemu_is_never_run() {
        let host = Host::new();
        let trap = format!("echo run >> {}/was-run; {}", host.bin().display(), fake("user\\n"));
        for name in ["run-vm.sh", "qemu-system-x86_64", "kvm", "qemu"] {
            host.script(name, &trap);
            for emulator in [None, Some(OsStr::new(name))] {
                let question =
                    Question { program: Some(OsStr::new(name)), emulator, machine: None };
                let (qemu, new) = probe(&host.prober, &Cache::default(), question).await;
                let problem = qemu.problem.unwrap();
                assert!(problem.why.contains("it is a script"), "{}", problem.why);
                assert!(problem.fix.contains("the QEMU PATH as"), "{}", problem.fix);
                assert_eq!(new, NewAnswers::default());
            }
        }
        assert!(!host.bin().join("was-run").exists());
    }

    #[tokio::test]
    async fn a_script_is_run_by_the_launch_and_its_emulator_is_asked() {
        let host = Host::new();
        let real = Path::new("/usr/bin/qemu-system-x86_64");
        if !real.is_file() {
            eprintln!("skipped: there is no {} (./tests/setup)", real.display());
            return;
        }
        let script = host.script("run-vm.sh", "touch \"$0.was-run\"; exit 1");
        let wrapper = host.script("kvm", &format!("exec {} -enable-kvm \"$@\"", real.display()));
        for (program, emulator) in [(&script, Some(real.as_os_str())), (&wrapper, None)] {
            let program = Some(program.as_os_str());
            let question = Question { program, emulator, machine: None };
            let (qemu, new) = probe(&host.prober, &Cache::default(), question).await;
            assert_eq!((&qemu.problem, qemu.path.as_deref()), (&None, program.map(Path::new)));
            assert_eq!(qemu.emulator.as_deref(), Some(real));
            assert!(qemu.netdevs.contains("stream") && new.answer.is_some());
        }
        assert!(!host.bin().join("run-vm.sh.was-run").exists());
    }

    #[tokio::test]
    async fn a_machine_without_pci_gets_a_card_for_another_bus() {
        let host = Host::new();
        let real = Path::new("/usr/bin/qemu-system-x86_64");
        if !real.is_file() {
            eprintln!("skipped: there is no {} (./tests/setup)", real.display());
            return;
        }
        let line = ["-M", "microvm"].map(OsString::from);
        let settings = crate::launcher::qemu_options::CommandLine::parse(&line).settings(&[]);
        let machine = MachineName::of(&settings, Vec::new());
        let program = Some(real.as_os_str());
        let question = Question { program, emulator: None, machine: Some(&machine) };
        let (qemu, new) = probe(&host.prober, &Cache::default(), question).await;
        assert_eq!(qemu.default_card, Some(false));
        let found = qemu.machine.unwrap();
        assert_eq!((found.card(), found.memory), (Some("virtio-net-device"), Some(128 << 20)));
        assert_eq!(new.machine.map(|(_, machine)| machine), Some(found));
        let words = machine::refuses_card(real, &machine, "virtio-net-pci").await.unwrap();
        assert_eq!(words, "No 'PCI' bus found for device 'virtio-net-pci'");
        assert_eq!(machine::refuses_card(real, &machine, "virtio-net-device").await, None);
    }

    /// The script writes to a full pipe without waiting, as QEMU does, and would lose that output.
    #[tokio::test]
    async fn output_longer_than_a_pipe_is_complete() {
        let host = Host::new();
        let filler = "dd if=/dev/zero bs=300000 count=1 oflag=nonblock status=none";
        let script = fake("stream\\n")
            .replace("cat >/dev/null;", &format!("cat >/dev/null; {filler}; echo;"));
        let (answer, complete) = ask(&host.script("long", &script)).await.unwrap();
        assert!(complete && answer.reconnect == Reconnect::Milliseconds);
    }

    #[tokio::test]
    async fn the_reconnect_option_of_a_qemu_without_a_schema_is_unknown() {
        let host = Host::new();
        let text = "case \"$*\" in *help) echo stream;; *) cat >/dev/null;; esac";
        let (answer, complete) = ask(&host.script("silent", text)).await.unwrap();
        assert_eq!((answer.reconnect, complete), (Reconnect::Unknown, false));
    }

    #[tokio::test]
    async fn the_answer_of_a_qemu_without_a_stream_netdev_is_complete_without_its_features() {
        let host = Host::new();
        let text = "case \"$*\" in *help) echo user;; *) exit 1;; esac";
        let (answer, complete) = ask(&host.script("old", text)).await.unwrap();
        assert_eq!((answer.netdevs, answer.reconnect), (set(&["user"]), Reconnect::No));
        assert!(complete);
    }

    #[tokio::test]
    async fn a_program_that_does_not_answer_like_qemu_is_a_problem() {
        let host = Host::new();
        for (script, why) in [
            ("echo \"$@\"", "does not look like QEMU: asked for its netdev types it says"),
            ("echo 'libfoo.so: not found' >&2; exit 127", "libfoo.so: not found"),
            ("exit 0", "lists no netdev types"),
        ] {
            let problem = ask(&host.script("qemu", script)).await.unwrap_err();
            assert!(problem.why.contains(why), "{}", problem.why);
        }
    }
}
