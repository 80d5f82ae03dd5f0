//! The definition of the command line, for clap.
//!
//! This file has the options of every command, of ps and of completions. The files launch, attach,
//! wrap, probe, network, nwfilter and firewall have the others. The parser,
//! `--help` and the completions come from these definitions; tests/integration/options_once.rs
//! compares the manual pages and netlaunch.conf with them.
//!
//! Every option is optional, because netlaunch.conf may have the value (see [`super::request`]). A
//! value is parsed by the grammar of its type. The messages about mistakes are in
//! [`super::usage_error`].

mod attach;
mod firewall;
mod launch;
mod network;
mod nwfilter;
mod probe;
mod stop;
mod values;
mod wrap;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

pub use attach::{AttachArgs, CollectArgs, DetachArgs};
pub use firewall::FirewallVerb;
pub use launch::{BackendArg, LaunchArgs, PrintFormat, TransportArg};
pub use network::{NameArg, NetworkVerb, ShownArg, UpdateAction, UpdateArgs};
pub use nwfilter::{BindArgs, DirectionArg, ExplainArgs, FilterArg, NwfilterVerb, PortArg};
pub use probe::{Ability, ProbeArgs};
pub use stop::{LogsArgs, StopArgs};
pub use values::{HexFrame, ValueError, ip, ipv4, mtu, parameter, program, seconds};
pub use wrap::WrapArgs;

/// Runs QEMU with a network through passt, slirp or a bridge, and leaves nothing behind.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "netlaunch",
    version,
    disable_help_subcommand = true,
    override_usage = "netlaunch [OPTIONS] -- QEMU [ARGS]...\n       netlaunch [OPTIONS]\n       netlaunch wrap|probe|ps|stop|logs|attach|detach|network|nwfilter|firewall|completions [OPTIONS]"
)]
pub struct Cli {
    /// The options of the launch.
    #[command(flatten)]
    pub launch: LaunchArgs,
    /// The options of the messages.
    #[command(flatten)]
    pub log: LogArgs,
    /// The options of the wait for other commands.
    #[command(flatten)]
    pub lock: LockArgs,
    /// The command; `None` for a launch.
    #[command(subcommand)]
    pub command: Option<Action>,
}

/// The options of the messages, which every command takes.
#[derive(Debug, Clone, Default, Args)]
pub struct LogArgs {
    /// Reports more; repeatable
    #[arg(short, action = ArgAction::Count, global = true, help_heading = "Messages")]
    pub verbose: u8,
    /// Reports only errors
    #[arg(short, global = true, conflicts_with = "verbose", help_heading = "Messages")]
    pub quiet: bool,
    /// Reports in this format [default: text]
    #[arg(long, value_name = "text|json", hide_possible_values = true, global = true)]
    #[arg(help_heading = "Messages")]
    pub log_format: Option<LogFormat>,
}

/// The options of the wait for other commands of netlaunch, which every command takes.
#[derive(Debug, Clone, Default, Args)]
pub struct LockArgs {
    /// Waits so long for the lock of another netlaunch; 0 does not wait [default: 120]
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds, global = true)]
    #[arg(allow_negative_numbers = true, help_heading = "Other commands")]
    pub lock_timeout: Option<u32>,
}

/// The format of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The commands of netlaunch besides a launch.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Stands in for QEMU, or puts stand-ins into a directory; see netlaunch-wrap(1)
    #[command(
        override_usage = "netlaunch wrap [OPTIONS] -- QEMU [ARGS]...\n       netlaunch wrap --install DIR [NAME]..."
    )]
    #[command(mut_args(wrap::without_unusable))]
    Wrap(Box<WrapArgs>),
    /// Shows the usable backends, the choice of auto, its reason, and fixes for the others
    Probe(ProbeArgs),
    /// Lists the launches that run now
    Ps(PsArgs),
    /// Powers the guest of a running launch down, and waits until the launch has ended
    Stop(StopArgs),
    /// Prints the logs of a launch: the running one, or the last run of a launch with a name
    Logs(LogsArgs),
    /// Gives the guest of a running launch another NIC, and prints its id
    Attach(Box<AttachArgs>),
    /// Takes an attached NIC away from the guest of a running launch
    Detach(DetachArgs),
    /// Removes an attachment whose supervisor was killed
    #[command(hide = true)]
    CollectAttachment(CollectArgs),
    /// Defines, starts and shows virtual networks; see netlaunch-network(1)
    #[command(disable_help_subcommand = true, arg_required_else_help = false)]
    #[command(subcommand)]
    Network(NetworkVerb),
    /// Defines network filters and puts them on ports; see netlaunch-nwfilter(1)
    #[command(disable_help_subcommand = true, arg_required_else_help = false)]
    #[command(subcommand)]
    Nwfilter(NwfilterVerb),
    /// Puts firewall rules back, or finds the causes that stop guests' traffic
    #[command(disable_help_subcommand = true, arg_required_else_help = false)]
    #[command(subcommand)]
    Firewall(FirewallVerb),
    /// Prints the completion script of a shell
    Completions(CompletionsArgs),
}

/// The options of `netlaunch ps`.
#[derive(Debug, Clone, Default, Args)]
pub struct PsArgs {
    /// Prints one JSON object
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
