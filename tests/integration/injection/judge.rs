//! Checks that netlaunch obeys the rules under a fault: no panic, no hang, no unclear message, no
//! false success, no remains.

use std::fmt::{self, Display};

use super::tracer::Traced;

/// The kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Panic,
    Hang,
    Unclear,
    Status,
    /// The status is 0, but the result is missing.
    FalseSuccess,
    /// Something is left after the next command.
    Leak,
}

#[derive(Debug)]
pub struct Finding {
    pub kind: Kind,
    pub what: String,
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)
    }
}

pub fn finding(kind: Kind, what: impl Into<String>) -> Finding {
    Finding { kind, what: what.into() }
}

/// Checks the end and the messages of netlaunch.
pub fn ended(traced: &Traced, said: &str, qemu_status: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let aborts = ["panicked at", "fatal runtime error", "memory allocation of"];
    if aborts.iter().any(|mark| said.contains(mark)) {
        found.push(finding(Kind::Panic, said));
    }
    let Some(code) = traced.code else {
        found.push(finding(Kind::Panic, format!("ended by {:?}: {said}", traced.signal)));
        return found;
    };
    let usual = matches!(code, 0 | 2 | 125..=127 | 129..=159) || (qemu_status && code == 1);
    if !usual {
        found.push(finding(Kind::Status, format!("status {code}: {said}")));
    }
    if needs_error(traced)
        && let Some(why) = unclear(said)
    {
        found.push(finding(Kind::Unclear, format!("{why}, status {code}: {said:?}")));
    }
    found
}

/// Returns whether netlaunch must have written an error line. Other statuses come from QEMU or a
/// signal.
pub fn needs_error(traced: &Traced) -> bool {
    matches!(traced.code, Some(2 | 125..=127)) && !traced.mute
}

/// Returns whether the messages of a failed command are clear.
pub fn is_clear(said: &str) -> bool {
    unclear(said).is_none()
}

/// Returns why the messages of a failed command are unclear, if they are.
fn unclear(said: &str) -> Option<&'static str> {
    let ours: Vec<&str> = said.lines().filter_map(|l| l.strip_prefix("netlaunch: ")).collect();
    let is_error = |line: &&str| line.starts_with("error: ");
    // Usage errors come before messages have levels, so they have no level.
    let is_plain = |line: &&str| !line.starts_with("warning: ") && !line.starts_with("debug: ");
    let mut errors: Vec<&str> = ours.iter().copied().filter(is_error).collect();
    if errors.is_empty() {
        errors = ours.into_iter().filter(is_plain).collect();
    }
    let [error] = errors[..] else {
        return Some(if errors.is_empty() { "no error line" } else { "several error lines" });
    };
    let error = error.strip_prefix("error: ").unwrap_or(error);
    let dumps = ["Os {", "kind:", "Some(", "Err(", "Custom {", "Errno("];
    // A system error without the name of the thing that failed.
    let reason = error.split(" (os error").next().unwrap_or_default();
    let is_bare = error.contains("(os error") && !reason.contains(": ");
    let is_name = error.split(':').next().is_some_and(|first| {
        first.len() > 2 && first.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
    });
    match () {
        () if error.trim().is_empty() => Some("an empty error line"),
        () if dumps.iter().any(|dump| error.contains(dump)) => Some("a dump"),
        () if is_bare || is_name => Some("a bare system error"),
        () => None,
    }
}
