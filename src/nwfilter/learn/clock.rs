//! Reads the clock by which leases end: CLOCK_BOOTTIME, which no command can set and which counts
//! the time that the host sleeps (clock_gettime(2)).
//!
//! A [`Clock`] is one reading of this clock and of the wall clock. All functions that compare times
//! take it as a value. The wall clock is for output and for files of an earlier release.
//!
//! A time since boot has no meaning after the next boot. So a file also stores the boot to which
//! its times belong.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A time in whole seconds since the start of 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnixTime(pub u64);

impl From<SystemTime> for UnixTime {
    /// Converts a system time; a time before 1970 becomes 1970.
    fn from(time: SystemTime) -> Self {
        UnixTime(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }
}

/// A time in whole seconds since boot, including the time that the host sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootTime(pub u64);

/// Returns the time since boot.
pub fn since_boot() -> Duration {
    // The kernel has had this clock since 2.6.39, and the call has no other error.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

impl BootTime {
    /// Reads the clock.
    pub fn now() -> Self {
        BootTime(since_boot().as_secs())
    }

    /// Returns the end of a DHCP lease of this many seconds that starts now, or `None` for all
    /// ones, which means without end (RFC 2131 section 3.3).
    ///
    /// The client counts from its request, so its lease always ends before this one.
    pub fn after_lease_time(self, seconds: u32) -> Option<BootTime> {
        (seconds != u32::MAX).then(|| BootTime(self.0.saturating_add(seconds.into())))
    }
}

/// One reading of both clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// The time since boot.
    pub boot: BootTime,
    /// The wall clock at the same moment.
    pub wall: UnixTime,
    /// The boot, as the kernel's random identifier (random(4)); `None` if /proc does not show it.
    pub boot_id: Option<String>,
}

impl Clock {
    /// Reads both clocks.
    pub fn now() -> Self {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Clock {
            boot: BootTime::now(),
            wall: SystemTime::now().into(),
            boot_id: id.ok().map(|id| id.trim().to_owned()),
        }
    }

    /// Returns the wall-clock time at `time`, if the wall clock is not set again.
    pub fn wall_of(&self, time: BootTime) -> UnixTime {
        UnixTime(self.wall.0.saturating_add(time.0).saturating_sub(self.boot.0))
    }

    /// Returns the time since boot at which the wall clock shows `time`, if the wall clock is not
    /// set again. A time before boot gives 0.
    pub fn boot_of(&self, time: UnixTime) -> BootTime {
        BootTime(self.boot.0.saturating_add(time.0).saturating_sub(self.wall.0))
    }
}
