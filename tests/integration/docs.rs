//! Compares the texts about the options with the options: the command line's definition, manual
//! pages, completions, README, sample configuration file and changelog.

mod formats;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;
use netlaunch::cli::args::Cli;
use netlaunch::cli::{completions, config, network_config, nwfilter_config};

type Flags = BTreeSet<String>;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The flags of one command, dashes included. `-h` and `-V` are clap's own and stay in.
fn flags(command: &clap::Command) -> Flags {
    let of = |arg: &clap::Arg| {
        let long = arg.get_long().map(|long| format!("--{long}"));
        let short = arg.get_short().map(|short| format!("-{short}"));
        long.into_iter().chain(short).collect::<Vec<_>>()
    };
    command.get_arguments().flat_map(of).collect()
}

/// The flags that every command has.
fn everywhere(cli: &clap::Command) -> Flags {
    cli.get_arguments()
        .filter(|arg| arg.is_global_set())
        .flat_map(|arg| {
            let long = arg.get_long().map(|long| format!("--{long}"));
            long.into_iter().chain(arg.get_short().map(|short| format!("-{short}")))
        })
        .chain(["-h", "--help", "-V", "--version"].map(String::from))
        .collect()
}

/// The flags of netlaunch itself (under "") and of each command, without what every command has.
/// The command wrap also has the flags of a launch.
fn defined() -> BTreeMap<String, Flags> {
    let mut cli = Cli::command();
    cli.build();
    let (top, everywhere) = (flags(&cli), everywhere(&cli));
    let mut all = BTreeMap::from([(String::new(), top)]);
    for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
        let mut own: Flags = flags(command).difference(&everywhere).cloned().collect();
        if command.get_name() == "wrap" {
            own.retain(|flag| !all[""].contains(flag));
        }
        all.insert(command.get_name().to_owned(), own);
    }
    all
}

/// The flags of each verb, under `COMMAND VERB`, without what every command has.
fn verbs() -> BTreeMap<String, Flags> {
    let mut cli = Cli::command();
    cli.build();
    let everywhere = everywhere(&cli);
    let mut all = BTreeMap::new();
    for command in cli.get_subcommands() {
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let own = flags(verb).difference(&everywhere).cloned().collect();
            all.insert(format!("{} {}", command.get_name(), verb.get_name()), own);
        }
    }
    all
}

/// Every flag there is.
fn every_flag() -> Flags {
    union(&defined()).union(&union(&verbs())).cloned().collect()
}

fn union(all: &BTreeMap<String, Flags>) -> Flags {
    all.values().flatten().cloned().collect()
}

/// The flags that mdoc lines mark up with `Fl`.
fn marked<'a>(lines: impl Iterator<Item = &'a str>) -> Flags {
    let mut flags = Flags::new();
    for line in lines.filter(|line| line.starts_with('.')) {
        let words: Vec<&str> = line.trim_start_matches('.').split_whitespace().collect();
        let mut after_flag = false;
        for (i, word) in words.iter().enumerate() {
            match *word {
                "Fl" => after_flag = true,
                "|" | "," | ";" | "." => {}
                // A word behind Fl is a flag until another macro begins; `--` alone is none.
                word if after_flag && !is_macro(word) => {
                    if word != "-" {
                        flags.insert(format!("-{word}"));
                    }
                }
                _ => after_flag = false,
            }
            assert!(!(*word == "Fl" && i + 1 == words.len()) || line.ends_with("Fl -"), "{line}");
        }
    }
    flags
}

fn is_macro(word: &str) -> bool {
    let mut letters = word.chars();
    word.len() == 2
        && letters.next().is_some_and(|c| c.is_ascii_uppercase())
        && letters.next().is_some_and(|c| c.is_ascii_lowercase())
}

/// The lines of a section (`.Sh`) or subsection (`.Ss`) of a manual page.
fn section<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let lines: Vec<&str> = page
        .lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with(".Sh ") && !line.starts_with(".Ss "))
        .collect();
    assert!(!lines.is_empty(), "no section {heading:?}");
    lines
}

fn items<'a>(lines: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    lines.iter().copied().filter(|line| line.starts_with(".It "))
}

#[test]
fn every_option_has_an_entry_in_the_manual_and_every_entry_an_option() {
    let page = read("man/netlaunch.1");
    let all = defined();
    let launch = section(&page, ".Ss Options of a launch");
    let every = section(&page, ".Ss Options of every command");
    assert_eq!(marked(items(&launch).chain(items(&every))), all[""]);

    let commands = section(&page, ".Ss Options of probe and ps");
    let mut documented = marked(items(&commands));
    let of_attach = section(&page, ".Ss Options of attach and detach");
    documented.extend(marked(items(&of_attach)));
    documented.extend(marked(items(&section(&page, ".Ss Options of stop"))));
    let page_of_wrap = read("man/netlaunch-wrap.1");
    let of_wrap = marked(items(&section(&page_of_wrap, ".Ss Options")));
    assert_eq!(of_wrap, all["wrap"]);
    documented.extend(of_wrap);
    assert_eq!(documented, union_of(&all, |command| !command.is_empty()));
    assert_eq!(marked(page.lines()), union(&all), "a flag in the text that is none of netlaunch's");
}

fn union_of(all: &BTreeMap<String, Flags>, wanted: impl Fn(&str) -> bool) -> Flags {
    all.iter().filter(|(name, _)| wanted(name)).flat_map(|(_, flags)| flags.clone()).collect()
}

#[test]
fn the_synopsis_names_every_option_of_every_command() {
    let page = read("man/netlaunch.1");
    let lines = section(&page, ".Sh SYNOPSIS");
    let all = defined();
    let mut found: BTreeMap<String, Flags> = BTreeMap::new();
    for call in lines.split(|line| *line == ".Nm") {
        let name = call.iter().find_map(|line| line.strip_prefix(".Cm ")).unwrap_or_default();
        found.entry(name.to_owned()).or_default().extend(marked(call.iter().copied()));
    }
    assert_eq!(found, all);
}

#[test]
fn every_command_has_an_entry_in_the_manual() {
    let page = read("man/netlaunch.1");
    let lines = section(&page, ".Sh DESCRIPTION");
    let documented: Flags = items(&lines)
        .filter_map(|line| line.strip_prefix(".It Cm "))
        .filter_map(|rest| rest.split(' ').next())
        .map(String::from)
        .collect();
    let cli = Cli::command();
    let shown = cli.get_subcommands().filter(|command| !command.is_hide_set());
    let commands: Flags = shown.map(|command| command.get_name().to_owned()).collect();
    assert_eq!(documented, commands);
}

#[test]
fn completions_know_every_option_and_no_other() {
    for shell in Shell::value_variants() {
        let mut script = Vec::new();
        completions::write(*shell, &mut script).unwrap();
        let script = String::from_utf8(script).unwrap();
        let (all, words) = (every_flag(), long_flags(&script));
        for flag in all.iter().filter(|flag| flag.starts_with("--")) {
            // fish writes `-l FLAG`, the others the flag as it is typed.
            let fish = format!("-l {} ", &flag[2..]);
            assert!(
                words.contains(flag) || format!("{script} ").replace('\n', " ").contains(&fish),
                "{shell}: {flag}"
            );
        }
        if *shell == Shell::Bash {
            let unknown: Vec<_> = words.difference(&all).collect();
            assert!(unknown.is_empty(), "{unknown:?}");
        }
        for (verb, _) in verbs() {
            let words: Vec<&str> = verb.split(' ').collect();
            assert!(words.iter().all(|word| script.contains(word)), "{shell}: {verb}");
        }
    }
}

/// The words behind `.It Cm ` or `.Cm ` up to the next macro.
fn command_words(rest: &str) -> String {
    rest.split(' ').take_while(|word| !is_macro(word)).collect::<Vec<_>>().join(" ")
}

/// Holds a page about some commands to their verbs.
fn page_of_verbs(page: &str, commands: &[&str]) {
    let page = read(page);
    let of = |verb: &str| commands.iter().any(|command| verb.split(' ').next() == Some(command));
    let verbs: BTreeMap<String, Flags> = verbs().into_iter().filter(|(verb, _)| of(verb)).collect();
    let lines = section(&page, ".Sh SYNOPSIS");
    let mut synopsis: BTreeMap<String, Flags> = BTreeMap::new();
    for call in lines.split(|line| *line == ".Nm netlaunch").skip(1) {
        let name = call.iter().find_map(|line| line.strip_prefix(".Cm ")).unwrap_or_default();
        let again = synopsis.insert(name.to_owned(), marked(call.iter().copied()));
        assert_eq!(again, None, "{name} is there twice");
    }
    // Where an option has a short form, the synopsis has that alone.
    let shown = |flags: &Flags| {
        let short = flags.contains("-p");
        flags.iter().filter(|flag| !(short && flag.as_str() == "--param")).cloned().collect()
    };
    let named: BTreeMap<String, Flags> =
        verbs.iter().map(|(verb, flags)| (verb.clone(), shown(flags))).collect();
    assert_eq!(synopsis, named);
    let lines = section(&page, ".Sh DESCRIPTION");
    let entries: BTreeMap<String, Flags> = items(&lines)
        .filter_map(|line| {
            let rest = line.strip_prefix(".It Cm ")?;
            Some((command_words(rest), marked([line].into_iter())))
        })
        .collect();
    assert_eq!(entries, verbs);
    let known: Flags = union(&verbs).union(&everywhere(&Cli::command())).cloned().collect();
    let unknown: Vec<_> = marked(page.lines()).difference(&known).cloned().collect();
    assert!(unknown.is_empty(), "flags in the text that are none of theirs: {unknown:?}");
}

#[test]
fn the_manual_of_networks_has_every_verb_with_its_options_and_no_other() {
    page_of_verbs("man/netlaunch-network.1", &["network", "firewall"]);
}

#[test]
fn the_manual_of_filters_has_every_verb_with_its_options_and_no_other() {
    page_of_verbs("man/netlaunch-nwfilter.1", &["nwfilter"]);
    let covered: BTreeSet<_> = ["network", "firewall", "nwfilter"].into();
    assert!(verbs().keys().all(|verb| covered.contains(verb.split(' ').next().unwrap())));
}

/// How many calls the lines show, all of which can be read.
fn readable_calls<'a>(lines: impl IntoIterator<Item = &'a str>) -> usize {
    let calls = lines.into_iter().filter_map(|line| line.strip_prefix("# netlaunch "));
    let read = calls.map(|call| {
        let words = ["netlaunch"].into_iter().chain(call.split_whitespace()).map(Into::into);
        assert!(netlaunch::cli::parse::parse(words).is_ok(), "{call}");
    });
    read.count()
}

#[test]
fn nwfilter_conf_sets_nothing_and_names_every_key_as_the_manual_does() {
    let keys = &nwfilter_config::KEYS;
    names_every_key("conf/nwfilter.conf", nwfilter_config::parse, keys);
    explains_every_key("man/netlaunch-nwfilter.1", ".Ss nwfilter.conf", keys);
}

#[test]
fn network_conf_sets_nothing_and_names_every_key_as_the_manual_does() {
    let keys = &network_config::KEYS;
    names_every_key("conf/network.conf", network_config::parse, keys);
    explains_every_key("man/netlaunch-network.1", ".Ss network.conf", keys);
}

/// Every `--word` in a text.
fn long_flags(text: &str) -> Flags {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.split(|c| !part(c))
        .filter(|word| word.strip_prefix("--").is_some_and(|w| w.starts_with(char::is_alphabetic)))
        .map(String::from)
        .collect()
}

#[test]
fn the_readme_mentions_no_unknown_option() {
    let readme = read("README.md");
    // Other programs' options are on lines that call those programs.
    let ours = readme.lines().filter(|line| !line.starts_with("cargo ")).collect::<Vec<_>>();
    let mentioned = long_flags(&ours.join("\n"));
    assert!(mentioned.contains("--print"));
    let all = every_flag();
    let unknown: Vec<_> = mentioned.difference(&all).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let examples: Vec<&str> = readme
        .split("```")
        .skip(1)
        .step_by(2)
        .flat_map(str::lines)
        .filter(|line| line.starts_with("netlaunch ") && !line.starts_with("netlaunch = "))
        .collect();
    assert!(examples.len() > 3, "{examples:?}");
    for line in examples {
        let command = line.split(['>', '#']).next().unwrap_or_default();
        let words = command.split_whitespace().map(Into::into);
        assert!(netlaunch::cli::parse::parse(words).is_ok(), "{line}");
    }
}

#[test]
fn the_readme_shows_how_to_depend_on_the_library() {
    let readme = read("README.md");
    let (_, block) = readme.split_once("```toml\n[dependencies]\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let dependencies: toml::Table = block.parse().unwrap();
    let own: toml::Table = read("Cargo.toml").parse().unwrap();
    let table = |name: &str| own[name].as_table().unwrap().clone();
    assert_eq!(dependencies["netlaunch"]["default-features"].as_bool(), Some(false));
    let version = table("dependencies")["tokio"]["version"].as_str().unwrap().to_owned();
    let major = dependencies["tokio"]["version"].as_str().unwrap();
    assert!(version.starts_with(&format!("{major}.")), "{version}");
    for feature in ["bridged", "capi"] {
        assert!(table("features").contains_key(feature), "{feature}");
        assert!(readme.contains(&format!("The feature `{feature}`")), "{feature}");
    }
}

/// The sample file with the `#` of its settings removed.
fn sample(path: &str) -> String {
    let setting = |line: &&str| line.starts_with(|c: char| c.is_ascii_lowercase());
    let text = read(path);
    let lines = text.lines().filter_map(|line| line.strip_prefix('#')).filter(setting);
    lines.map(|line| format!("{line}\n")).collect()
}

/// A sample file sets nothing, and has every key and no other.
fn names_every_key<C: Default + PartialEq + Debug>(
    file: &str,
    parse: impl Fn(&[u8]) -> Result<C, config::ConfigMistake>,
    keys: &[&str],
) {
    assert_eq!(parse(read(file).as_bytes()), Ok(C::default()));
    let sample = sample(file);
    if let Err(mistake) = parse(sample.as_bytes()) {
        panic!("the settings of {file}, uncommented{mistake}");
    }
    let found: BTreeSet<&str> = sample.lines().filter_map(|l| l.split(" = ").next()).collect();
    assert_eq!(found, keys.iter().copied().collect());
}

/// A section of a manual page has an entry for every key and no other.
fn explains_every_key(page: &str, heading: &str, keys: &[&str]) {
    let page = read(page);
    let lines = section(&page, heading);
    let found: BTreeSet<&str> =
        items(&lines).filter_map(|line| line.strip_prefix(".It Cm ")).collect();
    assert_eq!(found, keys.iter().copied().collect());
}

#[test]
fn the_sample_file_sets_nothing_and_names_every_key() {
    names_every_key("conf/netlaunch.conf", config::parse, &config::KEYS);
}

#[test]
fn the_manual_and_the_sample_file_name_every_key_of_wrap() {
    let mistake = config::parse(b"[wrap]\nnosuch = 1\n").unwrap_err().to_string();
    let keys = mistake.split_once("the keys are ").unwrap().1.to_owned();
    let manual = read("man/netlaunch.conf.5");
    let entry: String = manual.split(".It Cm wrap\n").nth(1).unwrap().into();
    let entry = entry.split(".El").next().unwrap().to_owned();
    let sample = read("conf/netlaunch.conf");
    let comment = sample.split("# The settings of calls as a stand-in").nth(1).unwrap();
    for key in keys.split(", ") {
        for text in [entry.as_str(), comment] {
            assert!(text.split([' ', ',', '\n', '.']).any(|word| word == key), "{key} in {text}");
        }
    }
}

#[test]
fn the_manual_of_the_file_has_every_key_and_no_other() {
    explains_every_key("man/netlaunch.conf.5", ".Sh DESCRIPTION", &config::KEYS);
}

#[test]
fn the_changelog_has_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let has = |line: &str| line.starts_with("## ") && line.contains(version);
    assert!(read("CHANGELOG.md").lines().any(has), "no section for {version}");
}
