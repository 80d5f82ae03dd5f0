//! The limits of a guest's or a network's traffic.
//!
//! The units are those of libvirt's `<bandwidth>`: rates in KiB per second, bursts in KiB.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// The limits of both directions, seen from the guest: `inbound` is traffic to the guest, or to all
/// guests of a network, and `outbound` is traffic from them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// The limit of the traffic to the guest; `None` means no limit.
    pub inbound: Option<Rate>,
    /// The limit of the traffic from the guest; `None` means no limit.
    pub outbound: Option<Rate>,
}

impl Bandwidth {
    /// Returns whether no direction has a limit.
    pub fn is_unlimited(&self) -> bool {
        self.inbound.is_none() && self.outbound.is_none()
    }
}

/// The limit of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// The average rate, in KiB per second.
    pub average: NonZeroU32,
    /// The rate of a burst, in KiB per second; `None` means that only the link limits it.
    pub peak: Option<NonZeroU32>,
    /// The amount that may be sent at the peak rate, in KiB; `None` lets netlaunch choose.
    pub burst: Option<NonZeroU32>,
}
