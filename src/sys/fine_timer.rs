//! Waits for less than a millisecond, by timerfd_create(2).
//!
//! tokio's own timer counts whole milliseconds and rounds up: with it, a pause of 1 ms takes 2.1 ms
//! (measured). A timer belongs to the task that waits for something that takes a few milliseconds;
//! it wakes the process until it is dropped.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

use super::process::signals;

/// A timer that expires again and again.
#[derive(Debug)]
pub(crate) struct FineTimer(AsyncFd<Timer>);

/// The kernel's timer, with the traits that the runtime needs.
#[derive(Debug)]
struct Timer(TimerFd);

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl FineTimer {
    /// Starts a timer; needs a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// The kernel's error, such as EMFILE.
    pub(crate) fn every(interval: Duration) -> io::Result<Self> {
        let timer = TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        let interval = Expiration::Interval(TimeSpec::from_duration(interval));
        timer.set(interval, TimerSetTimeFlags::empty())?;
        Ok(FineTimer(signals::watch(Timer(timer))?))
    }

    /// Waits until the timer has expired once more.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) async fn tick(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| match timer.get_ref().0.wait() {
                Err(Errno::EAGAIN) => Err(io::ErrorKind::WouldBlock.into()),
                read => Ok(read?),
            });
            if let Ok(read) = read {
                return read;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn each_tick_comes_an_interval_after_the_one_before() {
        let interval = Duration::from_millis(20);
        let begun = Instant::now();
        let timer = FineTimer::every(interval).unwrap();
        for _ in 0..3 {
            timer.tick().await.unwrap();
        }
        // A late tick counts several expirations, and the next one comes sooner.
        assert!(begun.elapsed() >= 2 * interval, "{:?}", begun.elapsed());
    }
}
