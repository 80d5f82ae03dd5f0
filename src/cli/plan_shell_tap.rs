//! The part of a plan's shell text that is about taps: their lines, their names in QEMU's
//! arguments, and the firewall rules of their ports.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::plan_shell::Script;
use crate::launcher::plan::{BridgePlan, NicPlan, Plan, TapOwner};
use crate::nwfilter::Binding;
use crate::sys::traffic;
use crate::types::facts::{FirewallScript, RulesOf};
use crate::types::printable::printable;
use crate::types::{self, Bandwidth, InterfaceName, PortSettings, VlanRun, shell_line};

/// Makes a tap with the rules of its filter, and turns it on.
pub(super) fn with_tap(
    plan: &Plan,
    nic: &NicPlan,
    bridge: &BridgePlan,
    place: usize,
    script: &mut Script,
) {
    if bridge.tap_owner != TapOwner::Netlaunch {
        return;
    }
    let (Some(tap), Some(mac)) = (tap_name(plan, place), nic.mac) else { return };
    let owner = plan.user.as_ref().map(|user| format!(" user {user}")).unwrap_or_default();
    let several = if bridge.queue_fds.len() > 1 { " multi_queue vnet_hdr" } else { "" };
    script.lines.push(format!("ip tuntap add dev {tap} mode tap{owner}{several} || exit"));
    let binding = bridge.filter.as_ref().map(|filter| Binding {
        owner: None,
        port: tap.clone(),
        linkdev: None,
        mac,
        filter: filter.name.clone(),
        parameters: filter.parameters.clone(),
    });
    let unbind = match binding {
        Some(_) => format!("netlaunch nwfilter binding-delete {tap}; "),
        None => String::new(),
    };
    script.undo(format!("{unbind}ip link delete dev {tap}"));
    script.lines.push(format!("echo 1 >/proc/sys/net/ipv6/conf/{tap}/disable_ipv6"));
    limits(&tap, &bridge.port.bandwidth, script);
    let address = mac.host_side();
    let master = types::quote(bridge.bridge.as_str().as_ref());
    script.lines.push(format!("ip link set dev {tap} address {address} master {master}"));
    if bridge.network.is_some() {
        script.lines.push(format!("bridge link set dev {tap} guard on"));
    }
    script.lines.extend(kept_apart(&tap, &bridge.port));
    if !nic.publish.is_empty() {
        script.lines.push(format!("bridge link set dev {tap} hairpin on"));
    }
    if let Some(binding) = binding {
        script.lines.push("netlaunch nwfilter binding-create - <<'END' || exit".to_owned());
        script.lines.push(printable_lines(&binding.to_xml()));
        script.lines.push("END".to_owned());
    }
    script.lines.push(format!("ip link set dev {tap} up"));
}

/// Limits the traffic of a tap.
fn limits(tap: &InterfaceName, bandwidth: &Bandwidth, script: &mut Script) {
    // The name is as long as the tap's, so it always is a name.
    let ifb = tap.as_str().replacen("nl-", "no-", 1).parse::<InterfaceName>();
    let Some(ifb) = ifb.ok().filter(|_| !bandwidth.is_unlimited()) else { return };
    if bandwidth.outbound.is_some() {
        script.lines.push(format!("ip link add dev {ifb} type ifb || exit"));
        script.undo(format!("ip link delete dev {ifb}"));
        script.lines.push(format!("echo 1 >/proc/sys/net/ipv6/conf/{ifb}/disable_ipv6"));
        script.lines.push(format!("ip link set dev {ifb} up"));
    }
    script.lines.push("tc -batch - <<'END' || exit".to_owned());
    script.lines.push(traffic::commands(tap, &ifb, bandwidth).trim_end().to_owned());
    script.lines.push("END".to_owned());
}

/// Returns the lines that give a port its VLANs and isolate it.
fn kept_apart(tap: &InterfaceName, port: &PortSettings) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(vlan) = &port.vlan {
        lines.push(format!("bridge vlan del dev {tap} vid 1-4094"));
        for VlanRun { first, last, native, untagged } in vlan.runs() {
            let last = if first == last { String::new() } else { format!("-{last}") };
            let native = if native { " pvid" } else { "" };
            let untagged = if untagged { " untagged" } else { "" };
            let line = format!("bridge vlan add dev {tap} vid {first}{last}{native}{untagged}");
            lines.push(format!("{line} || exit"));
        }
    }
    if port.isolated {
        lines.push(format!("bridge link set dev {tap} isolated on || exit"));
    }
    lines
}

fn printable_lines(text: &str) -> String {
    text.trim_end().lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// A name for the tap of the NIC at `place`: that of a launch with a name, or the launch
/// directory's letters, and from the second NIC on a number.
pub(super) fn tap_name(plan: &Plan, place: usize) -> Option<InterfaceName> {
    if let Some(launch) = &plan.name {
        return types::tap_name(launch, place);
    }
    let name = plan.dir.file_name()?.to_str()?;
    let letters = name.strip_prefix("launch-").unwrap_or(name);
    let number = if place == 0 { String::new() } else { format!("-{}", place + 1) };
    format!("nl-{letters}{number}").parse().ok()
}

/// The netdev with the tap's name in place of its descriptors.
pub(super) fn by_name(word: &OsStr, taps: &[(&BridgePlan, InterfaceName)]) -> OsString {
    let netdev = taps.iter().find_map(|(bridge, tap)| {
        let netdev = word.as_bytes().strip_suffix(bridge.descriptors().as_bytes())?;
        netdev.starts_with(b"tap,id=").then_some((netdev, bridge, tap))
    });
    match netdev {
        Some((netdev, bridge, tap)) => {
            let mut netdev = OsString::from_vec(netdev.to_vec());
            netdev.push(format!(",ifname={tap},script=no,downscript=no"));
            if bridge.queue_fds.len() > 1 {
                netdev.push(format!(",queues={}", bridge.queue_fds.len()));
            }
            if !bridge.vhost_fds.is_empty() {
                netdev.push(",vhost=on");
            }
            netdev
        }
        None => word.to_owned(),
    }
}

/// The firewall rules as comments: those of the network are set already, those of the port are set
/// by its filter.
pub(super) fn rules(bridge: &BridgePlan) -> Vec<String> {
    let mut lines = Vec::new();
    for script in &bridge.firewall {
        let FirewallScript { of, program, args, input } = script;
        let tool = shell_line(&[std::slice::from_ref(program), args].concat());
        let whose = match (of, &bridge.network) {
            (RulesOf::Network, Some(network)) => {
                format!("the network {network}, set when it was started")
            }
            (RulesOf::Network, None) => format!("the bridge {}", bridge.bridge),
            (RulesOf::Published, _) => {
                "the network with the published ports, set again when the guest's address changes"
                    .to_owned()
            }
            (RulesOf::Port, _) => match &bridge.filter {
                Some(filter) => format!("the guest's port, by the filter {}", filter.name),
                None => "the guest's port".to_owned(),
            },
        };
        lines.push(format!("# rules of {whose}: {tool}"));
        lines.extend(input.lines().map(|line| format!("#   {}", printable(line))));
    }
    lines
}
