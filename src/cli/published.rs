//! The published ports of a guest on a virtual network, for the launcher.
//!
//! The manager of networks sets the rules; a relay in this process serves the ports on loopback
//! addresses. The follower looks for the guest's address: at once when dnsmasq has written its
//! leases or the guest's filter has learned the address, every second while an address is missing,
//! and otherwise every few seconds, since a guest can choose an address of its own. It changes the
//! rules only if the address has changed, or if the network was started again without the ports.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use super::Failure;
use super::environment::Environment;
use super::network;
use super::network_error::NetworkError;
use crate::launcher::guest_port::{
    AddressFollower, BoxFuture, FollowEvent, FollowStep, GuestPortError, PortRequest,
};
use crate::launcher::plan::NicRequest;
use crate::network::NetworkName;
use crate::network::manager::{GuestAddress, Manager, ManagerError, PublishedGuest};
use crate::network::relay::Relay;
use crate::sys::tap::Tap;
use crate::types::error_text;
use crate::types::facts::{FirewallScript, RulesOf};

/// How often the file of leases is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// The number of these looks between two searches for the address.
const SEARCH: u32 = 5;

/// A guest whose ports are published and whose address is followed.
#[derive(Debug)]
pub(super) struct FollowedGuest<'a> {
    pub(super) network: NetworkName,
    pub(super) request: &'a PortRequest,
    pub(super) tap: &'a Tap,
    /// The address that the guest's filter has learned.
    pub(super) learned: watch::Receiver<Option<Ipv4Addr>>,
}

/// Publishes ports of this host to guests.
#[derive(Debug, Clone)]
pub(super) struct Publisher {
    manager: Manager,
    program: PathBuf,
    state_dir: PathBuf,
}

impl Publisher {
    /// Returns a publisher; reads network.conf.
    ///
    /// # Errors
    /// network.conf cannot be used.
    pub(super) fn new(environment: &Environment) -> Result<Self, Failure> {
        let config_dir = environment.config_dir()?.ok_or(NetworkError::NoDirectory)?;
        let program = environment.own_program().map_err(Failure::system("find its own program"))?;
        Ok(Publisher {
            manager: network::manager(&config_dir, environment)?,
            program,
            state_dir: environment.state_dir(),
        })
    }

    /// Returns the directory in which the state of networks is.
    pub(super) fn state_dir(&self) -> &std::path::Path {
        &self.state_dir
    }

    /// Returns the command that removes the published ports of guests that are gone.
    pub(super) fn cleanup(&self) -> Vec<OsString> {
        [self.program.clone().into(), "network".into(), "collect".into()].into()
    }

    /// Publishes the ports of a guest. `held` has the sockets that keep the ports.
    ///
    /// # Errors
    /// The ports cannot be published; then none is.
    pub(super) async fn publish(
        &self,
        guest: FollowedGuest<'_>,
        held: &[OwnedFd],
    ) -> Result<Follower, GuestPortError> {
        let FollowedGuest { network, request, tap, learned } = guest;
        let guest = self.entry(&network, request, tap).await.map_err(GuestPortError::new)?;
        // Dropping the relay closes its ports, so it can come before the record.
        let relay = Relay::start(&guest.publish, held, guest.address);
        let relay = relay.map_err(GuestPortError::new)?;
        self.manager.publish(&network, &guest).await.map_err(GuestPortError::new)?;
        let leases = self.manager.lease_file(&network);
        Ok(Follower {
            manager: self.manager.clone(),
            network,
            guest,
            relay,
            learned,
            seen: identity(&leases),
            leases,
            failure: None,
            looks: 0,
        })
    }

    /// Returns the entry of the guest on this tap.
    async fn entry(
        &self,
        name: &NetworkName,
        request: &PortRequest,
        tap: &Tap,
    ) -> Result<PublishedGuest, ManagerError> {
        let unknown = GuestAddress::default();
        Ok(PublishedGuest {
            launch: request.launch.clone(),
            tap: tap.name().clone(),
            index: tap.index(),
            mac: request.mac,
            publish: request.publish.clone(),
            address: self.manager.guest_address(name, request.mac, unknown, None).await?,
            subnets: self.manager.bridge_subnets(name).await?,
        })
    }

    /// Removes the published ports of the guest on this tap.
    ///
    /// # Errors
    /// [`ManagerError`]; a later command removes them once the tap is gone.
    pub(super) async fn unpublish(
        &self,
        name: &NetworkName,
        tap: &Tap,
    ) -> Result<(), ManagerError> {
        self.manager.unpublish(name, tap.name(), tap.index()).await
    }

    /// Removes the published ports of guests that are gone.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub(super) async fn collect(&self) -> Result<(), ManagerError> {
        self.manager.unpublish_gone().await
    }
}

/// Returns the rules that a guest's published ports need, for a plan. A guest without a MAC address
/// in the request has no address yet, so its ports lead nowhere.
///
/// # Errors
/// [`Failure`] if the network does not run or cannot publish the ports.
pub(super) async fn scripts(
    name: &NetworkName,
    nic: &NicRequest,
    environment: &Environment,
) -> Result<Vec<FirewallScript>, Failure> {
    let config_dir = environment.config_dir()?.ok_or(NetworkError::NoDirectory)?;
    let manager = network::manager(&config_dir, environment)?;
    let address = match nic.mac {
        Some(mac) => manager.guest_address(name, mac, GuestAddress::default(), None).await?,
        None => GuestAddress::default(),
    };
    let scripts = manager.publish_scripts(name, &nic.publish, address).await?;
    Ok(scripts.into_iter().map(|script| script.shown(RulesOf::Published)).collect())
}

/// The identity of the content of a file: inode, size and time of change.
type Identity = (u64, u64, i64, i64);

fn identity(path: &std::path::Path) -> Option<Identity> {
    let of = |is: Metadata| (is.ino(), is.size(), is.ctime(), is.ctime_nsec());
    fs::metadata(path).ok().map(of)
}

/// Follows the address of a guest.
#[derive(Debug)]
pub(super) struct Follower {
    manager: Manager,
    network: NetworkName,
    /// The entry that the network has.
    guest: PublishedGuest,
    relay: Relay,
    /// The address that the guest's filter has learned.
    learned: watch::Receiver<Option<Ipv4Addr>>,
    leases: PathBuf,
    seen: Option<Identity>,
    /// The last reported failure, which is reported once.
    failure: Option<String>,
    /// The number of looks since the last search.
    looks: u32,
}

impl Follower {
    /// Waits until a search is due.
    async fn wait(&mut self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                // Without a learner, the sender is the port's, which outlives this follower.
                Ok(()) = self.learned.changed() => return,
            }
            self.looks += 1;
            let now = identity(&self.leases);
            if now != self.seen || self.looks >= SEARCH || self.is_incomplete() {
                (self.seen, self.looks) = (now, 0);
                return;
            }
        }
    }

    /// Returns whether an address is missing to which a port should lead.
    fn is_incomplete(&self) -> bool {
        let has = |v6: bool| {
            if v6 { self.guest.address.ipv6.is_some() } else { self.guest.address.ipv4.is_some() }
        };
        self.guest.publish.iter().any(|port| !has(port.address.is_ipv6()))
    }

    /// Searches for the address. Returns whether the ports lead to another one now.
    async fn search(&mut self) -> Result<bool, ManagerError> {
        let (before, mac) = (self.guest.address, self.guest.mac);
        let learned = *self.learned.borrow_and_update();
        let address = self.manager.guest_address(&self.network, mac, before, learned).await?;
        self.relay.lead_to(address);
        let wanted = PublishedGuest { address, ..self.guest.clone() };
        let (tap, index) = (&wanted.tap, wanted.index);
        let present = self.manager.published(&self.network, tap, index)?;
        if present.as_ref() != Some(&wanted) {
            self.manager.publish(&self.network, &wanted).await?;
        }
        self.guest = wanted;
        Ok(address != before)
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let address = self.guest.address;
        let (ipv4, ipv6) = (address.ipv4.map(IpAddr::from), address.ipv6.map(IpAddr::from));
        ipv4.into_iter().chain(ipv6).collect()
    }
}

impl AddressFollower for Follower {
    fn next(mut self: Box<Self>) -> BoxFuture<'static, FollowStep> {
        Box::pin(async move {
            loop {
                self.wait().await;
                match self.search().await {
                    Ok(moved) => {
                        if self.failure.take().is_some() {
                            return (FollowEvent::Recovered(self.addresses()), self as _);
                        }
                        if moved {
                            return (FollowEvent::Moved(self.addresses()), self as _);
                        }
                    }
                    Err(error) => {
                        let text = error_text(&error);
                        if self.failure.as_ref() != Some(&text) {
                            self.failure = Some(text);
                            let error = GuestPortError::new(error);
                            return (FollowEvent::Failed(error), self as _);
                        }
                    }
                }
            }
        })
    }
}
