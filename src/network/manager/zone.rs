//! Chooses the firewalld zone of a network's bridge, and moves the bridge into it.
//!
//! If the definition names a zone, that zone is used, or the start fails. Otherwise the first of
//! two zones that firewalld has is used: netlaunch's own, which lets guests use only DHCP, DNS and
//! TFTP of the host, or libvirt's, which opens SSH as well. Each has a second variant that also
//! accepts packets from outside, for networks that are reached from there; the network's own rules
//! decide which of these packets pass. The zone `trusted` would also work, except for packets from
//! outside, but it opens every port of the host to guests. So only a definition selects it.
//!
//! If the administrator has already put the bridge into a zone, it stays there.

use super::{ManagerError, NetworkStatus, status};
use crate::firewall::{Firewalld, FirewalldError, ZoneChange};
use crate::network::{Forward, Network, NetworkName, ZoneName};

/// The zones of networks that are not reached from outside, the best first.
const INSIDE: [&str; 2] = ["netlaunch", "libvirt"];
/// The zones of networks that are reached from outside, the best first.
const ROUTED: [&str; 2] = ["netlaunch-routed", "libvirt-routed"];

/// Why a network's bridge could not be put into a zone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZoneError {
    /// firewalld does not run.
    #[error(
        "the network {name} wants the firewalld zone {zone}, and firewalld does not run; start firewalld, or remove zone='{zone}'"
    )]
    NotRunning {
        /// The network.
        name: NetworkName,
        /// The zone.
        zone: ZoneName,
    },
    /// firewalld has no such zone.
    #[error(
        "the network {name} wants the firewalld zone {zone}, which firewalld does not have; add it, or name one of {}",
        zones.join(", ")
    )]
    Unknown {
        /// The network.
        name: NetworkName,
        /// The zone.
        zone: ZoneName,
        /// The zones that firewalld has.
        zones: Vec<String>,
    },
    /// firewalld has no zone for networks.
    #[error(
        "firewalld runs and has no zone {} or {} for the network {name}; copy netlaunch's conf/firewalld to /etc/firewalld and run firewall-cmd --reload, or name a zone in <bridge>, such as zone='trusted'",
        wanted[0], wanted[1]
    )]
    NoneFits {
        /// The network.
        name: NetworkName,
        /// The zones that netlaunch looked for.
        wanted: [&'static str; 2],
    },
    /// firewalld or D-Bus failed.
    #[error(transparent)]
    Firewalld(#[from] FirewalldError),
}

/// Returns the change for a network, if firewalld has these zones and the bridge is in the zone
/// `current`; `None` if no change is needed.
fn choose(
    network: &Network,
    zones: &[String],
    current: Option<String>,
) -> Result<Option<ZoneChange>, ZoneError> {
    // An existing bridge keeps the zone that the host gave it.
    if network.forward == Forward::Bridge {
        return Ok(None);
    }
    let has = |zone: &str| zones.iter().any(|z| z == zone);
    let name = || network.name.clone();
    let wanted = match &network.bridge.zone {
        Some(zone) if has(zone.as_str()) => zone.as_str(),
        Some(zone) => {
            let (zone, zones) = (zone.clone(), zones.to_owned());
            return Err(ZoneError::Unknown { name: name(), zone, zones });
        }
        None if current.is_some() || network.forward == Forward::Open => return Ok(None),
        None => {
            let wanted = if from_outside(network) { ROUTED } else { INSIDE };
            let found = wanted.into_iter().find(|zone| has(zone));
            found.ok_or_else(|| ZoneError::NoneFits { name: name(), wanted })?
        }
    };
    let change = ZoneChange { zone: wanted.to_owned(), before: current };
    Ok(Some(change).filter(|change| change.before.as_ref() != Some(&change.zone)))
}

/// Returns whether connections from outside reach a network's guests by their own addresses.
fn from_outside(network: &Network) -> bool {
    match &network.forward {
        Forward::Route { .. } => true,
        // IPv6 without NAT is routed.
        Forward::Nat(nat) => !nat.ipv6 && network.ips.iter().any(|ip| ip.net.addr().is_ipv6()),
        Forward::Isolated | Forward::Open | Forward::Bridge => false,
    }
}

/// A running firewalld that has finished starting or reloading.
pub(super) struct Zones {
    firewalld: Firewalld,
    zones: Vec<String>,
}

impl Zones {
    /// Waits until firewalld is ready; returns `None` if it does not run.
    pub(super) async fn ready(bus: &str) -> Result<Option<Self>, ZoneError> {
        match Firewalld::find(bus).await? {
            Some(mut firewalld) => Ok(Some(Zones { zones: firewalld.zones().await?, firewalld })),
            None => Ok(None),
        }
    }

    /// Returns the change that a network needs; `None` if it needs none.
    pub(super) async fn change(
        &mut self,
        network: &Network,
    ) -> Result<Option<ZoneChange>, ZoneError> {
        let current = self.firewalld.zone_of(&network.bridge.name).await?;
        choose(network, &self.zones, current)
    }

    /// Puts a network's bridge into its zone.
    pub(super) async fn put(
        &mut self,
        change: ZoneChange,
        status: &mut NetworkStatus,
    ) -> Result<(), ManagerError> {
        let zone = change.zone.clone();
        // Record the change before it is made: removing a bridge from a zone that it is not in does
        // no harm.
        status.zone = Some(change);
        status.write()?;
        Ok(self.firewalld.put(&status.bridge, &zone).await?)
    }

    /// Puts the bridges of running networks back into zones that firewalld lost. Returns one
    /// sentence for each bridge.
    ///
    /// # Errors
    /// The error of the first bridge that failed; the other bridges are still handled.
    pub(super) async fn put_back(
        &mut self,
        running: &mut [NetworkStatus],
    ) -> Result<Vec<String>, ManagerError> {
        let (mut notes, mut result) = (Vec::new(), Ok(()));
        for status in running {
            let done = async {
                let network = status.network().ok_or_else(|| status::broken(&status.dir))?;
                let Some(change) = self.change(&network).await? else { return Ok(()) };
                let zone = change.zone.clone();
                self.put(change, status).await?;
                notes.push(format!("the bridge {} is in the zone {zone} again", status.bridge));
                Ok::<_, ManagerError>(())
            };
            result = result.and(done.await);
        }
        result.map(|()| notes)
    }
}

/// Returns the change of a start if firewalld does not run: none, or an error if the definition
/// names a zone.
pub(super) fn without_firewalld(network: &Network) -> Result<Option<ZoneChange>, ZoneError> {
    match network.bridge.zone.clone() {
        Some(zone) => Err(ZoneError::NotRunning { name: network.name.clone(), zone }),
        None => Ok(None),
    }
}

/// Removes a network's bridge from its zone, if firewalld still runs.
pub(super) async fn undo(bus: &str, status: &NetworkStatus) -> Result<(), FirewalldError> {
    let Some(change) = &status.zone else { return Ok(()) };
    match Firewalld::find(bus).await? {
        Some(mut firewalld) => firewalld.undo(&status.bridge, change).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(body: &str) -> Network {
        let xml = format!(
            "<network><name>n</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000001</uuid>\
             <mac address='52:54:00:00:00:01'/>{body}</network>"
        );
        crate::network::parse(xml.as_bytes(), None).unwrap().network
    }

    #[test]
    fn each_kind_of_network_has_its_zone() {
        const BRIDGE: &str = "<bridge name='br'/>";
        const V6: &str = "<ip family='ipv6' address='fd00::1' prefix='64'/>";
        let both: &[&str] =
            &["libvirt", "libvirt-routed", "netlaunch", "netlaunch-routed", "public"];
        let theirs: &[&str] = &["libvirt", "libvirt-routed", "public"];
        for (body, zones, current, expected) in [
            ("<forward mode='nat'/>", both, None, Some("netlaunch")),
            ("<forward mode='nat'/>", theirs, None, Some("libvirt")),
            ("", theirs, None, Some("libvirt")),
            ("<forward mode='route'/>", both, None, Some("netlaunch-routed")),
            ("<forward mode='route'/>", theirs, None, Some("libvirt-routed")),
            (&format!("<forward mode='nat'/>{V6}"), both, None, Some("netlaunch-routed")),
            (
                &format!("<forward mode='nat'><nat ipv6='yes'/></forward>{V6}"),
                both,
                None,
                Some("netlaunch"),
            ),
            ("<forward mode='open'/>", both, None, None),
            // The administrator's choice stays, the definition's is done.
            ("<forward mode='nat'/>", both, Some("public"), None),
            ("<forward mode='open'/>", &[], Some("public"), None),
        ] {
            let zones: Vec<String> = zones.iter().map(|&zone| zone.into()).collect();
            let network = network(&format!("{BRIDGE}{body}"));
            let change = choose(&network, &zones, current.map(str::to_owned)).unwrap();
            assert_eq!(change.map(|change| change.zone).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn a_named_zone_is_the_zone() {
        let zones = ["public", "work"].map(str::to_owned);
        let named = |mode: &str| network(&format!("<bridge name='br' zone='work'/>{mode}"));
        for (current, expected) in [(None, true), (Some("public"), true), (Some("work"), false)] {
            let before = current.map(str::to_owned);
            let expected = expected.then(|| ZoneChange { zone: "work".into(), before });
            for mode in ["<forward mode='nat'/>", "<forward mode='open'/>"] {
                let change = choose(&named(mode), &zones, current.map(str::to_owned)).unwrap();
                assert_eq!(change, expected, "{mode}");
            }
        }
        let error = choose(&named(""), &zones[..1], None).unwrap_err().to_string();
        assert_eq!(
            error,
            "the network n wants the firewalld zone work, which firewalld does not have; add it, or name one of public"
        );
        let error = without_firewalld(&named("")).unwrap_err().to_string();
        assert!(error.contains("firewalld does not run"), "{error}");
    }

    #[test]
    fn a_firewalld_without_a_fitting_zone_is_refused() {
        let network = network("<bridge name='br'/><forward mode='nat'/>");
        let error = choose(&network, &["public".to_owned()], None).unwrap_err().to_string();
        assert!(error.contains("no zone netlaunch or libvirt for the network n"), "{error}");
    }
}
