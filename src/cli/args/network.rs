//! The verbs of `netlaunch network`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use crate::network::NetworkName;

/// What to do with virtual networks.
#[derive(Debug, Clone, Subcommand)]
pub enum NetworkVerb {
    /// List all networks
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Define a network from an XML file, or define it anew
    Define {
        /// The file; - is standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Remove the definition of a network
    Undefine(NameArg),
    /// Print the definition of a network
    Dumpxml(NameArg),
    /// Change the definition of a network in an editor
    Edit(NameArg),
    /// Start a network
    Start(NameArg),
    /// End a network and remove everything that its start made
    Destroy(NameArg),
    /// Have a network start with the host; without a name, start all that are to
    Autostart {
        /// The network
        #[arg(value_name = "NAME")]
        name: Option<NetworkName>,
        /// Have it no longer start with the host
        #[arg(long, requires = "name")]
        disable: bool,
    },
}

/// The network that a verb is about.
#[derive(Debug, Clone, Args)]
pub struct NameArg {
    /// The network
    #[arg(value_name = "NAME")]
    pub name: NetworkName,
}
