//! Decides which of the guest's tests of IPv6 addresses count: those that other machines could
//! answer.
//!
//! The capture sees a test before the rules and before the bridge. So a test does not count
//!
//! - if it came before the rules were set: an earlier filter or the guard of `nwfilter watch` may
//!   have dropped it. The capture opens without the tests ([`FrameSet6::WithoutTests`]), and
//!   [`Learning::count_tests`] adds them;
//! - if the bridge does not forward frames of the port, for example during the delays of the
//!   spanning tree protocol, or if the port is on no bridge. [`Learning::check_tests`] asks the
//!   kernel when a test begins and when it ends.
//!
//! Known race: the kernel is asked after the frame, usually within a millisecond. A test just
//! before the moment at which the bridge begins to forward counts. While the learner sets rules or
//! a flood fills the queue, the delay is longer. A test that waited in the queue therefore counts
//! only if the bridge forwarded at the previous look, too. The learner looks before it sets rules
//! and when a flood begins. After a test that the bridge did not forward, no test counts for a
//! second.

use super::Learning;
use crate::nwfilter::learn::{FrameSet6, GuestFrames, Table6, since_boot};
use crate::nwfilter::port::BindingError;
use crate::sys::netlink::Netlink;
use crate::types::error_text;

/// The number of frames whose cost is that of one look at the state of the port.
const COST: u32 = 8;

impl Learning {
    /// Lets the guest's tests count from now on. The caller has set the rules.
    ///
    /// # Errors
    /// [`BindingError::Capture`]; then no test counts.
    pub(in crate::nwfilter::port) fn count_tests(&self) -> Result<(), BindingError> {
        match self.frames() {
            frames if frames.v6 == Some(FrameSet6::All) => {
                self.capture.select(frames).map_err(super::capture_error(&self.port))
            }
            _ => Ok(()),
        }
    }

    /// Looks whether the bridge forwards frames of the port, if the port learns IPv6 addresses.
    pub(super) async fn look_at_bridge(&mut self) {
        if self.table.is_some() {
            self.forwarded = self.forwards().await;
        }
    }

    /// Gives up the tests that began since the last call or end now, if the bridge does not forward
    /// frames of the port. `is_late`: frames have waited in the queue. Returns whether it gave up
    /// one.
    pub(super) async fn check_tests(&mut self, is_late: bool) -> bool {
        let needs_check = |table: &Table6| table.has_test_to_check(since_boot());
        if !self.table.as_ref().is_some_and(needs_check) {
            return false;
        }
        let before = self.forwarded;
        self.forwarded = self.forwards().await;
        self.frames += COST;
        let is_forwarded = self.forwarded && (before || !is_late);
        if let Some(table) = &mut self.table {
            table.check_tests(is_forwarded);
        }
        !is_forwarded
    }

    /// Returns whether the bridge forwards frames of the port. Frames of a macvtap or macvlan pass
    /// no bridge. An error of the kernel counts as a bridge that does not forward.
    async fn forwards(&self) -> bool {
        if self.capture.guest_frames() == GuestFrames::Sent {
            return true;
        }
        let link = async { Netlink::open()?.link_by_index(self.index).await };
        let link = link.await.unwrap_or_else(|error| {
            tracing::warn!("{}", error_text(&error));
            None
        });
        link.is_some_and(|link| link.forwards)
    }
}
