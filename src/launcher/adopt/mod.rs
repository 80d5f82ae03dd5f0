//! Moves the user-mode networks of the caller's QEMU arguments to another backend.
//!
//! ```text
//! CommandLine, Settings ─ user_nics ─▶ UserNic { card, NicRequest or the reason to stay }
//!                                        │  a plan for each NIC gives its netdev
//!                                        ▼
//!                         edits ─▶ Edit { argument, words } ─ apply ─▶ QEMU's arguments
//! ```
//!
//! [`user_nics`] finds each NIC whose network is slirp: `-netdev user`, `-nic user`, `-net user`,
//! and QEMU's default card. It translates the options of slirp to a [`NicRequest`], so that the
//! guest sees the same addresses, names and forwards, or gives the reason why this NIC stays on
//! slirp ([`Left`]). [`edits`] then replaces the network and keeps the card: its model, its MAC
//! address, its slot and its id.
//!
//! An edit replaces whole options. All other words stay as they are, byte for byte and in order.
//!
//! The module is pure. It does not judge whether passt can serve a request on this host; the choice
//! of the backend does that, and a NIC for which slirp is chosen keeps its words.
//!
//! [`NicRequest`]: super::plan::NicRequest

mod card;
mod edit;
mod host_forward;
mod hub;
mod json_types;
mod left;
mod netdev_options;
mod subnet;
mod user_nic;

#[cfg(test)]
mod left_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use card::Card;
pub use edit::{Change, Edit, apply, edits, is_global_mtu, sets_global_mtu, sets_mtu, uses_hub};
pub(super) use host_forward::{HostSide, forward_on};
pub use left::Left;
pub(super) use netdev_options::translate;
pub use user_nic::{Form, UserNic, free_id, user_nics};
