//! Waits for changes of the host's interfaces, as `ip monitor link` does, and of the queues that
//! limit their traffic, as `tc monitor` does.
//!
//! The waiter learns only that interfaces have changed, and lists them afterwards: a list is the
//! state of one moment, also if the kernel has lost messages.

use std::fmt;

use futures_util::{FutureExt, Stream, StreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{MulticastGroup, new_multicast_connection};

use super::LinkError;

/// The messages of the kernel about interfaces of this network namespace.
pub struct LinkEvents(Box<dyn Stream<Item = LinkEvent> + Send + Unpin>);

/// The interface of one message; `None` for a message that is not about one, such as a report of
/// lost messages.
pub type LinkEvent = Option<ChangedLink>;

/// An interface that was made, changed or removed, or whose queues were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedLink {
    /// Its index.
    pub index: u32,
    /// Its name; `None` if its queues have changed.
    pub name: Option<String>,
}

/// Returns the interface that a message is about.
fn changed_link(message: NetlinkMessage<RouteNetlinkMessage>) -> LinkEvent {
    use RouteNetlinkMessage as Message;
    let NetlinkPayload::InnerMessage(message) = message.payload else { return None };
    let link = match message {
        Message::NewLink(link) | Message::DelLink(link) => link,
        Message::NewQueueDiscipline(queue)
        | Message::DelQueueDiscipline(queue)
        | Message::NewTrafficClass(queue)
        | Message::DelTrafficClass(queue)
        | Message::NewTrafficFilter(queue)
        | Message::DelTrafficFilter(queue) => {
            let index = queue.header.index.try_into().ok()?;
            return Some(ChangedLink { index, name: None });
        }
        _ => return None,
    };
    let name = |attribute: LinkAttribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    };
    let index = link.header.index;
    Some(ChangedLink { index, name: link.attributes.into_iter().find_map(name) })
}

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
        LinkEvents::of(&[MulticastGroup::Link])
    }

    /// Receives the messages about interfaces and about their queues from now on. Call it in a
    /// tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// [`LinkError::Connect`].
    pub fn open_with_queues() -> Result<Self, LinkError> {
        LinkEvents::of(&[MulticastGroup::Link, MulticastGroup::Tc])
    }

    fn of(groups: &[MulticastGroup]) -> Result<Self, LinkError> {
        let opened = new_multicast_connection(groups);
        let (connection, _, messages) = opened.map_err(LinkError::Connect)?;
        tokio::spawn(connection);
        Ok(LinkEvents(Box::new(messages.map(|(message, _)| changed_link(message)))))
    }

    /// Waits until interfaces have changed since the last call. Returns false if the connection to
    /// the kernel has ended.
    pub async fn changed(&mut self) -> bool {
        self.changed_among(|_| true).await
    }

    /// Waits until an interface that `is_meant` accepts has changed since the last call, or
    /// messages were lost. Returns false if the connection to the kernel has ended.
    pub async fn changed_among(&mut self, is_meant: impl Fn(&ChangedLink) -> bool) -> bool {
        let counts = |event: &LinkEvent| event.as_ref().is_none_or(&is_meant);
        loop {
            match self.0.next().await {
                None => return false,
                Some(event) if counts(&event) => break,
                Some(_) => {}
            }
        }
        // One list after many messages is enough.
        while let Some(Some(_)) = self.0.next().now_or_never() {}
        true
    }
}
