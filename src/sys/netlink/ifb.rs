//! Makes and removes the devices through which the frames from a limited device pass.
//!
//! The kernel can delay only frames that leave a device. So the frames that come from a guest are
//! redirected to a device of the kind `ifb` (intermediate functional block), which delays them and
//! hands them back. The device's name has the number of the limited device. So every command can
//! recognise a device that is left behind, also after a SIGKILL: no device has that number.

use nix::errno::Errno;
use rtnetlink::LinkIfb;
use rtnetlink::packet_route::RouteNetlinkMessage;

use super::request::Again;
use super::{Link, LinkError, Netlink, Undo};
use crate::types::{InterfaceName, error_text};

/// The prefix of the device's name; the number of the limited device follows.
const PREFIX: &str = "nlout";

/// Returns the name of the device that delays the frames from the device of this number.
pub fn ifb_name(index: u32) -> Option<InterfaceName> {
    // 15 bytes at most, which is what a name of an interface may have.
    format!("{PREFIX}{index}").parse().ok()
}

/// Returns the number of the device whose frames this interface delays.
fn limited(link: &Link) -> Option<u32> {
    let number = link.name.strip_prefix(PREFIX)?;
    number.parse().ok().filter(|_| link.kind.as_deref() == Some("ifb"))
}

impl Netlink {
    /// Makes an `ifb` device, which is off. A device of that name is removed before.
    ///
    /// # Errors
    /// Returns [`LinkError::NoIfb`] if the kernel has no such devices, or the kernel's error.
    pub async fn create_ifb(&self, name: &InterfaceName) -> Result<Undo, LinkError> {
        match self.link(name).await {
            Ok(link) => self.delete_link(name, link.index).await?,
            Err(LinkError::Missing(_)) => {}
            Err(error) => return Err(error),
        }
        let message = RouteNetlinkMessage::NewLink(LinkIfb::new(name.as_str()).build());
        let made = self.requests.create(message, Again::Refused(&[Errno::EEXIST])).await;
        made.map_err(|failure| {
            let error = LinkError::failed(format!("make the device {name}"), failure);
            if error.errno() == Some(Errno::EOPNOTSUPP) { LinkError::NoIfb } else { error }
        })?;
        Ok(Undo::Link { name: name.clone(), index: self.link(name).await?.index })
    }

    /// Removes the `ifb` devices whose limited device is gone. An error is only logged, because
    /// such a device does nothing and the next command tries again.
    pub async fn remove_stale_ifbs(&self) {
        if let Err(error) = self.try_remove_stale_ifbs().await {
            tracing::debug!("a device that passed frames on is left: {}", error_text(&error));
        }
    }

    async fn try_remove_stale_ifbs(&self) -> Result<(), LinkError> {
        for link in self.links().await? {
            let (Some(limited), Ok(name)) = (limited(&link), link.name.parse()) else { continue };
            // The limited device may have been made after the kernel listed its number.
            if self.link_by_index(limited).await?.is_none() {
                self.undo(&Undo::Link { name, index: link.index }).await?;
            }
        }
        Ok(())
    }
}
