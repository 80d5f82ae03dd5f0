//! The definitions of networks: one file `CONFIG/networks/NAME.xml` for each, and an empty file
//! `autostart/NAME`, the mark of a network that starts with the host.
//!
//! [`DefinitionDir`] defines how files change and how the lock works.
//!
//! A network with the name `default` is compiled in. It exists while no file defines a network with
//! that name. A new definition may use its bridge and its subnet, because no user asked for the
//! compiled-in network; only its UUID is reserved. The start of a network checks whether the
//! network can run beside the others.

use std::path::{Path, PathBuf};

use super::model::{Forward, Network};
use super::store_error::StoreError;
use super::values::NetworkName;
use super::{
    CheckError, CheckFailure, DocumentError, DocumentErrorKind, Fill, Part, check_against, load,
    to_xml,
};
use crate::types::InterfaceName;
use crate::xml::store::{self, DefinitionDir, DefinitionLock, Origin};
use crate::xml::{MAX_BYTES, Position, XmlError, XmlErrorKind};

/// The compiled-in network's document.
const DEFAULT: &str = include_str!("default.xml");
/// The compiled-in network's name.
const DEFAULT_NAME: &str = "default";

/// The store of network definitions in a configuration directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkStore {
    dir: DefinitionDir,
}

/// A defined network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The network.
    pub network: Network,
    /// The origin of the definition.
    pub origin: Origin,
    /// Whether the network starts with the host.
    pub autostart: bool,
}

/// The input of [`NetworkStore::define`].
#[derive(Debug, Clone, Copy)]
pub struct DefineRequest<'a> {
    /// The document.
    pub xml: &'a [u8],
    /// The document's name in errors: a path, or `-`.
    pub source: &'a Path,
    /// The interfaces of the host; a bridge name that is chosen here is none of them.
    pub interfaces: &'a [InterfaceName],
    /// The definition that the user edited. It must still be stored unchanged, and its name must
    /// stay.
    pub edited: Option<&'a Definition>,
}

/// A file whose definition cannot be used.
pub type BrokenFile = store::BrokenFile<NetworkName, StoreError>;

impl NetworkStore {
    /// Keeps the path below the configuration directory; it neither makes nor reads anything.
    pub fn new(config: &Path) -> Self {
        NetworkStore { dir: DefinitionDir::new(config.join("networks")) }
    }

    /// Returns the path for the definition of a network, whether or not the file exists.
    pub fn path(&self, name: &NetworkName) -> PathBuf {
        self.dir.file(name)
    }

    /// Returns the path of the network's autostart mark.
    fn mark(&self, name: &NetworkName) -> PathBuf {
        self.dir.path().join("autostart").join(name.as_str())
    }

    /// Reads the definition of a network.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if no network has that name; another [`StoreError`] if its
    /// definition cannot be used.
    pub fn get(&self, name: &NetworkName) -> Result<Definition, StoreError> {
        let found = self.find(name)?;
        found.ok_or_else(|| StoreError::Unknown(name.clone()))
    }

    /// Reads the definition of a network; `None` if no network has that name.
    fn find(&self, name: &NetworkName) -> Result<Option<Definition>, StoreError> {
        let path = self.path(name);
        let autostart = self.mark(name).symlink_metadata().is_ok();
        let (bytes, origin) = match store::read(&path)? {
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

    /// Returns all networks in the order of their names, and the broken files. A broken file does
    /// not hide the other networks.
    ///
    /// # Errors
    /// [`StoreError::File`] if the directory exists and cannot be read.
    pub fn list(&self) -> Result<(Vec<Definition>, Vec<BrokenFile>), StoreError> {
        Ok(self.dir.list(DEFAULT_NAME.parse(), |name| self.find(name))?)
    }

    /// Stores the definition of a network; it replaces an older definition with the same name.
    ///
    /// If the document leaves out the UUID, the MAC address or the bridge's name, the value comes
    /// from the replaced definition, or it is chosen.
    ///
    /// # Errors
    /// [`StoreError`]. If the error is not from the file system, no definition has changed.
    pub fn define(
        &self,
        define: &DefineRequest<'_>,
        rng: &mut impl rand::Rng,
    ) -> Result<Definition, StoreError> {
        let located = |error| StoreError::Document { path: define.source.to_owned(), error };
        // The first parse finds mistakes before the directory is made, and it gives the name.
        let draft = Fill::random(free_bridge(&[], define.interfaces), rng);
        let name = load(define.xml, Some(&draft)).map_err(located)?.network.name;
        let lock = self.dir.lock()?;
        // The write replaces a broken definition with that name. Other broken definitions are
        // ignored here, because they cannot start.
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
        let user_made: Vec<&Network> = definitions
            .iter()
            .filter(|definition| definition.origin != Origin::BuiltIn)
            .map(|definition| &definition.network)
            .collect();
        let fill = match user_made.iter().find(|network| network.name == name) {
            // A bridge that existed already does not become one that netlaunch makes.
            Some(old) if old.forward != Forward::Bridge => Fill {
                uuid: old.uuid,
                mac: old.mac.unwrap_or(draft.mac),
                bridge: Some(old.bridge.name.clone()),
            },
            old => {
                let all: Vec<_> = definitions.iter().map(|d| &d.network.bridge.name).collect();
                let uuid = old.map_or(draft.uuid, |old| old.uuid);
                Fill { uuid, bridge: free_bridge(&all, define.interfaces), ..draft }
            }
        };
        let parsed = load(define.xml, Some(&fill)).map_err(located)?;
        check_against(&parsed.network, user_made)
            .and_then(|()| check_copy(&parsed.network, &definitions))
            .map_err(|problem| located(parsed.locate(problem)))?;
        let path = self.path(&name);
        let text = text_of(&parsed.network).map_err(located)?;
        lock.write(&path, text.as_bytes())?;
        let autostart = self.mark(&name).symlink_metadata().is_ok();
        Ok(Definition { network: parsed.network, origin: Origin::File(path), autostart })
    }

    /// Reads the definition of a network, and holds the lock of all definitions for a change of it.
    ///
    /// # Errors
    /// The errors of [`get`](Self::get), and [`StoreError::File`] if the lock cannot be taken.
    pub(super) fn hold(&self, name: &NetworkName) -> Result<HeldDefinition<'_>, StoreError> {
        // Taking the lock would make the directory for a network that does not exist.
        self.get(name)?;
        let lock = self.dir.lock()?;
        let network = self.get(name)?.network;
        Ok(HeldDefinition { store: self, lock, path: self.path(name), network })
    }

    /// Removes a definition, even a broken one, and its autostart mark.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] or [`StoreError::BuiltIn`] if no file defines the network;
    /// [`StoreError::File`] if a file cannot be removed.
    pub fn undefine(&self, name: &NetworkName) -> Result<(), StoreError> {
        let path = self.path(name);
        // This check comes before the lock, because taking the lock would make the directory.
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
    /// [`StoreError`], for example if no network has that name.
    pub fn set_autostart(&self, name: &NetworkName, on: bool) -> Result<(), StoreError> {
        let mark = self.mark(name);
        let marked = || mark.symlink_metadata().is_ok();
        if !on {
            // The mark is removed even if the definition is broken or missing.
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

    /// Removes the network's autostart mark, if there is one.
    fn unmark(&self, lock: &DefinitionLock<'_>, name: &NetworkName) -> Result<(), StoreError> {
        lock.remove(&self.mark(name))?;
        Ok(())
    }
}

/// Returns the document of a network. References make a text longer, so a document below the limit
/// can be written above it.
fn text_of(network: &Network) -> Result<String, DocumentError> {
    let text = to_xml(network);
    if text.len() > MAX_BYTES {
        let (place, what) = (Position::START, XmlErrorKind::TooLarge(text.len()));
        return Err(XmlError { place, what }.into());
    }
    Ok(text)
}

/// A definition that no other command changes while this value exists.
#[derive(Debug)]
pub(super) struct HeldDefinition<'a> {
    store: &'a NetworkStore,
    lock: DefinitionLock<'a>,
    path: PathBuf,
    network: Network,
}

impl HeldDefinition<'_> {
    /// Returns the network.
    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    /// Returns the path of its definition.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the text of a new definition, which must fit beside the other definitions.
    ///
    /// # Errors
    /// [`StoreError`] if it does not fit.
    pub(super) fn replacement(&self, network: &Network) -> Result<String, StoreError> {
        let (definitions, _) = self.store.list()?;
        let user_made = definitions.iter().filter(|one| one.origin != Origin::BuiltIn);
        check_against(network, user_made.map(|one| &one.network))
            .and_then(|()| check_copy(network, &definitions))
            .map_err(|problem| StoreError::Document {
                path: self.path.clone(),
                error: DocumentError {
                    place: Position::START,
                    what: DocumentErrorKind::Check(problem.what),
                },
            })?;
        let path = self.path.clone();
        text_of(network).map_err(|error| StoreError::Document { path, error })
    }

    /// Writes the new definition.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub(super) fn write(&self, text: &str) -> Result<(), StoreError> {
        Ok(self.lock.write(&self.path, text.as_bytes())?)
    }
}

/// Refuses a network with another name that has the compiled-in network's UUID, such as an edited
/// copy.
fn check_copy(network: &Network, definitions: &[Definition]) -> Result<(), CheckFailure> {
    let copied = |other: &&Definition| {
        let other = (&other.origin, &other.network);
        *other.0 == Origin::BuiltIn && other.1.uuid == network.uuid && other.1.name != network.name
    };
    let Some(other) = definitions.iter().find(copied) else { return Ok(()) };
    let (name, uuid) = (other.network.name.clone(), network.uuid);
    Err(CheckFailure { part: Part::Uuid, what: CheckError::UuidTaken { name, uuid } })
}

/// Returns the error for a network that no file defines.
fn none(name: &NetworkName) -> StoreError {
    match name.as_str() {
        DEFAULT_NAME => StoreError::BuiltIn(name.clone()),
        _ => StoreError::Unknown(name.clone()),
    }
}

/// Returns the first name `virbrN` that no network and no interface has, as libvirt does.
///
/// N starts at 1, because virbr0 belongs to the network `default`.
fn free_bridge(networks: &[&InterfaceName], interfaces: &[InterfaceName]) -> Option<InterfaceName> {
    let taken = |name: &InterfaceName| networks.contains(&name) || interfaces.contains(name);
    let mut names = (1u32..=u32::MAX).filter_map(|number| format!("virbr{number}").parse().ok());
    names.find(|name| !taken(name))
}
