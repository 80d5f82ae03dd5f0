//! Sets the isolation and the VLANs of a bridge's port.
//!
//! The kernel removes both settings when the port leaves its bridge, and a new port has the
//! bridge's default VLAN and is not isolated. So a port that must have them is off until both are
//! set: no frame of the guest takes another way.

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{BridgeVlanInfoFlags, InfoBridge, LinkMessage};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkBridgeVlan, LinkMessageBuilder};

use super::request::Again;
use super::{LinkError, Netlink};
use crate::types::{InterfaceName, Vlan, VlanRun};

/// The lowest and the highest VLAN.
const ALL: (u16, u16) = (1, 4094);

impl Netlink {
    /// Isolates a port: it exchanges frames only with ports that are not isolated, and with the
    /// bridge itself.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist, is not a port, or the kernel refuses.
    pub async fn isolate(&self, port: &InterfaceName) -> Result<(), LinkError> {
        let link = self.link(port).await?;
        let message = LinkBridgePort::new(link.index).isolated(true).build();
        self.change(message, || format!("isolate the port {port}")).await
    }

    /// Makes a bridge keep VLANs apart. The VLANs that its ports have stay.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist or the kernel refuses.
    pub async fn filter_vlans(&self, bridge: &InterfaceName) -> Result<(), LinkError> {
        let message = LinkMessageBuilder::<LinkBridge>::new(bridge.as_str()).vlan_filtering(true);
        self.change(message.build(), || format!("make {bridge} filter VLANs")).await
    }

    /// Gives a port these VLANs in place of all others. A program that watches the port sees it
    /// without any VLAN for a moment.
    ///
    /// # Errors
    /// Returns [`LinkError::VlansIgnored`] if the bridge does not filter VLANs, or an error if an
    /// interface does not exist, is not a port, or the kernel refuses.
    pub async fn set_vlans(
        &self,
        port: &InterfaceName,
        bridge: &InterfaceName,
        vlan: &Vlan,
    ) -> Result<(), LinkError> {
        if self.bridge(bridge).await?.vlan_filtering != Some(true) {
            let (port, bridge) = (port.clone(), bridge.clone());
            return Err(LinkError::VlansIgnored { port, bridge });
        }
        let index = self.link(port).await?.index;
        let none = range(LinkBridgeVlan::new(index), ALL, BridgeVlanInfoFlags::empty()).build();
        self.vlans(RouteNetlinkMessage::DelLink(none), port).await?;
        // The kernel takes a native VLAN only outside of a run, so each run is a request.
        for run in vlan.runs() {
            self.vlans(RouteNetlinkMessage::SetLink(message(index, run)), port).await?;
        }
        Ok(())
    }

    async fn vlans(
        &self,
        message: RouteNetlinkMessage,
        port: &InterfaceName,
    ) -> Result<(), LinkError> {
        let changed = self.requests.change(message, Again::Same).await;
        changed.map_err(|failure| {
            LinkError::failed(format!("set the VLANs of the port {port}"), failure)
        })
    }
}

/// Returns whether a bridge with these properties filters VLANs.
pub(super) fn vlan_filtering(data: &[InfoBridge]) -> Option<bool> {
    data.iter().find_map(|property| match property {
        InfoBridge::VlanFiltering(on) => Some(*on),
        _ => None,
    })
}

fn message(index: u32, run: VlanRun) -> LinkMessage {
    let mut flags = BridgeVlanInfoFlags::empty();
    flags.set(BridgeVlanInfoFlags::Pvid, run.native);
    flags.set(BridgeVlanInfoFlags::Untagged, run.untagged);
    range(LinkBridgeVlan::new(index), (run.first.into(), run.last.into()), flags).build()
}

fn range(
    message: LinkMessageBuilder<LinkBridgeVlan>,
    (first, last): (u16, u16),
    flags: BridgeVlanInfoFlags,
) -> LinkMessageBuilder<LinkBridgeVlan> {
    if first == last {
        return message.vlan(first, flags);
    }
    message.vlan_range_start(first, flags).vlan_range_end(last, flags)
}
