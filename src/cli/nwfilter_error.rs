//! Why a verb of `netlaunch nwfilter` cannot be done, and the exit status for it.

use std::io;
use std::path::PathBuf;

use super::config::ConfigError;
use super::document::{DocumentError, Stopped};
use crate::binding::BindingError;
use crate::nwfilter::explain::{PcapError, TooShort};
use crate::nwfilter::{CompileError, StoreError, TreeError};
use crate::state::LockTimeout;
use crate::types::InterfaceName;
use crate::xml::XmlError;

/// Why a verb cannot be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NwfilterError {
    /// There is no directory for definitions.
    #[error("there is no directory for filters: HOME is not set; set it, or NETLAUNCH_CONFIG_DIR")]
    NoDirectory,
    /// The definitions cannot be read or changed so.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A mistake in nwfilter.conf.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A port's filter cannot be changed so.
    #[error(transparent)]
    Binding(BindingError),
    /// Another command holds the lock for too long.
    #[error("{0}; --lock-timeout SECONDS sets how long to wait")]
    Locked(LockTimeout),
    /// A document of a binding has a mistake.
    #[error("{}:{error}", path.display())]
    BindingDocument { path: PathBuf, error: XmlError },
    /// The document cannot be read or edited.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// What is to be checked is neither.
    #[error(
        "{0:?} is neither a file nor a filter: write the file with a '/', as in ./{0}, or a name that 'netlaunch nwfilter list' shows"
    )]
    Neither(String),
    /// No rules can be made of a filter with these variables.
    #[error("{error}{options}", error = .0, options = parameters(.0))]
    Tree(Box<TreeError>),
    /// A rule of a filter makes no sense.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A process that learns an address cannot be started.
    #[error(
        "cannot start the process that learns the address of the port {port}: {source}; the port has no filter"
    )]
    Learner { port: InterfaceName, source: io::Error },
    /// Nobody has to learn it.
    #[error(
        "the address of the port {0} is not learnt: its binding says it, or its filter does without; there is nothing to do"
    )]
    NotLearnt(InterfaceName),
    /// What should have been inherited is not there.
    #[error("FD,FD: {source}; leave it out, binding-create alone has use for it")]
    Handed { source: io::Error },
    /// It ended before there was an address.
    #[error(
        "the port {0} is gone, or its filter, before the guest's address was known; see netlaunch nwfilter binding-list"
    )]
    Gone(InterfaceName),
    /// Who learnt did not live to say that there is an address.
    #[error(
        "the process that learns the address of the port {0} was killed; the port still has its filter: netlaunch firewall reload starts another"
    )]
    Killed(InterfaceName),
    /// What was learnt could not be put in force.
    #[error("the port {port} does not have the address of its guest in force: {why}")]
    NotInForce { port: InterfaceName, why: String },
    /// Frames cannot be judged.
    #[error(transparent)]
    Explain(#[from] ExplainError),
    /// What was typed cannot be used.
    #[error("{error}; nothing was changed, and the text is kept in {}", path.display())]
    Kept { error: Box<NwfilterError>, path: PathBuf },
}

impl NwfilterError {
    /// The exit status: 2 for the caller's mistake, else 125.
    pub(super) fn status(&self) -> u8 {
        let callers = match self {
            NwfilterError::Kept { error, .. } => return error.status(),
            NwfilterError::Store(error) => error.is_callers(),
            NwfilterError::Config(error) => return error.status(),
            NwfilterError::Binding(error) => error.is_callers(),
            NwfilterError::BindingDocument { .. } => true,
            NwfilterError::Document(error) => error.is_callers(),
            NwfilterError::Neither(_)
            | NwfilterError::NotLearnt(_)
            | NwfilterError::Handed { .. }
            | NwfilterError::Tree(_)
            | NwfilterError::Compile(_)
            | NwfilterError::Explain(_) => true,
            NwfilterError::NoDirectory
            | NwfilterError::Locked(_)
            | NwfilterError::Learner { .. }
            | NwfilterError::Gone(_)
            | NwfilterError::Killed(_)
            | NwfilterError::NotInForce { .. } => false,
        };
        if callers { super::USAGE } else { super::FAILED }
    }
}

/// The options that a filter lacks; empty for other mistakes.
fn parameters(error: &TreeError) -> String {
    let TreeError::Variables { missing, .. } = error else { return String::new() };
    let mut names: Vec<&str> = missing.iter().map(|used| used.name.as_str()).collect();
    names.dedup();
    names.iter().enumerate().fold(String::new(), |text, (at, name)| {
        format!("{text}{} -p {name}=...", if at == 0 { "," } else { "" })
    })
}

impl From<BindingError> for NwfilterError {
    fn from(error: BindingError) -> Self {
        match error {
            BindingError::Locked(timeout) => NwfilterError::Locked(timeout),
            other => NwfilterError::Binding(other),
        }
    }
}

impl From<TreeError> for NwfilterError {
    fn from(error: TreeError) -> Self {
        NwfilterError::Tree(Box::new(error))
    }
}

impl From<Stopped<NwfilterError>> for NwfilterError {
    fn from(stopped: Stopped<NwfilterError>) -> Self {
        match stopped.kept {
            Some(path) => NwfilterError::Kept { error: Box::new(stopped.error), path },
            None => stopped.error,
        }
    }
}

/// Why frames cannot be judged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExplainError {
    /// The capture cannot be read.
    #[error("{}: {source}; name a capture that can be read", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The file is no capture that can be used.
    #[error("{}: {error}", path.display())]
    Pcap { path: PathBuf, error: PcapError },
    /// A frame is none.
    #[error("frame {number}: {error}")]
    Frame { number: usize, error: TooShort },
    /// Nothing says which way frames go.
    #[error(
        "which way the frames go is not known: give the guest's address with --mac, or --direction in or out"
    )]
    Direction,
}
