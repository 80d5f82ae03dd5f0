//! Why a guest that runs gets no NIC, or keeps one.

use std::io;

use super::failure::usage_if;
use crate::launcher::{QmpError, UnplugError};
use crate::types::{Id, Mac, error_text};

/// Why `netlaunch attach` or `netlaunch detach` failed. The text is one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    #[error("netlaunch does not run the QEMU of {0}, so its guest cannot get another NIC")]
    NoQemu(String),
    #[error(
        "the QEMU of {0} has no QMP socket: a script started it, or the path of its launch directory is too long, or an older netlaunch started it; start QEMU itself again, with a shorter NETLAUNCH_STATE_DIR if necessary"
    )]
    NoSocket(String),
    #[error("the launch {0} has ended")]
    Ended(String),
    #[error("the guest of {launch} has a netdev or a card {id}; use another id")]
    SameId { launch: String, id: Id },
    #[error("the guest of {launch} has a card {mac}; use another mac")]
    SameMac { launch: String, mac: Mac },
    #[error(
        "the guest of {launch} has a NIC in the subnet {subnet} already; use an address of another subnet"
    )]
    SameSubnet { launch: String, subnet: ipnet::Ipv4Net },
    #[error(
        "a guest that runs gets a network only with a card: name a device, or leave device out"
    )]
    NoCard,
    #[error("the guest of {launch} has no NIC {id}; netlaunch ps --json shows the ids")]
    NoNic { launch: String, id: Id },
    #[error(
        "{id} is a NIC from the start of {launch}, and ends with it: only attached NICs can be detached"
    )]
    FromStart { launch: String, id: Id },
    #[error(
        "{}; {id} stays attached; with --force the card stays without a network",
        error_text(error)
    )]
    Stays { id: Id, error: UnplugError },
    #[error("{}", error_text(.0))]
    Unplug(UnplugError),
    #[error("the process {pid} does not end, which supervises the attachment of {id}")]
    Supervisor { pid: i32, id: Id },
    #[error("{}", error_text(.0))]
    Qmp(#[from] QmpError),
    #[error("cannot take the lock of the QMP socket: {}", error_text(.0))]
    Lock(io::Error),
}

impl AttachError {
    /// Returns the exit status: 2 for a mistake of the caller.
    pub(super) fn status(&self) -> u8 {
        usage_if(match self {
            AttachError::NoQemu(_)
            | AttachError::SameId { .. }
            | AttachError::SameMac { .. }
            | AttachError::SameSubnet { .. }
            | AttachError::NoCard
            | AttachError::NoNic { .. }
            | AttachError::FromStart { .. } => true,
            AttachError::NoSocket(_)
            | AttachError::Ended(_)
            | AttachError::Stays { .. }
            | AttachError::Unplug(_)
            | AttachError::Supervisor { .. }
            | AttachError::Qmp(_)
            | AttachError::Lock(_) => false,
        })
    }
}
