//! Gives a transaction to nft, and finds out whether the kernel committed it.
//!
//! The exit status of nft is not proof. A signal can kill nft after the commit, nft can lose the
//! kernel's answer (ENOBUFS), and another program with the name nft can report success without
//! reading its input. So netlaunch asks the kernel after every transaction ([`Proof`]), which costs
//! some ten microseconds, and the kernel's answer is the result. If the kernel does not answer,
//! nft's success counts.

use std::io;

use super::nft_proof::Proof;
use super::tool_error::{Effect, ToolError};
use super::tools::{Tool, Tools};
use crate::types::error_text;

/// The reason why a transaction was not committed, or may not have been committed.
#[derive(Debug)]
pub(super) enum Uncommitted {
    /// The kernel committed no part of the transaction.
    Nothing(ToolError),
    /// nft failed and the kernel did not answer, so the transaction may have been committed.
    Unknown {
        /// The error of nft.
        error: ToolError,
        /// The reason why the kernel did not answer.
        asked: io::Error,
    },
}

impl Uncommitted {
    /// Returns the error of nft.
    pub(super) fn into_error(self) -> ToolError {
        match self {
            Uncommitted::Nothing(error) | Uncommitted::Unknown { error, .. } => error,
        }
    }
}

/// Gives a text to nft as one transaction; an empty text needs no transaction. Runs nft a second
/// time if the first run was interrupted before its commit.
///
/// # Errors
/// Returns [`Uncommitted`] if the kernel did not commit the transaction or did not answer.
pub(super) async fn commit(tools: &Tools, text: &str) -> Result<(), Uncommitted> {
    commit_with(tools, text, "").await
}

/// Does the same as [`commit`], with a command at the end of nft's input that changes nothing. If
/// nft refuses the input, it runs again without that command.
pub(super) async fn commit_with(tools: &Tools, text: &str, last: &str) -> Result<(), Uncommitted> {
    if text.is_empty() {
        return Ok(());
    }
    if tools.applied.as_ref().is_some_and(|applied| applied.has(text)) {
        tracing::debug!("nft is not run: it applied the same text in the last reload");
        return Ok(());
    }
    match attempt(tools, text, last).await {
        Err(Uncommitted::Nothing(error)) if error.is_interruption() => {
            tracing::debug!("nft is run once more: {}", error_text(&error));
            attempt(tools, text, last).await
        }
        Err(Uncommitted::Nothing(error @ ToolError::Refused { .. })) if !last.is_empty() => {
            tracing::debug!("nft is run without '{last}': {}", error_text(&error));
            attempt(tools, text, "").await
        }
        done => done,
    }
}

async fn attempt(tools: &Tools, text: &str, last: &str) -> Result<(), Uncommitted> {
    let proof = Proof::of(text);
    let before = tools.applied.as_ref().and_then(|applied| applied.before());
    let committed = || -> io::Result<bool> {
        let unproven = || {
            io::Error::other("the text names no table of netlaunch, so the kernel cannot be asked")
        };
        let (proof, _) = proof.as_ref().ok_or_else(unproven)?;
        let committed = proof.is_committed()?;
        if let Some(applied) = tools.applied.as_ref().filter(|_| committed) {
            applied.add(text, before.clone());
        }
        Ok(committed)
    };
    let mark = proof.as_ref().map_or("", |(_, lines)| lines);
    let input = [text, mark, last].concat();
    let error = match tools.run(Tool::Nft, &[], &input).await {
        // If the kernel does not answer, the exit status of nft decides.
        Ok(_) if committed().unwrap_or(true) => return Ok(()),
        Ok(_) => return Err(Uncommitted::Nothing(ToolError::Ignored { program: "nft" })),
        Err(error) if error.effect() == Effect::Nothing => {
            return Err(Uncommitted::Nothing(error));
        }
        Err(error) => error,
    };
    match committed() {
        Ok(true) => {
            tracing::debug!("the rules are there all the same: {}", error_text(&error));
            Ok(())
        }
        Ok(false) => Err(Uncommitted::Nothing(error)),
        Err(asked) => Err(Uncommitted::Unknown { error, asked }),
    }
}
