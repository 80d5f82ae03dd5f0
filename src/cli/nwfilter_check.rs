//! `netlaunch nwfilter check`: what is wrong with a filter, and what of it is not what it seems.

use std::path::{Path, PathBuf};

use super::document;
use super::nwfilter_error::NwfilterError;
use super::{Failure, print_text};
use crate::definitions::Origin as Definer;
use crate::firewall::Backend;
use crate::firewall::port_limits::{limits, link_local};
use crate::nwfilter::{
    Draft, Evasion, Filter, FilterName, FilterStore, Filters, Needs, TreeError, Variables, compile,
    evasions, flatten, needs, reachable, sample, unreachable,
};
use crate::rules::port::{Origin, PortRules};
use crate::types::Mac;

/// Checks a document as if it were defined, or a filter that is, and says what it comes to. `backend`
/// is the configured one.
pub(super) fn check(
    store: &FilterStore,
    what: &str,
    backend: Option<Backend>,
) -> Result<(), Failure> {
    let mut file = None;
    let (filter, filters) = match subject(what)? {
        Subject::File(path) => {
            let xml = document::read(&path).map_err(NwfilterError::from)?;
            let draft = Draft::read(&xml, &path, &mut rand::rng()).map_err(NwfilterError::from)?;
            let filter = draft.filter().clone();
            file = Some(path);
            let change = store.plan_define(draft, None).map_err(NwfilterError::from)?;
            (filter, change.filters)
        }
        Subject::Name(name) => {
            let filters = store.tree(&name).map_err(NwfilterError::from)?;
            let filter = store.get(&name).map_err(NwfilterError::from)?.filter;
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
        let place = place(store, filter.name.as_str(), file.as_deref());
        texts.iter().for_each(|text| tracing::warn!("{place}: {text}"));
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

/// Says what of a filter can do nothing, and what a backend does not do. Variables have one value
/// each for that. `file` is the document of `filter`, where it is not a definition yet. Returns the
/// rules and those values, if the rules can be made.
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
        tracing::warn!("a variable has too high an index for its rules to be looked at");
        return Ok(None);
    };
    let parts = match flatten(filter, filters, &variables) {
        Ok(parts) => parts,
        // Its own values would do, perhaps.
        Err(error @ TreeError::Rule { .. }) => {
            tracing::warn!(
                "the rules were not looked at, since no value of a variable is known to fit: {error}"
            );
            return Ok(None);
        }
        Err(error) => return Err(NwfilterError::from(error).into()),
    };
    let (rules, warnings) = compile(&parts).map_err(NwfilterError::from)?;
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
        tracing::warn!("{}:{}: {text}", place(store, &origin.filter, own), origin.line);
    }
    Ok(Some((rules, variables)))
}

/// The ways around a filter, a sentence each.
fn evasions_of(rules: &PortRules, variables: &Variables, backend: Option<Backend>) -> Vec<String> {
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

/// Where a filter is written: its file, or that it is netlaunch's own.
fn place(store: &FilterStore, filter: &str, file: Option<&Path>) -> String {
    let origin = || store.get(&filter.parse().ok()?).ok().map(|definition| definition.origin);
    match (file, origin()) {
        (Some(file), _) => file.display().to_string(),
        (None, Some(Definer::File(path))) => path.display().to_string(),
        (None, _) => format!("stock filter {filter}"),
    }
}

/// What is to be checked.
enum Subject {
    File(PathBuf),
    Name(FilterName),
}

/// A word with a `/` or with `.xml` at its end is a file, and so is `-`; another is a name.
fn subject(what: &str) -> Result<Subject, NwfilterError> {
    if what == "-" || what.contains('/') || what.ends_with(".xml") {
        return Ok(Subject::File(what.into()));
    }
    what.parse().map(Subject::Name).map_err(|_| NwfilterError::Neither(what.to_owned()))
}
