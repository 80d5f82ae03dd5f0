//! Measures the cost of a stand-in: calls of QEMU that pass through, against the same calls of QEMU
//! itself.
//!
//! Run `cargo bench --bench wrap`. The two ways run alternately, and each pair gives one difference
//! and one ratio, so that a machine that slows down slows both. The figures go to standard output.
//! The benchmark has no pass or fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench stops by panicking")]

#[allow(dead_code, unreachable_pub, reason = "a bench uses some of the helpers")]
#[path = "../tests/integration/common/mod.rs"]
mod common;
#[path = "shared/goal.rs"]
mod goal;
#[path = "shared/place.rs"]
mod place;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::wrapped::{NAME, Wrapped, qemu};
use goal::median;

const PAIRS: usize = 60;
const QUIT: &str = "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}\n";

fn main() {
    place::in_memory();
    let Some(qemu) = qemu("the benchmark of stand-ins") else { return };
    let wrapped = Wrapped::new();
    for (line, input) in [
        ("-version", ""),
        ("-machine help", ""),
        ("-display none -machine none -qmp stdio -S", QUIT),
    ] {
        for log in [false, true] {
            let (mut more, mut ratios, mut plain_times) = (Vec::new(), Vec::new(), Vec::new());
            for pair in 0..=PAIRS {
                let mut stand_in = wrapped.command();
                if !log {
                    stand_in.env_remove("NETLAUNCH_WRAP_LOG");
                }
                let through = time(stand_in, line, input).as_secs_f64() * 1e3;
                let mut plain = wrapped.sandbox.program(&qemu);
                plain.env("PATH", "/usr/bin:/bin");
                let plain = time(plain, line, input).as_secs_f64() * 1e3;
                // The first pair reads the programs into memory.
                if pair > 0 {
                    more.push(through - plain);
                    ratios.push(through / plain);
                    plain_times.push(plain);
                }
            }
            println!(
                "{NAME} {line}{}: {:.2} ms by itself, {:.2} ms more through the stand-in, ratio {:.3} (medians of {PAIRS})",
                if log { ", with a log" } else { "" },
                median(&mut plain_times),
                median(&mut more),
                median(&mut ratios),
            );
        }
    }
}

/// Measures the time from the start of a call to its end.
fn time(mut command: Command, line: &str, input: &str) -> Duration {
    command.args(line.split(' '));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().unwrap();
    // A call that reads nothing may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    assert!(child.wait().unwrap().success(), "{line}");
    begun.elapsed()
}
