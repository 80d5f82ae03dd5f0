//! Sends the frames of mended differences.
//!
//! A file of `corpus/` has the documents of a filter, the first of which is bound, and after them
//! lines with a direction, the bytes of a frame and its verdict:
//!
//! ```text
//! <filter name='bound'> … </filter>
//! out 52540022… pass
//! ```
//!
//! The frames of a stateful filter are one exchange.

use std::path::Path;

use netlaunch::firewall::FirewallBackend;
use netlaunch::nwfilter::explain::{EvalPath, Judge, Verdict};

use super::bench::Bench;
use super::case::{Case, refusal};
use crate::common::have_root;

struct Kept {
    name: String,
    case: Case,
    frames: Vec<(EvalPath, Vec<u8>, bool)>,
}

fn read(path: &Path) -> Kept {
    let text = std::fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let (documents, lines) = text.rsplit_once("</filter>\n").unwrap();
    let frame = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [way, bytes, verdict] = words[..] else { panic!("{name}: {line}") };
        let way = [EvalPath::Out, EvalPath::In].into_iter().find(|known| known.name() == way);
        let byte = |at| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap();
        (way.unwrap(), (0..bytes.len()).step_by(2).map(byte).collect(), verdict == "pass")
    };
    let frames = lines.lines().filter(|line| !line.is_empty()).map(frame).collect();
    let case = Case::read(&format!("{documents}</filter>\n")).unwrap();
    Kept { case, frames, name }
}

#[test]
fn the_kept_frames_have_their_verdict_in_explain_and_on_both_backends() {
    let name = "the_kept_frames_have_their_verdict_in_explain_and_on_both_backends";
    if !have_root(name) {
        return;
    }
    let folder = format!("{}/tests/integration/differences/corpus", env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(folder).unwrap();
    let mut kept: Vec<_> = files.map(|file| read(&file.unwrap().path())).collect();
    kept.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(!kept.is_empty());
    let mut wrong = Vec::new();
    let mut check = |kept: &Kept, by: &str, frame: &(EvalPath, Vec<u8>, bool), passes: bool| {
        if passes != frame.2 {
            wrong.push(format!("{}: {by}: {} {}", kept.name, frame.0.name(), super::hex(&frame.1)));
        }
    };
    for backend in [FirewallBackend::Nftables, FirewallBackend::Iptables] {
        let mut benches = [Bench::new(backend), Bench::tracking(backend)];
        for (kept, rules) in kept.iter().map(|kept| (kept, kept.case.rules().unwrap())) {
            let bench = &mut benches[usize::from(rules.is_stateful())];
            let usable = refusal(&rules, backend).is_none();
            let applied = if usable { bench.apply(&[Some(&rules)]) } else { Ok(()) };
            let compares = match applied {
                Err(error) if !rules.is_stateful() => panic!("{}: {error}", kept.name),
                Err(error) => {
                    eprintln!("{}: {backend} is not compared: {error}", kept.name);
                    false
                }
                Ok(()) => usable,
            };
            bench.forget();
            let mut judge = Judge::new(&rules);
            for frame in &kept.frames {
                let (way, bytes, _) = frame;
                let explained = judge.judge(*way, bytes, bytes.len()).unwrap();
                check(kept, "explain", frame, explained.verdict == Verdict::Pass);
                if compares {
                    let passes = bench.passes(0, *way, bytes);
                    if rules.is_stateful() || bench.forwards(*way, bytes) {
                        check(kept, &backend.to_string(), frame, passes);
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
