//! A network filter as a value: what libvirt's filter format says, each part in a type that can
//! only hold what the format has.
//!
//! ```text
//! Filter ── Entry ─┬─ Rule ── Element ── (Attribute, Value)*
//!                  └─ FilterRef, to another Filter
//! ```
//!
//! A [`Filter`] is what a document says. A [`RuleInstance`] is a rule with every variable replaced,
//! so it says what is done with which frames; [`super::flatten`] makes them.

use super::attribute::Attribute;
use super::protocol::{Layer, Protocol};
use super::value::{
    ChainName, FilterName, Literal, Value, VariableName, VariableUse, VariableValue,
};
use crate::types::{EthernetAddress, Uuid};
use crate::xml::Place;

/// Priorities of rules and chains: the lowest comes first.
pub const PRIORITIES: std::ops::RangeInclusive<i32> = -1000..=1000;
/// The priority of a rule that has none of its own.
pub const RULE_PRIORITY: i32 = 500;

/// A network filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What it is called.
    pub name: FilterName,
    /// The chain that its rules are in.
    pub chain: ChainName,
    /// Where the chain stands among root's rules, of [`PRIORITIES`]; of a document without one, the
    /// default of the chain's kind.
    pub priority: i32,
    /// What it is known by however it is called.
    pub uuid: Uuid,
    /// Its rules and references, in the document's order.
    pub entries: Vec<Entry>,
}

impl Filter {
    /// Its rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Rule(rule) => Some(rule),
            Entry::Reference(_) => None,
        })
    }

    /// Its references to other filters.
    pub fn references(&self) -> impl Iterator<Item = &FilterRef> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Rule(_) => None,
            Entry::Reference(reference) => Some(reference),
        })
    }
}

/// What a filter is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A rule.
    Rule(Rule),
    /// Another filter, whose rules apply, too.
    Reference(FilterRef),
}

/// A reference to a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRef {
    /// Which.
    pub filter: FilterName,
    /// Values for variables of it, in the document's order; a name may come several times, and is a
    /// list then.
    pub parameters: Vec<Parameter>,
}

/// One value of a variable.
pub type Parameter = (VariableName, VariableValue);

/// What is done with some frames.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What.
    pub action: Action,
    /// Whether they come from the guest or go to it.
    pub direction: Direction,
    /// When the rule's turn is, of [`PRIORITIES`].
    pub priority: i32,
    /// Whether an accepting rule of the network layer lets the answers pass, too, by connection
    /// tracking.
    pub statematch: bool,
    /// What frames look like; `None` is all frames.
    pub element: Option<Element>,
    /// Where the rule starts in its document.
    pub place: Place,
}

/// Rules are the same wherever they stand in a document.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        let fields = |rule: &Rule| (rule.action, rule.direction, rule.priority, rule.statematch);
        fields(self) == fields(other) && self.element == other.element
    }
}

impl Eq for Rule {}

/// What is done with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It passes; no further rule of its layer sees it.
    Accept,
    /// It vanishes.
    Drop,
    /// It vanishes, and the network layer tells its sender.
    Reject,
    /// The chain that called this one goes on with it.
    Return,
    /// The next rule sees it.
    Continue,
}

impl Action {
    /// All of them, and their words.
    pub const NAMES: [(&'static str, Action); 5] = [
        ("accept", Action::Accept),
        ("drop", Action::Drop),
        ("reject", Action::Reject),
        ("return", Action::Return),
        ("continue", Action::Continue),
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        let found = Action::NAMES.iter().find(|(_, action)| *action == self);
        found.map_or("", |(name, _)| name)
    }
}

/// Which way frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the guest.
    In,
    /// From the guest.
    Out,
    /// Both ways.
    InOut,
}

impl Direction {
    /// All of them, and their words.
    pub const NAMES: [(&'static str, Direction); 3] =
        [("in", Direction::In), ("out", Direction::Out), ("inout", Direction::InOut)];

    /// Its word.
    pub fn name(self) -> &'static str {
        let found = Direction::NAMES.iter().find(|(_, direction)| *direction == self);
        found.map_or("", |(name, _)| name)
    }
}

/// What frames look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The protocol.
    pub protocol: Protocol,
    /// Whether the attributes are to be different (`match='no'`).
    pub negated: bool,
    /// The attributes, in the order of [`Protocol::fields`], each once.
    pub attributes: Vec<(Attribute, Value)>,
}

impl Element {
    /// The value of an attribute.
    pub fn get(&self, attribute: Attribute) -> Option<&Value> {
        self.attributes.iter().find(|(name, _)| *name == attribute).map(|(_, value)| value)
    }

    /// The variables in it, as often as they are used.
    pub fn variables(&self) -> impl Iterator<Item = &VariableUse> {
        self.attributes.iter().filter_map(|(_, value)| match value {
            Value::Literal(_) => None,
            Value::Variable(variable) => Some(variable),
        })
    }
}

/// A rule without variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInstance {
    /// What is done.
    pub action: Action,
    /// Which way the frames go.
    pub direction: Direction,
    /// When its turn is.
    pub priority: i32,
    /// Whether an accepting rule of the network layer lets the answers pass, too.
    pub statematch: bool,
    /// What the frames look like; `None` is all frames.
    pub condition: Option<Condition>,
    /// Where the rule is in its filter's document.
    pub place: Place,
}

impl RuleInstance {
    /// Where it is checked.
    pub fn layer(&self) -> Layer {
        self.condition.as_ref().map_or(Layer::Link, |condition| condition.protocol.layer())
    }
}

/// What frames look like, without variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The protocol.
    pub protocol: Protocol,
    /// Whether the attributes are to be different.
    pub negated: bool,
    /// The attributes, in the order of [`Protocol::fields`], each once. A value that was an address
    /// with a prefix length is an address and a mask here.
    pub attributes: Vec<(Attribute, Literal)>,
}

impl Condition {
    /// The value of an attribute.
    pub fn get(&self, attribute: Attribute) -> Option<&Literal> {
        self.attributes.iter().find(|(name, _)| *name == attribute).map(|(_, literal)| literal)
    }

    /// The value of an attribute that is a number.
    pub fn number(&self, attribute: Attribute) -> Option<u32> {
        match self.get(attribute)? {
            Literal::Number { value, .. } => Some(*value),
            _ => None,
        }
    }

    /// The value of an attribute that is an Ethernet address or a mask of one.
    pub fn mac(&self, attribute: Attribute) -> Option<EthernetAddress> {
        match self.get(attribute)? {
            Literal::Mac(address) | Literal::MacMask(address) => Some(*address),
            _ => None,
        }
    }
}

/// Rules of one filter that follow each other, in its chain. A filter that refers to others comes
/// in several parts, the others' between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlatFilter {
    /// The filter.
    pub filter: FilterName,
    /// Its chain.
    pub chain: ChainName,
    /// The chain's priority.
    pub priority: i32,
    /// The rules in the document's order, those with lists as often as they have combinations.
    pub rules: Vec<RuleInstance>,
    /// Whether DHCP messages that a rule with a MAC address accepts must have that address as their
    /// client's (`CTRL_DHCP_CLIENT`).
    pub own_dhcp_client: bool,
}
