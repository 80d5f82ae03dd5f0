//! Rates of traffic, measured on a machine that may be busy.

use std::ops::RangeInclusive;

/// Fails unless the measured rate is the one that was asked for, in KiB/s. On a busy machine a
/// sender or receiver may wait for a processor for so long that a measurement is wrong, so there
/// are five.
pub fn assert_rate(
    what: &str,
    asked: f64,
    allowed: RangeInclusive<f64>,
    mut measure: impl FnMut() -> f64,
) {
    let mut all = Vec::new();
    for _ in 0..5 {
        let measured = measure();
        if allowed.contains(&(measured / asked)) {
            return;
        }
        all.push(format!("{measured:.0}"));
    }
    panic!("{what}: {} of {asked:.0} KiB/s", all.join(", "));
}
