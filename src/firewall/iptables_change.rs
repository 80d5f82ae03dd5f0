//! Changing the tables of iptables, ip6tables and ebtables, and finding out what a failed tool did.
//!
//! `*-restore` takes a table whole or not at all, and tables one after the other. When it fails,
//! for whatever reason, the tables are read again: a tool that was killed after its work has done
//! it.

use super::iptables_state::{Dialect, Present};
use super::tool_error::{Effect, ToolError};
use super::tools::{Tool, Tools};
use crate::rules::Version;

/// The tool that reads tables, the one that changes them, and how that one is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    save: Tool,
    pub(super) restore: Tool,
    pub(super) dialect: Dialect,
}

impl Pair {
    /// iptables or ip6tables.
    pub(super) fn ip(version: Version) -> Self {
        let (save, restore) = (Tool::Save(version), Tool::Restore(version));
        Pair { save, restore, dialect: Dialect::Iptables }
    }

    /// ebtables.
    pub(super) const ETHERNET: Pair = Pair {
        save: Tool::SaveEthernet,
        restore: Tool::RestoreEthernet,
        dialect: Dialect::Ebtables,
    };

    /// Reads what is there of ours.
    pub(super) async fn present(self, tools: &Tools) -> Result<Present, ToolError> {
        Ok(Present::parse(&tools.run(self.save, &[], "").await?))
    }

    /// Makes `wanted` of `before`, which is there.
    ///
    /// # Errors
    /// The tool failed and the tables are not as wanted. They may be those of before, or some of
    /// them changed.
    pub(super) async fn change(
        self,
        tools: &Tools,
        before: &Present,
        wanted: &Present,
    ) -> Result<(), ToolError> {
        let text = before.change_in(wanted, self.dialect);
        if text.is_empty() {
            return Ok(());
        }
        let mut interrupted = false;
        loop {
            let Err(error) = tools.run(self.restore, &[], &text).await else { return Ok(()) };
            if error.effect() == Effect::Nothing {
                return Err(error);
            }
            match self.present(tools).await {
                Ok(now) if now.is_result(before, wanted, self.dialect) => {
                    tracing::debug!("the rules are there all the same: {error}");
                    return Ok(());
                }
                // The text fits what is there, so it can be given once more.
                Ok(now) if now == *before && error.is_interruption() && !interrupted => {
                    interrupted = true;
                }
                _ => return Err(error),
            }
        }
    }

    /// Brings a state of before back, whatever is there now.
    ///
    /// # Errors
    /// The tables cannot be read, or cannot be changed.
    pub(super) async fn bring_back(self, tools: &Tools, before: &Present) -> Result<(), ToolError> {
        let now = self.present(tools).await?;
        self.change(tools, &now, before).await
    }
}
