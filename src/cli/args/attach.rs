//! The arguments of `netlaunch attach` and `netlaunch detach`.

use std::path::PathBuf;

use clap::Args;

use super::values;
use crate::launcher::plan::NicRequest;
use crate::types::{Id, LaunchName};

/// The arguments of `netlaunch attach`.
#[derive(Debug, Clone, Args)]
pub struct AttachArgs {
    /// The launch, by its name in netlaunch ps
    #[arg(value_name = "NAME")]
    pub launch: LaunchName,
    /// Adds this NIC: passt, slirp, network=NAME or bridge=IFNAME, then ,key=value...
    #[arg(long, value_name = "NIC", required = true)]
    pub net: NicRequest,
}

/// The arguments of `netlaunch detach`.
#[derive(Debug, Clone, Args)]
pub struct DetachArgs {
    /// The launch, by its name in netlaunch ps
    #[arg(value_name = "NAME")]
    pub launch: LaunchName,
    /// The NIC, by its id
    #[arg(value_name = "ID")]
    pub id: Id,
    /// Waits so long for the guest to give up the card [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds)]
    #[arg(allow_negative_numbers = true)]
    pub timeout: Option<u32>,
    /// Takes the network away even if the guest keeps the card
    #[arg(long)]
    pub force: bool,
}

/// The arguments of the command that a cleaner runs for a killed attachment.
#[derive(Debug, Clone, Args)]
pub struct CollectArgs {
    /// The launch directory of the attachment
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}
