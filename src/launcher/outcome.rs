//! How a launch ended.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// How a launch ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// QEMU's exit status; `None` in serve mode.
    pub qemu: Option<ExitStatus>,
    /// The number of the signal that ended a launch in serve mode.
    pub signal: Option<i32>,
    /// Whether the backend ended and could not be started again. In serve mode that ends the
    /// launch as a failure.
    pub backend_lost: bool,
    /// The things that could not be removed, one line each.
    pub left: Vec<String>,
}

impl Outcome {
    /// Returns the exit status that `netlaunch` gives for this outcome: QEMU's own, 128 + N after
    /// signal N, and 125 after a lost backend in serve mode.
    ///
    /// ```
    /// let outcome = netlaunch::launcher::Outcome::default();
    /// assert_eq!(outcome.code(), 0);
    /// ```
    pub fn code(&self) -> u8 {
        match (self.qemu, self.signal) {
            (Some(status), _) => match (status.code(), status.signal()) {
                (Some(code), _) => code as u8,
                (None, Some(signal)) => 128u8.wrapping_add(signal as u8),
                (None, None) => 125,
            },
            (None, Some(signal)) => 128u8.wrapping_add(signal as u8),
            (None, None) if self.backend_lost => 125,
            (None, None) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_qemus_or_128_and_the_signal_or_125() {
        let outcome = |qemu: Option<i32>, signal, backend_lost| Outcome {
            qemu: qemu.map(ExitStatus::from_raw),
            signal,
            backend_lost,
            left: Vec::new(),
        };
        for (outcome, code) in [
            (outcome(Some(0), None, false), 0),
            (outcome(Some(33 << 8), None, false), 33),
            (outcome(Some(9), None, false), 137),
            (outcome(Some(0), None, true), 0),
            (outcome(None, Some(15), false), 143),
            (outcome(None, None, true), 125),
            (outcome(None, None, false), 0),
        ] {
            assert_eq!(outcome.code(), code, "{outcome:?}");
        }
    }
}
