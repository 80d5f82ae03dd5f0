//! Finds the taps of running launches, and the bridge that each belongs to, even while the tap is
//! not on a bridge.
//!
//! A launch writes the tap's [`TapHome`] into the interface's alias (`ip link show` prints it). The
//! kernel keeps the alias as long as the tap. So every command finds the record, whichever state
//! directory the launch uses, and the record disappears with the tap, however the launch ends. If a
//! bridge is removed or a tap is detached, [`Netlink::reattach`] can attach the tap again.
//!
//! Only a process that may change interfaces (CAP_NET_ADMIN) can set an alias, and such a process
//! can attach the tap anywhere. So the alias is trusted as much as the tap itself.

use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::LinkAttribute;
use serde::{Deserialize, Serialize};

use super::{Link, LinkError, Netlink, Undo};
use crate::types::{InterfaceName, Mac, Vlan};

/// The prefix of netlaunch's aliases; a JSON object follows.
const MARK: &str = "netlaunch ";

/// The maximum length of an alias in bytes (IFALIASZ of linux/if.h, with the final 0).
const LONGEST: usize = 255;

/// The bridge that the tap of a launch belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapHome {
    /// The launch's name; `None` if it does not fit into the alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<String>,
    /// The bridge.
    pub bridge: InterfaceName,
    /// The virtual network of the bridge; `None` for a bridge of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The MAC address of the guest's card; `None` if it does not fit into the alias, and in the
    /// record of an earlier netlaunch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Whether a program other than a launch of this user attached the tap. If so, the tap is
    /// attached again only once, and the record is then removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
    /// The VLANs of the port; `None` leaves the bridge's default.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "vlan_text")]
    pub vlan: Option<Vlan>,
    /// Whether the port is isolated from other isolated ports.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// Whether the bridge may send a frame back to the tap ([`Netlink::allow_hairpin`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hairpin: bool,
}

/// Writes the VLANs as a short text, because an alias is short.
mod vlan_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::types::Vlan;

    pub(super) fn serialize<S: Serializer>(vlan: &Option<Vlan>, to: S) -> Result<S::Ok, S::Error> {
        match vlan {
            Some(vlan) => to.collect_str(vlan),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<Vlan>, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Some).map_err(D::Error::custom)
    }
}

/// The tap of a running launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestTap {
    /// The tap's name.
    pub port: InterfaceName,
    /// The tap's number.
    pub index: u32,
    /// The number of the bridge, bond or similar device that the tap is on now.
    pub master: Option<u32>,
    /// The bridge that the tap belongs to.
    pub home: TapHome,
}

impl TapHome {
    /// Returns whether the port has settings that the kernel removes when it leaves its bridge, and
    /// that keep the guest's frames apart.
    fn keeps_apart(&self) -> bool {
        self.vlan.is_some() || self.isolated
    }

    /// Returns the alias that records it; `None` if it is too long for an alias.
    fn alias(&self) -> Option<String> {
        let text =
            |home: &TapHome| serde_json::to_string(home).ok().map(|json| MARK.to_owned() + &json);
        let fits = |text: &String| text.len() <= LONGEST;
        let unnamed = || TapHome { launch: None, ..self.clone() };
        let shorter = [TapHome { mac: None, ..self.clone() }, unnamed()];
        let bare = TapHome { mac: None, ..unnamed() };
        [self].into_iter().chain(&shorter).chain([&bare]).filter_map(text).find(fits)
    }

    /// Parses an alias; returns `None` for an alias of another program.
    fn read(alias: &str) -> Option<Self> {
        serde_json::from_str(alias.strip_prefix(MARK)?).ok()
    }
}

impl GuestTap {
    /// Returns the launch's tap if the interface is one.
    pub fn of(link: &Link) -> Option<Self> {
        Some(GuestTap {
            port: link.name.parse().ok()?,
            index: link.index,
            master: link.master,
            home: TapHome::read(link.alias.as_deref()?)?,
        })
    }
}

impl Netlink {
    /// Records the bridge that the tap of a launch belongs to. Does nothing if the record is too
    /// long.
    ///
    /// # Errors
    /// Returns [`LinkError::LongRecord`] if the record is too long and has VLANs or isolation, or
    /// an error if the interface does not exist or the kernel refuses.
    pub async fn set_home(&self, tap: &InterfaceName, home: &TapHome) -> Result<(), LinkError> {
        match home.alias() {
            Some(alias) => self.set_alias(tap, alias).await,
            None if home.keeps_apart() => Err(LinkError::LongRecord(tap.clone())),
            None => Ok(()),
        }
    }

    /// Turns a launch's tap off and takes it off its bridge for good: without the record of its
    /// home, no reload attaches it again. Does nothing if the tap is gone.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub async fn turn_off(&self, tap: &InterfaceName, index: u32) -> Result<(), LinkError> {
        self.undo(&Undo::Up { name: tap.clone(), index }).await?;
        match self.link(tap).await {
            Ok(link) if link.index == index => {
                self.set_alias(tap, String::new()).await?;
                if link.master.is_some() { self.detach(tap).await } else { Ok(()) }
            }
            Err(error) if !error.is_gone() => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns the taps of all launches in this network namespace.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub async fn guest_taps(&self) -> Result<Vec<GuestTap>, LinkError> {
        Ok(self.links().await?.iter().filter_map(GuestTap::of).collect())
    }

    /// Gives the port the VLANs and the isolation of this record.
    ///
    /// # Errors
    /// Returns the errors of [`Netlink::set_vlans`] and [`Netlink::isolate`].
    pub async fn keep_apart(&self, port: &InterfaceName, home: &TapHome) -> Result<(), LinkError> {
        if let Some(vlan) = &home.vlan {
            self.set_vlans(port, &home.bridge, vlan).await?;
        }
        if home.isolated { self.isolate(port).await } else { Ok(()) }
    }

    /// Attaches a launch's tap to a bridge again, with the port settings that a launch makes. The
    /// tap still has the MTU and the limits from the launch. A tap with VLANs or isolation is off
    /// until it has them; if one of them fails, it is detached again. Does not change another
    /// interface with the tap's name. Returns whether the tap was attached.
    ///
    /// # Errors
    /// Returns the errors of [`Netlink::attach`], and of the port settings.
    pub async fn reattach(
        &self,
        tap: &GuestTap,
        bridge: &InterfaceName,
    ) -> Result<bool, LinkError> {
        let link = self.link(&tap.port).await?;
        if link.index != tap.index {
            return Ok(false);
        }
        let is_paused = tap.home.keeps_apart() && link.up;
        if is_paused {
            self.down(&tap.port).await?;
        }
        let attached = self.reattach_port(tap, bridge).await;
        // A tap that is on a bridge without its settings stays off.
        if is_paused && (attached.is_ok() || self.link(&tap.port).await?.master.is_none()) {
            self.up(&tap.port).await?;
        }
        attached
    }

    async fn reattach_port(
        &self,
        tap: &GuestTap,
        bridge: &InterfaceName,
    ) -> Result<bool, LinkError> {
        let attached = self.attach(&tap.port, bridge).await?.is_some();
        if attached {
            let home = TapHome { bridge: bridge.clone(), ..tap.home.clone() };
            if let Err(error) = self.keep_apart(&tap.port, &home).await {
                self.detach(&tap.port).await?;
                return Err(error);
            }
        }
        if tap.home.once {
            self.set_alias(&tap.port, String::new()).await?;
        } else if attached && tap.home.network.is_some() {
            self.guard_spanning_tree(&tap.port).await?;
        }
        if attached && tap.home.hairpin {
            self.allow_hairpin(&tap.port).await?;
        }
        Ok(attached)
    }

    async fn set_alias(&self, name: &InterfaceName, alias: String) -> Result<(), LinkError> {
        let link = self.link(name).await?;
        let message = LinkUnspec::new_with_index(link.index)
            .append_extra_attribute(LinkAttribute::IfAlias(alias))
            .build();
        self.change(message, || format!("set the alias of {name}")).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(launch: &str) -> TapHome {
        TapHome {
            launch: Some(launch.to_owned()),
            bridge: "virbr0".parse().unwrap(),
            network: Some("a lab".to_owned()),
            mac: Some("52:54:00:00:00:07".parse().unwrap()),
            once: false,
            vlan: None,
            isolated: false,
            hairpin: false,
        }
    }

    #[test]
    fn an_alias_has_the_vlans_and_the_isolation_of_the_port() {
        let apart = TapHome {
            launch: None,
            vlan: Some("trunk 10-20,30 native 10".parse().unwrap()),
            isolated: true,
            mac: None,
            ..home("")
        };
        let alias = apart.alias().unwrap();
        assert_eq!(
            alias,
            r#"netlaunch {"bridge":"virbr0","network":"a lab","vlan":"trunk 10-20,30 native 10","isolated":true}"#
        );
        assert_eq!(TapHome::read(&alias), Some(apart));
        // Without its VLANs, the tap must not be attached.
        assert_eq!(TapHome::read(r#"netlaunch {"bridge":"virbr0","vlan":"trunk 9-1"}"#), None);
    }

    #[test]
    fn an_alias_says_where_a_tap_belongs() {
        let alias = home("web").alias().unwrap();
        assert_eq!(
            alias,
            r#"netlaunch {"launch":"web","bridge":"virbr0","network":"a lab","mac":"52:54:00:00:00:07"}"#
        );
        assert_eq!(TapHome::read(&alias), Some(home("web")));
        for other in ["", "netlaunch", "uplink of the rack", "netlaunch {\"bridge\":\"a b\"}"] {
            assert_eq!(TapHome::read(other), None, "{other}");
        }
    }

    #[test]
    fn a_name_that_does_not_fit_into_an_alias_is_left_out() {
        let long = home(&"x".repeat(LONGEST));
        let alias = long.alias().unwrap();
        assert_eq!(TapHome::read(&alias), Some(TapHome { launch: None, ..long }));
        // The name says more than the address, which the bridge learns.
        let rather_long = home(&"x".repeat(180));
        let alias = rather_long.alias().unwrap();
        assert_eq!(TapHome::read(&alias), Some(TapHome { mac: None, ..rather_long }));
    }
}
