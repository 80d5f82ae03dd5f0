//! Tests that the capture does not believe a frame that changes when it leaves the host: the guest
//! may let the kernel write a checksum at a place of its choice.

use std::io::Write;

use netlaunch::nwfilter::learn::Sender::{Guest, Network};
use netlaunch::nwfilter::learn::{Capture, FrameSet6, Frames, GuestFrames};
use nix::net::if_::if_nametoindex;

use super::capture::{Port, next, with_bridge};
use super::{GUEST_LINK, ONE, TWO, guest};
use crate::common::dhcp_frame::{GUEST, OTHER};
use crate::common::have_root;
use crate::common::nd_frame::{Dhcp6Frame, NdFrame, REQUEST6};

/// The header of virtio for a frame whose checksum the kernel computes from `start` on and writes
/// `offset` bytes behind it (`struct virtio_net_hdr`, VIRTIO_NET_HDR_F_NEEDS_CSUM).
fn needs_checksum(start: u16, offset: u16) -> Vec<u8> {
    [&[1, 0, 0, 0, 0, 0][..], &start.to_le_bytes(), &offset.to_le_bytes()].concat()
}

#[test]
fn a_test_whose_checksum_the_kernel_still_writes_is_not_read() {
    if !have_root("a_test_whose_checksum_the_kernel_still_writes_is_not_read") {
        return;
    }
    with_bridge(async |netns| {
        let (port, peer) = (Port::new(netns, "port0"), Port::new(netns, "peer0"));
        let index = if_nametoindex("port0").unwrap();
        let frames = Frames { v4: None, v6: Some(FrameSet6::All) };
        let mut capture = Capture::open(index, guest(), GuestFrames::Received, frames).unwrap();
        let test = NdFrame::test(GUEST, ONE).bytes();
        // The checksum goes into the target, so other machines get the test of another address.
        let target = 20 + 50;
        assert_eq!(test[target..target + 2], ONE.octets()[8..10]);
        let send = |port: &Port, header: Vec<u8>, frame: &[u8]| {
            (&port.0).write_all(&[&header, frame].concat()).unwrap();
        };
        send(&port, needs_checksum(20, 50), &test);
        assert_eq!(next(&mut capture).await, Some((Guest, Vec::new())));
        send(&port, needs_checksum(20, 50), &test);
        assert_eq!(capture.queued().unwrap(), Some((Guest, &[][..])));
        // Guests send DHCPv6 like this.
        let request = Dhcp6Frame::asks(REQUEST6, GUEST, GUEST_LINK).bytes();
        send(&port, needs_checksum(54, 6), &request);
        assert_eq!(next(&mut capture).await, Some((Guest, request)));
        let test = NdFrame::test(GUEST, TWO).bytes();
        send(&port, vec![0; 10], &test);
        assert_eq!(next(&mut capture).await, Some((Guest, test)));
        // Frames of other machines count: at worst they refuse an address.
        let conflict = NdFrame::test(OTHER, ONE).bytes();
        send(&peer, needs_checksum(20, 50), &conflict);
        let (sender, frame) = next(&mut capture).await.unwrap();
        assert_eq!((sender, frame.len()), (Network, conflict.len()));
    });
}
