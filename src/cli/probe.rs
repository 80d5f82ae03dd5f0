//! `netlaunch probe`: what this host can do, for people and for programs.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::environment::Environment;
use super::request::Programs;
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
    let mut backends = table(["BACKEND", "USABLE", "WHY", "FIX"]);
    for candidate in candidates {
        backends.add_row([
            candidate.backend.name(),
            yes(candidate.usable),
            &candidate.why,
            candidate.fix.as_deref().unwrap_or("-"),
        ]);
    }
    let mut rest = table(["ALSO", "USABLE", "WHY", "FIX"]);
    let kernel = &survey.kernel;
    for (name, Ability { usable, why, fix }) in [
        ("user namespaces", &kernel.user_namespaces),
        ("PID namespaces", &kernel.pid_namespaces),
        ("KVM", &kernel.kvm),
    ] {
        rest.add_row([name, yes(*usable), why, fix.as_deref().unwrap_or("-")]);
    }
    let libvirt = survey.libvirt.passt_backend == Some(true);
    rest.add_row(["libvirt with passt", yes(libvirt), &survey.libvirt.why, "-"]);
    if let Some(why) = &facts.host.unknown {
        rest.add_row(["the host's routes", "no", why, "mount /proc"]);
    }
    if let Some(profile) = &facts.passt.confinement {
        let dirs: Vec<_> = profile.writable.iter().map(|d| d.display().to_string()).collect();
        let why = format!("passt may make files only below {}", dirs.join(", "));
        rest.add_row(["AppArmor", "yes", &format!("profile {}: {why}", profile.profile), "-"]);
    }
    format!("{choice}\n{backends}\n\n{rest}\n")
}

fn yes(usable: bool) -> &'static str {
    if usable { "yes" } else { "no" }
}

fn table(header: [&str; 4]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}
