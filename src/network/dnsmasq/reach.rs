//! Finds out whether a command can see and end the dnsmasq of a [`Record`].
//!
//! A process in another PID namespace is invisible, unless that namespace is nested in this one. If
//! a command assumed that such a dnsmasq has ended, it would leave it running without a record.
//! dnsmasq holds sockets as long as it serves, and the kernel lists the sockets of a network
//! namespace with their users in every PID namespace. So if the transient user has no socket, this
//! dnsmasq has ended.

use std::fs;
use std::io;

use nix::unistd::Pid;

use super::Files;
use super::record::Record;
use crate::sys::namespace::{boot_id, is_host_pid_namespace, pid_namespace};

/// The user id that the kernel shows for an id that is not mapped in the user namespace (proc(5)).
const OVERFLOW: u32 = 65_534;
/// The kernel's lists of sockets, below /proc/thread-self/net.
const LISTS: [&str; 6] = ["udp", "udp6", "raw", "raw6", "tcp", "tcp6"];

impl Record {
    /// Returns whether this dnsmasq may run where this process cannot see it. This process must be
    /// in the network namespace of the record.
    pub fn is_out_of_reach(&self, files: &Files) -> bool {
        if boot_id().is_ok_and(|boot| boot != self.boot) {
            return false;
        }
        let same = pid_namespace().is_ok_and(|own| own == self.pid_namespace);
        if proc_has_own_numbers()
            && (same || is_host_pid_namespace() || !self.processes(files).is_empty())
        {
            return false;
        }
        self.user.is_none_or(|user| LISTS.iter().any(|list| may_have_socket(list, user)))
    }
}

/// Returns whether /proc shows the processes of this PID namespace, by their numbers in it.
fn proc_has_own_numbers() -> bool {
    let own = Pid::this().to_string();
    fs::read_link("/proc/self").is_ok_and(|to| to.as_os_str() == own.as_str())
}

/// Returns whether a list of sockets contains one of this user, or one whose user is not known.
fn may_have_socket(list: &str, user: u32) -> bool {
    match fs::read_to_string(format!("/proc/thread-self/net/{list}")) {
        Ok(text) => text.lines().skip(1).any(|line| {
            let owner = line.split_ascii_whitespace().nth(7).and_then(|uid| uid.parse().ok());
            owner.is_none_or(|owner: u32| owner == user || owner == OVERFLOW)
        }),
        // A kernel without IPv6 has no such list.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}
