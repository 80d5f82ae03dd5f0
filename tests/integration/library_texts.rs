//! The texts of the library's errors: none repeats its source, and none names what only the command
//! line has.
//!
//! `types::error_text` joins an error and its sources, and `cli::hint` adds options, variables,
//! commands and files of settings. Here the source is searched for texts that do this themselves.

use crate::common::source::{Source, sources, without_literals};

/// The modules of the library: all but the command line.
const LIBRARY: [&str; 9] = [
    "src/capi",
    "src/firewall",
    "src/launcher",
    "src/network",
    "src/nwfilter",
    "src/sys",
    "src/types",
    "src/xml",
    "src/lib.rs",
];

/// Returns the library's files up to their tests.
fn library() -> Vec<Source> {
    let mut all = sources(&LIBRARY);
    // adopt/properties.rs has tests alone.
    all.retain(|source| !source.path.contains("test") && !source.path.ends_with("properties.rs"));
    all.iter_mut().for_each(|source| {
        source.text.truncate(source.text.find("#[cfg(test)]").unwrap_or(source.text.len()));
    });
    all
}

/// Returns each `#[error(...)]` of a text with the item behind it, up to the next attribute.
fn error_attributes(text: &str) -> Vec<(&str, String)> {
    let bare = without_literals(text);
    let starts: Vec<usize> = bare.match_indices("#[error(").map(|(at, _)| at).collect();
    let mut found = Vec::new();
    for (number, start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(text.len());
        let Some(close) = bare[*start..end].find(")]").map(|at| start + at) else { continue };
        found.push((&text[*start..close], bare[close + 2..end].to_owned()));
    }
    found
}

/// Returns the texts that show an error which the item also returns as its source.
fn repeated_sources(text: &str) -> Vec<&str> {
    let repeats = |(attribute, item): &(&str, String)| {
        let named = attribute.contains("{source") || attribute.contains("(source)");
        let numbered = attribute.contains("{0") || attribute.contains(".0)");
        // The first field of the variant, without white space.
        let item: String = item.split_whitespace().collect();
        let first = &item[..item.find([',', '}']).unwrap_or(item.len())];
        named || (numbered && (first.contains("#[from]") || first.contains("#[source]")))
    };
    error_attributes(text).into_iter().filter(repeats).map(|(attribute, _)| attribute).collect()
}

#[test]
fn no_error_repeats_its_source() {
    let mut found = Vec::new();
    for source in library() {
        for attribute in repeated_sources(&source.text) {
            found.push(format!("{}: {attribute}", source.path));
        }
    }
    assert!(found.is_empty(), "texts with their sources:\n{}", found.join("\n"));
}

#[test]
fn a_repeated_source_is_found() {
    for (text, expected) in [
        ("#[error(\"a: {source}; b\")]\nA { source: io::Error },", 1),
        ("#[error(\"a {}\", text(source))]\nA { source: io::Error },", 1),
        ("#[error(\"a: {0}\")]\nA(#[from] io::Error),", 1),
        ("#[error(\"a: {0}\")]\nA(String),\n#[error(transparent)]\nB(#[from] C),", 0),
        ("#[error(\"a; b\")]\nA(#[source] io::Error),", 0),
        ("// #[error(\"{source}\")]", 0),
    ] {
        assert_eq!(repeated_sources(text).len(), expected, "{text}");
    }
}

/// Commands of netlaunch that the library may name: each is a whole command in a list of commands
/// that fix a fault, beside those of `ip` and `nft`. Such a list is data and no text.
const FIX_COMMANDS: [(&str, &str); 4] = [
    ("src/firewall/conflicts/fix.rs", "words(\"netlaunch firewall reload\")"),
    ("src/network/manager/fault.rs", "words(\"netlaunch firewall reload\".into())"),
    ("src/nwfilter/port/check_ports.rs", "= \"netlaunch firewall reload\";"),
    ("src/nwfilter/port/check_ports.rs", "format!(\"netlaunch network start {network}\")"),
];

/// Where a text is about the words of another program that the command line of netlaunch has, too.
const WORDS_OF_OTHERS: [(&str, &str); 2] = [
    ("src/launcher/plan/choice.rs", "\"this passt has no --hostname\""),
    ("src/firewall/rule_counts.rs", "\" -- bcnt = \""),
];

/// The commands of netlaunch that have commands of their own, or that an advice could name.
const COMMANDS: [&str; 8] =
    ["network", "nwfilter", "firewall", "plan", "probe", "ps", "wrap", "complete"];

/// Returns the options and variables that the command line adds to errors.
fn command_line_words() -> Vec<String> {
    let hints = &sources(&["src/cli/hint.rs"])[0].text;
    let quoted = hints.split('"').filter(|text| text.starts_with("--") || text.starts_with("NETL"));
    let words = quoted.filter(|text| !text.contains(' '));
    words.chain(["NETLAUNCH_CONFIG_DIR"]).map(str::to_owned).collect()
}

/// Returns whether a line of code has a text with this word. A string that is nothing but the word
/// is no text: it is the name of a variable that is read, or an argument of another program.
fn says(line: &str, word: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || "-_=".contains(c));
    let begins = |before: &str| !before.ends_with(|c: char| c.is_alphanumeric() || c == '"');
    line.match_indices(word).any(|(at, _)| begins(&line[..at]) && ends(&line[at + word.len()..]))
}

/// Phrases that mean the command line or a file that the command line alone reads.
const PHRASES: [&str; 5] =
    [" -- ", "run netlaunch", "network.conf", "nwfilter.conf", "netlaunch.conf"];

/// Returns the lines of a library's file whose texts have words of the command line.
fn texts_for_the_command_line(source: &Source, words: &[String]) -> Vec<String> {
    let allowed = |line: &str| {
        let all = FIX_COMMANDS.iter().chain(&WORDS_OF_OTHERS);
        all.filter(|(path, _)| *path == source.path).any(|(_, text)| line.contains(text))
    };
    let names = |line: &str| {
        let command = |name: &str| line.contains(&format!("netlaunch {name} "));
        COMMANDS.iter().any(|name| command(name))
            || PHRASES.iter().any(|phrase| line.contains(phrase))
            || words.iter().any(|word| says(line, word))
    };
    let code = source.text.lines().enumerate().filter(|(_, line)| !line.trim().starts_with("//"));
    code.filter(|(_, line)| line.contains('"') || line.trim_end().ends_with('\\'))
        .filter(|(_, line)| names(line) && !allowed(line))
        .map(|(number, line)| format!("{}:{}: {}", source.path, number + 1, line.trim()))
        .collect()
}

#[test]
fn no_text_of_the_library_names_an_option_a_variable_a_command_or_a_file_of_settings() {
    let words = command_line_words();
    assert!(words.len() > 25, "{words:?}");
    let found: Vec<String> =
        library().iter().flat_map(|source| texts_for_the_command_line(source, &words)).collect();
    assert!(found.is_empty(), "words of the command line:\n{}", found.join("\n"));
}

#[test]
fn a_word_of_the_command_line_is_found() {
    let words = command_line_words();
    for (line, expected) in [
        ("\"name a server by --dns\"", 1),
        ("\"use --dns=1.1.1.1\"", 0),
        ("\"set NETLAUNCH_STATE_DIR\"", 1),
        ("self.own_dir(\"NETLAUNCH_STATE_DIR\")", 0),
        ("\"run netlaunch firewall reload \"", 1),
        ("\"it fails: netlaunch network start {name}\"", 1),
        ("\"add -- QEMU ARGS and run it as root\"", 1),
        ("\"run netlaunch as root\"", 1),
        ("\"set enable_trace = true in nwfilter.conf\"", 1),
        ("argv.push(\"--address\");", 0),
        ("argv.push(\"--\");", 0),
        ("/// Set by --dns, or \"netlaunch network start\".", 0),
    ] {
        let source = Source { path: "src/network/x.rs".into(), text: line.into() };
        assert_eq!(texts_for_the_command_line(&source, &words).len(), expected, "{line}");
    }
}

/// Types of nix, libc and caps, by the names that a signature has.
const FOREIGN: [&str; 9] =
    ["libc::", "nix::", "caps::", "Pid", "Uid", "Gid", "Errno", "sock_filter", "CapSet"];

/// Returns the line if it is public and has a type of nix, libc or caps.
fn foreign(line: &str) -> Option<&str> {
    let item = line.trim_start().strip_prefix("pub ")?;
    let words = item.split(|c: char| !c.is_alphanumeric() && !['_', ':'].contains(&c));
    let is_foreign = |word: &str| {
        FOREIGN.iter().any(|name| word == *name || (name.ends_with("::") && word.starts_with(name)))
    };
    words.into_iter().any(is_foreign).then_some(line)
}

#[test]
fn no_public_item_has_a_type_of_nix_libc_or_caps() {
    for source in sources(&["src/launcher", "src/network", "src/nwfilter", "src/types"]) {
        let code = without_literals(&source.text);
        let found: Vec<&str> = code.lines().filter_map(foreign).collect();
        assert!(found.is_empty(), "{}: {found:?}", source.path);
    }
}

#[test]
fn a_type_of_nix_in_a_public_item_is_found() {
    for (line, expected) in [
        ("    pub fn pid(&self) -> Pid {", true),
        ("    pub pid: Option<Pid>,", true),
        ("pub fn run(program: &[libc::sock_filter]) {", true),
        ("pub type Instruction = libc::sock_filter;", true),
        ("    pub(crate) fn pid(&self) -> Pid {", false),
        ("    pub fn pid(&self) -> i32 {", false),
        ("pub struct PidFile;", false),
    ] {
        assert_eq!(foreign(line).is_some(), expected, "{line}");
    }
}
