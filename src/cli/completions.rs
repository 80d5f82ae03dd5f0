//! Completion scripts for shells.
//!
//! The scripts for bash, zsh and fish call netlaunch for each word (see [`super::complete`]), so
//! they also complete the names of networks, filters, ports and bridges. clap_complete generates
//! the scripts for the other shells from the definition of the command line. Its scripts are not
//! good enough for zsh and fish: the one for zsh loses the verbs of a command that also takes words
//! after `--`, and the one for fish offers files where no argument takes a file.

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::args::Cli;

const BASH: &str = include_str!("completions/netlaunch.bash");
const ZSH: &str = include_str!("completions/_netlaunch.zsh");
const FISH: &str = include_str!("completions/netlaunch.fish");

/// Writes the completion script for `shell` to `out`.
///
/// # Errors
/// The errors of `out`.
pub fn write(shell: Shell, out: &mut dyn Write) -> io::Result<()> {
    // clap_complete panics if its writer fails, so it writes into memory, which cannot fail.
    let mut script = Vec::new();
    match shell {
        Shell::Bash => script.extend_from_slice(BASH.as_bytes()),
        Shell::Zsh => script.extend_from_slice(ZSH.as_bytes()),
        Shell::Fish => script.extend_from_slice(FISH.as_bytes()),
        _ => clap_complete::generate(shell, &mut Cli::command(), "netlaunch", &mut script),
    }
    if matches!(shell, Shell::Bash | Shell::Zsh | Shell::Fish) {
        let mut command = Cli::command();
        // Adds --help and the options that every verb takes.
        command.build();
        script.extend_from_slice(words(&command, "").as_bytes());
    }
    out.write_all(&script)?;
    out.flush()
}

/// Returns comments that list the verbs and options of this version, for readers of the script.
fn words(command: &Command, path: &str) -> String {
    let options = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let options: Vec<String> =
        options.filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
    let mut text = format!("# netlaunch{path}: {}\n", options.join(" "));
    for verb in command.get_subcommands() {
        text.push_str(&words(verb, &format!("{path} {}", verb.get_name())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn the_script_of_every_shell_has_the_options_or_calls_netlaunch() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            write(*shell, &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            let words: &[&str] = match shell {
                Shell::Bash | Shell::Zsh | Shell::Fish => &["__complete", "files", "commands"],
                _ => &["no-host-loopback", "log-format", "completions"],
            };
            for word in words {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn a_writer_that_fails_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(write(Shell::Bash, &mut Full).is_err());
    }
}
