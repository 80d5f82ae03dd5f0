//! The time by which leases end: CLOCK_BOOTTIME, which no command sets and which goes on while the
//! host sleeps (clock_gettime(2)).
//!
//! The wall clock is for people and for files of an earlier release. A [`Clock`] is one reading of
//! both, and all functions that compare times take it as a value. A time since boot means nothing
//! after the next boot, so a file says of which boot its times are.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A time in whole seconds since the start of 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnixTime(pub u64);

impl From<SystemTime> for UnixTime {
    /// A clock before 1970 is at 1970.
    fn from(time: SystemTime) -> Self {
        UnixTime(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }
}

/// A time in whole seconds since the host was booted, its sleep included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootTime(pub u64);

impl BootTime {
    /// The time now.
    pub fn now() -> Self {
        // The kernel has this clock since 2.6.39, and the call has no other error.
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
        BootTime(now.map_or(0, |now| now.as_secs()))
    }

    /// The end of a DHCP lease of this many seconds that starts now; all ones has none (RFC 2131
    /// section 3.3). The client counts from its request, and so is always done before.
    pub fn after_lease_time(self, seconds: u32) -> Option<BootTime> {
        (seconds != u32::MAX).then(|| BootTime(self.0.saturating_add(seconds.into())))
    }
}

/// The clocks at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// The time since boot.
    pub boot: BootTime,
    /// The wall clock at the same moment.
    pub wall: UnixTime,
    /// Which boot it is, by the kernel's random number (random(4)); `None` where /proc does not
    /// say.
    pub boot_id: Option<String>,
}

impl Clock {
    /// Reads the clocks.
    pub fn now() -> Self {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Clock {
            boot: BootTime::now(),
            wall: SystemTime::now().into(),
            boot_id: id.ok().map(|id| id.trim().to_owned()),
        }
    }

    /// When the wall clock, as it is set now, will show `time`.
    pub fn wall_of(&self, time: BootTime) -> UnixTime {
        UnixTime(self.wall.0.saturating_add(time.0).saturating_sub(self.boot.0))
    }

    /// The time since boot at which the wall clock, as it is set now, shows `time`. A time before
    /// boot is 0.
    pub fn boot_of(&self, time: UnixTime) -> BootTime {
        BootTime(self.boot.0.saturating_add(time.0).saturating_sub(self.wall.0))
    }
}
