//! A plan as text for people and shells, and as JSON for programs. For libvirt: [`super::xml`].

use std::ffi::OsStr;
use std::fmt::Write;

use serde_json::{Value, json};

use super::{BridgePlan, Plan, Transport, Way};

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
        let dir = quote(plan.dir.as_os_str());
        line(format!("mkdir -m 0700 {dir}"));
        if let Some(user) = passt.user {
            line("# open to passt's user, until passt serves".to_owned());
            line(format!("chgrp {} {dir} && chmod 1770 {dir}", user.gid));
        }
        if plan.transport == Some(Transport::Fd) {
            let qemu = plan.qemu.fd.unwrap_or(-1);
            line(format!(
                "# a connected pair of UNIX stream sockets is descriptor {} of passt and {qemu} of QEMU",
                passt.fd.unwrap_or(-1),
            ));
        }
        line(format!("{} 2>{} &", shell_line(&passt.argv), quote(passt.log.as_os_str())));
    }
    if let Some(bridge) = &plan.bridge {
        for said in bridge_lines(bridge, plan.qemu.fd) {
            line(said);
        }
    }
    if let Some(user) = &plan.user {
        line(format!("# QEMU runs as the user {user}, without capabilities"));
    }
    match plan.qemu.argv() {
        Some(argv) => line(shell_line(&argv)),
        None => line(format!("# QEMU: {}", shell_line(&plan.qemu.args))),
    }
    text
}

/// The network's rules, which are set already, and what stands for the tap.
fn bridge_lines(plan: &BridgePlan, fd: Option<i32>) -> Vec<String> {
    let mut lines = Vec::new();
    for script in &plan.firewall {
        let words = [std::slice::from_ref(&script.program), &script.args].concat();
        let tool = shell_line(&words);
        let network = plan.network.as_ref().map(|n| n.as_str()).unwrap_or_default();
        lines.push(format!("# rules of the network {network}, set when it was started: {tool}"));
        lines.extend(script.input.lines().map(|line| format!("#   {line}")));
    }
    if plan.way == Way::Tap {
        let (bridge, fd) = (&plan.bridge, fd.unwrap_or(-1));
        lines.push(format!("# a tap on the bridge {bridge} is descriptor {fd} of QEMU"));
    }
    lines
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
        "bridge": plan.bridge.as_ref().map(|bridge| json!({
            "bridge": bridge.bridge,
            "network": bridge.network,
            "helper": match &bridge.way {
                Way::Tap => None,
                Way::Helper(helper) => Some(helper),
            },
        })),
        "user": plan.user,
        "firewall": plan.bridge.as_ref().map(|bridge| &bridge.firewall),
    })
}
