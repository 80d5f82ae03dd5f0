//! Errors of the command line as one line each.
//!
//! An error of clap has several lines and prints the usage. This module turns it into one line: the
//! mistake, then, after a semicolon or in the words of the value's type, the correct words. The
//! kind of the error decides the form, its context gives the words.
//!
//! The words come from the user, so [`UsageError`] escapes the control characters in them.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, Subcommand, ValueEnum};

use super::args::{Action, Cli};
use crate::types::error_text;
use crate::types::printable::printable;

/// A mistake in the command line: one line without `netlaunch: ` before it and a newline after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

impl UsageError {
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        UsageError(printable(text.as_ref()).into_owned())
    }
}

/// Returns the line for an error of clap: the mistake, then the correct words.
pub(super) fn one_line(error: &clap::Error) -> UsageError {
    let arg = context(error, ContextKind::InvalidArg).unwrap_or_default();
    let option = option_name(&arg);
    let line = match error.kind() {
        ErrorKind::UnknownArgument => unknown_argument(&arg, error),
        ErrorKind::InvalidSubcommand => unknown_command(error),
        ErrorKind::InvalidValue => invalid_value(&arg, error),
        ErrorKind::NoEquals => format!("{option} takes its value behind =; write {option}=VALUE"),
        ErrorKind::ValueValidation => match std::error::Error::source(error) {
            Some(source) => format!("{option}: {}", error_text(source)),
            None => format!(
                "{option}: {:?} is not a value of this option; see netlaunch --help",
                value(error)
            ),
        },
        ErrorKind::TooManyValues | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            format!("{option}: wrong number of values; see netlaunch --help")
        }
        ErrorKind::ArgumentConflict => conflict(option, error),
        ErrorKind::MissingRequiredArgument => missing_argument(&arg, error),
        ErrorKind::MissingSubcommand => {
            let verbs = match error.get(ContextKind::ValidSubcommand) {
                Some(ContextValue::Strings(verbs)) => either(&shown(verbs)),
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

fn unknown_argument(arg: &str, error: &clap::Error) -> String {
    if !arg.starts_with('-') {
        return if is_launch(error) {
            stray(arg)
        } else {
            format!("unexpected argument {arg:?}; drop it")
        };
    }
    match context(error, ContextKind::SuggestedArg) {
        Some(similar) => {
            format!("unknown option {arg}; a similar option exists: {}", option_name(&similar))
        }
        None => format!(
            "unknown option {arg}; see netlaunch --help, and put QEMU's own options behind -- QEMU"
        ),
    }
}

fn unknown_command(error: &clap::Error) -> String {
    let word = context(error, ContextKind::InvalidSubcommand).unwrap_or_default();
    if is_launch(error) {
        return stray(&word);
    }
    // clap puts the most similar command last.
    let similar = match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::Strings(similar)) => similar.last(),
        Some(ContextValue::String(similar)) => Some(similar),
        _ => None,
    };
    match similar {
        Some(similar) => format!("unknown command {word:?}; a similar command exists: {similar}"),
        None => format!("unknown command {word:?}; see {} --help", caller(error)),
    }
}

fn invalid_value(arg: &str, error: &clap::Error) -> String {
    let (option, value) = (option_name(arg), value(error));
    if value.is_empty() {
        return format!("{option} needs a value; write {}", pattern(arg, error));
    }
    match context(error, ContextKind::SuggestedValue) {
        Some(similar) => {
            format!("{option}: unknown value {value:?}; a similar value exists: {similar}")
        }
        None => format!("{option}: unknown value {value:?}; use {}", choices(error)),
    }
}

fn conflict(option: &str, error: &clap::Error) -> String {
    match context(error, ContextKind::PriorArg) {
        Some(prior) if option_name(&prior) == option => {
            format!("{option} was given twice; give it once")
        }
        Some(prior) => {
            format!("{option} cannot go with {}; drop one of them", option_name(&prior))
        }
        None => format!("{option} cannot go with the other options; drop it"),
    }
}

fn missing_argument(arg: &str, error: &clap::Error) -> String {
    let name = plain(arg);
    let fix = if arg.contains("SHELL") {
        let shells = clap_complete::Shell::value_variants().iter().map(ToString::to_string);
        format!("use {}", either(&shells.collect::<Vec<_>>()))
    } else if option_name(arg) == "--frame" {
        // A capture can replace the frame.
        format!("write {} NAME --frame HEX, or --pcap FILE", caller(error))
    } else {
        match wanted(error) {
            words if words.is_empty() => format!("write {} {name}", caller(error)),
            words => format!("write {} {}", caller(error), words.join(" ")),
        }
    };
    format!("{name} is missing; {fix}")
}

/// Returns all arguments that the command needs, in their order; an option has its name before its
/// value.
fn wanted(error: &clap::Error) -> Vec<String> {
    let usage = context(error, ContextKind::Usage).unwrap_or_default();
    let words: Vec<&str> = usage.split_whitespace().collect();
    let is_value = |at: usize| words.get(at).is_some_and(|word| word.starts_with('<'));
    let is_option = |at: usize| words[at].starts_with("--") && is_value(at + 1);
    let needed = (0..words.len()).filter(|at| is_value(*at) || is_option(*at));
    needed.map(|at| plain(words[at])).collect()
}

/// Returns the value that the option does not take.
fn value(error: &clap::Error) -> String {
    context(error, ContextKind::InvalidValue).unwrap_or_default()
}

/// Returns whether the mistake is in the options of a launch, whose usage names QEMU.
fn is_launch(error: &clap::Error) -> bool {
    context(error, ContextKind::Usage).is_none_or(|usage| usage.contains("QEMU"))
}

/// Returns the commands that help shows.
fn shown(verbs: &[String]) -> Vec<String> {
    let commands = Cli::command();
    let is_hidden = |name: &String| {
        let nested = commands.get_subcommands().filter_map(|one| one.find_subcommand(name));
        commands.find_subcommand(name).into_iter().chain(nested).any(Command::is_hide_set)
    };
    verbs.iter().filter(|name| !is_hidden(name)).cloned().collect()
}

/// Returns the command with the mistake, such as `netlaunch network define`.
fn caller(error: &clap::Error) -> String {
    let usage = context(error, ContextKind::Usage).unwrap_or_default();
    let words = usage.trim_start_matches("Usage:").split_whitespace();
    words.take_while(|word| !word.starts_with(['[', '<', '-'])).collect::<Vec<_>>().join(" ")
}

/// Returns the line for a word that is no command: most likely QEMU without `--`.
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

/// Returns the command that a word resembles. clap looks for a similar command only if the word
/// cannot be a positional argument, so this asks a parser that has only the commands.
fn similar_action(word: &str) -> Option<String> {
    let commands = Action::augment_subcommands(clap::Command::new("netlaunch"));
    let error = commands.try_get_matches_from(["netlaunch", word]).err()?;
    context(&error, ContextKind::SuggestedSubcommand)
}

/// Returns `--backend` for clap's `--backend <auto|passt|slirp>`.
fn option_name(arg: &str) -> &str {
    let name = arg.split([' ', '=', '[']).find(|part| !part.is_empty()).unwrap_or(arg);
    name.trim_end_matches("...").trim_matches(['<', '>', ']'])
}

/// Returns an option with its value, as the user writes them.
fn pattern(arg: &str, error: &clap::Error) -> String {
    match choices(error).as_str() {
        "" => plain(arg),
        choices if arg.contains('=') => format!("{}= followed by {choices}", option_name(arg)),
        choices => format!("{} {choices}", option_name(arg)),
    }
}

/// Returns the values of an option as `a, b or c`.
fn choices(error: &clap::Error) -> String {
    let Some(ContextValue::Strings(values)) = error.get(ContextKind::ValidValue) else {
        return String::new();
    };
    either(values)
}

/// Returns words as `a, b or c`.
fn either(values: &[String]) -> String {
    match values.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// Returns the argument without the brackets of clap.
fn plain(arg: &str) -> String {
    arg.replace(['<', '>', '[', ']'], "").trim_end_matches("...").to_owned()
}

/// Returns a part of the error's context as text; the first one of several.
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
