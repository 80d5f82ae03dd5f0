//! `netlaunch nwfilter explain`: shows which rule of a filter decides about frames.
//!
//! The filter is compiled with the variables of the command line, then [`Judge`] evaluates its
//! rules for each frame. The connections of earlier frames count, as in the kernel, so the order of
//! the frames matters. Nothing is bound.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::args::{DirectionArg, ExplainArgs, HexFrame};
use super::nwfilter_error::{ExplainError, NwfilterError};
use super::{Failure, print_json, print_text};
use crate::nwfilter::explain::{
    Candidate, Captured, Decider, EvalPath, Explanation, Frame, Judge, Stage, Trial, action,
    read_pcap,
};
use crate::nwfilter::{FilterStore, Variables, compile, flatten};
use crate::sys::input::{self, Pipes};
use crate::types::Mac;

/// The most bytes of a capture, which is in memory while its frames are judged.
const MAX_CAPTURE: u64 = 64 << 20;

/// The version of the JSON output.
const VERSION: u32 = 1;

/// Prints the deciding rule of each frame that `args` name. `verbose` also prints each rule that
/// was tried.
pub(super) fn explain(
    store: &FilterStore,
    args: &ExplainArgs,
    verbose: bool,
) -> Result<(), Failure> {
    let filters = store.tree(&args.name)?;
    let filter = store.get(&args.name)?.filter;
    let mut variables: Variables = args.param.iter().cloned().collect();
    let mut mac = args.mac;
    // Both parsers succeed: `MAC` is a valid name, and the text of an address a valid value.
    if let Ok(name) = "MAC".parse() {
        if let Some(Ok(value)) = args.mac.map(|mac| mac.to_string().parse()) {
            variables.set_default(name, value);
        } else if let Some([value]) = variables.get(&name) {
            mac = value.as_str().parse().ok();
        }
    }
    let parts = flatten(&filter, &filters, &variables)?;
    let (rules, warnings) = compile(&parts)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let file = args.pcap.as_deref().map(contents).transpose()?;
    let frames = frames(args, file.as_deref())?;
    let mut judge = Judge::new(&rules);
    let (mut text, mut all) = (String::new(), Vec::new());
    for (index, captured) in frames.iter().enumerate() {
        let number = index + 1;
        let way = way(args.direction, mac, captured.bytes)?;
        let explained = judge
            .judge(way, captured.bytes, captured.length)
            .map_err(|error| NwfilterError::Explain(ExplainError::Frame { number, error }))?;
        if captured.bytes.len() < captured.length {
            let (kept, length) = (captured.bytes.len(), captured.length);
            tracing::warn!(
                "frame {number} was captured in part, {kept} of {length} bytes; the rest counts as missing"
            );
        }
        if way == EvalPath::Out && is_link_local(captured.bytes) && explained.verdict.stops() {
            tracing::warn!(
                "frame {number} goes to a link-local address (01:80:c2:00:00:00 to 0f): nftables stops it; with iptables the bridge handles it without the filter"
            );
        }
        if args.json {
            all.push(object(number, way, &explained));
        } else {
            line(&mut text, number, way, &explained, verbose);
        }
    }
    if args.json {
        let object = json!({ "version": VERSION, "filter": args.name, "frames": all });
        return print_json(&object);
    }
    print_text(&text)
}

fn contents(path: &Path) -> Result<Vec<u8>, ExplainError> {
    let bytes = input::read(path, MAX_CAPTURE, Pipes::Read);
    bytes.map_err(|source| ExplainError::Read { path: path.to_owned(), source })
}

/// Returns the frames to explain; `file` is the content of the capture.
fn frames<'a>(
    args: &'a ExplainArgs,
    file: Option<&'a [u8]>,
) -> Result<Vec<Captured<'a>>, ExplainError> {
    let named = args.frame.iter().map(|HexFrame(bytes)| Captured { bytes, length: bytes.len() });
    match (&args.pcap, file) {
        (Some(path), Some(file)) => {
            read_pcap(file).map_err(|error| ExplainError::Pcap { path: path.clone(), error })
        }
        _ => Ok(named.collect()),
    }
}

/// Returns the direction of a frame: that of the option, else by the source address.
fn way(
    direction: Option<DirectionArg>,
    mac: Option<Mac>,
    bytes: &[u8],
) -> Result<EvalPath, ExplainError> {
    match (direction, mac) {
        (Some(DirectionArg::In), _) => Ok(EvalPath::In),
        (Some(DirectionArg::Out), _) => Ok(EvalPath::Out),
        (None, Some(mac)) => {
            let own = bytes.get(6..12) == Some(&mac.octets());
            Ok(if own { EvalPath::Out } else { EvalPath::In })
        }
        (None, None) => Err(ExplainError::Direction),
    }
}

fn is_link_local(bytes: &[u8]) -> bool {
    Frame::read(bytes, bytes.len()).is_ok_and(|frame| frame.is_link_local())
}

/// Adds the line of one frame and, if `verbose`, a line for each rule that was tried.
fn line(
    text: &mut String,
    number: usize,
    way: EvalPath,
    explained: &Explanation<'_>,
    verbose: bool,
) {
    let _ = writeln!(text, "{number} {} {explained}", way.name());
    if !verbose {
        return;
    }
    for tried in explained.stages.iter().flat_map(|stage| &stage.tried) {
        let place = tried.chain.map_or_else(|| "IP rules".to_owned(), |c| format!("chain {c}"));
        let _ = writeln!(text, "    {place}: {}: {}", tried.what, tried.outcome);
    }
}

fn object(number: usize, way: EvalPath, explained: &Explanation<'_>) -> Value {
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
        "direction": way.name(),
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
