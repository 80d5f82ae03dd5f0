//! firewalld is stopped, or the bus ends.

use super::*;

#[test]
fn a_stopped_firewalld_is_neither_started_nor_needed() {
    let test = "a_stopped_firewalld_is_neither_started_nor_needed";
    let Some(mut host) = Host::new(test, "nftables") else { return };
    let start = ["network", "start", "n"];
    let destroy = ["network", "destroy", "n", "--force"];
    let before = host.state();

    // firewalld is not on the bus.
    host.define("nat", "zone='trusted'");
    let said = host.refused(&start);
    assert!(
        said.contains("wants the firewalld zone trusted, and firewalld does not run"),
        "{said}"
    );
    assert_eq!(host.state(), before);
    host.define("nat", "");
    host.done(&start);
    assert!(!host.sandbox.path("started-by-the-bus").exists(), "the bus was asked to start it");

    // It comes to a network that runs, and dies.
    host.start_firewalld("nftables");
    assert!(host.netlaunch(&["firewall", "reload"]).status.success());
    assert_eq!(host.zone(), "netlaunch");
    host.end_firewalld(Signal::SIGKILL);
    host.done(&destroy);
    assert!(
        !host
            .traces()
            .iter()
            .any(|line| !line.contains("iifname \"nlt0\"") && !line.contains("oifname \"nlt0\""))
    );

    // It dies with the bus.
    host.start_firewalld("nftables");
    host.done(&start);
    host.end_firewalld(Signal::SIGKILL);
    host.bus = None;
    host.done(&destroy);

    // No bus at all.
    fs::remove_file(host.sandbox.path("bus")).unwrap();
    host.done(&start);
    host.done(&destroy);
    host.define("nat", "zone='trusted'");
    assert!(host.refused(&start).contains("firewalld does not run"));
    let said = host.refused(&["firewall", "reload", "--follow"]);
    assert!(said.contains("there is no system bus at unix:path="), "{said}");
    let mut command: Command = host.sandbox.netlaunch(&["firewall", "reload", "--follow"]);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "nowhere");
    let said = text(&finish(command).stderr);
    assert!(said.contains("\"nowhere\" is no address of a system bus"), "{said}");
}

/// A follower ends with the bus, and says so: the service manager starts it again.
#[test]
fn a_follower_ends_with_the_bus() {
    let Some(mut host) = Host::new("a_follower_ends_with_the_bus", "nftables") else { return };
    let mut follower = host.follow();
    host.bus = None;
    let mut status = None;
    assert!(wait_until(LIMIT, || {
        status = follower.0.try_wait().unwrap();
        status.is_some()
    }));
    assert_eq!(status.unwrap().code(), Some(125));
    assert!(host.follow_log().contains("the system bus closed the connection"));
}
