//! The host's firewall, through nftables or iptables.
//!
//! [`crate::rules`] says what is wanted. [`render_nft`] and [`render_iptables`] turn it into text
//! for one tool, without running anything; [`transact`] hands the text over, as one transaction
//! that is done wholly or not at all. What it returns, [`Recorded`], is all that removal needs, so
//! that a later netlaunch can remove what an earlier one added. [`choose`] finds out which
//! [`Backend`] works here, and [`conflicts`] looks for rules of others that stop guests' traffic.
//! Where firewalld runs, [`Firewalld`] has it let bridges through.
//!
//! Rules of others are never changed. Whoever calls [`transact`] keeps other netlaunch processes
//! from doing so at the same time, and says whether owners it does not name have rules: nft cannot
//! be asked in the same process that it is told.

mod apply;
mod backend;
mod commit;
mod firewalld;
mod iptables_change;
mod iptables_state;
mod listing;
mod locked;
mod nft_kernel;
mod port_apply;
mod port_change;
mod port_counters;
mod port_error;
mod recorded;
mod tool_error;
mod tools;

pub mod conflicts;
pub mod port_iptables;
pub mod port_limits;
pub mod port_nft;
pub mod render_iptables;
pub mod render_nft;

pub use apply::{ApplyError, Script, Transaction, scripts, transact};
pub use backend::{Backend, BackendError, NoBackend, choose, usable};
pub use firewalld::{Event, Firewalld, FirewalldError, Watch, ZoneChange};
pub use iptables_state::{Present, TableRemoval};
pub use listing::{Listed, list};
pub use locked::LockedTools;
pub use port_apply::{PortFilter, PortPlan, PortRecorded};
pub use port_counters::{Count, Counters, PathCounts, PortCounts};
pub use port_error::{PortError, Unwritable};
pub use recorded::Recorded;
pub use tool_error::{Effect, ToolError};
pub use tools::Tools;
