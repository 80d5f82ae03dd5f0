//! Published ports: host ports whose connections and datagrams reach the guest.
//!
//! The grammar is `[ADDR:]HOSTPORT[-END][:GUESTPORT[-END]][/tcp|udp]`, with the protocol in upper
//! or lower case. ADDR is an IPv4 address, or an IPv6 address in brackets. Without ADDR the backend
//! listens on 127.0.0.1, so only the host itself can connect. GUESTPORT is the first port in the
//! guest; it defaults to the host's port. The guest's range is as long as the host's range. If the
//! guest's END is written too (docker's form), it must give that same length.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::checked_text::string_conversions;
use super::publish_error::PublishTextError;

/// The transport protocol of a published port. Exhaustive, because passt and slirp forward no
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP connections.
    Tcp,
    /// UDP datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// The ports `first..=last`; the range is never empty and never contains port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Makes the range `first..=last`, or `None` if `first` is 0 or greater than `last`.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first > 0 && first <= last).then_some(PortRange { first, last })
    }

    /// Returns the lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// Returns the highest port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Returns every port, in ascending order.
    pub fn ports(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }

    fn shared_with(self, other: PortRange) -> Option<u16> {
        let low = self.first.max(other.first);
        (low <= self.last.min(other.last)).then_some(low)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// One published port or range of ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Publish {
    /// The host's address that the backend listens on.
    pub address: IpAddr,
    /// The host's ports.
    pub host: PortRange,
    /// The guest's ports; there are as many as in `host`.
    pub guest: PortRange,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl FromStr for Publish {
    type Err = PublishTextError;

    fn from_str(text: &str) -> Result<Self, PublishTextError> {
        let form = || PublishTextError::Form(text.to_owned());
        let (rest, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((rest, word)) if word.eq_ignore_ascii_case("tcp") => (rest, Protocol::Tcp),
            Some((rest, word)) if word.eq_ignore_ascii_case("udp") => (rest, Protocol::Udp),
            Some((_, other)) => {
                return Err(PublishTextError::Protocol {
                    text: text.to_owned(),
                    protocol: other.to_owned(),
                });
            }
        };
        let (address, ports) = split_address(text, rest)?;
        let mut parts = ports.split(':');
        let host = port_range(text, parts.next().ok_or_else(form)?)?;
        let (first, end) = match parts.next() {
            Some(part) => match part.split_once('-') {
                Some(_) => port_range(text, part).map(|range| (range.first, Some(range.last)))?,
                None => (port(text, part)?, None),
            },
            None => (host.first, None),
        };
        if parts.next().is_some() {
            return Err(form());
        }
        let last = first
            .checked_add(host.last - host.first)
            .ok_or_else(|| PublishTextError::GuestRange(text.to_owned()))?;
        if let Some(end) = end.filter(|end| *end != last) {
            let guest = PortRange { first, last: end };
            return Err(PublishTextError::Length { text: text.to_owned(), host, guest, first });
        }
        Ok(Publish { address, host, guest: PortRange { first, last }, protocol })
    }
}

/// Splits the part before the protocol into the listening address and the ports.
fn split_address<'a>(text: &str, rest: &'a str) -> Result<(IpAddr, &'a str), PublishTextError> {
    let bad = |address: &str| PublishTextError::Address {
        text: text.to_owned(),
        address: address.to_owned(),
    };
    let (address, ports): (IpAddr, &str) = if let Some(inner) = rest.strip_prefix('[') {
        let (address, ports) =
            inner.split_once("]:").ok_or_else(|| PublishTextError::Form(text.to_owned()))?;
        (address.parse::<Ipv6Addr>().map_err(|_| bad(address))?.into(), ports)
    } else {
        match rest.split_once(':') {
            // Ports are digits and hyphens only. Any other character before the colon means an
            // address, which distinguishes 2222:22 from 0.0.0.0:22.
            Some((address, ports)) if !address.bytes().all(|b| b.is_ascii_digit() || b == b'-') => {
                (address.parse::<Ipv4Addr>().map_err(|_| bad(address))?.into(), ports)
            }
            _ => (Ipv4Addr::LOCALHOST.into(), rest),
        }
    };
    if let IpAddr::V6(v6) = address {
        let text = text.to_owned();
        if let Some(address) = v6.to_ipv4_mapped() {
            return Err(PublishTextError::Mapped { text, address });
        }
        if v6.is_unicast_link_local() {
            return Err(PublishTextError::LinkLocal { text, address: v6 });
        }
    }
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_multicast() || broadcast {
        return Err(PublishTextError::NotLocal { text: text.to_owned(), address });
    }
    Ok((address, ports))
}

fn port_range(text: &str, part: &str) -> Result<PortRange, PublishTextError> {
    let (first, last) = match part.split_once('-') {
        Some((first, last)) => (port(text, first)?, port(text, last)?),
        None => {
            let only = port(text, part)?;
            (only, only)
        }
    };
    PortRange::new(first, last).ok_or(PublishTextError::Backwards {
        text: text.to_owned(),
        first,
        last,
    })
}

fn port(text: &str, part: &str) -> Result<u16, PublishTextError> {
    let bad = || PublishTextError::Port { text: text.to_owned(), port: part.to_owned() };
    if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    part.parse().ok().filter(|p| *p > 0).ok_or_else(bad)
}

impl Publish {
    /// Returns whether this entry needs a port of the host that is one of another entry.
    pub fn needs(&self, other: &Publish, port: u16) -> bool {
        let both = [self.clone(), other.clone()];
        overlap(&both).is_some() && self.host.first <= port && port <= self.host.last
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:")?,
            IpAddr::V6(address) => write!(f, "[{address}]:")?,
        }
        write!(f, "{}:{}/{}", self.host, self.guest.first, self.protocol)
    }
}

string_conversions!(Publish, PublishTextError);

/// Returns the first two entries that need the same host port, and that port.
///
/// An entry with an unspecified address (0.0.0.0, ::) needs the port on every address of its
/// family.
pub fn overlap(list: &[Publish]) -> Option<(&Publish, &Publish, u16)> {
    list.iter().enumerate().find_map(|(i, a)| {
        list[..i].iter().find_map(|b| {
            let family = a.address.is_ipv4() == b.address.is_ipv4();
            let address = a.address == b.address
                || family && (a.address.is_unspecified() || b.address.is_unspecified());
            let port = a.host.shared_with(b.host)?;
            (address && a.protocol == b.protocol).then_some((b, a, port))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_of_the_grammar_is_read() {
        for (text, canonical) in [
            ("22", "127.0.0.1:22:22/tcp"),
            ("2222:22", "127.0.0.1:2222:22/tcp"),
            ("2222:22/udp", "127.0.0.1:2222:22/udp"),
            ("0.0.0.0:80", "0.0.0.0:80:80/tcp"),
            ("192.0.2.7:8080-8090:80", "192.0.2.7:8080-8090:80/tcp"),
            ("8080-8090", "127.0.0.1:8080-8090:8080/tcp"),
            ("[::1]:2223:22/tcp", "[::1]:2223:22/tcp"),
            ("[::]:53/udp", "[::]:53:53/udp"),
        ] {
            let publish: Publish = text.parse().unwrap();
            assert_eq!(publish.to_string(), canonical, "{text}");
            assert_eq!(canonical.parse(), Ok(publish));
        }
    }

    #[test]
    fn an_error_holds_the_part_that_is_wrong() {
        let t = |s: &str| s.to_owned();
        let port = |text: &str, port: &str| PublishTextError::Port { text: t(text), port: t(port) };
        let address =
            |text: &str, a: &str| PublishTextError::Address { text: t(text), address: t(a) };
        for (text, error) in [
            ("", port("", "")),
            ("0", port("0", "0")),
            (
                "[::ffff:127.0.0.1]:80:80",
                PublishTextError::Mapped {
                    text: "[::ffff:127.0.0.1]:80:80".into(),
                    address: Ipv4Addr::LOCALHOST,
                },
            ),
            (
                "[fe80::1]:80",
                PublishTextError::LinkLocal {
                    text: "[fe80::1]:80".into(),
                    address: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
                },
            ),
            ("65536", port("65536", "65536")),
            ("+80", port("+80", "+80")),
            ("80:", port("80:", "")),
            ("1:2:3", PublishTextError::Form(t("1:2:3"))),
            ("90-80", PublishTextError::Backwards { text: t("90-80"), first: 90, last: 80 }),
            ("80-90:65530", PublishTextError::GuestRange(t("80-90:65530"))),
            ("80-90:80-", port("80-90:80-", "")),
            ("host:80", address("host:80", "host")),
            ("1.2.3:80", address("1.2.3:80", "1.2.3")),
            ("[::1]80", PublishTextError::Form(t("[::1]80"))),
            ("[1.2.3.4]:80", address("[1.2.3.4]:80", "1.2.3.4")),
            (
                "224.0.0.1:80",
                PublishTextError::NotLocal {
                    text: t("224.0.0.1:80"),
                    address: "224.0.0.1".parse().unwrap(),
                },
            ),
            ("80/sctp", PublishTextError::Protocol { text: t("80/sctp"), protocol: t("sctp") }),
        ] {
            assert_eq!(text.parse::<Publish>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_guest_range_must_be_as_long_as_the_host_range() {
        for (text, canonical) in [
            ("8000-8010:9000-9010", "127.0.0.1:8000-8010:9000/tcp"),
            ("0.0.0.0:80:80-80/UDP", "0.0.0.0:80:80/udp"),
            ("[::1]:1-2:3-4/Tcp", "[::1]:1-2:3/tcp"),
        ] {
            assert_eq!(text.parse::<Publish>().unwrap().to_string(), canonical, "{text}");
        }
        for (text, why) in [
            (
                "8000-8010:9000-9009",
                "the ranges 8000-8010 and 9000-9009 in \"8000-8010:9000-9009\" have different lengths: write 8000-8010:9000",
            ),
            (
                "80:80-81",
                "the ranges 80 and 80-81 in \"80:80-81\" have different lengths: write 80:80",
            ),
            ("80-81:91-90", "the range 91-90 in \"80-81:91-90\" runs backwards: write 90-91"),
        ] {
            assert_eq!(text.parse::<Publish>().unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn entries_overlap_on_the_same_port_protocol_and_address() {
        let list =
            |texts: &[&str]| -> Vec<Publish> { texts.iter().map(|t| t.parse().unwrap()).collect() };
        for (texts, port) in [
            (&["80", "80"][..], Some(80)),
            (&["80", "0.0.0.0:80"], Some(80)),
            (&["8000-8010", "9000", "8005-8020"], Some(8005)),
            (&["80", "80/udp"], None),
            (&["80", "[::1]:80"], None),
            (&["[::]:80", "[::1]:80:81"], Some(80)),
            (&["127.0.0.1:80", "127.0.0.2:80"], None),
            (&["80-81", "82"], None),
        ] {
            assert_eq!(overlap(&list(texts)).map(|o| o.2), port, "{texts:?}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_value_parses_to_itself(text in "[0-9a-f:.\\[\\]/\\-tcpud]{0,30}") {
            if let Ok(publish) = text.parse::<Publish>() {
                prop_assert_eq!(publish.to_string().parse(), Ok(publish));
            }
        }
    }
}
