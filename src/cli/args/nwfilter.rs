//! The verbs of `netlaunch nwfilter`: of filters, and of the ports that have one.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::values::{HexFrame, parameter};
use crate::nwfilter::{FilterName, Parameter};
use crate::types::{InterfaceName, Mac};

/// What to do with network filters.
#[derive(Debug, Clone, Subcommand)]
pub enum NwfilterVerb {
    /// List all filters
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the definition of a filter
    Dumpxml(FilterArg),
    /// Define a filter from an XML file, or define it anew
    Define {
        /// The file; - is standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Remove the definition of a filter
    Undefine(FilterArg),
    /// Change the definition of a filter in an editor
    Edit(FilterArg),
    /// Put a filter on a port, as a file of libvirt's filterbinding XML says
    BindingCreate {
        /// Wait until the guest's address is learnt, where it has to be, and print it
        #[arg(long)]
        wait: bool,
        /// The file; - is standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Take the filter of a port away
    BindingDelete(PortArg),
    /// Learn the address of a port's guest until the port goes; binding-create starts it
    BindingLearn {
        /// The interface
        #[arg(value_name = "PORT")]
        port: InterfaceName,
        /// Inherited descriptors of whoever began to learn: the capture and the seat
        #[arg(value_name = "FD,FD", value_delimiter = ',', hide = true)]
        handed: Vec<RawFd>,
    },
    /// List the ports that have a filter
    BindingList {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the binding of a port
    BindingDumpxml(PortArg),
    /// Say which rule of a filter decides about frames; nothing is bound
    Explain(ExplainArgs),
    /// Check a file or a defined filter, and change nothing
    Check {
        /// The file, with a / or .xml in its name, or the filter
        #[arg(value_name = "FILE|NAME", value_hint = ValueHint::FilePath)]
        what: String,
    },
}

/// The filter that a verb is about.
#[derive(Debug, Clone, Args)]
pub struct FilterArg {
    /// The filter
    #[arg(value_name = "NAME")]
    pub name: FilterName,
}

/// The port that a verb is about.
#[derive(Debug, Clone, Args)]
pub struct PortArg {
    /// The interface
    #[arg(value_name = "PORT")]
    pub port: InterfaceName,
}

/// The arguments of `netlaunch nwfilter explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The filter
    #[arg(value_name = "NAME")]
    pub name: FilterName,
    /// Judge this frame: hexadecimal digits from the destination's MAC address on
    #[arg(long, value_name = "HEX", required_unless_present = "pcap", conflicts_with = "pcap")]
    pub frame: Option<HexFrame>,
    /// Judge the frames of this capture, in their order
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub pcap: Option<PathBuf>,
    /// Set a variable of the filter; repeatable, a name given twice is a list
    #[arg(short, long = "param", value_name = "K=V", value_parser = parameter)]
    pub param: Vec<Parameter>,
    /// The address of the guest's network card: the variable MAC
    #[arg(long, value_name = "MAC")]
    pub mac: Option<Mac>,
    /// Which way frames go [default: out from the guest's address, else in]
    #[arg(long, value_name = "in|out", hide_possible_values = true)]
    pub direction: Option<DirectionArg>,
    /// Print one JSON object
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
