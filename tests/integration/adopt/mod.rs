//! Compares what netlaunch does with QEMU command lines with golden texts: each file in corpus/ has
//! command lines in the shapes that a family of programs and scripts writes. Each has either the
//! reason why a stand-in passes it through to QEMU, or the NICs that leave slirp, those that stay
//! and why, and QEMU's arguments after that. Another test starts QEMU with the lines and compares
//! the cards and ids before and after.
//!
//! To write new texts, run `NETLAUNCH_BLESS=1 cargo test --test integration adopt::`, and read the
//! diff.
//!
//! A case is a head of `KEY: VALUE` lines, a line `>` and the text. Keys:
//! ```text
//! passt:    old (Debian 12), new; new unless named
//! card:     no for a machine without a default card
//! host:     v6 (an IPv6 default route), root
//! options:  netlaunch's own options
//! line:     the command line
//! ```

mod corpus;
mod in_qemu;
mod kept;
