//! Computes the words that a shell offers at the cursor.
//!
//! The scripts for bash, zsh and fish call `netlaunch __complete WORD...`, with all words from the
//! one after the program's name to the one at the cursor. The first line of the answer is `files`
//! or `commands` if the shell adds its own file names or commands, otherwise `none`. Each further
//! line is a word, a tab and its meaning. The definition of the command line gives the options and
//! the verbs. The names of networks, filters, bound ports, bridges and interfaces are read only
//! when an argument needs them.
//!
//! A completion never fails and never prints an error: names that cannot be read are left out.

use std::fmt::Write;
use std::fs;

use clap::{Arg, Command, CommandFactory, ValueHint};

use super::args::Cli;
use super::environment::Environment;
use super::nwfilter;
use crate::launcher::record::running;
use crate::network::update::UpdateSection;
use crate::network::{Network, NetworkStore};
use crate::nwfilter::FilterStore;

/// The first word of a command line that asks for completions.
pub(super) const VERB: &str = "__complete";

/// A kind of names that exist on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Networks,
    /// Networks, and each of their port groups as `NAME:GROUP`.
    NetworksAndGroups,
    Filters,
    Ports,
    Bridges,
    Interfaces,
    Sections,
    Launches,
}

/// Returns the answer for a shell; the last one of `words` is the word at the cursor.
pub(super) fn complete(words: &[String], environment: &Environment) -> String {
    answer(words, &|names| read(names, environment))
}

/// The command line up to the cursor.
struct Line<'a> {
    command: &'a Command,
    /// The names of the verbs so far, outermost first.
    path: Vec<&'a str>,
    /// The number of positional arguments so far.
    position: usize,
    /// The option whose value is the next word.
    pending: Option<&'a Arg>,
}

impl<'a> Line<'a> {
    /// Adds the next word before the cursor.
    fn take(&mut self, word: &str) {
        // bash splits `--backend=passt` into three words.
        if word == "=" && self.pending.is_some() {
            return;
        }
        if self.pending.take().is_some() {
            return;
        }
        if let Some(long) = word.strip_prefix("--") {
            if !long.contains('=') {
                self.pending = self.option(|arg| arg.get_long() == Some(long));
            }
        } else if let Some(short) = word.strip_prefix('-').and_then(|rest| rest.chars().last()) {
            self.pending = self.option(|arg| arg.get_short() == Some(short));
        } else if let Some(verb) = self.verbs().find(|verb| verb.get_name() == word) {
            self.command = verb;
            self.path.push(verb.get_name());
        } else {
            self.position += 1;
        }
    }

    /// Returns the option for which `is_it` is true, if its value is a separate word.
    fn option(&self, is_it: impl Fn(&Arg) -> bool) -> Option<&'a Arg> {
        let takes = |arg: &&Arg| arg.get_action().takes_values() && !arg.is_require_equals_set();
        self.command.get_arguments().find(|arg| is_it(arg)).filter(takes)
    }

    /// Returns the verbs that can follow; a verb cannot follow a positional argument.
    fn verbs(&self) -> impl Iterator<Item = &'a Command> + use<'a> {
        let none = self.position > 0;
        self.command.get_subcommands().filter(move |verb| !none && !verb.is_hide_set())
    }
}

fn answer(words: &[String], list: &dyn Fn(Names) -> Vec<String>) -> String {
    let mut root = Cli::command();
    root.build();
    let words: Vec<String> = words.iter().map(|word| word.replace(['\\', '\'', '"'], "")).collect();
    let (current, before) = match words.split_last() {
        Some((current, before)) => (current.as_str(), before),
        None => ("", &[][..]),
    };
    if let Some(at) = before.iter().position(|word| word == "--") {
        return if at + 1 == before.len() { "commands\n" } else { "files\n" }.to_owned();
    }
    let mut line = Line { command: &root, path: Vec::new(), position: 0, pending: None };
    before.iter().for_each(|word| line.take(word));
    let mut found = Found { shell: "none", words: Vec::new() };
    let attached = current.split_once('=').filter(|(name, _)| name.starts_with("--"));
    if let Some(arg) = line.pending {
        found.values(arg, &line.path, "", list);
    } else if let Some((name, _)) = attached {
        let arg = line.command.get_arguments().find(|a| a.get_long() == name.strip_prefix("--"));
        if let Some(arg) = arg.filter(|arg| arg.get_action().takes_values()) {
            found.values(arg, &line.path, &format!("{name}="), list);
        }
    } else if current.starts_with('-') {
        for arg in line.command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            found.words.extend(arg.get_long().map(|long| (format!("--{long}"), help)));
        }
    } else {
        for verb in line.verbs() {
            let help = verb.get_about().map(ToString::to_string).unwrap_or_default();
            found.words.push((verb.get_name().to_owned(), help));
        }
        let mut positional = line.command.get_positionals().filter(|arg| !arg.is_hide_set());
        if let Some(arg) = positional.nth(line.position).filter(|_| !line.path.is_empty()) {
            found.values(arg, &line.path, "", list);
        }
    }
    // After an `=`, bash passes the value alone.
    let prefix = if current == "=" { "" } else { current };
    let mut text = format!("{}\n", found.shell);
    for (word, help) in found.words.iter().filter(|(word, _)| word.starts_with(prefix)) {
        let help = help.lines().next().unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{word}\t{help}");
    }
    text
}

/// The words that the answer offers, and the shell's own words that it asks for.
struct Found {
    shell: &'static str,
    words: Vec<(String, String)>,
}

impl Found {
    /// Adds the values of an argument, each with `before` in front.
    fn values(
        &mut self,
        arg: &Arg,
        path: &[&str],
        before: &str,
        list: &dyn Fn(Names) -> Vec<String>,
    ) {
        for value in arg.get_possible_values().iter().filter(|value| !value.is_hide_set()) {
            let help = value.get_help().map(ToString::to_string).unwrap_or_default();
            self.words.push((format!("{before}{}", value.get_name()), help));
        }
        if let Some(names) = names(arg, path) {
            let named = list(names).into_iter();
            self.words.extend(named.map(|name| (format!("{before}{name}"), String::new())));
        }
        self.shell = match arg.get_value_hint() {
            ValueHint::FilePath | ValueHint::AnyPath | ValueHint::DirPath => "files",
            ValueHint::ExecutablePath | ValueHint::CommandName => "commands",
            _ => self.shell,
        };
    }
}

/// Returns the kind of names that an argument takes; `path` has the names of the verbs before it.
fn names(arg: &Arg, path: &[&str]) -> Option<Names> {
    let value = arg.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
    match (path, arg.get_id().as_str()) {
        ([], "network") => Some(Names::NetworksAndGroups),
        ([], "filter") => Some(Names::Filters),
        ([], "bridge") => Some(Names::Bridges),
        ([] | ["wrap"], "interface") => Some(Names::Interfaces),
        (["attach" | "detach" | "stop" | "logs"], "launch") => Some(Names::Launches),
        (["network", "update"], "section") => Some(Names::Sections),
        (["network", ..], "name") => Some(Names::Networks),
        (["nwfilter", ..], "name" | "what" | "filter") => Some(Names::Filters),
        (["nwfilter", ..], "port") => Some(Names::Ports),
        (["firewall", ..], _) if value == Some("BRIDGE") || arg.get_id() == "bridges" => {
            Some(Names::Bridges)
        }
        _ => None,
    }
}

/// Reads the names of one kind, sorted; returns no names if they cannot be read.
fn read(names: Names, environment: &Environment) -> Vec<String> {
    let config_dir = environment.config_dir().ok().flatten();
    let mut found: Vec<String> = match (names, &config_dir) {
        (Names::Networks, Some(dir)) => {
            let (networks, _) = NetworkStore::new(dir).list().unwrap_or_default();
            networks.iter().map(|definition| definition.network.name.to_string()).collect()
        }
        (Names::NetworksAndGroups, Some(dir)) => {
            let (networks, _) = NetworkStore::new(dir).list().unwrap_or_default();
            let with_groups = |network: &Network| {
                let groups = network.port_groups.iter();
                let named = groups.map(|group| format!("{}:{}", network.name, group.name));
                named.chain([network.name.to_string()]).collect::<Vec<_>>()
            };
            networks.iter().flat_map(|definition| with_groups(&definition.network)).collect()
        }
        (Names::Filters, Some(dir)) => {
            let (filters, _) = FilterStore::new(dir).list().unwrap_or_default();
            filters.iter().map(|definition| definition.filter.name.to_string()).collect()
        }
        (Names::Ports, Some(dir)) => match nwfilter::bindings(dir, environment) {
            Ok(bindings) => {
                let ports = bindings.list().unwrap_or_default();
                ports.iter().map(|status| status.port.to_string()).collect()
            }
            Err(_) => Vec::new(),
        },
        (Names::Bridges | Names::Interfaces, _) => {
            let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
            links
                .filter(|link| names == Names::Interfaces || link.path().join("bridge").is_dir())
                .filter_map(|link| link.file_name().into_string().ok())
                .collect()
        }
        (Names::Sections, _) => UpdateSection::ALL.map(|section| section.to_string()).to_vec(),
        (Names::Launches, _) => {
            let launches = running(&environment.launch_root()).unwrap_or_default();
            launches.into_iter().map(|launch| launch.name).collect()
        }
        (_, None) => Vec::new(),
    };
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the first line and the words of the answer for a command line. A `|` at the end of
    /// `line` is an empty word at the cursor.
    fn offered(line: &str) -> (String, Vec<String>) {
        let words: Vec<String> =
            line.split(' ').map(|word| word.trim_end_matches('|').to_owned()).collect();
        let list = |names| {
            let names: &[&str] = match names {
                Names::Networks => &["default", "my lab"],
                Names::NetworksAndGroups => &["default", "default:slow", "my lab"],
                Names::Filters => &["clean-traffic"],
                Names::Ports => &["vnet0"],
                Names::Bridges => &["br0"],
                Names::Interfaces => &["br0", "eth0"],
                Names::Sections => &["dns-host", "ip-dhcp-host"],
                Names::Launches => &["web"],
            };
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let answer = answer(&words, &list);
        let mut lines = answer.lines();
        let shell = lines.next().unwrap().to_owned();
        (shell, lines.map(|line| line.split('\t').next().unwrap().to_owned()).collect())
    }

    #[test]
    fn an_argument_offers_the_names_of_the_kind_that_it_takes() {
        for (line, words) in [
            ("network start |", &["default", "my lab"][..]),
            ("network autostart --disable m", &["my lab"]),
            ("--network |", &["default", "default:slow", "my lab"]),
            ("--network=d", &["--network=default", "--network=default:slow"]),
            ("--network = d", &["default", "default:slow"]),
            ("--network =", &["default", "default:slow", "my lab"]),
            ("--bridge |", &["br0"]),
            ("--interface |", &["br0", "eth0"]),
            ("--filter |", &["clean-traffic"]),
            ("nwfilter dumpxml |", &["clean-traffic"]),
            ("nwfilter explain c", &["clean-traffic"]),
            ("nwfilter bind vnet0 c", &["clean-traffic"]),
            ("nwfilter unbind |", &["vnet0"]),
            ("nwfilter binding-delete |", &["vnet0"]),
            ("nwfilter binding-dumpxml v", &["vnet0"]),
            ("firewall check |", &["br0"]),
            ("--backend |", &["auto", "passt", "slirp", "bridge"]),
            ("-v --backend s", &["slirp"]),
            ("net", &["network"]),
            ("network de", &["define", "destroy"]),
            ("network start default |", &[]),
            ("--no-host", &["--no-host-loopback"]),
            ("network leases d", &["default"]),
            ("attach |", &["web"]),
            ("detach --force w", &["web"]),
            ("stop --stop-timeout 5 |", &["web"]),
            ("network update default a", &["add-last", "add-first", "add"]),
            ("network update default add i", &["ip-dhcp-host"]),
            ("network list --j", &["--json"]),
            ("network list --log-format j", &["json"]),
        ] {
            let (shell, found) = offered(line);
            assert_eq!(
                (shell.as_str(), &found[..]),
                ("none", &words.iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
                "{line}"
            );
        }
    }

    #[test]
    fn the_shell_adds_its_own_files_and_commands_where_they_fit() {
        for (line, shell) in [
            ("network define |", "files"),
            ("network update lab add dns-host |", "files"),
            ("--pcap |", "files"),
            ("--passt |", "commands"),
            ("-p 22 -- |", "commands"),
            ("-- qemu -m |", "files"),
            ("nwfilter check |", "files"),
        ] {
            assert_eq!(offered(line).0, shell, "{line}");
        }
    }
}
