//! Waits until an interface exists and a filter can see its frames: on a bridge, or at once for a
//! macvtap or macvlan.

use super::{BindingError, NotOnBridge, bridge};
use crate::sys::interfaces::Interfaces;
use crate::sys::netlink::LinkEvents;
use crate::types::InterfaceName;

/// Waits until the interface exists and is a port of a bridge, a macvtap or a macvlan. `waiting` is
/// called once if it is not yet. Needs a tokio runtime with I/O enabled.
///
/// # Errors
/// [`BindingError::NotOnBridge`] for an interface that cannot be the port of a bridge, or the error
/// of the kernel.
pub async fn wait_for_bridge(
    port: &InterfaceName,
    waiting: impl FnOnce(),
) -> Result<(), BindingError> {
    let mut waiting = Some(waiting);
    // The events count from before the first look.
    let mut events = LinkEvents::open()?;
    loop {
        let looked = look(port).await;
        if !looked.as_ref().err().is_some_and(may_change) {
            return looked;
        }
        if let Some(waiting) = waiting.take() {
            waiting();
        }
        let is_meant = |link: &crate::sys::netlink::link_events::ChangedLink| {
            link.name.as_deref() == Some(port.as_str())
        };
        if !events.changed_among(is_meant).await {
            return looked;
        }
    }
}

async fn look(port: &InterfaceName) -> Result<(), BindingError> {
    let failed = |source| BindingError::Interfaces { source };
    let interfaces = Interfaces::open().map_err(failed)?;
    let number = interfaces.number(port).map_err(failed)?;
    let index = number.ok_or_else(|| BindingError::NoPort(port.clone()))?;
    bridge::of_port(port, index).await.map(drop)
}

/// Returns whether the interface can become the port of a bridge.
fn may_change(error: &BindingError) -> bool {
    match error {
        BindingError::NoPort(_) => true,
        BindingError::NotOnBridge { why, .. } => {
            matches!(why, NotOnBridge::NoMaster | NotOnBridge::OtherMaster { .. })
        }
        _ => false,
    }
}
