//! Tests of the compiled rules and of their order.

use super::*;
use crate::nwfilter::{Filters, flatten, parse};

/// Compiles the rules of a filter whose document contains this text.
fn compiled(inside: &str) -> Result<(PortRules, Vec<Warning>), CompileError> {
    let xml = format!("<filter name='f'>{inside}</filter>");
    let filter =
        parse(xml.as_bytes(), "5d0c1f4e-7a55-4b56-9d5b-0a3b5bb5a101".parse().ok()).unwrap();
    compile(&flatten(&filter, &Filters::new(), &Default::default()).unwrap())
}

/// Returns each rule in short form: its verdict and the fields of its tests, with `!` if negated.
fn short(rules: &[PortRule]) -> Vec<String> {
    let field = |test: &Test| {
        let (name, negated) = match test {
            Test::Hardware { field, negated, .. } => (format!("{field:?}"), *negated),
            Test::Number { field, negated, .. } => (format!("{field:?}"), *negated),
            Test::Address { field, negated, .. } => (format!("{field:?}Ip"), *negated),
            Test::Icmp { negated, .. } => ("Icmp".to_owned(), *negated),
            Test::Set { sides, negated, .. } => (format!("Set{sides:?}"), *negated),
            Test::State { states, direction } => (format!("{states:?}{direction:?}"), false),
            other => (format!("{other:?}"), false),
        };
        format!("{}{name}", if negated { "!" } else { "" })
    };
    let rule = |rule: &PortRule| {
        let tests: Vec<_> = rule.tests.iter().map(field).collect();
        format!("{:?} {}", rule.verdict, tests.join(" ")).trim_end().to_owned()
    };
    rules.iter().map(rule).collect()
}

#[test]
fn rules_for_packets_also_accept_the_answers() {
    let rule = |action: &str, direction: &str, element: &str| {
        format!("<rule action='{action}' direction='{direction}'>{element}</rule>")
    };
    let from_to = "<tcp srcmacaddr='2:0:0:0:0:1' srcipaddr='10.0.0.1' dstportstart='80'/>";
    let first = "[New, Established]Some(Original)";
    let answer = "[Established]Some(Reply)";
    for (rule, out, into) in [
        (
            rule("accept", "out", from_to),
            vec![format!("Accept Source SourceIp DestinationPort {first}")],
            vec![format!("Accept DestinationIp SourcePort {answer}")],
        ),
        (
            rule("accept", "in", from_to),
            vec![format!("Accept DestinationIp SourcePort {answer}")],
            vec![format!("Accept Source SourceIp DestinationPort {first}")],
        ),
        (rule("drop", "out", from_to), vec!["Drop Source SourceIp DestinationPort".into()], vec![]),
        (rule("return", "in", from_to), vec![], vec!["Return Source SourceIp DestinationPort".into()]),
        (
            rule("accept", "inout", from_to),
            vec!["Accept Source DestinationIp SourcePort".into()],
            vec!["Accept Source SourceIp DestinationPort".into()],
        ),
        (
            rule("accept", "out", "<udp state='NEW,RELATED' srcportstart='5'/>"),
            vec!["Accept SourcePort [New, Related]None".into()],
            vec![],
        ),
        (rule("accept", "in", "<udp state='NONE'/>"), vec![], vec!["Accept".into()]),
        (
            rule("accept", "out", "<icmp type='8'/>"),
            vec!["Accept Icmp [New, Established]None".into()],
            vec![],
        ),
        (rule("drop", "inout", "<icmp type='8'/>"), vec![], vec![]),
        (
            rule("drop", "out", "<tcp connlimit-above='2'/>"),
            vec!["Drop Connections { above: 2 }".into()],
            vec![],
        ),
        (
            rule("drop", "out", "<tcp state='NEW' connlimit-above='2'/>"),
            vec!["Drop [New]None Connections { above: 2 }".into()],
            vec![],
        ),
        (
            rule("accept", "inout", "<all ipset='s' ipsetflags='src,dst'/>"),
            vec!["Accept Set[Destination, Source]".into()],
            vec!["Accept Set[Source, Destination]".into()],
        ),
        (
            "<rule action='accept' direction='out' statematch='false'><udp srcmacaddr='2:0:0:0:0:1' srcportstart='5'/></rule>".into(),
            vec!["Accept Source SourcePort".into()],
            vec!["Accept DestinationPort".into()],
        ),
        (
            rule("drop", "out", "<tcp match='no' srcipaddr='10.0.0.1' dscp='1' srcportstart='5'/>"),
            vec!["Drop !SourceIp SourcePort !Dscp".into()],
            vec![],
        ),
    ] {
        let (rules, _) = compiled(&rule).unwrap();
        assert_eq!(short(&rules.from_guest.packets), out, "{rule}");
        assert_eq!(short(&rules.to_guest.packets), into, "{rule}");
    }
}

#[test]
fn an_inout_rule_with_an_icmp_type_gives_a_warning() {
    let inside = "<rule action='drop' direction='inout'><icmp type='8'/></rule>";
    let (_, warnings) = compiled(inside).unwrap();
    assert_eq!(warnings.len(), 1);
    let text = warnings[0].to_string();
    assert!(text.contains("line 1 of the filter f") && text.contains("does nothing"), "{text}");
}

#[test]
fn inout_rules_for_frames_exchange_source_and_destination_from_the_guest() {
    let inside = "<rule action='drop' direction='inout'>\
                  <arp srcmacaddr='2:0:0:0:0:1' arpsrcipaddr='10.0.0.1' opcode='1'/></rule>";
    let (rules, _) = compiled(inside).unwrap();
    let link = |path: &Path| {
        let rules: Vec<_> = path.rules().cloned().collect();
        short(&rules)
    };
    assert_eq!(link(&rules.from_guest), ["Drop Destination ArpOperation ArpTargetIp"]);
    assert_eq!(link(&rules.to_guest), ["Drop Source ArpOperation ArpSenderIp"]);
}

#[test]
fn chains_and_rules_of_root_are_ordered_by_priority() {
    let part = |chain: &str, priority: i32, rules: &str| {
        let xml =
            format!("<filter name='f' chain='{chain}' priority='{priority}'>{rules}</filter>");
        let filter =
            parse(xml.as_bytes(), "5d0c1f4e-7a55-4b56-9d5b-0a3b5bb5a101".parse().ok()).unwrap();
        flatten(&filter, &Filters::new(), &Default::default()).unwrap()
    };
    let rule = |priority: i32, action: &str| {
        format!("<rule action='{action}' direction='out' priority='{priority}'/>")
    };
    let parts = [
        part("root", 0, &(rule(-500, "drop") + &rule(-600, "return"))),
        part("arp", -500, &rule(100, "accept")),
        part("ipv4-x", -550, &rule(100, "accept")),
        part("arp", -500, &rule(50, "return")),
    ]
    .concat();
    let (rules, _) = compile(&parts).unwrap();
    let path = &rules.from_guest;
    let steps: Vec<String> = path
        .frames
        .iter()
        .map(|step| match step {
            Step::Rule(rule) => format!("{:?}", rule.verdict),
            Step::Chain(number) => path.chains[*number].name.clone(),
        })
        .collect();
    assert_eq!(steps, ["Return", "ipv4-x", "arp", "Drop"]);
    let arp = path.chains.iter().find(|chain| chain.name == "arp").unwrap();
    assert_eq!(short(&arp.rules), ["Return", "Accept"]);
    // There is no rule for frames to the guest, so no chain is called.
    assert_eq!(rules.to_guest, Path::default());
}

#[test]
fn tests_that_no_backend_can_express_are_refused() {
    for (element, word) in [
        ("<ip dstportstart='80'/>", "none of tcp"),
        ("<ip match='no' protocol='udp' dstportstart='80'/>", "none of tcp"),
        ("<ip protocol='icmp' dstportstart='80'/>", "none of tcp"),
        ("<ipv6 protocol='tcp' type='1'/>", "icmpv6"),
        ("<arp match='no' gratuitous='true'/>", "gratuitous"),
    ] {
        let inside = format!("<rule action='drop' direction='out'>{element}</rule>");
        let error = compiled(&inside).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("filter f"), "{error}");
    }
}

#[test]
fn the_highest_icmp_type_is_all_of_them_in_ipv4_only() {
    for (element, tests) in [("<icmp type='255'/>", 1), ("<icmpv6 type='255'/>", 2)] {
        let inside = format!("<rule action='accept' direction='out'>{element}</rule>");
        let (rules, _) = compiled(&inside).unwrap();
        assert_eq!(rules.from_guest.packets[0].tests.len(), tests, "{element}");
    }
}
