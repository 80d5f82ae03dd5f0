//! The lines of dnsmasq's configuration file, and the form of their values.

use std::fmt::Write;
use std::path::Path;

use super::config::ConfigError;

/// The maximum length of a value, which leaves room for the rest of its line.
const LONGEST: usize = 900;

pub(super) fn path(path: &Path) -> Result<String, ConfigError> {
    let what = "the path";
    match path.to_str() {
        Some(text) => quoted(what, text),
        None => {
            let text = path.to_string_lossy().into_owned();
            Err(ConfigError::Characters { what, text })
        }
    }
}

/// Returns a value in the form that dnsmasq reads back: in quotes unless it is plain.
pub(super) fn quoted(what: &'static str, text: &str) -> Result<String, ConfigError> {
    if text.chars().any(char::is_control) {
        return Err(ConfigError::Characters { what, text: text.to_owned() });
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    if escaped.len() > LONGEST {
        return Err(ConfigError::Long { what, text: text.to_owned(), limit: LONGEST });
    }
    Ok(format!("\"{escaped}\""))
}

/// A file that is written line by line.
#[derive(Default)]
pub(super) struct Lines(String);

impl Lines {
    /// Adds a line.
    pub(super) fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// Adds an option with a value.
    pub(super) fn value(&mut self, name: &str, value: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{name}={value}");
    }

    /// Adds a line that a caller made.
    pub(super) fn option(&mut self, option: &str) -> Result<(), ConfigError> {
        if option.chars().any(char::is_control) {
            let (what, text) = ("the option", option.to_owned());
            return Err(ConfigError::Characters { what, text });
        }
        self.line(option);
        Ok(())
    }

    /// Returns the text of the file.
    pub(super) fn text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_values_stay_and_others_are_quoted() {
        let quoted = |text: &str| super::quoted("it", text).unwrap();
        for plain in ["/run/netlaunch/networks/default/dnsmasq.pid", "br-1", "fd00::1"] {
            assert_eq!(quoted(plain), plain);
        }
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("say \"hi\" \\ #"), r#""say \"hi\" \\ #""#);
        assert!(super::quoted("it", "a\nb").is_err());
        assert!(super::quoted("it", &"ä".repeat(900)).is_err());
    }

    #[test]
    fn an_option_is_one_line() {
        let mut lines = Lines::default();
        lines.option("log-queries").unwrap();
        assert!(lines.option("a\nuser=root").is_err());
        assert_eq!(lines.text(), "log-queries\n");
    }
}
