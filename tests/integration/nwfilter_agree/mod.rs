//! Tests that generated frames get the same verdict from a generated filter in `explain`, from
//! iptables and from nftables in the kernel.

mod filters;
mod frames;
mod wire;

use std::cell::Cell;

use filters::{Documents, Tracking};
use netlaunch::firewall::FirewallBackend;
use netlaunch::firewall::rules::port::{PortRule, PortRules, PortVerdict};
use netlaunch::nwfilter::explain::{EvalPath, Judge, Verdict};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use wire::Wire;

/// The number of filters, and the maximum number of frames for each.
const FILTERS: u32 = 40;
const FRAMES: usize = 300;

/// Returns the verdicts of `explain` on the frames, and its explanations.
fn explained(rules: &PortRules, frames: &[(EvalPath, Vec<u8>)]) -> (Vec<bool>, Vec<String>) {
    let mut judge = Judge::new(rules);
    let judged = frames.iter().map(|(way, bytes)| {
        let explained = judge.judge(*way, bytes, bytes.len()).unwrap();
        assert_ne!(explained.verdict, Verdict::Undecided, "{explained}");
        (explained.verdict == Verdict::Pass, explained.to_string())
    });
    judged.unzip()
}

/// Fails with full details of the first frame on which a backend and `explain` disagree.
fn compare(
    documents: &Documents,
    backend: FirewallBackend,
    frames: &[(EvalPath, Vec<u8>)],
    (expected, why): &(Vec<bool>, Vec<String>),
    got: &[bool],
) -> Result<(), TestCaseError> {
    let differs: Vec<_> = (0..frames.len()).filter(|n| got[*n] != expected[*n]).collect();
    let Some(number) = differs.first().copied() else { return Ok(()) };
    let (way, bytes) = &frames[number];
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let said = if got[number] { "pass" } else { "no pass" };
    Err(TestCaseError::fail(format!(
        "{} frames differ; {backend}: frame {number} {}: {said}\nexplain: {}\n{hex}\n{}",
        differs.len(),
        way.name(),
        why[number],
        documents.0.concat(),
    )))
}

/// Fails with the reason, which contains the documents. The generated numbers would not help a
/// reader.
fn passed_or_shown<T>(result: Result<(), TestError<T>>) {
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, _) | TestError::Abort(reason)) => panic!("{reason}"),
    }
}

fn runner(seed: u8) -> TestRunner {
    let config = Config {
        cases: FILTERS,
        failure_persistence: None,
        max_shrink_iters: 40,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]))
}

#[test]
fn stateless_filters_give_the_same_verdict_in_explain_and_on_both_backends() {
    if !crate::common::have_root(
        "stateless_filters_give_the_same_verdict_in_explain_and_on_both_backends",
    ) {
        return;
    }
    let wire = Wire::new();
    let (count, passed) = (Cell::new(0), Cell::new(0));
    let result = runner(1).run(&filters::seeds(), |seeds| {
        let documents = filters::documents(&seeds, Tracking::Without);
        let Some(rules) = filters::rules(&documents) else {
            return Err(TestCaseError::fail(format!("no rules: {documents:?}")));
        };
        let frames = frames::near(&rules, FRAMES);
        let explained = explained(&rules, &frames);
        count.set(count.get() + frames.len());
        passed.set(passed.get() + explained.0.iter().filter(|passes| **passes).count());
        for backend in [FirewallBackend::Iptables, FirewallBackend::Nftables] {
            let failed = |error| TestCaseError::fail(format!("{error}\n{}", documents.0.concat()));
            let recorded = wire.apply(backend, Some(&rules), &[]).map_err(failed)?;
            let got = wire.replay(&frames, &explained.0);
            wire.apply(backend, None, &recorded).map_err(failed)?;
            compare(&documents, backend, &frames, &explained, &got)?;
        }
        Ok(())
    });
    passed_or_shown(result);
    let (count, passed) = (count.get(), passed.get());
    eprintln!("{FILTERS} filters, {count} frames on each backend, {passed} of them pass");
    assert!(passed * 10 > count && passed * 10 < count * 9, "{passed} of {count} pass");
}

/// Rules that reject packets with an answer, which needs a bridge, drop them instead.
#[test]
fn stateless_filters_give_the_same_verdict_in_explain_and_on_a_macvtap() {
    if !crate::common::macvtap::have_macvtap(
        "stateless_filters_give_the_same_verdict_in_explain_and_on_a_macvtap",
    ) {
        return;
    }
    let wire = Wire::on_macvtap();
    let (count, passed) = (Cell::new(0), Cell::new(0));
    let backend = FirewallBackend::Nftables;
    let result = runner(3).run(&filters::seeds(), |seeds| {
        let documents = filters::documents(&seeds, Tracking::Without);
        let Some(mut rules) = filters::rules(&documents) else {
            return Err(TestCaseError::fail(format!("no rules: {documents:?}")));
        };
        let rejects = |rule: &&mut PortRule| rule.verdict == PortVerdict::Reject;
        for rule in rules.from_guest.packets.iter_mut().filter(rejects) {
            rule.verdict = PortVerdict::Drop;
        }
        let frames = frames::near(&rules, FRAMES);
        let explained = explained(&rules, &frames);
        count.set(count.get() + frames.len());
        passed.set(passed.get() + explained.0.iter().filter(|passes| **passes).count());
        let failed = |error| TestCaseError::fail(format!("{error}\n{}", documents.0.concat()));
        let recorded = wire.apply(backend, Some(&rules), &[]).map_err(failed)?;
        let got = wire.replay(&frames, &explained.0);
        wire.apply(backend, None, &recorded).map_err(failed)?;
        compare(&documents, backend, &frames, &explained, &got)
    });
    passed_or_shown(result);
    let (count, passed) = (count.get(), passed.get());
    eprintln!("{FILTERS} filters, {count} frames on a macvtap, {passed} of them pass");
    assert!(passed * 10 > count && passed * 10 < count * 9, "{passed} of {count} pass");
}

#[test]
fn stateful_filters_give_the_verdict_of_explain() {
    if !crate::common::have_root("stateful_filters_give_the_verdict_of_explain") {
        return;
    }
    let count = Cell::new(0);
    let result = runner(2).run(&filters::seeds(), |seeds| {
        let documents = filters::documents(&seeds, Tracking::With);
        let Some(rules) = filters::rules(&documents) else {
            return Err(TestCaseError::fail(format!("no rules: {documents:?}")));
        };
        if !rules.is_stateful() {
            return Ok(());
        }
        let frames = frames::exchanges(&rules, FRAMES);
        let explained = explained(&rules, &frames);
        count.set(count.get() + frames.len());
        // A new namespace, in which no connection is tracked yet.
        let wire = Wire::new();
        let failed = |error| TestCaseError::fail(format!("{error}\n{}", documents.0.concat()));
        wire.apply(FirewallBackend::Iptables, Some(&rules), &[]).map_err(failed)?;
        wire.trust_checksums();
        let got = wire.replay(&frames, &explained.0);
        compare(&documents, FirewallBackend::Iptables, &frames, &explained, &got)
    });
    passed_or_shown(result);
    eprintln!("{} frames in connections", count.get());
    assert!(count.get() > 1000);
}
