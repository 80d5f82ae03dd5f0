//! The definitions of filters: the user's, one file each in `CONFIG/nwfilter`, and the stock ones,
//! which are there until the user defines one of their name, and again when that is undefined.
//! [`DefinitionDir`] says how files are changed, and what the lock is.
//!
//! What a change means for ports whose filter it is, the store cannot know. So a change has three
//! steps, all under one lock ([`FilterStore::lock`]): it is planned ([`FilterStore::plan_define`],
//! [`FilterStore::plan_undefine`]), which checks it and shows all filters as they would be; whoever binds
//! filters refuses it, or makes the new rules; then it is written ([`Locked::commit`]). A new
//! binding is made under the lock, too, so it never has rules of a filter that was changed
//! meanwhile.

use std::path::{Path, PathBuf};

use super::model::Filter;
use super::stock::{stock, stock_names};
use super::store_error::StoreError;
use super::tree::{Filters, find_loop};
use super::value::FilterName;
use super::write::to_xml;
use super::xml::parse;
use crate::definitions::{self, DefinitionDir, DefinitionLock, Origin};
use crate::types::Uuid;

/// Where definitions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterStore {
    dir: DefinitionDir,
}

/// A defined filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The filter.
    pub filter: Filter,
    /// Where the definition is from.
    pub origin: Origin,
}

/// A file that is no definition.
pub type Broken = definitions::Broken<FilterName, StoreError>;

/// A filter as a document says it, before it is looked at among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    filter: Filter,
    /// Whether the UUID was chosen here, not in the document.
    chosen: bool,
}

impl Draft {
    /// Reads a document; `source` is what it is called in errors: a path, or `-`.
    ///
    /// # Errors
    /// [`StoreError::Document`].
    pub fn read(xml: &[u8], source: &Path, rng: &mut impl rand::Rng) -> Result<Self, StoreError> {
        let uuid = Uuid::random(rng);
        match parse(xml, Some(uuid)) {
            Ok(filter) => Ok(Draft { chosen: filter.uuid == uuid, filter }),
            Err(error) => Err(StoreError::Document { path: source.to_owned(), error }),
        }
    }

    /// The filter; its UUID may still become that of the definition it replaces.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }
}

/// A change of definitions that is checked and not made yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The filter.
    pub name: FilterName,
    /// What is there now.
    pub old: Option<Definition>,
    /// What will be there; `None` where nothing of that name will be.
    pub new: Option<Definition>,
    /// All filters as they will be, those that can be read.
    pub filters: Filters,
}

impl Change {
    /// Whether the filter stays what it is, so that no rules change. Where the definition is may
    /// change all the same.
    pub fn is_same_filter(&self) -> bool {
        fn filter(definition: &Option<Definition>) -> Option<&Filter> {
            definition.as_ref().map(|definition| &definition.filter)
        }
        filter(&self.old) == filter(&self.new)
    }
}

impl FilterStore {
    /// The store in a configuration directory; nothing is made or read yet.
    pub fn new(config: &Path) -> Self {
        FilterStore { dir: DefinitionDir::new(config.join("nwfilter")) }
    }

    /// The directory of the definitions; it may not be there yet.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the definition of a filter is, or would be.
    pub fn path(&self, name: &FilterName) -> PathBuf {
        self.dir.file(name)
    }

    /// A filter.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when there is none; the others when its definition cannot be used.
    pub fn get(&self, name: &FilterName) -> Result<Definition, StoreError> {
        self.find(name)?.ok_or_else(|| StoreError::Unknown(name.clone()))
    }

    fn find(&self, name: &FilterName) -> Result<Option<Definition>, StoreError> {
        let path = self.path(name);
        let located = |error| StoreError::Document { path: path.clone(), error };
        let Some(bytes) = definitions::read(&path)? else {
            let stock = stock(name).transpose().map_err(located)?;
            return Ok(stock.map(|filter| Definition { filter, origin: Origin::BuiltIn }));
        };
        let filter = parse(&bytes, None).map_err(located)?;
        if filter.name != *name {
            return Err(StoreError::Misnamed { path, found: filter.name });
        }
        Ok(Some(Definition { filter, origin: Origin::File(path) }))
    }

    /// All filters by name, and the files that are none: one of those hides no other filter.
    ///
    /// # Errors
    /// [`StoreError::File`] when the directory is there and cannot be read.
    pub fn list(&self) -> Result<(Vec<Definition>, Vec<Broken>), StoreError> {
        Ok(self.dir.list(stock_names(), |name| self.find(name))?)
    }

    /// A filter and all that it refers to, as far as they are there. Without the lock they may be of
    /// different moments.
    ///
    /// # Errors
    /// When it is not there, or one of them cannot be read.
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

    /// What it is to define a filter, or to define it anew. `edited` is the definition that was edited:
    /// it must still be there, and keep its name.
    ///
    /// A document without a UUID keeps that of the definition it replaces.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn plan_define(
        &self,
        draft: Draft,
        edited: Option<&Definition>,
    ) -> Result<Change, StoreError> {
        let Draft { mut filter, chosen } = draft;
        let name = filter.name.clone();
        if let Some(edited) = edited
            && edited.filter.name != name
        {
            return Err(StoreError::Renamed { old: edited.filter.name.clone(), new: name });
        }
        // A broken definition of that name is replaced; broken others can be repaired.
        let (definitions, _) = self.list()?;
        let old = definitions.iter().find(|old| old.filter.name == name).cloned();
        if edited.is_some() && old.as_ref() != edited {
            return Err(StoreError::Changed(name));
        }
        if let Some(old) = &old {
            // A stock filter is nobody's definition, so one with a UUID of its own can replace it.
            match old.origin {
                _ if chosen => filter.uuid = old.filter.uuid,
                Origin::File(_) if old.filter.uuid != filter.uuid => {
                    return Err(StoreError::OtherUuid { name, uuid: old.filter.uuid });
                }
                _ => {}
            }
        }
        // Stock filters come back, so their UUIDs stay theirs while they are replaced.
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

    /// What it is to remove a definition, whether it can be read or not.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] or [`StoreError::BuiltIn`] when there is none.
    pub fn plan_undefine(&self, name: &FilterName) -> Result<Change, StoreError> {
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
    ) -> Result<Change, StoreError> {
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
        Ok(Change { name, old, new, filters })
    }

    /// Checks that a filter has a definition of the user's, before a store is made for nothing.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] or [`StoreError::BuiltIn`] when there is none.
    pub fn check_own(&self, name: &FilterName) -> Result<(), StoreError> {
        if self.path(name).symlink_metadata().is_ok() {
            return Ok(());
        }
        match stock(name) {
            Some(_) => Err(StoreError::BuiltIn(name.clone())),
            None => Err(StoreError::Unknown(name.clone())),
        }
    }

    /// Locks the definitions for changes; waits while another process has them locked. Makes the
    /// directory where it is missing.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn lock(&self) -> Result<Locked<'_>, StoreError> {
        Ok(Locked { store: self, lock: self.dir.lock()? })
    }
}

/// The right to change definitions, until it is dropped.
#[derive(Debug)]
pub struct Locked<'a> {
    store: &'a FilterStore,
    lock: DefinitionLock<'a>,
}

impl Locked<'_> {
    /// Makes a planned change.
    ///
    /// # Errors
    /// [`StoreError::File`]; then nothing has changed.
    pub fn commit(&self, change: &Change) -> Result<(), StoreError> {
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
