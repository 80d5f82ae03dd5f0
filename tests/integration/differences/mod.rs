//! Searches for a frame on which `explain`, nftables and iptables differ: makes filters and frames,
//! binds the filters in the kernel, and sends the frames.
//!
//! Each round makes [`PORTS`] filters ([`filters`]), binds all of them in a namespace of each
//! backend ([`bench`]), and sends frames near each filter's values through its port ([`frames`],
//! [`damage`]). A difference is made smaller ([`shrink`]) and is reported as the documents of the
//! filter, the frame, and the verdicts. A mended difference becomes a file of `corpus/`, whose
//! frames a test sends on each run.
//!
//! A frame that the bridge does not forward without a filter says nothing about the filter. Rules
//! that a backend refuses at the bind, and rules about which `nwfilter check` prints that a backend
//! carries them out in another way, are no differences; nor are those that the manual lists
//! ([`listed`]). Rules that need more than the frame are left out: `explain` does not know the
//! contents of ipsets, and this kernel may not track the connections of a bridge
//! (`nwfilter_debian_kernel` tries these).
//!
//! By hand, for a longer time and with another seed:
//!
//! ```sh
//! NETLAUNCH_TEST_SECONDS=600 NETLAUNCH_TEST_SEED=1 cargo nextest run \
//!     --no-capture -E 'test(differences::filters_and_frames)'
//! ```

mod bench;
mod case;
mod corpus;
mod damage;
mod filters;
mod frames;
mod listed;
mod random;
mod shrink;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use bench::{Bench, PORTS};
use case::{Case, refusal};
use frames::Sent;
use listed::is_listed;
use netlaunch::firewall::FirewallBackend;
use netlaunch::firewall::rules::port::PortRules;
use netlaunch::nwfilter::explain::{EvalPath, Judge, Verdict};
use netlaunch::nwfilter::{Filter, Rule};
use random::Random;

use crate::common::{extent, have_root};

/// The number of frames for each filter.
const FRAMES: usize = 120;
/// The number of kinds of differences after which a search ends, and the number of differences.
const MOST_KINDS: usize = 12;
const MOST_SHRUNK: usize = 40;

/// Returns whether a frame passes the rules according to `explain`; `None` if that depends on more
/// than the frame, or if the bytes are not a frame.
fn explained(rules: &PortRules, way: EvalPath, frame: &[u8]) -> Option<bool> {
    let explanation = Judge::new(rules).judge(way, frame, frame.len()).ok()?;
    match explanation.verdict {
        Verdict::Pass => Some(true),
        Verdict::Drop | Verdict::Reject => Some(false),
        Verdict::Undecided => None,
    }
}

/// Returns whether a frame passes a backend according to `explain`; `None` if that is not known, or
/// if the manual lists a difference.
fn expected(
    backend: FirewallBackend,
    rules: &PortRules,
    way: EvalPath,
    frame: &[u8],
) -> Option<bool> {
    explained(rules, way, frame).filter(|_| !is_listed(backend, rules, way, frame))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A filter of a round.
struct Bound {
    case: Case,
    rules: PortRules,
    frames: Vec<(Sent, bool)>,
}

/// The figures of a search, and the differences that it found.
#[derive(Default)]
struct Found {
    filters: usize,
    /// The frames that were sent through each backend, and the frames among these that passed.
    frames: [usize; 2],
    passed: usize,
    refused: [usize; 2],
    /// The reports by their kind: one of each kind is enough for a person.
    reports: BTreeMap<String, String>,
    /// The differences that were made smaller.
    shrunk: usize,
}

impl Found {
    fn is_enough(&self) -> bool {
        self.reports.len() >= MOST_KINDS || self.shrunk >= MOST_SHRUNK
    }
}

fn round(random: &mut Random) -> Vec<Bound> {
    let bound = |_| {
        let case = filters::generate(random);
        let rules = case.rules().unwrap();
        let frames = frames::near(random, &rules, FRAMES);
        let judged = frames.into_iter().filter_map(|(way, frame)| {
            let passes = explained(&rules, way, &frame)?;
            Some(((way, frame), passes))
        });
        Bound { frames: judged.collect(), rules, case }
    };
    (0..PORTS).map(bound).collect()
}

/// Sends the frames of a round through one backend.
fn compare(bench: &mut Bench, number: usize, bound: &[Bound], found: &mut Found) {
    let usable = |bound: &Bound| refusal(&bound.rules, bench.backend).is_none();
    let rules: Vec<_> = bound.iter().map(|bound| usable(bound).then_some(&bound.rules)).collect();
    found.refused[number] += rules.iter().filter(|rules| rules.is_none()).count();
    if let Err(error) = bench.apply(&rules) {
        return refused_by_the_kernel(bench, bound, &rules, &error, found);
    }
    let mut differences = Vec::new();
    for (port, bound) in bound.iter().enumerate().filter(|(port, _)| rules[*port].is_some()) {
        let differs = |((way, frame), passes): &&(Sent, bool)| {
            bench.passes(port, *way, frame) != *passes
                && bench.forwards(*way, frame)
                && !is_listed(bench.backend, &bound.rules, *way, frame)
        };
        found.frames[number] += bound.frames.len();
        // One difference of a filter is enough: the others are probably the same.
        if let Some(((way, frame), _)) = bound.frames.iter().find(differs) {
            differences.push((bound.case.clone(), *way, frame.clone()));
        }
    }
    for (case, way, frame) in differences {
        if found.is_enough() {
            return;
        }
        found.shrunk += 1;
        let (case, frame) = shrink::shrink(bench, case, way, frame);
        let (kind, report) = report(bench, &case, way, &frame);
        found.reports.entry(kind).or_insert_with(|| {
            eprintln!("{report}\n");
            report
        });
    }
}

/// Reports the filters that a tool refuses although netlaunch renders them.
fn refused_by_the_kernel(
    bench: &mut Bench,
    bound: &[Bound],
    rules: &[Option<&PortRules>],
    error: &str,
    found: &mut Found,
) {
    for (bound, rules) in bound.iter().zip(rules) {
        if let Some(rules) = rules
            && let Err(error) = bench.apply(&[Some(rules)])
        {
            let report = format!("{} refuses: {error}\n{}", bench.backend, bound.case.text());
            found.reports.insert(error, report);
            return;
        }
    }
    let report = format!("{} refuses all filters together: {error}", bench.backend);
    found.reports.insert(error.to_owned(), report);
}

/// Returns a difference's kind, and its report.
fn report(bench: &Bench, case: &Case, way: EvalPath, frame: &[u8]) -> (String, String) {
    let rules = case.rules().unwrap();
    let mut judge = Judge::new(&rules);
    let explanation = judge.judge(way, frame, frame.len()).unwrap();
    let passes = bench.passes(0, way, frame);
    let mut text = case.text();
    let _ = write!(
        text,
        "{} {}\n{}: {}\nexplain: {explanation}",
        way.name(),
        hex(frame),
        bench.backend,
        if passes { "pass" } else { "drop" },
    );
    let fields = |rule: &Rule| rule.element.as_ref().map(|e| format!("{} ", e.protocol.name()));
    let elements = case.0.iter().flat_map(Filter::rules).flat_map(fields).collect::<String>();
    (format!("{}: {elements}{passes}", bench.backend), text)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn filters_and_frames_have_the_same_verdict_in_explain_and_on_both_backends() {
    let name = "filters_and_frames_have_the_same_verdict_in_explain_and_on_both_backends";
    if !have_root(name) {
        return;
    }
    let seed = number("NETLAUNCH_TEST_SEED").unwrap_or(15);
    let limit = number("NETLAUNCH_TEST_SECONDS").map(Duration::from_secs);
    let rounds = if limit.is_some() { usize::MAX } else { extent(8, 30) };
    eprintln!("NETLAUNCH_TEST_SEED={seed}");
    let mut benches = [FirewallBackend::Nftables, FirewallBackend::Iptables].map(Bench::new);
    let (start, mut found) = (Instant::now(), Found::default());
    for number in 0..rounds {
        if limit.is_some_and(|limit| start.elapsed() > limit) || found.is_enough() {
            break;
        }
        // A round depends on its number and the seed alone.
        let mut random = Random::new(seed << 32 | number as u64);
        let bound = round(&mut random);
        found.filters += bound.len();
        found.passed += bound.iter().flat_map(|b| &b.frames).filter(|(_, passes)| *passes).count();
        for (side, bench) in benches.iter_mut().enumerate() {
            compare(bench, side, &bound, &mut found);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let Found { filters, frames, passed, refused, reports, .. } = found;
    let all = frames[0] + frames[1];
    eprintln!(
        "{filters} filters in {seconds:.0} s, of which nftables refuses {} and iptables {}; {} frames \
         on nftables and {} on iptables, {:.0} a second; explain passes {passed}; {} differences",
        refused[0],
        refused[1],
        frames[0],
        frames[1],
        all as f64 / seconds,
        reports.len(),
    );
    assert!(reports.is_empty(), "{}", reports.into_values().collect::<Vec<_>>().join("\n\n"));
    assert!(passed * 10 > frames[0], "few frames pass: {passed}");
}
