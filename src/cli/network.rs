//! `netlaunch network`: virtual networks, from the command line.
//!
//! Definitions are [`NetworkStore`]'s, what runs is the [`Driver`]'s; here is what joins them: a
//! network that is active is not undefined, and a definition that changes says when it counts.
//! Reading and changing definitions needs nothing of the host, so network.conf is read only where
//! the driver is asked to act.

use std::path::{Path, PathBuf};

use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::json;
use tokio::runtime::Runtime;

use super::args::NetworkVerb;
use super::config::ConfigError;
use super::document::{self, DocumentError, Stopped};
use super::environment::Environment;
use super::network_config::{self, NetworkConfig};
use super::{Failure, print};
use crate::driver::{ConflictsError, Driver, DriverError, DriverSettings, Status, Whereabouts};
use crate::facts::Target;
use crate::firewall::FirewalldError;
use crate::network::{Broken, Define, Definition, NetworkName, NetworkStore, Origin, StoreError};
use crate::types::InterfaceName;

/// The version of what `list --json` prints, described by conf/schema/networks.schema.json.
const LIST_VERSION: u32 = 1;

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
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The driver cannot do it.
    #[error(transparent)]
    Driver(#[from] DriverError),
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
            NetworkError::Active(_) | NetworkError::Uneditable(_) => true,
            _ => false,
        };
        if callers { super::USAGE } else { super::FAILED }
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
    let config_dir = environment.config_dir().ok_or(NetworkError::NoDirectory)?;
    let store = NetworkStore::new(&config_dir);
    match verb {
        NetworkVerb::List { json } => {
            let (definitions, broken) = store.list().map_err(NetworkError::from)?;
            // Definitions can be listed where the state cannot be read, as by an ordinary user.
            let active = match driver(&config_dir, environment)?.active() {
                Ok(active) => Some(active),
                Err(error) => {
                    tracing::warn!("which networks are active is not known: {error}");
                    None
                }
            };
            list(*json, rows(&definitions, &broken, active.as_deref()))?;
        }
        NetworkVerb::Define { file } => {
            let xml = document::read(file).map_err(NetworkError::from)?;
            let edited = None;
            let define = Define { xml: &xml, source: file, interfaces: &interfaces(), edited };
            let defined = store.define(&define, &mut rand::rng()).map_err(NetworkError::from)?;
            say_defined(&defined, &config_dir, environment);
        }
        NetworkVerb::Undefine(arg) => {
            let active = driver(&config_dir, environment)?.active().map_err(NetworkError::from)?;
            if active.iter().any(|status| status.name == arg.name) {
                return Err(NetworkError::Active(arg.name.clone()).into());
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
            let left =
                runtime()?.block_on(driver.destroy(&arg.name)).map_err(NetworkError::from)?;
            left.iter().for_each(|what| tracing::warn!("{what}"));
            if !left.is_empty() {
                return Ok(super::FAILED);
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
    let config_dir = environment.config_dir().ok_or(NetworkError::NoDirectory)?;
    Ok(driver(&config_dir, environment)?.target(name).await?)
}

/// The driver as network.conf sets it.
pub(super) fn driver(config_dir: &Path, environment: &Environment) -> Result<Driver, NetworkError> {
    let NetworkConfig { firewall_backend } =
        network_config::read(&config_dir.join(network_config::FILE_NAME))?;
    Ok(Driver::new(DriverSettings {
        config_dir: config_dir.to_owned(),
        state_dir: environment.state_dir(),
        path: environment.path(),
        system_bus: environment.system_bus(),
        firewall_backend,
    }))
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

/// What `list` says of one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    name: NetworkName,
    /// `None` where the definition cannot be read.
    uuid: Option<String>,
    state: State,
    /// Whether it is active in another network namespace.
    elsewhere: bool,
    autostart: bool,
    bridge: Option<InterfaceName>,
    /// `None` where no definition can be read that says it.
    mode: Option<&'static str>,
    /// The definition's file; `None` for the network that is compiled in, and for one that is
    /// active and no longer defined.
    file: Option<PathBuf>,
    /// Why the definition cannot be used.
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Active,
    Inactive,
    Broken,
    Unknown,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Inactive => "inactive",
            State::Broken => "broken",
            State::Unknown => "unknown",
        }
    }
}

/// All networks by name: the defined ones, the files that define none, and what is active without
/// a definition. `active` is `None` where that cannot be known.
fn rows(definitions: &[Definition], broken: &[Broken], active: Option<&[Status]>) -> Vec<Row> {
    let inactive = if active.is_some() { State::Inactive } else { State::Unknown };
    let active = active.unwrap_or_default();
    let status = |name: &NetworkName| active.iter().find(|status| status.name == *name);
    let defined = definitions.iter().map(|definition| {
        let network = &definition.network;
        let status = status(&network.name);
        Row {
            name: network.name.clone(),
            uuid: Some(network.uuid.to_string()),
            state: if status.is_some() { State::Active } else { inactive },
            elsewhere: status.is_some_and(elsewhere),
            autostart: definition.autostart,
            // What runs counts, where a definition was changed since.
            bridge: Some(status.map_or(&network.bridge.name, |status| &status.bridge).clone()),
            mode: status.and_then(mode).or(Some(network.forward.name())),
            file: match &definition.origin {
                Origin::BuiltIn => None,
                Origin::File(path) => Some(path.clone()),
            },
            error: None,
        }
    });
    let unusable = broken.iter().map(|broken| {
        let status = status(&broken.name);
        Row {
            name: broken.name.clone(),
            uuid: status.map(|status| status.uuid.to_string()),
            state: if status.is_some() { State::Active } else { State::Broken },
            elsewhere: status.is_some_and(elsewhere),
            autostart: false,
            bridge: status.map(|status| status.bridge.clone()),
            mode: status.and_then(mode),
            file: None,
            error: Some(broken.error.to_string()),
        }
    });
    let mut rows: Vec<Row> = defined.chain(unusable).collect();
    for status in active {
        if rows.iter().all(|row| row.name != status.name) {
            rows.push(Row {
                name: status.name.clone(),
                uuid: Some(status.uuid.to_string()),
                state: State::Active,
                elsewhere: elsewhere(status),
                autostart: false,
                bridge: Some(status.bridge.clone()),
                mode: mode(status),
                file: None,
                error: None,
            });
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

/// Whether a network is active in another network namespace than this.
fn elsewhere(status: &Status) -> bool {
    status.whereabouts() != Whereabouts::Here
}

/// The forward mode that an active network was started with.
fn mode(status: &Status) -> Option<&'static str> {
    status.network().map(|network| network.forward.name())
}

fn list(json: bool, rows: Vec<Row>) -> Result<(), Failure> {
    if json {
        let all = json!({ "version": LIST_VERSION, "networks": rows });
        return print(format!("{all:#}\n").as_bytes());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NAME", "STATE", "AUTOSTART", "BRIDGE", "MODE"]);
    for row in &rows {
        table.add_row([
            row.name.as_str(),
            if row.elsewhere { "elsewhere" } else { row.state.name() },
            if row.autostart { "yes" } else { "no" },
            row.bridge.as_ref().map_or("-", |bridge| bridge.as_str()),
            row.mode.unwrap_or("-"),
        ]);
    }
    print(format!("{table}\n").as_bytes())?;
    for error in rows.iter().filter_map(|row| row.error.as_ref()) {
        tracing::warn!("{error}");
    }
    Ok(())
}
