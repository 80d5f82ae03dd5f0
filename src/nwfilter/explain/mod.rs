//! Explains which rule decides about a frame, without a kernel: a pure function evaluates the rules
//! that a backend renders.
//!
//! ```text
//! bytes ──PcapReader──▶ Captured* ──Judge──▶ Explanation*
//!                                    │ frame: fields as the kernel reads them
//!                                    │ state: connections of the frames so far
//!                                    └ evaluate: the walk
//! ```
//!
//! A test with generated filters and frames checks that the evaluation agrees with both backends in
//! the kernel (tests/integration/nwfilter_agree).
//!
//! The explanation does not include packets that the host's IP stack drops before the filter, such
//! as those with a wrong header checksum, nor the rules of other programs.

mod evaluate;
mod frame;
mod link_local;
mod packet;
mod pcap;
mod state;
#[cfg(test)]
mod tests;
mod traced;
mod words;

pub use evaluate::{
    Candidate, Decider, Dependency, EvalPath, Explanation, Judge, Outcome, Stage, StageEnd, Trial,
    Verdict,
};
pub use frame::{Frame, TooShort};
pub use packet::{Fragment, Packet};
pub use pcap::{Captured, PcapError, PcapReader};
pub use traced::{summary, traced};
pub use words::action;
