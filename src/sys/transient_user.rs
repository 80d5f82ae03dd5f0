//! Picks a user and group id for one process tree.
//!
//! A process may signal and trace every process with its uid, and replace its files. So a program
//! that runs as `nobody` has no protection from the other programs that run as `nobody`. If a
//! program has its own id, only root can interfere with it.
//!
//! [`TransientUsers`] draws random ids from a range of unassigned ids, and takes the first free
//! one: the user namespace maps the id, neither database lists it, and no process has it. The user
//! and the group get the same number.
//!
//! Known race: the id is not reserved, so another process could take it before the program starts.
//! In [`UNUSED`] the probability is one in 2^28. Processes in other PID namespaces are not seen,
//! except in descendants of the caller's namespace.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::ops::RangeInclusive;

use nix::unistd::{Gid, Group, Uid, User};
use rand::RngExt;

use super::proc_file;
use crate::types::TransientUser;

/// Unassigned ids: systemd's UIDS-GIDS document leaves them unused. They are above the ids of
/// containers and below 2^31, from which some programs take an id for a negative number.
const UNUSED: RangeInclusive<u32> = 1_879_048_192..=2_147_352_575;
/// The ids of systemd's dynamic users, for a user namespace that maps 65536 ids (a container).
const DYNAMIC: RangeInclusive<u32> = 61_184..=65_519;
/// The number of ids that are drawn before the search fails.
const DRAWS: usize = 256;

/// The reason why there is no id for a process tree of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransientUserError {
    /// A file in /proc cannot be read.
    #[error("cannot read {path} to find a free user id")]
    Proc {
        /// The file or directory.
        path: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The user namespace maps no id of the two ranges.
    #[error("this user namespace maps no id from {UNUSED:?} or {DYNAMIC:?} for users and groups")]
    Unmapped,
    /// Every drawn id is in use.
    #[error("all {DRAWS} user ids that were drawn are in use")]
    Used,
}

impl TransientUser {
    /// Picks an id that no database lists and no process has.
    ///
    /// # Errors
    /// [`TransientUserError`] if no such id is found, or /proc cannot be read.
    pub(crate) fn pick() -> Result<Self, TransientUserError> {
        TransientUsers::find()?.pick()
    }
}

/// Picks ids for several process trees that start together, with one search through all processes.
#[derive(Debug)]
pub(crate) struct TransientUsers {
    mapped: Vec<RangeInclusive<u32>>,
    taken: HashSet<u32>,
}

impl TransientUsers {
    /// Finds the ids that processes have.
    ///
    /// # Errors
    /// [`TransientUserError`] if the user namespace maps no id, or /proc cannot be read.
    pub(crate) fn find() -> Result<Self, TransientUserError> {
        let users = read_map("/proc/self/uid_map")?;
        let groups = read_map("/proc/self/gid_map")?;
        let mapped = candidates(&users, &groups).ok_or(TransientUserError::Unmapped)?;
        Ok(TransientUsers { mapped, taken: ids_of_processes()? })
    }

    /// Picks an id that no database lists, that no process had at the time of the search, and that
    /// was not picked before.
    ///
    /// # Errors
    /// [`TransientUserError::Used`] if no such id is found.
    pub(crate) fn pick(&mut self) -> Result<TransientUser, TransientUserError> {
        let mut rng = rand::rng();
        let total: u64 = self.mapped.iter().map(length).sum();
        let id = (0..DRAWS)
            .filter_map(|_| nth(&self.mapped, rng.random_range(0..total)))
            .find(|id| !self.taken.contains(id) && !is_known(*id))
            .ok_or(TransientUserError::Used)?;
        self.taken.insert(id);
        Ok(TransientUser { uid: id, gid: id })
    }
}

/// Returns the ids of the first range that both maps contain, at least in part.
fn candidates(
    users: &[RangeInclusive<u32>],
    groups: &[RangeInclusive<u32>],
) -> Option<Vec<RangeInclusive<u32>>> {
    [UNUSED, DYNAMIC].into_iter().find_map(|range| {
        let common = intersect(&intersect(std::slice::from_ref(&range), users), groups);
        (!common.is_empty()).then_some(common)
    })
}

/// Returns the common parts of two lists of ranges.
fn intersect(a: &[RangeInclusive<u32>], b: &[RangeInclusive<u32>]) -> Vec<RangeInclusive<u32>> {
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a, b)));
    pairs
        .map(|(a, b)| *a.start().max(b.start())..=*a.end().min(b.end()))
        .filter(|common| !common.is_empty())
        .collect()
}

fn length(range: &RangeInclusive<u32>) -> u64 {
    u64::from(*range.end()) - u64::from(*range.start()) + 1
}

/// Returns the id at position `index` in the ranges.
fn nth(ranges: &[RangeInclusive<u32>], mut index: u64) -> Option<u32> {
    for range in ranges {
        if index < length(range) {
            return u32::try_from(u64::from(*range.start()) + index).ok();
        }
        index -= length(range);
    }
    None
}

fn read_map(path: &'static str) -> Result<Vec<RangeInclusive<u32>>, TransientUserError> {
    let text = fs::read_to_string(path).map_err(|source| TransientUserError::Proc { path, source });
    Ok(parse_map(&text?))
}

/// Returns the ids inside the namespace that a map lists. Each line of a map has the first id
/// inside, the first id outside, and the number of ids (user_namespaces(7)).
fn parse_map(text: &str) -> Vec<RangeInclusive<u32>> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
        let (first, _, count) = (numbers.next()?.ok()?, numbers.next()?, numbers.next()?.ok()?);
        let last = first.checked_add(count.checked_sub(1)?)?;
        Some(first..=last)
    };
    text.lines().filter_map(line).collect()
}

/// Returns whether the user or group database lists the id. If a database fails, for example a
/// directory service that does not answer, the id counts as not listed.
fn is_known(id: u32) -> bool {
    matches!(User::from_uid(Uid::from_raw(id)), Ok(Some(_)))
        || matches!(Group::from_gid(Gid::from_raw(id)), Ok(Some(_)))
}

/// Returns the user, group and supplementary group ids of all processes that /proc shows.
fn ids_of_processes() -> Result<HashSet<u32>, TransientUserError> {
    let path = "/proc";
    let failed = |source| TransientUserError::Proc { path, source };
    let mut ids = HashSet::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            // A process that has just ended has no such file any more.
            let status = proc_file::read(entry.path().join("status")).unwrap_or_default();
            ids.extend(ids_of_status(&String::from_utf8_lossy(&status)));
        }
    }
    Ok(ids)
}

/// Returns the ids in a process's status (proc_pid_status(5)).
fn ids_of_status(status: &str) -> impl Iterator<Item = u32> {
    let lines = status.lines().filter_map(|line| {
        ["Uid:", "Gid:", "Groups:"].into_iter().find_map(|field| line.strip_prefix(field))
    });
    lines.flat_map(|ids| ids.split_ascii_whitespace().filter_map(|id| id.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picked_id_is_unused_here() {
        let Ok(user) = TransientUser::pick() else {
            let users = candidates(
                &read_map("/proc/self/uid_map").unwrap(),
                &read_map("/proc/self/gid_map").unwrap(),
            );
            assert_eq!(users, None, "there are ids to pick");
            return;
        };
        assert_eq!(user.uid, user.gid);
        assert!(UNUSED.contains(&user.uid) || DYNAMIC.contains(&user.uid), "{user}");
        assert!(!is_known(user.uid) && !ids_of_processes().unwrap().contains(&user.uid));
        if UNUSED.contains(&user.uid) {
            assert_ne!(TransientUser::pick().unwrap(), user, "ids are drawn at random");
        }
    }

    #[test]
    fn an_id_is_picked_once_even_if_no_process_has_it_yet() {
        let first = *UNUSED.start();
        let mut users = TransientUsers { mapped: vec![first..=first + 1], taken: HashSet::new() };
        assert_ne!(users.pick().unwrap(), users.pick().unwrap());
        assert!(matches!(users.pick(), Err(TransientUserError::Used)));
    }

    #[test]
    fn ids_come_from_the_best_range_that_both_maps_have() {
        let all = "         0          0 4294967295\n";
        let container = "0 100000 65536\n";
        let single = "0 1000 1\n";
        for (users, groups, expected) in [
            (all, all, Some(vec![UNUSED])),
            (all, container, Some(vec![DYNAMIC])),
            (container, container, Some(vec![DYNAMIC])),
            ("0 1000 1\n1 100000 65000\n", all, Some(vec![61_184..=65_000])),
            ("0 0 62000\n62010 62010 10\n", all, Some(vec![61_184..=61_999, 62_010..=62_019])),
            (single, single, None),
            (all, single, None),
            ("", all, None),
            ("4294967295 0 2\n0 0 0\nx\n", all, None),
        ] {
            assert_eq!(candidates(&parse_map(users), &parse_map(groups)), expected, "{users:?}");
        }
    }

    #[test]
    fn every_id_of_the_ranges_can_be_drawn() {
        let ranges = [5..=6, 9..=9];
        let ids: Vec<_> = (0..4).map(|index| nth(&ranges, index)).collect();
        assert_eq!(ids, [Some(5), Some(6), Some(9), None]);
    }

    #[test]
    fn ids_of_a_process_are_all_its_users_and_groups() {
        let status = "Name:\tUid: 7\nUid:\t1\t2\t3\t4\nGid:\t5\t5\t5\t5\nGroups:\t8 9 \nPid:\t6\n";
        let ids: Vec<u32> = ids_of_status(status).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5, 5, 5, 5, 8, 9]);
    }
}
