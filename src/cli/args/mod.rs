//! The command line: what can be written.
//!
//! Here are the options that every command takes and the commands without verbs: probe, ps and
//! completions. The options of a launch and the verbs of networks, filters and the firewall are in
//! the files of these names.
//!
//! Every option is optional here, so that netlaunch.conf can supply what the command line leaves
//! out (see [`super::request`]). Values are checked as they are read, by the grammar of their type.
//! What is said about mistakes is in [`super::usage`].

mod firewall;
mod launch;
mod network;
mod nwfilter;
mod values;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use serde::Deserialize;

pub use firewall::FirewallVerb;
pub use launch::{BackendArg, LaunchArgs, PrintFormat, TransportArg};
pub use network::{NameArg, NetworkVerb};
pub use nwfilter::{DirectionArg, ExplainArgs, FilterArg, NwfilterVerb, PortArg};
pub use values::{HexFrame, ValueError, ip, ipv4, mtu, parameter, program};

/// Run QEMU with a network through passt, slirp or a bridge, and leave nothing behind.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "netlaunch",
    version,
    disable_help_subcommand = true,
    override_usage = "netlaunch [OPTIONS] -- QEMU [ARGS]...\n       netlaunch [OPTIONS]\n       netlaunch probe|ps|network|nwfilter|firewall|completions [OPTIONS]"
)]
pub struct Cli {
    /// What to launch.
    #[command(flatten)]
    pub launch: LaunchArgs,
    /// How to report.
    #[command(flatten)]
    pub log: LogArgs,
    /// How to wait for other commands.
    #[command(flatten)]
    pub lock: LockArgs,
    /// What to do instead of a launch.
    #[command(subcommand)]
    pub command: Option<Action>,
}

/// The options that say how to report; every command takes them.
#[derive(Debug, Clone, Default, Args)]
pub struct LogArgs {
    /// Report more; repeatable
    #[arg(short, action = ArgAction::Count, global = true, help_heading = "Messages")]
    pub verbose: u8,
    /// Report errors only
    #[arg(short, global = true, conflicts_with = "verbose", help_heading = "Messages")]
    pub quiet: bool,
    /// Report in this format [default: text]
    #[arg(long, value_name = "text|json", hide_possible_values = true, global = true)]
    #[arg(help_heading = "Messages")]
    pub log_format: Option<LogFormat>,
}

/// The options that say how to wait for other commands of netlaunch; every command takes them.
#[derive(Debug, Clone, Default, Args)]
pub struct LockArgs {
    /// Give up when another netlaunch has held a lock for so long; 0 does not wait [default: 120]
    #[arg(long, value_name = "SECONDS", global = true, help_heading = "Other commands")]
    pub lock_timeout: Option<u32>,
}

/// How messages look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What to do instead of a launch.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Show what this host can do, what auto would choose, why, and how to fix the rest
    Probe(ProbeArgs),
    /// List the launches that run now
    Ps(PsArgs),
    /// Define, start and show virtual networks; see netlaunch-network(1)
    #[command(disable_help_subcommand = true, arg_required_else_help = false)]
    #[command(subcommand)]
    Network(NetworkVerb),
    /// Define network filters and put them on ports; see netlaunch-nwfilter(1)
    #[command(disable_help_subcommand = true, arg_required_else_help = false)]
    #[command(subcommand)]
    Nwfilter(NwfilterVerb),
    /// Put firewall rules back, or find what stops guests' traffic
    #[command(disable_help_subcommand = true, arg_required_else_help = false)]
    #[command(subcommand)]
    Firewall(FirewallVerb),
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
}

/// The options of `netlaunch probe`.
#[derive(Debug, Clone, Default, Args)]
pub struct ProbeArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Probe this QEMU [default: qemu-system-ARCH in PATH]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub qemu: Option<PathBuf>,
    /// Probe this passt [default: passt in PATH]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub passt: Option<PathBuf>,
}

/// The options of `netlaunch ps`.
#[derive(Debug, Clone, Default, Args)]
pub struct PsArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `netlaunch completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}
