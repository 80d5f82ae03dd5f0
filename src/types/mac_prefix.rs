//! The beginning of MAC addresses.

use std::fmt;
use std::str::FromStr;

use super::Mac;

/// The text is no beginning of a MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MacPrefixError {
    /// The text is not of the form.
    #[error(
        "{0:?} begins no MAC address: write one to six pairs of hexadecimal digits, such as 52:54:00"
    )]
    Form(String),
    /// The addresses are multicast.
    #[error(
        "{0:?} is the beginning of multicast addresses, which no card has: write a first pair that is even, such as 52"
    )]
    Multicast(String),
    /// All bytes are zero.
    #[error("{0:?} is the address of no card: write the address of the guest's card")]
    Zeros(String),
}

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
        let error = || MacPrefixError::Form(text.to_owned());
        let byte = |part: &str| match part.len() {
            2 if part.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
                u8::from_str_radix(part, 16).map_err(|_| error())
            }
            _ => Err(error()),
        };
        let bytes: Vec<u8> = text.split(':').map(byte).collect::<Result<_, _>>()?;
        let prefix = MacPrefix(bytes);
        if prefix.0.len() > 6 {
            return Err(error());
        }
        // No card has a multicast address or the address of zeros.
        if prefix.0.first().is_some_and(|first| first & 1 != 0) {
            return Err(MacPrefixError::Multicast(text.to_owned()));
        }
        if prefix.0.len() == 6 && prefix.whole().is_none() {
            Err(MacPrefixError::Zeros(text.to_owned()))
        } else {
            Ok(prefix)
        }
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
        let multicast = "01:00:5e:00:00:01".parse::<MacPrefix>().unwrap_err().to_string();
        assert!(multicast.contains("multicast") && !multicast.contains("six pairs"), "{multicast}");
        let zeros = "00:00:00:00:00:00".parse::<MacPrefix>().unwrap_err().to_string();
        assert!(zeros.contains("the address of no card"), "{zeros}");
    }
}
