//! What filters cost on nftables: binding one, changing one that many ports use, and putting many
//! back, each against nft alone with the same text; and frames through a port with a thousand ports
//! bound against one; and what a flood costs the process that learns an address.
//!
//! `cargo bench --bench nwfilter`, as root: it makes network namespaces of its own. What is compared
//! is done in turn and the ratio is taken pair by pair, so that a machine that slows down slows
//! both. Figures go to standard output; nothing here passes or fails. Words behind `--` choose: bind,
//! redefine, rebuild, frames, learner.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a bench stops by panicking, and its parts are one program"
)]

mod changes;
#[path = "../../tests/common/mod.rs"]
mod common;
mod frames;
mod host;
mod learner;

use std::time::Duration;

fn main() {
    if !common::have_root("the nwfilter benchmark") {
        return;
    }
    // Cargo adds a word of its own, --bench.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|w| !w.starts_with('-')).collect();
    let parts: [(&str, fn()); 5] = [
        ("bind", changes::bind),
        ("redefine", changes::redefine),
        ("rebuild", changes::rebuild),
        ("frames", frames::frames),
        ("learner", learner::learner),
    ];
    for (name, part) in parts {
        if chosen.is_empty() || chosen.iter().any(|word| word == name) {
            part();
        }
    }
}

pub fn milliseconds(times: &mut [Duration]) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
