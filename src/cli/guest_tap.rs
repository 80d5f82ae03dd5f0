//! Makes the tap of a guest on a bridge.

use std::path::{Path, PathBuf};

use super::guest_port::BridgeError;
use crate::launcher::guest_port::PortRequest;
use crate::sys::netlink::sysctl::{Key, Sysctls};
use crate::sys::netlink::{GuestTap, Link, Netlink, TapHome};
use crate::sys::tap::{TUN, Tap, TapError, TapName};
use crate::sys::traffic;

/// Makes a tap for the guest, attaches it to the bridge, and records where it belongs; the tap is
/// down. On a network of netlaunch no guest takes part in the spanning tree. Ports of other bridges
/// have what their administrator sets. `path` is the list of directories for the program tc.
pub(super) async fn attach(request: &PortRequest, path: &[PathBuf]) -> Result<Tap, BridgeError> {
    let netlink = Netlink::open()?;
    // A launch that was killed may have left a device.
    netlink.remove_stale_ifbs().await;
    let bridge = &request.bridge;
    let Link { mtu, .. } = netlink.bridge(bridge).await?;
    let tap = open_tap(request)?;
    let name = tap.name();
    netlink.set_mac(name, request.mac.host_side()).await?;
    if mtu != 0 {
        netlink.set_mtu(name, mtu).await?;
    }
    // The host's end of the link is the bridge; a port must not have an address of its own.
    let sysctls = Sysctls::new(Path::new("/proc/sys"));
    let ipv6 = Key::Ipv6Disabled(name.clone());
    if sysctls.get(&ipv6)?.is_some() {
        sysctls.set(&ipv6, "1")?;
    }
    traffic::limit(&netlink, path, name, tap.index(), &request.port.bandwidth).await?;
    let home = TapHome {
        launch: Some(request.launch.clone()),
        bridge: bridge.clone(),
        network: request.network.as_ref().map(ToString::to_string),
        mac: Some(request.mac),
        once: false,
        vlan: request.port.vlan.clone(),
        isolated: request.port.isolated,
        hairpin: !request.publish.is_empty(),
    };
    netlink.attach(name, bridge).await?;
    if request.network.is_some() {
        netlink.guard_spanning_tree(name).await?;
    }
    netlink.keep_apart(name, &home).await?;
    if !request.publish.is_empty() {
        // The guest must not get its own broadcasts back: it would take its address for a
        // duplicate (RFC 4862, 5.4).
        tap.ignore_own_multicasts(request.mac)?;
        netlink.allow_hairpin(name).await?;
    }
    // Last: a reload at the same time must not attach a tap that is not ready.
    netlink.set_home(name, &home).await?;
    // Of two launches that start at the same time, at least the later one sees the other's tap.
    for link in netlink.links().await?.iter().filter(|link| link.index != tap.index()) {
        let home = GuestTap::of(link).map(|tap| tap.home);
        let same = |home: &TapHome| home.bridge == *bridge && home.mac == Some(request.mac);
        if let Some(TapHome { launch, .. }) = home.filter(same) {
            let launch = launch
                .map_or_else(|| format!("tap {}", link.name), |name| format!("launch {name}"));
            tracing::warn!(
                "the guest of the {launch} has the MAC address {} on {bridge} too, and a frame \
                 reaches only one of the two guests; give one of them another address with --mac",
                request.mac
            );
        }
    }
    Ok(tap)
}

/// Makes the tap with the name that the launch wants. If another interface has that name, the
/// kernel numbers the tap.
fn open_tap(request: &PortRequest) -> Result<Tap, TapError> {
    let open = |name: &TapName| Tap::open_queues(Path::new(TUN), name, request.queues);
    let Some(name) = &request.tap else { return open(&TapName::Numbered) };
    match open(&TapName::Exact(name.clone())) {
        Err(TapError::InUse(name)) => {
            tracing::warn!("an interface has the name {name}, so the guest's tap gets another one");
            open(&TapName::Numbered)
        }
        other => other,
    }
}
