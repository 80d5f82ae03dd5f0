//! Checks the rules of `netlaunch nwfilter watch` when the command starts.
//!
//! A rule that would close an interface of the host itself stops the command before the guard is
//! set. A rule whose filter cannot be bound does not: its ports stay closed, and the ports of the
//! other rules get their filters. A changed rule does not change a port that is bound already, so
//! the command names each such port.

use std::path::Path;

use super::nwfilter_config::WatchRule;
use super::nwfilter_error::NwfilterError;
use super::nwfilter_watch_place::WatchedPlace;
use crate::firewall::FirewallBackend;
use crate::nwfilter::port::{Bindings, NotOnBridge, site_of};
use crate::sys::netlink::{GuestTap, HostNet, Link, Netlink, is_link_local};
use crate::types::{Mac, MacPrefix, Parameter};

/// Refuses a rule that names loopback, or an interface on no bridge that has an address.
///
/// # Errors
/// [`NwfilterError::WatchRule`], or the error of the kernel.
pub(super) async fn refuse_rules_for_the_host(
    rules: &[WatchRule],
    path: &Path,
    backend: Option<FirewallBackend>,
) -> Result<(), NwfilterError> {
    let netlink = Netlink::open()?;
    let host = netlink.host().await?;
    // The guard of the host's packets has no rule for a certain bridge.
    for rule in rules.iter().filter(|rule| rule.bridge.is_none()) {
        for link in host.links.iter().filter(|link| rule.port.matches(&link.name)) {
            if let Some(why) = reason(link, &host, backend) {
                return Err(NwfilterError::WatchRule {
                    path: path.to_owned(),
                    place: rule.place,
                    rule: rule.port.clone(),
                    interface: link.name.clone(),
                    why,
                });
            }
        }
    }
    Ok(())
}

/// Returns why the host needs an interface that the guard would close.
fn reason(link: &Link, host: &HostNet, backend: Option<FirewallBackend>) -> Option<String> {
    let why = site_of(link, &host.links).err()?;
    if why == NotOnBridge::Loopback {
        return Some("the loopback interface of this host".to_owned());
    }
    // The guard of nftables does not close bridges.
    if why == NotOnBridge::Bridge && backend != Some(FirewallBackend::Iptables) {
        return None;
    }
    let own = host.addresses.iter().filter(|address| address.link == link.index);
    let address = own.map(|address| address.address).find(|address| !is_link_local(address))?;
    Some(format!("which has the address {address} of this host and is not the port of a bridge"))
}

/// Reports each rule whose filter cannot be bound, with its place in the file.
pub(super) fn report_bad_rules(rules: &[WatchRule], path: &Path, bindings: &Bindings) {
    for rule in rules {
        // A pattern is the name of an interface, too.
        let Ok(port) = rule.port.as_str().parse() else { continue };
        let binding = rule.binding(&port, sample_mac(rule));
        if let Err(error) = bindings.check_beside_guard(&binding) {
            let ((line, column), path) = (rule.place, path.display());
            let error = NwfilterError::from(error);
            tracing::error!("{path}:{line}:{column}: {error}; the ports of this rule stay closed");
        }
    }
}

/// Returns an address of the rule's guests.
fn sample_mac(rule: &WatchRule) -> Mac {
    let whole = rule.mac.as_ref().and_then(MacPrefix::whole);
    let named = rule.parameters.iter().find(|(name, _)| name.as_str() == "MAC");
    whole
        .or_else(|| named.and_then(|(_, value)| value.as_str().parse().ok()))
        .unwrap_or_else(|| Mac::random(&mut rand::rng()))
}

/// Warns of each bound port that has another filter or other parameters than its rule. The filter
/// of a launch's tap belongs to the launch.
pub(super) fn warn_of_other_bindings(
    rules: &[WatchRule],
    path: &Path,
    bindings: &Bindings,
    links: &[Link],
) {
    for status in bindings.list().unwrap_or_default() {
        let Some(link) = links.iter().find(|link| link.index == status.index) else { continue };
        let (Some(place), None) = (WatchedPlace::of(link, links), GuestTap::of(link)) else {
            continue;
        };
        let Ok(binding) = bindings.binding(&status) else { continue };
        let port = &status.port;
        let mut own = rules.iter().filter(|rule| rule.is_for(port.as_str(), &place, binding.mac));
        let Some(rule) = own.next() else { continue };
        if rule.filter == binding.filter && same(&rule.parameters, &binding.parameters) {
            continue;
        }
        let ((line, column), path) = (rule.place, path.display());
        let parameter = |(name, value): &Parameter| format!(" -p {name}={value}");
        let parameters: String = rule.parameters.iter().map(parameter).collect();
        tracing::warn!(
            "the port {port} keeps its binding to the filter {}, which differs from its rule at {path}:{line}:{column}: netlaunch nwfilter bind {port} {}{parameters} --replace",
            binding.filter,
            rule.filter,
        );
    }
}

/// Returns whether parameters have the same values, in any order of the names.
fn same(one: &[Parameter], other: &[Parameter]) -> bool {
    let sorted = |all: &[Parameter]| {
        let mut all = all.to_vec();
        // The order of the values of one name stays.
        all.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        all
    };
    sorted(one) == sorted(other)
}
