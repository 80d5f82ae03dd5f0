//! Network filters: libvirt's nwfilter XML as a value, its variables, and the store that keeps the
//! definitions.
//!
//! ```text
//! bytes ──parse──▶ Filter ──store──▶ CONFIG/nwfilter/NAME.xml, or compiled in
//!                    │ └──to_xml──▶ libvirt's canonical form
//!                    └──flatten──▶ FlatFilter*: rules without variables, what a firewall is made of
//! ```
//!
//! [`parse`], [`to_xml`], [`combinations`] and [`flatten`] are pure; only [`FilterStore`] touches
//! files. The facts about the format are
//! from libvirt's documentation ("Network Filters") and schema, and from what libvirt does. What it
//! passes over in silence, unknown attributes for one, is refused here.

mod attribute;
mod binding;
mod check;
mod compile;
mod compiler;
mod evasion;
pub mod explain;
mod flags;
#[cfg(test)]
mod generate;
mod kind;
#[cfg(test)]
mod kind_tests;
mod model;
mod protocol;
mod review;
mod stock;
mod store;
mod store_error;
#[cfg(test)]
mod store_tests;
mod tree;
mod value;
mod variable;
#[cfg(test)]
mod variable_tests;
mod write;
#[cfg(test)]
mod write_tests;
mod xml;
#[cfg(test)]
mod xml_tests;

pub use attribute::Attribute;
pub use binding::{Binding, Owner, OwnerError, OwnerName};
pub use check::CheckError;
pub use compile::{CompileError, Warning, compile};
pub use compiler::{Compiled, Compiler, RulesError};
pub use evasion::{Evasion, evasions};
pub use flags::{SetDirection, States, TcpFlags};
pub use kind::{Kind, LiteralError};
pub use model::{
    Action, Condition, Direction, Element, Entry, Filter, FilterRef, FlatFilter, PRIORITIES,
    Parameter, RULE_PRIORITY, Rule, RuleInstance,
};
pub use protocol::{Field, Layer, Protocol};
pub use review::{Unreachable, sample, unreachable};
pub use stock::{stock, stock_names};
pub use store::{Broken, Change, Definition, Draft, FilterStore, Locked};
pub use store_error::StoreError;
pub use tree::{
    Filters, MAX_DEPTH, MAX_REFERENCES, MAX_RULES, Needs, TreeError, find_loop, flatten, needs,
    reachable,
};
pub use value::{
    Access, ChainKind, ChainName, Comment, FilterName, IpSetName, Literal, Value, ValueError,
    VariableName, VariableUse, VariableValue,
};
pub use variable::{MAX_COMBINATIONS, VariableError, Variables, combinations};
pub use write::to_xml;
pub use xml::parse;
