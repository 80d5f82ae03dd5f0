//! The definitions of networks: one file each, `NAME.xml`, in `CONFIG/networks`, and a mark
//! `autostart/NAME` for those that start with the host.
//!
//! [`DefinitionDir`] says how files are changed, and what the lock is.
//!
//! A network called `default` is compiled in. It is there until the user defines one of that name,
//! and again when that is undefined. It keeps no other definition from being made, since nobody
//! asked for it; whether it can be started beside others is for the start to see.

use std::path::{Path, PathBuf};

use super::model::Network;
use super::store_error::StoreError;
use super::values::NetworkName;
use super::{CheckError, Fill, Part, Problem, check_against, load, to_xml};
use crate::definitions::{self, DefinitionDir, DefinitionLock, Origin};
use crate::types::InterfaceName;

/// The network that is there without a definition.
const DEFAULT: &str = include_str!("default.xml");
/// Its name.
const DEFAULT_NAME: &str = "default";

/// Where definitions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkStore {
    dir: DefinitionDir,
}

/// A defined network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The network.
    pub network: Network,
    /// Where the definition is from.
    pub origin: Origin,
    /// Whether it starts with the host.
    pub autostart: bool,
}

/// A definition to make.
#[derive(Debug, Clone, Copy)]
pub struct Define<'a> {
    /// The document.
    pub xml: &'a [u8],
    /// What it is called in errors: a path, or `-`.
    pub source: &'a Path,
    /// Interfaces that the host has, so that a bridge that gets its name here is none of them.
    pub interfaces: &'a [InterfaceName],
    /// The definition that was edited, and must still be what it was; the name must stay.
    pub edited: Option<&'a Definition>,
}

/// A file that is no definition.
pub type Broken = definitions::Broken<NetworkName, StoreError>;

impl NetworkStore {
    /// The store in a configuration directory; nothing is made or read yet.
    pub fn new(config: &Path) -> Self {
        NetworkStore { dir: DefinitionDir::new(config.join("networks")) }
    }

    /// Where the definition of a network is, or would be.
    pub fn path(&self, name: &NetworkName) -> PathBuf {
        self.dir.file(name)
    }

    fn mark(&self, name: &NetworkName) -> PathBuf {
        self.dir.path().join("autostart").join(name.as_str())
    }

    /// A network.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when there is none; the others when its definition cannot be used.
    pub fn get(&self, name: &NetworkName) -> Result<Definition, StoreError> {
        let found = self.find(name)?;
        found.ok_or_else(|| StoreError::Unknown(name.clone()))
    }

    fn find(&self, name: &NetworkName) -> Result<Option<Definition>, StoreError> {
        let path = self.path(name);
        let autostart = self.mark(name).symlink_metadata().is_ok();
        let (bytes, origin) = match definitions::read(&path)? {
            Some(bytes) => (bytes, Origin::File(path.clone())),
            None if name.as_str() == DEFAULT_NAME => (DEFAULT.into(), Origin::BuiltIn),
            None => return Ok(None),
        };
        let parsed = load(&bytes, None)
            .map_err(|error| StoreError::Document { path: path.clone(), error })?;
        if parsed.network.name != *name {
            return Err(StoreError::Misnamed { path, found: parsed.network.name });
        }
        Ok(Some(Definition { network: parsed.network, origin, autostart }))
    }

    /// All networks by name, and the files that are none: one of those hides no other network.
    ///
    /// # Errors
    /// [`StoreError::File`] when the directory is there and cannot be read.
    pub fn list(&self) -> Result<(Vec<Definition>, Vec<Broken>), StoreError> {
        Ok(self.dir.list(DEFAULT_NAME.parse(), |name| self.find(name))?)
    }

    /// Defines a network, or defines it anew. What the document leaves out is kept from the
    /// definition that is replaced (UUID, MAC address, the bridge's name), or chosen.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub fn define(
        &self,
        define: &Define<'_>,
        rng: &mut impl rand::Rng,
    ) -> Result<Definition, StoreError> {
        let located = |error| StoreError::Document { path: define.source.to_owned(), error };
        // A first look tells mistakes before anything is made, and the name.
        let draft = Fill::random(free_bridge(&[], define.interfaces), rng);
        let name = load(define.xml, Some(&draft)).map_err(located)?.network.name;
        let lock = self.dir.lock()?;
        // A broken definition of that name is replaced; broken others cannot be started either.
        let (definitions, _) = self.list()?;
        if let Some(edited) = define.edited {
            let old = &edited.network.name;
            if *old != name {
                return Err(StoreError::Renamed { old: old.clone(), new: name });
            }
            let now = definitions.iter().find(|now| now.network.name == *old);
            if now.map(|now| (&now.network, &now.origin)) != Some((&edited.network, &edited.origin))
            {
                return Err(StoreError::Changed(name));
            }
        }
        let users: Vec<&Network> = definitions
            .iter()
            .filter(|definition| definition.origin != Origin::BuiltIn)
            .map(|definition| &definition.network)
            .collect();
        let fill = match users.iter().find(|network| network.name == name) {
            Some(old) => {
                Fill { uuid: old.uuid, mac: old.mac, bridge: Some(old.bridge.name.clone()) }
            }
            None => {
                let all: Vec<_> = definitions.iter().map(|d| &d.network.bridge.name).collect();
                Fill { bridge: free_bridge(&all, define.interfaces), ..draft }
            }
        };
        let parsed = load(define.xml, Some(&fill)).map_err(located)?;
        check_against(&parsed.network, users)
            .and_then(|()| check_copy(&parsed.network, &definitions))
            .map_err(|problem| located(parsed.locate(problem)))?;
        let path = self.path(&name);
        lock.write(&path, to_xml(&parsed.network).as_bytes())?;
        let autostart = self.mark(&name).symlink_metadata().is_ok();
        Ok(Definition { network: parsed.network, origin: Origin::File(path), autostart })
    }

    /// Removes a definition, whether it can be read or not, and its autostart mark.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] or [`StoreError::BuiltIn`] when there is none.
    pub fn undefine(&self, name: &NetworkName) -> Result<(), StoreError> {
        let path = self.path(name);
        // Looking first keeps a store from being made for nothing.
        if path.symlink_metadata().is_err() {
            return Err(none(name));
        }
        let lock = self.dir.lock()?;
        if !lock.remove(&path)? {
            return Err(none(name));
        }
        self.unmark(&lock, name)
    }

    /// Sets whether a network starts with the host.
    ///
    /// # Errors
    /// [`StoreError`], for one when there is no such network.
    pub fn set_autostart(&self, name: &NetworkName, on: bool) -> Result<(), StoreError> {
        let mark = self.mark(name);
        let marked = || mark.symlink_metadata().is_ok();
        if !on {
            // Also of a definition that is broken, or gone.
            if !marked() {
                return self.get(name).map(|_| ());
            }
            return self.unmark(&self.dir.lock()?, name);
        }
        self.get(name)?;
        let lock = self.dir.lock()?;
        self.get(name)?;
        Ok(lock.mark(&mark)?)
    }

    fn unmark(&self, lock: &DefinitionLock<'_>, name: &NetworkName) -> Result<(), StoreError> {
        lock.remove(&self.mark(name))?;
        Ok(())
    }
}

/// A copy of the compiled-in network under another name would have its UUID.
fn check_copy(network: &Network, definitions: &[Definition]) -> Result<(), Problem> {
    let copied = |other: &&Definition| {
        let other = (&other.origin, &other.network);
        *other.0 == Origin::BuiltIn && other.1.uuid == network.uuid && other.1.name != network.name
    };
    let Some(other) = definitions.iter().find(copied) else { return Ok(()) };
    let (name, uuid) = (other.network.name.clone(), network.uuid);
    Err(Problem { part: Part::Uuid, what: CheckError::UuidTaken { name, uuid } })
}

fn none(name: &NetworkName) -> StoreError {
    match name.as_str() {
        DEFAULT_NAME => StoreError::BuiltIn(name.clone()),
        _ => StoreError::Unknown(name.clone()),
    }
}

/// A name for a bridge that no network and no interface has, as libvirt chooses them. The first is
/// left to the network `default`.
fn free_bridge(networks: &[&InterfaceName], interfaces: &[InterfaceName]) -> Option<InterfaceName> {
    let taken = |name: &InterfaceName| networks.contains(&name) || interfaces.contains(name);
    let mut names = (1u32..=u32::MAX).filter_map(|number| format!("virbr{number}").parse().ok());
    names.find(|name| !taken(name))
}
