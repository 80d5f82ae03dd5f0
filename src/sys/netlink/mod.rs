//! Reads and changes the host's links, addresses and routes by netlink, and the sysctls that belong
//! to them.
//!
//! [`Netlink`] is one connection to the kernel, in the network namespace of the thread that opened
//! it. Each change that must be undone later returns an [`Undo`], which can be written to a file
//! and carried out by a later process. An undo changes only its own interface, which it identifies
//! by number *and* name; an object that no longer exists counts as undone.
//!
//! | file | what |
//! |------|------|
//! | [`bridge`] | bridges, their ports, up and down |
//! | `port` | isolation and VLANs of a port |
//! | `ifb` | the devices that delay the frames from a limited device |
//! | [`guest_tap`] | taps of running launches, and the bridges that they belong to |
//! | [`address`] | addresses and static routes |
//! | [`host`] | the host's links, addresses and routes as values, and whether a subnet is free |
//! | `read` | reading these values from the kernel |
//! | [`neighbors`] | the neighbour tables, and the MAC addresses behind the ports of bridges |
//! | [`link_events`] | the changes of links, as the kernel reports them |
//! | [`lookup`] | the kernel's own routing decision for a packet |
//! | `request` | sending requests to the kernel and checking the acknowledgement |
//! | [`undo`] | undoing changes, the last one first |
//! | [`sysctl`] | settings in /proc/sys, restored when no other network needs them |

pub mod address;
pub mod bridge;
mod error;
pub mod guest_tap;
pub mod host;
mod ifb;
pub mod link_events;
pub mod lookup;
pub mod neighbors;
mod port;
pub mod queues;
mod read;
mod request;
pub mod sysctl;
pub mod undo;

pub use address::Route;
pub use bridge::BridgeSpec;
pub use error::LinkError;
pub use guest_tap::{GuestTap, TapHome};
pub(crate) use host::is_link_local;
pub use host::{Conflict, HostNet, HostRoute, Link};
pub use ifb::ifb_name;
pub use link_events::LinkEvents;
pub use lookup::{PolicyRule, RouteDecision};
pub use neighbors::{BridgeEntry, Neighbor};
pub use undo::Undo;

use request::Requests;

/// A connection to the kernel's tables of links, addresses and routes.
#[derive(Debug, Clone)]
pub struct Netlink {
    requests: Requests,
}

impl Netlink {
    /// Connects, within the calling thread's network namespace. Call it in a tokio runtime with I/O
    /// enabled: the connection is served by a task of that runtime, which ends with the last clone.
    ///
    /// # Errors
    /// [`LinkError::Connect`].
    pub fn open() -> Result<Self, LinkError> {
        Ok(Netlink { requests: Requests::open()? })
    }
}
