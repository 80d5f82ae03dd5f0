//! A start that fails or is interrupted leaves nothing.

use super::*;

#[test]
fn nothing_is_left_after_a_sigterm_during_the_start() {
    if !have_root("nothing_is_left_after_a_sigterm_during_the_start") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        let places: Vec<_> = (0..50).map(|n| site.place(&format!("t{n}"))).collect();
        let codes = Mutex::new(std::collections::BTreeMap::<i32, usize>::new());
        each(places.len(), AT_ONCE, |n| {
            let place = &places[n];
            let transport = ["unix", "fd"][n % 2];
            let launch = site.start(place.netlaunch(&["--transport", transport], &[]));
            thread::sleep(rand::rng().random_range(Duration::ZERO..WINDOW));
            signal(launch.pid(), Signal::SIGTERM);
            let output = launch.output(LIMIT);
            // Before netlaunch takes its signals, the kernel ends it.
            let status = output.status;
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
            // QEMU makes an orderly end of SIGTERM, once it is far enough to know of it.
            assert!([143, 0].contains(&code), "{status}: {}", text(&output.stderr));
            place.assert_clean(&format!("SIGTERM, {who:?} {transport} {n}"));
            *codes.lock().unwrap().entry(code).or_default() += 1;
        });
        eprintln!("SIGTERM within {WINDOW:?}, {who:?}: exit statuses {:?}", codes.lock().unwrap());
    }
}

#[test]
fn nothing_is_left_if_qemu_cannot_start() {
    if !have_root("nothing_is_left_if_qemu_cannot_start") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        for options in
            [&["--transport", "unix"][..], &["--transport", "fd"], &["--backend", "slirp"]]
        {
            let place = site.place(&format!("refused{}", options[1]));
            let output = site.finish(place.netlaunch(options, &["-no-such-option"]));
            assert_eq!(output.status.code(), Some(1));
            let said = text(&output.stderr);
            assert!(said.contains("-no-such-option: invalid option"), "{said}");
            assert_eq!(said.lines().count(), 1, "QEMU's own message and no other: {said}");
            place.assert_clean(&format!("{who:?} {options:?}"));
        }

        // A passt that makes QEMU go before it serves.
        for (transport, removal, code) in [("unix", "rm", 127), ("fd", "chmod 644", 126)] {
            let place = site.place(&format!("gone{transport}"));
            fs::remove_file(place.qemu()).unwrap();
            place.script("qemu", "exec /usr/bin/qemu-system-x86_64 \"$@\"");
            if who == As::User {
                chown(place.qemu(), Some(USER), Some(USER)).unwrap();
            }
            let real = passt_path().display().to_string();
            let passt = place.script(
                "removing",
                &format!(
                    "case $* in *--help*) ;; *) {removal} {};; esac; exec {real} \"$@\"",
                    place.qemu().display()
                ),
            );
            let options = ["--transport", transport, "--backend", "passt", "--passt", &passt];
            let output = site.finish(place.netlaunch(&options, &[]));
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{said}");
            let start = format!("netlaunch: error: cannot execute {}: ", place.qemu().display());
            assert!(said.starts_with(&start) && said.lines().count() == 1, "{said}");
            place.assert_clean(&format!("{who:?}, QEMU gone"));
        }
    }
}

/// A passt that has all options and does not start.
const BROKEN: &str = "echo 'passt: out of luck' >&2; exit 1";

#[test]
fn nothing_is_left_if_passt_cannot_start() {
    if !have_root("nothing_is_left_if_passt_cannot_start") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        for transport in ["unix", "fd"] {
            let place = site.place(&format!("broken{transport}"));
            let help =
                format!("case $* in *--help*) exec {} --help;; esac", passt_path().display());
            let passt = place.script("broken", &format!("{help}; {BROKEN}"));
            let options = ["--backend", "passt", "--transport", transport, "--passt", &passt];
            let output = site.finish(place.netlaunch(&options, &[]));
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{said}");
            assert!(
                said.contains("exited with status 1") && said.contains("\"passt: out of luck\"")
            );
            assert!(said.starts_with("netlaunch: ") && said.lines().count() == 1, "{said}");
            place.assert_clean(&format!("{who:?} {transport}, passt fails"));

            // The same without a word on the backend: slirp, and why.
            let output = site.finish(place.netlaunch(&["--passt", &passt], &["-no-such-option"]));
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "QEMU's: {said}");
            assert!(said.contains("using slirp") && said.contains("passt: out of luck"), "{said}");
            place.assert_clean(&format!("{who:?} {transport}, passt fails, slirp"));
        }

        // The real passt has words of its own.
        let place = site.place("interface");
        let options = ["--backend", "passt", "--interface", "lo"];
        let output = site.finish(place.netlaunch(&options, &[]));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(
            said.contains("External interface not usable") && said.lines().count() == 1,
            "{said}"
        );
        place.assert_clean(&format!("{who:?}, unusable interface"));
    }
}
