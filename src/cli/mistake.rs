//! One line about what cannot be read in a command line.
//!
//! clap's errors take several lines and print the usage; here each becomes one line that says what
//! is wrong and, after a semicolon or in the value's own words, what to write instead.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Subcommand, ValueEnum};

use super::args::Action;
use crate::printable::printable;

/// A mistake in the command line: one line without `netlaunch: ` in front and newline behind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

impl UsageError {
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        UsageError(printable(text.as_ref()).into_owned())
    }
}

/// One line for an error of clap's: what is wrong; what to write instead.
pub(super) fn one_line(error: &clap::Error) -> UsageError {
    let text = |kind| context(error, kind);
    let arg = text(ContextKind::InvalidArg).unwrap_or_default();
    let option = option_name(&arg);
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let line = match error.kind() {
        ErrorKind::UnknownArgument if !speaks_of_qemu(error) && !arg.starts_with('-') => {
            format!("unexpected argument {arg:?}; drop it")
        }
        ErrorKind::UnknownArgument if !arg.starts_with('-') => stray(&arg),
        ErrorKind::UnknownArgument => match text(ContextKind::SuggestedArg) {
            Some(similar) => {
                format!("unknown option {arg}; a similar option exists: {}", option_name(&similar))
            }
            None => format!(
                "unknown option {arg}; see netlaunch --help, and put QEMU's own options behind -- QEMU"
            ),
        },
        ErrorKind::InvalidSubcommand if !speaks_of_qemu(error) => {
            let word = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            // clap puts the most similar one last.
            let similar = match error.get(ContextKind::SuggestedSubcommand) {
                Some(ContextValue::Strings(similar)) => similar.last(),
                Some(ContextValue::String(similar)) => Some(similar),
                _ => None,
            };
            match similar {
                Some(similar) => {
                    format!("unknown command {word:?}; a similar command exists: {similar}")
                }
                None => format!("unknown command {word:?}; see {} --help", caller(error)),
            }
        }
        ErrorKind::InvalidSubcommand => {
            stray(&text(ContextKind::InvalidSubcommand).unwrap_or_default())
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            format!("{option} needs a value; write {}", pattern(&arg, error))
        }
        ErrorKind::InvalidValue => match text(ContextKind::SuggestedValue) {
            Some(similar) => {
                format!("{option}: unknown value {value:?}; a similar value exists: {similar}")
            }
            None => format!("{option}: unknown value {value:?}; use {}", choices(error)),
        },
        ErrorKind::NoEquals => format!("{option} takes its value behind =; write {option}=VALUE"),
        ErrorKind::ValueValidation => match std::error::Error::source(error) {
            Some(source) => format!("{option}: {source}"),
            None => format!("{option}: {value:?} is not a value it takes; see netlaunch --help"),
        },
        ErrorKind::TooManyValues | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            format!("{option}: wrong number of values; see netlaunch --help")
        }
        ErrorKind::ArgumentConflict => match text(ContextKind::PriorArg) {
            Some(prior) if option_name(&prior) == option => {
                format!("{option} was given twice; give it once")
            }
            Some(prior) if prior.contains("QEMU") && !prior.starts_with('-') => {
                format!("{option} cannot go with a QEMU command; drop one of them")
            }
            Some(prior) => {
                format!("{option} cannot go with {}; drop one of them", option_name(&prior))
            }
            None => format!("{option} cannot go with the other options; drop it"),
        },
        ErrorKind::MissingRequiredArgument => {
            let instead = if arg.contains("SHELL") {
                let shells = clap_complete::Shell::value_variants().iter().map(ToString::to_string);
                format!("use {}", either(&shells.collect::<Vec<_>>()))
            } else if option == "--frame" {
                // The capture takes its place.
                format!("write {} NAME --frame HEX, or --pcap FILE", caller(error))
            } else {
                format!("write {} {}", caller(error), plain(&arg))
            };
            format!("{} is missing; {instead}", plain(&arg))
        }
        ErrorKind::MissingSubcommand => {
            let verbs = match error.get(ContextKind::ValidSubcommand) {
                Some(ContextValue::Strings(verbs)) => either(verbs),
                _ => "one of its commands".to_owned(),
            };
            format!("{} needs a command; use {verbs}", caller(error))
        }
        ErrorKind::InvalidUtf8 => {
            "an argument is not valid UTF-8; only QEMU's own arguments and file names may be such"
                .to_owned()
        }
        _ => first_line(&error.render().to_string()),
    };
    UsageError::new(line)
}

/// Whether the mistake is in a launch, whose usage speaks of QEMU, and not in a command.
fn speaks_of_qemu(error: &clap::Error) -> bool {
    context(error, ContextKind::Usage).is_none_or(|usage| usage.contains("QEMU"))
}

/// The command that the mistake is in, such as `netlaunch network define`.
fn caller(error: &clap::Error) -> String {
    let usage = context(error, ContextKind::Usage).unwrap_or_default();
    let words = usage.trim_start_matches("Usage:").split_whitespace();
    words.take_while(|word| !word.starts_with(['[', '<', '-'])).collect::<Vec<_>>().join(" ")
}

/// A word where none belongs: most likely QEMU without `--`.
fn stray(word: &str) -> String {
    match word {
        "" => return "an empty argument; put -- before QEMU".to_owned(),
        "shell" | "json" | "xml" => {
            return format!("unknown command {word:?}; write --print={word}");
        }
        _ => {}
    }
    match similar_action(word) {
        Some(similar) => format!("unknown command {word:?}; a similar command exists: {similar}"),
        None => format!(
            "{word:?} is not a command of netlaunch; put -- before QEMU: netlaunch [OPTIONS] -- {word} ..."
        ),
    }
}

/// The command that a word resembles. clap looks for one only where no positional argument could
/// be meant, so it is asked about the commands alone.
fn similar_action(word: &str) -> Option<String> {
    let commands = Action::augment_subcommands(clap::Command::new("netlaunch"));
    let error = commands.try_get_matches_from(["netlaunch", word]).err()?;
    context(&error, ContextKind::SuggestedSubcommand)
}

/// `--backend` of clap's `--backend <auto|passt|slirp>`.
fn option_name(arg: &str) -> &str {
    let name = arg.split([' ', '=', '[']).find(|part| !part.is_empty()).unwrap_or(arg);
    name.trim_end_matches("...").trim_matches(['<', '>'])
}

/// How to write an option that lacks its value.
fn pattern(arg: &str, error: &clap::Error) -> String {
    match choices(error).as_str() {
        "" => plain(arg),
        choices if arg.contains('=') => format!("{}= followed by {choices}", option_name(arg)),
        choices => format!("{} {choices}", option_name(arg)),
    }
}

/// The values an option takes, as a choice in words.
fn choices(error: &clap::Error) -> String {
    let Some(ContextValue::Strings(values)) = error.get(ContextKind::ValidValue) else {
        return String::new();
    };
    either(values)
}

/// `a, b or c`.
fn either(values: &[String]) -> String {
    match values.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// The argument without clap's angle brackets.
fn plain(arg: &str) -> String {
    arg.replace(['<', '>'], "").trim_end_matches("...").to_owned()
}

/// A piece of an error's context as text; the first, where there are several.
fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        ContextValue::StyledStr(text) => Some(text.to_string()),
        ContextValue::StyledStrs(texts) => texts.first().map(StyledStr::to_string),
        _ => None,
    }
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or("the command line cannot be read");
    format!("{}; see netlaunch --help", line.trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use super::super::usage::{Stop, parse};
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    fn refusal(line: &str) -> String {
        let words = std::iter::once("netlaunch").chain(line.split_whitespace());
        match parse(words.map(OsString::from)) {
            Err(Stop::Usage(error)) => error.to_string(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_mistake_is_one_line() {
        for (line, expected) in [
            ("--bakend slirp", "unknown option --bakend; a similar option exists: --backend"),
            (
                "-m 256",
                "unknown option -m; see netlaunch --help, and put QEMU's own options behind -- QEMU",
            ),
            (
                "--backend pasts",
                "--backend: unknown value \"pasts\"; a similar value exists: passt",
            ),
            ("--backend xyz", "--backend: unknown value \"xyz\"; use auto, passt, slirp or bridge"),
            ("--backend", "--backend needs a value; write --backend auto, passt, slirp or bridge"),
            ("--mac", "--mac needs a value; write --mac MAC"),
            ("-p", "--publish needs a value; write --publish PORT"),
            (
                "--backend -- qemu",
                "--backend needs a value; write --backend auto, passt, slirp or bridge",
            ),
            (
                "qemu-system-x86_64 -m 256",
                "\"qemu-system-x86_64\" is not a command of netlaunch; put -- before QEMU: netlaunch [OPTIONS] -- qemu-system-x86_64 ...",
            ),
            (
                "--backend slirp /usr/bin/qemu -m 1",
                "\"/usr/bin/qemu\" is not a command of netlaunch; put -- before QEMU: netlaunch [OPTIONS] -- /usr/bin/qemu ...",
            ),
            ("prob", "unknown command \"prob\"; a similar command exists: probe"),
            ("--print json", "unknown command \"json\"; write --print=json"),
            ("--print=", "--print needs a value; write --print= followed by shell, json or xml"),
            ("--passt=", "--passt needs a value; write --passt PATH"),
            ("--print=qqq", "--print: unknown value \"qqq\"; use shell, json or xml"),
            (
                "--network default --bridge br0",
                "--network cannot go with --bridge; drop one of them",
            ),
            (
                "--user a:b",
                "--user: \"a:b\" cannot be a user's name: use 1 to 32 letters, digits, '-', '.' or '_'",
            ),
            ("--ipv4-only --ipv6-only", "--ipv4-only cannot go with --ipv6-only; drop one of them"),
            ("-q -v", "-q cannot go with -v; drop one of them"),
            ("--qemu q -- q", "--qemu cannot go with a QEMU command; drop one of them"),
            ("--mac 52:54:00:1:2:3 --mac 52:54:00:1:2:3", "--mac was given twice; give it once"),
            (
                "--no-host-loopback=yes",
                "--no-host-loopback: wrong number of values; see netlaunch --help",
            ),
            (
                "--gateway 10.0.2",
                "--gateway: \"10.0.2\" is not an IPv4 address: write one such as 10.0.2.2",
            ),
            (
                "--dns nine",
                "--dns: \"nine\" is not an IP address: write one such as 9.9.9.9 or 2620:fe::fe",
            ),
            ("--mtu 70000", "--mtu: \"70000\" is not an MTU: use 68 to 65520 bytes"),
            ("--mtu +70", "--mtu: \"+70\" is not an MTU: use 68 to 65520 bytes"),
            (
                "--ready-fd 1",
                "--ready-fd: \"1\" is not a file descriptor to report to: use 3 or a higher number that is open for writing",
            ),
            (
                "--address 10.0.2.0/24",
                "--address: 10.0.2.0 is the network address of 10.0.2.0/24, not a host's: use 10.0.2.1 to 10.0.2.254",
            ),
            ("-p 0", "--publish: \"0\" in \"0\" is not a port: use 1 to 65535"),
            ("--", "no program behind --; name QEMU there, or drop -- to serve the network only"),
            (
                "--backend slirp probe",
                "--backend is an option of a launch, not of probe; drop one of them",
            ),
            ("probe --jsn", "unknown option --jsn; a similar option exists: --json"),
            ("probe extra", "unexpected argument \"extra\"; drop it"),
            ("network define", "FILE is missing; write netlaunch network define FILE"),
            ("network start", "NAME is missing; write netlaunch network start NAME"),
            (
                "nwfilter explain clean-traffic",
                "--frame HEX is missing; write netlaunch nwfilter explain NAME --frame HEX, or --pcap FILE",
            ),
            ("network start a b", "unexpected argument \"b\"; drop it"),
            (
                "network start a/b",
                "NAME: \"a/b\" cannot name a network: use 1 to 64 letters, digits, inner spaces, '-', '.', '_' or '+', a letter, digit or '_' first",
            ),
            ("network defin", "unknown command \"defin\"; a similar command exists: define"),
            ("network xyz", "unknown command \"xyz\"; see netlaunch network --help"),
            (
                "network",
                "netlaunch network needs a command; use list, define, undefine, dumpxml, edit, start, destroy or autostart",
            ),
            ("firewall", "netlaunch firewall needs a command; use reload or check"),
            (
                "nwfilter",
                "netlaunch nwfilter needs a command; use list, dumpxml, define, undefine, edit, binding-create, binding-delete, binding-learn, binding-list, binding-dumpxml, explain or check",
            ),
            (
                "nwfilter dumpxml a/b",
                "NAME: \"a/b\" cannot name a filter: use 1 to 128 letters, digits, '-', '.' or '_', a letter or '_' first",
            ),
            ("network list --jsn", "unknown option --jsn; a similar option exists: --json"),
            (
                "--backend slirp network list",
                "--backend is an option of a launch, not of network; drop one of them",
            ),
            ("completions", "SHELL is missing; use bash, elvish, fish, powershell or zsh"),
            (
                "completions 1",
                "SHELL: unknown value \"1\"; use bash, elvish, fish, powershell or zsh",
            ),
        ] {
            assert_eq!(refusal(line), expected, "{line}");
        }
    }

    #[test]
    fn arguments_cannot_break_the_line() {
        for word in ["--fo\no", "--fo\u{1b}[31m", "a\nb", "--mac=a\nb", "--backend=a\nb", ""] {
            let Err(Stop::Usage(error)) = parse(["netlaunch", word].map(OsString::from)) else {
                panic!("{word:?}")
            };
            let line = error.to_string();
            assert!(!line.is_empty() && !line.contains(char::is_control), "{line:?}");
        }
        let bad = OsString::from_vec(b"--mac=\xff".to_vec());
        assert!(matches!(parse(["netlaunch".into(), bad]), Err(Stop::Usage(_))));
    }
}
