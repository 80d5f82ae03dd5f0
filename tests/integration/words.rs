//! The words of sources, manual pages and README: none of those that the style rules forbid,
//! because they are metaphors or make a clause without a subject.

use crate::common::source::sources;

/// Words that a text does not use, wherever they stand, also as a part of a name.
const FORBIDDEN: [&str; 11] = [
    "seat",
    "seats",
    "unsaid",
    "untaken",
    "told",
    "settle",
    "settles",
    "settled",
    "settling",
    "unsettled",
    "whoever",
];

/// Where "nobody" is the name of a user, and not the subject of a clause: the text around it.
const USER_NOBODY: [&str; 10] = [
    "`nobody`",
    "\"nobody\"",
    "nl-nobody-has-this",
    "--user nobody",
    "the user nobody",
    "becomes nobody",
    "such as nobody",
    ".Ql nobody\n",
    ".Ql nobody .\n",
    "\\fBnobody\\fR",
];

/// The names of files that an earlier release made, too: they stay.
const FILE_NAMES: [&str; 2] = [".seat", ".unsettled"];

/// Splits a line into words of letters: names are split at underscores and before capitals.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_small = false;
    for letter in line.chars() {
        if !letter.is_alphabetic() || (letter.is_uppercase() && after_small) {
            words.push(String::new());
        }
        if letter.is_alphabetic() {
            words.last_mut().unwrap().extend(letter.to_lowercase());
        }
        after_small = letter.is_lowercase();
    }
    words
}

/// Returns the forbidden words of a line.
fn forbidden(line: &str) -> Vec<String> {
    let line = FILE_NAMES.iter().fold(line.to_owned(), |line, name| line.replace(name, ""));
    let mut found: Vec<String> = words(&line);
    found.retain(|word| FORBIDDEN.contains(&word.as_str()));
    let lower = format!("{}\n", line.to_lowercase());
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
    let begins = |at: usize| at == 0 || !is_letter(&lower.as_bytes()[at - 1]);
    for (at, _) in lower.match_indices("who").filter(|(at, _)| begins(*at)) {
        if lower[at + 3..].starts_with([' ', '\n']) {
            found.push("who".to_owned());
        }
    }
    let all = lower.matches("nobody").count();
    let names: usize =
        USER_NOBODY.iter().map(|name| lower.matches(&name.to_lowercase()).count()).sum();
    if all > names {
        found.push("nobody".to_owned());
    }
    found
}

#[test]
fn no_text_has_a_forbidden_word() {
    let mut found = Vec::new();
    for source in sources(&["src", "man", "README.md"]) {
        for (number, line) in source.text.lines().enumerate() {
            for word in forbidden(line) {
                found.push(format!("{}:{}: {word}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{} forbidden words:\n{}", found.len(), found.join("\n"));
}

#[test]
fn forbidden_words_are_found_in_texts_and_names() {
    for (line, expected) in [
        ("/// Nobody was told.", &["told", "nobody"][..]),
        ("let toldBefore = seat_of(unsaid);", &["told", "seat", "unsaid"]),
        ("the user who", &["who"]),
        ("struct Unsettled;", &["unsettled"]),
        ("fn who(who: u32) {}", &[]),
        ("stolen, `nobody`, --user nobody, a whole", &[]),
        ("`nobody` and nobody", &["nobody"]),
        ("learners/INDEX.seat", &[]),
        ("a seat", &["seat"]),
    ] {
        assert_eq!(forbidden(line), expected, "{line}");
    }
}
