//! The rules of many ports, which mostly share their filter: what is the same is made once.
//!
//! Two ports have the same rules when they have the same filter and the same values for those
//! variables that a rule can see: of the filter itself, or of one that it reaches by references.
//! What else a binding gives, its MAC address for one, makes no difference then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::compile::{CompileError, Warning, compile};
use super::model::{Element, Filter};
use super::tree::{DHCP_CLIENT, Filters, TreeError, flatten, reachable};
use super::value::{FilterName, VariableName};
use super::variable::Variables;
use crate::rules::port::PortRules;

/// Why a filter makes no rules for a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Its references and variables.
    #[error(transparent)]
    Tree(Box<TreeError>),
    /// A rule that makes no sense.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// What a filter means for a port, and what the user should know about it.
pub type Compiled = (Arc<PortRules>, Vec<Warning>);

/// Makes rules of these filters, and remembers them.
#[derive(Debug)]
pub struct Compiler<'a> {
    filters: &'a Filters,
    /// The variables that a filter's rules can see.
    seen: BTreeMap<FilterName, BTreeSet<VariableName>>,
    done: BTreeMap<(FilterName, Variables), Compiled>,
}

impl<'a> Compiler<'a> {
    /// One that has made nothing yet.
    pub fn new(filters: &'a Filters) -> Self {
        Compiler { filters, seen: BTreeMap::new(), done: BTreeMap::new() }
    }

    /// The filter of that name.
    pub fn filter(&self, name: &FilterName) -> Option<&'a Filter> {
        self.filters.get(name)
    }

    /// What a filter, one of those of [`Compiler::new`], means with these variables.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn rules(
        &mut self,
        filter: &Filter,
        variables: &Variables,
    ) -> Result<Compiled, RulesError> {
        let filters = self.filters;
        let seen = self.seen.entry(filter.name.clone()).or_insert_with(|| visible(filter, filters));
        let key = (filter.name.clone(), variables.only(seen));
        if let Some(done) = self.done.get(&key) {
            return Ok(done.clone());
        }
        let parts = flatten(filter, filters, variables)
            .map_err(|error| RulesError::Tree(Box::new(error)))?;
        let (rules, warnings) = compile(&parts)?;
        let compiled = (Arc::new(rules), warnings);
        self.done.insert(key, compiled.clone());
        Ok(compiled)
    }
}

/// The variables that the rules of a filter and of all it reaches name.
fn visible(filter: &Filter, filters: &Filters) -> BTreeSet<VariableName> {
    let names = reachable(&filter.name, filters);
    names
        .iter()
        .filter_map(|name| filters.get(name))
        .flat_map(Filter::rules)
        .filter_map(|rule| rule.element.as_ref())
        .flat_map(Element::variables)
        .map(|variable| variable.name.clone())
        .chain(DHCP_CLIENT.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nwfilter::parse;

    const UUID: &str = "7b2f9b5e-1c9f-4c0b-8d57-1f8f0a5d0c12";

    fn filters(documents: &[&str]) -> Filters {
        let one = |xml: &&str| {
            let filter = parse(xml.as_bytes(), Some(UUID.parse().unwrap()));
            let filter = filter.unwrap();
            (filter.name.clone(), filter)
        };
        documents.iter().map(one).collect()
    }

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn what_no_rule_sees_makes_no_difference() {
        let filters = filters(&[
            "<filter name='a'><filterref filter='b'/></filter>",
            "<filter name='b'><rule action='drop' direction='out'><ip srcipaddr='$IP'/></rule></filter>",
        ]);
        let filter = &filters[&"a".parse().unwrap()];
        let mut compiler = Compiler::new(&filters);
        let mut rules = |pairs| compiler.rules(filter, &variables(pairs)).unwrap().0;
        let one = rules(&[("IP", "10.0.0.1"), ("MAC", "52:54:00:00:00:01")]);
        let same = rules(&[("IP", "10.0.0.1"), ("MAC", "52:54:00:00:00:02")]);
        let other = rules(&[("IP", "10.0.0.2"), ("MAC", "52:54:00:00:00:01")]);
        assert!(Arc::ptr_eq(&one, &same));
        assert_ne!(one, other);
    }

    #[test]
    fn it_says_what_compiling_alone_says() {
        let filters = filters(&[
            "<filter name='a'><rule action='drop' direction='out'><ip srcipaddr='$IP'/></rule></filter>",
            "<filter name='b'><rule action='drop' direction='inout'><icmp type='8'/></rule></filter>",
        ]);
        let mut compiler = Compiler::new(&filters);
        for _ in 0..2 {
            for filter in filters.values() {
                for pairs in [&[][..], &[("IP", "10.0.0.1")], &[("IP", "x")]] {
                    let variables = variables(pairs);
                    let alone = flatten(filter, &filters, &variables)
                        .map_err(|error| RulesError::Tree(Box::new(error)))
                        .and_then(|parts| Ok(compile(&parts)?));
                    let cached = compiler.rules(filter, &variables);
                    assert_eq!(cached.map(|(r, w)| ((*r).clone(), w)), alone);
                }
            }
        }
    }
}
