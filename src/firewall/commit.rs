//! Handing a transaction to nft, and finding out whether the kernel committed it.
//!
//! nft's exit status alone decides nothing. nft can be killed, or lose the kernel's answer
//! (ENOBUFS), after the commit; and a program called nft can report success without reading its
//! input. So the kernel is asked after every transaction ([`Proof`]), which costs some ten
//! microseconds, and its answer is the result.

use std::io;

use super::nft_kernel::Proof;
use super::tool_error::{Effect, ToolError};
use super::tools::{Tool, Tools};

/// Why a transaction was not committed, or may not have been.
#[derive(Debug)]
pub(super) enum Uncommitted {
    /// The kernel has nothing of it.
    Nothing(ToolError),
    /// nft failed and the kernel did not answer.
    Unknown {
        /// How nft failed.
        error: ToolError,
        /// Why the kernel did not answer.
        asked: io::Error,
    },
}

impl Uncommitted {
    /// How nft failed.
    pub(super) fn into_error(self) -> ToolError {
        match self {
            Uncommitted::Nothing(error) | Uncommitted::Unknown { error, .. } => error,
        }
    }
}

/// Has nft carry out a text as one transaction; an empty one is none. nft is run once more when it
/// was interrupted before its commit.
///
/// # Errors
/// [`Uncommitted`].
pub(super) async fn commit(tools: &Tools, text: &str) -> Result<(), Uncommitted> {
    if text.is_empty() {
        return Ok(());
    }
    match attempt(tools, text).await {
        Err(Uncommitted::Nothing(error)) if error.is_interruption() => {
            tracing::debug!("nft is run once more: {error}");
            attempt(tools, text).await
        }
        done => done,
    }
}

async fn attempt(tools: &Tools, text: &str) -> Result<(), Uncommitted> {
    let marked = Proof::of(text);
    let committed = || -> io::Result<bool> {
        let unproven = || io::Error::other("the transaction has no mark");
        let (proof, _) = marked.as_ref().ok_or_else(unproven)?;
        let committed = proof.is_committed()?;
        if committed {
            proof.clear();
        }
        Ok(committed)
    };
    let text = marked.as_ref().map_or(text, |(_, marked)| marked);
    let error = match tools.run(Tool::Nft, &[], text).await {
        // Without the kernel's answer nft's is the best there is.
        Ok(_) if committed().unwrap_or(true) => return Ok(()),
        Ok(_) => return Err(Uncommitted::Nothing(ToolError::Ignored { program: "nft" })),
        Err(error) if error.effect() == Effect::Nothing => {
            return Err(Uncommitted::Nothing(error));
        }
        Err(error) => error,
    };
    match committed() {
        Ok(true) => {
            tracing::debug!("the rules are there all the same: {error}");
            Ok(())
        }
        Ok(false) => Err(Uncommitted::Nothing(error)),
        Err(asked) => Err(Uncommitted::Unknown { error, asked }),
    }
}
