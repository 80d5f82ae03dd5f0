//! Stores the definitions of filters: the user's, one file each in `CONFIG/nwfilter`, and the stock
//! filters. A user's definition replaces the stock filter of its name until the definition is
//! removed. [`DefinitionDir`] describes how files are changed, and the lock.
//!
//! The store does not know the ports that use a filter. So a change has three steps, all under one
//! lock ([`FilterStore::lock`]). First it is planned ([`FilterStore::plan_define`],
//! [`FilterStore::plan_undefine`]), which checks it and returns all filters in their new state.
//! Then the module that binds filters refuses the change or makes the new rules. Then the change is
//! written ([`Locked::commit`]). A new binding is made under the lock as well, so it never has
//! rules of a filter that changed in the meantime.

use std::path::{Path, PathBuf};

use super::model::Filter;
use super::stock::{stock, stock_names};
use super::store_error::StoreError;
use super::tree::{Filters, find_loop};
use super::value::FilterName;
use super::write::{placed_as_printed, to_xml};
use super::xml::parse;
use crate::types::Uuid;
use crate::xml::store::{self, DefinitionDir, DefinitionLock, Origin};

/// The directory of the definitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterStore {
    dir: DefinitionDir,
}

/// A defined filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The filter.
    pub filter: Filter,
    /// The origin of the definition.
    pub origin: Origin,
}

/// A file that is not a valid definition.
pub type BrokenFile = store::BrokenFile<FilterName, StoreError>;

/// A parsed filter that is not yet checked against the other filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UncheckedFilter {
    filter: Filter,
    /// Whether netlaunch chose the UUID, because the document has none.
    chosen: bool,
}

impl UncheckedFilter {
    /// Parses a document; `source` is its name in errors: a path, or `-`.
    ///
    /// # Errors
    /// Returns [`StoreError::Document`] if the document has an error.
    pub fn read(xml: &[u8], source: &Path, rng: &mut impl rand::Rng) -> Result<Self, StoreError> {
        let uuid = Uuid::random(rng);
        match parse(xml, Some(uuid)) {
            Ok(filter) => Ok(UncheckedFilter { chosen: filter.uuid == uuid, filter }),
            Err(error) => Err(StoreError::Document { path: source.to_owned(), error }),
        }
    }

    /// Returns the filter. Its UUID may still change to the UUID of the definition that it
    /// replaces.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }
}

/// A change of definitions that is checked but not yet written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionChange {
    /// The name of the filter.
    pub name: FilterName,
    /// The present definition.
    pub old: Option<Definition>,
    /// The new definition; `None` if there will be none of that name.
    pub new: Option<Definition>,
    /// All valid filters in their new state.
    pub filters: Filters,
}

impl DefinitionChange {
    /// Returns whether the filter stays equal, so that no rules change. The origin of the
    /// definition may still change.
    pub fn is_same_filter(&self) -> bool {
        fn filter(definition: &Option<Definition>) -> Option<&Filter> {
            definition.as_ref().map(|definition| &definition.filter)
        }
        filter(&self.old) == filter(&self.new)
    }
}

impl FilterStore {
    /// Returns the store in a configuration directory. Does not read or make a file yet.
    pub fn new(config: &Path) -> Self {
        FilterStore { dir: DefinitionDir::new(config.join("nwfilter")) }
    }

    /// Returns the directory of the definitions, which may not exist yet.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the path of a filter's definition, whether it exists or not.
    pub fn path(&self, name: &FilterName) -> PathBuf {
        self.dir.file(name)
    }

    /// Returns a filter.
    ///
    /// # Errors
    /// Returns [`StoreError::Unknown`] if it does not exist, or another error if its definition is
    /// not valid.
    pub fn get(&self, name: &FilterName) -> Result<Definition, StoreError> {
        self.find(name)?.ok_or_else(|| StoreError::Unknown(name.clone()))
    }

    fn find(&self, name: &FilterName) -> Result<Option<Definition>, StoreError> {
        let path = self.path(name);
        let located = |error| StoreError::Document { path: path.clone(), error };
        let Some(bytes) = store::read(&path)? else {
            let stock = stock(name).transpose().map_err(located)?;
            return Ok(stock.map(|filter| Definition { filter, origin: Origin::BuiltIn }));
        };
        let filter = parse(&bytes, None).map_err(located)?;
        if filter.name != *name {
            return Err(StoreError::Misnamed { path, found: filter.name });
        }
        let filter = placed_as_printed(filter, &bytes);
        Ok(Some(Definition { filter, origin: Origin::File(path) }))
    }

    /// Returns all filters by name, and the files that are not valid; an invalid file does not hide
    /// other filters.
    ///
    /// # Errors
    /// Returns [`StoreError::File`] if the directory exists but cannot be read.
    pub fn list(&self) -> Result<(Vec<Definition>, Vec<BrokenFile>), StoreError> {
        Ok(self.dir.list(stock_names(), |name| self.find(name))?)
    }

    /// Returns a filter and all existing filters that it refers to. Without the lock they may be
    /// from different moments.
    ///
    /// # Errors
    /// Returns an error if the filter does not exist, or if one of the filters cannot be read.
    pub fn tree(&self, name: &FilterName) -> Result<Filters, StoreError> {
        let mut filters = Filters::new();
        let root = self.get(name)?.filter;
        let mut next = vec![root];
        while let Some(filter) = next.pop() {
            for reference in filter.references() {
                if reference.filter != filter.name && !filters.contains_key(&reference.filter) {
                    next.extend(self.find(&reference.filter)?.map(|found| found.filter));
                }
            }
            filters.insert(filter.name.clone(), filter);
        }
        Ok(filters)
    }

    /// Plans the definition of a new filter, or a new definition of an existing one. `edited` is
    /// the definition that the user edited: it must still exist, and keep its name.
    ///
    /// A document without a UUID keeps the UUID of the definition that it replaces.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the change is not valid.
    pub fn plan_define(
        &self,
        draft: UncheckedFilter,
        edited: Option<&Definition>,
    ) -> Result<DefinitionChange, StoreError> {
        let UncheckedFilter { mut filter, chosen } = draft;
        let name = filter.name.clone();
        if let Some(edited) = edited
            && edited.filter.name != name
        {
            return Err(StoreError::Renamed { old: edited.filter.name.clone(), new: name });
        }
        // A broken definition of that name is replaced; other broken definitions can be repaired
        // later.
        let (definitions, _) = self.list()?;
        let old = definitions.iter().find(|old| old.filter.name == name).cloned();
        if edited.is_some() && old.as_ref() != edited {
            return Err(StoreError::Changed(name));
        }
        if let Some(old) = &old {
            // No user defined the stock filter, so a definition with a UUID of its own can replace
            // it.
            match old.origin {
                _ if chosen => filter.uuid = old.filter.uuid,
                Origin::File(_) if old.filter.uuid != filter.uuid => {
                    return Err(StoreError::OtherUuid { name, uuid: old.filter.uuid });
                }
                _ => {}
            }
        }
        // A stock filter returns when its replacement is removed, so its UUID stays reserved.
        let is_there = |name: &FilterName| {
            definitions.iter().any(|d| d.origin == Origin::BuiltIn && d.filter.name == *name)
        };
        let hidden: Vec<Filter> = stock_names()
            .filter(|name| !is_there(name))
            .filter_map(|name| stock(&name)?.ok())
            .collect();
        let mut others = definitions.iter().map(|other| &other.filter).chain(&hidden);
        if let Some(other) = others.find(|other| other.uuid == filter.uuid && other.name != name) {
            return Err(StoreError::UuidTaken { name: other.name.clone(), uuid: filter.uuid });
        }
        let origin = Origin::File(self.path(&name));
        FilterStore::change(name, definitions, old, Some(Definition { filter, origin }))
    }

    /// Plans the removal of a definition, whether it is valid or not.
    ///
    /// # Errors
    /// Returns [`StoreError::Unknown`] or [`StoreError::BuiltIn`] if the user has not defined the
    /// filter.
    pub fn plan_undefine(&self, name: &FilterName) -> Result<DefinitionChange, StoreError> {
        self.check_own(name)?;
        let (definitions, _) = self.list()?;
        let old = definitions.iter().find(|old| old.filter.name == *name).cloned();
        let stock = stock(name)
            .transpose()
            .map_err(|error| StoreError::Document { path: self.path(name), error })?;
        let new = stock.map(|filter| Definition { filter, origin: Origin::BuiltIn });
        FilterStore::change(name.clone(), definitions, old, new)
    }

    fn change(
        name: FilterName,
        definitions: Vec<Definition>,
        old: Option<Definition>,
        new: Option<Definition>,
    ) -> Result<DefinitionChange, StoreError> {
        let mut filters: Filters = definitions
            .into_iter()
            .map(|definition| (definition.filter.name.clone(), definition.filter))
            .collect();
        filters.remove(&name);
        if let Some(new) = &new {
            filters.insert(name.clone(), new.filter.clone());
            if let Some(circle) = find_loop(&new.filter, &filters) {
                return Err(StoreError::Loop(circle));
            }
        }
        Ok(DefinitionChange { name, old, new, filters })
    }

    /// Checks that the user has defined a filter, before the caller makes the store's directory.
    ///
    /// # Errors
    /// Returns [`StoreError::Unknown`] or [`StoreError::BuiltIn`] if the user has not defined the
    /// filter.
    pub fn check_own(&self, name: &FilterName) -> Result<(), StoreError> {
        if self.path(name).symlink_metadata().is_ok() {
            return Ok(());
        }
        match stock(name) {
            Some(_) => Err(StoreError::BuiltIn(name.clone())),
            None => Err(StoreError::Unknown(name.clone())),
        }
    }

    /// Locks the definitions for changes; waits while another process holds the lock. Makes the
    /// directory if it does not exist.
    ///
    /// # Errors
    /// Returns [`StoreError::File`] if the directory or the lock cannot be used.
    pub fn lock(&self) -> Result<Locked<'_>, StoreError> {
        Ok(Locked { store: self, lock: self.dir.lock()? })
    }
}

/// The lock on the definitions, held until this value is dropped.
#[derive(Debug)]
pub struct Locked<'a> {
    store: &'a FilterStore,
    lock: DefinitionLock<'a>,
}

impl Locked<'_> {
    /// Writes a planned change.
    ///
    /// # Errors
    /// Returns [`StoreError::File`]; the definitions have not changed then.
    pub fn commit(&self, change: &DefinitionChange) -> Result<(), StoreError> {
        let path = self.store.path(&change.name);
        match &change.new {
            new if *new == change.old && new.is_some() => {}
            Some(Definition { filter, origin: Origin::File(_) }) => {
                self.lock.write(&path, to_xml(filter).as_bytes())?;
            }
            Some(Definition { origin: Origin::BuiltIn, .. }) | None => {
                self.lock.remove(&path)?;
            }
        }
        Ok(())
    }
}
