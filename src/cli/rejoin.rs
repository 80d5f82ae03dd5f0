//! Attaches the taps of running launches to their bridges again.
//!
//! A tap is on no bridge after its bridge was removed, or after `ip link set TAP nomaster`. Its
//! alias still names the launch, the network and the bridge ([`GuestTap`]). The order is: find the
//! taps without a bridge, check the rules of their filters, attach them.
//!
//! A tap whose port has a filter is attached only while the rules of that filter are in the kernel:
//! no frame passes unfiltered.

use std::path::Path;

use super::Failure;
use super::binding_list::warn_of_problems;
use super::environment::Environment;
use super::nwfilter;
use crate::firewall::RulesKnown;
use crate::network::NetworkName;
use crate::network::manager::{Manager, NetworkLocation, NetworkStatus};
use crate::nwfilter::port::{BindingError, Bindings, FilterState, PortProblem, Reloaded};
use crate::sys::netlink::{GuestTap, Link, LinkError, Netlink};
use crate::types::{InterfaceName, error_text};

/// Attaches the taps of the networks that were just started, with the rules of their filters. An
/// error is only a warning, because the networks are started.
pub(super) async fn after_start(
    manager: &Manager,
    started: &[NetworkName],
    config_dir: &Path,
    environment: &Environment,
) {
    let done = async {
        let of_network = |tap: &GuestTap| {
            let network = tap.home.network.as_deref();
            started.iter().any(|name| network == Some(name.as_str()))
        };
        let mut taps = without_bridge(&Netlink::open()?.links().await?);
        taps.retain(of_network);
        if taps.is_empty() {
            return Ok(());
        }
        let bindings = nwfilter::bindings(config_dir, environment)?;
        if !unready(&bindings, &taps).await.is_empty() {
            for note in bindings.reload().await? {
                tracing::info!("{note}");
            }
        }
        attach(manager, &bindings, taps).await.iter().for_each(|note| tracing::info!("{note}"));
        Ok::<(), Failure>(())
    };
    if let Err(error) = done.await {
        tracing::warn!(
            "cannot put the guests that ran before on their bridge: {}; then run netlaunch firewall reload",
            error_text(&error)
        );
    }
}

/// Attaches all taps of launches that are on no bridge, then warns of each port whose filter is
/// still not in force. Returns a sentence for each attached tap; an error is only a warning.
/// Without `reloaded`, the rules of ports were not reloaded. `links` are the host's interfaces as
/// they were after the networks' reload, if they could be read.
pub(super) async fn after_reload(
    manager: &Manager,
    bindings: &Bindings,
    reloaded: Option<&mut Reloaded>,
    links: Option<Vec<Link>>,
) -> Vec<String> {
    let mut notes = Vec::new();
    let links = links.filter(|links| without_bridge(links).is_empty());
    if links.is_none() {
        // A launch may have attached its own tap since, so the links are read now.
        match async { Netlink::open()?.links().await }.await {
            Ok(found) => notes = attach(manager, bindings, without_bridge(&found)).await,
            Err::<_, LinkError>(error) => tracing::warn!("{}", error_text(&error)),
        }
    }
    let checked = async {
        let (ports, known) = match reloaded {
            Some(reloaded) => (std::mem::take(&mut reloaded.ports), RulesKnown::NftCommitted),
            None => (bindings.list()?, RulesKnown::Nothing),
        };
        bindings.not_in_force(ports, links.as_deref(), known).await
    };
    match checked.await {
        Ok(ports) => {
            for PortProblem { port, check, .. } in &ports {
                warn_of_problems(port, &check.problems);
            }
        }
        Err(BindingError::OtherNamespace(_)) => {}
        Err(error) => tracing::warn!("{}", error_text(&error)),
    }
    notes
}

/// Returns the taps of launches among these links that are on no bridge, bond or other master.
fn without_bridge(links: &[Link]) -> Vec<GuestTap> {
    let taps = links.iter().filter(|link| link.master.is_none());
    taps.filter_map(GuestTap::of).collect()
}

/// Attaches these taps. Returns a sentence for each attached tap.
pub(super) async fn attach(
    manager: &Manager,
    bindings: &Bindings,
    taps: Vec<GuestTap>,
) -> Vec<String> {
    let mut notes = Vec::new();
    if taps.is_empty() {
        return notes;
    }
    let unready = unready(bindings, &taps).await;
    let active = manager.active().unwrap_or_else(|error| {
        tracing::warn!("{}", error_text(&error));
        Vec::new()
    });
    for tap in taps {
        let name = &tap.port;
        let Some(bridge) = bridge(&active, &tap) else { continue };
        if unready.contains(&tap.index) {
            tracing::warn!(
                "the tap {name} stays on no bridge while the rules of its filter are not set"
            );
            continue;
        }
        let attached = async { Netlink::open()?.reattach(&tap, &bridge).await };
        match attached.await {
            Ok(true) => {
                let launch = tap.home.launch.as_ref();
                let of = launch.map_or_else(String::new, |name| format!(" of the launch {name}"));
                notes.push(format!("the tap {name}{of} was on no bridge and is on {bridge} again"));
            }
            // The tap was removed in the meantime.
            Ok(false) => {}
            Err(LinkError::Missing(missing)) if missing == *name => {}
            Err(error) => tracing::warn!("the tap {name} is on no bridge: {}", error_text(&error)),
        }
    }
    notes
}

/// Returns whether the network of a tap is active here; true for a tap without a network.
pub(super) fn has_network(manager: &Manager, tap: &GuestTap) -> bool {
    let Some(network) = &tap.home.network else { return true };
    manager.active().is_ok_and(|active| running(&active, network).is_some())
}

/// Returns the network with this name, if it runs in this network namespace.
fn running<'a>(active: &'a [NetworkStatus], network: &str) -> Option<&'a NetworkStatus> {
    active.iter().find(|status| {
        status.name.as_str() == network && status.location() == NetworkLocation::Here
    })
}

/// Returns the bridge of a tap: that of its network, if the network is among the `active` ones, or
/// the bridge that the launch named.
fn bridge(active: &[NetworkStatus], tap: &GuestTap) -> Option<InterfaceName> {
    let Some(network) = &tap.home.network else { return Some(tap.home.bridge.clone()) };
    let runs = running(active, network);
    if runs.is_none() {
        tracing::warn!(
            "the tap {} is on no bridge, since the network {network} is not active; netlaunch network start {network} puts it back",
            tap.port
        );
    }
    runs.map(|status| status.bridge.clone())
}

/// Returns the interface indices of the taps whose filters are not known to be in force.
async fn unready(bindings: &Bindings, taps: &[GuestTap]) -> Vec<u32> {
    let checked = async {
        let mut live = bindings.list()?;
        live.retain(|status| taps.iter().any(|tap| tap.index == status.index));
        let checked = bindings.check_ports(live).await?;
        let without = checked.iter().filter(|(_, check)| {
            check.rules_problem.is_some() || check.state == FilterState::Unknown
        });
        Ok(without.map(|(status, _)| status.index).collect())
    };
    match checked.await {
        Ok(unready) => unready,
        // The state directory belongs to another network namespace, so these ports have no filter.
        Err(BindingError::OtherNamespace(_)) => Vec::new(),
        Err(error) => {
            tracing::warn!("{}", error_text(&error));
            taps.iter().map(|tap| tap.index).collect()
        }
    }
}
