//! How a guest gets onto a bridge.
//!
//! Who may make links makes the tap, and QEMU inherits its descriptor: netlaunch knows the tap, and
//! it is gone with QEMU. Everyone else lets QEMU's setuid helper make it, which root has to allow
//! for each bridge. In serve mode there is nobody to inherit a descriptor, and a tap that QEMU could
//! open by its name would have to stay when netlaunch is killed (a tap with one queue cannot be
//! opened twice, tun_attach() in the kernel); so serve mode goes through the helper as well.
//!
//! The guest's packets are as large as its bridge's: a smaller tap would make the whole bridge
//! smaller, and a larger one would lose packets. A virtio card tells the guest where that is not the
//! usual 1500 bytes, or as `--mtu` says.

use std::path::PathBuf;

use super::{Draft, GuestFilter, Request, option_path};
use crate::facts::{Facts, FirewallScript, Problem};
use crate::types::InterfaceName;

/// The MTU that guests assume.
const USUAL_MTU: u32 = 1500;

/// A guest's place on a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgePlan {
    /// The bridge's interface.
    pub bridge: InterfaceName,
    /// The virtual network whose bridge it is, where the request names one.
    pub network: Option<crate::network::NetworkName>,
    /// Who makes the tap.
    pub way: Way,
    /// The guest's filter.
    pub filter: Option<GuestFilter>,
    /// The firewall rules: the network's, which were set when it was started, and the filter's.
    pub firewall: Vec<FirewallScript>,
}

/// Who makes the guest's tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// netlaunch.
    Tap,
    /// QEMU's helper, for QEMU.
    Helper(PathBuf),
}

/// Whether this user can have a guest on the bridge, or on any where none is named.
pub(super) fn judge(request: &Request, facts: &Facts) -> Result<String, Problem> {
    check_mtu(request, facts)?;
    Ok(match way(request, facts)? {
        Way::Helper(_) if request.filter.is_some() && facts.target.is_some() => {
            return Err(Problem::new(
                "a filter is for root to set, and QEMU's bridge helper would make this guest's tap",
                "run netlaunch as root and let it start QEMU, or drop --filter",
            ));
        }
        Way::Tap => "netlaunch makes the tap".to_owned(),
        Way::Helper(helper) => match &facts.target {
            Some(_) => format!("{} makes the tap", helper.display()),
            None => format!(
                "{} makes the tap, for {}",
                helper.display(),
                facts.bridge.acl.allowed().unwrap_or_default()
            ),
        },
    })
}

/// Who makes the tap, or why nobody can.
fn way(request: &Request, facts: &Facts) -> Result<Way, Problem> {
    let (qemu, bridge) = (&facts.qemu, &facts.bridge);
    let no = |why: String, fix: &str| Err(Problem::new(why, fix));
    if let Some(problem) = &qemu.problem {
        return Err(problem.clone());
    }
    let lacks = |netdev: &str| {
        no(format!("this QEMU has no {netdev} netdev"), "install a QEMU that is built with it")
    };
    // Without a bridge the question is what the host can do.
    let serve = request.command.is_none() && facts.target.is_some();
    if bridge.net_admin && !serve {
        if !bridge.tun {
            return no(
                "/dev/net/tun cannot be opened".to_owned(),
                "load the kernel module with 'modprobe tun', and let this user read and write it",
            );
        }
        return if qemu.netdevs.contains("tap") { Ok(Way::Tap) } else { lacks("tap") };
    }
    let who = match (serve, bridge.net_admin) {
        (true, _) => "in serve mode the tap must be made by QEMU's bridge helper",
        (false, _) => "this user may not make a tap, which is left to QEMU's bridge helper",
    };
    let instead = match serve {
        true => "add -- QEMU ARGS and run it as root, or install qemu-bridge-helper",
        false => "run netlaunch as root, or install qemu-bridge-helper",
    };
    let Some(helper) = &bridge.helper else {
        return no(format!("{who}, and that is not installed"), instead);
    };
    if !qemu.netdevs.contains("bridge") {
        return lacks("bridge");
    }
    match &bridge.helper_problem {
        Some(Problem { why, fix }) if !facts.host.root => {
            return no(format!("{who}, and {why}"), &format!("{fix}, or run netlaunch as root"));
        }
        _ => {}
    }
    if !bridge.tun {
        return no(
            format!("{who}, and that opens /dev/net/tun as this user, to whom it is closed"),
            "have root run 'modprobe tun; chmod 0666 /dev/net/tun', or run netlaunch as root",
        );
    }
    match &facts.target {
        Some(target) => bridge.acl.permits(&target.bridge)?,
        None if bridge.acl.allowed().is_none() => {
            let file = bridge.acl.file.display();
            return no(
                format!("{who}, and {file} allows it no bridge, or is closed to this user"),
                "have root write a line such as \"allow br0\" there and let everyone read it, or run netlaunch as root",
            );
        }
        None => {}
    }
    Ok(Way::Helper(helper.clone()))
}

fn check_mtu(request: &Request, facts: &Facts) -> Result<(), Problem> {
    let (Some(mtu), Some(target)) = (request.mtu, &facts.target) else { return Ok(()) };
    let (bridge, largest) = (&target.bridge, target.mtu);
    if largest != 0 && u32::from(mtu) > largest {
        return Err(Problem::new(
            format!("the MTU of {bridge} is {largest}, and larger packets would be lost there"),
            format!("use --mtu {largest} or less, or raise that of {bridge}"),
        ));
    }
    if !request.device.is_virtio() {
        return Err(Problem::new(
            "only virtio cards can tell a guest its MTU",
            "drop --mtu, or use --device virtio-net-pci",
        ));
    }
    Ok(())
}

/// The plan, where [`judge`] has found nothing in the way.
pub(super) fn bridge_plan(draft: &Draft) -> Result<BridgePlan, Problem> {
    let target = draft.facts.target.as_ref().ok_or_else(|| {
        Problem::new("nobody looked up the bridge", "give the facts what the request is to join")
    })?;
    Ok(BridgePlan {
        bridge: target.bridge.clone(),
        network: match &draft.request.attachment {
            Some(super::Attachment::Network(name)) => Some(name.clone()),
            _ => None,
        },
        way: way(draft.request, draft.facts)?,
        filter: draft.request.filter.clone(),
        firewall: target.firewall.clone(),
    })
}

/// The value of `-netdev`, and the descriptor number of the tap where QEMU inherits one.
pub(super) fn netdev(draft: &Draft, plan: &BridgePlan) -> (std::ffi::OsString, Option<i32>) {
    let id = &draft.request.id;
    match &plan.way {
        Way::Tap => {
            let number = draft.particulars.qemu_fd;
            (format!("tap,id={id},fd={number}").into(), Some(number))
        }
        Way::Helper(helper) => {
            let bridge = plan.bridge.as_str().replace(',', ",,");
            let mut value = std::ffi::OsString::from(format!("bridge,id={id},br={bridge},helper="));
            value.push(option_path(helper));
            (value, None)
        }
    }
}

/// The MTU that a virtio card tells the guest, where that is not the usual one.
pub(super) fn card_mtu(request: &Request, facts: &Facts) -> Option<u16> {
    let bridge = facts.target.as_ref().map(|target| target.mtu);
    let of_bridge = bridge.filter(|mtu| !matches!(*mtu, 0 | USUAL_MTU));
    let mtu = request.mtu.or(of_bridge.and_then(|mtu| u16::try_from(mtu).ok()));
    mtu.filter(|_| request.device.is_virtio())
}
