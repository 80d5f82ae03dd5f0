//! The settings of a network's ports and of its bridge: limits of traffic, VLANs and isolation.

use super::ManagerError;
use crate::network::{Network, PortGroup, PortProperties};
use crate::types::{PortGroupName, PortSettings, Vlan, VlanId};

/// Returns the settings of a guest's port on a running network. Without a group, they are those of
/// the default group, if the network has one.
///
/// The VLANs and the isolation of the group come before those of the network. The limits are the
/// group's alone, because those of the network hold for all guests together, on the bridge.
///
/// # Errors
/// [`ManagerError::NoPortGroup`].
pub(super) fn settings(
    network: &Network,
    name: Option<&PortGroupName>,
) -> Result<PortSettings, ManagerError> {
    let group = network.port_group(name);
    if let (Some(name), None) = (name, group) {
        let groups = network.port_groups.iter().map(|group| group.name.to_string());
        return Err(ManagerError::NoPortGroup {
            name: network.name.clone(),
            group: name.clone(),
            groups: groups.collect(),
        });
    }
    let (all, none) = (&network.port, PortProperties::default());
    let own = group.map_or(&none, |group: &PortGroup| &group.port);
    Ok(PortSettings {
        bandwidth: own.bandwidth,
        vlan: own.vlan.clone().or_else(|| all.vlan.clone()),
        isolated: own.isolated.or(all.isolated) == Some(true),
    })
}

/// Returns the VLAN of the bridge itself, and so of the host; `None` if no port of the network has
/// VLANs. It is that of the guests' frames without a tag, so that guests reach the host, or 1 if
/// the network sets none.
pub(super) fn bridge_vlan(network: &Network) -> Option<VlanId> {
    let groups = network.port_groups.iter().map(|group| &group.port);
    if groups.chain([&network.port]).all(|port| port.vlan.is_none()) {
        return None;
    }
    match &network.port.vlan {
        Some(Vlan::Access(id)) => Some(*id),
        Some(Vlan::Trunk { native: Some(native), .. }) => Some(native.id),
        // 1 is a VLAN.
        _ => VlanId::try_from(1).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::parse;

    fn network(inside: &str) -> Network {
        let text = format!(
            "<network><name>lab</name><uuid>{:032}</uuid><bridge name='nl0'/>\
             <mac address='52:54:00:00:00:01'/>{inside}</network>",
            1
        );
        parse(text.as_bytes(), None).unwrap().network
    }

    const GROUPS: &str = "<bandwidth><inbound average='9'/></bandwidth><port isolated='yes'/>
        <vlan><tag id='42'/></vlan>
        <portgroup name='fast'><port isolated='no'/></portgroup>
        <portgroup name='slow' default='yes'>
          <bandwidth><outbound average='100' peak='200' burst='300'/></bandwidth>
          <vlan trunk='yes'><tag id='7'/><tag id='8' nativeMode='tagged'/></vlan>
        </portgroup>";

    #[test]
    fn a_group_comes_before_the_network_and_the_default_group_before_none() {
        let network = network(GROUPS);
        let of = |name: Option<&str>| {
            let name = name.map(|name| name.parse().unwrap());
            let port = settings(&network, name.as_ref()).unwrap();
            let vlan = port.vlan.map(|vlan| vlan.to_string()).unwrap_or_default();
            format!("{} {vlan} {}", port.bandwidth, port.isolated)
        };
        assert_eq!(of(Some("fast")), " 42 false");
        assert_eq!(of(Some("slow")), "outbound=100/200/300 trunk 7-8 native 8 tagged true");
        assert_eq!(of(None), of(Some("slow")));
    }

    #[test]
    fn an_unknown_group_is_refused_with_those_there() {
        let refusal = |inside: &str| {
            settings(&network(inside), Some(&"x".parse().unwrap())).unwrap_err().to_string()
        };
        let start = "the network lab has no port group x; it has";
        assert_eq!(refusal(GROUPS), format!("{start} fast, slow"));
        let advice = "leave the port group out, or define the network with one";
        assert_eq!(refusal(""), format!("{start} none: {advice}"));
    }

    #[test]
    fn the_host_is_in_the_native_vlan_of_the_network() {
        let group = |vlan: &str| format!("<portgroup name='g'><vlan>{vlan}</vlan></portgroup>");
        let vlan = |inside: &str| bridge_vlan(&network(inside)).map(u16::from);
        assert_eq!(vlan("<portgroup name='g'/>"), None);
        assert_eq!(vlan(&group("<tag id='5'/>")), Some(1));
        assert_eq!(vlan(GROUPS), Some(42));
        let native = "<vlan><tag id='3'/><tag id='4' nativeMode='untagged'/></vlan>";
        assert_eq!(vlan(native), Some(4));
    }
}
