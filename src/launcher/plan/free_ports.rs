//! Published ports of a request that get a free port of the host.
//!
//! The numbers are part of [`LaunchIds`](super::LaunchIds), so the plan is a pure function. It
//! first makes published ports of all of them, so its other parts know only ports with numbers.

use std::borrow::Cow;
use std::net::IpAddr;

use super::error::PlanError;
use super::request::{NicRequest, Request};
use crate::types::{FreePort, Publish, PublishRequest};

impl NicRequest {
    /// Adds a published port.
    pub fn publish(&mut self, request: PublishRequest) {
        match request {
            PublishRequest::Ports(publish) => self.publish.push(publish),
            PublishRequest::Free(free) => self.free_ports.push(free),
        }
    }

    /// Returns whether the NIC has published ports.
    pub(crate) fn publishes(&self) -> bool {
        !self.publish.is_empty() || !self.free_ports.is_empty()
    }

    /// Returns each published port with the host's address that it listens on.
    pub(super) fn publish_requests(&self) -> impl Iterator<Item = (IpAddr, PublishRequest)> {
        let ports = self.publish.iter().map(|one| (one.address, one.clone().into()));
        let free = |one: &FreePort| (one.address, PublishRequest::Free(one.clone()));
        ports.chain(self.free_ports.iter().map(free))
    }
}

impl Request {
    /// Returns the ports that get a free port of the host, in the order of
    /// [`LaunchIds::free_ports`](super::LaunchIds::free_ports).
    pub(crate) fn free_ports(&self) -> impl Iterator<Item = &FreePort> {
        let nics = std::iter::once(&self.nic).chain(&self.nics);
        nics.flat_map(|nic| &nic.free_ports)
    }
}

/// Returns the request with these free ports of the host in the place of the unnamed ones, and the
/// published ports that have them.
///
/// # Errors
/// [`PlanError::NoFreePort`] if there are fewer numbers than the request needs.
pub(super) fn with_free_ports<'a>(
    request: &'a Request,
    ports: &[u16],
) -> Result<(Cow<'a, Request>, Vec<Publish>), PlanError> {
    if request.free_ports().next().is_none() {
        return Ok((Cow::Borrowed(request), Vec::new()));
    }
    let mut chosen = Vec::new();
    let mut request = request.clone();
    let mut ports = ports.iter();
    for nic in std::iter::once(&mut request.nic).chain(&mut request.nics) {
        for free in std::mem::take(&mut nic.free_ports) {
            let publish = ports.next().and_then(|port| free.with_host_port(*port));
            let publish = publish.ok_or(PlanError::NoFreePort(free))?;
            chosen.push(publish.clone());
            nic.publish.push(publish);
        }
    }
    Ok((Cow::Owned(request), chosen))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(nics: &[&[&str]]) -> Request {
        let mut all = nics.iter().map(|ports| {
            let mut nic = NicRequest::default();
            ports.iter().for_each(|port| nic.publish(port.parse().unwrap()));
            nic
        });
        Request { nic: all.next().unwrap(), nics: all.collect(), ..Request::default() }
    }

    #[test]
    fn each_free_port_gets_its_number_in_the_order_of_the_request() {
        let nics: &[&[&str]] = &[&["0:22", "80:80", "[::1]:0:53/udp"], &["0:22"]];
        let request = request(nics);
        let (with, chosen) = with_free_ports(&request, &[4001, 4002, 4003]).unwrap();
        assert_eq!(chosen.len(), 3);
        let texts = |nic: &NicRequest| -> Vec<String> {
            nic.publish.iter().map(ToString::to_string).collect()
        };
        let first = ["127.0.0.1:80:80/tcp", "127.0.0.1:4001:22/tcp", "[::1]:4002:53/udp"];
        assert_eq!(texts(&with.nic), first);
        assert_eq!(texts(&with.nics[0]), ["127.0.0.1:4003:22/tcp"]);
        assert_eq!(with.free_ports().count(), 0);
        let error = with_free_ports(&request, &[4001, 4002]).unwrap_err();
        assert!(matches!(error, PlanError::NoFreePort(_)), "{error}");
    }
}
