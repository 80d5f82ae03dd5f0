//! The marker of an unfinished change: the file `.unsettled` beside the status files.
//!
//! A change of ports that have rules writes the marker before its first step and removes it after
//! its last. If the file exists while the lock is free, a command was interrupted. The rules may
//! then be older or newer than the definitions and addresses, so the next command that takes the
//! lock rebuilds the rules of all ports. The marker stays until a rebuild succeeds.

use std::fs;
use std::future::Future;
use std::path::PathBuf;

use super::interface_names::Ports;
use super::lock::Lock;
use super::{BindingError, Bindings};
use crate::sys::state_file::{self, StateFileError};
use crate::types::error_text;

impl Bindings {
    fn marker(&self) -> PathBuf {
        self.dir().join(".unsettled")
    }

    /// Returns whether the marker exists. Under the lock, before the caller's own change, this
    /// means that an earlier command was interrupted.
    pub(super) fn has_marker(&self) -> bool {
        self.marker().exists()
    }

    /// Writes the marker.
    pub(super) fn write_marker(&self) -> Result<(), BindingError> {
        let marker = self.marker();
        Ok(fs::write(&marker, "").map_err(StateFileError::io("write", &marker))?)
    }

    /// Runs a change of ports that have rules. The marker exists from before the change until the
    /// change succeeds, or fails with the old rules in place.
    pub(super) async fn with_marker<T>(
        &self,
        change: impl Future<Output = Result<T, BindingError>>,
    ) -> Result<T, BindingError> {
        let was_interrupted = self.has_marker();
        if !was_interrupted {
            self.write_marker()?;
        }
        self.end_change(change.await, was_interrupted)
    }

    /// Removes the marker if the change succeeded, or if it changed nothing and no earlier command
    /// was interrupted.
    pub(super) fn end_change<T>(
        &self,
        result: Result<T, BindingError>,
        was_interrupted: bool,
    ) -> Result<T, BindingError> {
        let is_finished = match &result {
            Ok(_) => true,
            Err(error) => !was_interrupted && !error.is_half_done(),
        };
        if is_finished {
            let marker = self.marker();
            state_file::remove(&marker).map_err(StateFileError::io("remove", &marker))?;
        }
        result
    }

    /// Rebuilds the rules of all ports if a command was interrupted. A failure is logged, does not
    /// stop the calling command, and keeps the marker. Returns the status files as they are
    /// afterwards.
    pub(super) async fn complete_interrupted(
        &self,
        tools: &Lock,
        ports: Ports,
    ) -> Result<Ports, BindingError> {
        if !self.has_marker() {
            return Ok(ports);
        }
        if let Err(error) = self.rebuild(tools, ports).await {
            tracing::warn!("an interrupted change could not be completed: {}", error_text(&error));
        }
        self.ports()
    }
}
