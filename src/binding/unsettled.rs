//! The mark of a change that is under way: `.unsettled` beside the statuses. Who finds it when no
//! command is at work knows that one was cut short, and that rules may be older or newer than
//! definitions and addresses.

use std::fs;
use std::future::Future;
use std::path::PathBuf;

use super::{BindingError, Bindings};
use crate::firewall::LockedTools;
use crate::state::{self, StatusError};

impl Bindings {
    fn mark(&self) -> PathBuf {
        self.dir().join(".unsettled")
    }

    /// Whether a change was cut short.
    pub(super) fn is_unsettled(&self) -> bool {
        self.mark().exists()
    }

    /// Says that a change is to be completed.
    pub(super) fn unsettle(&self) -> Result<(), BindingError> {
        let mark = self.mark();
        Ok(fs::write(&mark, "").map_err(StatusError::io("write", &mark))?)
    }

    /// Makes a change of ports that have rules: the mark is there from before the change until it
    /// is done, or known to have come to nothing.
    pub(super) async fn settled<T>(
        &self,
        change: impl Future<Output = Result<T, BindingError>>,
    ) -> Result<T, BindingError> {
        let mark = self.mark();
        let was_settled = !mark.exists();
        if was_settled {
            self.unsettle()?;
        }
        let done = change.await;
        let keep = match &done {
            Ok(_) => false,
            Err(error) => !was_settled || error.is_half_done(),
        };
        if !keep {
            state::remove(&mark).map_err(StatusError::io("remove", &mark))?;
        }
        done
    }

    /// Makes all ports' rules anew where a change was cut short. What cannot be mended is told, and
    /// is in no other command's way; the mark stays.
    pub(super) async fn settle(&self, tools: &LockedTools) {
        if self.is_unsettled()
            && let Err(error) = self.rebuild(tools).await
        {
            tracing::warn!("a change that was cut short could not be completed: {error}");
        }
    }
}
