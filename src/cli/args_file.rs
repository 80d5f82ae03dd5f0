//! `--args-file`: words of the command line that are in a file, for a service manager.
//!
//! The file has words, separated by blanks and line ends. Quotes, backslashes and comments (`#` at
//! the beginning of a word) have the meaning that they have for sh(1), and nothing else has a
//! meaning: no variable, no pattern and no command is expanded, and no shell reads the file. The
//! words follow those of the command line.
//!
//! The words are added before the command line is parsed, so every option can be in the file.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::failure::usage_if;
use crate::sys::dir::Dir;
use crate::sys::input::{self, Pipes};
use crate::types::{error_text, split_words};

/// The option.
const OPTION: &str = "--args-file";
/// The largest file, in bytes.
const LONGEST: u64 = 1 << 20;

/// Why the words of a file cannot be used. The text is one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgsFileError {
    #[error("the words of {} cannot be read: {}", path.display(), error_text(source))]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: a quote has no end, or a backslash ends the file", .0.display())]
    Open(PathBuf),
    #[error("{} is not UTF-8; save the file in that encoding", .0.display())]
    Text(PathBuf),
    #[error("{}: {OPTION} cannot be in such a file", .0.display())]
    Nested(PathBuf),
}

impl ArgsFileError {
    /// Returns the exit status: 2 for a mistake in the file, or for a missing one.
    pub(super) fn status(&self) -> u8 {
        usage_if(match self {
            ArgsFileError::Read { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => true,
        })
    }
}

/// Adds the words of the file that the option names. The option itself stays, because the parser
/// knows it, and so do words without the option.
///
/// # Errors
/// [`ArgsFileError`].
pub(super) fn with_file(words: Vec<OsString>) -> Result<Vec<OsString>, ArgsFileError> {
    let Some(path) = named(&words) else { return Ok(words) };
    let failed = |source| ArgsFileError::Read { path: path.clone(), source };
    // A user with write access to the file could run any program.
    Dir::check_file(&path).map_err(failed)?;
    let text = input::read(&path, LONGEST, Pipes::Refused).map_err(failed)?;
    let added = split(&text, &path)?;
    match named(&added) {
        Some(_) => Err(ArgsFileError::Nested(path)),
        None => Ok(words.into_iter().chain(added).collect()),
    }
}

/// Returns the file that the option names. Words behind `--` are QEMU's.
fn named(words: &[OsString]) -> Option<PathBuf> {
    let mut words = words.iter().take_while(|word| *word != "--");
    let with_value = format!("{OPTION}=");
    while let Some(word) = words.next() {
        if word == OPTION {
            return words.next().map(PathBuf::from);
        }
        if let Some(path) = word.as_bytes().strip_prefix(with_value.as_bytes()) {
            return Some(PathBuf::from(OsStr::from_bytes(path)));
        }
    }
    None
}

pub(crate) fn split(text: &[u8], path: &Path) -> Result<Vec<OsString>, ArgsFileError> {
    let text = std::str::from_utf8(text).map_err(|_| ArgsFileError::Text(path.to_owned()))?;
    let words = split_words(text).ok_or_else(|| ArgsFileError::Open(path.to_owned()))?;
    Ok(words.into_iter().map(OsString::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let found = split(text.as_bytes(), Path::new("f")).unwrap();
        found.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn words_are_split_as_a_shell_splits_them_and_nothing_is_expanded() {
        let text = "# a comment 'of a guest\n--net passt # another\n--\nqemu -m \\\n 2G \
                    -drive \"file=/a b.img,if=virtio\" $HOME `id` $(id) *\n  -name a\\ b '' x#y";
        let expected = [
            "--net",
            "passt",
            "--",
            "qemu",
            "-m",
            "2G",
            "-drive",
            "file=/a b.img,if=virtio",
            "$HOME",
            "`id`",
            "$(id)",
            "*",
            "-name",
            "a b",
            "",
            "x#y",
        ];
        assert_eq!(words(text), expected);
    }

    #[test]
    fn a_file_with_an_open_quote_or_other_bytes_is_refused() {
        for (text, expected) in [
            (&b"a\n'b"[..], "f: a quote has no end, or a backslash ends the file"),
            (b"a\n\xff\n", "f is not UTF-8; save the file in that encoding"),
        ] {
            let error = split(text, Path::new("f")).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.status()), (expected, 2));
        }
    }

    #[test]
    fn the_words_of_the_file_follow_those_of_the_command_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.args");
        std::fs::write(&path, "-v\n-- qemu --args-file x\n").unwrap();
        let path = path.to_str().unwrap();
        let to_words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        for option in [&[OPTION, path][..], &[&format!("{OPTION}={path}")]] {
            let line = [&["netlaunch"], option, &["--name", "web"]].concat();
            let all = [&line[..], &["-v", "--", "qemu", OPTION, "x"]].concat();
            assert_eq!(with_file(to_words(&line)).unwrap(), to_words(&all));
        }
        let plain = to_words(&["netlaunch", "--", "qemu", OPTION, "/nonexistent"]);
        assert_eq!(with_file(plain.clone()).unwrap(), plain);
        let error = with_file(to_words(&["netlaunch", OPTION, "/nonexistent"])).unwrap_err();
        assert_eq!(error.status(), 2, "{error}");
        std::fs::write(path, format!("{OPTION}={path}")).unwrap();
        let error = with_file(to_words(&["netlaunch", OPTION, path])).unwrap_err();
        assert!(matches!(error, ArgsFileError::Nested(_)), "{error}");
    }
}
