//! Picks a user and group id for one process tree.
//!
//! A process may signal and trace every process with its uid, and replace its files. So a program
//! that runs as `nobody` has no protection from the other programs that run as `nobody`. If a
//! program has its own id, only root can interfere with it.
//!
//! [`TransientUsers`] draws random ids from a range of unassigned ids, and takes the first free
//! one: the user namespace maps the id, and no process has it as its real user id. In a container
//! with few ids, which has only the range of systemd's dynamic users, neither database may list it.
//! The user and the group get the same number.
//!
//! Known race: the id is not reserved, so another process could take it before the program starts.
//! In [`UNUSED`] the probability is one in 2^27. Processes in other PID namespaces are not seen,
//! except in descendants of the caller's namespace.
//!
//! The search is part of each start of a guest as root. To read the status of all processes and to
//! ask both databases, which loads their plugins, cost 1.6 ms on a host with 130 processes, half of
//! all that netlaunch did before passt started.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::ops::RangeInclusive;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};
use rand::RngExt;

use crate::types::TransientUser;

/// Unassigned ids: systemd's UIDS-GIDS document leaves them unused. They are above the ids of
/// containers and those that directory services give out (sssd: to 2,000,200,000, FreeIPA: to
/// 2,000,000,000), so no database is asked about them. They are below 2^31, from which some
/// programs take an id for a negative number.
pub(crate) const UNUSED: RangeInclusive<u32> = 2_000_200_001..=2_147_352_575;
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
    /// The kernel does not say whether a process has an id.
    #[error("cannot find out whether a process has the user id {id}")]
    Processes {
        /// The id.
        id: u32,
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
    /// Picks an id that no process has.
    ///
    /// # Errors
    /// [`TransientUserError`] if no such id is found, or the kernel does not answer.
    pub(crate) fn pick() -> Result<Self, TransientUserError> {
        TransientUsers::find()?.pick()
    }
}

/// Picks ids for several process trees that start together.
#[derive(Debug)]
pub(crate) struct TransientUsers {
    mapped: Vec<RangeInclusive<u32>>,
    /// The ids that were picked.
    taken: HashSet<u32>,
}

impl TransientUsers {
    /// Finds the ids that the user namespace maps.
    ///
    /// # Errors
    /// [`TransientUserError`] if the user namespace maps no id, or /proc cannot be read.
    pub(crate) fn find() -> Result<Self, TransientUserError> {
        let users = read_map("/proc/self/uid_map")?;
        let groups = read_map("/proc/self/gid_map")?;
        let mapped = candidates(&users, &groups).ok_or(TransientUserError::Unmapped)?;
        Ok(TransientUsers { mapped, taken: HashSet::new() })
    }

    /// Picks an id that no process has and that was not picked before.
    ///
    /// # Errors
    /// [`TransientUserError::Used`] if no such id is found, or the kernel's error.
    pub(crate) fn pick(&mut self) -> Result<TransientUser, TransientUserError> {
        let mut rng = rand::rng();
        let total: u64 = self.mapped.iter().map(length).sum();
        for _ in 0..DRAWS {
            let Some(id) = nth(&self.mapped, rng.random_range(0..total)) else { continue };
            let is_listed = || !UNUSED.contains(&id) && is_known(id);
            let failed = |source| TransientUserError::Processes { id, source };
            if !self.taken.contains(&id) && !has_process(id).map_err(failed)? && !is_listed() {
                self.taken.insert(id);
                return Ok(TransientUser { uid: id, gid: id });
            }
        }
        Err(TransientUserError::Used)
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
pub(crate) fn parse_map(text: &str) -> Vec<RangeInclusive<u32>> {
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

/// Returns whether a process has this real user id.
fn has_process(id: u32) -> io::Result<bool> {
    Errno::clear();
    // SAFETY: getpriority(2) takes two numbers and changes nothing.
    unsafe { libc::getpriority(libc::PRIO_USER, id) };
    // A priority can be -1, too, so only errno shows an error.
    match Errno::last_raw() {
        0 => Ok(true),
        libc::ESRCH => Ok(false),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
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
        assert!(!is_known(user.uid) && !has_process(user.uid).unwrap());
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
    fn an_id_is_in_use_if_a_process_has_it() {
        assert!(has_process(nix::unistd::getuid().as_raw()).unwrap());
        assert!(!has_process(*UNUSED.start()).unwrap());
    }
}
