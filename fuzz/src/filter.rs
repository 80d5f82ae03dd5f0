//! Checks a network filter's document: parser, writer and compiler.

use std::sync::Arc;

use netlaunch::firewall::port_limits::limits;
use netlaunch::firewall::port_nft::{Extras, PortTables};
use netlaunch::firewall::rules::port::{PortRules, Step};
use netlaunch::firewall::{FirewallBackend, PortFilter, PortHooks, PortPlan};
use netlaunch::nwfilter::{
    Filter, compile, find_loop, flatten, needs, parse, sample, to_xml, unreachable,
};

use super::{UUID, filters, in_one_line};

const EXTRAS: [Extras; 2] = [
    Extras { trace: false, counters: false, reject: false },
    Extras { trace: true, counters: true, reject: true },
];

/// Parses the document, writes it, parses the result, and compiles rules from it.
///
/// # Panics
/// Panics if the written document differs, or if a step ends other than with rules or with an error
/// of one line.
pub fn check_filter(document: &[u8]) {
    let filter = match parse(document, Some(UUID.parse().unwrap())) {
        Ok(filter) => filter,
        Err(error) => return in_one_line(&error),
    };
    let written = to_xml(&filter);
    let again = parse(written.as_bytes(), None).unwrap();
    assert_eq!(again, filter, "{written}");
    assert_eq!(to_xml(&again), written);
    mean(&filter);
}

/// Compiles the filter together with the built-in filters.
fn mean(filter: &Filter) {
    let mut filters = filters();
    filters.insert(filter.name.clone(), filter.clone());
    let circle = find_loop(filter, &filters);
    let needs = needs(filter, &filters);
    let Some(variables) = sample(&needs, &filters) else { return };
    let parts = match flatten(filter, &filters, &variables) {
        Ok(parts) => parts,
        Err(error) => return in_one_line(&error),
    };
    assert_eq!((circle, needs.filters.as_slice()), (None, [].as_slice()));
    let (rules, warnings) = match compile(&parts) {
        Ok(compiled) => compiled,
        Err(error) => return in_one_line(&error),
    };
    warnings.iter().for_each(|warning| in_one_line(warning));
    unreachable(&rules).iter().for_each(|found| in_one_line(found));
    limits(&"vnet0".parse().unwrap(), &rules).iter().for_each(|limit| in_one_line(&limit.text));
    let plain = without_comments(rules.clone());
    for backend in [FirewallBackend::Nftables, FirewallBackend::Iptables] {
        for extras in EXTRAS {
            // The text of a comment never adds a line: the comment is part of its rule.
            assert_eq!(lines(&rules, backend, extras), lines(&plain, backend, extras));
        }
    }
}

/// Returns the number of input lines for each tool, or `None` if the backend cannot express the
/// rules.
fn lines(rules: &PortRules, backend: FirewallBackend, extras: Extras) -> Option<Vec<usize>> {
    let port = "vnet0".parse().unwrap();
    let filter = PortFilter { index: 7, port, rules: Arc::new(rules.clone()), backend, hooks: PortHooks::Bridge, tables: PortTables::default() };
    match PortPlan::new(&[filter], extras) {
        Ok(plan) => {
            Some(plan.scripts().iter().map(|script| script.input.lines().count()).collect())
        }
        Err(error) => {
            in_one_line(&error);
            None
        }
    }
}

fn without_comments(mut rules: PortRules) -> PortRules {
    for path in [&mut rules.from_guest, &mut rules.to_guest] {
        let frames = path.frames.iter_mut().filter_map(|step| match step {
            Step::Rule(rule) => Some(rule),
            Step::Chain(_) => None,
        });
        let chains = path.chains.iter_mut().flat_map(|chain| &mut chain.rules);
        frames.chain(chains).chain(&mut path.packets).for_each(|rule| rule.comment = None);
    }
    rules
}
