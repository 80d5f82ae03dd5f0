//! Makes a difference smaller: fewer rules, fewer attributes, fewer packets, a simpler frame.
//!
//! A step tries as many smaller filters at the same time as there are ports, and takes the first
//! one on which the backend and `explain` still differ.

use netlaunch::nwfilter::{Entry, Rule};

use super::bench::{Bench, PORTS};
use super::case::{Case, refusal};
use super::damage::{lengths, with_checksum};
use super::differs;
use super::exchange::Exchange;

/// Returns a smaller filter and a smaller exchange with the same difference.
pub fn shrink(bench: &mut Bench, case: Case, exchange: Exchange) -> (Case, Exchange) {
    let (mut case, mut exchange) = (case, exchange);
    while let Some(smaller) = smaller_case(bench, &case, &exchange) {
        case = smaller;
    }
    let rules = case.rules().unwrap();
    if bench.apply(&[Some(&rules)]).is_ok() {
        while let Some(smaller) = simpler_exchanges(&exchange, rules.is_stateful())
            .into_iter()
            .find(|exchange| differs(bench, 0, &rules, &exchange.sequence(&rules)).is_some())
        {
            exchange = smaller;
        }
    }
    (case, exchange)
}

fn smaller_case(bench: &mut Bench, case: &Case, exchange: &Exchange) -> Option<Case> {
    let mut all = Vec::new();
    for case in simpler_cases(case) {
        let Ok(rules) = case.rules() else { continue };
        if refusal(&rules, bench.backend).is_none() {
            let sequence = exchange.sequence(&rules);
            all.push((case, rules, sequence));
        }
    }
    for part in all.chunks(PORTS) {
        let rules: Vec<_> = part.iter().map(|(_, rules, _)| Some(rules)).collect();
        if bench.apply(&rules).is_err() {
            continue;
        }
        let mut numbered = part.iter().enumerate();
        let found = numbered
            .find(|(port, (_, rules, sequence))| differs(bench, *port, rules, sequence).is_some());
        if let Some((_, (case, ..))) = found {
            return Some(case.clone());
        }
    }
    None
}

fn simpler_exchanges(exchange: &Exchange, is_stateful: bool) -> Vec<Exchange> {
    let mut all = exchange.shorter();
    // For the kernel, a packet with other bytes may be invalid.
    if let ([(way, frame)], false) = (&exchange.packets[..], is_stateful) {
        all.extend(simpler_frames(frame).into_iter().map(|frame| Exchange::single((*way, frame))));
    }
    all
}

/// Returns all filters that are one step simpler, the simplest first.
fn simpler_cases(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    // The bound filter alone, or one of the others alone.
    for number in 1..case.0.len() {
        let mut fewer = case.clone();
        let gone = fewer.0.remove(number).name;
        for filter in &mut fewer.0 {
            filter
                .entries
                .retain(|entry| !matches!(entry, Entry::Reference(of) if of.filter == gone));
        }
        all.push(fewer);
    }
    if case.0.len() > 1 {
        let mut inner = case.clone();
        inner.0.remove(0);
        all.push(inner);
    }
    for (number, filter) in case.0.iter().enumerate() {
        let halves = [0..filter.entries.len() / 2, filter.entries.len() / 2..filter.entries.len()];
        let single = (0..filter.entries.len()).map(|at| at..at + 1);
        for range in halves.into_iter().filter(|range| range.len() > 1).chain(single) {
            let mut fewer = case.clone();
            fewer.0[number].entries.drain(range);
            all.push(fewer);
        }
        for (at, entry) in filter.entries.iter().enumerate() {
            let simpler = match entry {
                Entry::Rule(rule) => simpler_rules(rule).into_iter().map(Entry::Rule).collect(),
                Entry::Reference(reference) => (0..reference.parameters.len())
                    .map(|gone| {
                        let mut fewer = reference.clone();
                        fewer.parameters.remove(gone);
                        Entry::Reference(fewer)
                    })
                    .collect::<Vec<_>>(),
            };
            for entry in simpler {
                let mut other = case.clone();
                other.0[number].entries[at] = entry;
                all.push(other);
            }
        }
    }
    all
}

fn simpler_rules(rule: &Rule) -> Vec<Rule> {
    let mut all = Vec::new();
    if let Some(element) = &rule.element {
        all.push(Rule { element: None, ..rule.clone() });
        for at in 0..element.attributes.len() {
            let mut fewer = element.clone();
            fewer.attributes.remove(at);
            all.push(Rule { element: Some(fewer), ..rule.clone() });
        }
        if element.negated {
            let mut plain = element.clone();
            plain.negated = false;
            all.push(Rule { element: Some(plain), ..rule.clone() });
        }
    }
    const PRIORITY: i32 = 500;
    if rule.priority != PRIORITY {
        all.push(Rule { priority: PRIORITY, ..rule.clone() });
    }
    if !rule.statematch {
        all.push(Rule { statematch: true, ..rule.clone() });
    }
    all
}

/// Returns frames that are one step simpler.
fn simpler_frames(frame: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for length in [frame.len() / 2, frame.len() - frame.len() / 4, frame.len() - 1] {
        if (14..frame.len()).contains(&length) {
            let shorter = frame[..length].to_vec();
            let mut repaired = shorter.clone();
            lengths(&mut repaired);
            with_checksum(&mut repaired);
            all.extend([repaired, shorter]);
        }
    }
    for at in (0..frame.len()).filter(|at| frame[*at] != 0) {
        // The checksum follows the other fields.
        if frame[12..14] == [8, 0] && (24..26).contains(&at) {
            continue;
        }
        let mut zero = frame.to_vec();
        zero[at] = 0;
        with_checksum(&mut zero);
        all.push(zero);
    }
    all
}
