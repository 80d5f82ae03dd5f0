//! Network filters: libvirt's nwfilter XML as a value, its variables, the store of the definitions,
//! and the parts that put filters on the ports of guests.
//!
//! ```text
//! bytes ──parse──▶ Filter ──store──▶ CONFIG/nwfilter/NAME.xml, or compiled in
//!                    │ └──to_xml──▶ libvirt's canonical form
//!                    └──flatten──▶ FlatFilter*: rules without variables
//! ```
//!
//! [`parse`], [`to_xml`], [`combinations`], [`flatten`] and [`explain`] are pure, and
//! [`FilterStore`] reads and writes the files of definitions. The other parts change the host:
//! [`port`] binds filters to ports and keeps their status files, and [`learn`] finds the addresses
//! of guests and saves them.
//!
//! The facts about the format come from libvirt's documentation ("Network Filters")
//! and schema, and from libvirt's behaviour. Input that libvirt silently ignores, such as unknown
//! attributes, is an error here.

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
pub mod learn;
mod model;
pub mod port;
mod protocol;
mod sample;
mod stock;
mod store;
mod store_error;
#[cfg(test)]
mod store_tests;
mod tree;
mod unreachable;
mod value;
mod value_type;
#[cfg(test)]
mod value_type_tests;
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
pub use model::{
    Action, Condition, Direction, Element, Entry, Filter, FilterRef, FlatFilter, PRIORITIES,
    RULE_PRIORITY, Rule, RuleInstance,
};
pub use protocol::{Field, Layer, Protocol};
pub use sample::sample;
pub use stock::{stock, stock_names};
pub use store::{BrokenFile, Definition, DefinitionChange, FilterStore, Locked, UncheckedFilter};
pub use store_error::StoreError;
pub use tree::{
    Filters, MAX_DEPTH, MAX_REFERENCES, MAX_RULES, Needs, TreeError, find_loop, flatten, needs,
    reachable,
};
pub use unreachable::{Unreachable, unreachable};
pub use value::{
    Access, ChainKind, ChainName, Comment, FilterName, IpSetName, Literal, Value, ValueError,
    VariableName, VariableUse, VariableValue,
};
pub use value_type::{LiteralError, ValueType};
pub use variable::{MAX_COMBINATIONS, VariableError, Variables, combinations};
pub use write::to_xml;
pub use xml::parse;

pub use crate::types::Parameter;
