//! The verbs of `netlaunch firewall`.

use clap::Subcommand;

use crate::types::InterfaceName;

/// The verbs of `netlaunch firewall`.
#[derive(Debug, Clone, Subcommand)]
pub enum FirewallVerb {
    /// Puts back parts of active networks that other programs removed, such as their rules
    Reload {
        /// Stays, and reloads again whenever firewalld has reloaded, started or ended
        #[arg(long)]
        follow: bool,
    },
    /// Finds the causes that stop guests' traffic, and their fixes; changes nothing
    Check {
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
        /// Bridges [default: those of the active networks, else of all networks]
        #[arg(value_name = "BRIDGE")]
        bridges: Vec<InterfaceName>,
    },
}
