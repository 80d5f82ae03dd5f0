//! Filters that refer to filters: the rules of all of them, in order, for one set of variables.
//!
//! References can be made before what they refer to is there, so a missing filter is an error only
//! when rules are made. A filter that reaches itself is refused when it is defined ([`find_loop`]),
//! and again here, since files can be changed by other means. A tree that is followed is bounded in
//! depth, in references followed and in rules made: a filter that refers to the same one ten times,
//! ten levels deep, is a small document and would be 10^10 rules.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Element, Entry, Filter, FlatFilter};
use super::value::{FilterName, VariableName, VariableUse, VariableValue};
use super::variable::{VariableError, Variables, combinations};
use crate::xml::Place;

/// The deepest references.
pub const MAX_DEPTH: usize = 64;
/// The most references that are followed, those of referenced filters included.
pub const MAX_REFERENCES: usize = 10_000;
/// The most rules that a filter may come to.
pub const MAX_RULES: usize = 100_000;

/// The variable that says which clients' DHCP messages a rule accepts: `own`, those of the guest's
/// own MAC address, or `any`. libvirt does not know it; its XML has no word for a field of DHCP.
pub(super) const DHCP_CLIENT: &str = "CTRL_DHCP_CLIENT";

/// Why no rules can be made of a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Variables that have no value, of all the rules.
    #[error("the filter {filter} needs values for {}: add a parameter for each", names(missing))]
    Variables {
        /// The filter that was asked for.
        filter: FilterName,
        /// The variables, as the rules use them.
        missing: Vec<VariableUse>,
    },
    /// A rule that the variables do not fit.
    #[error("the rule at {place} of the filter {filter}: {error}")]
    Rule {
        /// The filter that has it.
        filter: FilterName,
        /// Where it is in the filter's document.
        place: Place,
        /// Why.
        error: VariableError,
    },
    /// A filter that is referred to is not there.
    #[error(
        "the filter {missing}, which {filter} refers to, is missing: define it, or remove the reference"
    )]
    Missing {
        /// The one that is not there.
        missing: FilterName,
        /// The one that refers to it.
        filter: FilterName,
    },
    /// A filter refers to itself, by others or directly.
    #[error("the filters {} refer to each other in a circle: remove one of the references", path(.0))]
    Loop(Vec<FilterName>),
    /// References deeper than [`MAX_DEPTH`].
    #[error(
        "the references of the filter {0} are more than {MAX_DEPTH} deep: refer to fewer levels"
    )]
    TooDeep(FilterName),
    /// More references than [`MAX_REFERENCES`].
    #[error(
        "the filter {0} follows more than {MAX_REFERENCES} references, those of others included: use fewer"
    )]
    TooManyReferences(FilterName),
    /// More rules than [`MAX_RULES`].
    #[error("the filter {0} comes to more than {MAX_RULES} rules: use fewer, or shorter lists")]
    TooManyRules(FilterName),
    /// A value of `CTRL_DHCP_CLIENT` that is none.
    #[error("{DHCP_CLIENT} cannot be {0:?}: use own or any")]
    DhcpClient(String),
}

fn names(uses: &[VariableUse]) -> String {
    let names: Vec<String> = uses.iter().map(VariableUse::to_string).collect();
    names.join(", ")
}

fn path(names: &[FilterName]) -> String {
    let names: Vec<&str> = names.iter().map(FilterName::as_str).collect();
    names.join(" -> ")
}

/// Filters by name.
pub type Filters = BTreeMap<FilterName, Filter>;

/// The rules of a filter and of those that it refers to, in the order of the documents, with the
/// variables' values in them.
///
/// # Errors
/// The first [`TreeError`]; variables without values are all in one.
pub fn flatten(
    filter: &Filter,
    filters: &Filters,
    variables: &Variables,
) -> Result<Vec<FlatFilter>, TreeError> {
    let mut walk = Walk {
        filters,
        root: &filter.name,
        path: Vec::new(),
        references: 0,
        rules: 0,
        missing: Vec::new(),
        flat: Vec::new(),
    };
    walk.filter(filter, variables)?;
    if walk.missing.is_empty() {
        return Ok(walk.flat);
    }
    Err(TreeError::Variables { filter: filter.name.clone(), missing: walk.missing })
}

struct Walk<'a> {
    filters: &'a Filters,
    root: &'a FilterName,
    /// The filters whose references lead here, this one at the end.
    path: Vec<&'a FilterName>,
    references: usize,
    rules: usize,
    missing: Vec<VariableUse>,
    flat: Vec<FlatFilter>,
}

impl<'a> Walk<'a> {
    /// Adds the rules of a filter; its depth is bounded, so this may call itself.
    fn filter(&mut self, filter: &'a Filter, variables: &Variables) -> Result<(), TreeError> {
        if let Some(at) = self.path.iter().position(|name| **name == filter.name) {
            let circle = self.path[at..].iter().copied().chain([&filter.name]);
            return Err(TreeError::Loop(circle.cloned().collect()));
        }
        if self.path.len() > MAX_DEPTH {
            return Err(TreeError::TooDeep(self.root.clone()));
        }
        self.path.push(&filter.name);
        let own_dhcp_client = own_dhcp_client(variables)?;
        let part = || FlatFilter {
            filter: filter.name.clone(),
            chain: filter.chain.clone(),
            priority: filter.priority,
            rules: Vec::new(),
            own_dhcp_client,
        };
        let mut open = part();
        for entry in &filter.entries {
            match entry {
                Entry::Rule(rule) => match combinations(rule, variables) {
                    Ok(rules) => {
                        self.rules += rules.len();
                        if self.rules > MAX_RULES {
                            return Err(TreeError::TooManyRules(self.root.clone()));
                        }
                        open.rules.extend(rules);
                    }
                    Err(VariableError::Missing(uses)) => {
                        for use_ in uses {
                            if !self.missing.contains(&use_) {
                                self.missing.push(use_);
                            }
                        }
                    }
                    Err(error) => {
                        let (filter, place) = (filter.name.clone(), rule.place);
                        return Err(TreeError::Rule { filter, place, error });
                    }
                },
                Entry::Reference(reference) => {
                    self.close(std::mem::replace(&mut open, part()));
                    self.references += 1;
                    if self.references > MAX_REFERENCES {
                        return Err(TreeError::TooManyReferences(self.root.clone()));
                    }
                    let Some(next) = self.filters.get(&reference.filter) else {
                        let (missing, filter) = (reference.filter.clone(), filter.name.clone());
                        return Err(TreeError::Missing { missing, filter });
                    };
                    self.filter(next, &variables.with_defaults(&reference.parameters))?;
                }
            }
        }
        self.close(open);
        self.path.pop();
        Ok(())
    }

    fn close(&mut self, part: FlatFilter) {
        if !part.rules.is_empty() {
            self.flat.push(part);
        }
    }
}

fn own_dhcp_client(variables: &Variables) -> Result<bool, TreeError> {
    let name: Option<VariableName> = DHCP_CLIENT.parse().ok();
    match name.and_then(|name| variables.get(&name)).unwrap_or_default() {
        [] => Ok(false),
        [value] if value.as_str().eq_ignore_ascii_case("any") => Ok(false),
        [value] if value.as_str().eq_ignore_ascii_case("own") => Ok(true),
        values => {
            let values: Vec<&str> = values.iter().map(VariableValue::as_str).collect();
            Err(TreeError::DhcpClient(values.join(", ")))
        }
    }
}

/// The filters that a filter reaches by references, itself included if it is among `filters`.
pub fn reachable(start: &FilterName, filters: &Filters) -> BTreeSet<FilterName> {
    let mut found = BTreeSet::new();
    let mut next = vec![start];
    while let Some(name) = next.pop() {
        let Some(filter) = filters.get(name) else { continue };
        if found.insert(name.clone()) {
            next.extend(filter.references().map(|reference| &reference.filter));
        }
    }
    found
}

/// What a filter needs to be bound, itself and by its references.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Variables that no reference on the way gives a value, as the rules use them.
    pub variables: Vec<VariableUse>,
    /// Filters that are referred to and not there.
    pub filters: Vec<FilterName>,
}

/// What a filter needs to be bound. Of a tree with more than [`MAX_REFERENCES`] references, which
/// cannot be bound, not all of it.
pub fn needs(filter: &Filter, filters: &Filters) -> Needs {
    let mut needs = Needs::default();
    let mut seen = BTreeSet::new();
    let mut next = vec![(filter, BTreeSet::new())];
    while let Some((filter, given)) = next.pop() {
        if seen.len() > MAX_REFERENCES || !seen.insert((&filter.name, given.clone())) {
            continue;
        }
        let elements = filter.rules().filter_map(|rule| rule.element.as_ref());
        for variable in elements.flat_map(Element::variables) {
            if !given.contains(&variable.name) && !needs.variables.contains(variable) {
                needs.variables.push(variable.clone());
            }
        }
        for reference in filter.references() {
            match filters.get(&reference.filter) {
                Some(other) => {
                    let names = reference.parameters.iter().map(|(name, _)| name);
                    next.push((other, given.iter().copied().chain(names).collect()));
                }
                None if needs.filters.contains(&reference.filter) => {}
                None => needs.filters.push(reference.filter.clone()),
            }
        }
    }
    needs
}

/// A circle of references that `filter` would close among `filters`, as a path from it to itself.
pub fn find_loop(filter: &Filter, filters: &Filters) -> Option<Vec<FilterName>> {
    // From where each filter was first reached: breadth first, so the circle is a shortest one.
    let mut from: BTreeMap<&FilterName, &FilterName> = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([filter]);
    while let Some(current) = queue.pop_front() {
        for reference in current.references() {
            if reference.filter == filter.name {
                let mut circle = vec![filter.name.clone(), current.name.clone()];
                let mut at = &current.name;
                while let Some(before) = from.get(at) {
                    circle.push((*before).clone());
                    at = before;
                }
                circle.reverse();
                return Some(circle);
            }
            if let Some(next) = filters.get(&reference.filter)
                && !from.contains_key(&next.name)
            {
                from.insert(&next.name, &current.name);
                queue.push_back(next);
            }
        }
    }
    None
}
