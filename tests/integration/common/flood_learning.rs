//! How the guest of a flooded port comes to its address, and what it may send before.

use std::fs::File;

use super::dhcp_frame::{ACK, DhcpFrame, REQUEST};
use super::flood::{Load, asking, never, own, refused, write};
use super::frame::{Frame, PEER, VM};

/// The method by which the learner gets the address of [`VM`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The first packet. So before it there is only what teaches nothing.
    Any,
    /// A server's acknowledgement; the guest's own address must not pass before it.
    Dhcp,
}

impl Method {
    pub const ALL: [Method; 2] = [Method::Any, Method::Dhcp];

    /// Its name, the value of `CTRL_IP_LEARNING`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Any => "any",
            Method::Dhcp => "dhcp",
        }
    }

    /// The filter's parameter.
    pub fn parameter(self) -> (&'static str, &'static str) {
        ("CTRL_IP_LEARNING", self.name())
    }

    /// The frames that are sent while the address is learned.
    pub fn load(self) -> Load {
        let [dhcp, probe] = asking(VM);
        match self {
            Method::Any => Load { forbidden: never(VM), allowed: vec![dhcp, probe] },
            Method::Dhcp => {
                let forbidden = refused(VM).into_iter().chain(own(VM)).chain([probe]).collect();
                Load { forbidden, allowed: vec![dhcp] }
            }
        }
    }

    /// Returns the frame with which the guest gets its address.
    pub fn says(self, transaction: u32) -> Vec<u8> {
        match self {
            Method::Any => Frame::arp(VM, PEER, 1).bytes(b""),
            Method::Dhcp => DhcpFrame { transaction, ..DhcpFrame::asks(REQUEST) }.bytes(),
        }
    }

    /// Returns a server's answer to that frame.
    pub fn answer(self, server: &File, transaction: u32) {
        if self == Method::Dhcp {
            let answer = DhcpFrame { transaction, ..DhcpFrame::answers(ACK, VM.v4) };
            assert!(write(server, &answer.bytes()));
        }
    }
}
