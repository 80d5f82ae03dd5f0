//! `netlaunch network`: virtual networks, from the command line.
//!
//! Definitions are [`NetworkStore`]'s, what runs is the [`Driver`]'s; here is what joins them: a
//! network that is active is not undefined, and a definition that changes says when it counts.
//! Reading and changing definitions needs nothing of the host, so network.conf is read only where
//! the driver is asked to act.

use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;

use super::args::NetworkVerb;
use super::config::ConfigError;
use super::document::{self, DocumentError, Stopped};
use super::environment::Environment;
use super::network_config::{self, NetworkConfig};
use super::network_list::{list, rows, with_damaged};
use super::{Failure, print};
use crate::driver::{ConflictsError, Driver, DriverError, DriverSettings};
use crate::facts::Target;
use crate::firewall::FirewalldError;
use crate::network::{Define, Definition, NetworkName, NetworkStore, Origin, StoreError};
use crate::state::LockTimeout;
use crate::types::InterfaceName;

/// Why a verb cannot be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// There is no directory for definitions.
    #[error("there is no directory for networks: HOME is not set; set it, or NETLAUNCH_CONFIG_DIR")]
    NoDirectory,
    /// A mistake in network.conf.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The definitions cannot be read or changed so.
    #[error("{error}{hint}", error = .0, hint = bridge_hint(.0))]
    Store(#[from] StoreError),
    /// The driver cannot do it.
    #[error(transparent)]
    Driver(DriverError),
    /// Another command holds the lock for too long.
    #[error("{0}; --lock-timeout SECONDS sets how long to wait")]
    Locked(LockTimeout),
    /// The host's firewall cannot be looked at.
    #[error(transparent)]
    Conflicts(#[from] ConflictsError),
    /// firewalld cannot be followed.
    #[error(transparent)]
    Follow(#[from] FirewalldError),
    /// The document cannot be read or edited.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The network is active.
    #[error("the network {0} is active; destroy it first: netlaunch network destroy {0}")]
    Active(NetworkName),
    /// A network's end left things behind, each of which a warning has named.
    #[error(
        "the network {0} is not removed completely: the warnings above name what is left; mend the causes, then repeat netlaunch network destroy {0}"
    )]
    Left(NetworkName),
    /// A network that is to be destroyed is not active.
    #[error("the network {0} is not active; there is nothing to destroy")]
    Inactive(NetworkName),
    /// What is to be edited is no network.
    #[error("{0}; correct that file, or define the network anew")]
    Uneditable(StoreError),
    /// What was typed cannot be used.
    #[error("{error}; nothing was changed, and the text is kept in {}", path.display())]
    Kept { error: Box<NetworkError>, path: PathBuf },
}

impl NetworkError {
    /// The exit status: 2 for the caller's mistake, else 125.
    pub(super) fn status(&self) -> u8 {
        let callers = match self {
            NetworkError::Config(error) => return error.status(),
            NetworkError::Kept { error, .. } => return error.status(),
            NetworkError::Store(error) => error.is_callers(),
            NetworkError::Driver(error) => error.is_callers(),
            NetworkError::Conflicts(ConflictsError::Driver(error)) => error.is_callers(),
            NetworkError::Conflicts(ConflictsError::NoBridge(_)) => true,
            NetworkError::Document(error) => error.is_callers(),
            NetworkError::Active(_) | NetworkError::Inactive(_) | NetworkError::Uneditable(_) => {
                true
            }
            _ => false,
        };
        if callers { super::USAGE } else { super::FAILED }
    }
}

/// The option that does what libvirt's `<forward mode='bridge'>` is for.
fn bridge_hint(error: &StoreError) -> &'static str {
    match error {
        StoreError::Document { error, .. }
            if error.to_string().contains(": <forward mode='bridge'> is not supported") =>
        {
            "; a launch puts its guest on a bridge of the host with --bridge IFNAME"
        }
        _ => "",
    }
}

impl From<DriverError> for NetworkError {
    fn from(error: DriverError) -> Self {
        match error {
            DriverError::Locked(timeout) => NetworkError::Locked(timeout),
            other => NetworkError::Driver(other),
        }
    }
}

impl From<Stopped<NetworkError>> for NetworkError {
    fn from(stopped: Stopped<NetworkError>) -> Self {
        match stopped.kept {
            Some(path) => NetworkError::Kept { error: Box::new(stopped.error), path },
            None => stopped.error,
        }
    }
}

/// Does what `netlaunch network` is asked for.
pub(super) fn network(
    verb: &NetworkVerb,
    environment: &Environment,
    runtime: impl FnOnce() -> Result<Runtime, Failure>,
) -> Result<u8, Failure> {
    let config_dir = environment.config_dir()?.ok_or(NetworkError::NoDirectory)?;
    let store = NetworkStore::new(&config_dir);
    match verb {
        NetworkVerb::List { json } => {
            let (definitions, broken) = store.list().map_err(NetworkError::from)?;
            // Definitions can be listed where the state cannot be read, as by an ordinary user.
            let driver = driver(&config_dir, environment)?;
            let (active, damaged) = match driver.active().and_then(|a| Ok((a, driver.damaged()?))) {
                Ok((active, damaged)) => (Some(active), damaged),
                Err(error) => {
                    tracing::warn!("which networks are active is not known: {error}");
                    (None, Vec::new())
                }
            };
            let rows = rows(&definitions, &broken, active.as_deref());
            list(*json, with_damaged(rows, damaged))?;
        }
        NetworkVerb::Define { file } => {
            let xml = document::read(file).map_err(NetworkError::from)?;
            let edited = None;
            let define = Define { xml: &xml, source: file, interfaces: &interfaces(), edited };
            let defined = store.define(&define, &mut rand::rng()).map_err(NetworkError::from)?;
            say_defined(&defined, &config_dir, environment);
        }
        NetworkVerb::Undefine(arg) => {
            let driver = driver(&config_dir, environment)?;
            let active = driver.active().map_err(NetworkError::from)?;
            if active.iter().any(|status| status.name == arg.name) {
                return Err(NetworkError::Active(arg.name.clone()).into());
            }
            let damaged = driver.damaged().map_err(NetworkError::from)?;
            if let Some(damaged) = damaged.into_iter().find(|d| d.name.as_ref() == Some(&arg.name))
            {
                return Err(NetworkError::from(DriverError::from(damaged.error)).into());
            }
            store.undefine(&arg.name).map_err(NetworkError::from)?;
        }
        NetworkVerb::Dumpxml(arg) => {
            let definition = store.get(&arg.name).map_err(NetworkError::from)?;
            print(crate::network::to_xml(&definition.network).as_bytes())?;
        }
        NetworkVerb::Edit(arg) => {
            let definition = store.get(&arg.name).map_err(|error| match error {
                StoreError::Document { .. } | StoreError::Misnamed { .. } => {
                    NetworkError::Uneditable(error)
                }
                other => other.into(),
            })?;
            match runtime()?.block_on(edit(&store, &definition, environment))? {
                Some(defined) => say_defined(&defined, &config_dir, environment),
                None => tracing::info!("the network {} was not changed", arg.name),
            }
        }
        NetworkVerb::Start(arg) => {
            let driver = driver(&config_dir, environment)?;
            let notes = runtime()?.block_on(driver.start(&arg.name)).map_err(NetworkError::from)?;
            notes.iter().for_each(|note| tracing::warn!("{note}"));
        }
        NetworkVerb::Destroy(arg) => {
            let driver = driver(&config_dir, environment)?;
            let destroyed = runtime()?.block_on(driver.destroy(&arg.name));
            let left = destroyed.map_err(|error| match error {
                // A network that is not even defined is a mistake in the name.
                DriverError::Inactive(name) => match store.get(&name) {
                    Err(error @ StoreError::Unknown(_)) => NetworkError::Store(error),
                    _ => NetworkError::Inactive(name),
                },
                other => other.into(),
            })?;
            left.iter().for_each(|what| tracing::warn!("{what}"));
            if !left.is_empty() {
                return Err(NetworkError::Left(arg.name.clone()).into());
            }
        }
        NetworkVerb::Autostart { name: Some(name), disable } => {
            store.set_autostart(name, !disable).map_err(NetworkError::from)?;
        }
        NetworkVerb::Autostart { name: None, .. } => {
            let driver = driver(&config_dir, environment)?;
            let mut failed = false;
            for result in runtime()?.block_on(driver.autostart()) {
                match result {
                    Ok(name) => tracing::info!("the network {name} is started"),
                    // One that fails keeps no other from starting.
                    Err(error) => {
                        tracing::error!("{error}");
                        failed = true;
                    }
                }
            }
            if failed {
                return Ok(super::FAILED);
            }
        }
    }
    Ok(0)
}

/// What a launch on a virtual network has to know of it.
pub(super) async fn target(
    name: &NetworkName,
    environment: &Environment,
) -> Result<Target, NetworkError> {
    let config_dir = environment.config_dir()?.ok_or(NetworkError::NoDirectory)?;
    Ok(driver(&config_dir, environment)?.target(name).await?)
}

/// The driver as network.conf sets it.
pub(super) fn driver(config_dir: &Path, environment: &Environment) -> Result<Driver, NetworkError> {
    let NetworkConfig { firewall_backend } =
        network_config::read(&config_dir.join(network_config::FILE_NAME))?;
    let settings = DriverSettings {
        config_dir: config_dir.to_owned(),
        state_dir: environment.state_dir(),
        path: environment.path(),
        system_bus: environment.system_bus(),
        firewall_backend,
    };
    Ok(Driver::new(settings).lock_limit(environment.lock_limit))
}

/// Says where the definition is, and when it counts where the network is active.
fn say_defined(defined: &Definition, config_dir: &Path, environment: &Environment) {
    let name = &defined.network.name;
    if let Origin::File(path) = &defined.origin {
        tracing::info!("the network {name} is defined in {}", path.display());
    }
    // The definition is made; what cannot be found out about its state is for other verbs to say.
    let active = driver(config_dir, environment).map(|driver| driver.active());
    if let Ok(Ok(active)) = active
        && active.iter().any(|status| status.name == *name)
    {
        tracing::info!(
            "the network {name} is active and stays as it was started; destroy and start it to have the new definition"
        );
    }
}

/// The names of the host's interfaces, none where the kernel does not tell: then the start of a
/// network finds out whether its bridge's name is free.
fn interfaces() -> Vec<InterfaceName> {
    let Ok(names) = nix::net::if_::if_nameindex() else { return Vec::new() };
    names.iter().filter_map(|link| link.name().to_str().ok()?.parse().ok()).collect()
}

/// Has the user edit a definition, and defines what comes back; `None` when that is what was there.
async fn edit(
    store: &NetworkStore,
    definition: &Definition,
    environment: &Environment,
) -> Result<Option<Definition>, NetworkError> {
    let before = crate::network::to_xml(&definition.network);
    let define = async |xml: &[u8], source: &Path| {
        let define = Define { xml, source, interfaces: &interfaces(), edited: Some(definition) };
        Ok(store.define(&define, &mut rand::rng())?)
    };
    Ok(document::edit(&definition.network.name, &before, environment, define).await?)
}
