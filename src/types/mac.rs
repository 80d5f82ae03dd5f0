//! Ethernet (MAC) addresses: of guests' cards, and any there can be in a frame.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Any Ethernet address, groups and masks included, written as six pairs of hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EthernetAddress([u8; 6]);

/// A unicast Ethernet address, written as six pairs of hexadecimal digits (`52:54:00:12:34:56`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// Why a text is not the address of a network card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six colon-separated pairs of hexadecimal digits.
    #[error(
        "{0:?} is not a MAC address: write six pairs of hexadecimal digits, such as 52:54:00:12:34:56"
    )]
    Form(String),
    /// The group bit is set, so no network card can have this address (IEEE 802, I/G bit).
    #[error("{0} is a multicast MAC address: the first byte must be even, as in 52:54:00:12:34:56")]
    Multicast(String),
    /// All bytes are zero.
    #[error(
        "00:00:00:00:00:00 is not the address of a network card: use one such as 52:54:00:12:34:56"
    )]
    Zero,
}

impl EthernetAddress {
    /// The address with these bytes, in the order in which they are sent.
    pub const fn new(octets: [u8; 6]) -> Self {
        EthernetAddress(octets)
    }

    /// The six bytes in the order in which they are sent.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for EthernetAddress {
    type Err = MacError;

    /// Takes one digit where two are usual, as libvirt does.
    fn from_str(text: &str) -> Result<Self, MacError> {
        let form = || MacError::Form(text.to_owned());
        let mut bytes = [0u8; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(form)?;
            if !(1..=2).contains(&part.len()) || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(form());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| form())?;
        }
        match parts.next() {
            None => Ok(EthernetAddress(bytes)),
            Some(_) => Err(form()),
        }
    }
}

impl fmt::Display for EthernetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for EthernetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Mac> for EthernetAddress {
    fn from(mac: Mac) -> Self {
        EthernetAddress(mac.0)
    }
}

impl Mac {
    /// An address with QEMU's prefix 52:54:00 and three random bytes.
    pub fn random(rng: &mut impl rand::Rng) -> Self {
        let mut bytes = [0x52, 0x54, 0x00, 0, 0, 0];
        rng.fill_bytes(&mut bytes[3..]);
        Mac(bytes)
    }

    /// The address for the host's end of the link to a guest that has this one.
    ///
    /// A bridge without an address of its own takes the lowest of its ports', so this one starts
    /// as high as a locally administered unicast address can (0xfe), or with 0xfa where that would
    /// be the guest's own: the kernel drops frames from an address that a port of the bridge has.
    pub fn host_side(self) -> Self {
        let [first, rest @ ..] = self.0;
        let [b, c, d, e, g] = rest;
        Mac([if first == 0xfe { 0xfa } else { 0xfe }, b, c, d, e, g])
    }

    /// The six bytes in the order in which they are sent.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let EthernetAddress(bytes) = text.parse()?;
        if bytes == [0; 6] {
            return Err(MacError::Zero);
        }
        if bytes[0] & 1 != 0 {
            return Err(MacError::Multicast(text.to_owned()));
        }
        Ok(Mac(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        EthernetAddress(self.0).fmt(f)
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_and_writes_the_canonical_form() {
        for (text, canonical) in
            [("52:54:00:12:34:56", "52:54:00:12:34:56"), ("52:54:0:AB:c:EF", "52:54:00:ab:0c:ef")]
        {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn the_hosts_end_has_a_high_address_of_its_own() {
        for (guest, host) in
            [("52:54:00:12:34:56", "fe:54:00:12:34:56"), ("fe:54:00:12:34:56", "fa:54:00:12:34:56")]
        {
            assert_eq!(guest.parse::<Mac>().unwrap().host_side().to_string(), host);
        }
    }

    #[test]
    fn refuses_what_is_no_cards_address() {
        let form = |t: &str| MacError::Form(t.to_owned());
        for (text, error) in [
            ("", form("")),
            ("52:54:00:12:34", form("52:54:00:12:34")),
            ("52:54:00:12:34:56:78", form("52:54:00:12:34:56:78")),
            ("52-54-00-12-34-56", form("52-54-00-12-34-56")),
            ("52:54:00:12:34:5g", form("52:54:00:12:34:5g")),
            ("52:54:00:12:34:+5", form("52:54:00:12:34:+5")),
            ("52:54:00:12:34:567", form("52:54:00:12:34:567")),
            ("01:00:5e:00:00:01", MacError::Multicast("01:00:5e:00:00:01".into())),
            ("ff:ff:ff:ff:ff:ff", MacError::Multicast("ff:ff:ff:ff:ff:ff".into())),
            ("0:0:0:0:0:0", MacError::Zero),
        ] {
            assert_eq!(text.parse::<Mac>(), Err(error), "{text}");
        }
    }

    #[test]
    fn random_addresses_are_valid_and_differ() {
        let mut rng = rand::rng();
        let (a, b) = (Mac::random(&mut rng), Mac::random(&mut rng));
        assert_ne!(a, b);
        assert!(a.to_string().starts_with("52:54:00:"));
        assert_eq!(a.to_string().parse(), Ok(a));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_round_trips(text in "\\PC{0,20}") {
            if let Ok(mac) = text.parse::<Mac>() {
                prop_assert_eq!(mac.to_string().parse::<Mac>(), Ok(mac));
            }
        }
    }
}
