//! Finds the reason that passt prints for its end.
//!
//! passt prints its set-up, complaints about syslog, errors and a usage text to one stream, and its
//! versions differ in the order. [`passt_failure`] selects the lines that name the reason.

use crate::sys::process::Child;

/// The longest text in bytes that a message repeats; a guest may influence the text.
const MAX_BYTES: usize = 300;

/// Returns the lines of passt's output that name the reason for its end, quoted.
pub(super) fn passt_failure(passt: &Child) -> String {
    failure_lines(&String::from_utf8_lossy(&passt.output()))
}

/// Words of lines that report a failure, in lower case.
const FAILURES: [&str; 20] = [
    "fail",
    "error",
    "can't",
    "cannot",
    "couldn't",
    "could not",
    "unable",
    "denied",
    "refused",
    "not permitted",
    "not allowed",
    "invalid",
    "unrecognized",
    "unknown",
    "no such",
    "in use",
    "too many",
    "exhausted",
    "no external",
    "not supported",
];

fn is_banner(line: &str) -> bool {
    BANNER.iter().any(|start| line.starts_with(start))
}

/// Selects the lines of a log that name the reason for passt's end, and quotes them.
///
/// If lines contain an error of the kernel, the function selects the last of them: newer passt says
/// in its last line that it could not listen, and before that on which port and why. Otherwise it
/// selects all lines that report a failure, in their order, since a later line may only name a
/// consequence. If no line reports a failure, it selects the last line that is not a complaint
/// about syslog, not part of a usage text and not part of the set-up that a serving passt prints.
pub(super) fn failure_lines(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .take_while(|line| !line.trim_start().starts_with("Usage:"))
        .filter(|line| !line.trim().is_empty() && !line.trim_end().ends_with("bytes to syslog"))
        // The mark of the guard that keeps the log ([`crate::sys::process`]).
        .filter(|line| !line.starts_with("[netlaunch: "))
        .collect();
    let fails = |line: &&str| {
        let lower = line.to_lowercase();
        !is_banner(line) && FAILURES.iter().any(|word| lower.contains(word))
    };
    let mut failures: Vec<&str> = lines.iter().map(|line| line.trim()).filter(fails).collect();
    failures.dedup();
    let names_error = |line: &&&str| ERRORS.iter().any(|error| line.contains(error));
    // passt indents the values of its set-up.
    let plain = |line: &&&str| !line.starts_with(char::is_whitespace) && !is_banner(line);
    let selected = match failures.iter().rfind(names_error) {
        Some(line) => Some((*line).to_owned()),
        None if failures.is_empty() => lines.iter().rfind(plain).map(|line| line.trim().to_owned()),
        None => Some(failures.join("; ")),
    };
    match selected {
        Some(lines) if lines.len() > MAX_BYTES => {
            let end = (0..=MAX_BYTES).rev().find(|end| lines.is_char_boundary(*end)).unwrap_or(0);
            format!("\"{}...\"", &lines[..end])
        }
        Some(lines) => format!("\"{lines}\""),
        None if lines.is_empty() => "passt printed nothing".to_owned(),
        None => "passt printed no error".to_owned(),
    }
}

/// The beginnings of the lines in which passt reports its set-up.
const BANNER: [&str; 23] = [
    "No external routable interface for IPv",
    "No interfaces with usable IPv",
    "IPv4: no external interface as template",
    "IPv6: no external interface as template",
    "No IPv4 nameserver available",
    "No IPv6 nameserver available",
    "Couldn't get any nameserver address",
    "New guest MAC address observed",
    "Sending initial",
    "UNIX domain socket bound at",
    "Template interface",
    "Outbound interface",
    "Multiple ",
    "Local interface:",
    "MAC:",
    "DHCP:",
    "DHCPv6:",
    "DNS",
    "NDP",
    "Inbound forwarding rules",
    "You can now start qemu",
    "or qrap, for earlier qemu",
    "accepted connection from PID",
];
/// Errors of the kernel that passt's set-up meets (strerror(3)).
const ERRORS: [&str; 8] = [
    "Permission denied",
    "Operation not permitted",
    "Address already in use",
    "Cannot assign requested address",
    "Too many open files",
    "No space left on device",
    "No such file or directory",
    "Invalid argument",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of a passt that serves (2026).
    const SERVING: &str = "Failed to send 46 bytes to syslog\n\
        Template interface: up0 (IPv4)\nMAC:\n    host: 5e:75:89:b9:86:ab\nDHCP:\n    \
        assign: 192.0.2.2\n    mask: 255.255.255.0\n    router: 192.0.2.1\nDNS:\n    10.255.255.53\n\
        UNIX domain socket bound at /run/s\n\n\
        You can now start qemu (>= 7.2, with commit 13c6be96618c):\n    \
        kvm ... -device virtio-net-pci,netdev=s -netdev stream,id=s,server=off\n\
        or qrap, for earlier qemu versions:\n    \
        ./qrap 5 kvm ... -net socket,fd=5 -net nic,model=virtio\n";

    #[test]
    fn the_failure_has_no_line_of_the_set_up_or_of_syslog() {
        for (log, expected) in [
            ("", "passt printed nothing"),
            ("No external routable interface\n", "\"No external routable interface\""),
            ("No interfaces with usable IPv6 routes\nlast words\n", "\"last words\""),
            (
                "IPv6: no external interface as template, use local mode\nlast words\n",
                "\"last words\"",
            ),
            (
                "Failed to send 3 bytes to syslog\nPID file open: Permission denied\n\nFailed to send 9 bytes to syslog\n",
                "\"PID file open: Permission denied\"",
            ),
            (
                "DNS:\n    192.0.2.53\n\nor qrap, for earlier qemu versions:\n    ./qrap 5 kvm ... -net socket,fd=5\n",
                "passt printed no error",
            ),
            (
                "L4 socket: Too many open files\nListen failed for HOST TCP port 127.0.0.1/80: Permission denied\nCouldn't listen on requested ports\n",
                "\"Listen failed for HOST TCP port 127.0.0.1/80: Permission denied\"",
            ),
            (
                "L4 socket: Too many open files\nCan't open enough sockets for port specifier: 127.0.0.1/1-2\n",
                "\"L4 socket: Too many open files\"",
            ),
            (
                "passt: unrecognized option '--x'\nUsage: passt [OPTION]...\n -d\n",
                "\"passt: unrecognized option '--x'\"",
            ),
            (SERVING, "passt printed no error"),
            (
                "Listen failed: Address already in use\nMAC:\n    host: 52:54:00:00:00:01\nleaving\n",
                "\"Listen failed: Address already in use\"",
            ),
            (
                "No external routable interface for IPv6\nCouldn't listen on requested ports\n",
                "\"Couldn't listen on requested ports\"",
            ),
            ("last thing\n[netlaunch: lines are missing here]\n", "\"last thing\""),
            ("first thing\nlast thing\n", "\"last thing\""),
        ] {
            assert_eq!(failure_lines(log), expected);
        }
        let long = failure_lines(&"\u{e9}".repeat(100_000));
        assert!(long.len() <= MAX_BYTES + 5 && long.ends_with("...\""), "{long}");
    }
}
