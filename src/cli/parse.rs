//! Parses the words of the command line into [`Cli`].
//!
//! clap parses the words. Two mistakes that clap cannot find are found here: an option of a launch
//! before another command, and a missing program after `--`. The module [`super::usage_error`]
//! makes the line for each mistake.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};

use super::args::{Action, Cli};
use super::usage_error::{UsageError, one_line};

/// Why the command line starts nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// `--help` or `--version`: the text for standard output, exit status 0.
    Show(String),
    /// A mistake in the command line, exit status 2.
    Usage(UsageError),
}

/// Parses a command line, the first word of which is the program's name.
///
/// # Errors
/// [`Stop`], if there is a mistake or a text to show.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Stop> {
    let args: Vec<OsString> = args.into_iter().collect();
    let usage = |text: String| Stop::Usage(UsageError::new(text));
    let matches = Cli::command().try_get_matches_from(&args).map_err(|error| stop(&error))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| stop(&error))?;
    if let Some((action, _)) = matches.subcommand() {
        let given = Cli::command()
            .get_arguments()
            .filter(|arg| !arg.is_global_set())
            .find(|arg| {
                matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
            })
            .and_then(|arg| arg.get_long().map(str::to_owned));
        if let (Some(option), "wrap") = (&given, action) {
            return Err(usage(format!("--{option} stands before wrap; put it behind that word")));
        }
        if let Some(option) = given {
            return Err(usage(format!(
                "--{option} is an option of a launch, not of {action}; drop one of them"
            )));
        }
        if let Some(Action::Wrap(wrap)) = &cli.command {
            if let Some(option) = wrap.unusable() {
                let option = option.replace('_', "-");
                let fix = match option.as_str() {
                    "user" => "wrap runs QEMU as its caller; drop --user, or write netlaunch --user NAME -- QEMU".to_owned(),
                    _ => format!("wrap adds and prints nothing; drop --{option}"),
                };
                return Err(usage(fix));
            }
            if wrap.install.is_some() && wrap.launch.has_options() {
                return Err(usage("wrap --install takes no option of a launch; put the settings of stand-ins into [wrap] of netlaunch.conf".into()));
            }
            if let (None, Some(name)) = (&wrap.install, wrap.names.first()) {
                let name = name.to_string_lossy();
                return Err(usage(format!(
                    "{name:?} has no -- before it; write netlaunch wrap -- {name}, or name a directory with --install"
                )));
            }
            if wrap.launch.command.first().is_some_and(|program| program.is_empty()) {
                return Err(usage("the name of QEMU behind -- is empty; name QEMU there".into()));
            }
            if wrap.install.is_none() && wrap.launch.command.is_empty() {
                let fix = "name QEMU behind --, or a directory with --install";
                return Err(usage(format!("wrap has no program to stand in for; {fix}")));
            }
        }
    } else if cli.launch.command.is_empty() && args.last().is_some_and(|last| last == "--") {
        return Err(usage(
            "no program behind --; name QEMU there, or drop -- to serve the network only".into(),
        ));
    }
    Ok(cli)
}

/// Returns the text to show, or the line for a mistake.
fn stop(error: &clap::Error) -> Stop {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Stop::Show(error.render().to_string())
        }
        _ => Stop::Usage(one_line(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::PrintFormat;
    use std::os::unix::ffi::OsStringExt;

    fn read(line: &str) -> Result<Cli, Stop> {
        parse(std::iter::once("netlaunch").chain(line.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn nothing_given_is_nothing_set() {
        let cli = read("").unwrap();
        assert!(cli.command.is_none());
        let args = cli.launch;
        assert!(args.backend.is_none() && args.print.is_none() && args.command.is_empty());
        assert!(args.publish.is_empty() && !args.ipv4_only && !args.no_host_loopback);
    }

    #[test]
    fn qemu_stays_as_it_was_written() {
        let raw = OsString::from_vec(b"-name=\xff".to_vec());
        let words = ["netlaunch", "-p", "2222:22", "--", "qemu", "--help", "--", "-v"];
        let args = words.map(OsString::from).into_iter().chain([raw.clone()]);
        let cli = parse(args).unwrap();
        let mut expected = ["qemu", "--help", "--", "-v"].map(OsString::from).to_vec();
        expected.push(raw);
        assert_eq!(cli.launch.command, expected);
        assert_eq!(cli.log.verbose, 0);
    }

    #[test]
    fn print_has_a_default_format() {
        assert_eq!(read("--print").unwrap().launch.print, Some(PrintFormat::Shell));
        assert_eq!(read("--print=json").unwrap().launch.print, Some(PrintFormat::Json));
        assert_eq!(read("--print -- q").unwrap().launch.print, Some(PrintFormat::Shell));
    }

    #[test]
    fn message_options_go_with_every_command() {
        for line in ["-vv probe", "probe -vv", "-v -v -- qemu", "ps -vv --log-format json"] {
            assert_eq!(read(line).unwrap().log.verbose, 2, "{line}");
        }
    }

    #[test]
    fn help_and_version_are_shown() {
        for line in ["--help", "-h", "--version", "-V", "probe --help", "--backend slirp -h"] {
            assert!(matches!(read(line), Err(Stop::Show(_))), "{line}");
        }
        let Err(Stop::Show(help)) = read("-h") else { panic!() };
        assert!(!help.contains('\x1b'), "{help:?}");
    }
}
