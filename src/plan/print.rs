//! A plan as text for people and shells, and as JSON for programs. For libvirt: [`super::xml`].

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use super::{BridgePlan, Plan, Transport, Way};
use crate::printable::{printable, steers};

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
        line(format!("# fallback: {}", printable(why)));
    }
    for note in &plan.notes {
        line(format!("# note: {}", printable(note)));
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
        lines.extend(script.input.lines().map(|line| format!("#   {}", printable(line))));
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

/// A word as a shell reads it. A word with a control character, or one that is not UTF-8, is
/// written as `$'...'` (POSIX.1-2024, 2.2.4) with octal escapes, so that a terminal that shows the
/// line does not act on it.
fn quote(word: &OsStr) -> String {
    match word.to_str() {
        Some(text) if !text.contains(steers) => shell_words::quote(text).into_owned(),
        _ => escaped(word.as_bytes()),
    }
}

fn escaped(word: &[u8]) -> String {
    let mut quoted = String::from("$'");
    for chunk in word.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '\\' => quoted.extend(['\\', c]),
                c if steers(c) => octal(&mut quoted, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => quoted.push(c),
            }
        }
        octal(&mut quoted, chunk.invalid());
    }
    quoted.push('\'');
    quoted
}

fn octal(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "\\{byte:03o}");
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn a_shell_reads_the_words_back_and_a_terminal_is_not_steered() {
        let words: Vec<OsString> = [
            &b"plain"[..],
            b"it's $HOME \\",
            b"\x1b]0;title\x07",
            b"two\nlines'\\t",
            b"not \xff UTF-8 \xe2\x82",
            "\u{9b}2J 1 \u{202e}\u{7f}\u{1}7".as_bytes(),
            "é".as_bytes(),
            b"",
        ]
        .map(|word| OsString::from_vec(word.to_vec()))
        .to_vec();
        let line = shell_line(&words);
        assert!(!line.contains(steers), "{line:?}");
        assert!(line.contains("$'\\033]0;title\\007'"), "{line}");
        let script = format!("printf '%s\\0' {line}");
        let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
        let read: Vec<&[u8]> = output.stdout.split_inclusive(|byte| *byte == 0).collect();
        let expected: Vec<Vec<u8>> =
            words.iter().map(|word| [word.as_bytes(), b"\0"].concat()).collect();
        assert_eq!(read, expected);
    }
}
