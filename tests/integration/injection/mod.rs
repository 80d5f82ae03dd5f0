//! Injects one error into one system call at one occurrence, over all commands of netlaunch.
//!
//! With any fault, netlaunch does not panic, ends in time, reports the reason in one line, and
//! reports success only if the result is there. The next command leaves nothing behind.
//!
//! Each scenario has a short sweep, which is a normal test, and a long one:
//!
//! ```text
//! cargo test --test integration injection:: -- --ignored --nocapture   long sweeps of all
//! scenarios NETLAUNCH_INJECT_LIMIT=1000 ...                                 of so many injections
//! each NETLAUNCH_INJECT_SEED=11 ...                                    of another sample
//! NETLAUNCH_INJECT_CASE=network-start:main:openat:EMFILE:7 ...    one case alone
//! NETLAUNCH_INJECT_ERRORS=all ...       ENOSPC, EIO, EMFILE, ENOMEM and EINTR for each call
//! ```

mod cases;
mod definitions;
mod errors;
mod judge;
mod launches;
mod networks;
mod ports;
mod sweep;
mod tracer;

use crate::common::{As, extent};
use definitions::{Definitions, Kind};
use launches::Launch;
use networks::Network;
use ports::Ports;
use sweep::sweep;

/// Returns the number of injections in a short sweep.
fn short() -> usize {
    extent(9, 40)
}

/// Makes the tests of a short and a long sweep for each scenario.
macro_rules! scenarios {
    ($($name:literal $short:ident $long:ident: $make:expr;)*) => {
        $(#[test]
        fn $short() {
            sweep($name, &|| Box::new($make), Some(short()));
        }

        #[test]
        #[ignore = "takes minutes; see the top of this file"]
        fn $long() {
            sweep($name, &|| Box::new($make), None);
        })*
    };
}

scenarios! {
    "launch-root"
        launch_as_root_handles_a_failed_call
        launch_as_root_handles_a_failed_call_long:
        Launch::new(As::Root, false);
    "launch-user"
        launch_as_user_handles_a_failed_call
        launch_as_user_handles_a_failed_call_long:
        Launch::new(As::User, false);
    "launch-bridge"
        launch_on_a_bridge_handles_a_failed_call
        launch_on_a_bridge_handles_a_failed_call_long:
        Launch::new(As::Root, true);
    "network-start"
        network_start_handles_a_failed_call
        network_start_handles_a_failed_call_long:
        Network::new(networks::Verb::Start, "nftables");
    "network-start-iptables"
        network_start_handles_a_failed_call_with_iptables
        network_start_handles_a_failed_call_with_iptables_long:
        Network::new(networks::Verb::Start, "iptables");
    "network-destroy"
        network_destroy_handles_a_failed_call
        network_destroy_handles_a_failed_call_long:
        Network::new(networks::Verb::Destroy, "nftables");
    "network-destroy-iptables"
        network_destroy_handles_a_failed_call_with_iptables
        network_destroy_handles_a_failed_call_with_iptables_long:
        Network::new(networks::Verb::Destroy, "iptables");
    "reload"
        firewall_reload_handles_a_failed_call
        firewall_reload_handles_a_failed_call_long:
        Network::new(networks::Verb::Reload, "nftables");
    "reload-iptables"
        firewall_reload_handles_a_failed_call_with_iptables
        firewall_reload_handles_a_failed_call_with_iptables_long:
        Network::new(networks::Verb::Reload, "iptables");
    "reload-ports"
        firewall_reload_of_ports_handles_a_failed_call
        firewall_reload_of_ports_handles_a_failed_call_long:
        Ports::new(ports::Verb::Reload, "nftables");
    "reload-ports-iptables"
        firewall_reload_of_ports_handles_a_failed_call_with_iptables
        firewall_reload_of_ports_handles_a_failed_call_with_iptables_long:
        Ports::new(ports::Verb::Reload, "iptables");
    "bind"
        bind_handles_a_failed_call
        bind_handles_a_failed_call_long:
        Ports::new(ports::Verb::Bind, "nftables");
    "bind-iptables"
        bind_handles_a_failed_call_with_iptables
        bind_handles_a_failed_call_with_iptables_long:
        Ports::new(ports::Verb::Bind, "iptables");
    "unbind"
        unbind_handles_a_failed_call
        unbind_handles_a_failed_call_long:
        Ports::new(ports::Verb::Unbind, "nftables");
    "redefine"
        redefine_handles_a_failed_call
        redefine_handles_a_failed_call_long:
        Ports::new(ports::Verb::Redefine, "nftables");
    "redefine-iptables"
        redefine_handles_a_failed_call_with_iptables
        redefine_handles_a_failed_call_with_iptables_long:
        Ports::new(ports::Verb::Redefine, "iptables");
    "define-network"
        define_of_a_network_handles_a_failed_call
        define_of_a_network_handles_a_failed_call_long:
        Definitions::new(As::Root, Kind::Network);
    "define-network-user"
        define_of_a_network_as_user_handles_a_failed_call
        define_of_a_network_as_user_handles_a_failed_call_long:
        Definitions::new(As::User, Kind::Network);
    "define-filter"
        define_of_a_filter_handles_a_failed_call
        define_of_a_filter_handles_a_failed_call_long:
        Definitions::new(As::Root, Kind::Filter);
    "define-filter-user"
        define_of_a_filter_as_user_handles_a_failed_call
        define_of_a_filter_as_user_handles_a_failed_call_long:
        Definitions::new(As::User, Kind::Filter);
    "bind-learning"
        bind_with_learning_handles_a_failed_call
        bind_with_learning_handles_a_failed_call_long:
        Ports::new(ports::Verb::BindLearning, "nftables");
    "learn"
        learner_process_handles_a_failed_call
        learner_process_handles_a_failed_call_long:
        Ports::new(ports::Verb::Learn, "nftables");
}
