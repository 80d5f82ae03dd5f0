//! `netlaunch nwfilter check`: finds mistakes in a filter, and rules that do not do what they seem
//! to.
//!
//! The steps are: read the filter, find the filters and variables that it needs, compile its rules
//! with sample values, warn of each finding, print a summary. Nothing is defined, and no rule is
//! set.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::editor;
use super::nwfilter_error::NwfilterError;
use super::{Failure, print_text};
use crate::firewall::FirewallBackend;
use crate::firewall::port_limits::{limits, link_local};
use crate::firewall::rules::port::{Origin, PortRules};
use crate::nwfilter::{
    Evasion, Filter, FilterName, FilterStore, Filters, Needs, TreeError, UncheckedFilter,
    Variables, compile, evasions, flatten, needs, reachable, sample, unreachable,
};
use crate::types::{Mac, error_text};
use crate::xml::store::Origin as Definer;

/// Checks a document as if it were defined, or a defined filter, and prints a summary. `backend` is
/// the backend of nwfilter.conf.
pub(super) fn check(
    store: &FilterStore,
    what: &Path,
    backend: Option<FirewallBackend>,
) -> Result<(), Failure> {
    let mut file = None;
    let (filter, filters) = match subject(what)? {
        Subject::File(path) => {
            let xml = editor::read(&path)?;
            let draft = UncheckedFilter::read(&xml, &path, &mut rand::rng())?;
            let filter = draft.filter().clone();
            file = Some(path);
            let change = store.plan_define(draft, None)?;
            (filter, change.filters)
        }
        Subject::Name(name) => {
            let filters = store.tree(&name)?;
            let filter = store.get(&name)?.filter;
            (filter, filters)
        }
    };
    let needs = needs(&filter, &filters);
    for missing in &needs.filters {
        tracing::warn!(
            "the filter {missing} is referred to and missing; {} cannot be bound until it is defined",
            filter.name
        );
    }
    let made = warn(store, &filter, &filters, &needs, file.as_deref())?;
    if let Some((rules, variables)) = made {
        let texts = evasions_of(&rules, &variables, backend);
        let cited = cited(store, filter.name.as_str(), file.as_deref());
        texts.iter().for_each(|text| tracing::warn!("{cited}: {text}"));
    }
    let rules: usize = reachable(&filter.name, &filters)
        .iter()
        .filter_map(|name| filters.get(name))
        .map(|filter| filter.rules().count())
        .sum();
    let variables: Vec<String> = needs.variables.iter().map(|used| format!("${used}")).collect();
    let variables = if variables.is_empty() { "none".to_owned() } else { variables.join(", ") };
    print_text(&format!("filter: {}\nrules: {rules}\nvariables: {variables}\n", filter.name))
}

/// Warns of rules that have no effect, and of rules that a backend does not support. Compiles the
/// rules with one sample value for each variable. `file` is the document of `filter`, if it is not
/// defined. Returns the rules and the sample values, if the rules can be compiled.
fn warn(
    store: &FilterStore,
    filter: &Filter,
    filters: &Filters,
    needs: &Needs,
    file: Option<&Path>,
) -> Result<Option<(PortRules, Variables)>, Failure> {
    if !needs.filters.is_empty() {
        return Ok(None);
    }
    let Some(variables) = sample(needs, filters) else {
        tracing::warn!("an index of a variable is too high, so the rules were not checked");
        return Ok(None);
    };
    let parts = match flatten(filter, filters, &variables) {
        Ok(parts) => parts,
        // The real values may be valid.
        Err(error @ TreeError::Rule { .. }) => {
            tracing::warn!(
                "the rules were not checked, because no sample value of a variable is valid: {}",
                error_text(&error)
            );
            return Ok(None);
        }
        Err(error) => return Err(NwfilterError::from(error).into()),
    };
    let (rules, warnings) = compile(&parts)?;
    let mut all: Vec<(Origin, String)> = Vec::new();
    for warning in warnings {
        all.push((warning.origin().clone(), warning.to_string()));
    }
    all.extend(
        unreachable(&rules).into_iter().map(|found| (found.origin.clone(), found.to_string())),
    );
    if let Ok(port) = "port".parse() {
        all.extend(limits(&port, &rules).into_iter().map(|limit| (limit.origin, limit.text)));
    }
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (origin, text) in all {
        let own = file.filter(|_| origin.filter == filter.name.as_str());
        tracing::warn!("{}:{}: {text}", cited(store, &origin.filter, own), origin.line);
    }
    Ok(Some((rules, variables)))
}

/// Returns the ways around a filter, a sentence each.
fn evasions_of(
    rules: &PortRules,
    variables: &Variables,
    backend: Option<FirewallBackend>,
) -> Vec<String> {
    let value = |name: &str| variables.get(&name.parse().ok()?)?.first();
    let mac = value("MAC").and_then(|mac| mac.as_str().parse().ok());
    let address = value("IP").and_then(|address| address.as_str().parse().ok());
    let mac = mac.unwrap_or_else(|| Mac::random(&mut rand::rng()));
    let mut texts: Vec<String> =
        evasions(rules, mac, address).iter().map(Evasion::to_string).collect();
    if let (Some(backend), Ok(port)) = (backend, "port".parse()) {
        texts.extend(link_local(&port, rules, backend));
    }
    texts
}

/// Returns the name of the text whose lines the messages cite: the file of a filter that is not
/// defined, else the output of `netlaunch nwfilter dumpxml`.
fn cited(store: &FilterStore, filter: &str, file: Option<&Path>) -> String {
    let origin = || store.get(&filter.parse().ok()?).ok().map(|definition| definition.origin);
    match (file, origin()) {
        (Some(file), _) => file.display().to_string(),
        (None, Some(Definer::File(_))) => format!("filter {filter}"),
        (None, _) => format!("stock filter {filter}"),
    }
}

/// The filter to check.
enum Subject {
    File(PathBuf),
    Name(FilterName),
}

/// Reads the argument: a word with a `/` or with `.xml` at its end is a file, and so is `-`; any
/// other word is a name.
fn subject(what: &Path) -> Result<Subject, NwfilterError> {
    let bytes = what.as_os_str().as_bytes();
    if bytes == b"-" || bytes.contains(&b'/') || bytes.ends_with(b".xml") {
        return Ok(Subject::File(what.to_owned()));
    }
    let name = what.to_string_lossy();
    name.parse().map(Subject::Name).map_err(|_| NwfilterError::Neither(name.into_owned()))
}
