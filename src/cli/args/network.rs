//! The verbs of `netlaunch network`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::values::parent_index;
use crate::network::NetworkName;
use crate::network::update::UpdateSection;

/// The verbs of `netlaunch network`.
#[derive(Debug, Clone, Subcommand)]
pub enum NetworkVerb {
    /// Lists all networks
    List {
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Defines a network from an XML file, or replaces its definition
    Define {
        /// The file; - is standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Removes the definition of a network
    Undefine(NameArg),
    /// Prints the definition of a network
    Dumpxml(NameArg),
    /// Opens the definition of a network in an editor
    Edit(NameArg),
    /// Starts a network
    Start(NameArg),
    /// Ends a network and removes everything that its start made
    Destroy {
        /// The network
        #[arg(value_name = "NAME")]
        name: NetworkName,
        /// Ends the network even if its bridge has ports
        #[arg(long)]
        force: bool,
    },
    /// Removes the published ports of guests that are gone; the guard of a killed launch calls this
    #[command(hide = true)]
    Collect,
    /// Shows the state of a network
    Info(ShownArg),
    /// Lists the addresses that the DHCP server of a network has given
    Leases(ShownArg),
    /// Lists the ports on the bridge of a network, with the guests behind them
    Ports(ShownArg),
    /// Prints the next event of a running network
    Event {
        /// The network
        #[arg(value_name = "NAME", required_unless_present = "all")]
        name: Option<NetworkName>,
        /// Prints the events of all networks
        #[arg(long, conflicts_with = "name")]
        all: bool,
        /// Stays and prints every event
        #[arg(long)]
        follow: bool,
        /// Prints one JSON object for each event
        #[arg(long)]
        json: bool,
    },
    /// Changes one element of a network, also while it runs
    Update(UpdateArgs),
    /// Makes a network start with the host; without a name, starts all such networks
    Autostart {
        /// The network
        #[arg(value_name = "NAME")]
        name: Option<NetworkName>,
        /// No longer starts the network with the host
        #[arg(long, requires = "name")]
        disable: bool,
    },
}

/// The arguments of `netlaunch network update`.
#[derive(Debug, Clone, Args)]
pub struct UpdateArgs {
    /// The network
    #[arg(value_name = "NAME")]
    pub name: NetworkName,
    /// The change
    #[arg(value_name = "CHANGE")]
    pub change: UpdateAction,
    /// The list that changes, such as ip-dhcp-host
    #[arg(value_name = "SECTION")]
    pub section: UpdateSection,
    /// The element, or the file that has it; - is standard input
    #[arg(value_name = "XML|FILE", value_hint = ValueHint::FilePath)]
    pub element: PathBuf,
    /// Changes the running network
    #[arg(long)]
    pub live: bool,
    /// Changes the definition; with --live, both change or none
    #[arg(long)]
    pub config: bool,
    /// Changes the network if it runs, else its definition (the default)
    #[arg(long, conflicts_with_all = ["live", "config"])]
    pub current: bool,
    /// Names the ip element by its number, from 0; without it, the addresses decide
    #[arg(
        long,
        value_name = "NUMBER",
        allow_negative_numbers = true,
        value_parser = parent_index
    )]
    pub parent_index: Option<i64>,
}

/// A change of one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UpdateAction {
    /// Adds the element behind the others
    AddLast,
    /// Adds the element before the others
    AddFirst,
    /// The same as add-last
    Add,
    /// Replaces the element with the same key
    Modify,
    /// Removes the element with these attributes
    Delete,
}

/// The arguments of a verb that shows one network.
#[derive(Debug, Clone, Args)]
pub struct ShownArg {
    /// The network
    #[arg(value_name = "NAME")]
    pub name: NetworkName,
    /// Prints one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The name of a network, as the argument of a verb.
#[derive(Debug, Clone, Args)]
pub struct NameArg {
    /// The network
    #[arg(value_name = "NAME")]
    pub name: NetworkName,
}
