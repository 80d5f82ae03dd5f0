//! The tap's name of a launch with a name: the same at each start, so that rules and tools can name
//! the tap.

use super::{InterfaceName, fnv1a};

/// Returns the tap's name for the NIC at `place` of the launch with this name.
///
/// A short name is part of it (`nl-web`, and `nl-web-1` for the second NIC). Any other name, which
/// is longer than an interface's name or has characters that have a meaning in a firewall tool,
/// is replaced by a number that is made from it.
pub fn tap_name(launch: &str, place: usize) -> Option<InterfaceName> {
    let number = if place == 0 { String::new() } else { format!("-{place}") };
    let is_plain = launch.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let text = format!("nl-{launch}{number}");
    // IFNAMSIZ has 16 bytes, with the NUL byte.
    if is_plain && text.len() < 16 {
        return text.parse().ok();
    }
    let hash = fnv1a([launch.as_bytes()]) >> 24;
    format!("nl-{hash:010x}{number}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_part_of_the_taps_name() {
        for (launch, place, name) in [
            ("web", 0, "nl-web"),
            ("web", 1, "nl-web-1"),
            ("twelve_chars", 0, "nl-twelve_chars"),
            ("thirteen_char", 0, "nl-43e12b5515"),
            ("twelve_chars", 1, "nl-f4dc3917d7-1"),
            ("a.b", 0, "nl-e61d991904"),
            ("a%d", 0, "nl-e635a91904"),
        ] {
            assert_eq!(tap_name(launch, place).unwrap().as_str(), name, "{launch} {place}");
        }
    }
}
