//! Selects the faults to inject: a sample of all faults that a run without a fault shows to be
//! possible.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::hash::{DefaultHasher, Hash, Hasher};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::errors::{CALLS, Fault};
use super::tracer::Counts;

/// One fault in one call at one occurrence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub role: String,
    pub call: &'static str,
    pub fault: Fault,
    pub n: usize,
}

impl Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.role, self.call, self.fault.name(), self.n)
    }
}

impl Case {
    /// Returns a number that selects the next command. It is the same if the case runs alone.
    pub fn number(&self) -> usize {
        let mut hasher = DefaultHasher::new();
        self.to_string().hash(&mut hasher);
        (hasher.finish() % 1000) as usize
    }

    /// Returns the case of this name.
    pub fn parse(name: &str) -> Option<Self> {
        let [role, call, fault, n] = name.split(':').collect::<Vec<_>>().try_into().ok()?;
        let call = CALLS.iter().find(|known| known.name == call)?;
        let fault = call.faults(role).into_iter().find(|known| known.name() == fault)?;
        Some(Case { role: role.to_owned(), call: call.name, fault, n: n.parse().ok()? })
    }
}

/// Returns at most `limit` cases. Each fault of each call first gets its first occurrence, then its
/// last one, and then the others in random order.
pub fn sample(counts: &Counts, seed: u64, limit: usize) -> Vec<Case> {
    let mut rounds: BTreeMap<usize, Vec<Case>> = BTreeMap::new();
    for ((role, name), count) in counts {
        let call = CALLS.iter().find(|call| call.name == *name).unwrap();
        for fault in call.faults(role) {
            // Each group has its own order, so a change of its count does not change other groups.
            let mut random = random((seed, role, name, fault.name()));
            let mut others: Vec<usize> = (2..*count).collect();
            others.shuffle(&mut random);
            let ends = [Some(1), (*count > 1).then_some(*count)];
            for (round, n) in ends.into_iter().flatten().chain(others).enumerate() {
                let case = Case { role: role.clone(), call: name, fault, n };
                rounds.entry(round).or_default().push(case);
            }
        }
    }
    for (round, cases) in &mut rounds {
        cases.sort_by_key(|case| {
            let mut hasher = DefaultHasher::new();
            (seed, round, &case.role, case.call, case.fault.name()).hash(&mut hasher);
            hasher.finish()
        });
    }
    rounds.into_values().flatten().take(limit).collect()
}

fn random(of: impl Hash) -> StdRng {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    StdRng::seed_from_u64(hasher.finish())
}
