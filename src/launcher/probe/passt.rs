//! Finds passt, its options, and the AppArmor profile that confines it.
//!
//! passt has no way to list its features, and `--version` of Debian 12's passt prints "unknown". So
//! the options are read from its help: passt has an option if the help has a line for it.
//!
//! The confinement is never cached, because a profile changes without a change of passt's file.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use super::Prober;
use super::apparmor::confinement;
use super::cache::{Cache, Key};
use crate::sys::process::{Captured, capture};
use crate::sys::program::{find, not_run};
use crate::types::Setting;
use crate::types::facts::{Passt, Problem};

/// The time limit for passt to print its help.
const LIMIT: Duration = Duration::from_secs(5);
/// The fix for a missing passt.
const INSTALL: &str = "install the package passt (Debian, Ubuntu, Fedora and others have it), or use the backend slirp";
/// Options that every passt has. Hardly any other program has both.
const ALWAYS: [&str; 2] = ["socket", "foreground"];
/// The kind of the cached result. Change it when the code below finds a different result.
const CACHE_KIND: &str = "passt-options-and-values";

/// The long options without dashes, each with whether it takes a value.
pub(super) type Options = BTreeMap<String, bool>;

/// Finds passt (`name`, by default `passt` in PATH) and asks it for its options.
///
/// Returns a new answer for the cache too; `None` if the answer came from the cache.
pub(super) async fn probe(
    prober: &Prober,
    cache: &Cache,
    name: Option<&OsStr>,
) -> (Passt, Option<(Key, Options)>) {
    let name = name.unwrap_or(OsStr::new("passt"));
    let lookup = find(name, &prober.path);
    if let Some(problem) = lookup.problem(name, INSTALL) {
        let problem = problem.about(&[Setting::Backend]);
        let path = lookup.existing_path();
        return (Passt { path, problem: Some(problem), ..Passt::default() }, None);
    }
    let Some(path) = lookup.found() else { return (Passt::default(), None) };
    let canonical = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    let confinement = confinement(&prober.system, &canonical, prober.home.as_deref());
    let found = Passt { path: Some(path.clone()), confinement, ..Passt::default() };
    let key = Key::new(CACHE_KIND, &path).ok();
    let with = |takes_value: Options| {
        let options = takes_value.keys().cloned().collect();
        Passt { options, takes_value, ..found.clone() }
    };
    if let Some(options) = key.as_ref().and_then(|key| cache.get(key)) {
        return (with(options), None);
    }
    match ask(&path).await {
        Ok(options) => {
            let new = key.map(|key| (key, options.clone()));
            (with(options), new)
        }
        Err(problem) => (Passt { problem: Some(problem), ..found }, None),
    }
}

/// Runs `passt --help`, and ignores its exit status: Debian 12's passt prints the help and fails.
async fn ask(path: &Path) -> Result<Options, Problem> {
    let captured = capture(path, &[OsString::from("--help")], b"", LIMIT).await;
    let Captured { stdout, stderr, status, .. } =
        captured.map_err(|error| not_run(path, &error))?;
    let text = [stdout, stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let options = options(&text);
    if ALWAYS.iter().all(|option| options.contains_key(*option)) {
        return Ok(options);
    }
    let why = match (status, super::first_line(&text)) {
        (None, _) => format!("gave no help within {} s", LIMIT.as_secs()),
        (_, None) => "gave no help".to_owned(),
        (_, Some(line)) => format!("does not look like passt: --help says {line:?}"),
    };
    Err(Problem::new(
        format!("{} {why}", path.display()),
        "install the package passt again, or use the backend slirp",
    )
    .about(&[Setting::Backend]))
}

/// Returns the long options that a help text lists.
///
/// Options are the words with a dash at the start of a line; the first other word ends the list. A
/// word in capitals between them and the explanation, which begins after a tab or two spaces,
/// stands for a value: `--outbound-if4 NAME`.
pub(super) fn options(help: &str) -> Options {
    help.lines().filter(|line| line.trim_start().starts_with('-')).flat_map(of_line).collect()
}

/// Returns the long options of a line.
fn of_line(line: &str) -> Vec<(String, bool)> {
    let line = line.trim_start();
    let is_capital = |byte: u8| byte.is_ascii_uppercase() || matches!(byte, b'|' | b':');
    let explained = line.find('\t').into_iter().chain(line.find("  ")).min();
    let head = explained.map_or(line, |at| &line[..at]);
    let shows_value = head.split([' ', ',']).any(|w| !w.is_empty() && w.bytes().all(is_capital));
    let words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty());
    let options = words.take_while(|word| word.starts_with('-')).filter_map(|word| {
        let name = word.strip_prefix("--")?;
        let (name, equals) = name.split_once('=').map_or((name, false), |(name, _)| (name, true));
        let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (first && name.bytes().all(plain)).then(|| (name.to_owned(), shows_value || equals))
    });
    options.collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::Host;
    use super::*;

    /// The shortened help of Debian 12's passt (0.0~git20230309).
    const OLD: &str = include_str!("../../../tests/fixtures/probe/passt-2023-03-help.txt");
    /// The shortened help of passt 0.0~git20261002.
    const NEW: &str = include_str!("../../../tests/fixtures/probe/passt-2026-10-help.txt");

    #[test]
    fn the_options_of_old_and_new_passt_are_read_from_their_help() {
        let (old, new) = (options(OLD), options(NEW));
        for (option, in_old, in_new) in [
            ("socket", true, true),
            ("fd", true, true),
            ("one-off", true, true),
            ("ipv4-only", true, true),
            ("no-map-gw", true, true),
            ("trace", true, true),
            ("stderr", true, false),
            ("socket-path", false, true),
            ("vhost-user", false, true),
            ("map-host-loopback", false, true),
            ("hostname", false, true),
            ("print-capabilities", false, true),
        ] {
            let found = (old.contains_key(option), new.contains_key(option));
            assert_eq!(found, (in_old, in_new), "{option}");
        }
        let has = |options: &Options| ALWAYS.iter().all(|option| options.contains_key(*option));
        assert!(has(&old) && has(&new));
    }

    #[test]
    fn the_help_shows_which_options_take_a_value() {
        let (old, new) = (options(OLD), options(NEW));
        for (option, expected) in [
            ("outbound-if4", true),
            ("runas", true),
            ("socket", true),
            ("fd", true),
            ("tcp-ports", true),
            ("log-size", true),
            ("no-ndp", false),
            ("trace", false),
            ("one-off", false),
            ("ipv4-only", false),
        ] {
            let found = [old.get(option), new.get(option)];
            assert_eq!(found, [Some(&expected); 2], "{option}");
        }
        for (line, expected) in [
            ("  --stats DELAY  \tDisplay", true),
            ("  --fd=FD  text", true),
            ("  --no-ra  DHCP and NDP", false),
            ("  --no-ra\tRA is off", false),
            ("  -4, --ipv4-only", false),
        ] {
            assert_eq!(of_line(line).first().map(|(_, takes)| *takes), Some(expected), "{line}");
        }
    }

    #[test]
    fn only_options_at_the_start_of_a_help_line_count() {
        for (line, expected) in [
            ("  -s, --socket, --socket-path PATH\tpath", &["socket", "socket-path"][..]),
            ("      --trace\t\tBe extra verbose, implies --debug", &["trace"]),
            ("  --fd=FD  text", &["fd"]),
            ("  -1, --one-off", &["one-off"]),
            ("    default: from --outbound-if4 and --outbound-if6, if any", &[]),
            ("        -t ::1/all\tForward --all ports", &[]),
            ("--", &[]),
            ("---x", &[]),
            ("-", &[]),
            ("  --a/b c", &[]),
        ] {
            let got: Vec<_> = options(line).into_keys().collect();
            assert_eq!(got, expected, "{line}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_passt_is_a_problem() {
        let host = Host::new();
        for (script, why) in [
            ("echo 'Usage: ls [OPTION]... --socket'", "does not look like passt"),
            ("exit 0", "gave no help"),
            ("echo 'cannot open libfoo.so' >&2; exit 127", "cannot open libfoo.so"),
        ] {
            let path = host.script("passt", script);
            let (passt, new) = probe(&host.prober, &Cache::default(), None).await;
            assert_eq!(passt.path, Some(path));
            let problem = passt.problem.unwrap();
            assert!(problem.why.contains(why), "{}", problem.why);
            assert_eq!(new, None);
        }
    }

    #[tokio::test]
    async fn help_is_read_from_both_outputs_whatever_the_exit_status() {
        let host = Host::new();
        host.script("passt", "echo ' -s, --socket PATH'; echo ' -f, --foreground' >&2; exit 1");
        let (passt, new) = probe(&host.prober, &Cache::default(), None).await;
        assert!(passt.has("socket") && passt.has("foreground") && passt.problem.is_none());
        assert_eq!(new, None, "a script is not cached");
    }

    #[tokio::test]
    async fn a_missing_passt_is_a_problem_with_a_fix() {
        let host = Host::new();
        let (passt, _) = probe(&host.prober, &Cache::default(), None).await;
        let problem = passt.problem.unwrap();
        assert!(problem.why.starts_with("passt is not installed (looked in /"), "{}", problem.why);
        assert!(problem.fix.contains("install the package passt"), "{}", problem.fix);
        assert_eq!(passt.path, None);
    }
}
