//! Checks whether the kernel still has the rules of ports' filters.
//!
//! All ports are checked together: nft's tables are read once by netlink, and each iptables tool
//! that a port needs runs once.

use std::collections::BTreeSet;
use std::io;

use super::iptables_shape::ShapeDifference;
use super::iptables_state::TableState;
use super::nft_dump::table_shapes;
use super::port_change::table_tools;
use super::port_iptables::Part;
use super::port_nft::{self, PortObjects, PortTable, TableShapes};
use super::port_record::PortRecord;
use super::tool_error::ToolError;
use super::tools::{Tool, Tools};
use crate::types::error_text;

/// The rules of ports' filters in the kernel at one moment.
#[derive(Debug)]
pub struct PortRulesState {
    /// Whether the caller has just committed the rules of all ports with nft, so that the tables
    /// need not be read.
    nft_is_committed: bool,
    /// The shapes of nft's tables; `None` if no port needs them, or if they cannot be read.
    nft: Option<TableShapes>,
    /// Whether the kernel has tables of the family netdev.
    has_netdev: bool,
    /// The tables of the iptables tools that ports need and that could be read.
    tools: Vec<(Part, TableState)>,
    /// The reasons why tables could not be read, one clause each.
    pub unknown: Vec<String>,
}

/// The state of a port's rules in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RulesState {
    /// The kernel has the rules as they were added.
    There,
    /// Some or all rules are missing; the clause names the missing part.
    Missing(String),
    /// The rules exist, but rules of other programs come first; the clause names the place.
    Overtaken(String),
    /// The kernel's rules could not be read, or nothing was recorded to compare them with.
    Unknown,
}

/// The caller's knowledge about the rules of all ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RulesKnown {
    /// Another program may have changed any rule.
    Nothing,
    /// The caller has just set all rules, and the kernel has committed those of nft. Rules of
    /// iptables are read nevertheless, because rules of other programs may come before them.
    NftCommitted,
}

impl PortRulesState {
    /// Reads the tables that ports with these records need.
    pub async fn read(tools: &Tools, recorded: &[&PortRecord]) -> Self {
        Self::read_after(tools, recorded, RulesKnown::Nothing).await
    }

    /// Does the same as [`read`](Self::read), but does not read what is known.
    pub async fn read_after(tools: &Tools, recorded: &[&PortRecord], known: RulesKnown) -> Self {
        let mut now = PortRulesState {
            nft_is_committed: known == RulesKnown::NftCommitted,
            nft: None,
            has_netdev: true,
            tools: Vec::new(),
            unknown: Vec::new(),
        };
        let ports: Vec<_> = recorded.iter().filter_map(|one| one.objects()).collect();
        if !now.nft_is_committed && !ports.is_empty() {
            match port_tables(&ports) {
                Ok(tables) => {
                    now.has_netdev = !tables.netdev.is_empty() || has_netdev(tools).await;
                    now.nft = Some(tables);
                }
                Err(error) => now.unknown.push(format!("nftables: {}", reason(&error))),
            }
        }
        for part in Part::ALL {
            let needs = |recorded: &PortRecord| match recorded {
                PortRecord::Iptables { shapes, .. } => shapes.iter().any(|(p, _)| *p == part),
                PortRecord::Nftables(_) => false,
            };
            if !recorded.iter().any(|recorded| needs(recorded)) {
                continue;
            }
            match table_tools(part).present(tools).await {
                Ok(present) => now.tools.push((part, present)),
                Err(error) => now.unknown.push(error_text(&error)),
            }
        }
        now
    }

    /// Returns the state of the rules of a port's record.
    pub fn rules(&self, recorded: &PortRecord) -> RulesState {
        match recorded {
            PortRecord::Nftables(_) if self.nft_is_committed => RulesState::There,
            PortRecord::Nftables(objects) => match &self.nft {
                None => RulesState::Unknown,
                Some(now) => port_nft::missing(objects, now, self.has_netdev)
                    .or_else(|| port_nft::missing_in_first_maps(objects, now))
                    .map_or(RulesState::There, RulesState::Missing),
            },
            // The records of earlier versions have no shape to compare with.
            PortRecord::Iptables { shapes, parts, .. } if shapes.len() < parts.len() => {
                RulesState::Unknown
            }
            PortRecord::Iptables { shapes, .. } => {
                let mut rules = RulesState::There;
                for (part, shape) in shapes {
                    let Some((_, now)) = self.tools.iter().find(|(other, _)| other == part) else {
                        return RulesState::Unknown;
                    };
                    match shape.difference(now, part.tool()) {
                        None => {}
                        Some(ShapeDifference::Missing(what)) => return RulesState::Missing(what),
                        Some(ShapeDifference::Overtaken(what)) => {
                            rules = RulesState::Overtaken(what)
                        }
                    }
                }
                rules
            }
        }
    }
}

/// Reads the shapes of the tables that ports with these objects need, and of the first table.
fn port_tables(ports: &[&PortObjects]) -> io::Result<TableShapes> {
    let read = |family: i32, tables: BTreeSet<PortTable>, maps: &[&str]| {
        let names: Vec<String> = tables.iter().map(PortTable::to_string).collect();
        let family = u8::try_from(family).unwrap_or_default();
        let shapes = table_shapes(family, &names, maps)?.into_iter();
        let shapes = shapes.filter_map(|(name, shape)| Some((PortTable::named(&name)?, shape)));
        Ok::<_, io::Error>(shapes.collect())
    };
    let bridge = ports.iter().map(|port| port.table).chain([PortTable::FIRST]).collect();
    let netdev = ports.iter().filter_map(|port| port.netdev_table()).collect();
    Ok(TableShapes {
        bridge: read(libc::NFPROTO_BRIDGE, bridge, &port_nft::maps())?,
        netdev: read(libc::NFPROTO_NETDEV, netdev, &[])?,
    })
}

/// Returns whether the kernel accepts a table of the family netdev. Called only if no such table
/// exists.
async fn has_netdev(tools: &Tools) -> bool {
    let text = format!("{}\n", port_nft::Families::NETDEV);
    !matches!(
        tools.run(Tool::Nft, &["--check"], &text).await,
        Err(ToolError::Refused { line: Some(_), .. })
    )
}

fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "the kernel shows its rules to root only".to_owned(),
        _ => error_text(&error),
    }
}
