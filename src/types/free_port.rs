//! Published ports for which netlaunch finds a free port of the host.
//!
//! The grammar is that of [`Publish`] with the host's port 0: `[ADDR:]0:GUESTPORT[/tcp|udp]`. One
//! free port belongs to one port of the guest, so there are no ranges.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::checked_text::string_conversions;
use super::publish::{PortRange, Protocol, Publish};
use super::publish_error::PublishTextError;

/// A port of the guest that gets a free port of the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FreePort {
    /// The host's address that the backend listens on.
    pub address: IpAddr,
    /// The guest's port; never 0.
    guest: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl FreePort {
    /// Returns the published port with this port of the host; `None` if the port is 0.
    pub fn with_host_port(&self, port: u16) -> Option<Publish> {
        let (host, guest) = (PortRange::new(port, port)?, PortRange::new(self.guest, self.guest)?);
        Some(Publish { address: self.address, host, guest, protocol: self.protocol })
    }
}

impl fmt::Display for FreePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:")?,
            IpAddr::V6(address) => write!(f, "[{address}]:")?,
        }
        write!(f, "0:{}/{}", self.guest, self.protocol)
    }
}

/// A published port as a user asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum PublishRequest {
    /// Named ports of the host.
    Ports(Publish),
    /// A free port of the host.
    Free(FreePort),
}

impl From<Publish> for PublishRequest {
    fn from(publish: Publish) -> Self {
        PublishRequest::Ports(publish)
    }
}

impl fmt::Display for PublishRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishRequest::Ports(publish) => publish.fmt(f),
            PublishRequest::Free(free) => free.fmt(f),
        }
    }
}

impl FromStr for PublishRequest {
    type Err = PublishTextError;

    fn from_str(text: &str) -> Result<Self, PublishTextError> {
        let Some((before, behind)) = free_host_port(text) else {
            return Ok(PublishRequest::Ports(text.parse()?));
        };
        // The rest has the grammar of a published port, so its parser reads it with the guest's
        // port in the place of the host's. Its errors hold the caller's text.
        let Publish { address, host, protocol, .. } = format!("{before}{behind}")
            .parse()
            .map_err(|error: PublishTextError| error.about(text))?;
        if behind.contains(':') {
            return Err(PublishTextError::Form(text.to_owned()));
        }
        if host.first() != host.last() {
            return Err(PublishTextError::FreeRange(text.to_owned()));
        }
        Ok(PublishRequest::Free(FreePort { address, guest: host.first(), protocol }))
    }
}

/// Splits a text with the host's port 0 into the parts before and behind `0:`.
fn free_host_port(text: &str) -> Option<(&str, &str)> {
    let ports = match text.rfind(']') {
        Some(bracket) => text.get(bracket + 1..)?.strip_prefix(':')?,
        None => match text.split_once(':') {
            Some((address, rest)) if address.contains('.') => rest,
            _ => text,
        },
    };
    let behind = ports.strip_prefix("0:")?;
    Some((text.get(..text.len() - ports.len())?, behind))
}

string_conversions!(PublishRequest, PublishTextError);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn host_port_0_asks_for_a_free_port() {
        for (text, canonical) in [
            ("0:22", "127.0.0.1:0:22/tcp"),
            ("0:53/udp", "127.0.0.1:0:53/udp"),
            ("0.0.0.0:0:80", "0.0.0.0:0:80/tcp"),
            ("[::1]:0:443/TCP", "[::1]:0:443/tcp"),
        ] {
            let request: PublishRequest = text.parse().unwrap();
            assert!(matches!(request, PublishRequest::Free(_)), "{text}");
            assert_eq!(request.to_string(), canonical, "{text}");
            assert_eq!(canonical.parse(), Ok(request));
        }
        for text in ["22", "2222:22", "10:22", "0.0.0.0:80", "[::]:53/udp"] {
            assert_eq!(text.parse(), Ok(PublishRequest::Ports(text.parse().unwrap())), "{text}");
        }
    }

    #[test]
    fn an_error_about_a_free_port_holds_the_whole_text() {
        for (text, why) in [
            ("0:", "\"\" in \"0:\" is not a port"),
            ("0:0", "\"0\" in \"0:0\" is not a port"),
            ("0:80-90", "\"0:80-90\" asks for one free port for several ports of the guest"),
            ("0:1:2", "\"0:1:2\" is not [ADDR:]"),
            ("0:22/sctp", "\"sctp\" in \"0:22/sctp\" is not a protocol"),
            ("224.0.0.1:0:22", "224.0.0.1 in \"224.0.0.1:0:22\" cannot be listened on"),
            ("0-1:22", "\"0\" in \"0-1:22\" is not a port"),
            (
                "0",
                "\"0\" in \"0\" is not a port: use 1 to 65535, or 0:GUESTPORT for a free port of the",
            ),
        ] {
            let error = text.parse::<PublishRequest>().unwrap_err().to_string();
            assert!(error.starts_with(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_free_port_becomes_a_published_port() {
        let PublishRequest::Free(free) = "[::1]:0:22".parse().unwrap() else { panic!() };
        assert_eq!(free.with_host_port(40000), Some("[::1]:40000:22".parse().unwrap()));
        assert_eq!(free.with_host_port(0), None);
    }

    proptest! {
        #[test]
        fn a_printed_request_parses_to_itself(text in "[0-9a-f:.\\[\\]/\\-tcpud]{0,30}") {
            if let Ok(request) = text.parse::<PublishRequest>() {
                prop_assert_eq!(request.to_string().parse(), Ok(request));
            }
        }
    }
}
