//! The events of a launch, for the program that started it.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Outcome;
use super::plan::{Backend, Plan};

/// An event of a launch.
///
/// ```no_run
/// # async fn watch(launch: &mut netlaunch::launcher::Launch) {
/// use netlaunch::launcher::LaunchEvent;
///
/// while let Some(event) = launch.next_event().await {
///     match event {
///         LaunchEvent::PasstRestarted { pid, .. } => println!("passt is process {pid} now"),
///         LaunchEvent::Ended(outcome) => println!("exit status {}", outcome.code()),
///         _ => {}
///     }
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaunchEvent {
    /// The network serves and QEMU runs: the first event.
    Started {
        /// The backend in use.
        backend: Backend,
        /// Why it is not the preferred one.
        fallback: Option<String>,
    },
    /// QEMU has daemonized (`-daemonize`): its first process has ended with status 0, and the guest
    /// runs in a daemon. The end of the daemon is the end of QEMU.
    Daemonized {
        /// The daemon's process ID.
        pid: u32,
    },
    /// passt ended while QEMU ran. If QEMU can connect again, passt is started again.
    PasstEnded {
        /// The index of the NIC among those of the launch.
        nic: usize,
        /// How passt ended, with its own words.
        reason: String,
    },
    /// A new passt serves.
    PasstRestarted {
        /// The index of the NIC among those of the launch.
        nic: usize,
        /// Its process ID.
        pid: u32,
        /// The number of restarts in a row, from 1 on.
        attempt: u32,
    },
    /// This NIC of the guest has no network any more; the reason was its last
    /// [`LaunchEvent::PasstEnded`].
    BackendLost {
        /// The index of the NIC among those of the launch.
        nic: usize,
    },
    /// The guest's addresses on this NIC, which the NIC's filter needs, have changed.
    AddressLearned {
        /// The index of the NIC among those of the launch.
        nic: usize,
        /// The IPv4 address; `None` if it is not known, or the filter does not need it.
        address: Option<Ipv4Addr>,
        /// The IPv6 addresses, the oldest first; empty if the filter does not need them.
        addresses6: Vec<Ipv6Addr>,
    },
    /// The launch has ended and everything of it was removed: the last event.
    Ended(Outcome),
}

impl LaunchEvent {
    pub(super) fn started(plan: &Plan) -> Self {
        let nic = plan.nics.first();
        LaunchEvent::Started { backend: nic.backend, fallback: nic.fallback.clone() }
    }
}

/// A function that gets the events of a launch. It must not block.
pub(crate) struct EventSink(Box<dyn Fn(LaunchEvent) + Send + Sync>);

impl EventSink {
    pub(crate) fn new(send: impl Fn(LaunchEvent) + Send + Sync + 'static) -> Self {
        EventSink(Box::new(send))
    }

    pub(super) fn send(&self, event: LaunchEvent) {
        (self.0)(event);
    }
}

impl Default for EventSink {
    /// A sink for a launch whose events have no reader.
    fn default() -> Self {
        EventSink::new(drop)
    }
}

impl std::fmt::Debug for EventSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventSink")
    }
}
