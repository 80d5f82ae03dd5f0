//! Transactions that fail, and the choice of the backend.

use super::*;
use netlaunch::types::error_text;

/// The network's rules with one that no tool takes: an IPv6 address for IPv4's translation.
fn impossible() -> Vec<Ruleset> {
    let mut rulesets = for_network(&network("nat-everything")).unwrap();
    let nat = rulesets[0].chains.iter_mut().find(|chain| chain.name.as_str().ends_with("-nat"));
    let address = "2001:db8::1".parse().unwrap();
    let verdict = Verdict::SourceNat { addresses: AddressRange::V6(address, address), ports: None };
    nat.unwrap().rules.push(Rule { matches: Vec::new(), verdict });
    rulesets
}

#[test]
fn a_refusal_names_the_line_and_changes_nothing() {
    if !have_root("a_refusal_names_the_line_and_changes_nothing") {
        return;
    }
    for backend in FirewallBackend::ORDER {
        let host = Host::new();
        let [_, other] = two_networks("nat");
        host.transact(backend, &[], &[other], false).unwrap();
        let before = host.state();
        let error = error_text(&host.transact(backend, &[], &[impossible()], true).unwrap_err());
        assert!(error.contains("the firewall was not changed"), "{error}");
        assert!(error.contains("2001:db8::1") && !error.contains('\n'), "{error}");
        assert_eq!(host.state(), before, "{backend}");
    }
}

#[test]
fn a_failure_in_the_middle_is_undone() {
    if !have_root("a_failure_in_the_middle_is_undone") {
        return;
    }
    let sandbox = Sandbox::new(As::Root, None);
    // Fails when the table that comes second, nat, is to be done; the first one is done.
    let half = "in=$(cat); case $in in *'*nat'*) printf '%s\\n' \"${in%%'*nat'*}\" | TOOL --noflush; echo 'line 9 failed' >&2; exit 1;; *) printf '%s\\n' \"$in\" | TOOL --noflush;; esac";
    for tool in ["iptables-restore", "ip6tables-restore"] {
        let half = half.replace("TOOL", &format!("/usr/sbin/{tool}"));
        let script = sandbox.script(tool, &half);
        let mut host = Host::new();
        let [one, two] = two_networks("nat-everything");
        host.transact(FirewallBackend::Iptables, &[], &[two], false).unwrap();
        let before = host.state();
        let place = if tool.starts_with("ip6") {
            &mut host.tools.ip6tables_restore
        } else {
            &mut host.tools.iptables_restore
        };
        *place = Lookup::Found(script);
        let error = host.transact(FirewallBackend::Iptables, &[], &[one], true).unwrap_err();
        // Undoing runs the tool again, which may fail at nat again: then nothing was done there.
        assert!(error_text(&error).contains("line 9 failed"), "{error}");
        assert_eq!(host.state(), before, "{tool}: {error}");
    }
}

#[test]
fn the_backend_can_be_changed() {
    if !have_root("the_backend_can_be_changed") {
        return;
    }
    let host = Host::new();
    let before = host.state();
    let both = two_networks("nat-everything");
    let mut recorded = Vec::new();
    for backend in [FirewallBackend::Nftables, FirewallBackend::Iptables, FirewallBackend::Nftables]
    {
        recorded = host.transact(backend, &recorded, &both, false).unwrap();
        let state = host.state();
        let [nft, iptables] =
            ["table ip netlaunch_network", "NETLAUNCH_"].map(|w| state.contains(w));
        assert_eq!(
            (nft, iptables),
            (backend == FirewallBackend::Nftables, backend == FirewallBackend::Iptables)
        );
    }
    // If the old rules cannot be removed, the new rules are not added either.
    let state = host.state();
    let tools = Tools { nft: Lookup::Absent("/none".into()), ..host.tools.clone() };
    let transaction = Transaction { remove: &recorded, add: &both, others: false };
    let error = host.run(transact(&tools, FirewallBackend::Iptables, &transaction)).unwrap_err();
    assert!(matches!(error, ApplyError::Tool(_)), "{error}");
    assert_eq!(host.state(), state);
    let in_iptables = host.transact(FirewallBackend::Iptables, &recorded, &both, false).unwrap();
    let state = host.state();
    let tools = Tools { ip6tables_save: Lookup::Absent("/none".into()), ..host.tools.clone() };
    let transaction = Transaction { remove: &in_iptables, add: &both, others: false };
    let error = host.run(transact(&tools, FirewallBackend::Nftables, &transaction)).unwrap_err();
    assert!(matches!(error, ApplyError::Tool(_)), "{error}");
    assert_eq!(host.state(), state);
    host.transact(FirewallBackend::Iptables, &in_iptables, &[], false).unwrap();
    assert_eq!(host.state(), before);
}

#[test]
fn an_operation_runs_few_processes() {
    if !have_root("an_operation_runs_few_processes") {
        return;
    }
    let sandbox = Sandbox::new(As::Root, None);
    let log = sandbox.path("run/log");
    let counted = |tool: &str| {
        let body = format!("echo {tool} >> {}; exec /usr/sbin/{tool} \"$@\"", log.display());
        Lookup::Found(sandbox.script(tool, &body))
    };
    let mut host = Host::new();
    host.tools = Tools {
        nft: counted("nft"),
        iptables_save: counted("iptables-save"),
        iptables_restore: counted("iptables-restore"),
        ip6tables_save: counted("ip6tables-save"),
        ip6tables_restore: counted("ip6tables-restore"),
        ..host.tools.clone()
    };
    let ran = || {
        let ran = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        ran.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let both = two_networks("nat-everything");
    let four = ["iptables-save", "ip6tables-save", "iptables-restore", "ip6tables-restore"];
    // The tables have all rules, so a reload changes nothing.
    let nft = ["nft"];
    for (backend, expected, reload) in [
        (FirewallBackend::Nftables, &nft[..], &nft[..]),
        (FirewallBackend::Iptables, &four, &four[..2]),
    ] {
        let recorded = host.transact(backend, &[], &both, false).unwrap();
        assert_eq!(ran(), expected);
        host.transact(backend, &recorded, &both, false).unwrap();
        assert_eq!(ran(), reload, "a reload");
        host.transact(backend, &recorded, &[], false).unwrap();
        assert_eq!(ran(), expected);
        host.transact(backend, &[], &[], false).unwrap();
        assert_eq!(ran(), [] as [&str; 0]);
    }
}

#[test]
fn the_backend_is_chosen_by_trying() {
    if !have_root("the_backend_is_chosen_by_trying") {
        return;
    }
    let host = Host::new();
    let before = host.state();
    for backend in FirewallBackend::ORDER {
        assert_eq!(host.run(usable(&host.tools, backend)), Ok(()));
    }
    assert_eq!(host.run(choose(&host.tools, None)), Ok(FirewallBackend::Nftables));
    assert_eq!(host.state(), before, "trying changes nothing");
    // A file that exists is no backend.
    let sandbox = Sandbox::new(As::Root, None);
    let fails = sandbox.script(
        "nft",
        "echo 'netlink: Error: cache initialization failed: Protocol not supported' >&2; exit 1",
    );
    let tools = Tools { nft: Lookup::Found(fails), ..host.tools.clone() };
    assert_eq!(host.run(choose(&tools, None)), Ok(FirewallBackend::Iptables));
    let error = error_text(&host.run(choose(&tools, Some(FirewallBackend::Nftables))).unwrap_err());
    assert!(error.contains("nftables: nft refuses") && error.contains("Protocol not supported"));
    let half =
        Tools { ip6tables_restore: Lookup::Absent("/usr/sbin/ip6tables-restore".into()), ..tools };
    let error = error_text(&host.run(choose(&half, None)).unwrap_err());
    assert!(error.contains("/usr/sbin/ip6tables-restore does not exist"), "{error}");
}
