//! The numbers of frames that the filters of ports let through and dropped, as nft counts them.
//!
//! A port whose filter was bound with `enable_counters` has four named counters in nft's tables
//! ([`super::port_nft`]). One nft process reads the counters of all tables of one family. The
//! parser is lenient, because the form of nft's listings differs between versions: a counter that
//! netlaunch cannot read is left out and does not cause an error.
//!
//! The rules of iptables count as well, but a frame passes up to three tools, each with rules of
//! its own. The sums do not say which tool dropped a frame, so ports of that backend have no such
//! numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::port_nft::{PortObjects, PortTable};
use super::tool_error::ToolError;
use super::tools::{Tool, Tools};

/// The value of one counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The number of frames.
    pub frames: u64,
    /// The number of bytes, as nft counts them: in the bridge family without the Ethernet header.
    pub bytes: u64,
}

/// The counts of the frames of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PathCounts {
    /// The frames that the filter let through.
    pub passed: Count,
    /// The frames that the filter dropped or rejected.
    pub dropped: Count,
}

/// The counts of a port's frames since its filter was applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PortCounts {
    /// The frames that the guest sent.
    pub from_guest: PathCounts,
    /// The frames on their way to the guest.
    pub to_guest: PathCounts,
}

/// The named counters of nft's tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// The counters of the bridge family.
    bridge: BTreeMap<String, Count>,
    /// The counters of link-local frames, which the bridge itself may handle, and of the ports
    /// without a bridge.
    netdev: BTreeMap<String, Count>,
}

impl Counters {
    /// Reads the counters of all ports' tables through nft.
    ///
    /// # Errors
    /// Returns an error if nft cannot be run or refuses.
    pub async fn read(tools: &Tools) -> Result<Self, ToolError> {
        let bridge = tools.run(Tool::Nft, &[], "list counters bridge\n").await;
        let netdev = tools.run(Tool::Nft, &[], "list counters netdev\n").await;
        // A kernel may lack one of the families.
        let (bridge, netdev) = match (bridge, netdev) {
            (Ok(bridge), Err(ToolError::Refused { .. })) => (bridge, String::new()),
            (Err(ToolError::Refused { .. }), Ok(netdev)) => (String::new(), netdev),
            (bridge, netdev) => (bridge?, netdev?),
        };
        Ok(Counters { bridge: parse(&bridge), netdev: parse(&netdev) })
    }

    /// Returns the counts of a port; `None` if it has no counters, or if nft did not list all of
    /// them.
    pub fn of(&self, objects: &PortObjects) -> Option<PortCounts> {
        let (names, counters) = match &objects.ingress {
            Some(own) if !objects.is_on_bridge() => (&own.counters, &self.netdev),
            _ => (&objects.counters, &self.bridge),
        };
        let count = |hook: &str, what: &str| {
            let name = format!("p{}-{hook}-{what}", objects.index);
            names.contains(&name).then(|| counters.get(&name).copied()).flatten()
        };
        let path = |hook: &str| {
            Some(PathCounts { passed: count(hook, "passed")?, dropped: count(hook, "dropped")? })
        };
        let mut counts = PortCounts { from_guest: path("from")?, to_guest: path("to")? };
        if !objects.is_on_bridge() {
            return Some(counts);
        }
        // A frame that passes this hook may also reach the bridge's table, which counts it. So only
        // the dropped frames are added.
        if let Some(more) = self.netdev.get(&format!("p{}-from-dropped", objects.index)) {
            let dropped = &mut counts.from_guest.dropped;
            dropped.frames = dropped.frames.saturating_add(more.frames);
            dropped.bytes = dropped.bytes.saturating_add(more.bytes);
        }
        Some(counts)
    }
}

/// Reads a listing of nft: each `counter NAME` of the ports' tables, and the numbers after the next
/// `packets` and `bytes`.
pub(super) fn parse(listing: &str) -> BTreeMap<String, Count> {
    let mut counters = BTreeMap::new();
    let (mut is_own, mut name) = (false, None);
    let mut count = Count::default();
    let mut words = listing.split_whitespace();
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|word| word.parse().ok());
        match word {
            "packets" => count.frames = number().unwrap_or_default(),
            "bytes" => {
                let bytes = number();
                if let (Some(name), Some(bytes)) = (name.take().filter(|_| is_own), bytes) {
                    counters.insert(name, Count { bytes, ..count });
                }
            }
            "table" => {
                is_own = words.nth(1).is_some_and(|name| PortTable::named(name).is_some());
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
table bridge mine {
\tcounter p7-from-dropped {
\t\tpackets 9 bytes 9
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
                "table netdev netlaunch_nwfilter_2 {\ncounter p7-from-dropped { packets 3 bytes 100 }\n\
                 counter p7-from-passed { packets 9 bytes 9 }\n}",
            ),
        };
        let counts = counters.of(&objects(7)).unwrap().from_guest;
        assert_eq!((counts.dropped.frames, counts.dropped.bytes), (5, 220));
        assert_eq!(counts.passed.frames, 31);
    }

    #[test]
    fn a_missing_or_unknown_counter_counts_nothing() {
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
