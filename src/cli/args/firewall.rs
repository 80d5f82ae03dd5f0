//! The verbs of `netlaunch firewall`.

use clap::Subcommand;

use crate::types::InterfaceName;

/// What to do with the firewall.
#[derive(Debug, Clone, Subcommand)]
pub enum FirewallVerb {
    /// Put back the rules of the active networks, after another program removed them
    Reload {
        /// Stay, and do it again whenever firewalld has reloaded, started or ended
        #[arg(long)]
        follow: bool,
    },
    /// Find the rules of others that stop guests' traffic, and what to do; changes nothing
    Check {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Bridges [default: those of the active networks, else of all networks]
        #[arg(value_name = "BRIDGE")]
        bridges: Vec<InterfaceName>,
    },
}
