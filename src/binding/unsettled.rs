//! The mark of a change that is under way: `.unsettled` beside the statuses. Who finds it when no
//! command is at work knows that one was cut short, and that rules may be older or newer than
//! definitions and addresses.

use std::fs;
use std::future::Future;
use std::path::PathBuf;

use super::lock::Lock;
use super::ports::Statuses;
use super::{BindingError, Bindings};
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
        let was_settled = !self.is_unsettled();
        if was_settled {
            self.unsettle()?;
        }
        self.finished(change.await, was_settled)
    }

    /// The same for a change that only makes again what definitions and statuses say: where the mark
    /// cannot be written, as on a full disk, it is made without one.
    pub(super) async fn settled_if_possible<T>(
        &self,
        change: impl Future<Output = Result<T, BindingError>>,
    ) -> Result<T, BindingError> {
        let was_settled = !self.is_unsettled();
        if was_settled && let Err(error) = self.unsettle() {
            tracing::warn!("{error}");
        }
        self.finished(change.await, was_settled)
    }

    /// Removes the mark of a change that is done, or did nothing.
    fn finished<T>(
        &self,
        done: Result<T, BindingError>,
        was_settled: bool,
    ) -> Result<T, BindingError> {
        let keep = match &done {
            Ok(_) => false,
            Err(error) => !was_settled || error.is_half_done(),
        };
        if !keep {
            let mark = self.mark();
            state::remove(&mark).map_err(StatusError::io("remove", &mark))?;
        }
        done
    }

    /// Makes all ports' rules anew where a change was cut short. A failure is logged and stops no
    /// other command; the mark stays. Returns what the statuses say then.
    pub(super) async fn settle(
        &self,
        tools: &Lock,
        statuses: Statuses,
    ) -> Result<Statuses, BindingError> {
        if !self.is_unsettled() {
            return Ok(statuses);
        }
        if let Err(error) = self.rebuild(tools, statuses).await {
            tracing::warn!("a change that was cut short could not be completed: {error}");
        }
        self.statuses()
    }
}
