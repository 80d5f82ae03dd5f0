//! Parses sizes as QEMU does.
//!
//! The rules are those of qemu_strtosz() in QEMU's util/cutils.c:
//!
//! - A decimal number has at most one suffix: `B`, `k`, `M`, `G`, `T`, `P` or `E`, in upper or
//!   lower case. The units are powers of 1024, and a number without a suffix is in bytes.
//! - A fraction is allowed only with a unit larger than a byte.
//! - A hexadecimal number has no suffix.
//! - White space and a plus sign may stand in front.

/// Returns the bytes of a size such as `512M`, `1.5G` or `0x20000000`; `None` for a text that QEMU
/// refuses.
pub fn size(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let text = text.strip_prefix('+').unwrap_or(text);
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
        return plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten();
    }
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = text.split_at(digits(text));
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let shift = match suffix {
        "" | "B" | "b" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        "P" | "p" => 50,
        "E" | "e" => 60,
        _ => return None,
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part = fraction_of(fraction, shift);
    if part > 0 && shift == 0 {
        return None;
    }
    whole.checked_mul(1 << shift)?.checked_add(part)
}

/// Returns the bytes of a fraction of a unit, rounded. `digits` are the digits after the decimal
/// point, and the unit has 2^shift bytes.
fn fraction_of(digits: &str, shift: u32) -> u64 {
    // Even for the largest unit, the digits after the first 19 are worth less than a byte.
    let digits = &digits[..digits.len().min(19)];
    let Ok(numerator) = digits.parse::<u128>() else { return 0 };
    let denominator = 10u128.pow(digits.len() as u32);
    let bytes = ((numerator << shift) + denominator / 2) / denominator;
    u64::try_from(bytes).unwrap_or(u64::MAX).max(u64::from(numerator > 0 && shift == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_accepted_exactly_if_qemu_accepts_it() {
        for (text, expected) in [
            ("512", Some(512)),
            ("512B", Some(512)),
            ("1.5G", Some(3 << 29)),
            (".5M", Some(1 << 19)),
            ("1.M", Some(1 << 20)),
            ("2t", Some(2 << 40)),
            ("0x100", Some(256)),
            ("0x1g", None),
            ("0x1.8", None),
            (" +7k", Some(7 << 10)),
            ("1.0", Some(1)),
            ("1.5", None),
            ("1e3", None),
            ("1GiB", None),
            ("-1", None),
            ("", None),
            (".", None),
            ("G", None),
            ("16E", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("0.333333333333333333333333G", Some(357_913_941)),
            ("5,", None),
        ] {
            assert_eq!(size(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(size(b"\xff"), None);
    }
}
