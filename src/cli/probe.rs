//! `netlaunch probe`: shows the abilities of this host, for people and for programs.

use std::os::fd::RawFd;

use serde_json::{Value, json};

use super::args::ProbeArgs;
use super::environment::Environment;
use super::hint;
use super::probe_requirements::{Requirement, needs_trials, requirements};
use super::probe_trials::{Trials, try_programs};
use super::request::Programs;
use super::run::context;
use super::table::table;
use super::{Failure, launch_error, print_json, print_text};
use crate::launcher::plan::{self, Backend, Candidate, PlanError, Request, candidates};
use crate::launcher::probe::Survey;
use crate::launcher::{LaunchError, PASST_FIX, StartError, try_passt};
use crate::types::facts::{Facts, KernelFeature, Problem};
use crate::types::{Setting, os_text};

/// The version of the JSON form, described by conf/schema/probe.schema.json.
const PROBE_VERSION: u32 = 1;
/// Exit status if the host lacks an ability of `--require`.
const LACKS: u8 = 1;

/// Probes and prints. With `--require`, prints only the missing abilities, or as JSON everything.
pub(super) async fn probe(
    args: &ProbeArgs,
    programs: &Programs,
    environment: &Environment,
    qemu_fd: RawFd,
) -> Result<u8, Failure> {
    let prober = environment.prober();
    let name = |path: &Option<std::path::PathBuf>| path.clone().map(|p| p.into_os_string());
    let (qemu, passt) = (name(&programs.qemu), name(&programs.passt));
    let (mut facts, survey) =
        tokio::join!(prober.facts(qemu.as_deref(), passt.as_deref()), prober.survey());
    facts.bridge = survey.bridge.clone();
    if qemu.is_some() {
        facts.qemu.problem = facts.qemu.problem.map(|problem| problem.about(&[Setting::Qemu]));
    }
    let request = Request::default();
    let mut candidates = candidates(&request, &request.nic, &facts);
    if candidates.iter().any(|c| c.usable && c.backend == Backend::Passt) {
        let around = context(environment, qemu_fd);
        if let Err(error) = try_passt(&request, &facts, &around).await {
            facts.passt.problem = Some(problem(error));
            candidates = plan::candidates(&request, &request.nic, &facts);
        }
    }
    for problem in [&mut facts.passt.problem, &mut facts.qemu.problem].into_iter().flatten() {
        problem.fix = hint::with_options(std::mem::take(&mut problem.fix), problem.settings);
    }
    for Candidate { fix, settings, .. } in &mut candidates {
        *fix = fix.take().map(|fix| hint::with_options(fix, settings));
    }
    let wanted = &args.require;
    let shows_all = args.json || wanted.is_empty();
    let trials = if shows_all || wanted.iter().any(|ability| needs_trials(*ability)) {
        try_programs(environment, survey.bridge.net_admin).await
    } else {
        Trials::default()
    };
    let required = requirements(wanted, &facts, &candidates, &survey, &trials);
    if args.json {
        let mut report = json(&facts, &survey, &candidates, &trials);
        if !wanted.is_empty() {
            report["required"] = json!(required);
        }
        print_json(&report)?;
    } else if shows_all {
        print_text(&text(&facts, &survey, &candidates, &trials))?;
    } else {
        let missing = required.iter().filter(|one| !one.usable);
        print_text(&missing.map(Requirement::line).collect::<String>())?;
    }
    Ok(if required.iter().all(|one| one.usable) { 0 } else { LACKS })
}

/// The reason why a launch would not have passt.
fn problem(error: LaunchError) -> Problem {
    match error {
        LaunchError::Plan(PlanError::Unusable(candidate)) => {
            Problem::new(candidate.why, candidate.fix.unwrap_or_default())
        }
        error => {
            let of_passt = matches!(error, LaunchError::Start(StartError::Passt(_)));
            let failed = if of_passt { "it fails to start: " } else { "" };
            Problem::new(format!("{failed}{}", launch_error::text(&error)), PASST_FIX)
        }
    }
}

fn chosen(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().find(|candidate| candidate.usable && candidate.backend.is_automatic())
}

fn json(facts: &Facts, survey: &Survey, candidates: &[Candidate], trials: &Trials) -> Value {
    let mut firewall = json!(survey.firewall);
    firewall["backends"] = json!({ "nftables": trials.nftables, "iptables": trials.iptables });
    let mut dnsmasq = json!(trials.dnsmasq);
    dnsmasq["path"] =
        json!(trials.dnsmasq_path.as_ref().map(|path| os_text::value(path.as_os_str())));
    json!({
        "version": PROBE_VERSION,
        "chosen": chosen(candidates).map(|candidate| candidate.backend),
        "candidates": candidates,
        "passt": facts.passt,
        "qemu": facts.qemu,
        "host": facts.host,
        "libvirt": survey.libvirt,
        "bridge": survey.bridge,
        "firewall": firewall,
        "dnsmasq": dnsmasq,
        "kernel": survey.kernel,
    })
}

fn text(facts: &Facts, survey: &Survey, candidates: &[Candidate], trials: &Trials) -> String {
    let choice = match chosen(candidates) {
        Some(candidate) => format!("auto would choose {}.\n", candidate.backend),
        None => "No backend can serve on this host.\n".to_owned(),
    };
    let row = |name: &str, usable, why: &str, fix: Option<&str>| {
        [name, yes(usable), why, fix.unwrap_or("-")].map(str::to_owned)
    };
    let backends: Vec<_> = candidates
        .iter()
        .map(|c| row(c.backend.name(), c.usable, &c.why, c.fix.as_deref()))
        .collect();
    let kernel = &survey.kernel;
    let mut rest: Vec<_> = [
        ("user namespaces", &kernel.user_namespaces),
        ("PID namespaces", &kernel.pid_namespaces),
        ("KVM", &kernel.kvm),
        ("ping from guests", &kernel.ping),
        ("vhost-net for taps", &survey.bridge.vhost_net),
        ("dnsmasq for networks", &trials.dnsmasq),
        ("firewall: nftables", &trials.nftables),
        ("firewall: iptables", &trials.iptables),
    ]
    .into_iter()
    .map(|(name, KernelFeature { usable, why, fix })| row(name, *usable, why, fix.as_deref()))
    .collect();
    let libvirt = survey.libvirt.passt_backend == Some(true);
    rest.push(row("libvirt with passt", libvirt, &survey.libvirt.why, None));
    if let Some(why) = &facts.host.unknown {
        rest.push(row("the host's routes", false, why, Some("mount /proc")));
    }
    if let Some(why) = &facts.host.resolvers_problem {
        rest.push(row("the host's DNS", false, why, Some("name a server in that file")));
    }
    if let Some(profile) = &facts.passt.confinement {
        let dirs: Vec<_> = profile.writable.iter().map(|d| d.display().to_string()).collect();
        let why = format!("passt may make files only below {}", dirs.join(", "));
        rest.push(row("AppArmor", true, &format!("profile {}: {why}", profile.profile), None));
    }
    let (wrap, cut) = (&[0, 2, 3], &[2, 3]);
    let backends = table(["BACKEND", "USABLE", "WHY", "FIX"], &backends, wrap, cut);
    let rest = table(["ALSO", "USABLE", "WHY", "FIX"], &rest, wrap, cut);
    format!("{choice}\n{backends}\n{rest}")
}

fn yes(usable: bool) -> &'static str {
    if usable { "yes" } else { "no" }
}
