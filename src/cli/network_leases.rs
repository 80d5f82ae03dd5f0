//! `netlaunch network leases`: the addresses that the DHCP server of a network has given.

use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::table::table;
use super::{Failure, print_json, print_text, runtime};
use crate::network::NetworkName;
use crate::network::dnsmasq::lease_file::LeaseFile;
use crate::network::dnsmasq::{DhcpLease, Files};
use crate::network::guest_address::AddressTable;
use crate::network::manager::{Manager, ManagerError, NetworkStatus};

/// The version of the JSON output, described by conf/schema/network-leases.schema.json.
const LEASES_VERSION: u32 = 1;

/// Prints the active leases of a running network.
pub(super) fn leases(manager: &Manager, name: &NetworkName, json: bool) -> Result<(), Failure> {
    let status = manager.running(name)?;
    let mut leases = read(&status)?;
    // An error leaves the table without neighbours, and the lease file was read before.
    let (addresses, _) = runtime()?.block_on(AddressTable::of_network(&status));
    for lease in &mut leases {
        lease.mac = addresses.mac_of(lease);
    }
    let subnets = subnets(&status);
    if json {
        let leases: Vec<Value> = leases.iter().map(|lease| as_json(lease, &subnets)).collect();
        return print_json(
            &json!({ "version": LEASES_VERSION, "network": name, "leases": leases }),
        );
    }
    let now = now();
    let row = |lease: &DhcpLease| {
        let text = |part: Option<String>| part.unwrap_or_else(|| "-".to_owned());
        [
            lease.address.to_string(),
            text(lease.mac.map(|mac| mac.to_string())),
            text(lease.name.as_ref().map(ToString::to_string)),
            lease.until.map_or_else(|| "never".to_owned(), |until| time_left(until, now)),
            text(lease.client.as_ref().map(ToString::to_string)),
        ]
    };
    let header = ["ADDRESS", "MAC", "NAME", "EXPIRES", "CLIENT"];
    print_text(&table(header, &leases.iter().map(row).collect::<Vec<_>>(), &[3], &[2, 4]))
}

/// Returns the active leases of a network in the order of their addresses, and warns of damaged
/// lines in the file.
pub(super) fn read(status: &NetworkStatus) -> Result<Vec<DhcpLease>, ManagerError> {
    let file = LeaseFile::read(&Files::in_dir(&status.dir).leases)?;
    if file.damaged > 0 {
        tracing::warn!(
            "the lease file of the network {} has {} damaged lines, which are left out",
            status.name,
            file.damaged
        );
    }
    let now = now();
    let mut leases = file.leases;
    leases.retain(|lease| lease.is_active(now));
    leases.sort_by_key(|lease| lease.address);
    Ok(leases)
}

/// Returns the subnets of a running network.
pub(super) fn subnets(status: &NetworkStatus) -> Vec<IpNet> {
    status.network().map(|network| network.subnets().collect()).unwrap_or_default()
}

/// Returns a lease as JSON; the prefix length is that of the network's subnet.
pub(super) fn as_json(lease: &DhcpLease, subnets: &[IpNet]) -> Value {
    let subnet = subnets.iter().find(|subnet| subnet.contains(&lease.address));
    let text = |client: Option<&crate::network::dnsmasq::lease_file::ClientId>| {
        client.map(ToString::to_string)
    };
    let v6 = lease.association;
    json!({
        "family": if lease.address.is_ipv4() { "ipv4" } else { "ipv6" },
        "address": lease.address,
        "prefix": subnet.map(IpNet::prefix_len),
        "mac": lease.mac,
        "hostname": lease.name,
        "client_id": text(lease.client.as_ref().filter(|_| v6.is_none())),
        "duid": text(lease.client.as_ref().filter(|_| v6.is_some())),
        "iaid": v6.map(|association| association.iaid),
        "temporary": v6.is_some_and(|association| association.temporary),
        "expires": lease.until,
    })
}

/// Returns the seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}

/// Returns the time until `until`, in the two largest units.
fn time_left(until: u64, now: u64) -> String {
    let left = until.saturating_sub(now);
    let (days, hours, minutes, seconds) =
        (left / 86_400, left / 3600 % 24, left / 60 % 60, left % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("in {seconds}s"),
        (0, 0, minutes) => format!("in {minutes}m {seconds}s"),
        (0, hours, minutes) => format!("in {hours}h {minutes}m"),
        (days, hours, _) => format!("in {days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_has_two_units() {
        for (left, text) in [
            (0, "in 0s"),
            (59, "in 59s"),
            (3599, "in 59m 59s"),
            (7260, "in 2h 1m"),
            (180_000, "in 2d 2h"),
        ] {
            assert_eq!(time_left(1000 + left, 1000), text);
        }
        assert_eq!(time_left(10, 1000), "in 0s");
    }
}
