//! What ports' filters let through and dropped, as nft counted it.
//!
//! A port whose filter was bound with `enable_counters` has four named counters in nft's table
//! ([`super::port_nft`]). All of them are read by one `nft`, and what it prints is read leniently:
//! the form of nft's listings is not the same in all its versions, and a count that is not
//! understood is better not shown than a reason to fail.
//!
//! iptables' rules count, too, but a frame passes up to three tools there, each with rules of its
//! own, and which of them dropped it cannot be told from the sums. So ports of that backend have no
//! such numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::port_nft::{PortObjects, TABLE};
use super::tool_error::ToolError;
use super::tools::{Tool, Tools};

/// What one counter counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Frames.
    pub frames: u64,
    /// Their bytes, as nft counts them: in the bridge family without the Ethernet header.
    pub bytes: u64,
}

/// What became of the frames of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PathCounts {
    /// Those that were let through.
    pub passed: Count,
    /// Those that were dropped or rejected.
    pub dropped: Count,
}

/// What became of a port's frames since its filter was put on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PortCounts {
    /// Of those that its guest sent.
    pub from_guest: PathCounts,
    /// Of those on their way to its guest.
    pub to_guest: PathCounts,
}

/// Every named counter of nft's tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Those of the bridge family.
    bridge: BTreeMap<String, Count>,
    /// Those of link-local frames, which the bridge itself may handle.
    netdev: BTreeMap<String, Count>,
}

impl Counters {
    /// Asks nft.
    ///
    /// # Errors
    /// nft cannot be run, or refuses.
    pub async fn read(tools: &Tools) -> Result<Self, ToolError> {
        let listing = format!("list counters table bridge {TABLE}\n");
        let bridge = parse(&tools.run(Tool::Nft, &[], &listing).await?);
        let listing = format!("list counters table netdev {TABLE}\n");
        let netdev = match tools.run(Tool::Nft, &[], &listing).await {
            Ok(listing) => parse(&listing),
            // Only ports whose filters refuse frames have such a table.
            Err(ToolError::Refused { .. }) => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Counters { bridge, netdev })
    }

    /// What they say of a port; `None` when it has no counters, or nft did not list them all.
    pub fn of(&self, objects: &PortObjects) -> Option<PortCounts> {
        let count = |way: &str, what: &str| {
            let name = format!("p{}-{way}-{what}", objects.index);
            objects.counters.contains(&name).then(|| self.bridge.get(&name).copied()).flatten()
        };
        let path = |way: &str| {
            Some(PathCounts { passed: count(way, "passed")?, dropped: count(way, "dropped")? })
        };
        let mut counts = PortCounts { from_guest: path("from")?, to_guest: path("to")? };
        // A frame that passes there may come to the bridge's table and is counted there.
        if let Some(more) = self.netdev.get(&format!("p{}-from-dropped", objects.index)) {
            let dropped = &mut counts.from_guest.dropped;
            dropped.frames = dropped.frames.saturating_add(more.frames);
            dropped.bytes = dropped.bytes.saturating_add(more.bytes);
        }
        Some(counts)
    }
}

/// Reads what nft prints: each `counter NAME`, and the numbers behind the next `packets` and
/// `bytes`.
fn parse(listing: &str) -> BTreeMap<String, Count> {
    let mut counters = BTreeMap::new();
    let mut name = None;
    let mut count = Count::default();
    let mut words = listing.split_whitespace();
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|word| word.parse().ok());
        match word {
            "packets" => count.frames = number().unwrap_or_default(),
            "bytes" => {
                let bytes = number();
                if let (Some(name), Some(bytes)) = (name.take(), bytes) {
                    counters.insert(name, Count { bytes, ..count });
                }
            }
            "counter" => {
                name = words.next().map(|name| name.trim_matches('"').to_owned());
                count = Count::default();
            }
            _ => {}
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "table bridge netlaunch_nwfilter {
\tcounter p7-from-dropped {
\t\tpackets 2 bytes 120
\t}
\tcounter p7-from-passed {
\t\tcomment \"with words\"
\t\tpackets 31 bytes 4000
\t}
\tcounter \"p7-to-dropped\" { packets 0 bytes 0 }
\tcounter p7-to-passed {
\t\tpackets 18446744073709551615 bytes 7
\t}
\tcounter p70-to-passed {
\t\tpackets many bytes some
\t}
}
";

    fn objects(index: u32) -> PortObjects {
        let names = ["from-passed", "from-dropped", "to-passed", "to-dropped"];
        let counters = names.iter().map(|name| format!("p{index}-{name}")).collect();
        PortObjects { index, counters, ..PortObjects::default() }
    }

    #[test]
    fn counts_are_read_from_what_nft_prints() {
        let counts =
            Counters { bridge: parse(LISTING), netdev: BTreeMap::new() }.of(&objects(7)).unwrap();
        let path = |passed: (u64, u64), dropped: (u64, u64)| PathCounts {
            passed: Count { frames: passed.0, bytes: passed.1 },
            dropped: Count { frames: dropped.0, bytes: dropped.1 },
        };
        assert_eq!(counts.from_guest, path((31, 4000), (2, 120)));
        assert_eq!(counts.to_guest, path((u64::MAX, 7), (0, 0)));
    }

    #[test]
    fn frames_dropped_on_the_ingress_hook_count_as_dropped() {
        let counters = Counters {
            bridge: parse(LISTING),
            netdev: parse(
                "counter p7-from-dropped { packets 3 bytes 100 }\ncounter p7-from-passed { packets 9 bytes 9 }",
            ),
        };
        let counts = counters.of(&objects(7)).unwrap().from_guest;
        assert_eq!((counts.dropped.frames, counts.dropped.bytes), (5, 220));
        assert_eq!(counts.passed.frames, 31);
    }

    #[test]
    fn what_is_not_there_or_not_understood_is_no_count() {
        let counters = Counters { bridge: parse(LISTING), netdev: BTreeMap::new() };
        assert_eq!(counters.of(&objects(70)), None);
        assert_eq!(counters.of(&objects(8)), None);
        assert_eq!(counters.of(&PortObjects { index: 7, ..PortObjects::default() }), None);
        for rubbish in ["", "counter", "counter p7-from-passed { packets", "bytes bytes counter"] {
            let counters = Counters { bridge: parse(rubbish), ..Counters::default() };
            assert_eq!(counters.of(&objects(7)), None);
        }
    }
}
