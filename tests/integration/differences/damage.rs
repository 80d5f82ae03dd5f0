//! Changes frames in the ways that confuse filters: tags, options, fragments, extension headers,
//! wrong lengths, padding, and lost ends.

use super::random::Random;

const V4: [u8; 2] = [8, 0];
const V6: [u8; 2] = [0x86, 0xdd];
const FRAGMENT: u8 = 44;

/// Changes a frame in one random way. The checksum of an IPv4 header stays right in most cases,
/// because br_netfilter drops a packet with a wrong one before any filter.
pub fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    match random.below(13) {
        0 => tag(random, bytes),
        1 | 2 => extension(random, bytes),
        3 => options(random, bytes),
        4 => fragment(random, bytes),
        5 => {
            let length = 14 + random.below(bytes.len().saturating_sub(13).max(1));
            bytes.truncate(length);
        }
        6 => {
            let length = bytes.len().saturating_sub(1 + random.below(24)).max(14);
            bytes.truncate(length);
            lengths(bytes);
        }
        7 => {
            let byte = random.pick(&[0, 0xff, 0x45, 6]);
            bytes.resize(bytes.len() + random.pick(&[1, 2, 18, 100, 1000]), byte);
        }
        8 => {
            let at = 12 + random.below(bytes.len().min(74) - 12);
            bytes[at] = random.pick(&[0, 0xff, bytes[at] ^ 1, bytes[at] ^ 0x80]);
        }
        9 => {
            let others =
                [[8, 0], [0x86, 0xdd], [8, 6], [0x80, 0x35], [0x88, 0xcc], [0, 38], [0, 0]];
            bytes[12..14].copy_from_slice(&random.pick(&others));
        }
        10 => address(random, bytes),
        11 => arp_lengths(random, bytes),
        _ => {
            let at = 14 + random.below(60);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.byte();
            }
        }
    }
    if random.chance(95) {
        with_checksum(bytes);
    }
}

/// Adds options, an extension header, padding or a tag, so that the packet itself stays the same.
pub fn harmless(random: &mut Random, bytes: &mut Vec<u8>, with_tags: bool) {
    match random.below(4) {
        0 if with_tags => tag(random, bytes),
        1 if bytes[12..14] == V6 => {
            let kind = random.pick(&[0, 60]);
            let next = std::mem::replace(&mut bytes[20], kind);
            // The option is a PadN of four bytes.
            bytes.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
            lengths(bytes);
        }
        1 | 2 => options(random, bytes),
        _ => bytes.resize(bytes.len() + 6, 0),
    }
    with_checksum(bytes);
}

/// Writes the checksum of an IPv4 header.
pub fn with_checksum(bytes: &mut [u8]) {
    if bytes.len() < 34 || bytes[12..14] != V4 {
        return;
    }
    let end = (14 + usize::from(bytes[14] & 15) * 4).clamp(34, bytes.len());
    bytes[24..26].copy_from_slice(&[0, 0]);
    let sum: u32 = bytes[14..end]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    let once = (sum & 0xffff) + (sum >> 16);
    let folded = (once + (once >> 16)) as u16;
    bytes[24..26].copy_from_slice(&(!folded).to_be_bytes());
}

/// Writes the length of an IP packet.
pub fn lengths(bytes: &mut [u8]) {
    let behind = bytes.len() as u16;
    if bytes.len() >= 34 && bytes[12..14] == V4 {
        bytes[16..18].copy_from_slice(&(behind - 14).to_be_bytes());
    } else if bytes.len() >= 54 && bytes[12..14] == V6 {
        bytes[18..20].copy_from_slice(&(behind - 54).to_be_bytes());
    }
}

fn tag(random: &mut Random, bytes: &mut Vec<u8>) {
    let kind = random.pick(&[[0x81, 0], [0x81, 0], [0x88, 0xa8], [0x91, 0]]);
    let number = random.pick(&[[0, 0], [0, 1], [0, 5], [0, 7], [0x0f, 0xff], [0xe0, 5], [0x10, 5]]);
    bytes.splice(12..12, [kind, number].concat());
}

/// Puts an extension header behind the IPv6 header.
fn extension(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.len() < 54 || bytes[12..14] != V6 {
        return options(random, bytes);
    }
    let next = bytes[20];
    let kind = random.pick(&[0, 43, 60, FRAGMENT, FRAGMENT, 51, 59, 135, 50]);
    let head = match kind {
        FRAGMENT => {
            // The offset is in units of eight bytes, above three bits of which the lowest says
            // that fragments follow.
            let offset: u16 = random.pick(&[0, 0, 1, 1, 8, 9, 0x0100, 0xfff8, 0xfff9, 6]);
            [&[next, 0], offset.to_be_bytes().as_slice(), &[0, 0, 0, 7]].concat()
        }
        51 => [&[next, 4], [0; 22].as_slice()].concat(),
        59 => Vec::new(),
        43 => vec![next, 0, random.pick(&[0, 4]), random.pick(&[0, 0, 1]), 0, 0, 0, 0],
        _ => {
            let words = random.pick(&[0, 0, 1, 200]);
            let real = if words == 200 { 0 } else { words };
            let mut head = vec![0; 8 + 8 * usize::from(real)];
            // The options are one PadN.
            (head[0], head[1], head[2], head[3]) = (next, words, 1, head.len() as u8 - 4);
            head
        }
    };
    bytes[20] = kind;
    bytes.splice(54..54, head);
    if random.chance(95) {
        lengths(bytes);
    }
}

/// Puts options behind the IPv4 header.
fn options(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.len() < 34 || bytes[12..14] != V4 {
        return;
    }
    let words = random.pick(&[1u8, 2, 10]);
    let old = bytes[14] & 15;
    if old + words > 15 || old < 5 {
        return;
    }
    // The option NOP.
    bytes.splice(34..34, vec![1; 4 * usize::from(words)]);
    bytes[14] = bytes[14] & 0xf0 | (old + words);
    lengths(bytes);
}

fn fragment(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.len() < 34 || bytes[12..14] != V4 {
        return extension(random, bytes);
    }
    let field: u16 = random.pick(&[0x2000, 0x2000, 1, 0x2001, 2, 100, 0x4000, 0x8000, 0x1fff]);
    bytes[20..22].copy_from_slice(&field.to_be_bytes());
}

fn address(random: &mut Random, bytes: &mut [u8]) {
    let address: [u8; 6] = match random.below(7) {
        0 => [0xff; 6],
        1 => [1, 0, 0x5e, 0, 0, 1],
        2 => [0x33, 0x33, 0, 0, 0, 1],
        3 => [1, 0x80, 0xc2, 0, 0, random.pick(&[0, 0, 3, 0x0e, 0x0f, 0x10])],
        4 => [0; 6],
        5 => [1, 0x80, 0xc2, 0, 0, random.byte() & 15],
        _ => [2, 0, 0, 0, 0, random.byte()],
    };
    let at = if random.chance(75) { 0 } else { 6 };
    bytes[at..at + 6].copy_from_slice(&address);
}

/// Changes the lengths of ARP's addresses.
fn arp_lengths(random: &mut Random, bytes: &mut [u8]) {
    let is_arp = bytes.len() > 20 && ([[8, 6], [0x80, 0x35]].iter().any(|t| bytes[12..14] == *t));
    if is_arp {
        let at = 18 + random.below(2);
        bytes[at] = random.pick(&[0, 4, 6, 8, 16, 255]);
    }
}
