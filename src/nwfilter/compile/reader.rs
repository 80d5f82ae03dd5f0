//! Converts the attributes of a condition to tests.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::firewall::rules::AddressRange;
use crate::firewall::rules::port::{Address, Addresses, End, Hardware, Number, Test};
use crate::nwfilter::{Attribute as A, Condition, Literal, Protocol, SetDirection};

/// Converts the attributes of a condition to tests.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) condition: &'a Condition,
    pub(super) swapped: bool,
    pub(super) negated: bool,
}

impl Reader<'_> {
    /// Returns the tests of a link rule, in the order of the frame's fields.
    pub(super) fn link(&self) -> Vec<Test> {
        const STP: [(A, Option<A>, Number); 10] = [
            (A::Type, None, Number::StpType),
            (A::Flags, None, Number::StpFlags),
            (A::RootPriority, Some(A::RootPriorityHi), Number::StpRootPriority),
            (A::RootCost, Some(A::RootCostHi), Number::StpRootCost),
            (A::SenderPriority, Some(A::SenderPriorityHi), Number::StpSenderPriority),
            (A::Port, Some(A::PortHi), Number::StpPort),
            (A::Age, Some(A::AgeHi), Number::StpAge),
            (A::MaxAge, Some(A::MaxAgeHi), Number::StpMaxAge),
            (A::HelloTime, Some(A::HelloTimeHi), Number::StpHelloTime),
            (A::ForwardDelay, Some(A::ForwardDelayHi), Number::StpForwardDelay),
        ];
        let mut tests: Vec<Test> = [
            self.hardware(A::SrcMacAddr, A::SrcMacMask, Hardware::Source),
            self.hardware(A::DstMacAddr, A::DstMacMask, Hardware::Destination),
        ]
        .into_iter()
        .flatten()
        .collect();
        match self.condition.protocol {
            Protocol::Vlan => {
                tests.extend(self.number(A::VlanId, None, Number::VlanId));
                tests.extend(self.number(A::EncapProtocol, None, Number::VlanEncapsulated));
            }
            Protocol::Stp => {
                for (first, last, field) in STP {
                    tests.extend(self.number(first, last, field));
                }
                tests.extend(self.hardware(A::RootAddress, A::RootAddressMask, Hardware::StpRoot));
                tests.extend(self.hardware(
                    A::SenderAddress,
                    A::SenderAddressMask,
                    Hardware::StpSender,
                ));
            }
            Protocol::Arp | Protocol::Rarp => tests.extend(self.arp()),
            Protocol::Ip | Protocol::Ipv6 => {
                tests.extend(self.addresses());
                tests.extend(self.number(A::IpProtocol, None, Number::Protocol));
                tests.extend(self.ports());
                tests.extend(self.icmp());
                tests.extend(self.number(A::Dscp, None, Number::Dscp));
            }
            _ => {}
        }
        tests
    }

    fn arp(&self) -> Vec<Test> {
        let mut tests: Vec<Test> = [
            self.number(A::HwType, None, Number::ArpHardware),
            self.number(A::ProtocolType, None, Number::ArpProtocol),
            self.number(A::Opcode, None, Number::ArpOperation),
            self.hardware(A::ArpSrcMacAddr, A::ArpSrcMacAddr, Hardware::ArpSender),
            self.hardware(A::ArpDstMacAddr, A::ArpDstMacAddr, Hardware::ArpTarget),
            self.address(A::ArpSrcIpAddr, A::ArpSrcIpMask, Address::ArpSender),
            self.address(A::ArpDstIpAddr, A::ArpDstIpMask, Address::ArpTarget),
        ]
        .into_iter()
        .flatten()
        .collect();
        if self.condition.get(A::Gratuitous) == Some(&Literal::Boolean(true)) {
            tests.push(Test::Gratuitous);
        }
        tests
    }

    /// Returns the tests of a network rule, except those of the MAC address, the state and the
    /// number of connections.
    pub(super) fn network(&self) -> Vec<Test> {
        let mut tests = self.addresses();
        tests.extend(self.range(A::SrcIpFrom, A::SrcIpTo, Address::Source));
        tests.extend(self.range(A::DstIpFrom, A::DstIpTo, Address::Destination));
        // In the network layer, `match='no'` does not negate ports (measured).
        tests.extend(Reader { negated: false, ..*self }.ports());
        tests.extend(self.number(A::Dscp, None, Number::Dscp));
        tests.extend(self.icmp());
        if let Some(Literal::TcpFlags(value)) = self.condition.get(A::Flags) {
            tests.push(Test::TcpFlags {
                mask: value.mask,
                flags: value.flags,
                negated: self.negated,
            });
        }
        if let (Some(Literal::IpSet(name)), Some(Literal::IpSetFlags(sides))) =
            (self.condition.get(A::IpSet), self.condition.get(A::IpSetFlags))
        {
            let side = |side: &SetDirection| match (side, self.swapped) {
                (SetDirection::Src, false) | (SetDirection::Dst, true) => End::Source,
                _ => End::Destination,
            };
            tests.push(Test::Set {
                name: name.to_string(),
                sides: sides.iter().map(side).collect(),
                negated: self.negated,
            });
        }
        tests
    }

    /// Returns the test of the number of connections.
    pub(super) fn connections(&self) -> Option<Test> {
        self.condition.number(A::ConnlimitAbove).map(|above| Test::Connections { above })
    }

    fn addresses(&self) -> Vec<Test> {
        let source = self.address(A::SrcIpAddr, A::SrcIpMask, Address::Source);
        let destination = self.address(A::DstIpAddr, A::DstIpMask, Address::Destination);
        source.into_iter().chain(destination).collect()
    }

    fn ports(&self) -> Vec<Test> {
        let source = self.number(A::SrcPortStart, Some(A::SrcPortEnd), Number::SourcePort);
        let destination =
            self.number(A::DstPortStart, Some(A::DstPortEnd), Number::DestinationPort);
        source.into_iter().chain(destination).collect()
    }

    pub(super) fn hardware(&self, address: A, mask: A, field: Hardware) -> Option<Test> {
        let field = match (field, self.swapped) {
            (Hardware::Source, true) => Hardware::Destination,
            (Hardware::Destination, true) => Hardware::Source,
            (Hardware::ArpSender, true) => Hardware::ArpTarget,
            (Hardware::ArpTarget, true) => Hardware::ArpSender,
            (other, _) => other,
        };
        let address = self.condition.mac(address)?.octets();
        let mask = match self.condition.get(mask) {
            Some(Literal::MacMask(mask)) => mask.octets(),
            _ => [0xff; 6],
        };
        Some(Test::Hardware { field, address, mask, negated: self.negated })
    }

    pub(super) fn number(&self, first: A, last: Option<A>, field: Number) -> Option<Test> {
        let field = match (field, self.swapped) {
            (Number::SourcePort, true) => Number::DestinationPort,
            (Number::DestinationPort, true) => Number::SourcePort,
            (other, _) => other,
        };
        let first = self.condition.number(first)?;
        let last = last.and_then(|last| self.condition.number(last)).unwrap_or(first);
        Some(Test::Number { field, first, last, negated: self.negated })
    }

    fn icmp(&self) -> Option<Test> {
        /// For ICMP (IPv4), iptables and its kernel module treat this type as all types.
        const ANY_TYPE: u8 = 255;
        let (first, last) = self.byte_range(A::Type, A::TypeEnd)?;
        let codes = self.byte_range(A::Code, A::CodeEnd);
        if self.condition.protocol == Protocol::Icmp && first == ANY_TYPE {
            let all = Test::Icmp { types: (0, u8::MAX), codes: None, negated: true };
            return self.negated.then_some(all);
        }
        Some(Test::Icmp { types: (first, last), codes, negated: self.negated })
    }

    fn byte_range(&self, first: A, last: A) -> Option<(u8, u8)> {
        let byte = |attribute| self.condition.number(attribute).and_then(|n| u8::try_from(n).ok());
        let first = byte(first)?;
        Some((first, byte(last).unwrap_or(first)))
    }

    fn swapped_address(&self, field: Address) -> Address {
        match (field, self.swapped) {
            (Address::Source, true) => Address::Destination,
            (Address::Destination, true) => Address::Source,
            (Address::ArpSender, true) => Address::ArpTarget,
            (Address::ArpTarget, true) => Address::ArpSender,
            (other, _) => other,
        }
    }

    fn address(&self, address: A, mask: A, field: Address) -> Option<Test> {
        let net = match self.condition.get(address)? {
            Literal::V4(address) => {
                let length = match self.condition.get(mask) {
                    Some(Literal::V4Mask(length)) => *length,
                    _ => 32,
                };
                IpNet::V4(Ipv4Net::new(*address, length).ok()?.trunc())
            }
            Literal::V6(address) => {
                let length = match self.condition.get(mask) {
                    Some(Literal::V6Mask(length)) => *length,
                    _ => 128,
                };
                IpNet::V6(Ipv6Net::new(*address, length).ok()?.trunc())
            }
            _ => return None,
        };
        let field = self.swapped_address(field);
        Some(Test::Address { field, addresses: Addresses::Net(net), negated: self.negated })
    }

    fn range(&self, first: A, last: A, field: Address) -> Option<Test> {
        let from = self.condition.get(first)?;
        let range = match (from, self.condition.get(last).unwrap_or(from)) {
            (Literal::V4(first), Literal::V4(last)) => AddressRange::V4(*first, *last),
            (Literal::V6(first), Literal::V6(last)) => AddressRange::V6(*first, *last),
            _ => return None,
        };
        let field = self.swapped_address(field);
        Some(Test::Address { field, addresses: Addresses::Range(range), negated: self.negated })
    }
}
