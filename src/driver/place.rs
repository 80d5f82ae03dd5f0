//! The network namespace in which a network was started.
//!
//! Bridges, rules and settings belong to one network namespace, while several share a file system
//! and so the state directory. A command in another namespace would find nothing to undo, remove the
//! status and leave everything; [`Place::whereabouts`] tells such a status from one of this
//! namespace, and from one of a namespace that no longer exists.
//!
//! A namespace is known to be gone when the host was booted since, when its inode number belongs to
//! a younger namespace (the cookies differ), or when [`find_network_namespace`] sees the whole host
//! and nothing that refers to it.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::process::{
    Elsewhere, boot_id, find_network_namespace, network_namespace, network_namespace_cookie,
    network_namespace_cookie_of,
};

/// A network namespace of one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The boot.
    pub boot: String,
    /// The network namespace, as device and inode number.
    pub namespace: String,
    /// The kernel's cookie of the namespace, which is never used again; `None` before Linux 5.14.
    pub cookie: Option<u64>,
}

/// Where a network was started, as seen from this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// In this network namespace.
    Here,
    /// In another one, which this file is, where a path is known that no other user has chosen.
    Elsewhere(Option<PathBuf>),
    /// In one that no longer exists, and with it all but files.
    Gone,
}

impl Place {
    /// This network namespace.
    ///
    /// # Errors
    /// There is no /proc.
    pub(super) fn here() -> io::Result<Self> {
        Ok(Place {
            boot: boot_id()?,
            namespace: network_namespace()?,
            cookie: network_namespace_cookie(),
        })
    }

    /// Where it is, as seen from this process.
    pub(super) fn whereabouts(&self) -> Whereabouts {
        // Without /proc no one can tell, so the status is left alone.
        let Ok(here) = Place::here() else { return Whereabouts::Elsewhere(None) };
        if self.boot != here.boot {
            return Whereabouts::Gone;
        }
        if self.namespace == here.namespace {
            let same = self.may_have(here.cookie);
            return if same { Whereabouts::Here } else { Whereabouts::Gone };
        }
        match find_network_namespace(&self.namespace) {
            Elsewhere::At(path) | Elsewhere::Open(path)
                if !self.may_have(network_namespace_cookie_of(&path)) =>
            {
                Whereabouts::Gone
            }
            Elsewhere::At(path) => Whereabouts::Elsewhere(Some(path)),
            Elsewhere::Open(_) | Elsewhere::Unknown => Whereabouts::Elsewhere(None),
            Elsewhere::Gone => Whereabouts::Gone,
        }
    }

    /// Whether a namespace of this inode number can have this cookie, as far as both are known. The
    /// kernel gives an inode number to a new namespace as soon as the old one is gone.
    fn may_have(&self, cookie: Option<u64>) -> bool {
        self.cookie.is_none() || cookie.is_none() || self.cookie == cookie
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_another_boot_or_with_another_cookie_is_gone() {
        let here = Place::here().unwrap();
        assert_eq!(here.whereabouts(), Whereabouts::Here);
        assert_eq!(Place { cookie: None, ..here.clone() }.whereabouts(), Whereabouts::Here);
        let earlier = Place { boot: "another".into(), ..here.clone() };
        assert_eq!(earlier.whereabouts(), Whereabouts::Gone);
        if let Some(cookie) = here.cookie {
            let reused = Place { cookie: Some(cookie + 1), ..here };
            assert_eq!(reused.whereabouts(), Whereabouts::Gone);
        }
    }
}
