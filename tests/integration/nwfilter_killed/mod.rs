//! Kills netlaunch at each step of a bind, a redefinition, a swap, an unbind and a switch of the
//! backend. A port always has the old rules or the new ones, the next command repairs the rest, and
//! in the end nothing of netlaunch is left.
//!
//! Frames show which rules a port has: some frames pass under the old rules, some under the new
//! ones, some under both, and some under neither. nft changes all ports at once. The three tools of
//! iptables change them one after another, so the verdict on each frame is that of the old or of
//! the new rules, and a port may drop everything while its filter is replaced.

mod case;
mod killing;
pub mod seen;

use std::time::Duration;

use case::{BIND, BIND_AND_LEARN, DEFINE, LEARN, SWAP, SWITCH, UNBIND, UNBIND_AND_FORGET};
use killing::kill_at_every_moment;

/// The time limit for an expected event.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes a test for each case and backend, because each takes long.
macro_rules! killed {
    ($($test:ident: $case:expr, $backend:literal;)*) => {
        $(#[test]
        fn $test() {
            kill_at_every_moment(&$case, $backend);
        })*
    };
}

killed! {
    a_port_has_old_or_new_rules_after_a_killed_bind_with_nftables: BIND, "nftables";
    a_port_has_old_or_new_rules_after_a_killed_bind_with_iptables: BIND, "iptables";
    a_port_has_old_or_learning_rules_after_a_killed_bind_with_nftables: BIND_AND_LEARN, "nftables";
    a_port_has_old_or_learning_rules_after_a_killed_bind_with_iptables: BIND_AND_LEARN, "iptables";
    a_port_has_old_or_new_rules_after_a_killed_define_with_nftables: DEFINE, "nftables";
    a_port_has_old_or_new_rules_after_a_killed_define_with_iptables: DEFINE, "iptables";
    a_port_has_old_or_new_rules_after_a_killed_swap_with_nftables: SWAP, "nftables";
    a_port_has_old_or_new_rules_after_a_killed_swap_with_iptables: SWAP, "iptables";
    a_port_has_old_or_no_rules_after_a_killed_unbind_with_nftables: UNBIND, "nftables";
    a_port_has_old_or_no_rules_after_a_killed_unbind_with_iptables: UNBIND, "iptables";
    a_learning_port_has_old_or_no_rules_after_a_killed_unbind_with_nftables:
        UNBIND_AND_FORGET, "nftables";
    a_learning_port_has_old_or_no_rules_after_a_killed_unbind_with_iptables:
        UNBIND_AND_FORGET, "iptables";
    no_verdict_changes_after_a_killed_switch_from_nftables: SWITCH, "nftables";
    no_verdict_changes_after_a_killed_switch_from_iptables: SWITCH, "iptables";
    a_port_has_learning_or_final_rules_after_a_killed_learner_with_nftables: LEARN, "nftables";
    a_port_has_learning_or_final_rules_after_a_killed_learner_with_iptables: LEARN, "iptables";
}
