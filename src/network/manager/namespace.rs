//! Identifies the network namespace in which a network was started.
//!
//! Bridges, rules and settings belong to one network namespace, but several namespaces can share a
//! file system and so the state directory. A command in another namespace would find nothing to
//! undo, and would remove the status file while the bridge and the rules stay.
//! [`NetworkNamespace::location`] decides whether a status file belongs to this namespace, to
//! another one, or to one that no longer exists.
//!
//! A namespace is known to be gone in three cases: the host was booted since; a younger namespace
//! has its inode number (the cookies differ); or [`find_network_namespace`] sees the whole host and
//! nothing that refers to the namespace.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sys::namespace::{
    NamespaceLocation, boot_id, find_network_namespace, network_namespace, network_namespace_at,
    network_namespace_cookie,
};

/// How often the namespace is looked for if the answer changes while it is examined: a process in
/// another namespace with the same inode number ends, for example.
const SEARCHES: usize = 4;

/// A network namespace of one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkNamespace {
    /// The ID of the boot.
    pub boot: String,
    /// The network namespace, as device and inode number.
    pub namespace: String,
    /// The kernel's cookie of the namespace, which is never used again; `None` before Linux 5.14.
    pub cookie: Option<u64>,
}

/// The network namespace of a network, as seen from this process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkLocation {
    /// The network was started in this network namespace.
    Here,
    /// The network was started in another namespace. The path is a file of that namespace, if one
    /// is known that no other user has chosen.
    OtherNamespace(Option<PathBuf>),
    /// The namespace no longer exists, and only files are left of the network.
    Gone,
}

impl NetworkNamespace {
    /// Returns this network namespace.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub(super) fn current() -> io::Result<Self> {
        Ok(NetworkNamespace {
            boot: boot_id()?,
            namespace: network_namespace()?,
            cookie: network_namespace_cookie(),
        })
    }

    /// Returns where this namespace is, as seen from this process.
    pub(super) fn location(&self) -> NetworkLocation {
        // Without /proc the namespace is not known, so the status file must stay unchanged.
        let Ok(current) = NetworkNamespace::current() else {
            return NetworkLocation::OtherNamespace(None);
        };
        if self.boot != current.boot {
            return NetworkLocation::Gone;
        }
        if self.namespace == current.namespace {
            let same = self.may_have(current.cookie);
            return if same { NetworkLocation::Here } else { NetworkLocation::Gone };
        }
        (0..SEARCHES)
            .find_map(|_| self.search())
            // Files of another namespace stay unchanged.
            .unwrap_or(NetworkLocation::OtherNamespace(None))
    }

    /// Looks for the namespace once. Returns `None` if the search is worth another one: the found
    /// file has become another one, or no file of the namespace could be examined.
    fn search(&self) -> Option<NetworkLocation> {
        let (path, can_enter) = match find_network_namespace(&self.namespace) {
            NamespaceLocation::At(path) => (path, true),
            NamespaceLocation::Open(path) => (path, false),
            NamespaceLocation::Unknown => return None,
            NamespaceLocation::Gone => return Some(NetworkLocation::Gone),
        };
        let found = network_namespace_at(&path).filter(|found| found.identity == self.namespace)?;
        // Two namespaces never have one inode number at the same time.
        if !self.may_have(found.cookie) {
            return Some(NetworkLocation::Gone);
        }
        Some(NetworkLocation::OtherNamespace(can_enter.then_some(path)))
    }

    /// Returns whether a namespace with this inode number can have this cookie, as far as both are
    /// known. The kernel gives an inode number to a new namespace as soon as the old one is gone.
    fn may_have(&self, cookie: Option<u64>) -> bool {
        self.cookie.is_none() || cookie.is_none() || self.cookie == cookie
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_another_boot_or_with_another_cookie_is_gone() {
        let here = NetworkNamespace::current().unwrap();
        assert_eq!(here.location(), NetworkLocation::Here);
        assert_eq!(
            NetworkNamespace { cookie: None, ..here.clone() }.location(),
            NetworkLocation::Here
        );
        let earlier = NetworkNamespace { boot: "another".into(), ..here.clone() };
        assert_eq!(earlier.location(), NetworkLocation::Gone);
        if let Some(cookie) = here.cookie {
            let reused = NetworkNamespace { cookie: Some(cookie + 1), ..here };
            assert_eq!(reused.location(), NetworkLocation::Gone);
        }
    }
}
