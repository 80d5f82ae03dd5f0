//! Adds rules to the host's firewall and removes them, through nftables or iptables.
//!
//! [`crate::firewall::rules`] describes the rules as values. [`choose`] finds the
//! [`FirewallBackend`] that works on this host. [`render_nft`] and [`render_iptables`] turn the
//! rules into text for one tool, without running a program. [`transact`] gives the text to the tool
//! as one transaction: the tool carries out all of it or none of it. [`transact`] returns a
//! [`RemovalRecord`], which contains all that a removal needs, so that a later version of netlaunch
//! can remove the rules that an earlier version added. [`conflicts`] looks for rules of other
//! programs that stop the guests' traffic. Where firewalld runs, [`Firewalld`] makes it let bridges
//! through.
//!
//! netlaunch never changes rules of other programs. The caller of [`transact`] holds a lock against
//! other netlaunch processes, and says whether owners that the transaction does not name have
//! rules: one nft process cannot both list rules and change them.

mod applied_texts;
mod apply;
mod backend;
mod commit;
mod firewalld;
#[cfg(all(feature = "cli", any(test, feature = "fuzz")))]
pub(crate) mod fuzz;
mod iptables_change;
mod iptables_shape;
mod iptables_state;
#[cfg(feature = "cli")]
mod kernel_trial;
mod listing;
mod locked_tools;
pub mod nft_dump;
mod nft_kernel;
mod nft_proof;
mod nft_rule;
mod nft_rules;
mod no_usable_backend;
mod own_rules;
mod port_apply;
mod port_change;
mod port_counters;
mod port_error;
pub mod port_guard;
mod port_hooks;
mod port_present;
mod port_record;
mod port_roles;
mod port_trace;
mod removal_record;
mod rule_counts;
mod tool_error;
mod tools;

pub mod conflicts;
mod connections;
pub mod dbus;
pub mod port_iptables;
pub mod port_limits;
pub mod port_nft;
pub mod render_iptables;
pub mod render_nft;
pub mod rules;

pub use applied_texts::AppliedTexts;
pub use apply::{ApplyError, Script, Transaction, scripts, transact, transact_reading};
pub use backend::{BackendError, FirewallBackend, NoBackend, choose, usable};
pub use connections::forget_connections;
pub use firewalld::{Event, Firewalld, FirewalldError, Watch, ZoneChange};
pub use iptables_shape::Shape;
pub use iptables_state::{TableRemoval, TableState};
#[cfg(feature = "cli")]
pub(crate) use kernel_trial::try_in_own_network;
pub use listing::{Listed, list};
pub use locked_tools::LockedTools;
pub use no_usable_backend::NoUsableBackend;
pub use own_rules::{OwnRules, OwnRulesError};
pub use port_apply::{Beside, PortFilter, PortPlan};
pub use port_counters::{Count, Counters, PathCounts, PortCounts};
pub use port_error::{PortError, Unwritable};
pub use port_hooks::{NotOnInterface, PortHooks};
pub use port_present::{PortRulesState, RulesKnown, RulesState};
pub use port_record::PortRecord;
pub use port_roles::{ChainRoles, PortRoles, RuleName, RuleRole, RuleTable};
pub use port_trace::{DecidedStage, PortTrace, TraceError, TraceStep, TracedFrame};
pub use removal_record::RemovalRecord;
pub use rule_counts::{CountError, RuleCounts, RulesCounted};
pub use tool_error::{Effect, ToolError};
pub use tools::Tools;
