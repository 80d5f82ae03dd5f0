//! Compares every description of an option with its help text, which is the only source.
//!
//! The definition for clap (src/cli/args) gives the parser, `--help` and the completions. The
//! manual pages and conf/netlaunch.conf describe the same options to other readers, with more
//! words. These tests demand that each description begins with the help text, word for word: the
//! text up to its first `;`, `:`, `(` or `[`. So one option has one meaning in all places.
//!
//! No option has the keys of network.conf and nwfilter.conf. Their source is the comment in the
//! sample file, and the manual begins with that.
//!
//! `NETLAUNCH_WRITE=1 cargo test options_once` puts the help text before each description that
//! differs. Read the diff: the old first sentence may repeat the new one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory};
use netlaunch::cli::args::Cli;
use netlaunch::cli::{config, network_config, nwfilter_config};

/// The keys of netlaunch.conf that are not named after one option.
const OTHER_KEYS: [(&str, &[&str]); 3] = [
    ("host_loopback", &["--no-host-loopback"]),
    ("family", &["--ipv4-only", "--ipv6-only"]),
    ("wrap", &[]),
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn cli() -> Command {
    let mut cli = Cli::command();
    cli.build();
    cli
}

/// Returns the part of a help text that every description begins with.
fn head(help: &str) -> String {
    let end = help.find([';', ':', '(', '[']).unwrap_or(help.len());
    help[..end].split_whitespace().collect::<Vec<_>>().join(" ")
}

fn help(arg: &Arg) -> String {
    arg.get_help().map(ToString::to_string).unwrap_or_default()
}

/// Returns the options of a command that are its own; clap adds `--help` and `--version`.
fn options(command: &Command) -> Vec<&Arg> {
    let own = |arg: &&Arg| {
        let id = arg.get_id().as_str();
        !arg.is_positional() && !arg.is_hide_set() && id != "help" && id != "version"
    };
    command.get_arguments().filter(own).collect()
}

/// Returns the flag that a manual page shows: the long one if there is one.
fn flag(arg: &Arg) -> String {
    match (arg.get_long(), arg.get_short()) {
        (Some(long), _) => format!("--{long}"),
        (None, short) => format!("-{}", short.unwrap()),
    }
}

fn is_macro(word: &str) -> bool {
    matches!(word.as_bytes(), [a, b] if a.is_ascii_uppercase() && b.is_ascii_lowercase())
}

/// Returns the words of an mdoc line, without its macros; `Fl -print` becomes `--print`.
fn words(line: &str) -> Vec<String> {
    let Some(line) = line.strip_prefix('.') else {
        return line.split_whitespace().map(str::to_owned).collect();
    };
    let mut flag = false;
    let mut words = Vec::new();
    for word in line.split_whitespace() {
        match word {
            "Fl" => flag = true,
            word if is_macro(word) => flag = false,
            "|" | "," | "=" | "/" => {}
            word if flag => words.push(format!("-{word}")),
            word => words.push(word.to_owned()),
        }
    }
    words
}

/// One entry of a manual page: its `.It` line and the text below it.
struct Entry<'a> {
    item: &'a str,
    /// The number of the first line of the text.
    start: usize,
    lines: Vec<&'a str>,
}

impl Entry<'_> {
    /// Returns the text as words. A line in parentheses, such as the command that has the option,
    /// does not count.
    fn text(&self) -> String {
        let lines = self.lines.iter().filter(|line| !line.starts_with(".Pq "));
        lines.flat_map(|line| words(line)).collect::<Vec<_>>().join(" ")
    }

    /// Returns the words of the item after a flag, up to the next flag.
    fn value(&self, flag: &str) -> BTreeSet<String> {
        let words = words(self.item);
        let after = words.iter().skip_while(|word| *word != flag).skip(1);
        after.take_while(|word| !word.starts_with('-')).cloned().collect()
    }
}

/// Returns the entries of a page whose item satisfies `wanted`. The text of an entry ends at the
/// next entry of its kind, and an entry of a command includes the list of its options.
fn entries<'a>(page: &'a str, wanted: impl Fn(&str) -> bool) -> Vec<Entry<'a>> {
    let lines: Vec<&str> = page.lines().collect();
    let ends = |item: &str, line: &&str| {
        let is_option = line.starts_with(".It Fl ") && item.starts_with(".It Fl ");
        is_option || [".Sh ", ".Ss ", ".It Cm "].iter().any(|start| line.starts_with(start))
    };
    let items = lines.iter().enumerate().filter(|(_, line)| wanted(line));
    items
        .map(|(at, item)| {
            let text = lines[at + 1..].iter().copied().take_while(|line| !ends(item, line));
            Entry { item, start: at + 1, lines: text.collect() }
        })
        .collect()
}

/// The differences that a test found, and the sentences that would remove them.
#[derive(Default)]
struct Differences {
    file: &'static str,
    problems: Vec<String>,
    /// The number of the first line, and the new sentence.
    sentences: Vec<(usize, String)>,
}

impl Differences {
    fn new(file: &'static str) -> (Self, String) {
        let text = std::fs::read_to_string(path(file)).unwrap();
        (Differences { file, ..Differences::default() }, text)
    }

    /// Compares the start of a description with the head of a help text.
    fn compare(&mut self, what: &str, text: &str, head: &str, start: usize) {
        let rest = text.strip_prefix(head);
        if rest.is_none_or(|rest| rest.starts_with(char::is_alphanumeric)) {
            let begin: String = text.chars().take(head.len() + 20).collect();
            let file = self.file;
            self.problems.push(format!("{file}:{start}: {what}: write {head:?}, not {begin:?}"));
            self.sentences.push((start, head.to_owned()));
        }
    }

    /// Compares the words of a value's name.
    fn compare_value(&mut self, arg: &Arg, entry: &Entry<'_>) {
        if !arg.get_action().takes_values() {
            return;
        }
        let name = arg.get_value_names().unwrap_or_default().join(" ").to_lowercase();
        let expected: BTreeSet<String> =
            name.split(['|', '=', '/']).filter(|word| !word.is_empty()).map(String::from).collect();
        let flags = [Some(flag(arg)), arg.get_short().map(|short| format!("-{short}"))];
        if !flags.iter().flatten().any(|flag| entry.value(flag) == expected) {
            let (file, line) = (self.file, entry.start);
            let item = entry.item;
            self.problems.push(format!("{file}:{line}: {}: no {expected:?} in {item}", flag(arg)));
        }
    }

    /// Fails with the differences. With `NETLAUNCH_WRITE`, it also writes the missing sentences.
    fn finish(self, prefix: &str) {
        if self.problems.is_empty() {
            return;
        }
        if std::env::var_os("NETLAUNCH_WRITE").is_some() {
            let text = std::fs::read_to_string(path(self.file)).unwrap();
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            for (start, sentence) in self.sentences.into_iter().rev() {
                let start = start + usize::from(lines[start].starts_with(".Pq "));
                lines.insert(start, format!("{prefix}{sentence}."));
            }
            std::fs::write(path(self.file), lines.join("\n") + "\n").unwrap();
        }
        panic!("{} differences\n{}", self.problems.len(), self.problems.join("\n"));
    }
}

/// Returns the commands of a page with their words: `ps`, or `network list`.
fn commands<'a>(cli: &'a Command, names: &[&str]) -> Vec<(String, &'a Command)> {
    let mut all = Vec::new();
    for command in cli.get_subcommands().filter(|command| names.contains(&command.get_name())) {
        let name = command.get_name();
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            all.push((format!("{name} {}", verb.get_name()), verb));
        }
        if !command.has_subcommands() {
            all.push((name.to_owned(), command));
        }
    }
    all
}

#[test]
fn an_entry_of_the_manual_begins_with_the_help_of_its_option() {
    let cli = cli();
    let (mut found, page) = Differences::new("man/netlaunch.1");
    let items = entries(&page, |line| line.starts_with(".It Fl "));
    let of = |names: &[&str]| -> Vec<&Arg> {
        commands(&cli, names).iter().flat_map(|(_, command)| options(command)).collect()
    };
    let (of_probe, of_attach) = (of(&["probe", "ps"]), of(&["attach", "detach"]));
    let of_stop = of(&["stop", "logs"]);
    for entry in &items {
        let marked = words(entry.item);
        let section = page.lines().take(entry.start).filter(|line| line.starts_with(".Ss ")).last();
        let all = match section {
            Some(".Ss Options of probe and ps") => of_probe.clone(),
            Some(".Ss Options of stop") => of_stop.clone(),
            Some(".Ss Options of attach and detach") => of_attach.clone(),
            _ => options(&cli),
        };
        let Some(arg) = all.iter().find(|arg| marked.contains(&flag(arg))) else { continue };
        found.compare(&flag(arg), &entry.text(), &head(&help(arg)), entry.start);
        found.compare_value(arg, entry);
    }
    assert!(items.len() > 30, "only {} entries", items.len());
    found.finish("");
}

#[test]
fn the_manual_of_stand_ins_describes_its_options_with_their_help() {
    let cli = cli();
    let wrap = cli.find_subcommand("wrap").unwrap();
    let (mut found, page) = Differences::new("man/netlaunch-wrap.1");
    let items = entries(&page, |line| line.starts_with(".It Fl "));
    let launch: BTreeSet<String> = options(&cli).into_iter().map(flag).collect();
    let own: Vec<&Arg> =
        options(wrap).into_iter().filter(|arg| !launch.contains(&flag(arg))).collect();
    assert_eq!((items.len(), own.len()), (1, 1));
    for (entry, arg) in items.iter().zip(own) {
        found.compare(&flag(arg), &entry.text(), &head(&help(arg)), entry.start);
        found.compare_value(arg, entry);
    }
    found.finish("");
}

/// Compares the entries of commands in a page.
fn compare_commands(file: &'static str, names: &[&str]) {
    let cli = cli();
    let (mut found, page) = Differences::new(file);
    for (name, command) in commands(&cli, names) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let is_entry = |line: &str| {
            line.strip_prefix(".It Cm ").is_some_and(|rest| {
                rest.strip_prefix(&name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            })
        };
        let entries = entries(&page, is_entry);
        let Some(entry) = entries.first() else { panic!("{file}: no entry for {name}") };
        found.compare(&name, &entry.text(), &head(&about), entry.start);
        let text = entry.text().to_lowercase();
        for arg in options(command).iter().filter(|arg| !arg.is_global_set()) {
            if !words(entry.item).contains(&flag(arg)) {
                // netlaunch.1 has a section of its own for the options of probe and ps.
                assert_eq!(file, "man/netlaunch.1", "{name}: {}", flag(arg));
                continue;
            }
            found.compare_value(arg, entry);
            let head = head(&help(arg));
            if !text.contains(&head.to_lowercase()) {
                let line = entry.start;
                found.problems.push(format!("{file}:{line}: {name} {}: say {head:?}", flag(arg)));
            }
        }
    }
    found.finish("");
}

#[test]
fn an_entry_of_the_manual_begins_with_the_help_of_its_command() {
    compare_commands("man/netlaunch.1", &["wrap", "probe", "ps", "stop", "logs", "completions"]);
}

#[test]
fn an_entry_of_the_manual_of_networks_begins_with_the_help_of_its_command() {
    compare_commands("man/netlaunch-network.1", &["network", "firewall"]);
}

#[test]
fn an_entry_of_the_manual_of_filters_begins_with_the_help_of_its_command() {
    compare_commands("man/netlaunch-nwfilter.1", &["nwfilter"]);
}

#[test]
fn a_comment_in_the_sample_file_begins_with_the_help_of_its_option() {
    let cli = cli();
    let (mut found, text) = Differences::new("conf/netlaunch.conf");
    let lines: Vec<&str> = text.lines().collect();
    for key in config::KEYS {
        let (comment, start) = comment(&lines, key);
        if let Some((_, options)) = OTHER_KEYS.iter().find(|(other, _)| *other == key) {
            for option in *options {
                if !comment.contains(option) {
                    found.problems.push(format!("conf/netlaunch.conf:{start}: {key}: no {option}"));
                }
            }
            continue;
        }
        let option = key.replace('_', "-");
        let arg = cli.get_arguments().find(|arg| arg.get_long() == Some(&option)).unwrap();
        found.compare(key, &comment, &head(&help(arg)), start);
    }
    found.finish("# ");
}

/// Returns the comment of a key in a sample file, and the number of its first line.
fn comment(lines: &[&str], key: &str) -> (String, usize) {
    let at = lines.iter().position(|line| line.starts_with(&format!("#{key} = "))).unwrap();
    let start = lines[..at].iter().rposition(|line| line.is_empty()).unwrap() + 1;
    let comment: Vec<&str> = lines[start..at].iter().map(|line| line[1..].trim()).collect();
    (comment.join(" "), start)
}

/// Compares the entries of keys in a page with the comments in a sample file.
fn compare_keys(file: &'static str, keys: &[&str], page: &'static str) {
    let sample = std::fs::read_to_string(path(file)).unwrap();
    let lines: Vec<&str> = sample.lines().collect();
    let (mut found, page) = Differences::new(page);
    for key in keys {
        let (comment, _) = comment(&lines, key);
        let entries = entries(&page, |line| line == format!(".It Cm {key}"));
        let [entry] = &entries[..] else { panic!("{}: {} of {key}", found.file, entries.len()) };
        // A sentence without one of the signs that end a head is a head.
        let sentence = comment.split(". ").next().unwrap().trim_end_matches('.');
        found.compare(key, &entry.text(), &head(sentence), entry.start);
    }
    found.finish("");
}

#[test]
fn an_entry_of_the_manual_of_networks_begins_with_the_comment_in_network_conf() {
    let keys = &network_config::KEYS;
    compare_keys("conf/network.conf", keys, "man/netlaunch-network.1");
}

#[test]
fn an_entry_of_the_manual_of_filters_begins_with_the_comment_in_nwfilter_conf() {
    let keys = &nwfilter_config::KEYS;
    compare_keys("conf/nwfilter.conf", keys, "man/netlaunch-nwfilter.1");
}

#[test]
fn every_option_has_a_help_text_in_the_third_person() {
    fn check(command: &Command) {
        let about = command.get_about().map(ToString::to_string);
        let texts = options(command).into_iter().map(help).chain(about);
        for text in texts {
            let verb = text.split([' ', ',']).next().unwrap();
            let third = verb.ends_with('s') && verb.starts_with(char::is_uppercase);
            assert!(third || text.starts_with("No longer "), "{}: {text}", command.get_name());
        }
        command.get_subcommands().for_each(check);
    }
    check(&cli());
}
