//! Which rule decides about a frame, without a kernel: the rules that a backend renders, walked by a
//! pure function.
//!
//! ```text
//! bytes ──pcap::read──▶ Captured* ──Judge──▶ Explanation*
//!                                    │ frame: fields as the kernel reads them
//!                                    │ state: connections of the frames so far
//!                                    └ evaluate: the walk
//! ```
//!
//! That the walk agrees with both backends in the kernel is tested with generated filters and
//! frames (tests/nwfilter_agree.rs).
//!
//! What is not told: packets that the host's IP stack drops before it asks a filter, such as those
//! with a wrong header checksum, and what rules of others do.

mod evaluate;
mod frame;
mod link_local;
mod pcap;
mod state;
#[cfg(test)]
mod tests;
mod words;

pub use evaluate::{
    Decider, Dependency, Explanation, Judge, Outcome, Stage, StageEnd, Tried, Tryable, Verdict, Way,
};
pub use frame::{Fragment, Frame, Packet, TooShort};
pub use pcap::{Captured, PcapError, read as read_pcap};
pub use words::action;
