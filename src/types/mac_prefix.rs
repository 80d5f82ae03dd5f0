//! The beginning of MAC addresses.

use std::fmt;
use std::str::FromStr;

use super::Mac;

/// The text is no beginning of a MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} begins no MAC address: write one to six pairs of hexadecimal digits, such as 52:54:00"
)]
pub struct MacPrefixError(pub String);

/// The first bytes of unicast MAC addresses; with six bytes, one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MacPrefix(Vec<u8>);

impl MacPrefix {
    /// Returns whether an address begins with these bytes.
    pub fn matches(&self, mac: Mac) -> bool {
        mac.octets().starts_with(&self.0)
    }

    /// Returns the address, if all six bytes are there.
    pub fn whole(&self) -> Option<Mac> {
        Mac::new(self.0.as_slice().try_into().ok()?).ok()
    }
}

impl FromStr for MacPrefix {
    type Err = MacPrefixError;

    fn from_str(text: &str) -> Result<Self, MacPrefixError> {
        let error = || MacPrefixError(text.to_owned());
        let byte = |part: &str| match part.len() {
            2 if part.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
                u8::from_str_radix(part, 16).map_err(|_| error())
            }
            _ => Err(error()),
        };
        let bytes: Vec<u8> = text.split(':').map(byte).collect::<Result<_, _>>()?;
        let prefix = MacPrefix(bytes);
        // No card has a multicast address or the address of zeros.
        let is_multicast = prefix.0.first().is_some_and(|first| first & 1 != 0);
        let is_valid = prefix.0.len() < 6 || prefix.whole().is_some();
        if prefix.0.len() > 6 || is_multicast || !is_valid { Err(error()) } else { Ok(prefix) }
    }
}

impl fmt::Display for MacPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<String> = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        f.write_str(&bytes.join(":"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_one_to_six_bytes() {
        let mac = |text: &str| text.parse::<Mac>().unwrap();
        for (text, yes, no) in [
            ("52", "52:00:00:00:00:01", "50:00:00:00:00:01"),
            ("52:54:00", "52:54:00:aa:bb:cc", "52:54:01:aa:bb:cc"),
            ("52:54:00:aa:bb:cc", "52:54:00:aa:bb:cc", "52:54:00:aa:bb:cd"),
        ] {
            let prefix: MacPrefix = text.parse().unwrap();
            assert!(prefix.matches(mac(yes)) && !prefix.matches(mac(no)), "{text}");
            assert_eq!(prefix.to_string(), text);
            assert_eq!(prefix.whole().is_some(), text.len() == 17);
        }
        for text in
            ["", "5", "52:", "52-54", "53:54:00", "52:54:00:00:00:00:00", "00:00:00:00:00:00"]
        {
            assert!(text.parse::<MacPrefix>().is_err(), "{text}");
        }
    }
}
