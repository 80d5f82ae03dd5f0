//! A real guest has its network, whoever runs netlaunch and whatever the backend: one guest each
//! shows its lease, both directions, its exit status, and that nothing is left of it.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use common::scene::{
    HOST, Scene, command_line, fake_passt, launch, netns_with_resolver, nothing_left, passt_has,
    passt_option, path_without_passt,
};
use common::{As, Guest, Sandbox, have_root};

use std::time::Duration;

/// How passt takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Unix,
    Fd,
    Slirp,
    /// Nobody asked for a backend and passt is not to be found.
    Hidden,
    /// Nobody asked for a backend and passt does not start.
    Broken,
}

/// The guest says what it got, serves, and stays until it is told to go.
const SCRIPT: &str = "\
echo \"PAGE $(fetch 10.0.2.2 8000 /)\"
serve_tcp 80 tcp-answer
serve_udp 53 udp-answer
echo 'UP .'
read go
exit_qemu 33";

/// What the broken passt says.
const WORDS: &str = "No luck with this host";

fn works(who: As, case: Case) {
    let test = format!("{who:?} {case:?}");
    let (true, Some(guest)) = (have_root(&test), Guest::find(&test)) else { return };
    let netns = netns_with_resolver(HOST);
    netns.serve_http(8000, "page of the host");
    let sandbox = Sandbox::new(who, Some(&netns));

    let mut options = vec!["-p", "2280:80", "-p", "127.0.0.1:2253:53/udp"];
    let passt = passt_option();
    let fake = fake_passt(&sandbox, &format!("echo '{WORDS}' >&2; exit 1"));
    let fake = fake.to_string_lossy();
    match case {
        Case::Unix => options.extend(["--backend", "passt", "--transport", "unix"]),
        Case::Fd => options.extend(["--backend", "passt", "--transport", "fd"]),
        Case::Slirp => options.extend(["--backend", "slirp"]),
        Case::Hidden => {}
        Case::Broken => options.extend(["--passt", &fake]),
    }
    if matches!(case, Case::Unix | Case::Fd) {
        options.extend(passt.iter().map(String::as_str));
    }
    let mut command = sandbox.netlaunch(&command_line(&sandbox, &guest, &options, SCRIPT));
    if case == Case::Hidden {
        command.env("PATH", path_without_passt(&sandbox));
    }
    let mut scene = Scene::start(command);

    let lease = scene.hear("LEASE ");
    let field = |name: &str| lease.split(' ').find_map(|word| word.strip_prefix(name));
    let seen = (field("ip="), field("prefix="), field("router="));
    assert_eq!(seen, (Some("10.0.2.15"), Some("24"), Some("10.0.2.2")), "{lease}");
    let servers: Vec<&str> = field("dns=").unwrap_or_default().split(',').collect();
    if matches!(case, Case::Unix | Case::Fd) && !passt_has("dns-host") {
        // Debian 12's passt announces the host's own; tests/guest_dns.rs tries what works.
        assert!(!servers.is_empty(), "{lease}");
    } else {
        assert_eq!(servers, ["10.0.2.3"], "{lease}");
    }
    assert_eq!(scene.hear("PAGE "), "page of the host");
    scene.hear("UP ");
    assert_eq!(netns.ask_tcp(2280, Duration::from_secs(30)), "tcp-answer\n", "{}", scene.said());
    assert_eq!(netns.ask_udp(2253, Duration::from_secs(30)), "udp-answer\n", "{}", scene.said());

    let shown = launch(&sandbox);
    let (backend, transport) = match case {
        Case::Unix => ("passt", Some("unix")),
        Case::Fd => ("passt", Some("fd")),
        _ => ("slirp", None),
    };
    assert_eq!((&shown["backend"], shown["transport"].as_str()), (&backend.into(), transport));
    assert_eq!(shown["passt"].is_null(), backend == "slirp");

    scene.say("go");
    assert_eq!(scene.end().code(), Some(33), "{}", scene.said());
    nothing_left(&sandbox);
    let messages = scene.err.text();
    let ours: Vec<&str> = messages.lines().filter(|line| line.contains("netlaunch")).collect();
    match case {
        Case::Unix | Case::Fd | Case::Slirp => assert!(ours.is_empty(), "{messages}"),
        Case::Hidden | Case::Broken => {
            let reason = if case == Case::Hidden { "not installed" } else { WORDS };
            assert_eq!(ours.len(), 1, "{messages}");
            assert!(ours[0].contains("using slirp") && ours[0].contains(reason), "{messages}");
            assert_eq!(shown["fallback"].as_str().map(|f| f.contains(reason)), Some(true));
        }
    }
}

macro_rules! each {
    ($($name:ident: $who:ident $case:ident;)*) => {
        $(#[test] fn $name() { works(As::$who, Case::$case) })*
    };
}

each! {
    root_on_passt_unix: Root Unix;
    root_on_passt_fd: Root Fd;
    root_on_slirp: Root Slirp;
    root_with_passt_hidden: Root Hidden;
    root_with_passt_broken: Root Broken;
    user_on_passt_unix: User Unix;
    user_on_passt_fd: User Fd;
    user_on_slirp: User Slirp;
    user_with_passt_hidden: User Hidden;
    user_with_passt_broken: User Broken;
}
