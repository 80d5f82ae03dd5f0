//! Writes explanations as text for the user.

use std::fmt::{self, Display, Formatter};

use super::evaluate::{
    Candidate, Decider, Dependency, EvalPath, Explanation, Outcome, Stage, StageEnd, Verdict,
};
use crate::firewall::rules::Version;
use crate::firewall::rules::port::{
    Address, Addresses, ConnectionDirection, End, FrameKind, Hardware, NeighborMessage,
    NeighborOption, Number, PortVerdict, State, Test,
};

impl EvalPath {
    /// Returns the name, as in a rule's direction.
    pub fn name(self) -> &'static str {
        match self {
            EvalPath::Out => "out",
            EvalPath::In => "in",
        }
    }
}

impl Verdict {
    /// Returns whether the frame does not pass.
    pub fn stops(self) -> bool {
        matches!(self, Verdict::Drop | Verdict::Reject)
    }

    /// Returns the name of the verdict.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Drop => "drop",
            Verdict::Reject => "reject",
            Verdict::Undecided => "undecided",
        }
    }
}

/// Returns the name of the action that corresponds to a rule's verdict.
pub fn action(verdict: PortVerdict) -> &'static str {
    match verdict {
        PortVerdict::Accept => "accept",
        PortVerdict::Drop => "drop",
        PortVerdict::Reject => "reject",
        PortVerdict::Return => "return",
        PortVerdict::Continue => "continue",
    }
}

impl Display for Dependency {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Dependency::Set(name) => write!(f, "depends on the ipset {name}"),
            Dependency::Connections(above) => {
                write!(f, "depends on whether the source has more than {above} connections")
            }
            Dependency::Begin => {
                write!(f, "depends on the first fragment of the packet, which is missing")
            }
        }
    }
}

impl Display for Decider<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let origin = &self.rule.origin;
        write!(f, "filter {} line {} ", origin.filter, origin.line)?;
        match self.chain {
            Some(chain) => write!(f, "(chain {chain})"),
            None => write!(f, "(IP rules)"),
        }
    }
}

impl Display for StageEnd<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (&self.rule, self.stage) {
            (None, Stage::Packets) if !self.depends.is_empty() => {
                write!(f, "it {}", self.depends[0].0)
            }
            (None, Stage::Packets) if self.verdict.stops() => {
                write!(f, "a link-local address, to which no connections are tracked")
            }
            (None, Stage::Frames) => write!(f, "the end of chain root"),
            (None, Stage::Packets) => write!(f, "the end of the IP rules"),
            (Some(decider), _) => {
                decider.fmt(f)?;
                match self.depends.first() {
                    Some((dependency, _)) => write!(f, " {dependency}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Writes the verdict and the place at which it was reached.
impl Display for Explanation<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.verdict.name())?;
        // If one stage drops a frame, the verdict of the other stage does not matter.
        let counts =
            |stage: &&StageEnd<'_>| self.verdict == Verdict::Pass || stage.verdict == self.verdict;
        for (number, stage) in self.stages.iter().filter(counts).enumerate() {
            let between = if number == 0 { "" } else { ", then " };
            write!(f, "{between}{stage}")?;
        }
        Ok(())
    }
}

impl Display for Candidate<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Candidate::Chain(chain) => write!(f, "chain {}", chain.name),
            Candidate::Rule(rule) => {
                let (origin, action) = (&rule.origin, action(rule.verdict));
                write!(f, "filter {} line {} ({action})", origin.filter, origin.line)
            }
        }
    }
}

impl Display for Outcome<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Applies => write!(f, "applies"),
            Outcome::Kind(kind) => write!(f, "no: is not {}", Words(kind)),
            Outcome::Fails(test) => write!(f, "no: does not have {}", Words(*test)),
            Outcome::Depends(dependency) => dependency.fmt(f),
        }
    }
}

/// A part of a rule, which is written as text.
struct Words<'a, T>(&'a T);

impl Display for Words<'_, FrameKind> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            FrameKind::Any => write!(f, "a frame"),
            FrameKind::Vlan => write!(f, "a frame with a VLAN tag"),
            FrameKind::Stp => write!(f, "a frame to the bridge group address"),
            FrameKind::Arp => write!(f, "ARP"),
            FrameKind::Rarp => write!(f, "RARP"),
            FrameKind::Ip(version, protocol) => {
                write!(f, "{}", if *version == Version::V4 { "IPv4" } else { "IPv6" })?;
                protocol.map_or(Ok(()), |number| write!(f, " of protocol {number}"))
            }
        }
    }
}

fn range(
    f: &mut Formatter<'_>,
    first: impl Display + PartialEq,
    last: impl Display + PartialEq,
) -> fmt::Result {
    let (first, last) = (first.to_string(), last.to_string());
    if first == last { write!(f, "{first}") } else { write!(f, "{first} to {last}") }
}

impl Display for Words<'_, Test> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let other = |negated: &bool| if *negated { "other than " } else { "" };
        match self.0 {
            Test::Hardware { field, address, mask, negated } => {
                let text = |bytes: &[u8; 6]| bytes.map(|byte| format!("{byte:02x}")).join(":");
                write!(f, "{} {}{}", Words(field), other(negated), text(address))?;
                if *mask == [0xff; 6] { Ok(()) } else { write!(f, "/{}", text(mask)) }
            }
            Test::Number { field, first, last, negated } => {
                write!(f, "{} {}", Words(field), other(negated))?;
                match field {
                    Number::EtherType | Number::VlanEncapsulated | Number::ArpProtocol => {
                        range(f, format!("{first:#06x}"), format!("{last:#06x}"))
                    }
                    _ => range(f, first, last),
                }
            }
            Test::Address { field, addresses, negated } => {
                write!(f, "{} {}", Words(field), other(negated))?;
                match addresses {
                    Addresses::Net(net) if net.prefix_len() == net.max_prefix_len() => {
                        write!(f, "{}", net.addr())
                    }
                    Addresses::Net(net) => write!(f, "{net}"),
                    Addresses::Range(range) => write!(f, "{range}"),
                }
            }
            Test::Gratuitous => write!(f, "the same ARP sender and target address"),
            Test::Icmp { types, codes, negated } => {
                write!(f, "an ICMP type {}", other(negated))?;
                range(f, types.0, types.1)?;
                match codes {
                    None => Ok(()),
                    Some((first, last)) => {
                        write!(f, " with code ")?;
                        range(f, first, last)
                    }
                }
            }
            Test::Neighbor(message) => write!(f, "{}", Words(message)),
            Test::TcpFlags { mask, flags, negated } => {
                write!(f, "TCP flags {}{flags:#04x} of {mask:#04x}", other(negated))
            }
            Test::Set { name, sides, negated } => {
                let side = |side: &End| if *side == End::Source { "source" } else { "destination" };
                let sides: Vec<_> = sides.iter().map(side).collect();
                let not = if *negated { "not " } else { "" };
                write!(f, "its {} {not}in the ipset {name}", sides.join(" and "))
            }
            Test::Connections { above } => write!(f, "a source with more than {above} connections"),
            Test::State { states, direction } => {
                let word = |state: &State| match state {
                    State::New => "new",
                    State::Established => "established",
                    State::Related => "related",
                    State::Invalid => "invalid",
                };
                let states: Vec<_> = states.iter().map(word).collect();
                write!(f, "the state {}", states.join(" or "))?;
                match direction {
                    None => Ok(()),
                    Some(ConnectionDirection::Original) => {
                        write!(f, ", sent by the connection's opener")
                    }
                    Some(ConnectionDirection::Reply) => {
                        write!(f, ", sent to the connection's opener")
                    }
                }
            }
        }
    }
}

impl Display for Words<'_, NeighborMessage> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let NeighborMessage { target, option, .. } = self.0;
        write!(f, "a neighbor discovery message")?;
        if let Some(target) = target {
            match target.prefix_len() {
                128 => write!(f, " for {}", target.addr())?,
                _ => write!(f, " for an address of {target}")?,
            }
        }
        match option {
            NeighborOption::None => write!(f, " without options"),
            NeighborOption::Nonce => write!(f, " with only a nonce"),
            NeighborOption::LinkAddress(address) => {
                let text = address.map(|byte| format!("{byte:02x}")).join(":");
                write!(f, " with only the hardware address {text}")
            }
        }
    }
}

impl Display for Words<'_, Hardware> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Hardware::Source => "the source MAC address",
            Hardware::Destination => "the destination MAC address",
            Hardware::ArpSender => "the ARP sender's MAC address",
            Hardware::ArpTarget => "the ARP target's MAC address",
            Hardware::StpRoot => "the STP root's address",
            Hardware::StpSender => "the STP sender's address",
            Hardware::DhcpClient => "the DHCP client's MAC address",
        })
    }
}

impl Display for Words<'_, Address> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Address::Source => "the source address",
            Address::Destination => "the destination address",
            Address::ArpSender => "the ARP sender's address",
            Address::ArpTarget => "the ARP target's address",
        })
    }
}

impl Display for Words<'_, Number> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Number::EtherType => "the EtherType",
            Number::VlanId => "the VLAN",
            Number::VlanEncapsulated => "the EtherType in the VLAN",
            Number::StpType => "the STP type",
            Number::StpFlags => "the STP flags",
            Number::StpRootPriority => "the STP root's priority",
            Number::StpRootCost => "the STP root's cost",
            Number::StpSenderPriority => "the STP sender's priority",
            Number::StpPort => "the STP port",
            Number::StpAge => "the STP message's age",
            Number::StpMaxAge => "the STP maximum age",
            Number::StpHelloTime => "the STP hello time",
            Number::StpForwardDelay => "the STP forward delay",
            Number::ArpHardware => "the ARP hardware type",
            Number::ArpProtocol => "the ARP protocol type",
            Number::ArpOperation => "the ARP operation",
            Number::Protocol => "the IP protocol",
            Number::Dscp => "the DSCP",
            Number::SourcePort => "the source port",
            Number::DestinationPort => "the destination port",
        })
    }
}
