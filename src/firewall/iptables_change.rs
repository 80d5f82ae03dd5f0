//! Changes the tables of iptables, ip6tables and ebtables, and finds out the effect of a failed
//! tool.
//!
//! `*-restore` changes all of one table or none of it, and one table after another. When it fails
//! for any reason, netlaunch reads the tables again, since a tool that was killed after its work
//! has done that work.

use super::iptables_state::{Dialect, TableState};
use super::tool_error::{Effect, ToolError};
use super::tools::{Tool, Tools};
use crate::firewall::rules::Version;
use crate::types::error_text;

/// The tool that reads tables, the tool that changes them, and the format of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TableTools {
    save: Tool,
    pub(super) restore: Tool,
    pub(super) dialect: Dialect,
}

impl TableTools {
    /// Returns the tools iptables or ip6tables.
    pub(super) fn ip(version: Version) -> Self {
        let (save, restore) = (Tool::Save(version), Tool::Restore(version));
        TableTools { save, restore, dialect: Dialect::Iptables }
    }

    /// The tools of ebtables.
    pub(super) const ETHERNET: TableTools = TableTools {
        save: Tool::SaveEthernet,
        restore: Tool::RestoreEthernet,
        dialect: Dialect::Ebtables,
    };

    /// Reads netlaunch's part of the present tables.
    pub(super) async fn present(self, tools: &Tools) -> Result<TableState, ToolError> {
        Ok(TableState::parse(&tools.run(self.save, &[], "").await?))
    }

    /// Changes the tables from `before`, which must be the present state, to `wanted`.
    ///
    /// # Errors
    /// Returns the tool's error if the tables do not match `wanted` afterwards. Each table may then
    /// be changed or not.
    pub(super) async fn change(
        self,
        tools: &Tools,
        before: &TableState,
        wanted: &TableState,
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
                    tracing::debug!("the rules are there all the same: {}", error_text(&error));
                    return Ok(());
                }
                // The tables are in the state that the text expects, so it can run a second time.
                Ok(now) if now == *before && error.is_interruption() && !interrupted => {
                    interrupted = true;
                }
                _ => return Err(error),
            }
        }
    }

    /// Restores an earlier state, starting from any present state.
    ///
    /// # Errors
    /// Returns an error if the tables cannot be read or cannot be changed.
    pub(super) async fn bring_back(
        self,
        tools: &Tools,
        before: &TableState,
    ) -> Result<(), ToolError> {
        let now = self.present(tools).await?;
        self.change(tools, &now, before).await
    }
}
