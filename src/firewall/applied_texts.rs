//! The texts that nft applied in the last reload, and whether they are still all that changed the
//! kernel's rules.
//!
//! The kernel counts the changes of the nftables rules of a network namespace: its generation. If
//! the generation is the one that the last reload left, no program has changed a rule since, and
//! the same text would change nothing: it declares and fills all its objects again. nft then need
//! not run, which takes a second with 1,000 ports.
//!
//! A change counts as netlaunch's own only if the generation grew by exactly one. Otherwise another
//! program changed rules at the same time, and the next reload applies its texts.
//!
//! The generation does not show chains that the kernel itself removes with an interface, or keeps
//! without one. A caller that misses rules says so ([`AppliedTexts::distrust`]).

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::nft_dump::{Attributes, exchange};
use super::nft_kernel::request;
use crate::sys::namespace::{boot_id, network_namespace_cookie};
use crate::sys::state_file::{self, StateFileError};
use crate::types::error_text;

/// The version of the file. Change it when an older netlaunch would misread the file.
const VERSION: u32 = 1;
/// An attribute of linux/netfilter/nf_tables.h.
const NFTA_GEN_ID: u16 = 1;

/// The number of changes of the nftables rules of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Generation {
    number: u32,
    /// The namespace's cookie, which no other namespace has until the next boot.
    namespace: u64,
    boot: String,
}

impl Generation {
    /// Asks the kernel. Returns `None` before Linux 5.14, whose namespaces have no cookies.
    fn now() -> io::Result<Option<Self>> {
        let (Some(namespace), Some(boot)) = (network_namespace_cookie(), boot_id().ok()) else {
            return Ok(None);
        };
        let family = libc::NFPROTO_UNSPEC as u8;
        let answer = exchange(&request(libc::NFT_MSG_GETGEN, family, &[], libc::NLM_F_ACK as u16))?;
        let number = answer.iter().find_map(|message| Attributes(message).number(NFTA_GEN_ID));
        Ok(number.map(|number| Generation { number, namespace, boot }))
    }

    /// Returns the next generation. The kernel skips the number 0.
    fn next(&self) -> Self {
        Generation { number: self.number.checked_add(1).unwrap_or(1), ..self.clone() }
    }
}

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Applied {
    version: u32,
    /// The generation after the last text.
    generation: Generation,
    /// The hashes of the texts.
    texts: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// The texts that are in force; `None` if that is not known.
    applied: Option<Applied>,
    /// The texts of this reload, as far as they are in force.
    confirmed: BTreeSet<u64>,
}

/// The texts of one reload and of the reload before it.
#[derive(Debug)]
pub struct AppliedTexts {
    path: PathBuf,
    state: Mutex<State>,
}

impl AppliedTexts {
    /// Reads the texts of the last reload from this file. A file that cannot be used counts as
    /// missing: the reload then applies its texts.
    pub fn read(path: &Path) -> Self {
        let applied = state_file::read_version(path, VERSION).unwrap_or_else(|error| {
            tracing::debug!("every text is applied: {}", error_text(&error));
            None
        });
        let state = Mutex::new(State { applied, confirmed: BTreeSet::new() });
        AppliedTexts { path: path.to_owned(), state }
    }

    /// Forgets the texts of the last reload that this one has not confirmed, because rules are
    /// missing.
    pub fn distrust(&self) {
        let state = &mut *self.state();
        if let Some(applied) = &mut state.applied {
            applied.texts.clone_from(&state.confirmed);
        }
    }

    /// Writes the texts of this reload, all of which are in force now. After a reload with an
    /// error, drop this value without a call. The caller holds the lock of the directory.
    ///
    /// # Errors
    /// [`StateFileError`]; the next reload then applies its texts.
    pub fn save(&self) -> Result<(), StateFileError> {
        let mut state = self.state();
        let texts = std::mem::take(&mut state.confirmed);
        match state.applied.take().filter(|_| !texts.is_empty()) {
            Some(applied) => state_file::write(&self.path, &Applied { texts, ..applied }),
            None => self.remove(),
        }
    }

    /// Removes the file: the reload kept no rules of ports.
    ///
    /// # Errors
    /// [`StateFileError`]; the file then has texts that are not the last changes of rules.
    pub fn remove(&self) -> Result<(), StateFileError> {
        state_file::remove(&self.path).map_err(StateFileError::io("remove", &self.path))
    }

    /// Returns whether the rules of this text are in force and nothing has changed a rule since.
    pub(super) fn has(&self, text: &str) -> bool {
        let mut state = self.state();
        let hash = hash(text);
        let is_in_force = state.applied.as_ref().is_some_and(|applied| {
            applied.texts.contains(&hash)
                && matches!(Generation::now(), Ok(Some(now)) if now == applied.generation)
        });
        if is_in_force {
            state.confirmed.insert(hash);
        }
        is_in_force
    }

    /// Returns the generation before a text is applied, for [`add`](Self::add).
    pub(super) fn before(&self) -> Option<Generation> {
        Generation::now().ok().flatten()
    }

    /// Adds a text that the kernel has committed since the generation `before`.
    pub(super) fn add(&self, text: &str, before: Option<Generation>) {
        let now = Generation::now().ok().flatten();
        self.state().add(hash(text), before, now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, text: u64, before: Option<Generation>, now: Option<Generation>) {
        let (Some(before), Some(now)) = (before, now) else { return *self = State::default() };
        if now != before.next() {
            return *self = State::default();
        }
        // Texts of the last reload that this one has not confirmed may belong to rules that are
        // gone.
        let is_next = self.applied.take().is_none_or(|applied| applied.generation == before);
        if !is_next {
            self.confirmed.clear();
        }
        self.confirmed.insert(text);
        let texts = self.confirmed.clone();
        self.applied = Some(Applied { version: VERSION, generation: now, texts });
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u32) -> Option<Generation> {
        Some(Generation { number, namespace: 7, boot: "b".to_owned() })
    }

    fn applied(state: &State) -> Option<(u32, Vec<u64>)> {
        let applied = state.applied.as_ref()?;
        Some((applied.generation.number, applied.texts.iter().copied().collect()))
    }

    fn known(number: u32, texts: &[u64]) -> State {
        let texts = texts.iter().copied().collect();
        let generation = at(number).unwrap();
        State {
            applied: Some(Applied { version: VERSION, generation, texts }),
            confirmed: BTreeSet::new(),
        }
    }

    #[test]
    fn texts_count_while_nothing_else_changes_rules() {
        let mut state = State::default();
        state.add(1, at(5), at(6));
        state.add(2, at(6), at(7));
        assert_eq!(applied(&state), Some((7, vec![1, 2])));
        // Another program changed rules between the two texts, or while one was applied.
        state.add(3, at(10), at(11));
        assert_eq!(applied(&state), Some((11, vec![3])));
        state.add(4, at(11), at(13));
        assert_eq!(applied(&state), None);
        for (before, now) in [(None, at(2)), (at(1), None)] {
            state.add(5, before, now);
            assert_eq!(applied(&state), None);
        }
    }

    #[test]
    fn a_new_text_ends_the_earlier_texts_that_are_not_confirmed() {
        let mut state = known(9, &[1, 2]);
        state.confirmed.insert(1);
        state.add(3, at(9), at(10));
        assert_eq!(applied(&state), Some((10, vec![1, 3])));
    }

    #[test]
    fn texts_that_are_not_confirmed_are_forgotten_if_rules_are_missing() {
        let state = Mutex::new(known(9, &[1, 2]));
        let texts = AppliedTexts { path: PathBuf::new(), state };
        texts.state().confirmed.insert(1);
        texts.distrust();
        assert_eq!(applied(&texts.state()), Some((9, vec![1])));
        texts.state().add(2, at(9), at(10));
        assert_eq!(applied(&texts.state()), Some((10, vec![1, 2])));
    }

    #[test]
    fn a_generation_of_another_namespace_or_boot_is_another_one() {
        let other = Generation { namespace: 8, ..at(6).unwrap() };
        for now in [other, Generation { boot: "c".to_owned(), ..at(6).unwrap() }] {
            let mut state = State::default();
            state.add(1, at(5), Some(now));
            assert_eq!(applied(&state), None);
        }
        assert_eq!(at(u32::MAX).unwrap().next(), at(1).unwrap());
    }

    #[test]
    fn only_texts_of_this_reload_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("applied");
        for confirmed in [&[1, 2][..], &[1], &[]] {
            let mut state = known(9, &[1, 2]);
            state.confirmed = confirmed.iter().copied().collect();
            let texts = AppliedTexts { path: path.clone(), state: Mutex::new(state) };
            texts.save().unwrap();
            let read = AppliedTexts::read(&path);
            let expected = (!confirmed.is_empty()).then(|| (9, confirmed.to_vec()));
            assert_eq!(applied(&read.state()), expected);
            assert_eq!(path.exists(), expected.is_some());
        }
    }
}
