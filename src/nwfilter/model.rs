//! A network filter as a value: each part of libvirt's filter format has a type that can contain
//! only valid values.
//!
//! ```text
//! Filter ── Entry ─┬─ Rule ── Element ── (Attribute, Value)*
//!                  └─ FilterRef, to another Filter
//! ```
//!
//! A [`Filter`] is the content of a document. A [`RuleInstance`] is a rule in which every variable
//! is replaced by a value; [`super::flatten`] makes these.

use super::attribute::Attribute;
use super::protocol::{Layer, Protocol};
use super::value::{ChainName, FilterName, Literal, Value, VariableUse};
use crate::types::{EthernetAddress, Parameter, Uuid};
use crate::xml::Position;

/// The range of the priorities of rules and chains; the lowest number comes first.
pub const PRIORITIES: std::ops::RangeInclusive<i32> = -1000..=1000;
/// The default priority of a rule.
pub const RULE_PRIORITY: i32 = 500;

/// A network filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The name.
    pub name: FilterName,
    /// The chain that its rules are in.
    pub chain: ChainName,
    /// The position of the chain among root's rules, within [`PRIORITIES`]. If the document does
    /// not set it, it is the default of the chain's kind.
    pub priority: i32,
    /// The identifier, which stays the same if the filter is renamed.
    pub uuid: Uuid,
    /// The rules and references, in the document's order.
    pub entries: Vec<Entry>,
}

impl Filter {
    /// Returns the rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Rule(rule) => Some(rule),
            Entry::Reference(_) => None,
        })
    }

    /// Returns the references to other filters.
    pub fn references(&self) -> impl Iterator<Item = &FilterRef> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Rule(_) => None,
            Entry::Reference(reference) => Some(reference),
        })
    }
}

/// A part of a filter. Exhaustive, because a program that leaves a part out changes the filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A rule.
    Rule(Rule),
    /// A reference to another filter, whose rules also apply.
    Reference(FilterRef),
}

/// A reference to a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRef {
    /// The name of the filter.
    pub filter: FilterName,
    /// Values for the filter's variables, in the document's order; a name that occurs several times
    /// is a list.
    pub parameters: Vec<Parameter>,
}

/// A rule: an action for certain frames.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The action.
    pub action: Action,
    /// The direction of the frames.
    pub direction: Direction,
    /// The priority of the rule, within [`PRIORITIES`].
    pub priority: i32,
    /// Whether an accepting rule of the network layer also accepts the answers, by connection
    /// tracking.
    pub statematch: bool,
    /// The condition for the frames; `None` means all frames.
    pub element: Option<Element>,
    /// The position of the rule's start in its document.
    pub place: Position,
}

/// The comparison ignores the position in the document.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        let fields = |rule: &Rule| (rule.action, rule.direction, rule.priority, rule.statematch);
        fields(self) == fields(other) && self.element == other.element
    }
}

impl Eq for Rule {}

/// The action of a rule. Exhaustive, because a program must not guess what happens to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The frame passes; no further rule of its layer is evaluated.
    Accept,
    /// The frame is dropped without an answer.
    Drop,
    /// The frame is dropped, and the network layer sends an error to the sender.
    Reject,
    /// Evaluation continues in the calling chain.
    Return,
    /// Evaluation continues at the next rule.
    Continue,
}

impl Action {
    /// All actions with their names in the format.
    pub const NAMES: [(&'static str, Action); 5] = [
        ("accept", Action::Accept),
        ("drop", Action::Drop),
        ("reject", Action::Reject),
        ("return", Action::Return),
        ("continue", Action::Continue),
    ];

    /// Returns the action's name in the format.
    pub fn name(self) -> &'static str {
        let found = Action::NAMES.iter().find(|(_, action)| *action == self);
        found.map_or("", |(name, _)| name)
    }
}

/// The direction of frames. Exhaustive, because there is no fourth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the guest.
    In,
    /// From the guest.
    Out,
    /// In both directions.
    InOut,
}

impl Direction {
    /// All directions with their names in the format.
    pub const NAMES: [(&'static str, Direction); 3] =
        [("in", Direction::In), ("out", Direction::Out), ("inout", Direction::InOut)];

    /// Returns the direction's name in the format.
    pub fn name(self) -> &'static str {
        let found = Direction::NAMES.iter().find(|(_, direction)| *direction == self);
        found.map_or("", |(name, _)| name)
    }
}

/// The condition of a rule: a protocol and attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The protocol.
    pub protocol: Protocol,
    /// Whether the attributes must differ (`match='no'`).
    pub negated: bool,
    /// The attributes, in the order of [`Protocol::fields`], without duplicates.
    pub attributes: Vec<(Attribute, Value)>,
}

impl Element {
    /// Returns the value of an attribute.
    pub fn get(&self, attribute: Attribute) -> Option<&Value> {
        self.attributes.iter().find(|(name, _)| *name == attribute).map(|(_, value)| value)
    }

    /// Returns the uses of variables, including repeated ones.
    pub fn variables(&self) -> impl Iterator<Item = &VariableUse> {
        self.attributes.iter().filter_map(|(_, value)| match value {
            Value::Literal(_) => None,
            Value::Variable(variable) => Some(variable),
        })
    }
}

/// A rule in which every variable is replaced by a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInstance {
    /// The action.
    pub action: Action,
    /// The direction of the frames.
    pub direction: Direction,
    /// The priority.
    pub priority: i32,
    /// Whether an accepting rule of the network layer also accepts the answers.
    pub statematch: bool,
    /// The condition for the frames; `None` means all frames.
    pub condition: Option<Condition>,
    /// The position of the rule in its filter's document.
    pub place: Position,
}

impl RuleInstance {
    /// Returns the layer that evaluates the rule.
    pub fn layer(&self) -> Layer {
        self.condition.as_ref().map_or(Layer::Link, |condition| condition.protocol.layer())
    }
}

/// The condition of a rule without variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The protocol.
    pub protocol: Protocol,
    /// Whether the attributes must differ.
    pub negated: bool,
    /// The attributes, in the order of [`Protocol::fields`], without duplicates. An address with a
    /// prefix length is split into an address and a mask.
    pub attributes: Vec<(Attribute, Literal)>,
}

impl Condition {
    /// Returns the value of an attribute.
    pub fn get(&self, attribute: Attribute) -> Option<&Literal> {
        self.attributes.iter().find(|(name, _)| *name == attribute).map(|(_, literal)| literal)
    }

    /// Returns the value of an attribute that is a number.
    pub fn number(&self, attribute: Attribute) -> Option<u32> {
        match self.get(attribute)? {
            Literal::Number { value, .. } => Some(*value),
            _ => None,
        }
    }

    /// Returns the value of an attribute that is an Ethernet address or a mask of one.
    pub fn mac(&self, attribute: Attribute) -> Option<EthernetAddress> {
        match self.get(attribute)? {
            Literal::Mac(address) | Literal::MacMask(address) => Some(*address),
            _ => None,
        }
    }
}

/// Consecutive rules of one filter in its chain. A filter with references has several parts, with
/// the rules of the referenced filters between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlatFilter {
    /// The filter.
    pub filter: FilterName,
    /// Its chain.
    pub chain: ChainName,
    /// The chain's priority.
    pub priority: i32,
    /// The rules in the document's order; a rule with lists occurs once for each combination.
    pub rules: Vec<RuleInstance>,
    /// Whether a DHCP message that a rule with a MAC address accepts must have that address as its
    /// client's (`CTRL_DHCP_CLIENT`).
    pub own_dhcp_client: bool,
    /// Whether a neighbor discovery message that a rule with a MAC address accepts may name only
    /// that address and the rule's IPv6 address as its sender's (`CTRL_ND_MESSAGE`).
    pub own_nd_message: bool,
}
