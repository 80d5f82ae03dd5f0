//! A guest's place on a bridge: its tap.
//!
//! The order matters. The tap gets its settings while it is down and on no bridge, so that nothing
//! of it is ever seen there half-made; it is turned on last, so that whoever filters the guest's
//! packets can do so before the first one passes:
//!
//! ```text
//! attach: tap made, MTU, address, no IPv6, on the bridge ─▶ (filters) ─▶ up ─▶ QEMU
//! end:    QEMU gone ─▶ down ─▶ (filters) ─▶ tap gone
//! ```
//!
//! The tap belongs to its descriptor, which QEMU inherits and we keep: it outlives QEMU until
//! [`Port`] is dropped, so that no other tap gets its name before what belongs to it is removed.
//! A process that QEMU has started may have the descriptor, too, and outlive QEMU: so at the end the
//! tap is turned off before its filter goes, and removed whoever still has it open.
//! When we are killed our guard kills QEMU, and with both copies closed the kernel removes the tap.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::facts::Target;
use crate::link::sysctl::{Key, SysctlError, Sysctls};
use crate::link::{LinkError, Netlink, Undo};
use crate::process::tap::{TUN, Tap, TapError, TapName};
use crate::types::{InterfaceName, Mac};

/// Why a guest cannot be on its bridge. Nothing of its tap is left.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The tap cannot be made.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// It cannot be set up or attached.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// IPv6 cannot be turned off on it.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// There is no descriptor for QEMU.
    #[error("cannot hand the tap {tap} to QEMU: {source}; raise the limit of open files")]
    Descriptor {
        /// The tap.
        tap: InterfaceName,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Finds out about a bridge of this host.
///
/// # Errors
/// There is no such interface, or it is no bridge.
pub async fn target(bridge: &InterfaceName) -> Result<Target, LinkError> {
    let link = Netlink::open()?.bridge(bridge).await?;
    Ok(Target { bridge: bridge.clone(), mtu: link.mtu, firewall: Vec::new() })
}

/// A port of a bridge with a guest's tap in it. Dropping it closes our copy of the tap.
#[derive(Debug)]
pub(super) struct Port {
    tap: Tap,
}

impl Port {
    /// Makes a tap for the guest with this address and attaches it; it is down. `own` says that the
    /// bridge is one of netlaunch's networks, where no guest takes part in the spanning tree. Ports
    /// of other bridges have what their administrator sets.
    pub(super) async fn attach(
        bridge: &InterfaceName,
        own: bool,
        guest: Mac,
    ) -> Result<Self, BridgeError> {
        let netlink = Netlink::open()?;
        let mtu = netlink.bridge(bridge).await?.mtu;
        let tap = Tap::open(Path::new(TUN), &TapName::Numbered)?;
        let name = tap.name();
        netlink.set_mac(name, guest.host_side()).await?;
        if mtu != 0 {
            netlink.set_mtu(name, mtu).await?;
        }
        // The host's end of the link is the bridge; a port must not be one with an address.
        let sysctls = Sysctls::new(Path::new("/proc/sys"));
        let ipv6 = Key::Ipv6Disabled(name.clone());
        if sysctls.get(&ipv6)?.is_some() {
            sysctls.set(&ipv6, "1")?;
        }
        netlink.attach(name, bridge).await?;
        if own {
            netlink.guard_spanning_tree(name).await?;
        }
        Ok(Port { tap })
    }

    /// Turns the tap on.
    pub(super) async fn up(&self) -> Result<(), BridgeError> {
        Netlink::open()?.up(self.tap.name()).await?;
        Ok(())
    }

    /// Turns the tap off: nothing passes through it any more. Done already where it is gone.
    pub(super) async fn down(&self) -> Result<(), BridgeError> {
        let undo = Undo::Up { name: self.name().clone(), index: self.tap.index() };
        Ok(Netlink::open()?.undo(&undo).await?)
    }

    /// Removes the tap, also where others have it open.
    pub(super) async fn remove(self) -> Result<(), BridgeError> {
        let undo = Undo::Link { name: self.name().clone(), index: self.tap.index() };
        Ok(Netlink::open()?.undo(&undo).await?)
    }

    /// The tap's name.
    pub(super) fn name(&self) -> &InterfaceName {
        self.tap.name()
    }

    /// A copy of the tap's descriptor for QEMU.
    pub(super) fn descriptor(&self) -> Result<OwnedFd, BridgeError> {
        self.tap
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| BridgeError::Descriptor { tap: self.name().clone(), source })
    }
}
