//! Limits the traffic of a guest's tap, or of the bridge of a network.
//!
//! The program tc sets the limits. The kernel delays the frames that leave the device, which is
//! the traffic to the guest: a class of the HTB scheduler with a queue. It cannot delay the frames
//! that come from the guest, so these are redirected to an `ifb` device, leave that device through
//! the same kind of class, and return to the place that they came from.
//!
//! A frame that returns from an `ifb` device passes no ingress hook, and only there can a network
//! filter see the frames to 01:80:c2:00:00:00 to 0f (BPDUs, LLDP and others), since a bridge
//! handles them before its own hooks. So these are not redirected and have no limit. A bridge
//! forwards none of them but those to 01:80:c2:00:00:00, and these without STP only, unless its
//! `group_fwd_mask` says so. STP can be turned on at any time, so its state must not choose the
//! filters of tc.
//!
//! libvirt drops the frames from a guest that are too fast (`police`). TCP answers a dropped frame
//! with a lower rate, so what a guest reaches depends on the burst; with a queue it is the rate
//! that the document asks for (measured: 100% of the rate on the wire, both directions, TCP and
//! UDP, from 64 KiB/s to 100 MiB/s).
//!
//! A frame counts with its Ethernet header, as with libvirt: with packets of 1500 bytes, TCP
//! delivers 95.6% of the rate as data. The limits disappear with the device. Only its `ifb` device
//! stays; [`Netlink::remove_stale_ifbs`] removes it.

use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sys::netlink::queues::ARRIVING;
use crate::sys::netlink::sysctl::{Key, SysctlError, Sysctls};
use crate::sys::netlink::{LinkError, Netlink, ifb_name};
use crate::sys::process::capture;
use crate::sys::program::{Lookup, find};
use crate::types::facts::Problem;
use crate::types::{Bandwidth, BandwidthError, InterfaceName, Rate};

/// The time limit for tc, which needs some milliseconds.
const LIMIT: Duration = Duration::from_secs(30);

/// The name of the program.
const TC: &str = "tc";

/// Why the traffic of a device cannot be limited. The device may have some of the limits; they
/// disappear with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrafficError {
    /// The program tc cannot be run.
    #[error("the traffic of {device} cannot be limited: {}; {}", problem.why, problem.fix)]
    NoTc {
        /// The device.
        device: InterfaceName,
        /// The reason and the fix.
        problem: Problem,
    },
    /// tc was not run to its end.
    #[error("the traffic of {device} cannot be limited: tc was not run to its end; try again")]
    Run {
        /// The device.
        device: InterfaceName,
        /// The reason.
        source: io::Error,
    },
    /// tc failed.
    #[error(
        "the traffic of {device} cannot be limited: tc says {said:?}; load the kernel modules sch_htb, sch_ingress, cls_u32 and act_mirred"
    )]
    Refused {
        /// The device.
        device: InterfaceName,
        /// The first line of its standard error.
        said: String,
    },
    /// The limits are not possible.
    #[error(transparent)]
    Bandwidth(#[from] BandwidthError),
    /// The kernel refused to make the `ifb` device.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A setting of the `ifb` device cannot be changed.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

/// Returns the path of tc, which is in one of the directories `path` or where distributions put it.
///
/// # Errors
/// The reason why it cannot be run, and the fix.
pub fn tc(path: &[PathBuf]) -> Result<PathBuf, Problem> {
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let dirs: Vec<PathBuf> = path.iter().cloned().chain(system).collect();
    let lookup: Lookup = find(TC.as_ref(), &dirs);
    match lookup.problem(TC.as_ref(), "install the package iproute2") {
        Some(problem) => Err(problem),
        None => Ok(lookup.found().unwrap_or_else(|| TC.into())),
    }
}

/// Limits the traffic of a device that has no limits yet. `index` is its number, `path` the
/// directories in which tc is looked for.
///
/// # Errors
/// [`TrafficError`].
pub async fn limit(
    netlink: &Netlink,
    path: &[PathBuf],
    device: &InterfaceName,
    index: u32,
    bandwidth: &Bandwidth,
) -> Result<(), TrafficError> {
    if bandwidth.is_unlimited() {
        return Ok(());
    }
    bandwidth.check()?;
    let tc = tc(path).map_err(|problem| TrafficError::NoTc { device: device.clone(), problem })?;
    // Every number fits behind the prefix, so there always is a name.
    let ifb = ifb_name(index).ok_or(LinkError::NoIfb)?;
    if bandwidth.outbound.is_some() {
        netlink.create_ifb(&ifb).await?;
        // The device only passes frames on; it must not send any of its own.
        let sysctls = Sysctls::new(Path::new("/proc/sys"));
        let ipv6 = Key::Ipv6Disabled(ifb.clone());
        if sysctls.get(&ipv6)?.is_some() {
            sysctls.set(&ipv6, "1")?;
        }
        netlink.up(&ifb).await?;
    }
    run(&tc, device, &commands(device, &ifb, bandwidth)).await
}

/// Returns whether a device has all parts of its limits: the queues, their classes, and the filters
/// for the frames that come from it. Another program can remove each of them.
///
/// # Errors
/// The kernel's error.
pub async fn has_limits(
    netlink: &Netlink,
    index: u32,
    bandwidth: &Bandwidth,
) -> Result<bool, LinkError> {
    let parts = netlink.traffic_parts(index).await?;
    if bandwidth.inbound.is_some() && !parts.limits_leaving {
        return Ok(false);
    }
    if bandwidth.outbound.is_none() {
        return Ok(true);
    }
    let ifb = match netlink.link(&ifb_name(index).ok_or(LinkError::NoIfb)?).await {
        Ok(link) => netlink.traffic_parts(link.index).await?,
        Err(LinkError::Missing(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(parts.redirects_arriving && ifb.limits_leaving)
}

/// Limits the traffic of a device again, of whose limits parts are gone. The traffic has no limit
/// for a moment. The parameters are those of [`limit`].
///
/// # Errors
/// [`TrafficError`].
pub async fn limit_again(
    netlink: &Netlink,
    path: &[PathBuf],
    device: &InterfaceName,
    index: u32,
    bandwidth: &Bandwidth,
) -> Result<(), TrafficError> {
    let tc = tc(path).map_err(|problem| TrafficError::NoTc { device: device.clone(), problem })?;
    // A part that is gone cannot be removed, so an error here means nothing.
    for place in ["root", "ingress"] {
        let _ = run(&tc, device, &format!("qdisc del dev {device} {place}\n")).await;
    }
    limit(netlink, path, device, index, bandwidth).await
}

/// Runs tc with these commands; it stops at the first one that fails.
async fn run(tc: &Path, device: &InterfaceName, commands: &str) -> Result<(), TrafficError> {
    let args = ["-batch", "-"].map(OsString::from);
    let captured = capture(tc, &args, commands.as_bytes(), LIMIT).await;
    let device = device.clone();
    let captured = match captured {
        Ok(captured) => captured,
        Err(source) => return Err(TrafficError::Run { device, source }),
    };
    match captured.status {
        Some(status) if status.success() => Ok(()),
        Some(_) => {
            let said = String::from_utf8_lossy(&captured.stderr);
            let said = said.lines().next().unwrap_or("nothing").to_owned();
            Err(TrafficError::Refused { device, said })
        }
        None => Err(TrafficError::Run { device, source: io::ErrorKind::TimedOut.into() }),
    }
}

/// Returns the commands for tc, one on each line, that limit the traffic of a device. `ifb` is the
/// device for the frames that come from it.
pub fn commands(device: &InterfaceName, ifb: &InterfaceName, bandwidth: &Bandwidth) -> String {
    let mut text = String::new();
    if let Some(rate) = &bandwidth.inbound {
        class(&mut text, device, rate);
    }
    if let Some(rate) = &bandwidth.outbound {
        class(&mut text, ifb, rate);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "qdisc add dev {device} ingress");
        // The destination address begins 14 bytes before the packet.
        let link_local =
            "u32 match u16 0x0180 0xffff at -14 match u32 0xc2000000 0xfffffff0 at -12";
        let filters = [
            format!("{link_local} flowid :1"),
            format!("u32 match u32 0 0 action mirred egress redirect dev {ifb}"),
        ];
        for (priority, filter) in ARRIVING.iter().zip(filters) {
            let at = format!("filter add dev {device} parent ffff: protocol all prio {priority}");
            let _ = writeln!(text, "{at} {filter}");
        }
    }
    text
}

/// Adds the commands that limit the frames which leave a device.
///
/// A class of HTB sends as long as it has tokens for both of its rates: `burst` bytes at the rate
/// `rate`, `cburst` bytes at the rate `ceil`. So `burst` bytes leave at the peak rate `ceil`.
/// Without a peak, both buckets are the same, and only the link limits a burst.
fn class(text: &mut String, device: &InterfaceName, rate: &Rate) {
    let average = rate.average.get();
    let burst = u64::from(rate.burst.map_or(0, |burst| burst.get())) * 1024;
    let burst = burst.max(least_burst(average));
    let (peak, peak_burst) = match rate.peak {
        Some(peak) => (peak.get(), least_burst(peak.get())),
        None => (average, burst),
    };
    let queue = queue(average);
    // Writing to a String cannot fail. The quantum has a meaning only among several classes.
    let _ = write!(
        text,
        "qdisc add dev {device} root handle 1: htb default 1\n\
         class add dev {device} parent 1: classid 1:1 htb rate {average}Kibps burst {burst}b \
         ceil {peak}Kibps cburst {peak_burst}b quantum 60000\n\
         qdisc add dev {device} parent 1:1 handle 2: bfifo limit {queue}b\n"
    );
}

/// Returns the smallest burst for a rate in KiB per second: the bytes of 20 ms. If the kernel sends
/// late by less, the class makes up for it. With tc's own burst of one packet, TCP reached 93.7% of
/// 100 MiB/s in place of 95.6% (measured with two busy processors).
fn least_burst(rate: u32) -> u64 {
    (u64::from(rate) * 1024 / 50).clamp(2048, u64::from(Rate::LARGEST_BURST) * 1024)
}

/// Returns the length of the queue for a rate in KiB per second, in bytes: 250 ms, but at least two
/// of the largest frames that a guest or the host can send at once (64 KiB with segmentation
/// offload) and at most 1 GiB.
fn queue(rate: u32) -> u64 {
    (u64::from(rate) * 1024 / 4).clamp(150_000, 1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(bandwidth: &str) -> String {
        let (tap, ifb) = ("nltap0".parse().unwrap(), ifb_name(7).unwrap());
        commands(&tap, &ifb, &bandwidth.parse().unwrap())
    }

    #[test]
    fn each_direction_has_a_class_with_a_queue() {
        assert_eq!(
            made("inbound=1000,outbound=100000"),
            "qdisc add dev nltap0 root handle 1: htb default 1
class add dev nltap0 parent 1: classid 1:1 htb rate 1000Kibps burst 20480b ceil 1000Kibps cburst 20480b quantum 60000
qdisc add dev nltap0 parent 1:1 handle 2: bfifo limit 256000b
qdisc add dev nlout7 root handle 1: htb default 1
class add dev nlout7 parent 1: classid 1:1 htb rate 100000Kibps burst 2048000b ceil 100000Kibps cburst 2048000b quantum 60000
qdisc add dev nlout7 parent 1:1 handle 2: bfifo limit 25600000b
qdisc add dev nltap0 ingress
filter add dev nltap0 parent ffff: protocol all prio 1 u32 match u16 0x0180 0xffff at -14 match u32 0xc2000000 0xfffffff0 at -12 flowid :1
filter add dev nltap0 parent ffff: protocol all prio 2 u32 match u32 0 0 action mirred egress redirect dev nlout7
"
        );
    }

    #[test]
    fn a_burst_leaves_at_the_peak_rate_or_at_that_of_the_link() {
        let class = |bandwidth| made(bandwidth).lines().nth(1).unwrap().to_owned();
        let start = "class add dev nltap0 parent 1: classid 1:1 htb rate 100Kibps";
        for (bandwidth, rest) in [
            ("inbound=100", "burst 2048b ceil 100Kibps cburst 2048b"),
            ("inbound=100//512", "burst 524288b ceil 100Kibps cburst 524288b"),
            ("inbound=100/1000/512", "burst 524288b ceil 1000Kibps cburst 20480b"),
            ("inbound=100/1000", "burst 2048b ceil 1000Kibps cburst 20480b"),
        ] {
            assert_eq!(class(bandwidth), format!("{start} {rest} quantum 60000"));
        }
    }

    #[test]
    fn the_largest_numbers_stay_in_the_ranges_of_tc() {
        let text = made("inbound=4294967295/4294967295/4194303");
        assert!(text.contains(&format!("burst {}b", u64::from(Rate::LARGEST_BURST) * 1024)));
        assert!(text.contains("limit 1073741824b"));
    }
}
