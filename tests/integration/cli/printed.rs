//! The output of netlaunch: plans, probes, lists and completions.

use super::*;

#[test]
fn print_shows_the_whole_plan_and_starts_nothing() {
    if !have_root("print_shows_the_whole_plan_and_starts_nothing") {
        return;
    }
    for who in [As::Root, As::User] {
        let bench = Bench::new(who);
        for options in [
            &["--transport", "unix"][..],
            &["--transport", "fd"],
            &["--backend", "slirp"],
            &["--address", "host", "-p", "2222:22", "-p", "[::1]:8000-8010:80"],
            &["--ipv6-only", "--search", "example.org", "--mtu", "1400", "--no-host-loopback"],
            &["--interface", "up0", "--pcap", "/tmp/a file,x", "--name", "web", "--ready-fd", "9"],
        ] {
            let output = finish(bench.netlaunch(&with(&[options, &["--print"]].concat())));
            let shell = text(&output.stdout);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            assert!(shell.starts_with("# backend: ") && shell.contains("qemu -M none"), "{shell}");
            // A shell takes it: nothing is unquoted.
            let mut parse = Command::new("sh");
            parse.args(["-n", "-c", &shell]);
            assert!(finish(parse).status.success(), "{shell}");

            let output = finish(bench.netlaunch(&with(&[options, &["--print=json"]].concat())));
            let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
            valid("plan", &plan);
            assert_eq!(text(&output.stderr), "");
            bench.untouched("print");
        }
    }
}

fn json(output: Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn printed_plans_match_their_schema() {
    if !have_root("printed_plans_match_their_schema") {
        return;
    }
    let bench = Bench::new(As::User);
    // A passt of another age, by its help: it has all that the installed one may lack.
    let help = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/probe/passt-2026-10-help.txt");
    fs::copy(help, bench.sandbox.path("help.txt")).unwrap();
    let new = format!("cat {}", bench.sandbox.path("help.txt").display());
    let new = bench.sandbox.script("newpasst", &new).display().to_string();
    let mut seen = std::collections::BTreeSet::new();
    for (options, command) in [
        (&[][..], &Q[..]),
        (&["--transport", "fd"], &Q),
        (&["--passt", &new, "--transport", "vhost-user"], &Q),
        (&["--passt", &new, "--hostname", "web", "--no-host-loopback"], &Q),
        (&["--backend", "slirp", "-p", "2222:22", "-p", "53/udp"], &Q),
        (&["--passt", "nopasst"], &Q),
        (&["--address", "host"], &Q),
        (&["--ipv6-only", "-p", "[::1]:8000-8010:80"], &Q),
        (&["--address", "192.168.7.9/28", "--gateway", "192.168.7.1", "--dns", "9.9.9.9"], &Q),
        (&["--qemu", "qemu"], &[]),
        (&["--qemu", "qemu", "--passt", &new, "--transport", "vhost-user"], &[]),
        (&["--qemu", "qemu", "--backend", "slirp"], &[]),
    ] {
        let args = [options, &["--print=json"], command].concat();
        let plan = json(finish(bench.netlaunch(&args)));
        valid("plan", &plan);
        seen.insert((plan["transport"].to_string(), plan["qemu"]["argv"].is_null()));
        // An object with a member more is not valid: the schema is complete.
        let mut more = plan;
        more["guest"]["extra"] = Value::Null;
        assert_eq!(faults("plan", &more).len(), 1);
    }
    assert_eq!(seen.len(), 7, "{seen:?}");
}

#[test]
fn printed_probes_match_their_schema() {
    if !have_root("printed_probes_match_their_schema") {
        return;
    }
    for who in [As::Root, As::User] {
        let bench = Bench::new(who);
        let probe =
            |args: &[&str]| json(finish(bench.netlaunch(&[&["probe", "--json"], args].concat())));
        for (args, chosen) in [
            (&["--qemu", QEMU][..], "passt"),
            (&["--qemu", QEMU, "--passt", "nopasst"], "slirp"),
            (&["--qemu", "/nonexistent/qemu"], ""),
        ] {
            let report = probe(args);
            valid("probe", &report);
            assert_eq!(report["chosen"].as_str().unwrap_or_default(), chosen);
            assert_eq!(report["host"]["root"], who == As::Root);
            for candidate in report["candidates"].as_array().unwrap() {
                let fixed = candidate["usable"] == candidate["fix"].is_null();
                assert!(fixed, "usable, or with a fix: {candidate}");
            }
        }
        let output = finish(bench.netlaunch(&["probe", "--qemu", QEMU]));
        let table = text(&output.stdout);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
        assert!(table.starts_with("auto would choose passt.\n") && table.contains("BACKEND"));
        bench.passt_was_tried();
        bench.untouched("probe");
    }
    let netns = Netns::bare();
    let sandbox = Sandbox::new(As::User, Some(&netns));
    let report = json(finish(sandbox.netlaunch(&["probe", "--json", "--qemu", QEMU])));
    valid("probe", &report);
    assert_eq!(report["host"]["default_v4"], Value::Null);
}

#[test]
fn printed_lists_match_their_schema() {
    if !have_root("printed_lists_match_their_schema") {
        return;
    }
    for who in [As::Root, As::User] {
        let bench = Bench::new(who);
        let list = || json(finish(bench.netlaunch(&["ps", "--json"])));
        let empty = list();
        valid("ps", &empty);
        assert_eq!(empty["launches"], Value::Array(Vec::new()));
        let output = finish(bench.netlaunch(&["ps"]));
        assert_eq!(text(&output.stdout).lines().count(), 1, "the head of the table");

        let quiet = ["--device", "none", "--", QEMU, "-M", "none", "-display", "none", "-S"];
        let mut running = Vec::new();
        for (options, with_qemu) in [
            (&["-p", "2222:22", "--name", "web"][..], true),
            (&["--transport", "fd", "--address", "host"], true),
            (&["--backend", "slirp", "-p", "[::1]:53/udp"], true),
            (&["--backend", "slirp", "-p", "53000-53002:53/udp"], true),
            (&["--backend", "passt", "--qemu", QEMU], false),
        ] {
            // slirp cannot publish on IPv6.
            if options.contains(&"[::1]:53/udp") {
                let args = [options, &quiet].concat();
                let words = ["slirp cannot publish on an IPv6 address", "[::1]:53:53/udp"];
                let output = finish(bench.netlaunch(&args));
                assert!(words.iter().all(|word| text(&output.stderr).contains(word)));
                continue;
            }
            let args = [options, if with_qemu { &quiet } else { &[] }].concat();
            let mut command = bench.netlaunch(&args);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            running.push((start(command), with_qemu));
        }
        let up = |launch: &Value, with_qemu: bool| {
            if with_qemu { !launch["qemu"].is_null() } else { !launch["passt"].is_null() }
        };
        let all_up = || {
            let all = list();
            valid("ps", &all);
            running.iter().all(|(launch, with_qemu)| {
                let mut all = all["launches"].as_array().unwrap().iter();
                all.any(|l| l["pid"] == launch.pid() && up(l, *with_qemu))
            })
        };
        assert!(wait_until(LIMIT, all_up), "{:#}", list());
        let table = text(&finish(bench.netlaunch(&["ps"])).stdout);
        let words = ["web", "passt/unix", "passt/fd", "slirp", "127.0.0.1:2222:22/tcp"];
        assert!(words.iter().all(|word| table.contains(word)), "{table}");
        assert_eq!(table.lines().count(), 1 + running.len(), "{table}");
        for (launch, _) in &running {
            kill(Pid::from_raw(launch.pid()), Signal::SIGTERM).unwrap();
        }
        for (launch, _) in running {
            let code = launch.output(LIMIT).status.code();
            assert!([Some(0), Some(143)].contains(&code), "{code:?}");
        }
        assert_eq!(bench.sandbox.launch_dirs(), [] as [String; 0]);
    }
}

#[test]
fn serve_mode_on_slirp_prints_arguments_only() {
    if !have_root("serve_mode_on_slirp_prints_arguments_only") {
        return;
    }
    let bench = Bench::new(As::User);
    let output = finish(bench.netlaunch(&["--backend", "slirp", "--qemu", "qemu"]));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let line = text(&output.stdout);
    assert!(line.starts_with("-netdev 'user,id=net0,") && line.lines().count() == 1, "{line}");
    bench.untouched("serve");
}

#[test]
fn completions_are_printed_for_each_shell() {
    if !have_root("completions_are_printed_for_each_shell") {
        return;
    }
    let bench = Bench::new(As::User);
    for shell in ["bash", "zsh", "fish"] {
        let output = finish(bench.netlaunch(&["completions", shell]));
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
        let script = text(&output.stdout);
        assert!(script.contains("netlaunch") && script.contains("transport"), "{shell}");
        if shell == "bash" {
            let mut parse = Command::new("bash");
            parse.args(["-n", "-c", &script]);
            assert!(finish(parse).status.success());
        }
    }
    bench.untouched("completions");
}
