//! `netlaunch nwfilter explain`: shows which rule of a filter decides about frames.
//!
//! The rules are those of a filter, compiled with the variables of the command line, or those that
//! are in force on a port ([`Subject`]). [`Judge`] evaluates them for each frame. The connections
//! of earlier frames count, as in the kernel, so the order of the frames matters. Nothing is bound.
//!
//! A capture may be a pipe from a program that still captures: each frame is explained when it
//! arrives, and only that frame is in memory. `--follow` asks the kernel instead
//! ([`super::nwfilter_follow`]).

use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use super::args::{DirectionArg, ExplainArgs, HexFrame};
use super::explain_output::ExplainOutput;
use super::nwfilter_error::{ExplainError, NwfilterError};
use super::{Failure, binding_list, nwfilter_follow, runtime};
use crate::firewall::FirewallBackend;
use crate::firewall::rules::port::PortRules;
use crate::nwfilter::explain::{Captured, EvalPath, Frame, Judge, PcapReader};
use crate::nwfilter::port::{Bindings, PortInForce};
use crate::nwfilter::{FilterName, FilterStore, Variables, compile, flatten};
use crate::sys::input::{self, Pipes};
use crate::types::Mac;

/// The rules that decide about the frames.
struct Subject {
    filter: FilterName,
    rules: Arc<PortRules>,
    /// The MAC address of the guest.
    mac: Option<Mac>,
    /// The backend of the port; `None` without a port.
    backend: Option<FirewallBackend>,
}

/// Prints the deciding rule of each frame that `args` name. `verbose` also prints each rule that
/// was tried.
pub(super) fn explain(
    store: &FilterStore,
    bindings: impl FnOnce() -> Result<Bindings, NwfilterError>,
    args: &ExplainArgs,
    verbose: bool,
) -> Result<(), Failure> {
    let (subject, port) = match (&args.port, &args.name) {
        (Some(name), _) => {
            let bindings = bindings()?;
            let port = bindings.in_force(name)?;
            warn_if_not_in_force(&bindings, &port)?;
            if args.follow {
                let follow = nwfilter_follow::follow(&bindings, port, args.count, args.json);
                return runtime()?.block_on(follow);
            }
            (Subject::of_port(&port), Some(name))
        }
        (None, Some(name)) => (Subject::of_filter(store, name, args)?, None),
        // The parser demands one of both.
        (None, None) => return Ok(()),
    };
    let mut output = ExplainOutput::new(&subject.filter, port, args.json, verbose);
    let explained = frames(&subject, args, &mut output);
    output.end(explained.is_ok())?;
    explained
}

impl Subject {
    fn of_filter(
        store: &FilterStore,
        name: &FilterName,
        args: &ExplainArgs,
    ) -> Result<Self, NwfilterError> {
        let filters = store.tree(name)?;
        let filter = store.get(name)?.filter;
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
        Ok(Subject { filter: name.clone(), rules: Arc::new(rules), mac, backend: None })
    }

    fn of_port(port: &PortInForce) -> Self {
        Subject {
            filter: port.binding.filter.clone(),
            rules: port.rules.clone(),
            mac: Some(port.binding.mac),
            backend: Some(port.status.backend),
        }
    }
}

/// Warns if the rules of the port are not in the kernel, or not called.
fn warn_if_not_in_force(bindings: &Bindings, port: &PortInForce) -> Result<(), Failure> {
    let ports = vec![port.status.clone()];
    let checked = runtime()?.block_on(bindings.check_ports(ports))?;
    for (status, check) in checked {
        binding_list::warn_of_problems(&status.port, &check.problems);
    }
    Ok(())
}

/// Explains the frame of the command line, or those of a capture.
fn frames(
    subject: &Subject,
    args: &ExplainArgs,
    output: &mut ExplainOutput<'_>,
) -> Result<(), Failure> {
    let mut judge = Judge::new(&subject.rules);
    let Some(path) = &args.pcap else {
        let Some(HexFrame(bytes)) = &args.frame else { return Ok(()) };
        let frame = Captured { bytes, length: bytes.len() };
        return one(subject, args.direction, &mut judge, frame, output).map(drop);
    };
    let failed = |error| NwfilterError::Explain(ExplainError::Pcap { path: path.clone(), error });
    let input = open(path).map_err(NwfilterError::Explain)?;
    let mut capture = PcapReader::open(input).map_err(failed)?;
    let mut count = 0;
    while args.count.is_none_or(|most| count < most.get())
        && let Some(frame) = capture.frame().map_err(failed)?
    {
        count += 1;
        match one(subject, args.direction, &mut judge, frame, output) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            // The other frames of the capture can be explained.
            Err(Failure::Nwfilter(error)) if error.is_short_frame() => {
                tracing::warn!("{error}; this frame is left out");
                output.leave_out();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Opens a capture.
fn open(path: &Path) -> Result<Box<dyn Read>, ExplainError> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let opened = input::open(path, Pipes::Read);
    let opened = opened.map_err(|source| {
        let is_fifo = std::fs::metadata(path).is_ok_and(|is| is.file_type().is_fifo());
        if is_fifo {
            ExplainError::Fifo { path: path.to_owned() }
        } else {
            ExplainError::Read { path: path.to_owned(), source }
        }
    })?;
    Ok(opened
        .map_or_else(|| Box::new(io::empty()) as Box<dyn Read>, |f| Box::new(BufReader::new(f))))
}

/// Explains one frame. Returns false if the reader of the output has ended.
fn one<'a>(
    subject: &'a Subject,
    forced: Option<DirectionArg>,
    judge: &mut Judge<'a>,
    frame: Captured<'_>,
    output: &mut ExplainOutput<'_>,
) -> Result<bool, Failure> {
    let number = output.count() + 1;
    let direction = direction(forced, subject.mac, frame.bytes).map_err(NwfilterError::Explain)?;
    let explained = judge
        .judge(direction, frame.bytes, frame.length)
        .map_err(|error| NwfilterError::Explain(ExplainError::Frame { number, error }))?;
    if frame.bytes.len() < frame.length {
        let (kept, length) = (frame.bytes.len(), frame.length);
        tracing::warn!(
            "frame {number} was captured in part, {kept} of {length} bytes; the rest counts as missing"
        );
    }
    if subject.backend != Some(FirewallBackend::Nftables)
        && direction == EvalPath::Out
        && is_link_local(frame.bytes)
        && explained.verdict.stops()
    {
        tracing::warn!(
            "frame {number} goes to a link-local address (01:80:c2:00:00:00 to 0f): nftables stops it; with iptables the bridge handles it without the filter"
        );
    }
    output.frame(direction, &explained)
}

/// Returns the direction of a frame: that of the option, else by the source address.
fn direction(
    forced: Option<DirectionArg>,
    mac: Option<Mac>,
    bytes: &[u8],
) -> Result<EvalPath, ExplainError> {
    match (forced, mac) {
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
