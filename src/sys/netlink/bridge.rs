//! Makes, changes and removes bridges and their ports.

use std::time::Duration;

use nix::errno::Errno;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{BridgeStpState, LinkAttribute, LinkMessage};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec};

use super::request::{Again, Failure};
use super::undo::Undo;
use super::{Link, LinkError, Netlink};
use crate::types::{InterfaceName, Mac, VlanId};

/// A bridge to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec {
    /// The name.
    pub name: InterfaceName,
    /// The hardware address; without one the bridge uses the lowest address of its ports, which
    /// changes with the ports.
    pub mac: Option<Mac>,
    /// Whether it takes part in the spanning tree protocol.
    pub stp: bool,
    /// The time that a new port listens and learns before it forwards, in steps of 10 ms. With
    /// `stp` the kernel raises it to at least 2 s and lowers it to at most 30 s.
    pub forward_delay: Duration,
    /// The largest packet; without a value it is the smallest of the ports' values.
    pub mtu: Option<u32>,
    /// Whether it keeps VLANs apart; then the bridge itself and each new port are in this VLAN.
    pub vlan: Option<VlanId>,
}

impl Netlink {
    /// Makes a bridge that is down and has no address. Multicast snooping is the kernel's default.
    /// The bridge learns no addresses from link-local frames (01:80:c2:00:00:00 to 0f), which it
    /// does not forward: otherwise such a frame with a neighbour's source address would redirect
    /// the neighbour's packets. Kernels before 5.0 do not have this setting and ignore it.
    ///
    /// # Errors
    /// Returns [`LinkError::InUse`], [`LinkError::Pattern`], or the kernel's error.
    pub async fn create_bridge(&self, spec: &BridgeSpec) -> Result<Undo, LinkError> {
        let index = self.create(spec, None).await?;
        Ok(Undo::Link { name: spec.name.clone(), index })
    }

    /// Makes a bridge that has this mark from the start, as its group, and returns its number. A
    /// caller that has recorded [`Undo::Marked`] before can be killed at any time. The mark is a
    /// random number other than 0; [`Netlink::up_unmarked`] removes it.
    ///
    /// # Errors
    /// Returns the errors of [`Netlink::create_bridge`].
    pub async fn create_marked_bridge(
        &self,
        spec: &BridgeSpec,
        mark: u32,
    ) -> Result<u32, LinkError> {
        self.create(spec, Some(mark)).await
    }

    /// Turns a marked bridge on and removes its mark: resets it to group 0. One request does both.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist or the kernel refuses.
    pub async fn up_unmarked(&self, name: &InterfaceName, index: u32) -> Result<Undo, LinkError> {
        let message = LinkUnspec::new_with_index(index)
            .up()
            .append_extra_attribute(LinkAttribute::Group(0))
            .build();
        self.change(message, || format!("turn {name} on and remove its mark")).await?;
        Ok(Undo::Up { name: name.clone(), index })
    }

    async fn create(&self, spec: &BridgeSpec, mark: Option<u32>) -> Result<u32, LinkError> {
        let name = &spec.name;
        if name.as_str().contains('%') {
            return Err(LinkError::Pattern(name.clone()));
        }
        // The kernel expects hundredths of a second here (USER_HZ).
        let delay = u32::try_from(spec.forward_delay.as_millis() / 10).unwrap_or(u32::MAX);
        let state = if spec.stp { BridgeStpState::KernelStp } else { BridgeStpState::Disabled };
        let mut message = LinkMessageBuilder::<LinkBridge>::new(name.as_str())
            .forward_delay(delay)
            .stp_state(state)
            .no_linklocal_learn(true);
        if let Some(vlan) = spec.vlan {
            message = message.vlan_filtering(true).vlan_default_pvid(vlan.into());
        }
        if let Some(mac) = spec.mac {
            message = message.address(mac.octets().to_vec());
        }
        if let Some(mark) = mark {
            message = message.append_extra_attribute(LinkAttribute::Group(mark));
        }
        self.add_bridge(spec, message.build(), mark).await?;
        let index = self.link(name).await?.index;
        if let Some(mtu) = spec.mtu
            // An MTU that is set at creation would follow the ports' (br_mtu_auto_adjust in the
            // kernel).
            && let Err(error) = self.set_mtu(name, mtu).await
        {
            let _ = self.undo(&Undo::Link { name: name.clone(), index }).await;
            return Err(error);
        }
        Ok(index)
    }

    /// Makes a bridge. If the kernel's answer is lost, the mark says whether the bridge was made.
    async fn add_bridge(
        &self,
        spec: &BridgeSpec,
        message: LinkMessage,
        mark: Option<u32>,
    ) -> Result<(), LinkError> {
        let name = &spec.name;
        let failed = |failure| {
            let error = LinkError::failed(format!("make the bridge {name}"), failure);
            match error.errno() {
                Some(Errno::EEXIST) => LinkError::InUse(name.clone()),
                Some(Errno::EOPNOTSUPP) if spec.vlan.is_some() => LinkError::NoVlans(name.clone()),
                _ => error,
            }
        };
        let message = RouteNetlinkMessage::NewLink(message);
        let lost = match self.requests.create(message.clone(), Again::Look).await {
            Err(lost @ Failure::Lost(_)) => lost,
            done => return done.map_err(failed),
        };
        match self.link(name).await {
            Ok(link) if mark == Some(link.group) => Ok(()),
            // Without the mark the bridge could belong to another program.
            Ok(_) => Err(failed(lost)),
            Err(LinkError::Missing(_)) => {
                self.requests.create(message, Again::Look).await.map_err(failed)
            }
            Err(error) => Err(error),
        }
    }

    /// Turns an interface on. Returns `None` if it was on already.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist or the kernel refuses.
    pub async fn up(&self, name: &InterfaceName) -> Result<Option<Undo>, LinkError> {
        let link = self.link(name).await?;
        if link.up {
            return Ok(None);
        }
        let message = LinkUnspec::new_with_index(link.index).up().build();
        self.change(message, || format!("turn {name} on")).await?;
        Ok(Some(Undo::Up { name: name.clone(), index: link.index }))
    }

    /// Turns an interface off.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist or the kernel refuses.
    pub async fn down(&self, name: &InterfaceName) -> Result<(), LinkError> {
        let link = self.link(name).await?;
        let message = LinkUnspec::new_with_index(link.index).down().build();
        self.change(message, || format!("turn {name} off")).await
    }

    /// Sets the largest packet of an interface, in bytes.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist or the kernel refuses.
    pub async fn set_mtu(&self, name: &InterfaceName, mtu: u32) -> Result<(), LinkError> {
        let link = self.link(name).await?;
        let message = LinkUnspec::new_with_index(link.index).mtu(mtu).build();
        self.change(message, || format!("set the MTU of {name} to {mtu}")).await
    }

    /// Turns the spanning tree protocol of a bridge on or off.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist or the kernel refuses.
    pub async fn set_stp(&self, name: &InterfaceName, on: bool) -> Result<(), LinkError> {
        let state = if on { BridgeStpState::KernelStp } else { BridgeStpState::Disabled };
        let message = LinkMessageBuilder::<LinkBridge>::new(name.as_str()).stp_state(state);
        self.change(message.build(), || format!("set the STP of {name}")).await
    }

    /// Turns ARP on for an interface.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist or the kernel refuses.
    pub async fn arp_on(&self, name: &InterfaceName) -> Result<(), LinkError> {
        let link = self.link(name).await?;
        let message = LinkUnspec::new_with_index(link.index).arp(true).build();
        self.change(message, || format!("turn ARP on for {name}")).await
    }

    /// Sets the hardware address of an interface.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist or the kernel refuses.
    pub async fn set_mac(&self, name: &InterfaceName, mac: Mac) -> Result<(), LinkError> {
        let link = self.link(name).await?;
        let message = LinkUnspec::new_with_index(link.index).address(mac.octets().to_vec()).build();
        self.change(message, || format!("set the address of {name} to {mac}")).await
    }

    /// Removes a bridge; its addresses and routes disappear, and its ports are detached.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist, is not a bridge, or the kernel refuses.
    pub async fn delete_bridge(&self, name: &InterfaceName) -> Result<(), LinkError> {
        let link = self.bridge(name).await?;
        self.delete_link(name, link.index).await
    }

    /// Makes an interface a port of a bridge. Returns `None` if it was one already.
    ///
    /// # Errors
    /// Returns an error if an interface does not exist, `bridge` is not a bridge, the kernel
    /// refuses, or the port belongs to another device ([`LinkError::Attached`]): the kernel would
    /// move the port without an error.
    pub async fn attach(
        &self,
        port: &InterfaceName,
        bridge: &InterfaceName,
    ) -> Result<Option<Undo>, LinkError> {
        let master = self.bridge(bridge).await?;
        let link = self.link(port).await?;
        match link.master {
            Some(present) if present == master.index => return Ok(None),
            Some(present) => {
                let present = match self.link_by_index(present).await {
                    Ok(Some(link)) => link.name,
                    _ => format!("interface {present}"),
                };
                let (port, bridge) = (port.clone(), bridge.clone());
                return Err(LinkError::Attached { port, bridge, present });
            }
            None => {}
        }
        let message = LinkUnspec::new_with_index(link.index).controller(master.index).build();
        let what = || format!("attach {port} to {bridge}");
        self.change(message, what).await?;
        if self.link(port).await?.master != Some(master.index) {
            // Another program may have removed the bridge since.
            return match self.link_by_index(master.index).await? {
                Some(_) => Err(LinkError::NotDone { what: what() }),
                None => Err(LinkError::Missing(bridge.clone())),
            };
        }
        Ok(Some(Undo::Port { name: port.clone(), index: link.index, bridge: master.index }))
    }

    /// Keeps a port of a bridge out of the bridge's spanning tree. The port never leads to the root
    /// (root guard), and the bridge turns the port off if a BPDU arrives there (BPDU guard), until
    /// the interface is turned off and on. Both guards have no effect while the bridge's STP is
    /// off.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist, is not a port, or the kernel refuses.
    pub async fn guard_spanning_tree(&self, port: &InterfaceName) -> Result<(), LinkError> {
        let link = self.link(port).await?;
        let message = LinkBridgePort::new(link.index).root_block(true).guard(true).build();
        self.change(message, || format!("set root guard and BPDU guard of the port {port}")).await
    }

    /// Lets the bridge send a frame back to the port that it came from. With br_netfilter, a packet
    /// of a guest whose destination becomes the guest itself takes that way.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist, is not a port, or the kernel refuses.
    pub async fn allow_hairpin(&self, port: &InterfaceName) -> Result<(), LinkError> {
        let link = self.link(port).await?;
        let message = LinkBridgePort::new(link.index).hairpin(true).build();
        self.change(message, || format!("set the hairpin mode of the port {port}")).await
    }

    /// Detaches a port from its bridge, if it is on one.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist or the kernel refuses.
    pub async fn detach(&self, port: &InterfaceName) -> Result<(), LinkError> {
        let link = self.link(port).await?;
        let message = LinkUnspec::new_with_index(link.index).nocontroller().build();
        self.change(message, || format!("detach {port} from its bridge")).await
    }

    /// Returns the interface, which must be a bridge.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist, is not a bridge
    /// ([`LinkError::NotBridge`]), or the kernel refuses.
    pub async fn bridge(&self, name: &InterfaceName) -> Result<Link, LinkError> {
        let link = self.link(name).await?;
        if link.bridge { Ok(link) } else { Err(LinkError::NotBridge(name.clone())) }
    }

    pub(super) async fn delete_link(
        &self,
        name: &InterfaceName,
        index: u32,
    ) -> Result<(), LinkError> {
        let what = || format!("remove the interface {name}");
        let message = RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(index).build());
        let deleted = self.requests.change(message, Again::Refused(&[Errno::ENODEV])).await;
        deleted.map_err(|failure| LinkError::failed(what(), failure))?;
        match self.link_by_index(index).await? {
            Some(_) => Err(LinkError::NotDone { what: what() }),
            None => Ok(()),
        }
    }

    pub(super) async fn change(
        &self,
        message: LinkMessage,
        what: impl FnOnce() -> String,
    ) -> Result<(), LinkError> {
        let changed = self.requests.change(RouteNetlinkMessage::NewLink(message), Again::Same);
        changed.await.map_err(|failure| LinkError::failed(what(), failure))
    }
}
