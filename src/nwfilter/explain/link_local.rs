//! Evaluates packets to link-local addresses if the rules track connections, which is not possible
//! before the bridge (see [`crate::firewall::rules::port`]).

use super::evaluate::{EvalPath, Stage, StageEnd, Verdict};
use super::frame::Frame;
use crate::firewall::rules::Version;
use crate::firewall::rules::port::{FrameKind, Path};

/// Returns the end of the second stage for such a packet from the guest, which drops it; `None` for
/// other frames.
pub(super) fn untracked<'a>(
    direction: EvalPath,
    path: &Path,
    frame: &Frame<'_>,
) -> Option<StageEnd<'a>> {
    if direction != EvalPath::Out || !frame.is_link_local() {
        return None;
    }
    let needs_more = |version: &Version| {
        frame.is(FrameKind::Ip(*version, None)) && path.packets_need_more(*version)
    };
    [Version::V4, Version::V6].iter().any(needs_more).then_some(StageEnd {
        stage: Stage::Packets,
        verdict: Verdict::Drop,
        rule: None,
        depends: Vec::new(),
        tried: Vec::new(),
    })
}
