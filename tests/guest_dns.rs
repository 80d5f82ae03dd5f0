//! A guest resolves names through the host's resolver, at the address that netlaunch promises.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::net::Ipv4Addr;

use common::scene::{
    HOST, Scene, command_line, netns_with_resolver, nothing_left, passt_has, passt_option,
    serve_dns,
};
use common::{As, Guest, Sandbox, have_root};

/// What the host's resolver says to everything.
const ANSWER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// At which of its two addresses, or by default, the guest got the answer; with its lease.
const SCRIPT: &str = "\
echo \"FORWARDER $(resolve name.example 10.0.2.3)\"
echo \"GATEWAY $(resolve name.example 10.0.2.2)\"
echo \"DEFAULT $(resolve name.example)\"
exit_qemu 33";

struct Answers {
    forwarder: String,
    gateway: String,
    default: String,
    servers: String,
}

fn answers(who: As, backend: &str, resolver: Ipv4Addr) -> Option<Answers> {
    let test = format!("{who:?} {backend} {resolver}");
    let (true, Some(guest)) = (have_root(&test), Guest::find(&test)) else { return None };
    let netns = netns_with_resolver(resolver);
    serve_dns(&netns, resolver, ANSWER);
    let sandbox = Sandbox::new(who, Some(&netns));
    let passt = passt_option();
    let mut options = vec!["--backend", backend];
    options.extend(passt.iter().map(String::as_str));
    let args = command_line(&sandbox, &guest, &options, SCRIPT);
    let mut scene = Scene::start(sandbox.netlaunch(&args));
    let lease = scene.hear("LEASE ");
    let servers = lease.split(' ').find_map(|word| word.strip_prefix("dns=")).unwrap_or_default();
    let answers = Answers {
        forwarder: scene.hear("FORWARDER "),
        gateway: scene.hear("GATEWAY "),
        default: scene.hear("DEFAULT "),
        servers: servers.to_owned(),
    };
    assert_eq!(scene.end().code(), Some(33), "{}", scene.said());
    nothing_left(&sandbox);
    eprintln!(
        "{test}: dns={servers} forwarder={:?} gateway={:?} default={:?}",
        answers.forwarder, answers.gateway, answers.default
    );
    Some(answers)
}

/// What the guest uses by itself works. On slirp and newer passt that is 10.0.2.3; Debian 12's passt
/// cannot announce it (see the man page).
fn resolves(who: As, backend: &str, resolver: Ipv4Addr) {
    let Some(got) = answers(who, backend, resolver) else { return };
    assert_eq!(got.default, ANSWER.to_string(), "what the guest uses by itself: {}", got.servers);
    if backend == "slirp" || passt_has("dns-host") {
        assert_eq!(got.servers, "10.0.2.3");
        assert_eq!(got.forwarder, ANSWER.to_string(), "the promised address");
    }
}

#[test]
fn passt_forwards_for_root() {
    resolves(As::Root, "passt", HOST);
}

#[test]
fn passt_forwards_for_a_user() {
    resolves(As::User, "passt", HOST);
}

#[test]
fn slirp_forwards() {
    resolves(As::User, "slirp", HOST);
}

// A resolver on the host's loopback, as systemd-resolved's and dnsmasq's are.

#[test]
fn passt_reaches_a_loopback_resolver_for_root() {
    resolves(As::Root, "passt", Ipv4Addr::LOCALHOST);
}

#[test]
fn passt_reaches_a_loopback_resolver_for_a_user() {
    resolves(As::User, "passt", Ipv4Addr::LOCALHOST);
}

#[test]
fn slirp_reaches_a_loopback_resolver() {
    resolves(As::User, "slirp", Ipv4Addr::LOCALHOST);
}
