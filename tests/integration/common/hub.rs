//! The bridge that ports of tests are on, and what its kernel can do.

use super::frame::{BRIDGE, mac_text};
use super::{Netns, run};

/// The backends to test: both, or the one that NETLAUNCH_TEST_BACKEND names. With nftables alone,
/// br_netfilter is not loaded.
pub fn backends() -> Vec<&'static str> {
    let one = std::env::var("NETLAUNCH_TEST_BACKEND").ok();
    let all = ["nftables", "iptables"];
    all.into_iter().filter(|backend| one.as_deref().is_none_or(|one| one == *backend)).collect()
}

/// A namespace with the bridge br0, whose packets iptables sees, and which sends every frame to all
/// ports.
pub fn hub() -> Netns {
    let netns = Netns::bare();
    let bridge_netfilter = std::path::Path::new("/proc/sys/net/bridge");
    if !bridge_netfilter.exists() && backends().contains(&"iptables") {
        run("modprobe", &["br_netfilter"]);
    }
    netns.inside(|| {
        if bridge_netfilter.exists() {
            for tool in ["iptables", "ip6tables"] {
                let file = bridge_netfilter.join(format!("bridge-nf-call-{tool}"));
                std::fs::write(file, "1").unwrap();
            }
        }
        for (file, value) in [
            ("ipv4/icmp_ratelimit", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv6/icmp/ratelimit", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/addr_gen_mode", "1"),
        ] {
            std::fs::write(format!("/proc/sys/net/{file}"), value).unwrap();
        }
    });
    netns.ip(&format!(
        "link add br0 address {} type bridge ageing_time 0 stp_state 0 mcast_snooping 0 forward_delay 0",
        mac_text(BRIDGE.mac)
    ));
    netns.ip("link set br0 up");
    netns
}

/// Whether this kernel tracks connections in the bridge family: a rule that needs it is tried.
pub fn tracks_bridges() -> bool {
    let netns = Netns::bare();
    let rules = "add table bridge p; add chain bridge p c { type filter hook prerouting priority 0; }; add rule bridge p c ct state new accept";
    let tried = run("ip", &["netns", "exec", &netns.name, "nft", rules]);
    tried.status.success()
}
