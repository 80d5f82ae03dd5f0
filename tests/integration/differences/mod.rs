//! Searches for a frame on which `explain`, nftables and iptables differ: makes filters and frames,
//! binds the filters in the kernel, and sends the frames.
//!
//! Each round makes [`PORTS`] filters ([`filters`]), binds all of them in a namespace of each
//! backend ([`bench`]), and sends frames near each filter's values through its port ([`frames`],
//! [`damage`]). A difference is made smaller ([`shrink`]) and is reported as the documents of the
//! filter, the frame, and the verdicts. A mended difference becomes a file of `corpus/`, whose
//! frames a test sends on each run.
//!
//! A second search has rules about connections. A frame alone says little about these, so it sends
//! exchanges of both ends ([`talk`]), each of which starts without connections. It compares the
//! backends that can track connections on this kernel, and its last line names the others: nftables
//! can only where the kernel tracks the connections of a bridge. In the test host, where that is
//! so, a person runs the search by hand: an emulated machine needs minutes for a round. The number
//! of a source's connections depends on the time at which the kernel forgets connections, so an
//! exchange ends before a frame that reaches a rule with `connlimit-above`; the summary has the
//! number of these exchanges.
//!
//! A frame that the bridge does not forward without a filter says nothing about the filter. Rules
//! that a backend refuses at the bind, and rules about which `nwfilter check` prints that a backend
//! carries them out in another way, are no differences; nor are those that the manual lists
//! ([`listed`]). Rules with ipsets are left out, because `explain` does not know the contents of
//! these.
//!
//! By hand, for a longer time and with another seed:
//!
//! ```sh
//! NETLAUNCH_TEST_SECONDS=600 NETLAUNCH_TEST_SEED=1 cargo nextest run \
//!     --no-capture -E 'test(differences::filters_and)'
//! ```

mod bench;
mod case;
mod corpus;
mod damage;
mod exchange;
mod filters;
mod frames;
mod listed;
mod random;
mod shrink;
mod talk;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use bench::{Bench, PORTS};
use case::{Case, refusal};
use exchange::{Exchange, Sequence};
use filters::Rules;
use frames::Sent;
use listed::is_listed;
use netlaunch::firewall::FirewallBackend;
use netlaunch::firewall::rules::port::PortRules;
use netlaunch::nwfilter::explain::Judge;
use netlaunch::nwfilter::{Filter, Rule};
use random::Random;

use crate::common::port_scene::backends;
use crate::common::{extent, have_root};

/// The number of frames for each filter.
const FRAMES: usize = 120;
/// The number of exchanges for each stateful filter.
const EXCHANGES: usize = 30;
/// The number of kinds of differences after which a search ends, and the number of differences.
const MOST_KINDS: usize = 12;
const MOST_SHRUNK: usize = 40;

/// Returns the number of the first frame of a sequence on which a backend differs from `explain`,
/// unless the manual lists a difference about it or about a frame before it.
fn differs(bench: &Bench, port: usize, rules: &PortRules, sequence: &Sequence) -> Option<usize> {
    bench.forget();
    let frames = &sequence.frames;
    let number = frames
        .iter()
        .position(|((way, frame), passes)| bench.passes(port, *way, frame) != *passes)?;
    let counts = frames[..=number].iter().all(|((way, frame), _)| {
        !is_listed(bench.backend, rules, *way, frame) && bench.forwards(*way, frame)
    });
    counts.then_some(number)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A filter of a round.
struct Bound {
    case: Case,
    rules: PortRules,
    exchanges: Vec<(Exchange, Sequence)>,
}

/// The figures of a search, and the differences that it found.
#[derive(Default)]
struct Found {
    filters: usize,
    exchanges: usize,
    /// The exchanges that end before a frame about which `explain` cannot decide, or whose
    /// connections a rule counts.
    undecided: usize,
    /// The frames that were sent through each backend, and the frames among these that passed.
    frames: [usize; 2],
    passed: usize,
    /// The filters that each backend got, and those that it refuses.
    compared: [usize; 2],
    refused: [usize; 2],
    /// The reports by their kind: one of each kind is enough for a person.
    reports: BTreeMap<String, String>,
    /// The differences that were made smaller.
    shrunk: usize,
    /// The differences that two further trials did not show.
    unrepeated: usize,
    /// The end of the search, if its time is limited.
    end: Option<Instant>,
}

impl Found {
    fn is_enough(&self) -> bool {
        let is_over = self.end.is_some_and(|end| Instant::now() > end);
        is_over || self.reports.len() >= MOST_KINDS || self.shrunk >= MOST_SHRUNK
    }

    fn add(&mut self, bound: &[Bound]) {
        self.filters += bound.len();
        for (_, sequence) in bound.iter().flat_map(|bound| &bound.exchanges) {
            self.exchanges += 1;
            self.undecided += usize::from(sequence.undecided);
            self.passed += sequence.frames.iter().filter(|(_, passes)| *passes).count();
        }
    }
}

fn round(random: &mut Random, kind: Rules) -> Vec<Bound> {
    let bound = |_| {
        let case = filters::generate(random, kind);
        let rules = case.rules().unwrap();
        let exchanges = match kind {
            Rules::Stateless => {
                frames::near(random, &rules, FRAMES).into_iter().map(Exchange::single).collect()
            }
            Rules::Stateful => talk::near(random, &rules, EXCHANGES),
        };
        let judged = exchanges.into_iter().map(|exchange| {
            let sequence = exchange.sequence(&rules);
            (exchange, sequence)
        });
        Bound { exchanges: judged.collect(), rules, case }
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
        if found.is_enough() {
            break;
        }
        found.compared[number] += 1;
        found.frames[number] +=
            bound.exchanges.iter().map(|(_, sequence)| sequence.frames.len()).sum::<usize>();
        // One difference of a filter is enough: the others are probably the same.
        for (exchange, sequence) in &bound.exchanges {
            let differs = || differs(bench, port, &bound.rules, sequence);
            let Some(number) = differs() else { continue };
            let again = [differs(), differs()];
            if again == [None; 2] {
                found.unrepeated += 1;
                eprintln!("{}", unrepeated(bench, &bound.case, sequence, number));
                continue;
            }
            differences.push((bound.case.clone(), exchange.clone()));
            break;
        }
    }
    for (case, exchange) in differences {
        if found.is_enough() && !found.reports.is_empty() {
            return;
        }
        found.shrunk += 1;
        let (case, exchange) = shrink::shrink(bench, case, exchange);
        let (kind, report) = report(bench, &case, &exchange);
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

/// Describes a difference that two further trials do not show.
fn unrepeated(bench: &Bench, case: &Case, sequence: &Sequence, number: usize) -> String {
    let frame = |((way, frame), passes): &(Sent, bool)| {
        format!("{} {} {}\n", way.name(), hex(frame), if *passes { "pass" } else { "drop" })
    };
    let frames: String = sequence.frames.iter().map(frame).collect();
    format!(
        "{}: once another verdict on frame {number}, and not in two further trials\n{}{frames}",
        bench.backend,
        case.text()
    )
}

/// Returns a difference's kind, and its report: the documents, the frames in the form of a file of
/// the corpus, and the explanation of the frame that differs.
fn report(bench: &mut Bench, case: &Case, exchange: &Exchange) -> (String, String) {
    let rules = case.rules().unwrap();
    let _ = bench.apply(&[Some(&rules)]);
    let mut sequence = exchange.sequence(&rules);
    if let Some(number) = differs(bench, 0, &rules, &sequence) {
        sequence.frames.truncate(number + 1);
    }
    let mut text = case.text();
    let mut judge = Judge::new(&rules);
    let mut explanation = String::new();
    for ((way, frame), passes) in &sequence.frames {
        explanation = judge.judge(*way, frame, frame.len()).unwrap().to_string();
        let verdict = if *passes { "pass" } else { "drop" };
        let _ = writeln!(text, "{} {} {verdict}", way.name(), hex(frame));
    }
    let passes = sequence.frames.last().is_none_or(|(_, passes)| !*passes);
    let verdict = if passes { "pass" } else { "drop" };
    let _ = write!(text, "{}, last frame: {verdict}\nexplain: {explanation}", bench.backend);
    let fields = |rule: &Rule| rule.element.as_ref().map(|e| format!("{} ", e.protocol.name()));
    let elements = case.0.iter().flat_map(Filter::rules).flat_map(fields).collect::<String>();
    (format!("{}: {elements}{passes}", bench.backend), text)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Makes rounds of these rules until a time or a number is over, and fails on a difference.
fn search(kind: Rules, benches: &mut [(usize, Bench)], absent: &str) {
    let seed = number("NETLAUNCH_TEST_SEED").unwrap_or(15);
    let limit = number("NETLAUNCH_TEST_SECONDS").map(Duration::from_secs);
    let rounds = if limit.is_some() { usize::MAX } else { extent(8, 30) };
    eprintln!("NETLAUNCH_TEST_SEED={seed}");
    let start = Instant::now();
    let mut found = Found { end: limit.map(|limit| start + limit), ..Found::default() };
    for number in 0..rounds {
        if found.is_enough() {
            break;
        }
        // A round depends on its number and the seed alone.
        let mut random = Random::new(seed << 32 | number as u64);
        let bound = round(&mut random, kind);
        found.add(&bound);
        for (side, bench) in &mut *benches {
            compare(bench, *side, &bound, &mut found);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let all = found.frames[0] + found.frames[1];
    let Found { filters, exchanges, undecided, passed, unrepeated, reports, .. } = &found;
    eprintln!(
        "{kind:?}: {filters} filters in {seconds:.0} s, {:.0} frames a second; {exchanges} \
         exchanges, of which {undecided} end before a frame about which explain cannot decide or \
         whose connections a rule counts; explain passes {passed}; {} differences, and \
         {unrepeated} that did not repeat{absent}",
        all as f64 / seconds,
        reports.len(),
    );
    for (side, bench) in &*benches {
        eprintln!(
            "{}: {} filters compared, {} refused; {} frames",
            bench.backend, found.compared[*side], found.refused[*side], found.frames[*side],
        );
    }
    let frames = found.frames[0].max(found.frames[1]);
    let reports = found.reports.into_values().collect::<Vec<_>>().join("\n\n");
    assert!(reports.is_empty(), "{reports}");
    assert!(found.passed * 10 > frames, "few frames pass: {}", found.passed);
}

const BACKENDS: [FirewallBackend; 2] = [FirewallBackend::Nftables, FirewallBackend::Iptables];

#[test]
fn filters_and_frames_have_the_same_verdict_in_explain_and_on_both_backends() {
    let name = "filters_and_frames_have_the_same_verdict_in_explain_and_on_both_backends";
    if !have_root(name) {
        return;
    }
    let mut benches: Vec<_> = BACKENDS.map(Bench::new).into_iter().enumerate().collect();
    search(Rules::Stateless, &mut benches, "");
}

/// A rule that every backend has which tracks connections.
const TRACKED: &str =
    "<filter name='bound'><rule action='accept' direction='out'><tcp/></rule></filter>";

#[test]
fn filters_and_exchanges_have_the_same_verdict_in_explain_and_on_backends_that_track_connections() {
    let name = "filters_and_exchanges_have_the_same_verdict_in_explain_and_on_backends_that_track_connections";
    if !have_root(name) {
        return;
    }
    let tracked = Case::read(TRACKED).unwrap().rules().unwrap();
    let named = backends();
    let (mut benches, mut absent) = (Vec::new(), String::new());
    for (side, backend) in BACKENDS.into_iter().enumerate() {
        if !named.contains(&backend.to_string().as_str()) {
            absent += &format!("; {backend} is left out by NETLAUNCH_TEST_BACKEND");
            continue;
        }
        let mut bench = Bench::tracking(backend);
        match bench.apply(&[Some(&tracked)]) {
            Ok(()) => benches.push((side, bench)),
            Err(error) => absent += &format!("; {backend} is not compared: {error}"),
        }
    }
    assert!(!benches.is_empty(), "no backend tracks connections{absent}");
    search(Rules::Stateful, &mut benches, &absent);
}
