//! netlaunch is killed at every step of putting filters on ports, changing them there and taking
//! them away: a port is under the old rules or the new ones, the next command repairs what is left,
//! and in the end nothing of ours is there.
//!
//! Which rules a port is under is told by frames: some pass under the old rules, some under the new
//! ones, some under both, some under neither. nft changes all ports at once. The three tools of
//! iptables do so one after the other: each frame is judged as by the old rules or as by the new
//! ones, and while a filter is replaced its ports may drop everything.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and its parts are one program"
)]

mod case;
#[path = "../common/mod.rs"]
mod common;
mod killing;
mod seen;

use std::time::Duration;

use case::{BIND, BIND_AND_LEARN, DEFINE, LEARN, SWITCH, UNBIND, UNBIND_AND_FORGET};
use killing::kill_at_every_moment;

/// What has to come comes within this.
const LIMIT: Duration = Duration::from_secs(20);

/// A test for each case and backend, since they take their time.
macro_rules! killed {
    ($($test:ident: $case:expr, $backend:literal;)*) => {
        $(#[test]
        fn $test() {
            kill_at_every_moment(&$case, $backend);
        })*
    };
}

killed! {
    bind_with_nftables: BIND, "nftables";
    bind_with_iptables: BIND, "iptables";
    bind_and_learn_with_nftables: BIND_AND_LEARN, "nftables";
    bind_and_learn_with_iptables: BIND_AND_LEARN, "iptables";
    define_with_nftables: DEFINE, "nftables";
    define_with_iptables: DEFINE, "iptables";
    unbind_with_nftables: UNBIND, "nftables";
    unbind_with_iptables: UNBIND, "iptables";
    unbind_and_forget_with_nftables: UNBIND_AND_FORGET, "nftables";
    unbind_and_forget_with_iptables: UNBIND_AND_FORGET, "iptables";
    switch_from_nftables: SWITCH, "nftables";
    switch_from_iptables: SWITCH, "iptables";
    learn_with_nftables: LEARN, "nftables";
    learn_with_iptables: LEARN, "iptables";
}
