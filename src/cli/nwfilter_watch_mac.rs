//! Takes the MAC address of a guest from the first frame that the guest sends.
//!
//! The guard drops the frame, and a packet socket on the port sees the frame before that. So the
//! address is known although no frame has passed.

use std::io;

use crate::sys::file_limit::FileLimit;
use crate::sys::packet_socket::{PacketSocket, Received};
use crate::types::Mac;

/// The size of the queue in bytes: one frame is enough.
const QUEUE: usize = 4096;
/// The descriptors that the watcher needs beside its packet sockets.
const OTHER_FILES: u64 = 40;

/// Raises the number of files that this process may have open as far as possible. Returns the
/// number of ports whose first frame can be awaited at a time.
pub(super) fn raise_file_limit() -> usize {
    let raised = FileLimit::now().and_then(|limit| limit.raise());
    if let Err(error) = raised {
        tracing::debug!("the limit of open files stays: {error}");
    }
    let soft = FileLimit::now().map_or(OTHER_FILES, |limit| limit.soft);
    usize::try_from(soft.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).max(1)
}

/// Waits for the first frame from the guest behind the interface with this index, and returns the
/// source address. Returns `None` when the interface is gone. Needs a tokio runtime with I/O and
/// time enabled.
///
/// # Errors
/// The kernel's error.
pub(super) async fn first_source(index: u32) -> io::Result<Option<Mac>> {
    let all =
        libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: u32::MAX };
    let socket = PacketSocket::open(index, &[all], QUEUE)?;
    let mut buffer = [0; 14];
    loop {
        match socket.receive(&mut buffer)? {
            Received::Frame { length, outgoing, .. } if length == buffer.len() && !outgoing => {
                let [.., a, b, c, d, e, g, _, _] = buffer;
                // A frame with a multicast source is not valid; the next one counts.
                if let Ok(mac) = Mac::new([a, b, c, d, e, g]) {
                    return Ok(Some(mac));
                }
            }
            Received::Frame { .. } => {}
            Received::Gone => return Ok(None),
            Received::Nothing => socket.wait().await?,
        }
    }
}
