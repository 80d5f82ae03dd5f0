//! Divides the words of a command line into options, values and disk images.
//!
//! The parser goes through the words once. A word with a leading dash is an option, and
//! [`takes_value`] decides whether the next word is its value. A word without a leading dash is a
//! disk image.
//!
//! A value may begin with a dash, so a search for `-netdev` among the words gives wrong results:
//! in `-append -netdev` it is a part of the kernel's command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::{ConfigFile, Settings, takes_value};

/// A QEMU command line, without the program.
///
/// Each word belongs to exactly one [`Argument`], and the arguments have the order of the words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    words: Vec<OsString>,
    arguments: Vec<Argument>,
}

/// An option with its value, or a word that is a disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// The position of its first word.
    pub at: usize,
    /// The option's name without dashes, `-M` being `machine`; `None` for a disk image.
    pub name: Option<String>,
    /// The position of the option's value.
    pub value: Option<usize>,
}

impl CommandLine {
    /// Reads a command line.
    ///
    /// `-name` and `--name` are the same option. The value of a known option is the next word, also
    /// if that word begins with a dash. After an unknown option the next word counts as its value
    /// unless it begins with a dash. A wrong guess there has no effect, because netlaunch reads
    /// neither disk images nor the values of unknown options.
    pub fn parse(words: &[OsString]) -> Self {
        let mut arguments = Vec::new();
        let mut at = 0;
        while let Some(word) = words.get(at) {
            let Some(name) = option_name(word) else {
                arguments.push(Argument { at, name: None, value: None });
                at += 1;
                continue;
            };
            let next = words.get(at + 1);
            let dashed = |word: &OsString| word.as_bytes().starts_with(b"-");
            let valued = match takes_value(&name) {
                Some(takes) => takes && next.is_some(),
                None => next.is_some_and(|word| !dashed(word)),
            };
            let name = if name == "M" { "machine".to_owned() } else { name };
            arguments.push(Argument { at, name: Some(name), value: valued.then_some(at + 1) });
            at += 1 + usize::from(valued);
        }
        CommandLine { words: words.to_vec(), arguments }
    }

    /// Returns all words of the caller, unchanged.
    pub fn words(&self) -> &[OsString] {
        &self.words
    }

    /// Returns the options and disk images, in order.
    pub fn arguments(&self) -> &[Argument] {
        &self.arguments
    }

    /// Returns the last word if it is an option without its value, which QEMU then refuses. Any
    /// word that follows would become the value.
    pub fn without_value(&self) -> Option<&OsStr> {
        let last = self.arguments.last().filter(|argument| argument.value.is_none())?;
        let takes = last.name.as_deref().and_then(takes_value) == Some(true);
        self.words.get(last.at).filter(|_| takes).map(OsString::as_os_str)
    }

    /// Returns the first word that is the option `name`, in the caller's spelling.
    pub fn spelling(&self, name: &str) -> Option<&OsStr> {
        let argument = self.arguments.iter().find(|a| a.name.as_deref() == Some(name))?;
        self.words.get(argument.at).map(OsString::as_os_str)
    }

    /// Returns the values of the option `name`, in order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &OsStr> {
        let named = move |argument: &&Argument| argument.name.as_deref() == Some(name);
        self.arguments.iter().filter(named).filter_map(|argument| self.value(argument))
    }

    /// Returns the value of an argument; `None` if it has none.
    pub fn value(&self, argument: &Argument) -> Option<&OsStr> {
        self.words.get(argument.value?).map(OsString::as_os_str)
    }

    /// Returns the words of an argument: its option and its value, or its disk image.
    pub fn words_of(&self, argument: &Argument) -> &[OsString] {
        let end = argument.value.unwrap_or(argument.at) + 1;
        self.words.get(argument.at..end).unwrap_or_default()
    }

    /// Returns the settings of the options and of the configuration files.
    ///
    /// `files` are the files of `-readconfig` that the caller was able to read.
    /// [`Settings::unreadable_files`] names the others.
    pub fn settings(&self, files: &[ConfigFile]) -> Settings {
        Settings::of(self, files)
    }
}

/// Returns the option's name if the word is an option; `None` for a disk image.
///
/// A name that is not UTF-8 becomes some unknown name; QEMU does not know it either.
fn option_name(word: &OsStr) -> Option<String> {
    let name = word.as_bytes().strip_prefix(b"-")?;
    let name = name.strip_prefix(b"-").unwrap_or(name);
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt;

    fn parse(line: &str) -> CommandLine {
        CommandLine::parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_word_after_an_option_with_a_value_is_never_an_option() {
        let line =
            parse("-append -netdev -S --netdev user,id=a disk.img -M q35 -nosuch x -new -m 1");
        let names: Vec<_> =
            line.arguments().iter().map(|a| a.name.clone().unwrap_or_default()).collect();
        assert_eq!(names, ["append", "S", "netdev", "", "machine", "nosuch", "new", "m"]);
        assert_eq!(line.values("netdev").collect::<Vec<_>>(), ["user,id=a"]);
        assert_eq!(line.values("append").collect::<Vec<_>>(), ["-netdev"]);
        assert_eq!(line.values("m").collect::<Vec<_>>(), ["1"]);
        assert_eq!(parse("-append -daemonize").spelling("daemonize"), None);
        assert_eq!(parse("--daemonize").spelling("daemonize"), Some(OsStr::new("--daemonize")));
    }

    #[test]
    fn an_option_at_the_end_of_the_line_may_lack_its_value() {
        let line = parse("-m 1 -netdev");
        assert_eq!((line.values("netdev").count(), line.arguments().len()), (0, 2));
        assert_eq!(line.without_value(), Some(OsStr::new("-netdev")));
        for line in ["-m 1", "-S", "disk.img", "-append -name", "-nosuch"] {
            assert_eq!(parse(line).without_value(), None, "{line}");
        }
    }

    fn word() -> impl Strategy<Value = OsString> {
        let any_bytes = prop::collection::vec(any::<u8>(), 0..6).prop_map(OsString::from_vec);
        let usual = prop::sample::select(vec![
            "-netdev",
            "--nic",
            "-S",
            "-m",
            "-M",
            "-set",
            "-readconfig",
            "user,id=a",
            "{\"a\":1}",
            "-",
            "--",
            "-nosuch",
            "netdev.a.type=user",
            "f",
            "size=1.5G,,",
            "-object",
        ]);
        prop_oneof![any_bytes, usual.prop_map(OsString::from)]
    }

    proptest! {
        #[test]
        fn each_word_belongs_to_one_argument_and_no_input_panics(
            words in prop::collection::vec(word(), 0..12),
            text in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let line = CommandLine::parse(&words);
            prop_assert_eq!(line.words(), &words[..]);
            let mut at = 0;
            for argument in line.arguments() {
                prop_assert_eq!(argument.at, at);
                at += 1 + usize::from(argument.value.is_some());
            }
            prop_assert_eq!(at, words.len());
            let file = ConfigFile { path: "f".into(), text };
            let settings = line.settings(&[file]);
            super::super::user_networks(&settings);
        }
    }
}
