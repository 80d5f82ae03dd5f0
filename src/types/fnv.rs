//! The hash function FNV-1a with 64 bits, for values that must stay the same between releases.

/// Returns the hash of these parts. A NUL byte separates them, so that `ab` and `c` differ from `a`
/// and `bc`.
///
/// The constants are those of draft-eastlake-fnv. It protects from accidents, not from an attacker.
pub(crate) fn fnv1a<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for (number, part) in parts.into_iter().enumerate() {
        let separator: &[u8] = if number == 0 { b"" } else { b"\0" };
        for byte in separator.iter().chain(part) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_has_the_published_values() {
        for (text, hash) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            assert_eq!(fnv1a([text.as_bytes()]), hash, "{text}");
        }
        assert_ne!(fnv1a([b"ab".as_slice(), b"c"]), fnv1a([b"a".as_slice(), b"bc"]));
    }
}
