//! The verbs of `netlaunch nwfilter`: for filters, and for the ports that have a filter.

use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::values::{HexFrame, count, parameter};
use crate::nwfilter::{FilterName, Parameter};
use crate::types::{InterfaceName, Mac};

/// The verbs of `netlaunch nwfilter`.
#[derive(Debug, Clone, Subcommand)]
pub enum NwfilterVerb {
    /// Lists all filters
    List {
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Prints the definition of a filter
    Dumpxml(FilterArg),
    /// Defines a filter from an XML file, or replaces its definition
    Define {
        /// The file; - is standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Removes the definition of a filter
    Undefine(FilterArg),
    /// Opens the definition of a filter in an editor
    Edit(FilterArg),
    /// Puts a filter on a port, from a file with libvirt's filterbinding XML
    BindingCreate {
        /// Waits until the guest's address is learned, if the filter needs it, and prints it
        #[arg(long)]
        wait: bool,
        /// The file; - is standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Replaces the filter of a port, from a file with libvirt's filterbinding XML
    BindingUpdate {
        /// Waits until the guest's address is learned, if the filter needs it, and prints it
        #[arg(long)]
        wait: bool,
        /// The file; - is standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Removes the filter of a port
    BindingDelete(PortArg),
    /// Puts a filter on a port, without a file
    Bind(BindArgs),
    /// Removes the filter of a port, as binding-delete does
    Unbind(PortArg),
    /// Gives ports that come their filters, by the rules in nwfilter.conf, and runs until a signal
    Watch {
        /// Removes the guard that closes the ports of the rules until they have a filter, and ends
        #[arg(long)]
        stop: bool,
    },
    /// Learns the address of a port's guest; binding-create starts this process
    BindingLearn {
        /// The interface
        #[arg(value_name = "PORT")]
        port: InterfaceName,
        /// The inherited descriptors of binding-create: the capture and the learner lock
        #[arg(value_name = "FD,FD", value_delimiter = ',', hide = true)]
        handed: Vec<RawFd>,
    },
    /// Lists the ports that have a filter
    BindingList {
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
        /// Shows the frames and bytes that each rule of each port has counted
        #[arg(long)]
        counters: bool,
        /// Shows the counters every second until it is interrupted
        #[arg(long, requires = "counters")]
        watch: bool,
    },
    /// Prints the binding of a port
    BindingDumpxml(PortArg),
    /// Shows which rule of a filter decides about frames
    Explain(ExplainArgs),
    /// Checks a file or a defined filter, and changes nothing
    Check {
        /// The file, with a / or .xml in its name, or the filter
        #[arg(value_name = "FILE|NAME", value_hint = ValueHint::FilePath)]
        what: PathBuf,
    },
}

/// The name of a filter, as the argument of a verb.
#[derive(Debug, Clone, Args)]
pub struct FilterArg {
    /// The filter
    #[arg(value_name = "NAME")]
    pub name: FilterName,
}

/// The name of a port, as the argument of a verb.
#[derive(Debug, Clone, Args)]
pub struct PortArg {
    /// The interface
    #[arg(value_name = "PORT")]
    pub port: InterfaceName,
}

/// The arguments of `netlaunch nwfilter bind`.
#[derive(Debug, Clone, Args)]
pub struct BindArgs {
    /// The interface
    #[arg(value_name = "PORT")]
    pub port: InterfaceName,
    /// The filter
    #[arg(value_name = "FILTER")]
    pub filter: FilterName,
    /// Sets a variable of the filter; repeatable, the same name twice makes a list
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    pub param: Vec<Parameter>,
    /// Sets the MAC address of the guest's network card [default: the one that netlaunch finds]
    #[arg(long, value_name = "ADDRESS")]
    pub mac: Option<Mac>,
    /// Replaces the filter of a port that has one
    #[arg(long)]
    pub replace: bool,
    /// Waits for the port and its bridge, and until the guest's address is learned, if the filter
    /// needs it, and prints the address
    #[arg(long)]
    pub wait: bool,
}

/// The arguments of `netlaunch nwfilter explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The filter
    #[arg(value_name = "NAME", required_unless_present = "port")]
    pub name: Option<FilterName>,
    /// Explains by the rules that are in force on this port
    #[arg(long, value_name = "PORT", conflicts_with_all = ["name", "param", "mac"])]
    pub port: Option<InterfaceName>,
    /// Explains this frame: hexadecimal digits from the destination's MAC address on
    #[arg(long, value_name = "HEX", required_unless_present_any = ["pcap", "follow"])]
    #[arg(conflicts_with_all = ["pcap", "follow"])]
    pub frame: Option<HexFrame>,
    /// Explains the frames of this capture, in their order; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "follow")]
    pub pcap: Option<PathBuf>,
    /// Explains the frames of the port as the kernel judges them, until it is interrupted
    #[arg(long, requires = "port", conflicts_with_all = ["name", "direction"])]
    pub follow: bool,
    /// Ends after this number of frames
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    #[arg(conflicts_with = "frame")]
    pub count: Option<NonZeroUsize>,
    /// Sets a variable of the filter; repeatable, the same name twice makes a list
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    pub param: Vec<Parameter>,
    /// Sets the MAC address of the guest's network card: the variable MAC
    #[arg(long, value_name = "ADDRESS")]
    pub mac: Option<Mac>,
    /// Sets the direction of the frames [default: out from the guest's address, else in]
    #[arg(long, value_name = "in|out", hide_possible_values = true)]
    pub direction: Option<DirectionArg>,
    /// Prints one JSON object; with --follow, one for each frame
    #[arg(long)]
    pub json: bool,
}

/// `--direction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DirectionArg {
    /// To the guest.
    In,
    /// From the guest.
    Out,
}
