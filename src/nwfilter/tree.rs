//! Resolves references between filters: collects the rules of a filter and of all filters that it
//! refers to, in order, for one set of variables.
//!
//! A filter may refer to a filter that is not defined yet, so a missing filter is an error only
//! when rules are made. A filter that reaches itself is refused when it is defined ([`find_loop`]),
//! and again here, since other programs can change the files. The resolution has limits for depth,
//! references and rules: a filter with ten references to the same filter, ten levels deep, is a
//! small document but would be 10^10 rules.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Element, Entry, Filter, FlatFilter};
use super::value::{FilterName, VariableName, VariableUse, VariableValue};
use super::variable::{VariableError, Variables, combinations};
use crate::xml::Position;

/// The maximum depth of references.
pub const MAX_DEPTH: usize = 64;
/// The maximum number of references that are followed, including those of referenced filters.
pub const MAX_REFERENCES: usize = 10_000;
/// The maximum number of rules of a filter.
pub const MAX_RULES: usize = 100_000;

/// The variable that selects the clients whose DHCP messages a rule accepts: `own` for the guest's
/// own MAC address, or `any`. libvirt does not have this variable, and its XML has no attribute for
/// a field of DHCP.
pub(super) const DHCP_CLIENT: &str = "CTRL_DHCP_CLIENT";
/// The variable that selects the neighbor discovery messages that a rule accepts: `own` for those
/// that name only the guest's own addresses, or `any`. libvirt's XML has no attribute for a field
/// of such a message.
pub(super) const ND_MESSAGE: &str = "CTRL_ND_MESSAGE";

/// The reason why a filter's rules cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// Variables of any of the rules have no value.
    #[error("the filter {filter} needs values for {}: add a parameter for each", names(missing))]
    Variables {
        /// The requested filter.
        filter: FilterName,
        /// The variables, as the rules use them.
        missing: Vec<VariableUse>,
    },
    /// The values of the variables are not valid for a rule.
    #[error("the rule at {place} of the filter {filter}: {error}")]
    Rule {
        /// The filter that contains the rule.
        filter: FilterName,
        /// The position in the filter's document.
        place: Position,
        /// The reason.
        error: VariableError,
    },
    /// A referenced filter does not exist.
    #[error(
        "the filter {missing}, which {filter} refers to, is missing: define it, or remove the reference"
    )]
    Missing {
        /// The missing filter.
        missing: FilterName,
        /// The filter that refers to it.
        filter: FilterName,
    },
    /// A filter refers to itself, directly or through others.
    #[error("the filters {} refer to each other in a circle: remove one of the references", path(.0))]
    Loop(Vec<FilterName>),
    /// References deeper than [`MAX_DEPTH`].
    #[error(
        "the references of the filter {0} are more than {MAX_DEPTH} deep: refer to fewer levels"
    )]
    TooDeep(FilterName),
    /// More references than [`MAX_REFERENCES`].
    #[error(
        "the filter {0} follows more than {MAX_REFERENCES} references, with those of the referenced filters: use fewer"
    )]
    TooManyReferences(FilterName),
    /// More rules than [`MAX_RULES`].
    #[error(
        "the filter {0} has more than {MAX_RULES} rules with all references and lists: use fewer rules, or shorter lists"
    )]
    TooManyRules(FilterName),
    /// The value of `CTRL_DHCP_CLIENT` or `CTRL_ND_MESSAGE` is not valid.
    #[error("{variable} cannot be {value:?}: use own or any")]
    Control {
        /// The variable.
        variable: &'static str,
        /// Its values, separated by commas.
        value: String,
    },
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

/// Returns the rules of a filter and of those that it refers to, in the order of the documents,
/// with the values of the variables.
///
/// # Errors
/// Returns the first [`TreeError`]; one error contains all variables without a value.
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
    /// The filters whose references lead to the present filter, which is the last.
    path: Vec<&'a FilterName>,
    references: usize,
    rules: usize,
    missing: Vec<VariableUse>,
    flat: Vec<FlatFilter>,
}

impl<'a> Walk<'a> {
    /// Adds the rules of a filter. The function is recursive; its depth is limited.
    fn filter(&mut self, filter: &'a Filter, variables: &Variables) -> Result<(), TreeError> {
        if let Some(at) = self.path.iter().position(|name| **name == filter.name) {
            let circle = self.path[at..].iter().copied().chain([&filter.name]);
            return Err(TreeError::Loop(circle.cloned().collect()));
        }
        if self.path.len() > MAX_DEPTH {
            return Err(TreeError::TooDeep(self.root.clone()));
        }
        self.path.push(&filter.name);
        let own_dhcp_client = is_own(DHCP_CLIENT, variables)?;
        let own_nd_message = is_own(ND_MESSAGE, variables)?;
        let part = || FlatFilter {
            filter: filter.name.clone(),
            chain: filter.chain.clone(),
            priority: filter.priority,
            rules: Vec::new(),
            own_dhcp_client,
            own_nd_message,
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

/// Returns whether a variable with the values `own` and `any` is `own`.
fn is_own(variable: &'static str, variables: &Variables) -> Result<bool, TreeError> {
    let name: Option<VariableName> = variable.parse().ok();
    match name.and_then(|name| variables.get(&name)).unwrap_or_default() {
        [] => Ok(false),
        [value] if value.as_str().eq_ignore_ascii_case("any") => Ok(false),
        [value] if value.as_str().eq_ignore_ascii_case("own") => Ok(true),
        values => {
            let values: Vec<&str> = values.iter().map(VariableValue::as_str).collect();
            Err(TreeError::Control { variable, value: values.join(", ") })
        }
    }
}

/// Returns the filters that a filter reaches by references, including itself if it is among
/// `filters`.
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

/// The missing inputs of a filter and of the filters that it reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Variables for which no reference gives a value, as the rules use them.
    pub variables: Vec<VariableUse>,
    /// Filters that are referenced but do not exist.
    pub filters: Vec<FilterName>,
}

/// Returns the missing inputs of a filter. The result is incomplete for a tree with more than
/// [`MAX_REFERENCES`] references, which cannot be bound.
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

/// Returns a circle of references that adding `filter` to `filters` would close, as a path from the
/// filter to itself.
pub fn find_loop(filter: &Filter, filters: &Filters) -> Option<Vec<FilterName>> {
    // Maps each filter to the one from which it was first reached. The search is breadth-first, so
    // the circle is a shortest one.
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
