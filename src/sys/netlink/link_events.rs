//! Waits for changes of the host's interfaces, as `ip monitor link` does.
//!
//! The waiter learns only that interfaces have changed, and lists them afterwards: a list is the
//! state of one moment, also if the kernel has lost messages.

use std::fmt;

use futures_util::{FutureExt, Stream, StreamExt};
use rtnetlink::{MulticastGroup, new_multicast_connection};

use super::LinkError;

/// The messages of the kernel about interfaces of this network namespace.
pub struct LinkEvents(Box<dyn Stream<Item = ()> + Send + Unpin>);

impl fmt::Debug for LinkEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkEvents")
    }
}

impl LinkEvents {
    /// Receives the messages from now on. Call it in a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// [`LinkError::Connect`].
    pub fn open() -> Result<Self, LinkError> {
        let opened = new_multicast_connection(&[MulticastGroup::Link]);
        let (connection, _, messages) = opened.map_err(LinkError::Connect)?;
        tokio::spawn(connection);
        Ok(LinkEvents(Box::new(messages.map(drop))))
    }

    /// Waits until interfaces have changed since the last call. Returns false if the connection to
    /// the kernel has ended.
    pub async fn changed(&mut self) -> bool {
        if self.0.next().await.is_none() {
            return false;
        }
        // One list after many messages is enough.
        while let Some(Some(())) = self.0.next().now_or_never() {}
        true
    }
}
