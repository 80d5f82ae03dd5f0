//! An injection sweep: one error in one system call at one occurrence, over everything that
//! netlaunch does. Whatever fails, netlaunch does not panic, ends in time, says in one line why,
//! never claims success for what is not there, and the next command leaves nothing behind.
//!
//! Each scenario has a short sweep, which is one of the tests, and a long one:
//!
//! ```text
//! cargo test --test injection -- --ignored --nocapture            long sweeps of all scenarios
//! NETLAUNCH_INJECT_LIMIT=1000 ...                                 of so many injections each
//! NETLAUNCH_INJECT_SEED=11 ...                                    of another sample
//! NETLAUNCH_INJECT_CASE=network-start:main:openat:EMFILE:7 ...    one case alone
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and its parts are one program"
)]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod errors;
mod judge;
mod launches;
mod networks;
mod ports;
#[path = "../nwfilter_killed/seen.rs"]
#[allow(dead_code, reason = "another program's part, of which this one uses some")]
mod seen;
mod sweep;
mod tracer;

use common::As;
use launches::Launch;
use networks::Network;
use ports::Ports;
use sweep::sweep;

/// The injections of a short sweep.
const SHORT: usize = 40;

/// A short sweep and a long one for each scenario.
macro_rules! scenarios {
    ($($name:literal $short:ident $long:ident: $make:expr;)*) => {
        $(#[test]
        fn $short() {
            sweep($name, &|| Box::new($make), Some(SHORT));
        }

        #[test]
        #[ignore = "takes minutes; see the top of this file"]
        fn $long() {
            sweep($name, &|| Box::new($make), None);
        })*
    };
}

scenarios! {
    "launch-root" launch_as_root launch_as_root_long: Launch::new(As::Root, false);
    "launch-user" launch_as_user launch_as_user_long: Launch::new(As::User, false);
    "launch-bridge" launch_on_a_bridge launch_on_a_bridge_long: Launch::new(As::Root, true);
    "network-start" network_start network_start_long:
        Network::new(networks::Verb::Start, "nftables");
    "network-start-iptables" network_start_with_iptables network_start_with_iptables_long:
        Network::new(networks::Verb::Start, "iptables");
    "network-destroy" network_destroy network_destroy_long:
        Network::new(networks::Verb::Destroy, "nftables");
    "network-destroy-iptables" network_destroy_with_iptables network_destroy_with_iptables_long:
        Network::new(networks::Verb::Destroy, "iptables");
    "reload" firewall_reload firewall_reload_long:
        Network::new(networks::Verb::Reload, "nftables");
    "bind" bind bind_long: Ports::new(ports::Verb::Bind, "nftables");
    "bind-iptables" bind_with_iptables bind_with_iptables_long:
        Ports::new(ports::Verb::Bind, "iptables");
    "unbind" unbind unbind_long: Ports::new(ports::Verb::Unbind, "nftables");
    "redefine" redefine redefine_long: Ports::new(ports::Verb::Redefine, "nftables");
    "bind-learning" bind_and_learn bind_and_learn_long:
        Ports::new(ports::Verb::BindLearning, "nftables");
    "learn" learn learn_long: Ports::new(ports::Verb::Learn, "nftables");
}
