//! Why a firewall tool did not do its work, and what is known of what it did.
//!
//! A tool that fails is not a tool that did nothing: nft can be killed, or lose the kernel's answer,
//! after the kernel has taken its transaction. So each error says by [`ToolError::effect`] whether
//! it proves that nothing was changed, and by [`ToolError::selects_another`] whether it is the
//! tool's own refusal. A caller that wants to go on after any other error first looks at what is
//! there ([`super::commit`], [`super::iptables_change`]).

use std::io;
use std::time::Duration;

use crate::facts::Problem;

/// The longest a tool may take; waiting for iptables' lock is part of it.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The tool is not there, or cannot be run.
    #[error("{}; {}", .0.why, .0.fix)]
    Absent(Problem),
    /// The kernel refuses to execute the tool.
    #[error("{program} cannot be started: {source}; check that it can be run by hand")]
    Start {
        /// The tool.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The host was short of what every program needs, also after several attempts.
    #[error(
        "{program} cannot be started now: {source}; see whether the host is out of memory, processes or open files, and try again"
    )]
    Shortage {
        /// The tool.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The tool was executed, and its output or its end could not be read.
    #[error("cannot tell how {program} ended: {source}; try again")]
    Unread {
        /// The tool.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A signal ended the tool.
    #[error("{program} was killed by signal {signal}; see the kernel log for the reason")]
    Killed {
        /// The tool.
        program: &'static str,
        /// The signal's number.
        signal: i32,
    },
    /// The tool did not end.
    #[error("{program} did not end within {} s and was killed; see what else changes the firewall", LIMIT.as_secs())]
    Slow {
        /// The tool.
        program: &'static str,
    },
    /// The tool reported success, and the rules that it was given are not there.
    #[error(
        "{program} reported success and did not carry out its input; check which program {program} is"
    )]
    Ignored {
        /// The tool.
        program: &'static str,
    },
    /// The tool ended by itself with an error.
    #[error("{program} failed: {said}{}; {}", at(.line), remedy(.said))]
    Refused {
        /// The tool.
        program: &'static str,
        /// Its own words.
        said: String,
        /// The line of our text that it names.
        line: Option<String>,
    },
}

/// The known effect of a failed tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It was not executed, and changed nothing.
    Nothing,
    /// It was executed, and may have changed anything that it was to change.
    Unknown,
}

impl ToolError {
    /// The known effect of the tool. That a tool reports an error proves nothing: the kernel's
    /// answer to its transaction can be lost.
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

    /// Whether the tool itself cannot do it, so that another backend may be tried once it is known
    /// that nothing was changed. A kill, a time limit, a shortage or a lock of others says nothing
    /// about the tool.
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
    /// Whether the tool was interrupted or lost from sight, so that it may succeed when it is run
    /// again; only where nothing was changed.
    pub(super) fn is_interruption(&self) -> bool {
        matches!(self, ToolError::Unread { .. } | ToolError::Killed { .. })
    }
}

/// Whether a tool's words name a cause that may be over in a moment: the C library's texts for
/// ENOBUFS, ENOMEM, EAGAIN, EMFILE, ENFILE and EINTR, and iptables' for its lock.
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

/// What to do about a refusal, by what the tools say where the cause is known.
pub(super) fn remedy(said: &str) -> &'static str {
    if said.contains("not permitted") || said.contains("ermission denied") {
        "run netlaunch as root"
    } else if said.contains("another app") || said.contains("lock") {
        "wait for what else changes the firewall, and try again"
    } else if said.contains("incompatible") {
        "use firewall_backend = \"nftables\", or remove the rules that nft put into iptables' tables"
    } else {
        "see whether the kernel has the netfilter modules for it, or set firewall_backend to the other backend (in network.conf, for filters in nwfilter.conf)"
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
            (ToolError::Absent(Problem::new("a", "b")), Effect::Nothing, true),
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
