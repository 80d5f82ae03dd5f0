//! Tests that a guest resolves names through the host's resolver, at the address that netlaunch
//! documents.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;

use crate::common::scene::{
    HOST, SHELL, Scene, command_line, launch, netns_with_resolver, nothing_left, passt_has,
    passt_option, passt_path, pid_of, serve_dns,
};
use crate::common::{As, Guest, Netns, Sandbox, have_root, skipped, wait_until};

/// The answer of the host's resolver to every query.
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

/// The server that the guest gets by DHCP answers. On slirp and newer passt it is 10.0.2.3; Debian
/// 12's passt cannot announce that (see the man page).
fn resolves(who: As, backend: &str, resolver: Ipv4Addr) {
    let Some(got) = answers(who, backend, resolver) else { return };
    assert_eq!(got.default, ANSWER.to_string(), "what the guest uses by itself: {}", got.servers);
    if backend == "slirp" || passt_has("dns-host") {
        assert_eq!(got.servers, "10.0.2.3");
        assert_eq!(got.forwarder, ANSWER.to_string(), "the promised address");
    }
}

#[test]
fn names_resolve_for_a_guest_of_root_with_passt() {
    resolves(As::Root, "passt", HOST);
}

#[test]
fn names_resolve_for_a_guest_of_a_user_with_passt() {
    resolves(As::User, "passt", HOST);
}

#[test]
fn names_resolve_with_slirp() {
    resolves(As::User, "slirp", HOST);
}

// A resolver on the host's loopback, as systemd-resolved's and dnsmasq's are.

#[test]
fn a_loopback_resolver_answers_a_guest_of_root_with_passt() {
    resolves(As::Root, "passt", Ipv4Addr::LOCALHOST);
}

#[test]
fn a_loopback_resolver_answers_a_guest_of_a_user_with_passt() {
    resolves(As::User, "passt", Ipv4Addr::LOCALHOST);
}

#[test]
fn a_loopback_resolver_answers_with_slirp() {
    resolves(As::User, "slirp", Ipv4Addr::LOCALHOST);
}

// Host's servers that are not one IPv4 address of another machine.

/// A second address of the namespace.
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 78);

/// A guest with a shell, in a namespace whose resolv.conf has this text.
struct Shell {
    netns: Netns,
    sandbox: Sandbox,
    scene: Scene,
}

fn shell(test: &str, resolv_conf: &str, options: &[&str]) -> Option<Shell> {
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return None };
    let netns = netns_with_resolver(HOST);
    netns.ip(&format!("address add {OTHER}/24 dev up0"));
    netns.ip("-6 address add 2001:db8::2/64 dev up0 nodad");
    netns.ip("-6 route add default via 2001:db8::1 dev up0");
    netns.resolv_conf(resolv_conf);
    serve_dns(&netns, OTHER, ANSWER);
    serve_dns(&netns, Ipv4Addr::LOCALHOST, LOCAL_ANSWER);
    let sandbox = Sandbox::new(As::User, Some(&netns));
    let passt = passt_option();
    let mut all = options.to_vec();
    all.extend(passt.iter().map(String::as_str));
    let args = command_line(&sandbox, &guest, &all, SHELL);
    let mut scene = Scene::start(sandbox.netlaunch(&args));
    scene.hear("SHELL ");
    Some(Shell { netns, sandbox, scene })
}

/// The answer of the resolver on the loopback address.
const LOCAL_ANSWER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 8);

impl Shell {
    /// Asks until the answer is this one: the guest's resolver may wait for a dead server first.
    fn resolves_to(&mut self, answer: Ipv4Addr) {
        let mut last = String::new();
        let is_it = wait_until(Duration::from_secs(60), || {
            last = self.scene.ask("resolve name.example");
            last == answer.to_string()
        });
        assert!(is_it, "{last:?} is not {answer}\n{}", self.scene.said());
    }

    fn end(mut self) {
        self.scene.say("exit_qemu 33");
        assert_eq!(self.scene.end().code(), Some(33), "{}", self.scene.said());
        nothing_left(&self.sandbox);
    }
}

/// The first server does not answer, so the guest asks the second.
#[test]
fn every_server_of_the_host_is_asked() {
    let resolv_conf = format!("nameserver 192.0.2.79\nnameserver {OTHER}\n");
    let options = ["--backend", "passt"];
    let Some(mut shell) = shell("every_server_is_asked", &resolv_conf, &options) else { return };
    shell.resolves_to(ANSWER);
    shell.end();
}

/// As resolv.conf(5) has it: no server, and 0.0.0.0, mean a server on this host.
#[test]
fn a_host_without_a_configured_server_is_asked_itself() {
    let options = ["--backend", "passt"];
    let Some(mut shell) = shell("a_host_without_a_named_server", "search x\n", &options) else {
        return;
    };
    shell.resolves_to(LOCAL_ANSWER);
    let said = shell.scene.err.text();
    assert_eq!(said.matches("resolv.conf names no DNS server").count(), 1, "{said}");
    shell.end();
}

/// DNS passes to the host's loopback address, and nothing else does.
#[test]
fn without_host_loopback_a_loopback_server_still_answers() {
    let options = ["--backend", "passt", "--no-host-loopback"];
    let test = "without_host_loopback";
    let Some(mut shell) = shell(test, "nameserver 0.0.0.0\n", &options) else { return };
    shell.netns.serve_http(8000, "page of the host");
    shell.resolves_to(LOCAL_ANSWER);
    let page = shell.scene.ask("fetch 10.0.2.2 8000 /");
    assert!(!page.contains("page of the host"), "{page}");
    shell.end();
}

/// passt is replaced when the host has other servers, and only then.
#[test]
fn names_resolve_after_the_hosts_servers_have_changed() {
    let options = ["--backend", "passt"];
    let test = "names_resolve_after_a_change";
    let Some(mut shell) = shell(test, "nameserver 127.0.0.1\n", &options) else { return };
    shell.resolves_to(LOCAL_ANSWER);
    let passt = pid_of(&launch(&shell.sandbox), "passt");
    shell.netns.resolv_conf("# renewed\nnameserver 127.0.0.1\n");
    sleep(Duration::from_secs(4));
    assert_eq!(pid_of(&launch(&shell.sandbox), "passt"), passt, "{}", shell.scene.err.text());

    shell.netns.resolv_conf(&format!("nameserver {OTHER}\n"));
    shell.scene.messages("that passt is started again", |said| said.contains("have changed"));
    shell.resolves_to(ANSWER);
    // A guest that asks DHCP again has a server that answers, too.
    shell.scene.ask("udhcpc -f -q -n -i eth0 -s /bin/udhcpc.script");
    shell.resolves_to(ANSWER);
    let said = shell.scene.err.text();
    assert_eq!(said.matches("netlaunch: ").count(), 1, "one line for the change: {said}");
    shell.end();
}

/// Without a QEMU that connects again there is one line.
#[test]
fn a_change_of_servers_that_cannot_reach_passt_is_reported() {
    let options = ["--backend", "passt", "--transport", "fd"];
    let test = "a_change_that_cannot_reach_passt";
    let Some(shell) = shell(test, "nameserver 127.0.0.1\n", &options) else { return };
    shell.netns.resolv_conf(&format!("nameserver {OTHER}\n"));
    shell.scene.messages("that passt stays", |said| said.contains("passt stays with the former"));
    let said = shell.scene.err.text();
    assert_eq!(said.matches("netlaunch: ").count(), 1, "{said}");
    shell.end();
}

/// An IPv6 router is a machine of its own, and the host's ::1 has an address like 127.0.0.1.
#[test]
fn the_ipv6_router_is_not_the_hosts_loopback_address() {
    let test = "the_ipv6_router_is_not_the_hosts_loopback";
    if !passt_has("map-host-loopback") {
        return skipped(
            test,
            format_args!("{} has no --map-host-loopback", passt_path().display()),
        );
    }
    for (options, seen) in [(&["--backend", "passt"][..], true), (&CLOSED, false)] {
        let resolv_conf = format!("nameserver {OTHER}\n");
        let Some(mut shell) = shell(test, &resolv_conf, options) else { return };
        let routed = wait_until(Duration::from_secs(60), || {
            shell.scene.ask("ip -6 route").contains("default")
        });
        assert!(routed, "no router: {}", shell.scene.said());
        shell.netns.serve_http_at(([0, 0, 0, 0, 0, 0, 0, 1], 8000).into(), "page of ::1");
        assert_eq!(shell.scene.ask("fetch fec0::2 8000 /").contains("page of ::1"), seen);
        assert!(!shell.scene.ask("fetch 2001:db8::1 8000 /").contains("page of ::1"));
        shell.end();
    }
}

const CLOSED: [&str; 3] = ["--backend", "passt", "--no-host-loopback"];
