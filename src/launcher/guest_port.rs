//! The port of a guest on a bridge, as the launcher sees it.
//!
//! The launcher makes no tap and knows no filter. Its caller gives it a [`GuestPorts`], which makes
//! a [`GuestPort`] for each bridged guest. The launcher calls the port in this order:
//!
//! ```text
//! make ─▶ set_rules ─▶ up ─▶ publish ─▶ descriptors ─▶ QEMU runs ─▶ remove
//!     while QEMU runs: AddressLearner::next, AddressFollower::next, PortWatch::next
//! ```
//!
//! No frame passes before `up`, so the rules of the guest's filter are set before its first frame.
//! `remove` is called after QEMU has ended, or has closed its descriptors of the port; `turn_off`
//! is called in its place if QEMU does neither. A port that is dropped instead, because the launch
//! was cancelled, must not leave an interface behind; its rules may stay for a later command to
//! remove.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;

use crate::launcher::plan::GuestFilter;
use crate::types::{InterfaceName, Mac, NetworkName, PortSettings, Publish};

/// A future that any thread can drive.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes the ports of bridged guests.
pub(crate) trait GuestPorts: fmt::Debug + Send + Sync {
    /// Makes a port on the bridge of `request`. The port is down and has no rules.
    fn make(
        &self,
        request: PortRequest,
    ) -> BoxFuture<'_, Result<Box<dyn GuestPort>, GuestPortError>>;

    /// Sets the rules of every port's filter again, from the definitions and settings of this
    /// moment. Returns notes for the user, one sentence each.
    fn rebuild_rules(&self) -> BoxFuture<'static, Result<Vec<String>, GuestPortError>>;

    /// Returns the command line, the program's path first, that removes the published ports of
    /// guests that are gone. The guard of QEMU executes it if this process is killed. `None` if no
    /// port is published.
    fn cleanup(&self) -> Option<Vec<OsString>>;
}

/// The port that one guest needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortRequest {
    /// The name of the launch.
    pub(crate) launch: String,
    /// The name for the tap; `None` lets the kernel number it.
    pub(crate) tap: Option<InterfaceName>,
    /// The bridge.
    pub(crate) bridge: InterfaceName,
    /// The virtual network whose bridge it is, if the launch names one.
    pub(crate) network: Option<NetworkName>,
    /// The hardware address of the guest's card.
    pub(crate) mac: Mac,
    /// The VLANs, the isolation and the limits of the port.
    pub(crate) port: PortSettings,
    /// The guest's filter.
    pub(crate) filter: Option<GuestFilter>,
    /// The ports of the host that lead to the guest.
    pub(crate) publish: Vec<Publish>,
    /// The number of the tap's queues.
    pub(crate) queues: usize,
    /// The number of vhost-net descriptors, one for each queue; 0 without vhost-net.
    pub(crate) vhosts: usize,
}

/// The descriptors of a port that QEMU inherits.
#[derive(Debug)]
pub(crate) struct PortDescriptors {
    /// The queues of the tap.
    pub(crate) queues: Vec<OwnedFd>,
    /// The kernel's network backend, once for each queue; empty without vhost-net.
    pub(crate) vhosts: Vec<OwnedFd>,
}

/// A port of a bridge with a guest's tap.
pub(crate) trait GuestPort: fmt::Debug + Send {
    /// Returns the name of the tap.
    fn name(&self) -> &InterfaceName;

    /// Sets the rules of the guest's filter. Called only for a port whose request has a filter, and
    /// before [`up`](Self::up).
    fn set_rules(&mut self) -> BoxFuture<'_, Result<RulesSet, GuestPortError>>;

    /// Turns the port on.
    fn up(&self) -> BoxFuture<'_, Result<(), GuestPortError>>;

    /// Publishes the ports of the request to the guest. Called once, for a port whose request has
    /// some. `held` has the sockets that keep them, in the order of the request, one for each port
    /// of a range. [`remove`](Self::remove) takes the ports back.
    fn publish<'a>(
        &'a mut self,
        held: &'a [OwnedFd],
    ) -> BoxFuture<'a, Result<Box<dyn AddressFollower>, GuestPortError>>;

    /// Watches whether the port is on its bridge. `None` if the kernel does not report that.
    fn watch(&self) -> Option<Box<dyn PortWatch>>;

    /// Returns copies of the tap's descriptors, and new vhost-net ones; QEMU inherits them.
    ///
    /// # Errors
    /// The process has no descriptor left, or the kernel has no vhost-net any more.
    fn descriptors(&self) -> Result<PortDescriptors, GuestPortError>;

    /// Returns the directory with the state of the port's rules, those of its filter or of its
    /// published ports; `None` for a port without rules. Ending the launch writes there.
    fn rules_dir(&self) -> Option<&Path>;

    /// Turns the port off, removes its rules, and removes the tap. Goes on after an error; returns
    /// one line for each thing that could not be removed.
    fn remove(self: Box<Self>) -> BoxFuture<'static, Vec<String>>;

    /// Turns the port off and takes it off its bridge for good. Its rules and its tap stay until
    /// the last program that has the tap ends. Returns one line for each step that failed.
    fn turn_off(self: Box<Self>) -> BoxFuture<'static, Vec<String>>;
}

/// The result of setting a port's rules.
#[derive(Debug)]
pub(crate) struct RulesSet {
    /// Notes for the user, one sentence each.
    pub(crate) notes: Vec<String>,
    /// The learner of the guest's address, if the filter needs the address and does not have it.
    pub(crate) learner: Option<Box<dyn AddressLearner>>,
}

/// Learns the address of one guest and sets the rules with it. Dropping it ends the learning; the
/// rules stay.
pub(crate) trait AddressLearner: fmt::Debug + Send {
    /// Waits until the rules are set with a new address, or fail to be. Returns the learner for the
    /// next call, or `None` after the end. Dropping the future drops the learner.
    fn next(self: Box<Self>) -> BoxFuture<'static, LearnerStep>;
}

/// The result of [`AddressLearner::next`].
pub(crate) type LearnerStep = (LearnerEvent, Option<Box<dyn AddressLearner>>);

/// A change in what is known of a guest's address.
#[derive(Debug)]
pub(crate) enum LearnerEvent {
    /// The rules are set with these addresses.
    Learned {
        /// The IPv4 address; with `None`, the rules wait for it, or do not need it.
        address: Option<Ipv4Addr>,
        /// The IPv6 addresses.
        addresses6: Vec<Ipv6Addr>,
    },
    /// The rules could not be set with the learned address.
    Failed(GuestPortError),
    /// The learning has ended: the port or its filter is gone, or this error occurred.
    Ended(Option<GuestPortError>),
}

/// Follows the address of a guest whose ports are published, changes the rules of the ports when
/// the address changes, and relays the ports on loopback addresses. Dropping it ends that; the
/// rules stay.
pub(crate) trait AddressFollower: fmt::Debug + Send {
    /// Waits until the rules lead to another address, or fail to. Returns the follower for the next
    /// call. Dropping the future drops the follower.
    fn next(self: Box<Self>) -> BoxFuture<'static, FollowStep>;
}

/// The result of [`AddressFollower::next`].
pub(crate) type FollowStep = (FollowEvent, Box<dyn AddressFollower>);

/// A change of the address to which published ports lead.
#[derive(Debug)]
pub(crate) enum FollowEvent {
    /// The ports lead to these addresses; without one, they lead nowhere.
    Moved(Vec<IpAddr>),
    /// The ports could not be changed; the follower tries again.
    Failed(GuestPortError),
    /// After a failure, the ports follow the guest again, and lead to these addresses.
    Recovered(Vec<IpAddr>),
}

/// Watches whether the port of a running guest is on its bridge. Dropping it ends that.
pub(crate) trait PortWatch: fmt::Debug + Send {
    /// Waits until the port has left its bridge or is on it again. Returns the watch for the next
    /// call, or `None` after the end.
    fn next(self: Box<Self>) -> BoxFuture<'static, WatchStep>;
}

/// The result of [`PortWatch::next`].
pub(crate) type WatchStep = (WatchEvent, Option<Box<dyn PortWatch>>);

/// A change of the place of a port.
#[derive(Debug)]
pub(crate) enum WatchEvent {
    /// The port is not on its bridge any more; one sentence for the user.
    Lost(String),
    /// The port is on its bridge again; one sentence for the user.
    Back(String),
    /// The watch has ended: the port is gone, or this error occurred.
    Ended(Option<GuestPortError>),
}

/// Why the port of a guest on a bridge could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct GuestPortError(#[from] Box<dyn Error + Send + Sync>);

impl GuestPortError {
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        GuestPortError(Box::new(error))
    }

    /// Returns the wrapped error if it is of this type.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}
