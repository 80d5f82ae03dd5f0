//! The host's links, addresses and routes, read and changed by netlink; the sysctls that go with
//! them.
//!
//! [`Netlink`] is one connection to the kernel, in the network namespace of the thread that opened
//! it. Everything it changes gives back an [`Undo`], which can be written to a file and carried out
//! by a later process. An undo touches only what it is about: interfaces are known by their number
//! *and* name, and what is gone already counts as undone.
//!
//! | file | what |
//! |------|------|
//! | [`bridge`] | bridges, their ports, up and down |
//! | [`address`] | addresses and static routes |
//! | [`host`] | what the host has as a value, and whether a subnet is free |
//! | `read` | the same, read from the kernel |
//! | `request` | the one way in which requests go to the kernel and are acknowledged |
//! | [`undo`] | taking back, last first |
//! | [`sysctl`] | settings in /proc/sys, put back where nobody else needs them |

pub mod address;
pub mod bridge;
mod error;
pub mod host;
mod read;
mod request;
pub mod sysctl;
pub mod undo;

pub use address::Route;
pub use bridge::BridgeSpec;
pub use error::LinkError;
pub use host::{Conflict, HostNet, Link};
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
