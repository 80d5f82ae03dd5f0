//! Joins reports for the check of netlink messages (see [`crate::fuzz`]).

use super::event::{TraceMessage, is_new_generation};
use super::frames::Frames;
use crate::firewall::nft_kernel::HEADER;
use crate::firewall::port_roles::PortRoles;

/// The reports about the frames of one port.
pub(in crate::firewall) struct Reports {
    roles: PortRoles,
    frames: Frames,
}

impl Reports {
    pub(in crate::firewall) fn new(roles: PortRoles) -> Self {
        Reports { roles, frames: Frames::default() }
    }

    /// Adds a message of the kernel, if it is a report.
    ///
    /// # Panics
    /// Panics if the message is two things, or if a frame has no stage.
    pub(in crate::firewall) fn add(&mut self, message: &[u8]) {
        let Some(report) = TraceMessage::parse(message, HEADER) else { return };
        assert!(!is_new_generation(message) && report.head.len() <= 14 + message.len());
        let place = report.handle.and_then(|handle| usize::try_from(handle).ok());
        if let Some(frame) = self.frames.add(&self.roles, &report, place) {
            assert!((1..=2).contains(&frame.stages.len()));
        }
        assert!(self.frames.is_bounded());
    }
}
