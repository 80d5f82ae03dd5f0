//! Records the changes, and checks that the final state can be their result.
//!
//! If two changes of one thing did not overlap, they happened in the order of their times. If they
//! overlapped, either one may have been the last. So a change can be the last one if no other
//! change began after its end.

use std::collections::BTreeMap;
use std::time::Instant;

/// The state of a port or a filter after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    /// It exists, by the document with this unique number.
    There(u32),
    Gone,
}

impl Is {
    /// Reads the number in a document: a definition has it as a UDP port, a binding as a parameter.
    pub fn there(xml: &str) -> Self {
        let number = |mark: &str| {
            let rest = &xml[xml.find(mark)? + mark.len()..];
            rest.split('\'').next()?.parse().ok()
        };
        let found = number("name='SERIAL' value='").or_else(|| number("dstportstart='"));
        Is::There(found.unwrap_or_else(|| panic!("no number in {xml}")))
    }
}

/// A successful change.
#[derive(Debug, Clone)]
pub struct Event {
    /// The port or the filter.
    pub target: String,
    pub is: Is,
    /// The start and the end of the process that made the change.
    pub start: Instant,
    pub end: Instant,
}

/// All changes, by their target.
#[derive(Debug, Default)]
pub struct History(BTreeMap<String, Vec<Event>>);

impl History {
    pub fn add(&mut self, event: Event) {
        self.0.entry(event.target.clone()).or_default().push(event);
    }

    /// Checks the final state: it must be possible as the result of a last change, and a port must
    /// not have been bound twice or unbound twice in succession.
    pub fn check(&self, state: &BTreeMap<String, Is>) {
        for (target, is) in state {
            let none = Vec::new();
            let events = self.0.get(target).unwrap_or(&none);
            let is_last = |event: &&Event| events.iter().all(|other| other.start <= event.end);
            let last: Vec<Is> = events.iter().filter(is_last).map(|event| event.is).collect();
            let possible = last.contains(is) || (events.is_empty() && *is == Is::Gone);
            assert!(possible, "{target} is {is:?} in the end, and was made {last:?} last");
            if target.starts_with("port") {
                let gone = events.iter().filter(|event| event.is == Is::Gone).count();
                let there = events.len() - gone;
                let now = usize::from(*is != Is::Gone);
                assert_eq!(there, gone + now, "{target} was bound {there} times, freed {gone}");
            }
        }
    }
}
