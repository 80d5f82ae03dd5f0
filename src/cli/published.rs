//! The published ports of a guest on a virtual network, for the launcher.
//!
//! The manager of networks sets the rules. The follower looks for the guest's address: at once when
//! dnsmasq has written its leases, every second while an address is missing, and otherwise every
//! few seconds, since a guest can choose an address of its own. It changes the rules only if the
//! address has changed, or if the network was started again without the ports.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use super::Failure;
use super::environment::Environment;
use super::network;
use super::network_error::NetworkError;
use crate::firewall::rules::needs_localnet;
use crate::launcher::guest_port::{
    AddressFollower, BoxFuture, FollowEvent, FollowStep, GuestPortError, PortRequest,
};
use crate::launcher::plan::NicRequest;
use crate::network::NetworkName;
use crate::network::manager::{GuestAddress, Manager, ManagerError, PublishedGuest};
use crate::sys::tap::Tap;
use crate::types::error_text;
use crate::types::facts::{FirewallScript, RulesOf};

/// How often the file of leases is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// The number of these looks between two searches for the address.
const SEARCH: u32 = 5;

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

    /// Publishes the ports of a request to the guest on this tap.
    ///
    /// # Errors
    /// [`ManagerError`]; nothing is published.
    pub(super) async fn publish(
        &self,
        name: &NetworkName,
        request: &PortRequest,
        tap: &Tap,
    ) -> Result<Follower, ManagerError> {
        let address = self.manager.guest_address(name, request.mac, None).await?;
        let guest = PublishedGuest {
            launch: request.launch.clone(),
            tap: tap.name().clone(),
            index: tap.index(),
            mac: request.mac,
            publish: request.publish.clone(),
            address,
            subnets: self.manager.bridge_subnets(name).await?,
        };
        self.manager.publish(name, &guest).await?;
        let leases = self.manager.lease_file(name);
        Ok(Follower {
            manager: self.manager.clone(),
            network: name.clone(),
            guest,
            seen: identity(&leases),
            leases,
            failure: None,
            looks: 0,
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
        Some(mac) => manager.guest_address(name, mac, None).await.map_err(NetworkError::from)?,
        None => GuestAddress::default(),
    };
    let scripts = manager.publish_scripts(name, &nic.publish, address).await;
    let scripts = scripts.map_err(NetworkError::from)?;
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
    leases: PathBuf,
    seen: Option<Identity>,
    /// The last reported failure, which is reported once.
    failure: Option<String>,
    /// The number of looks since the last search.
    looks: u32,
}

impl Follower {
    /// Waits until a search is due. Closes the ports on the loopback address if the rules that
    /// guard the host's loopback services are gone.
    ///
    /// # Errors
    /// The ports were closed, or the guard failed.
    async fn wait(&mut self) -> Result<(), ManagerError> {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if self.guest.publish.iter().any(needs_localnet) {
                self.manager.guard_localnet(&self.network).await?;
            }
            self.looks += 1;
            let now = identity(&self.leases);
            if now != self.seen || self.looks >= SEARCH || self.is_incomplete() {
                (self.seen, self.looks) = (now, 0);
                return Ok(());
            }
        }
    }

    /// Returns whether an address is missing to which a port should lead.
    fn is_incomplete(&self) -> bool {
        let has = |v6: bool| match v6 {
            true => self.guest.address.ipv6.is_some(),
            false => self.guest.address.ipv4.is_some(),
        };
        self.guest.publish.iter().any(|port| !has(port.address.is_ipv6()))
    }

    /// Searches for the address. Returns whether the ports lead to another one now.
    async fn search(&mut self) -> Result<bool, ManagerError> {
        let (before, mac) = (self.guest.address, self.guest.mac);
        let address = self.manager.guest_address(&self.network, mac, Some(before)).await?;
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
                let searched = match self.wait().await {
                    Ok(()) => self.search().await,
                    Err(error) => Err(error),
                };
                match searched {
                    Ok(moved) => {
                        self.failure = None;
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
