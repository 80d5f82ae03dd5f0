//! `netlaunch probe`: what this host can do, for people and for programs.

use serde_json::{Value, json};

use super::environment::Environment;
use super::request::Programs;
use super::table::table;
use super::{Failure, print_json, print_text};
use crate::facts::{Ability, Facts};
use crate::plan::{Candidate, Request, candidates};
use crate::probe::Survey;

/// The version of the JSON form, described by conf/schema/probe.schema.json.
const PROBE_VERSION: u32 = 1;

/// Probes and prints.
pub(super) async fn probe(
    as_json: bool,
    programs: &Programs,
    environment: &Environment,
) -> Result<u8, Failure> {
    let prober = environment.prober();
    let name = |path: &Option<std::path::PathBuf>| path.clone().map(|p| p.into_os_string());
    let (qemu, passt) = (name(&programs.qemu), name(&programs.passt));
    let (mut facts, survey) =
        tokio::join!(prober.facts(qemu.as_deref(), passt.as_deref()), prober.survey());
    facts.bridge = survey.bridge.clone();
    let candidates = candidates(&Request::default(), &facts);
    if as_json {
        print_json(&json(&facts, &survey, &candidates))?;
    } else {
        print_text(&text(&facts, &survey, &candidates))?;
    }
    Ok(0)
}

fn chosen(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().find(|candidate| candidate.usable && candidate.backend.is_automatic())
}

fn json(facts: &Facts, survey: &Survey, candidates: &[Candidate]) -> Value {
    json!({
        "version": PROBE_VERSION,
        "chosen": chosen(candidates).map(|candidate| candidate.backend),
        "candidates": candidates,
        "passt": facts.passt,
        "qemu": facts.qemu,
        "host": facts.host,
        "libvirt": survey.libvirt,
        "bridge": survey.bridge,
        "firewall": survey.firewall,
        "kernel": survey.kernel,
    })
}

fn text(facts: &Facts, survey: &Survey, candidates: &[Candidate]) -> String {
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
    ]
    .into_iter()
    .map(|(name, Ability { usable, why, fix })| row(name, *usable, why, fix.as_deref()))
    .collect();
    let libvirt = survey.libvirt.passt_backend == Some(true);
    rest.push(row("libvirt with passt", libvirt, &survey.libvirt.why, None));
    if let Some(why) = &facts.host.unknown {
        rest.push(row("the host's routes", false, why, Some("mount /proc")));
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
