//! Waits for the address that the learner of a port learns, whichever process runs the learner.
//!
//! The status file of the port is replaced when the rules with the address are in force. So the
//! wait looks at the status after each change in the directory. It also looks once a second,
//! because nothing is written when a learner is killed.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::timeout;

use super::learn::first_address;
use super::nwfilter_error::NwfilterError;
use crate::nwfilter::port::{BindingError, Bindings};
use crate::sys::file_events::FileEvents;
use crate::types::InterfaceName;

/// The longest time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Waits until the rules of the port have a learned address, and returns the address: the IPv4
/// address, or an IPv6 address that reaches further than the link.
///
/// # Errors
/// The port or its filter was removed, its rules could not be set, or its learner was killed.
pub(super) async fn address(
    bindings: &Bindings,
    port: &InterfaceName,
) -> Result<IpAddr, NwfilterError> {
    let events = FileEvents::open().ok();
    let dir = bindings.dir();
    // Without the events, the interval alone counts.
    let events = events.filter(|events| events.watch_names(&dir).is_ok());
    // A learner that changes hands has no holder for a moment.
    let mut was_missing = false;
    loop {
        let status = match bindings.get(port) {
            Err(BindingError::Unbound(_)) => return Err(NwfilterError::Gone(port.clone())),
            status => status?,
        };
        let Some(learner) = bindings.learner(&status) else {
            return Err(NwfilterError::NotLearned(port.clone()));
        };
        if let Some(why) = learner.failed {
            return Err(NwfilterError::NotInForce { port: port.clone(), why });
        }
        let shown6 = learner.addresses6.iter().flatten();
        let addresses6: Vec<Ipv6Addr> = shown6.map(|shown| shown.address).collect();
        if let Some(address) = first_address(learner.address, &addresses6) {
            return Ok(address);
        }
        let is_missing = learner.pid.is_none();
        if is_missing && was_missing {
            return Err(NwfilterError::Killed(port.clone()));
        }
        was_missing = is_missing;
        match &events {
            Some(events) if !is_missing => drop(timeout(INTERVAL, events.next()).await),
            _ => tokio::time::sleep(INTERVAL).await,
        }
    }
}
