//! Daemons whose supervisor, guard or start is killed, and daemons of other callers.

use super::*;

#[test]
fn nothing_is_left_of_a_daemon_whose_supervisor_or_guard_is_killed() {
    if !have_root("nothing_is_left_of_a_daemon_whose_supervisor_or_guard_is_killed") {
        return;
    }
    for who in BOTH {
        for victim in ["supervisor", "first guard", "second guard", "both guards", "QEMU"] {
            let site = Site::new(who);
            let shown = site.daemon(&[]);
            let qemu = pid_of(&shown, "qemu");
            let (second, first) = (parent(qemu), parent(parent(qemu)));
            let victims = match victim {
                "supervisor" => vec![shown["pid"].as_i64().unwrap() as i32],
                "first guard" => vec![first],
                "second guard" => vec![second],
                "both guards" => vec![first, second],
                _ => vec![qemu],
            };
            victims.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
            site.gone(&format!("{who:?}, {victim}"));
            // Only a killed supervisor leaves its directory, which the next start removes.
            assert_eq!(site.sandbox.launch_dirs().len(), usize::from(victim == "supervisor"));
            let next = finish(site.netlaunch(&[], &["-no-such-option"]));
            assert_eq!(next.status.code(), Some(1));
            nothing_left(&site.sandbox);
        }
    }
}

#[test]
fn nothing_is_left_of_a_start_whose_processes_are_killed() {
    if !have_root("nothing_is_left_of_a_start_whose_processes_are_killed") {
        return;
    }
    for who in BOTH {
        for (victim, with, status) in [
            ("foreground", Signal::SIGKILL, None),
            ("foreground", Signal::SIGTERM, Some(143)),
            ("foreground", Signal::SIGINT, Some(130)),
            ("supervisor", Signal::SIGKILL, Some(137)),
            ("first guard", Signal::SIGKILL, Some(137)),
            ("second guard", Signal::SIGKILL, Some(137)),
        ] {
            let site = Site::new(who);
            let waiting = site.start_waiting(&[]);
            let foreground = waiting.pid();
            let supervisor = child(foreground);
            let shown = launch(&site.sandbox);
            // Not ready, so it is QEMU's first process.
            let first = pid_of(&shown, "qemu");
            let pid = match victim {
                "foreground" => foreground,
                "supervisor" => supervisor,
                "first guard" => parent(parent(first)),
                _ => parent(first),
            };
            signal(pid, with);
            let ended = waiting.output(LIMIT);
            let what = format!("{who:?}, {victim}, {with}: {}", text(&ended.stderr));
            assert_eq!(ended.status.code(), status, "{what}");
            site.gone(&what);
            let next = finish(site.netlaunch(&[], &["-no-such-option"]));
            assert_eq!(next.status.code(), Some(1));
            nothing_left(&site.sandbox);
        }
    }
}
