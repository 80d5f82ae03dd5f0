//! Tests that a real guest has its network with each user and backend: its lease, traffic in both
//! directions, its exit status, and that nothing is left.

use crate::common::scene::{
    HOST, Scene, command_line, fake_passt, launch, netns_with_resolver, nothing_left, passt_has,
    passt_option, path_without_passt,
};
use crate::common::{AT_MOST, As, Guest, Sandbox, have_root};

/// How passt takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Unix,
    Fd,
    Slirp,
    /// The command line names no backend, and passt is not installed.
    Hidden,
    /// The command line names no backend, and passt does not start.
    Broken,
}

/// The guest prints its lease, serves, and runs until it reads a line.
const SCRIPT: &str = "\
echo \"PAGE $(fetch 10.0.2.2 8000 /)\"
serve_tcp 80 tcp-answer
serve_udp 53 udp-answer
echo 'UP .'
read go
exit_qemu 33";

/// The message of the broken passt.
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
        // Debian 12's passt announces the host's own; tests/integration/guest_dns.rs tests that
        // names resolve.
        assert!(!servers.is_empty(), "{lease}");
    } else {
        assert_eq!(servers, ["10.0.2.3"], "{lease}");
    }
    assert_eq!(scene.hear("PAGE "), "page of the host");
    scene.hear("UP ");
    assert_eq!(netns.ask_tcp(2280, AT_MOST), "tcp-answer\n", "{}", scene.said());
    assert_eq!(netns.ask_udp(2253, AT_MOST), "udp-answer\n", "{}", scene.said());

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
    a_guest_of_root_works_with_passt_over_a_unix_socket: Root Unix;
    a_guest_of_root_works_with_passt_over_a_descriptor: Root Fd;
    a_guest_of_root_works_with_slirp: Root Slirp;
    slirp_is_used_for_root_when_passt_is_not_installed: Root Hidden;
    slirp_is_used_for_root_when_passt_cannot_start: Root Broken;
    a_guest_of_a_user_works_with_passt_over_a_unix_socket: User Unix;
    a_guest_of_a_user_works_with_passt_over_a_descriptor: User Fd;
    a_guest_of_a_user_works_with_slirp: User Slirp;
    slirp_is_used_for_a_user_when_passt_is_not_installed: User Hidden;
    slirp_is_used_for_a_user_when_passt_cannot_start: User Broken;
}
