//! The reasons why a firewall tool failed, and the possible effect of the failed tool.
//!
//! A tool that failed may have changed rules: a signal can kill nft after the kernel has committed
//! the transaction, or nft can lose the kernel's answer. So [`ToolError::effect`] says whether an
//! error proves that the tool changed no rules, and [`ToolError::selects_another`] says whether the
//! tool itself cannot do its work. A caller that wants to continue after an error with an unknown
//! effect first reads the present state ([`super::commit`], [`super::iptables_change`]).

use std::io;
use std::time::Duration;

use crate::types::error_text;
use crate::types::facts::Problem;

/// The time limit for a tool, including the wait for the lock of iptables.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// The reason why a tool failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// The tool is not installed or cannot be run.
    #[error("{}; {}", .0.why, .0.fix)]
    Absent(Box<Problem>),
    /// The kernel refuses to execute the tool.
    #[error("{program} cannot be started; check that it can be run by hand")]
    Start {
        /// The name of the tool.
        program: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The host lacked a resource that every program needs, also after several attempts.
    #[error(
        "{program} cannot be started now; see whether the host is out of memory, processes or open files, and try again"
    )]
    Shortage {
        /// The name of the tool.
        program: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The tool ran, but netlaunch could not read its output or its exit status.
    #[error("the result of {program} is not known; try again")]
    Unread {
        /// The name of the tool.
        program: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// A signal ended the tool.
    #[error("{program} was killed by signal {signal}; see the kernel log for the reason")]
    Killed {
        /// The name of the tool.
        program: &'static str,
        /// The signal's number.
        signal: i32,
    },
    /// The tool did not end within the time limit.
    #[error("{program} did not end within {} s and was killed; see which other program changes the firewall", LIMIT.as_secs())]
    Slow {
        /// The name of the tool.
        program: &'static str,
    },
    /// The tool reported success, but did not carry out its input.
    #[error(
        "{program} reported success and did not carry out its input; check which program {program} is"
    )]
    Ignored {
        /// The name of the tool.
        program: &'static str,
    },
    /// The tool ended with an error status.
    #[error("{program} failed: {said}{}; {}", at(.line), remedy(.said))]
    Refused {
        /// The name of the tool.
        program: &'static str,
        /// The error message of the tool.
        said: String,
        /// The line of netlaunch's input that the tool names.
        line: Option<String>,
    },
}

/// Returns the texts of several errors as one clause each.
pub(super) fn texts(errors: &[ToolError]) -> String {
    let texts: Vec<String> = errors.iter().map(|error| error_text(error)).collect();
    texts.join("; ")
}

/// The known effect of a failed tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The tool was not executed, so it changed no rules.
    Nothing,
    /// The tool was executed, and may have carried out any part of its input.
    Unknown,
}

impl ToolError {
    /// Returns the known effect of the tool. An error status of the tool is no proof that it
    /// changed no rules: the kernel's answer to its transaction can be lost.
    pub fn effect(&self) -> Effect {
        match self {
            ToolError::Absent(_) | ToolError::Start { .. } | ToolError::Shortage { .. } => {
                Effect::Nothing
            }
            ToolError::Unread { .. }
            | ToolError::Killed { .. }
            | ToolError::Slow { .. }
            | ToolError::Ignored { .. }
            | ToolError::Refused { .. } => Effect::Unknown,
        }
    }

    /// Returns whether the tool itself cannot do its work, so that the caller may try another
    /// backend once it has checked that no rules were changed. A kill, a time limit, a shortage or
    /// a lock of another program says nothing about the tool.
    pub fn selects_another(&self) -> bool {
        match self {
            ToolError::Absent(_) | ToolError::Start { .. } => true,
            ToolError::Refused { said, .. } => !is_passing(said),
            ToolError::Shortage { .. }
            | ToolError::Unread { .. }
            | ToolError::Killed { .. }
            | ToolError::Slow { .. }
            | ToolError::Ignored { .. } => false,
        }
    }
}

impl ToolError {
    /// Returns whether the tool was interrupted or its result was lost, so that a second run may
    /// succeed. The caller must check first that the tool changed no rules.
    pub(super) fn is_interruption(&self) -> bool {
        matches!(self, ToolError::Unread { .. } | ToolError::Killed { .. })
    }
}

/// Returns whether an error message names a cause that may pass quickly: the C library's texts for
/// ENOBUFS, ENOMEM, EAGAIN, EMFILE, ENFILE and EINTR, and the text of iptables for its lock.
fn is_passing(said: &str) -> bool {
    [
        "No buffer space available",
        "Cannot allocate memory",
        "Resource temporarily unavailable",
        "Too many open files",
        "Interrupted system call",
        "nother app",
    ]
    .iter()
    .any(|words| said.contains(words))
}

fn at(line: &Option<String>) -> String {
    line.as_ref().map_or_else(String::new, |line| format!(" (at \"{line}\")"))
}

/// Returns advice about a refusal, chosen by the tool's error message.
pub(super) fn remedy(said: &str) -> &'static str {
    if said.contains("not permitted") || said.contains("ermission denied") {
        "run as root"
    } else if said.contains("another app") || said.contains("lock") {
        "wait for the other program that changes the firewall, and try again"
    } else if said.contains("incompatible") {
        "set firewall_backend to nftables, or remove the rules that nft put into iptables' tables"
    } else {
        "see whether the kernel has the netfilter modules for it, or set firewall_backend to the other backend"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_absent_tool_and_its_own_lasting_refusal_select_another_backend() {
        let refused =
            |said: &str| ToolError::Refused { program: "nft", said: said.to_owned(), line: None };
        let source = || io::Error::from_raw_os_error(libc::EACCES);
        let program = "nft";
        for (error, effect, selects) in [
            (ToolError::Absent(Box::new(Problem::new("a", "b"))), Effect::Nothing, true),
            (ToolError::Start { program, source: source() }, Effect::Nothing, true),
            (ToolError::Shortage { program, source: source() }, Effect::Nothing, false),
            (ToolError::Unread { program, source: source() }, Effect::Unknown, false),
            (ToolError::Killed { program, signal: 9 }, Effect::Unknown, false),
            (ToolError::Slow { program }, Effect::Unknown, false),
            (ToolError::Ignored { program }, Effect::Unknown, false),
            (refused("Could not process rule: Protocol error"), Effect::Unknown, true),
            (refused("Could not process rule: No buffer space available"), Effect::Unknown, false),
            (refused("Another app is currently holding the xtables lock"), Effect::Unknown, false),
        ] {
            assert_eq!((error.effect(), error.selects_another()), (effect, selects), "{error}");
        }
    }
}
