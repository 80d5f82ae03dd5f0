//! A guest resolves names through the host's resolver, at the address that netlaunch promises.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::net::Ipv4Addr;

use common::scene::{
    HOST, Scene, command_line, netns_with_resolver, nothing_left, passt_option, serve_dns,
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

/// 10.0.2.3 forwards, and so does what the guest uses by itself.
fn forwards(who: As, backend: &str) {
    let Some(got) = answers(who, backend, HOST) else { return };
    assert_eq!(got.forwarder, ANSWER.to_string());
    assert_eq!(got.default, ANSWER.to_string());
    assert!(got.servers.split(',').any(|server| server == "10.0.2.3"), "{}", got.servers);
}

#[test]
fn passt_forwards_for_root() {
    forwards(As::Root, "passt");
}

#[test]
fn passt_forwards_for_a_user() {
    forwards(As::User, "passt");
}

#[test]
fn slirp_forwards() {
    forwards(As::User, "slirp");
}

/// A resolver on the host's loopback, as systemd-resolved's and dnsmasq's are.
fn reaches_loopback(who: As, backend: &str) {
    let Some(got) = answers(who, backend, Ipv4Addr::LOCALHOST) else { return };
    assert_eq!(got.default, ANSWER.to_string(), "what the guest uses by itself");
    assert_eq!(got.forwarder, ANSWER.to_string(), "the promised address");
}

#[test]
fn passt_reaches_a_loopback_resolver_for_root() {
    reaches_loopback(As::Root, "passt");
}

#[test]
fn passt_reaches_a_loopback_resolver_for_a_user() {
    reaches_loopback(As::User, "passt");
}

#[test]
fn slirp_reaches_a_loopback_resolver() {
    reaches_loopback(As::User, "slirp");
}
