//! `netlaunch network`: virtual networks, from the command line.
//!
//! Each verb is one function. The [`NetworkStore`] has the definitions, the [`Manager`] the running
//! networks. A verb that needs both joins them here: an active network cannot be undefined, and a
//! changed definition comes with a message that says when it takes effect.
//!
//! Reading and changing definitions needs no access to the host, so network.conf is read only if
//! the manager has to act.

use std::path::Path;
use std::slice;

use super::args::NetworkVerb;
use super::editor;
use super::environment::Environment;
use super::failure::{FAILED, Failure};
use super::network_config::{self, NetworkConfig};
use super::network_error::NetworkError;
use super::network_event::{self, Printed};
use super::network_list::{list, rows, with_damaged};
use super::{network_info, network_leases, network_ports, network_update, print, rejoin, runtime};
use crate::network::manager::{Manager, ManagerError, ManagerSettings, NetworkStatus};
use crate::network::{DefineRequest, Definition, NetworkName, NetworkStore, Origin, StoreError};
use crate::types::facts::TargetBridge;
use crate::types::{InterfaceName, PortGroupName, error_text};

/// Carries out a verb of `netlaunch network` and returns the exit status.
pub(super) fn network(verb: &NetworkVerb, environment: &Environment) -> Result<u8, Failure> {
    let config_dir = &environment.config_dir()?.ok_or(NetworkError::NoDirectory)?;
    environment.say_directories(config_dir);
    let store = NetworkStore::new(config_dir);
    let call = Call { store: &store, config_dir, environment };
    match verb {
        NetworkVerb::List { json } => call.list(*json)?,
        NetworkVerb::Define { file } => call.define(file)?,
        NetworkVerb::Undefine(arg) => call.undefine(&arg.name)?,
        NetworkVerb::Dumpxml(arg) => call.dumpxml(&arg.name)?,
        NetworkVerb::Edit(arg) => call.edit(&arg.name)?,
        NetworkVerb::Start(arg) => call.start(&arg.name)?,
        NetworkVerb::Destroy { name, force } => call.destroy(name, *force)?,
        NetworkVerb::Collect => runtime()?.block_on(call.manager()?.unpublish_gone())?,
        NetworkVerb::Info(arg) => {
            network_info::info(&call.manager()?, &store, &arg.name, arg.json)?;
        }
        NetworkVerb::Leases(arg) => {
            network_leases::leases(&call.manager()?, &arg.name, arg.json)?;
        }
        NetworkVerb::Ports(arg) => {
            let learned = network_ports::learned(config_dir, environment);
            network_ports::ports(&call.manager()?, &arg.name, arg.json, &learned)?;
        }
        NetworkVerb::Update(args) => network_update::update(&call.manager()?, args)?,
        NetworkVerb::Event { name, follow, json, .. } => {
            let printed = Printed { json: *json, follow: *follow };
            call.event(name.as_ref(), printed)?;
        }
        NetworkVerb::Autostart { name: Some(name), disable } => {
            store.set_autostart(name, !disable)?;
        }
        NetworkVerb::Autostart { name: None, .. } => return call.start_all(),
    }
    Ok(0)
}

/// The places that the verbs work on.
struct Call<'a> {
    store: &'a NetworkStore,
    config_dir: &'a Path,
    environment: &'a Environment,
}

impl Call<'_> {
    fn manager(&self) -> Result<Manager, NetworkError> {
        manager(self.config_dir, self.environment)
    }

    fn list(&self, json: bool) -> Result<(), Failure> {
        let (definitions, broken) = self.store.list()?;
        // Definitions are listed even if the state cannot be read, as by an ordinary user.
        let manager = self.manager()?;
        let survey = match runtime()?.block_on(manager.survey()) {
            Ok(survey) => Some(survey),
            Err(error) => {
                tracing::warn!("which networks are active is not known: {}", error_text(&error));
                None
            }
        };
        let rows = rows(&definitions, &broken, survey.as_ref().map(|survey| &survey.active[..]));
        let damaged = survey.map(|survey| survey.damaged).unwrap_or_default();
        list(json, with_damaged(rows, damaged))
    }

    /// Prints events. A network that does not run yet can be watched, and one that does not exist
    /// is a mistake.
    fn event(&self, name: Option<&NetworkName>, printed: Printed) -> Result<(), Failure> {
        let manager = self.manager()?;
        if let Some(name) = name {
            match manager.running(name) {
                Ok(_) | Err(ManagerError::Inactive(_)) => {}
                Err(error) => return Err(NetworkError::from(error).into()),
            }
        }
        network_event::event(&manager, name, printed)
    }

    fn define(&self, file: &Path) -> Result<(), Failure> {
        let xml = editor::read(file)?;
        let interfaces = &interfaces();
        let define = DefineRequest { xml: &xml, source: file, interfaces, edited: None };
        let defined = self.store.define(&define, &mut rand::rng())?;
        self.say_defined(&defined)
    }

    fn undefine(&self, name: &NetworkName) -> Result<(), Failure> {
        let manager = self.manager()?;
        // An ordinary user may have a definition with the name of a network of root. Its UUID shows
        // whether the active network comes from this definition.
        let defined = self.store.get(name).ok().map(|definition| definition.network.uuid);
        let is_own = |status: &NetworkStatus| {
            let active = status.network().map(|network| network.uuid);
            status.name == *name && (active.is_none() || defined.is_none() || active == defined)
        };
        if manager.active()?.iter().any(is_own) {
            return Err(NetworkError::Active(name.clone()).into());
        }
        let damaged = manager.damaged()?;
        match damaged.into_iter().find(|damaged| damaged.name.as_ref() == Some(name)) {
            Some(damaged) => Err(ManagerError::from(damaged.error).into()),
            None => Ok(self.store.undefine(name)?),
        }
    }

    fn dumpxml(&self, name: &NetworkName) -> Result<(), Failure> {
        print(crate::network::to_xml(&self.store.get(name)?.network).as_bytes())
    }

    fn edit(&self, name: &NetworkName) -> Result<(), Failure> {
        let old = self.store.get(name).map_err(|error| match error {
            StoreError::Document { .. } | StoreError::Misnamed { .. } => {
                NetworkError::Uneditable(error)
            }
            other => other.into(),
        })?;
        let before = crate::network::to_xml(&old.network);
        let define = async |xml: &[u8], source: &Path| {
            let define =
                DefineRequest { xml, source, interfaces: &interfaces(), edited: Some(&old) };
            Ok::<_, NetworkError>(self.store.define(&define, &mut rand::rng())?)
        };
        let edit = editor::edit(name, &before, self.environment, define);
        match runtime()?.block_on(edit)? {
            Some(defined) => self.say_defined(&defined)?,
            None => tracing::info!("the network {name} was not changed"),
        }
        Ok(())
    }

    fn start(&self, name: &NetworkName) -> Result<(), Failure> {
        let manager = self.manager()?;
        let runtime = runtime()?;
        let started = runtime.block_on(manager.start(name));
        let notes = started.map_err(|error| self.unknown_first(name, error))?;
        notes.iter().for_each(|note| tracing::warn!("{note}"));
        runtime.block_on(self.rejoin(&manager, slice::from_ref(name)));
        Ok(())
    }

    fn destroy(&self, name: &NetworkName, force: bool) -> Result<(), Failure> {
        let manager = self.manager()?;
        let runtime = runtime()?;
        let destroyed = if force {
            runtime.block_on(manager.destroy_with_ports(name))
        } else {
            runtime.block_on(manager.destroy(name))
        };
        let remaining = destroyed.map_err(|error| match error {
            // If the network is not even defined, its name is the mistake.
            ManagerError::Inactive(name) => match self.store.get(&name) {
                Err(error @ StoreError::Unknown(_)) => NetworkError::Store(error),
                _ => NetworkError::Inactive(name),
            },
            other => self.unknown_first(name, other),
        })?;
        remaining.iter().for_each(|part| tracing::warn!("{part}"));
        if remaining.is_empty() {
            Ok(())
        } else {
            Err(NetworkError::Incomplete(name.clone()).into())
        }
    }

    /// Starts every network that is set to start with the host. A network that fails keeps no other
    /// network from starting.
    fn start_all(&self) -> Result<u8, Failure> {
        let manager = self.manager()?;
        let (mut status, mut started) = (0, Vec::new());
        let runtime = runtime()?;
        for result in runtime.block_on(manager.autostart()) {
            match result {
                Ok(name) => {
                    tracing::info!("the network {name} is started");
                    started.push(name);
                }
                Err(error) => {
                    tracing::error!("{}", error_text(&error));
                    status = FAILED;
                }
            }
        }
        runtime.block_on(self.rejoin(&manager, &started));
        Ok(status)
    }

    /// Puts the taps of running launches back on the bridges of networks that were just started.
    async fn rejoin(&self, manager: &Manager, started: &[NetworkName]) {
        rejoin::after_start(manager, started, self.config_dir, self.environment).await;
    }

    /// Returns the error of a command about a network. If an ordinary user names a network that
    /// does not exist, the error says so, and not that the user cannot read the state.
    fn unknown_first(&self, name: &NetworkName, error: ManagerError) -> NetworkError {
        match (error, self.store.get(name)) {
            (ManagerError::State { .. }, Err(unknown @ StoreError::Unknown(_))) => unknown.into(),
            (error, _) => error.into(),
        }
    }

    /// Reports the file of a definition. If the network is active, the definition takes effect at
    /// once as far as it can, and the message names the parts that wait.
    fn say_defined(&self, defined: &Definition) -> Result<(), Failure> {
        let name = &defined.network.name;
        if let Origin::File(path) = &defined.origin {
            tracing::info!("the network {name} is defined in {}", path.display());
        }
        // The definition is made. Other verbs report why the state cannot be read.
        let Ok(manager) = self.manager() else { return Ok(()) };
        if manager.running(name).is_err() {
            return Ok(());
        }
        match runtime()?.block_on(manager.apply_definition(name)) {
            Ok(waiting) if waiting.is_empty() => {
                tracing::info!("the network {name} is active and has the new definition now");
            }
            Ok(waiting) => tracing::info!(
                "the network {name} is active, and these parts of the new definition wait for its next start: {}",
                waiting.join(", ")
            ),
            Err(error @ ManagerError::State { .. }) => tracing::info!(
                "the network {name} is active and stays as it was started; destroy and start it to have the new definition: {}",
                error_text(&error)
            ),
            Err(error) => {
                let error = Box::new(error);
                return Err(NetworkError::NotApplied { name: name.clone(), error }.into());
            }
        }
        Ok(())
    }
}

/// Finds out about the network that a launch joins. Warns of each part that the network has lost,
/// because the guest joins the network nevertheless.
pub(super) async fn target(
    name: &NetworkName,
    group: &Option<PortGroupName>,
    environment: &Environment,
) -> Result<TargetBridge, NetworkError> {
    let config_dir = environment.config_dir()?.ok_or(NetworkError::NoDirectory)?;
    let manager = manager(&config_dir, environment)?;
    let target = manager.target(name, group.as_ref()).await?;
    let faults = manager.faults_of(name).await.unwrap_or_else(|error| {
        tracing::debug!(
            "the parts that the network {name} has lost are not known: {}",
            error_text(&error)
        );
        Vec::new()
    });
    for fault in faults {
        tracing::warn!("the network {name}: {fault}; netlaunch firewall check shows the fix");
    }
    Ok(target)
}

/// Returns the manager with the settings of network.conf.
pub(super) fn manager(
    config_dir: &Path,
    environment: &Environment,
) -> Result<Manager, NetworkError> {
    let NetworkConfig { firewall_backend } =
        network_config::read(&config_dir.join(network_config::FILE_NAME))?;
    let settings = ManagerSettings {
        config_dir: config_dir.to_owned(),
        state_dir: environment.state_dir(),
        path: environment.path(),
        system_bus: environment.system_bus(),
        firewall_backend,
    };
    Ok(Manager::new(settings).lock_limit(environment.lock_limit))
}

/// Returns the names of the host's interfaces. If the kernel refuses to list them, the list is
/// empty, and only the start of a network finds out whether the name of its bridge is free.
fn interfaces() -> Vec<InterfaceName> {
    let Ok(names) = nix::net::if_::if_nameindex() else { return Vec::new() };
    names.iter().filter_map(|link| link.name().to_str().ok()?.parse().ok()).collect()
}
