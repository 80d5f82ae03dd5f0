//! `netlaunch nwfilter explain --follow`: prints the kernel's decision about each frame of a port.
//!
//! The command ends with status 0 on SIGINT, SIGTERM and SIGHUP, when the reader of its output has
//! ended, and when the port or its filter is gone. The kernel removes the trace when the process
//! ends in any way ([`crate::firewall::PortTrace`]).
//!
//! After each change of rules the port's rules are read again, under the lock of the commands that
//! change filters: before such a command ends, its record and the definition may be the old ones.
//! In the meantime the reports of the kernel wait in its queue.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Failure;
use super::explain_output::{self, object};
use super::nwfilter_error::NwfilterError;
use crate::firewall::{PortTrace, TraceStep, TracedFrame};
use crate::nwfilter::explain::{EvalPath, summary, traced};
use crate::nwfilter::port::{BindingError, Bindings, PortInForce};
use crate::sys::netlink::link_events::LinkEvents;
use crate::sys::output_reader::OutputReader;
use crate::sys::process::signals::Signals;
use crate::types::printable;

/// The version of the JSON output, described by conf/schema/nwfilter-follow.schema.json.
const VERSION: u32 = 1;
const SECOND: Duration = Duration::from_secs(1);
/// The most lines in a second. A terminal shows no more, and a flood of frames must not fill a log.
const MOST_LINES: usize = 1000;
/// Prints a line for each frame of the port, at most `count` lines.
pub(super) async fn follow(
    bindings: &Bindings,
    port: PortInForce,
    count: Option<NonZeroUsize>,
    json: bool,
) -> Result<(), Failure> {
    let mut signals = Signals::take().map_err(Failure::system("wait for signals"))?;
    let mut links = LinkEvents::open()?;
    let mut trace = bindings.trace(&port).await.map_err(NwfilterError::Trace)?;
    let reader = OutputReader::open();
    let index = port.status.index;
    tracing::info!("following the frames of the port {}", port.status.port);
    let mut lines = Lines { port, json, count, number: 0, limit: LineLimit::default(), lost: None };
    let mut changed = true;
    loop {
        if changed && !lines.refresh(bindings, &mut trace).await? {
            tracing::info!("the port {} or its filter is gone", lines.port.status.port);
            return Ok(());
        }
        changed = tokio::select! {
            step = trace.next() => match step.map_err(NwfilterError::Trace)? {
                TraceStep::RulesChanged => true,
                TraceStep::Lost => {
                    // A report of changed rules may be among the lost ones.
                    lines.warn_of_loss(Instant::now())
                }
                TraceStep::Frames(frames) => {
                    if !lines.print(&frames)? {
                        return Ok(());
                    }
                    false
                }
            },
            open = links.changed_among(|link| link.index == index) => {
                if !open {
                    return Ok(());
                }
                true
            },
            _ = signals.next() => return Ok(()),
            () = reader.ended() => return Ok(()),
        };
    }
}

/// The printed lines.
struct Lines {
    port: PortInForce,
    json: bool,
    count: Option<NonZeroUsize>,
    /// The number of the last line.
    number: usize,
    limit: LineLimit,
    /// The time of the last warning about lost reports.
    lost: Option<Instant>,
}

impl Lines {
    /// Warns of lost reports, at most once in a second. Returns whether it did.
    fn warn_of_loss(&mut self, now: Instant) -> bool {
        let is_due = self.lost.is_none_or(|last| now.duration_since(last) >= SECOND);
        if is_due {
            self.lost = Some(now);
            tracing::warn!("frames come faster than their trace can be read; some are not shown");
        }
        is_due
    }

    /// Reads the port's rules again. Returns false if the port or its filter is gone.
    async fn refresh(
        &mut self,
        bindings: &Bindings,
        trace: &mut PortTrace,
    ) -> Result<bool, Failure> {
        let own = self.port.status.index;
        // The interface may have another name now.
        let live = bindings.list()?;
        let Some(status) = live.into_iter().find(|status| status.index == own) else {
            return Ok(false);
        };
        let now = bindings.in_force_after_changes(&status.port).await;
        match now {
            Ok(port) if port.status.index == own => {
                trace.replace_roles(port.roles());
                self.port = port;
                Ok(true)
            }
            Ok(_) | Err(BindingError::Unbound(_)) => Ok(false),
            Err(error) => Err(NwfilterError::from(error).into()),
        }
    }

    /// Prints frames. Returns false if enough lines are printed, or the reader has ended.
    fn print(&mut self, frames: &[TracedFrame]) -> Result<bool, Failure> {
        for frame in frames {
            match self.limit.line(Instant::now()) {
                LimitedLine::Hidden => continue,
                LimitedLine::Shown { hidden: 0 } => {}
                LimitedLine::Shown { hidden } => tracing::warn!(
                    "{hidden} frames are not shown, because there were more than {MOST_LINES} in a second"
                ),
            }
            let Some(explained) = traced(&self.port.rules, frame) else {
                tracing::warn!(
                    "a frame is not shown, because its rule was replaced in the meantime"
                );
                continue;
            };
            self.number += 1;
            let direction = if frame.to_guest { EvalPath::In } else { EvalPath::Out };
            let about = summary(&frame.head);
            let line = if self.json {
                let mut line = object(self.number, direction, &explained);
                line["version"] = json!(VERSION);
                line["port"] = json!(self.port.status.port);
                line["frame"] = json!(about);
                printable::json(&line, false)
            } else {
                let line = format!("{} {} {explained} | {about}", self.number, direction.name());
                printable::lines(&line)
            };
            if !explain_output::write(format!("{line}\n").as_bytes())? {
                return Ok(false);
            }
            if self.count.is_some_and(|most| self.number >= most.get()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Counts the lines of a second.
#[derive(Debug, Default)]
struct LineLimit {
    /// The start of the second.
    start: Option<Instant>,
    shown: usize,
    hidden: usize,
}

/// Whether a line is shown.
#[derive(Debug, PartialEq, Eq)]
enum LimitedLine {
    /// The line is shown, and this many lines before it were not.
    Shown { hidden: usize },
    /// The line is not shown.
    Hidden,
}

impl LineLimit {
    /// Counts a line at this time.
    fn line(&mut self, now: Instant) -> LimitedLine {
        if self.start.is_none_or(|start| now.duration_since(start) >= SECOND) {
            (self.start, self.shown) = (Some(now), 0);
        }
        if self.shown >= MOST_LINES {
            self.hidden += 1;
            return LimitedLine::Hidden;
        }
        self.shown += 1;
        LimitedLine::Shown { hidden: std::mem::take(&mut self.hidden) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_prints_a_bounded_number_of_lines_and_says_how_many_are_missing() {
        let (mut limit, start) = (LineLimit::default(), Instant::now());
        let shown = LimitedLine::Shown { hidden: 0 };
        let lines: Vec<_> = (0..MOST_LINES + 5).map(|_| limit.line(start)).collect();
        assert!(lines[..MOST_LINES].iter().all(|line| *line == shown));
        assert!(lines[MOST_LINES..].iter().all(|line| *line == LimitedLine::Hidden));
        let next = start + SECOND;
        assert_eq!(limit.line(next), LimitedLine::Shown { hidden: 5 });
        assert_eq!(limit.line(next), shown);
    }
}
