//! Starts the learner of a port: a new one, one that another process hands over, or one in place of
//! a killed one.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::Instant;

use super::{Due, Learning, capture_error, guest_frames};
use crate::nwfilter::Binding;
use crate::nwfilter::learn::{Capture, FrameSet6, Frames, Learner, Method, SavedLease, Table6};
use crate::nwfilter::port::compile_port::method;
use crate::nwfilter::port::learner_lock::LearnerLock;
use crate::nwfilter::port::saved_lease::learners;
use crate::nwfilter::port::{BindingError, Bindings, PortStatus};
use crate::types::InterfaceName;

impl Bindings {
    /// Takes the learner lock of a port and opens its capture. The guest's tests of IPv6 addresses
    /// count after [`Learning::count_tests`].
    pub(in crate::nwfilter::port) async fn listen(
        &self,
        status: &PortStatus,
        binding: &Binding,
        method: Method,
        saved: Option<SavedLease>,
    ) -> Result<Learning, BindingError> {
        let port = &status.port;
        let lock = self.locks.take(status.index).map_err(|error| self.lock_error(port, error))?;
        let lock = lock.ok_or_else(|| BindingError::LearnerRunning(port.clone()))?;
        let (learner, table) = learners(status, binding, method, saved).await?;
        let v4 = status.learns4().then(|| learner.frames());
        let v6 = table.is_some().then_some(FrameSet6::WithoutTests);
        let frames = Frames { v4, v6 };
        let capture = Capture::open(status.index, binding.mac, guest_frames(status), frames)
            .map_err(capture_error(port))?;
        Ok(self.learning(status, (learner, table), capture, lock))
    }

    /// Continues the learning that another process handed over; returns `None` if the port or its
    /// filter is gone, or if a process has asked the learner to leave.
    ///
    /// # Errors
    /// [`BindingError`] if the status, the lock or the capture cannot be used.
    pub async fn adopt(
        &self,
        port: &InterfaceName,
        [capture, lock]: [OwnedFd; 2],
    ) -> Result<Option<Learning>, BindingError> {
        let Some((status, binding, method)) = self.learning_port(port)? else { return Ok(None) };
        let lock = self.locks.adopt(status.index, lock);
        let Some(lock) = lock.map_err(|error| self.lock_error(port, error))? else {
            return Ok(None);
        };
        let saved = self.saved_lease(&status, &binding)?;
        let learners = learners(&status, &binding, method, saved).await?;
        let capture = Capture::adopt(capture, status.index, binding.mac, guest_frames(&status))
            .map_err(capture_error(port))?;
        Ok(Some(self.learning(&status, learners, capture, lock)))
    }

    /// Starts a new learner after the earlier one was killed; returns `None` if a process learns
    /// already, or if the port or its filter is gone.
    ///
    /// # Errors
    /// [`BindingError`] if the status, the lock or the capture cannot be used.
    pub async fn resume(&self, port: &InterfaceName) -> Result<Option<Learning>, BindingError> {
        let Some((status, binding, method)) = self.learning_port(port)? else { return Ok(None) };
        let saved = self.saved_lease(&status, &binding)?;
        match self.listen(&status, &binding, method, saved).await {
            Ok(learning) => {
                // The rules of the killed learner are in force.
                learning.count_tests()?;
                // The port may have another binding since before the learner lock was taken.
                let now = self.learning_port(port)?;
                Ok(now.is_some_and(|(_, now, _)| now == binding).then_some(learning))
            }
            Err(BindingError::LearnerRunning(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the status, the binding and the method of a port that learns.
    fn learning_port(
        &self,
        port: &InterfaceName,
    ) -> Result<Option<(PortStatus, Binding, Method)>, BindingError> {
        let Some(status) = self.live(port)?.filter(|status| status.learns) else {
            return Ok(None);
        };
        let binding = self.binding(&status)?;
        // The current filter may not need the address, but a redefinition may need it again.
        let method = method(&binding.variables())?;
        Ok(method.map(|method| (status, binding, method)))
    }

    fn learning(
        &self,
        status: &PortStatus,
        (learner, table): (Learner, Option<Table6>),
        capture: Capture,
        lock: LearnerLock,
    ) -> Learning {
        let mut learning = Learning {
            // A learner waits for the lock as long as it takes, so it has no limit.
            bindings: self.clone().lock_limit(Duration::MAX),
            port: status.port.clone(),
            index: status.index,
            capture,
            lock,
            due: Due::No,
            learner,
            table,
            learns4: status.learns4(),
            off: None,
            not_before: Instant::now(),
            frames: 0,
            had_flood: false,
            forwarded: false,
            refusals: 0,
        };
        // The rules may not have the addresses of the saved lease.
        if learning.address() != status.address || learning.addresses6() != status.addresses6 {
            learning.due = Due::Yes;
        }
        learning
    }
}
