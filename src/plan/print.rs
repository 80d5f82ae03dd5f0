//! A plan as text for people and shells, and as JSON for programs.

use std::ffi::OsStr;
use std::fmt::Write;

use serde_json::{Value, json};

use super::{Plan, Transport};

/// The version of the JSON form.
pub const PLAN_VERSION: u32 = 1;

/// The plan as shell lines, comments first.
pub fn shell(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |l: String| {
        let _ = writeln!(text, "{l}");
    };
    line(format!("# backend: {}", plan.backend));
    if let Some(why) = &plan.fallback {
        line(format!("# fallback: {why}"));
    }
    for note in &plan.notes {
        line(format!("# note: {note}"));
    }
    if let Some(passt) = &plan.passt {
        line(format!("mkdir -m 0700 {}", quote(plan.dir.as_os_str())));
        if plan.transport == Some(Transport::Fd) {
            let qemu = plan.qemu.fd.unwrap_or(-1);
            line(format!(
                "# a connected pair of UNIX stream sockets is descriptor {} of passt and {qemu} of QEMU",
                passt.fd.unwrap_or(-1),
            ));
        }
        line(format!("{} 2>{} &", shell_line(&passt.argv), quote(passt.log.as_os_str())));
    }
    match plan.qemu.argv() {
        Some(argv) => line(shell_line(&argv)),
        None => line(format!("# QEMU: {}", shell_line(&plan.qemu.args))),
    }
    text
}

/// Words as one line that a shell splits into the same words.
pub fn shell_line<S: AsRef<OsStr>>(words: &[S]) -> String {
    words.iter().map(|word| quote(word.as_ref())).collect::<Vec<_>>().join(" ")
}

fn quote(word: &OsStr) -> String {
    shell_words::quote(&word.to_string_lossy()).into_owned()
}

/// The plan as JSON, described by conf/schema/plan.schema.json.
pub fn json(plan: &Plan) -> Value {
    let words = |words: &[std::ffi::OsString]| -> Vec<String> {
        words.iter().map(|w| w.to_string_lossy().into_owned()).collect()
    };
    json!({
        "version": PLAN_VERSION,
        "backend": plan.backend,
        "fallback": plan.fallback,
        "transport": plan.transport,
        "notes": plan.notes,
        "guest": {
            "mac": plan.mac,
            "address": plan.view.map(|v| v.address),
            "gateway": plan.view.map(|v| v.gateway),
            "dns": plan.dns,
        },
        "publish": plan.publish,
        "qemu": {
            "program": plan.qemu.program,
            "args": words(&plan.qemu.args),
            "argv": plan.qemu.argv().map(|argv| words(&argv)),
        },
        "passt": plan.passt.as_ref().map(|passt| json!({
            "program": passt.program,
            "argv": words(&passt.argv),
        })),
        "files": plan.passt.as_ref().map(|passt| json!({
            "dir": plan.dir,
            "socket": passt.socket,
            "pid": passt.pid,
            "log": passt.log,
        })),
        "firewall": null,
    })
}
