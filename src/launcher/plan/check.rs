//! Checks that the parts of a request go together.
//!
//! Each part is valid by its type. The order of the checks decides which of several mistakes is
//! reported: first the bridge, because it excludes most other settings, last the caller's own QEMU
//! arguments. No check looks at the host.

use super::guest_addresses::overlaps;
use super::left_network::LeftNetwork;
use super::nics::adoptable;
use super::own_options::check_command;
use super::request::{AddressChoice, Attachment, Family, MAX_MTU, NicRequest, Request, Transport};
use super::request_error::RequestError;
use crate::types::facts::Facts;
use crate::types::{Publish, Setting, UserName, overlap};

/// A test of whether a NIC has a setting.
type Given = fn(&NicRequest) -> bool;

impl Request {
    /// Checks that the parts of the request go together.
    ///
    /// # Errors
    /// The first [`RequestError`] found; each is a mistake of the caller (exit status 2).
    pub fn check(&self) -> Result<(), RequestError> {
        self.check_vmm()?;
        self.check_socket()?;
        if !self.nics.is_empty() {
            self.check_list()?;
        }
        for nic in [&self.nic].into_iter().chain(&self.nics) {
            check_nic(nic, self.user.as_ref())?;
        }
        self.added().iter().try_for_each(NicRequest::check_queues)?;
        conflicts(&[], &self.nics)?;
        let is_fd = |nic: &NicRequest| nic.transport == Some(Transport::Fd);
        match (&self.command, &self.user) {
            (Some(command), _) => check_command(self, command),
            (None, _) if self.added().iter().any(is_fd) && self.socket.is_none() => {
                Err(RequestError::ServeFd)
            }
            (None, Some(user)) => Err(RequestError::ServeUser(user.clone())),
            (None, None) if self.stop_timeout.is_some() => Err(RequestError::ServeStopTimeout),
            (None, None) => Ok(()),
        }
    }

    /// Checks that no setting of the single NIC stands beside the list of NICs, and that each
    /// setting for passt, and each one for user-mode networks, has a NIC that takes it. A network
    /// of the QEMU arguments takes the backend and all these settings.
    fn check_list(&self) -> Result<(), RequestError> {
        let nic = &self.nic;
        let attachment = nic.attachment.as_ref();
        let adopts = self.has_user_nics();
        let settings = [
            (attachment.is_some(), attachment.map_or(Setting::Bridge, |a| a.setting())),
            (nic.filter.is_some(), Setting::Filter),
            (nic.bandwidth.is_some(), Setting::Bandwidth),
            (nic.id_named, Setting::Id),
            (nic.mac.is_some(), Setting::Mac),
            (nic.device_named, Setting::Device),
            (nic.publishes(), Setting::Publish),
            (nic.address != AddressChoice::Default, Setting::Address),
            (nic.gateway.is_some(), Setting::Gateway),
            (nic.hostname.is_some(), Setting::Hostname),
            (nic.pcap.is_some(), Setting::Pcap),
            (nic.backend.is_some() && !adopts, Setting::Backend),
        ];
        if let Some((_, setting)) = settings.into_iter().find(|(given, _)| *given) {
            return Err(RequestError::SingleWithList(setting));
        }
        let is_given: [(Given, Setting); 3] = [
            (|nic| nic.transport.is_some(), Setting::Transport),
            (|nic| !nic.passt_options.is_empty(), Setting::PasstOption),
            (|nic| nic.interface.is_some(), Setting::Interface),
        ];
        let is_dropped = |given: Given| given(nic) && !adopts && !self.nics.iter().any(given);
        if let Some((_, setting)) = is_given.into_iter().find(|(given, _)| is_dropped(*given)) {
            return Err(RequestError::PasstWithList(setting));
        }
        let user_mode = [
            (nic.dns.is_some(), Setting::Dns),
            (!nic.search.is_empty(), Setting::Search),
            (nic.mtu.is_some(), Setting::Mtu),
            (nic.family == Family::V4, Setting::Ipv4Only),
            (nic.family == Family::V6, Setting::Ipv6Only),
            (!nic.host_loopback, Setting::HostLoopback),
        ];
        let has_none = !adopts && self.nics.iter().all(|nic| nic.attachment.is_some());
        match user_mode.into_iter().find(|(given, _)| *given && has_none) {
            Some((_, setting)) => Err(RequestError::UserModeWithList(setting)),
            None => Ok(()),
        }
    }

    /// Returns whether the QEMU arguments have a user-mode network that the launch may move.
    fn has_user_nics(&self) -> bool {
        let line = self.command_line();
        // Whether there is such a network does not depend on the host.
        line.is_some_and(|line| {
            !adoptable(self, &line, &self.settings(), &Facts::default()).is_empty()
        })
    }
}

impl NicRequest {
    /// Checks that the ports of a guest on a bridge can be published.
    pub(super) fn check_published(&self) -> Result<(), RequestError> {
        let Some((_, publish)) = self.publish_requests().next() else { return Ok(()) };
        if let Some(Attachment::Bridge(bridge)) = &self.attachment {
            let bridge = bridge.clone();
            return Err(RequestError::PublishWithoutNetwork { publish, bridge });
        }
        Ok(())
    }
}

/// Checks that the settings of one NIC go together.
fn check_nic(nic: &NicRequest, user: Option<&UserName>) -> Result<(), RequestError> {
    nic.check_bridge(user)?;
    nic.check_port()?;
    check_ports(&nic.publish)?;
    nic.check_passt_options()?;
    nic.check_family()?;
    nic.check_addresses()?;
    // The smallest MTU of IPv6 (RFC 8200, 5) and of IPv4 (RFC 791, 3.2).
    let least = if nic.family == Family::V6 { 1280 } else { 68 };
    match nic.mtu.filter(|mtu| !(least..=MAX_MTU).contains(mtu)) {
        Some(mtu) => Err(RequestError::Mtu { mtu, least }),
        None => Ok(()),
    }
}

/// Checks that no two published ports use the same port of the host.
fn check_ports(publish: &[Publish]) -> Result<(), RequestError> {
    match overlap(publish) {
        Some((first, second, port)) => {
            let (first, second) = (first.clone(), second.clone());
            Err(RequestError::Overlap { first, second, port })
        }
        None => Ok(()),
    }
}

/// Checks that no port of the host for an added NIC is that of a forward that stays.
pub(super) fn check_forwards(
    own: impl Iterator<Item = Publish>,
    added: &[NicRequest],
) -> Result<(), RequestError> {
    let own: Vec<Publish> = own.collect();
    if overlap(&own).is_some() {
        // QEMU itself reports two of its own forwards.
        return Ok(());
    }
    let publish = added.iter().flat_map(|nic| nic.publish.iter().cloned());
    check_ports(&own.into_iter().chain(publish).collect::<Vec<_>>())
}

/// Checks that no added NIC has the hardware address or the subnet of a network that stays on
/// slirp, and that no port of the host is that of one of its forwards. `publish` are the ports of
/// all other NICs, and those that are added to such a network.
///
/// QEMU itself reports two forwards of such networks.
pub(super) fn conflicts_with_left(
    left: &[LeftNetwork],
    added: &[NicRequest],
    publish: impl Iterator<Item = Publish>,
) -> Result<(), RequestError> {
    let own: Vec<Publish> = left.iter().flat_map(|network| network.publish.clone()).collect();
    if overlap(&own).is_none() {
        check_ports(&own.into_iter().chain(publish).collect::<Vec<_>>())?;
    }
    for (network, nic) in left.iter().flat_map(|one| added.iter().map(move |nic| (one, nic))) {
        if let Some(mac) = nic.mac.filter(|_| nic.mac == network.mac) {
            return Err(RequestError::SameMac(mac));
        }
        check_subnets(network.address, nic.address)?;
    }
    Ok(())
}

/// Checks that no two NICs use the same id, hardware address, port of the host or subnet. QEMU
/// itself accepts adopted NICs in one subnet.
pub(super) fn conflicts(adopted: &[&NicRequest], added: &[NicRequest]) -> Result<(), RequestError> {
    let all: Vec<&NicRequest> = adopted.iter().copied().chain(added).collect();
    let publish: Vec<Publish> = all.iter().flat_map(|nic| nic.publish.clone()).collect();
    check_ports(&publish)?;
    for (place, nic) in all.iter().enumerate().skip(adopted.len()) {
        for (number, before) in all[..place].iter().enumerate() {
            let are_final = number < adopted.len() || (nic.id_named && before.id_named);
            if are_final && nic.id == before.id {
                return Err(RequestError::SameId(nic.id.clone()));
            }
            if let Some(mac) = nic.mac.filter(|_| nic.mac == before.mac) {
                return Err(RequestError::SameMac(mac));
            }
            check_subnets(before.address, nic.address)?;
        }
    }
    Ok(())
}

/// Checks that the addresses of two NICs are in two subnets.
pub(super) fn check_subnets(
    before: AddressChoice,
    address: AddressChoice,
) -> Result<(), RequestError> {
    let same = |first: String, second: String| Err(RequestError::SameSubnet { first, second });
    match (before, address) {
        (AddressChoice::Fixed(first), AddressChoice::Fixed(second))
            if overlaps(&first.subnet(), &second.subnet()) =>
        {
            same(first.to_string(), second.to_string())
        }
        (AddressChoice::Host, AddressChoice::Host) => same("host".into(), "host".into()),
        _ => Ok(()),
    }
}
