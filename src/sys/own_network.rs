//! Puts this thread into a network namespace of its own for a while.
//!
//! A trial of a firewall tool or of a server must not touch the host's network. The thread enters
//! an empty network namespace, and the programs that it starts there inherit it. When
//! [`OwnNetwork`] is dropped, the thread is back in its earlier namespace, and the kernel removes
//! the empty one, with all rules and sockets in it, after the last of those programs has ended.
//!
//! All tasks of the thread are in the new namespace meanwhile. So a caller awaits nothing but its
//! trial as long as the value exists.

use std::fs::File;
use std::io;
use std::marker::PhantomData;

use nix::sched::{CloneFlags, setns, unshare};

/// A stay in an empty network namespace. The value belongs to the thread that made it.
#[derive(Debug)]
pub(crate) struct OwnNetwork {
    /// The namespace to which the thread returns.
    before: File,
    /// A namespace belongs to a thread, so the value must not go to another one.
    not_send: PhantomData<*const ()>,
}

impl OwnNetwork {
    /// Enters a new network namespace.
    ///
    /// # Errors
    /// The kernel's error: EPERM without CAP_SYS_ADMIN, ENOSPC if too many namespaces exist. The
    /// thread is in its earlier namespace then.
    pub(crate) fn enter() -> io::Result<Self> {
        let before = File::open("/proc/thread-self/ns/net")?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(OwnNetwork { before, not_send: PhantomData })
    }
}

impl Drop for OwnNetwork {
    fn drop(&mut self) {
        // The thread has the same capabilities as at the begin, so the kernel refuses this only if
        // a security module changed its rules in between.
        if let Err(error) = setns(&self.before, CloneFlags::CLONE_NEWNET) {
            tracing::warn!("cannot return to the host's network: {error}; start netlaunch again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::namespace::network_namespace;

    #[test]
    fn the_thread_returns_to_its_network_namespace() {
        let host = network_namespace().unwrap();
        match OwnNetwork::enter() {
            Ok(own) => {
                assert_ne!(network_namespace().unwrap(), host);
                drop(own);
            }
            Err(error) => eprintln!("skipped: no network namespace: {error}"),
        }
        assert_eq!(network_namespace().unwrap(), host);
    }
}
