//! Compiles the rules of many ports, and compiles equal rules only once, since many ports share a
//! filter.
//!
//! Two ports have the same rules if they have the same filter and the same values of the variables
//! that a rule can see: those that the filter's own rules use, or the rules of a filter that it
//! reaches by references. Other parts of a binding, such as the MAC address, then make no
//! difference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::compile::{CompileError, Warning, compile};
use super::model::{Element, Filter};
use super::tree::{DHCP_CLIENT, Filters, ND_MESSAGE, TreeError, flatten, reachable};
use super::value::{FilterName, VariableName};
use super::variable::Variables;
use crate::firewall::rules::port::PortRules;
use crate::types::Parameter;

/// The reason why a filter cannot be compiled for a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// The references or variables have an error.
    #[error(transparent)]
    Tree(Box<TreeError>),
    /// A rule has an error.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// The compiled rules of a filter for a port, and the warnings about them.
pub type Compiled = (Arc<PortRules>, Vec<Warning>);

/// Compiles the rules of these filters, and keeps the results.
#[derive(Debug)]
pub struct Compiler<'a> {
    filters: &'a Filters,
    /// The variables that a filter's rules can see.
    seen: BTreeMap<FilterName, BTreeSet<VariableName>>,
    done: BTreeMap<(FilterName, Variables), Compiled>,
}

impl<'a> Compiler<'a> {
    /// Returns a compiler without results.
    pub fn new(filters: &'a Filters) -> Self {
        Compiler { filters, seen: BTreeMap::new(), done: BTreeMap::new() }
    }

    /// Returns the filter of that name.
    pub fn filter(&self, name: &FilterName) -> Option<&'a Filter> {
        self.filters.get(name)
    }

    /// Returns the variables that the rules of a filter can see.
    fn seen(&mut self, filter: &Filter) -> &BTreeSet<VariableName> {
        let filters = self.filters;
        self.seen.entry(filter.name.clone()).or_insert_with(|| visible(filter, filters))
    }

    /// Returns a note on the parameters that the rules of a filter do not use and that are not in
    /// `controls`; `None` if there are none.
    pub fn unused(
        &mut self,
        filter: &Filter,
        parameters: &[Parameter],
        controls: &[&str],
    ) -> Option<String> {
        let seen = self.seen(filter);
        let unused: BTreeSet<&str> = parameters
            .iter()
            .filter(|(name, _)| !seen.contains(name) && !controls.contains(&name.as_str()))
            .map(|(name, _)| name.as_str())
            .collect();
        if unused.is_empty() {
            return None;
        }
        let own = [DHCP_CLIENT, ND_MESSAGE];
        let used: Vec<&str> =
            seen.iter().map(VariableName::as_str).filter(|name| !own.contains(name)).collect();
        let has = match used.as_slice() {
            [] => "it has no variables".to_owned(),
            names => format!("its variables are {}", names.join(", ")),
        };
        let unused = unused.into_iter().collect::<Vec<_>>().join(", ");
        let name = &filter.name;
        Some(format!("the binding sets {unused}, which no rule of the filter {name} uses; {has}"))
    }

    /// Returns the rules of a filter, which must be one of those of [`Compiler::new`], with these
    /// variables.
    ///
    /// # Errors
    /// Returns [`RulesError`] if the filter cannot be compiled.
    pub fn rules(
        &mut self,
        filter: &Filter,
        variables: &Variables,
    ) -> Result<Compiled, RulesError> {
        let filters = self.filters;
        let key = (filter.name.clone(), variables.only(self.seen(filter)));
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

/// Returns the variables that the rules of a filter and of all filters that it reaches use.
fn visible(filter: &Filter, filters: &Filters) -> BTreeSet<VariableName> {
    let names = reachable(&filter.name, filters);
    names
        .iter()
        .filter_map(|name| filters.get(name))
        .flat_map(Filter::rules)
        .filter_map(|rule| rule.element.as_ref())
        .flat_map(Element::variables)
        .map(|variable| variable.name.clone())
        .chain([DHCP_CLIENT, ND_MESSAGE].iter().filter_map(|name| name.parse().ok()))
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
    fn bindings_that_differ_in_unused_variables_share_rules() {
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
    fn parameters_that_no_rule_uses_are_named() {
        let filters = filters(&[
            "<filter name='a'><filterref filter='b'/></filter>",
            "<filter name='b'><rule action='drop' direction='out'><ip srcipaddr='$IP'/></rule></filter>",
            "<filter name='c'><rule action='drop' direction='out'><arp/></rule></filter>",
        ]);
        let mut compiler = Compiler::new(&filters);
        let mut unused = |filter: &str, names: &[&str]| {
            let parameter = |name: &&str| (name.parse().unwrap(), "10.0.0.1".parse().unwrap());
            let parameters: Vec<_> = names.iter().map(parameter).collect();
            compiler.unused(&filters[&filter.parse().unwrap()], &parameters, &["CONTROL"])
        };
        assert_eq!(unused("a", &[]), None);
        assert_eq!(unused("a", &["IP", "IP", "CONTROL"]), None);
        assert_eq!(
            unused("a", &["IP", "ip", "Port", "ip"]).unwrap(),
            "the binding sets Port, ip, which no rule of the filter a uses; its variables are IP"
        );
        assert_eq!(
            unused("c", &["IP"]).unwrap(),
            "the binding sets IP, which no rule of the filter c uses; it has no variables"
        );
    }

    #[test]
    fn the_cache_returns_the_rules_and_errors_of_the_compiler() {
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
