//! UUIDs, which identify a network or a filter even after its name changes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::checked_text::string_conversions;

/// A UUID (RFC 9562), written `8-4-4-4-12` in lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uuid([u8; 16]);

/// A text is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a UUID: write 32 hexadecimal digits, as in 3e3fce45-4f53-4fa7-bb32-11f34168b82b, or remove it and get one"
)]
pub struct UuidError(pub String);

impl Uuid {
    /// Returns a random UUID (version 4).
    pub fn random(rng: &mut impl rand::Rng) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Uuid(bytes)
    }
}

impl FromStr for Uuid {
    type Err = UuidError;

    /// Accepts a UUID with all four hyphens or without hyphens, as libvirt's schema does.
    fn from_str(text: &str) -> Result<Self, UuidError> {
        let error = || UuidError(text.to_owned());
        let bytes = text.as_bytes();
        let digits: Vec<u8> = match bytes.len() {
            32 => bytes.to_vec(),
            36 if [8, 13, 18, 23].iter().all(|at| bytes[*at] == b'-') => {
                bytes.iter().copied().filter(|b| *b != b'-').collect()
            }
            _ => return Err(error()),
        };
        if digits.len() != 32 {
            return Err(error());
        }
        let mut uuid = [0; 16];
        for (byte, pair) in uuid.iter_mut().zip(digits.chunks(2)) {
            for digit in pair {
                let value = char::from(*digit).to_digit(16).ok_or_else(error)?;
                *byte = *byte << 4 | value as u8;
            }
        }
        Ok(Uuid(uuid))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let hyphen = if [4, 6, 8, 10].contains(&index) { "-" } else { "" };
            write!(f, "{hyphen}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

string_conversions!(Uuid, UuidError);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_uuid_is_read_with_or_without_hyphens_and_printed_in_lower_case() {
        let text = "3e3fce45-4f53-4fa7-bb32-11f34168b82b";
        for form in [text.to_owned(), text.to_uppercase(), text.replace('-', "")] {
            assert_eq!(form.parse::<Uuid>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "3e3f",
            &text[1..],
            &text.replace('e', "g"),
            &text.replace('-', ":"),
            &"-".repeat(36),
        ] {
            assert_eq!(bad.parse::<Uuid>(), Err(UuidError(bad.to_owned())));
        }
    }

    #[test]
    fn random_uuids_have_version_4_and_differ() {
        let mut rng = rand::rng();
        let (a, b) = (Uuid::random(&mut rng), Uuid::random(&mut rng));
        assert_ne!(a, b);
        assert_eq!(&a.to_string()[14..15], "4");
        assert!("89ab".contains(&a.to_string()[19..20]));
    }

    proptest! {
        #[test]
        fn a_printed_value_parses_to_itself(text in "[0-9a-fA-F-]{30,38}|\\PC{0,40}") {
            if let Ok(uuid) = text.parse::<Uuid>() {
                prop_assert_eq!(uuid.to_string().parse(), Ok(uuid));
            }
        }
    }
}
