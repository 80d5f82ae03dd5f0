//! `netlaunch nwfilter binding-list --counters`: the frames that each rule of each port has
//! counted.
//!
//! With `--watch` the command prints the numbers every second, and ends with status 0 on SIGINT,
//! SIGTERM and SIGHUP, and when the reader of its output has ended. A terminal shows the last
//! numbers only.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use serde_json::{Value, json};

use super::binding_list::{PortBindings, as_json};
use super::explain_output::write;
use super::nwfilter_error::NwfilterError;
use super::table::table;
use super::{Failure, print_text};
use crate::firewall::{Count, PathCounts, PortCounts, RuleName};
use crate::nwfilter::explain::action;
use crate::nwfilter::port::{Bindings, PortRuleCounts, PortStatus};
use crate::sys::output_reader::OutputReader;
use crate::sys::process::signals::Signals;
use crate::types::{InterfaceName, printable};

/// The time between two prints.
const INTERVAL: Duration = Duration::from_secs(1);

/// The counters of all ports.
struct Numbers {
    ports: Vec<PortStatus>,
    rules: BTreeMap<u32, PortRuleCounts>,
    sums: BTreeMap<u32, PortCounts>,
}

impl Numbers {
    async fn read(bindings: &Bindings) -> Result<Self, NwfilterError> {
        let (ports, _) = bindings.list_all()?;
        let sums = bindings.counts(ports.iter()).await;
        let rules = bindings.rule_counts(&ports).await;
        Ok(Numbers { ports, rules, sums })
    }

    fn table(&self) -> String {
        let mut rows = Vec::new();
        for port in &self.ports {
            let rules = match self.rules.get(&port.index) {
                Some(Ok(rules)) => rules.as_slice(),
                _ => &[],
            };
            let sums = self.sums.get(&port.index);
            for (to_guest, name) in [(false, "out"), (true, "in")] {
                let rules = rules.iter().filter(|(rule, _)| rule.to_guest == to_guest);
                rows.extend(rules.map(|(rule, count)| rule_row(&port.port, name, rule, *count)));
                let Some(sums) = sums else { continue };
                let PathCounts { passed, dropped } =
                    if to_guest { sums.to_guest } else { sums.from_guest };
                rows.extend(
                    [("passed", passed), ("dropped", dropped)]
                        .map(|(what, count)| row(&port.port, name, ["-", "-", "-", what], count)),
                );
            }
        }
        let header = ["PORT", "DIR", "FILTER", "LINE", "CHAIN", "ACTION", "FRAMES", "BYTES"];
        table(header, &rows, &[], &[2])
    }

    /// Warns of the ports whose counters are not known, once for each reason. `known` has the
    /// reasons of earlier calls.
    fn warn(&self, known: &mut BTreeMap<u32, String>) {
        let mut new: BTreeMap<&str, Vec<&InterfaceName>> = BTreeMap::new();
        for port in &self.ports {
            let Some(Err(why)) = self.rules.get(&port.index) else {
                known.remove(&port.index);
                continue;
            };
            if known.insert(port.index, why.clone()).as_ref() != Some(why) {
                new.entry(why).or_default().push(&port.port);
            }
        }
        for (why, ports) in new {
            let [first, others @ ..] = &*ports else { continue };
            let more = match others.len() {
                0 => String::new(),
                number => format!(" and {number} more"),
            };
            tracing::warn!(
                "the counters of the rules of the port {first}{more} are not known: {why}"
            );
        }
    }
}

fn row(port: &InterfaceName, direction: &str, rest: [&str; 4], count: Count) -> [String; 8] {
    let [filter, line, chain, what] = rest.map(str::to_owned);
    let (frames, bytes) = (count.frames.to_string(), count.bytes.to_string());
    [port.to_string(), direction.to_owned(), filter, line, chain, what, frames, bytes]
}

fn rule_row(port: &InterfaceName, direction: &str, rule: &RuleName, count: Count) -> [String; 8] {
    let line = rule.origin.line.to_string();
    let chain = rule.chain.as_deref().unwrap_or("IP rules");
    row(port, direction, [&rule.origin.filter, &line, chain, action(rule.verdict())], count)
}

/// Returns the JSON form of a port's rules; null if their counters are not known.
fn rules_json(rules: Option<&PortRuleCounts>) -> Value {
    let Some(Ok(rules)) = rules else { return Value::Null };
    let rule = |(rule, count): &(RuleName, Count)| {
        json!({
            "direction": if rule.to_guest { "in" } else { "out" },
            "filter": rule.origin.filter,
            "line": rule.origin.line,
            "chain": rule.chain,
            "action": action(rule.verdict()),
            "frames": count.frames,
            "bytes": count.bytes,
        })
    };
    rules.iter().map(rule).collect()
}

/// Prints the counters of all ports; with `watch`, every second.
pub(super) async fn counters(bindings: &Bindings, json: bool, watch: bool) -> Result<(), Failure> {
    let mut known = BTreeMap::new();
    if !watch {
        return print_once(bindings, json, &mut known).await.map(drop);
    }
    let mut signals = Signals::take().map_err(Failure::system("wait for signals"))?;
    let reader = OutputReader::open();
    loop {
        if !print_once(bindings, json, &mut known).await? {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = signals.next() => return Ok(()),
            () = reader.ended() => return Ok(()),
        }
        if !json && io::stdout().is_terminal() {
            // This moves the cursor home and clears the screen (ECMA-48, CUP and ED).
            write(b"\x1b[H\x1b[2J")?;
        }
    }
}

async fn print_once(
    bindings: &Bindings,
    json: bool,
    known: &mut BTreeMap<u32, String>,
) -> Result<bool, Failure> {
    let numbers = Numbers::read(bindings).await?;
    numbers.warn(known);
    if !json {
        return print_text(&numbers.table()).map(|()| true);
    }
    let read = PortBindings::read(bindings).await?;
    let mut object = as_json(&read, bindings, &numbers.sums);
    for port in object["bindings"].as_array_mut().into_iter().flatten() {
        let index = port["index"].as_u64().and_then(|index| u32::try_from(index).ok());
        port["rules"] = rules_json(index.and_then(|index| numbers.rules.get(&index)));
    }
    write(format!("{}\n", printable::json(&object, false)).as_bytes())
}
