//! Prints the table of goals: what netlaunch does, compared with the same work by hand, the ratio,
//! and its limit. A bench has no pass or fail: the last column shows whether the limit is met.
//!
//! | unit | meaning |
//! |---|---|
//! | × | the median of the ratios of pairs that ran alternately |
//! | ms, MiB, wake-ups | an absolute figure, where a ratio would say less |

#![allow(dead_code, unreachable_pub, reason = "a bench uses some of the functions")]

/// The limit of a figure.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// The figure may not be larger.
    AtMost(f64),
    /// The figure may not be smaller.
    AtLeast(f64),
}

/// Prints a row: `value` in `unit`, of `work` against `reference`.
pub fn row(work: &str, reference: &str, value: f64, unit: &str, goal: Goal) {
    let (limit, met) = match goal {
        Goal::AtMost(most) => (format!("at most {most}"), value <= most),
        Goal::AtLeast(least) => (format!("at least {least}"), value >= least),
    };
    let met = if met { "met" } else { "MISSED" };
    println!("| {work} | {reference} | {value:.2} {unit} | {limit} | {met} |");
}

/// Prints the row of a figure that cannot be measured here.
pub fn unmeasured(work: &str, why: &str) {
    println!("| {work} | not measured: {why} | | | |");
}

/// Returns the median; sorts the values.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
