//! Packets to link-local addresses where the rules track connections, which is not possible before
//! the bridge (see [`crate::rules::port`]).

use super::evaluate::{Stage, StageEnd, Verdict, Way};
use super::frame::Frame;
use crate::rules::Version;
use crate::rules::port::{Kind, Path};

/// The second stage of such a packet from the guest, which drops it; `None` of other frames.
pub(super) fn untracked<'a>(way: Way, path: &Path, frame: &Frame<'_>) -> Option<StageEnd<'a>> {
    if way != Way::Out || !frame.is_link_local() {
        return None;
    }
    let needs_more =
        |version: &Version| frame.is(Kind::Ip(*version, None)) && path.packets_need_more(*version);
    [Version::V4, Version::V6].iter().any(needs_more).then_some(StageEnd {
        stage: Stage::Packets,
        verdict: Verdict::Drop,
        rule: None,
        depends: Vec::new(),
        tried: Vec::new(),
    })
}
