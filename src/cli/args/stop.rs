//! The arguments of `netlaunch stop` and `netlaunch logs`.

use clap::Args;

use super::values;
use crate::types::LaunchName;

/// The arguments of `netlaunch stop`.
#[derive(Debug, Clone, Args)]
pub struct StopArgs {
    /// The launch, by its name in netlaunch ps
    #[arg(value_name = "NAME")]
    pub launch: LaunchName,
    /// Ends QEMU if the guest has not powered down after this time; 0 ends it at once [default:
    /// that of the launch, or 60]
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds)]
    #[arg(allow_negative_numbers = true)]
    pub stop_timeout: Option<u32>,
}

/// The arguments of `netlaunch logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// The launch, by its name
    #[arg(value_name = "NAME")]
    pub launch: LaunchName,
}
