//! Measures the cost of filters on nftables: a bind, a change of a filter that many ports use, and
//! a rebuild of many ports, each compared with nft alone and the same input; frames through a port
//! with a thousand bound ports compared with one and with no filter; a capture that is explained;
//! and the cost of a flood for the learner process.
//!
//! Run `cargo bench --bench nwfilter` as root: it makes its own network namespaces. Compared
//! operations run alternately, and each pair gives one ratio, so that a machine that slows down
//! slows both. The figures go to standard output. The benchmark has no pass or fail. Words after
//! `--` select parts: bind, swap, first, redefine,
//! rebuild, reload, frames, explain, learner.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a bench stops by panicking, and its parts are one program"
)]

mod changes;
#[allow(dead_code, unreachable_pub, reason = "a bench uses some of the helpers")]
#[path = "../../tests/integration/common/mod.rs"]
mod common;
mod explain;
mod frames;
#[path = "../shared/goal.rs"]
mod goal;
mod host;
mod learner;
#[path = "../shared/place.rs"]
mod place;

use std::time::Duration;

fn main() {
    place::in_memory();
    if !common::have_root("the nwfilter benchmark") {
        return;
    }
    // Cargo adds the argument --bench.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|w| !w.starts_with('-')).collect();
    let parts: [(&str, fn()); 9] = [
        ("bind", changes::bind),
        ("swap", changes::swap),
        ("first", changes::first_and_last),
        ("redefine", changes::redefine),
        ("rebuild", changes::rebuild),
        ("reload", changes::reload),
        ("frames", frames::frames),
        ("explain", explain::explain),
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
