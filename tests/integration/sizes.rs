//! The sizes of sources: a reader keeps a file of 400 lines and a function of 80 lines in mind, and
//! comments are as wide as the code.

use crate::common::source::{sources, without_literals};

const LINES_OF_A_FILE: usize = 400;
const LINES_OF_A_FUNCTION: usize = 80;
/// rustfmt holds the code to this width, and does not wrap comments.
const WIDTH_OF_A_COMMENT: usize = 100;

/// Returns the name, the first line and the number of lines of each function with a body, from the
/// line of its name to its closing brace.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let code = without_literals(code);
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    let mut functions = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let is_keyword = code[..at].chars().next_back().is_none_or(|c| !is_name(c));
        let name: String = code[at + 3..].chars().take_while(|c| is_name(*c)).collect();
        if !is_keyword || name.is_empty() {
            continue;
        }
        if let Some(end) = body_end(&code, at) {
            functions.push((name, line_of(at), line_of(end) - line_of(at) + 1));
        }
    }
    functions
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Returns where the body of the function at `at` ends, or `None` for a declaration.
fn body_end(code: &str, at: usize) -> Option<usize> {
    let (mut blocks, mut brackets) = (0, 0);
    for (offset, letter) in code[at..].char_indices() {
        match letter {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            // The semicolon of an array's type stands in brackets.
            ';' if blocks == 0 && brackets == 0 => return None,
            '{' => blocks += 1,
            '}' => {
                blocks -= 1;
                if blocks == 0 {
                    return Some(at + offset);
                }
            }
            _ => (),
        }
    }
    None
}

fn rust_sources() -> impl Iterator<Item = crate::common::source::Source> {
    let places = ["src", "tests/integration", "benches", "examples", "fuzz/fuzz_targets"];
    sources(&places).into_iter().filter(|source| source.path.ends_with(".rs"))
}

#[test]
fn no_file_has_more_than_400_lines() {
    let long: Vec<String> = rust_sources()
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, _)| *lines > LINES_OF_A_FILE)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "{} long files:\n{}", long.len(), long.join("\n"));
}

#[test]
fn no_function_has_more_than_80_lines() {
    let mut long = Vec::new();
    for source in rust_sources() {
        for (name, line, lines) in functions(&source.text) {
            if lines > LINES_OF_A_FUNCTION {
                long.push(format!("{}:{line}: fn {name} has {lines} lines", source.path));
            }
        }
    }
    assert!(long.is_empty(), "{} long functions:\n{}", long.len(), long.join("\n"));
}

#[test]
fn functions_are_measured_without_braces_in_texts() {
    let code = "trait T { fn declared(a: [u8; 2]); }\n\
                // fn comment() {\n\
                pub fn first<'a>(c: char) -> char {\n    \
                    let _ = (\"}\\\"\", r#\"}\"}\"#, '}', '\\'', c);\n    \
                    c\n\
                }\n\
                fn second() { fn inner() {} }\n";
    let found = functions(code);
    let found: Vec<_> =
        found.iter().map(|(name, at, lines)| (name.as_str(), *at, *lines)).collect();
    assert_eq!(found, [("first", 3, 4), ("second", 7, 1), ("inner", 7, 1)]);
}

#[test]
fn no_comment_is_wider_than_100_characters() {
    for source in rust_sources() {
        for (number, line) in (1..).zip(source.text.lines()) {
            let text = line.trim_start();
            // A row of a table stays on one line.
            let is_comment = text.starts_with("//") && !text.starts_with("//! |");
            let width = line.chars().count();
            assert!(
                !is_comment || width <= WIDTH_OF_A_COMMENT,
                "{}:{number}: {width} characters",
                source.path
            );
        }
    }
}
