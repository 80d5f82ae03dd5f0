//! Plans the queue pairs and the kernel's help for the tap of a guest on a bridge.
//!
//! vhost-net moves the frames between the tap and the guest's card inside the kernel, without QEMU.
//! netlaunch opens `/dev/vhost-net` itself and QEMU inherits the descriptors, so that also a QEMU
//! that runs as another user has them. A capture file (`filter-dump`) needs the frames in QEMU, so
//! there is no vhost-net then (QEMU refuses both together).
//!
//! Several queues help only with vhost-net: in QEMU one thread serves all of them. passt and slirp
//! are one thread each, so their guests have one queue.

use super::draft::Draft;
use super::request::{Attachment, NicRequest};
use super::request_error::RequestError;
use crate::types::facts::BridgeAccess;
use crate::types::{Device, Queues};

impl NicRequest {
    /// Checks that the NIC can have the requested number of queues.
    pub(super) fn check_queues(&self) -> Result<(), RequestError> {
        let Some(Queues::Count(count)) = self.queues.filter(|queues| *queues != Queues::Count(1))
        else {
            return Ok(());
        };
        match (&self.attachment, &self.device) {
            (None, _) => Err(RequestError::QueuesOfUserMode(count)),
            (_, Device::Model(model)) if !self.device.is_virtio() => {
                Err(RequestError::QueuesOfCard { count, model: model.clone() })
            }
            _ if self.pcap.is_some() => Err(RequestError::QueuesCaptured(count)),
            (Some(Attachment::Network(_) | Attachment::Bridge(_)), _) => Ok(()),
        }
    }
}

/// Returns whether the kernel moves the frames of a NIC on a tap of netlaunch's.
pub(super) fn has_vhost(nic: &NicRequest, bridge: &BridgeAccess) -> bool {
    bridge.vhost_net.usable && nic.device.is_virtio() && nic.pcap.is_none()
}

/// Returns the number of queue pairs of a NIC on a tap of netlaunch's.
pub(super) fn count(draft: &Draft) -> u16 {
    match draft.nic.queues {
        None => 1,
        Some(Queues::Count(count)) => count,
        Some(Queues::Auto) if has_vhost(draft.nic, &draft.context.facts.bridge) => {
            let processors = draft.context.request.settings().processors();
            u16::try_from(processors).unwrap_or(Queues::MOST).min(Queues::MOST)
        }
        Some(Queues::Auto) => 1,
    }
}

/// Returns the properties of a card with this many queue pairs.
///
/// A card on PCI needs an interrupt vector for each queue, one for its configuration and one for
/// its control queue.
pub(super) fn card_properties(device: &Device, queues: usize) -> String {
    match device {
        Device::Model(model) if queues > 1 && model.starts_with("virtio-net-pci") => {
            format!(",mq=on,vectors={}", 2 * queues + 2)
        }
        Device::Model(_) if queues > 1 => ",mq=on".to_owned(),
        _ => String::new(),
    }
}
