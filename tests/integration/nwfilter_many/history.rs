//! What was done, and what can therefore be there in the end.
//!
//! Two changes of one thing that did not overlap happened in the order of their times; of two that
//! did, either may have been the last. So the last change is one after whose end none began.

use std::collections::BTreeMap;
use std::time::Instant;

/// What became of a port or a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    /// By the document with this number, of which there is one only.
    There(u32),
    Gone,
}

impl Is {
    /// What a document says: a definition has its number as a port of UDP, a binding as a parameter.
    pub fn there(xml: &str) -> Self {
        let number = |mark: &str| {
            let rest = &xml[xml.find(mark)? + mark.len()..];
            rest.split('\'').next()?.parse().ok()
        };
        let found = number("name='SERIAL' value='").or_else(|| number("dstportstart='"));
        Is::There(found.unwrap_or_else(|| panic!("no number in {xml}")))
    }
}

/// A change that was made.
#[derive(Debug, Clone)]
pub struct Event {
    /// The port or the filter.
    pub target: String,
    pub is: Is,
    /// When its process began and ended.
    pub start: Instant,
    pub end: Instant,
}

/// All changes, by what they are about.
#[derive(Debug, Default)]
pub struct History(BTreeMap<String, Vec<Event>>);

impl History {
    pub fn add(&mut self, event: Event) {
        self.0.entry(event.target.clone()).or_default().push(event);
    }

    /// Fails where what is there in the end cannot be what the last change made, and where a port
    /// was bound twice, or freed twice, in a row.
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
