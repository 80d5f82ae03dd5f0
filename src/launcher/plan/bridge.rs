//! Plans the port of a guest on a bridge.
//!
//! A process with CAP_NET_ADMIN makes the tap itself, and QEMU inherits its descriptor. So
//! netlaunch knows the tap, and the kernel removes the tap when QEMU ends. Other users need QEMU's
//! setuid helper, which root must allow for each bridge. Serve mode needs the helper too: no child
//! of netlaunch can inherit a descriptor there, and a tap that QEMU opens by its name would be left
//! behind when netlaunch is killed (a tap with one queue cannot be opened twice, tun_attach() in
//! the kernel).
//!
//! The guest's MTU is that of its bridge: a tap with a smaller MTU would lower the MTU of the whole
//! bridge, and packets for a larger one would be lost. A virtio card tells the guest its MTU if it
//! is not 1500 bytes, or if the request sets it.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use super::draft::Draft;
use super::error::PlanError;
use super::port_options::{self, port_settings};
use super::queues;
use super::request::{Attachment, GuestFilter, NicRequest, Request};
use crate::launcher::qemu_options::path_value;
use crate::types::facts::{Facts, FirewallScript, Problem};
use crate::types::{InterfaceName, NetworkName, PortSettings, Queues, Setting};

/// The MTU that a guest assumes for an Ethernet card, in bytes.
const USUAL_MTU: u32 = 1500;

/// The port of a guest on a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgePlan {
    /// The bridge's interface.
    pub bridge: InterfaceName,
    /// The virtual network of the bridge, if the request names one.
    pub network: Option<NetworkName>,
    /// The program that makes the tap.
    pub tap_owner: TapOwner,
    /// The descriptor numbers at which QEMU expects the tap's queues; none if the helper makes the
    /// tap.
    pub queue_fds: Vec<RawFd>,
    /// The descriptor numbers at which QEMU expects vhost-net, one for each queue; none without
    /// vhost-net.
    pub vhost_fds: Vec<RawFd>,
    /// The VLANs, the isolation and the limits of the guest's port.
    pub port: PortSettings,
    /// The guest's filter.
    pub filter: Option<GuestFilter>,
    /// The firewall rules: those of the network, which its start has set, and those of the filter.
    pub firewall: Vec<FirewallScript>,
}

impl BridgePlan {
    /// Returns the properties of the netdev with the descriptor numbers, behind a comma.
    pub fn descriptors(&self) -> String {
        let mut text = format!(",{}", numbers("fd", &self.queue_fds));
        if !self.vhost_fds.is_empty() {
            text += &format!(",vhost=on,{}", numbers("vhostfd", &self.vhost_fds));
        }
        text
    }
}

/// The program that makes the guest's tap.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TapOwner {
    /// netlaunch makes the tap, and QEMU inherits its descriptor.
    Netlaunch,
    /// QEMU starts its bridge helper, the program at this path.
    Helper(PathBuf),
}

/// Decides whether this user can have a guest on the requested bridge, or on some bridge if the
/// request names none.
pub(super) fn check(request: &Request, nic: &NicRequest, facts: &Facts) -> Result<String, Problem> {
    check_mtu(nic, facts)?;
    let tap_owner = tap_owner(request, facts)?;
    port_options::check(&tap_owner, nic, facts)?;
    Ok(match tap_owner {
        TapOwner::Helper(_) if nic.filter.is_some() && facts.target.is_some() => {
            return Err(Problem::new(
                "a filter is for root to set, and QEMU's bridge helper would make this guest's tap",
                "let netlaunch start QEMU, as root, or drop the filter",
            )
            .about(&[Setting::Filter]));
        }
        TapOwner::Helper(_) if nic.publishes() && facts.target.is_some() => {
            return Err(Problem::new(
                "published ports are rules of the firewall, which root must set, and QEMU's bridge helper would make this guest's tap",
                "let netlaunch start QEMU, as root, or drop the published ports",
            )
            .about(&[Setting::Publish]));
        }
        TapOwner::Helper(_) if matches!(nic.queues, Some(Queues::Count(2..))) => {
            return Err(Problem::new(
                "QEMU's bridge helper makes a tap with one queue",
                "let netlaunch start QEMU, as root, or drop the queues",
            )
            .about(&[Setting::Queues]));
        }
        TapOwner::Netlaunch if queues::has_vhost(nic, &facts.bridge) => {
            "netlaunch makes the tap, and the kernel moves its frames (vhost-net)".to_owned()
        }
        TapOwner::Netlaunch => "netlaunch makes the tap".to_owned(),
        TapOwner::Helper(helper) => match &facts.target {
            Some(_) => format!("{} makes the tap", helper.display()),
            None => format!(
                "{} makes the tap, for {}",
                helper.display(),
                facts.bridge.acl.allowed().unwrap_or_default()
            ),
        },
    })
}

/// Returns the program that makes the tap, or the reason why none can.
fn tap_owner(request: &Request, facts: &Facts) -> Result<TapOwner, Problem> {
    let (qemu, bridge) = (&facts.qemu, &facts.bridge);
    let no = |why: String, fix: &str| Err(Problem::new(why, fix));
    if let Some(problem) = &qemu.problem {
        return Err(problem.clone());
    }
    let lacks = |netdev: &str| {
        no(format!("this QEMU has no {netdev} netdev"), "install a QEMU that is built with it")
    };
    // A request without a bridge asks about the host, and serve mode does not matter there.
    let serve = request.command.is_none() && facts.target.is_some();
    if bridge.net_admin && !serve {
        if !bridge.tun {
            return no(
                "/dev/net/tun cannot be opened".to_owned(),
                "load the kernel module with 'modprobe tun', and let this user read and write it",
            );
        }
        let has_tap = qemu.netdevs.contains("tap");
        return if has_tap { Ok(TapOwner::Netlaunch) } else { lacks("tap") };
    }
    let (reason, instead) = if serve {
        (
            "in serve mode QEMU's bridge helper must make the tap",
            "add the QEMU command and run as root, or install qemu-bridge-helper",
        )
    } else {
        (
            "this user may not make a tap, so QEMU's bridge helper must make it",
            "run as root, or install qemu-bridge-helper",
        )
    };
    let Some(helper) = &bridge.helper else {
        return no(format!("{reason}, but the helper is not installed"), instead);
    };
    if !qemu.netdevs.contains("bridge") {
        return lacks("bridge");
    }
    match &bridge.helper_problem {
        Some(Problem { why, fix, .. }) if !facts.host.root => {
            return no(format!("{reason}, but {why}"), &format!("{fix}, or run as root"));
        }
        _ => {}
    }
    if !bridge.tun {
        return no(
            format!("{reason}, but the helper runs as this user and cannot open /dev/net/tun"),
            "have root run 'modprobe tun; chmod 0666 /dev/net/tun', or run as root",
        );
    }
    match &facts.target {
        Some(target) => bridge.acl.permits(&target.bridge)?,
        None if bridge.acl.allowed().is_none() => {
            let file = bridge.acl.file.display();
            return no(
                format!("{reason}, but {file} allows no bridge, or this user cannot read it"),
                "have root write a line such as \"allow br0\" there and let everyone read it, or run as root",
            );
        }
        None => {}
    }
    Ok(TapOwner::Helper(helper.clone()))
}

/// Checks that the requested MTU can be used on the bridge.
fn check_mtu(nic: &NicRequest, facts: &Facts) -> Result<(), Problem> {
    let (Some(mtu), Some(target)) = (nic.mtu, &facts.target) else { return Ok(()) };
    let (bridge, largest) = (&target.bridge, target.mtu);
    if largest != 0 && u32::from(mtu) > largest {
        return Err(Problem::new(
            format!("the MTU of {bridge} is {largest}, and larger packets would be lost there"),
            format!("use an MTU of {largest} or less, or raise that of {bridge}"),
        )
        .about(&[Setting::Mtu]));
    }
    if !nic.device.is_virtio() {
        return Err(Problem::new(
            "only virtio cards can tell a guest its MTU",
            "drop the MTU, or use the card virtio-net-pci",
        )
        .about(&[Setting::Mtu, Setting::Device]));
    }
    Ok(())
}

/// Makes the port's plan. [`check`] has found no problem before.
pub(super) fn bridge_plan(draft: &Draft) -> Result<BridgePlan, Problem> {
    let target = draft.context.facts.target.as_ref().ok_or_else(|| {
        Problem::new("the facts do not describe the bridge", "look the bridge up before planning")
    })?;
    let tap_owner = tap_owner(draft.context.request, draft.context.facts)?;
    let (mut queue_fds, mut vhost_fds) = (Vec::new(), Vec::new());
    if tap_owner == TapOwner::Netlaunch {
        let queues = usize::from(queues::count(draft));
        let vhost = queues::has_vhost(draft.nic, &draft.context.facts.bridge);
        queue_fds = draft.tap_fds(if vhost { 2 * queues } else { queues });
        // With too few numbers, there is no vhost-net.
        if vhost && queue_fds.len() == 2 * queues {
            vhost_fds = queue_fds.split_off(queues);
        }
        queue_fds.truncate(queues);
    }
    Ok(BridgePlan {
        bridge: target.bridge.clone(),
        network: match &draft.nic.attachment {
            Some(Attachment::Network(name)) => Some(name.clone()),
            _ => None,
        },
        tap_owner,
        queue_fds,
        vhost_fds,
        port: port_settings(draft.nic, draft.context.facts),
        filter: draft.nic.filter.clone(),
        firewall: target.firewall.clone(),
    })
}

/// Returns the value of `-netdev`, and the descriptor number of a tap that QEMU inherits.
pub(super) fn netdev(
    draft: &Draft,
    plan: &BridgePlan,
) -> Result<(OsString, Option<RawFd>), PlanError> {
    let id = &draft.nic.id;
    Ok(match &plan.tap_owner {
        TapOwner::Netlaunch => {
            let first = *plan.queue_fds.first().ok_or(PlanError::NoDescriptor)?;
            (format!("tap,id={id}{}", plan.descriptors()).into(), Some(first))
        }
        TapOwner::Helper(helper) => {
            let bridge = plan.bridge.as_str().replace(',', ",,");
            let mut value = OsString::from(format!("bridge,id={id},br={bridge},helper="));
            value.push(path_value(helper));
            (value, None)
        }
    })
}

/// Returns a netdev's property with descriptor numbers: `fd=3`, or `fds=3:4` for several.
fn numbers(key: &str, fds: &[RawFd]) -> String {
    let joined = fds.iter().map(RawFd::to_string).collect::<Vec<_>>().join(":");
    format!("{key}{}={joined}", if fds.len() > 1 { "s" } else { "" })
}

/// Returns the MTU that a virtio card tells the guest; `None` if the guest assumes it anyway.
pub(super) fn card_mtu(nic: &NicRequest, facts: &Facts) -> Option<u16> {
    let bridge = facts.target.as_ref().map(|target| target.mtu);
    let unusual = bridge.filter(|mtu| !matches!(*mtu, 0 | USUAL_MTU));
    let mtu = nic.mtu.or(unusual.and_then(|mtu| u16::try_from(mtu).ok()));
    mtu.filter(|_| nic.device.is_virtio())
}
