//! Ethernet (MAC) addresses: the address of a guest's card, and any address of a frame.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::checked_text::string_conversions;
use super::fnv1a;

/// Any Ethernet address, written as six pairs of hexadecimal digits.
///
/// It may be a group address or a mask.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EthernetAddress([u8; 6]);

/// A unicast Ethernet address, written as six pairs of hexadecimal digits (`52:54:00:12:34:56`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// The reason why a text is not the address of a network card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MacError {
    /// The text is not six pairs of hexadecimal digits with colons between them.
    #[error(
        "{0:?} is not a MAC address: write six pairs of hexadecimal digits, such as 52:54:00:12:34:56"
    )]
    Form(String),
    /// The group bit is set, so no network card can have this address (IEEE 802, I/G bit).
    #[error("{0} is a multicast MAC address: the first byte must be even, as in 52:54:00:12:34:56")]
    Multicast(String),
    /// All six bytes are zero.
    #[error(
        "00:00:00:00:00:00 is not the address of a network card: use one such as 52:54:00:12:34:56"
    )]
    Zero,
}

impl EthernetAddress {
    /// Makes an address from its bytes, in the order in which they are sent.
    pub const fn new(octets: [u8; 6]) -> Self {
        EthernetAddress(octets)
    }

    /// Returns the six bytes, in the order in which they are sent.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for EthernetAddress {
    type Err = MacError;

    /// Reads six bytes of one or two digits each; libvirt accepts a single digit too.
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
    /// Makes an address from its bytes, in the order in which they are sent.
    ///
    /// # Errors
    /// [`MacError`] if no network card can have this address.
    pub fn new(octets: [u8; 6]) -> Result<Self, MacError> {
        Mac::checked(octets, || EthernetAddress::new(octets).to_string())
    }

    /// Makes an address from its bytes; `text` is for the error.
    fn checked(octets: [u8; 6], text: impl FnOnce() -> String) -> Result<Self, MacError> {
        match octets {
            [0, 0, 0, 0, 0, 0] => Err(MacError::Zero),
            [first, ..] if first & 1 != 0 => Err(MacError::Multicast(text())),
            _ => Ok(Mac(octets)),
        }
    }

    /// Returns an address with QEMU's prefix 52:54:00 and three random bytes.
    pub fn random(rng: &mut impl rand::Rng) -> Self {
        let mut bytes = [0x52, 0x54, 0x00, 0, 0, 0];
        rng.fill_bytes(&mut bytes[3..]);
        Mac(bytes)
    }

    /// Returns an address with QEMU's prefix 52:54:00 that is made from these parts: equal parts
    /// always have the same address.
    pub(crate) fn stable<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let hash = fnv1a(parts);
        // The bits of FNV that change most are the upper ones.
        let [.., d, e, g] = (hash >> 40 ^ hash >> 16 & 0xff_ffff).to_be_bytes();
        Mac([0x52, 0x54, 0x00, d, e, g])
    }

    /// Returns the address that is `steps` above this one in the last three bytes, which wrap
    /// around: one guest's cards have addresses that follow each other.
    pub fn following(self, steps: u32) -> Self {
        let [a, b, c, rest @ ..] = self.0;
        let [d, e, g] = rest;
        let [_, d, e, g] = u32::from_be_bytes([0, d, e, g]).wrapping_add(steps).to_be_bytes();
        Mac([a, b, c, d, e, g])
    }

    /// Returns the address for the host's end of the link, for a guest that has this address.
    ///
    /// A bridge without an address of its own takes the lowest address of its ports. So the host's
    /// end starts with 0xfe, the highest first byte of a locally administered unicast address. If
    /// this would be the guest's own address, it starts with 0xfa, because the kernel drops frames
    /// from an address that a port of the bridge has.
    pub fn host_side(self) -> Self {
        let [first, rest @ ..] = self.0;
        let [b, c, d, e, g] = rest;
        Mac([if first == 0xfe { 0xfa } else { 0xfe }, b, c, d, e, g])
    }

    /// Returns the six bytes, in the order in which they are sent.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let EthernetAddress(bytes) = text.parse()?;
        Mac::checked(bytes, || text.to_owned())
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

string_conversions!(Mac, MacError);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_is_printed_in_lower_case_with_two_digits_a_byte() {
        for (text, canonical) in
            [("52:54:00:12:34:56", "52:54:00:12:34:56"), ("52:54:0:AB:c:EF", "52:54:00:ab:0c:ef")]
        {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn the_hosts_end_starts_with_fe_or_with_fa_when_the_guest_has_fe() {
        for (guest, host) in
            [("52:54:00:12:34:56", "fe:54:00:12:34:56"), ("fe:54:00:12:34:56", "fa:54:00:12:34:56")]
        {
            assert_eq!(guest.parse::<Mac>().unwrap().host_side().to_string(), host);
        }
    }

    #[test]
    fn equal_parts_have_the_same_address_and_others_hardly_ever() {
        let mac = |host: &str, name: &str| Mac::stable([host.as_bytes(), name.as_bytes()]);
        assert_eq!(mac("host", "web").to_string(), "52:54:00:18:e6:5d");
        let names = (0..300).map(|number| mac("host", &format!("web-{number}")).to_string());
        assert_eq!(names.collect::<std::collections::BTreeSet<_>>().len(), 300);
        assert_ne!(mac("host", "web"), mac("other", "web"));
    }

    #[test]
    fn the_following_address_wraps_around_in_the_last_three_bytes() {
        for (first, steps, expected) in [
            ("52:54:00:12:34:56", 0, "52:54:00:12:34:56"),
            ("52:54:00:12:34:ff", 2, "52:54:00:12:35:01"),
            ("52:54:00:ff:ff:ff", 1, "52:54:00:00:00:00"),
        ] {
            assert_eq!(first.parse::<Mac>().unwrap().following(steps).to_string(), expected);
        }
    }

    #[test]
    fn a_malformed_or_multicast_or_zero_address_is_refused() {
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
    fn random_addresses_have_qemus_prefix_and_differ() {
        let mut rng = rand::rng();
        let (a, b) = (Mac::random(&mut rng), Mac::random(&mut rng));
        assert_ne!(a, b);
        assert!(a.to_string().starts_with("52:54:00:"));
        assert_eq!(a.to_string().parse(), Ok(a));
    }

    proptest! {
        #[test]
        fn a_printed_value_parses_to_itself(text in "\\PC{0,20}") {
            if let Ok(mac) = text.parse::<Mac>() {
                prop_assert_eq!(mac.to_string().parse::<Mac>(), Ok(mac));
            }
        }
    }
}
