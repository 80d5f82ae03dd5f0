//! The output of `netlaunch nwfilter explain`: a line for each frame, or one JSON object.
//!
//! Each frame is written when it is explained, since the frames may come from a capture that goes
//! on. The JSON object is written in parts: its head before the first frame, and its end after the
//! last one.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::Failure;
use crate::nwfilter::FilterName;
use crate::nwfilter::explain::{Candidate, Decider, EvalPath, Explanation, Stage, Trial, action};
use crate::types::{InterfaceName, printable};

/// The version of the JSON output.
const VERSION: u32 = 1;

/// The output for the frames of one run.
#[derive(Debug)]
pub(super) struct ExplainOutput<'a> {
    filter: &'a FilterName,
    port: Option<&'a InterfaceName>,
    json: bool,
    /// Whether to print each rule that was tried.
    verbose: bool,
    /// The number of the last frame.
    count: usize,
    /// Whether the head of the JSON object was written.
    begun: bool,
}

impl<'a> ExplainOutput<'a> {
    pub(super) fn new(
        filter: &'a FilterName,
        port: Option<&'a InterfaceName>,
        json: bool,
        verbose: bool,
    ) -> Self {
        ExplainOutput { filter, port, json, verbose, count: 0, begun: false }
    }

    /// Returns the number of the last frame.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Counts a frame that is not written.
    pub(super) fn leave_out(&mut self) {
        self.count += 1;
    }

    /// Writes a frame. Returns false if the reader has ended.
    pub(super) fn frame(
        &mut self,
        direction: EvalPath,
        explained: &Explanation<'_>,
    ) -> Result<bool, Failure> {
        self.count += 1;
        let text = if self.json {
            let between = if self.begun { ",\n" } else { "" };
            let frame = printable::json(&object(self.count, direction, explained), false);
            format!("{}{between}{frame}", self.head())
        } else {
            printable::lines(&lines(self.count, direction, explained, self.verbose))
        };
        write(text.as_bytes())
    }

    /// Ends the JSON object. After an error it is ended only if it was begun.
    pub(super) fn end(&mut self, complete: bool) -> Result<(), Failure> {
        if !self.json || !(complete || self.begun) {
            return Ok(());
        }
        let head = self.head();
        write(format!("{head}\n]}}\n").as_bytes()).map(drop)
    }

    /// Returns the head of the JSON object, once.
    fn head(&mut self) -> String {
        if std::mem::replace(&mut self.begun, true) {
            return String::new();
        }
        let port = self.port.map_or_else(String::new, |port| format!(",\"port\":{}", json!(port)));
        let filter = json!(self.filter);
        format!("{{\"version\":{VERSION},\"filter\":{filter}{port},\"frames\":[\n")
    }
}

/// Writes to standard output at once. Returns false if the reader has ended.
pub(super) fn write(bytes: &[u8]) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Output(error)),
    }
}

/// Returns the line of one frame and, if `verbose`, a line for each rule that was tried.
fn lines(number: usize, direction: EvalPath, explained: &Explanation<'_>, verbose: bool) -> String {
    let mut text = format!("{number} {} {explained}\n", direction.name());
    if !verbose {
        return text;
    }
    for tried in explained.stages.iter().flat_map(|stage| &stage.tried) {
        let place = tried.chain.map_or_else(|| "IP rules".to_owned(), |c| format!("chain {c}"));
        let _ = writeln!(text, "    {place}: {}: {}", tried.what, tried.outcome);
    }
    text
}

/// Returns the JSON object of one frame.
pub(super) fn object(number: usize, direction: EvalPath, explained: &Explanation<'_>) -> Value {
    let stages: Vec<Value> = explained
        .stages
        .iter()
        .map(|end| {
            json!({
                "stage": match end.stage { Stage::Frames => "frames", Stage::Packets => "packets" },
                "verdict": end.verdict.name(),
                "rule": end.rule.as_ref().map(rule),
                "depends": end.depends.iter().map(|(on, _)| on.to_string()).collect::<Vec<_>>(),
                "tried": end.tried.iter().map(tried).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "number": number,
        "direction": direction.name(),
        "verdict": explained.verdict.name(),
        "stages": stages,
    })
}

fn rule(decider: &Decider<'_>) -> Value {
    let Decider { rule, chain } = decider;
    json!({
        "filter": rule.origin.filter,
        "line": rule.origin.line,
        "chain": chain,
        "action": action(rule.verdict),
    })
}

fn tried(tried: &Trial<'_>) -> Value {
    match tried.what {
        Candidate::Rule(found) => json!({
            "rule": rule(&Decider { rule: found, chain: tried.chain }),
            "outcome": tried.outcome.to_string(),
        }),
        Candidate::Chain(chain) => json!({
            "chain": chain.name,
            "outcome": tried.outcome.to_string(),
        }),
    }
}
