//! Reads the queues, classes and filters that limit the traffic of an interface (tc(8)).

use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use super::{LinkError, Netlink};

/// The priorities of the filters for the frames that arrive.
pub const ARRIVING: [u16; 2] = [1, 2];

/// The parts of an interface's traffic control, as far as the limits of netlaunch need them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficParts {
    /// Whether a queue of the kind `htb` with a class has the frames that leave.
    pub limits_leaving: bool,
    /// Whether the filters of [`ARRIVING`] have the frames that arrive.
    pub redirects_arriving: bool,
}

impl Netlink {
    /// Returns the parts of the traffic control of the interface with this number.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub async fn traffic_parts(&self, link: u32) -> Result<TrafficParts, LinkError> {
        // The kernel gives no interface a number above this.
        let Ok(index) = i32::try_from(link) else { return Ok(TrafficParts::default()) };
        let about = |parent| {
            let mut message = TcMessage::default();
            (message.header.index, message.header.parent) = (index, parent);
            message
        };
        // The kernel lists the queues of all interfaces.
        let queues = self.listed(Message::GetQueueDiscipline(about(TcHandle::UNSPEC))).await?;
        let has = |parent: TcHandle, kind: &str| {
            queues.iter().any(|queue| {
                let is_kind =
                    |part: &TcAttribute| matches!(part, TcAttribute::Kind(of) if of == kind);
                queue.header.index == index
                    && queue.header.parent == parent
                    && queue.attributes.iter().any(is_kind)
            })
        };
        let mut parts = TrafficParts::default();
        if has(TcHandle::ROOT, "htb") {
            let classes = self.listed(Message::GetTrafficClass(about(TcHandle::UNSPEC))).await?;
            parts.limits_leaving = !classes.is_empty();
        }
        if has(TcHandle::INGRESS, "ingress") {
            let ingress = TcHandle { major: 0xffff, minor: 0 };
            let filters = self.listed(Message::GetTrafficFilter(about(ingress))).await?;
            // The upper half of this field is the priority.
            let has = |priority: &u16| {
                filters.iter().any(|filter| filter.header.info >> 16 == u32::from(*priority))
            };
            parts.redirects_arriving = ARRIVING.iter().all(has);
        }
        Ok(parts)
    }

    async fn listed(&self, query: Message) -> Result<Vec<TcMessage>, LinkError> {
        let listed = self.requests.list(query).await;
        let listed = listed
            .map_err(|failure| LinkError::failed("list the limits of an interface", failure))?;
        let message = |message| match message {
            Message::NewQueueDiscipline(part)
            | Message::NewTrafficClass(part)
            | Message::NewTrafficFilter(part) => Some(part),
            _ => None,
        };
        Ok(listed.into_iter().filter_map(message).collect())
    }
}
