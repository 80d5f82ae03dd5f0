//! Tests of variables and trees of filters: the resulting rules, and the errors.

use proptest::prelude::*;

use super::*;
use crate::types::Uuid;

fn filter(name: &str, inside: &str) -> Filter {
    let text = format!("<filter name='{name}'>\n{inside}</filter>");
    let uuid: Uuid = "3e3fce45-4f53-4fa7-bb32-11f34168b82b".parse().unwrap();
    parse(text.as_bytes(), Some(uuid)).unwrap_or_else(|error| panic!("{error} {text}"))
}

fn rule(element: &str) -> Rule {
    let text = format!("<rule action='drop' direction='in'>{element}</rule>");
    filter("f", &text).rules().next().unwrap().clone()
}

/// Variables from `A=1,2 B=3`.
fn variables(text: &str) -> Variables {
    let pairs = text.split_whitespace().flat_map(|pair| {
        let (name, values) = pair.split_once('=').unwrap();
        values.split(',').map(move |value| (name.parse().unwrap(), value.parse().unwrap()))
    });
    pairs.collect()
}

fn filters(all: &[(&str, &str)]) -> Filters {
    all.iter().map(|(name, inside)| (name.parse().unwrap(), filter(name, inside))).collect()
}

/// Returns the attribute values of the rules.
fn values(rules: &[RuleInstance]) -> Vec<String> {
    let one = |rule: &RuleInstance| {
        let condition = rule.condition.as_ref().unwrap();
        let kind = |attribute| condition.protocol.value_type(attribute).unwrap();
        let all = condition.attributes.iter().map(|(name, value)| kind(*name).write(value));
        all.collect::<Vec<_>>().join(" ")
    };
    rules.iter().map(one).collect()
}

#[test]
fn a_list_makes_one_rule_for_each_value() {
    let three = "A=1.1.1.1,2.2.2.2,3.3.3.3,3.3.3.3 B=80,90,80,80 C=1,2";
    for (element, expected) in [
        ("<tcp srcipaddr='9.9.9.9'/>", &["9.9.9.9"][..]),
        ("<tcp srcipaddr='$A'/>", &["1.1.1.1", "2.2.2.2", "3.3.3.3"]),
        // Together; equal pairs once.
        ("<tcp srcipaddr='$A' srcportstart='$B'/>", &["1.1.1.1 80", "2.2.2.2 90", "3.3.3.3 80"]),
        (
            "<tcp srcipaddr='$A[@3]' dstipaddr='$A[@3]'/>",
            &["1.1.1.1 1.1.1.1", "2.2.2.2 2.2.2.2", "3.3.3.3 3.3.3.3"],
        ),
        // Each with each; the lowest iterator first.
        (
            "<tcp srcipaddr='$A[@2]' srcportstart='$C[@1]'/>",
            &["1.1.1.1 1", "1.1.1.1 2", "2.2.2.2 1", "2.2.2.2 2", "3.3.3.3 1", "3.3.3.3 2"],
        ),
        (
            "<tcp srcipaddr='$A' srcportstart='$C[@1]'/>",
            &["1.1.1.1 1", "2.2.2.2 1", "3.3.3.3 1", "1.1.1.1 2", "2.2.2.2 2", "3.3.3.3 2"],
        ),
        ("<tcp srcipaddr='$A[1]' srcportstart='$C[0]'/>", &["2.2.2.2 1"]),
        ("<tcp srcipaddr='$A[3]' srcportstart='$C'/>", &["3.3.3.3 1", "3.3.3.3 2"]),
    ] {
        let found = combinations(&rule(element), &variables(three)).unwrap();
        assert_eq!(values(&found), expected, "{element}");
    }
    let plain = filter("f", "<rule action='drop' direction='in'/>");
    let found = combinations(plain.rules().next().unwrap(), &Variables::default()).unwrap();
    assert_eq!((found.len(), &found[0].condition), (1, &None));
}

#[test]
fn addresses_with_prefix_lengths() {
    let net = "IP=10.2.3.0/24,10.9.0.0/255.255.0.0 V6=2001:db8::/32";
    for (element, expected) in [
        ("<ip srcipaddr='$IP'/>", &["10.2.3.0 24", "10.9.0.0 16"][..]),
        ("<tcp dstipaddr='$IP' dscp='1'/>", &["10.2.3.0 24 1", "10.9.0.0 16 1"]),
        ("<arp arpsrcipaddr='$IP[0]'/>", &["10.2.3.0 24"]),
        ("<ipv6 srcipaddr='$V6'/>", &["2001:db8:: 32"]),
    ] {
        let found = combinations(&rule(element), &variables(net)).unwrap();
        assert_eq!(values(&found), expected, "{element}");
        let attributes = &found[0].condition.as_ref().unwrap().attributes;
        let kinds = attributes.iter().map(|(attribute, _)| *attribute).collect::<Vec<_>>();
        assert!(kinds.iter().any(|kind| kind.name().ends_with("mask")), "{kinds:?}");
    }
}

#[test]
fn the_error_names_the_variable_that_does_not_fit() {
    let all = "A=1.1.1.1,2.2.2.2 B=80,90,100 C=70000 D=x IP=10.0.0.0/24 V6=::1 P=90 Q=80";
    for (element, error) in [
        ("<tcp srcipaddr='$NOSUCH'/>", "no value for NOSUCH: add a parameter"),
        ("<tcp srcipaddr='$A[7]'/>", "no value for A[7]: "),
        (
            "<tcp srcipaddr='$A[2]' dstipaddr='$X[@4]' dstportstart='$X[@4]'/>",
            "no value for A[2], X[@4]: ",
        ),
        (
            "<tcp srcipaddr='$A' srcportstart='$B'/>",
            "the variables A (2 values) and B (3 values) go together in a rule and need as many values: add values, or write B[@1]",
        ),
        (
            "<tcp srcportstart='$C'/>",
            "the variable C is used for srcportstart of <tcp>, and its value \"70000\" is not a number from 0 to 65535",
        ),
        (
            "<tcp srcipaddr='$D'/>",
            "the variable D is used for srcipaddr of <tcp>, and its value \"x\" is not an IPv4 address",
        ),
        (
            "<tcp srcipaddr='$V6'/>",
            "the variable V6 is used for srcipaddr of <tcp>, and its value \"::1\" is not an IPv4",
        ),
        (
            "<tcp srcipfrom='$IP'/>",
            "the variable IP is used for srcipfrom of <tcp>, and its value \"10.0.0.0/24\" is not",
        ),
        (
            "<tcp srcipaddr='$IP' srcipmask='16'/>",
            "the variable IP is 10.0.0.0/24, and the rule has a mask of its own, srcipmask: remove one",
        ),
        (
            "<tcp dstportstart='$P' dstportend='$Q'/>",
            "with the variables' values, the range from 90 (dstportstart) to 80 (dstportend) runs backwards",
        ),
    ] {
        let found = combinations(&rule(element), &variables(all)).unwrap_err().to_string();
        assert!(found.starts_with(error), "{element}\n{found}");
    }
    let long = vec!["1"; 400].iter().enumerate().map(|(i, _)| i.to_string()).collect::<Vec<_>>();
    let long = variables(&format!("A={}", long.join(",")));
    let found = combinations(
        &rule("<tcp srcportstart='$A[@1]' srcportend='65535' dstportstart='$A[@2]'/>"),
        &long,
    );
    assert!(matches!(found, Err(VariableError::TooMany(160_000))), "{found:?}");
}

const DROP: &str = "<rule action='drop' direction='in'/>";

#[test]
fn references_are_flattened_in_document_order() {
    let all = filters(&[
        (
            "root",
            "<rule action='drop' direction='in'><tcp srcportstart='1'/></rule><filterref filter='a'><parameter name='P' value='7'/><parameter name='Q' value='8'/></filterref><rule action='drop' direction='in'><tcp srcportstart='2'/></rule>",
        ),
        (
            "a",
            "<filterref filter='b'/><rule action='drop' direction='in'><tcp srcportstart='$P' dstportstart='$Q'/></rule>",
        ),
        ("b", "<rule action='drop' direction='in'><tcp srcportstart='$Q'/></rule>"),
    ]);
    let root = &all[&"root".parse().unwrap()];
    let shown = |text: &str| {
        let flat = flatten(root, &all, &variables(text)).unwrap();
        flat.iter()
            .map(|part| format!("{}:{}", part.filter, values(&part.rules).join(",")))
            .collect::<Vec<_>>()
    };
    assert_eq!(shown("X=1"), ["root:1", "b:8", "a:7 8", "root:2"]);
    // The values of the binding take precedence.
    assert_eq!(shown("Q=5,6 P=1,2"), ["root:1", "b:5,6", "a:1 5,2 6", "root:2"]);
    assert_eq!(needs(root, &all), Needs::default());
    let a = &all[&"a".parse().unwrap()];
    let names: Vec<_> = needs(a, &all).variables.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["P", "Q"]);
    let error = flatten(a, &all, &Variables::default()).unwrap_err().to_string();
    assert_eq!(error, "the filter a needs values for Q, P: add a parameter for each");
}

#[test]
fn trees_with_errors_are_refused() {
    let deep: Vec<(String, String)> = (0..70)
        .map(|n| (format!("d{n}"), format!("<filterref filter='d{}'/>", n + 1)))
        .chain([("d70".to_owned(), DROP.to_owned())])
        .collect();
    let wide: Vec<(String, String)> = (0..12)
        .map(|n| (format!("w{n}"), format!("<filterref filter='w{}'/>", n + 1).repeat(10)))
        .chain([("w12".to_owned(), DROP.to_owned())])
        .collect();
    let mut all = filters(&[
        ("missing", "<filterref filter='nosuch'/>"),
        ("self", "<filterref filter='self'/>"),
        ("one", "<filterref filter='two'/>"),
        ("two", "<filterref filter='one'/>"),
        ("wrong", "<rule action='drop' direction='in'><tcp srcipaddr='$A'/></rule>"),
        ("many", &"<rule action='drop' direction='in'><tcp srcportstart='$B[@1]' dstportstart='$B[@2]'/></rule>".repeat(3)),
    ]);
    for (name, inside) in deep.iter().chain(&wide) {
        all.insert(name.parse().unwrap(), filter(name, inside));
    }
    let many = (0..200).map(|n: u32| n.to_string()).collect::<Vec<_>>().join(",");
    let variables = variables(&format!("A=x B={many}"));
    for (name, error) in [
        ("missing", "the filter nosuch, which missing refers to, is missing: "),
        ("self", "the filters self -> self refer to each other in a circle"),
        ("one", "the filters one -> two -> one refer to each other in a circle"),
        ("wrong", "the rule at 2:1 of the filter wrong: the variable A is used for"),
        ("many", "the filter many has more than 100000 rules"),
        ("d0", "the references of the filter d0 are more than 64 deep"),
        ("w0", "the filter w0 follows more than 10000 references"),
    ] {
        let filter = &all[&name.parse::<FilterName>().unwrap()];
        let found = flatten(filter, &all, &variables).unwrap_err().to_string();
        assert!(found.starts_with(error), "{name}: {found}");
    }
    for (name, circle) in [
        ("self", Some(&["self", "self"][..])),
        ("one", Some(&["one", "two", "one"])),
        ("missing", None),
        ("d0", None),
        ("w0", None),
    ] {
        let found = find_loop(&all[&name.parse::<FilterName>().unwrap()], &all);
        let found = found.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(
            found.as_deref(),
            circle.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>()).as_deref()
        );
    }
    assert_eq!(reachable(&"w0".parse().unwrap(), &all).len(), 13);
    assert_eq!(needs(&all[&"missing".parse().unwrap()], &all).filters.len(), 1);
}

proptest! {
    /// Every combination occurs once, there are no others, and each has the form of the rule.
    #[test]
    fn independent_iterators_make_every_combination(
        a in prop::collection::vec(0u16..5, 1..5),
        b in prop::collection::vec(0u16..5, 1..5),
    ) {
        let list = |values: &[u16]| values.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        let variables = variables(&format!("A={} B={}", list(&a), list(&b)));
        let rule = rule("<tcp srcportstart='$A[@1]' dstportstart='$B[@2]'/>");
        let found = values(&combinations(&rule, &variables).unwrap());
        let mut expected = Vec::new();
        for b in &b {
            for a in &a {
                let pair = format!("{a} {b}");
                if !expected.contains(&pair) {
                    expected.push(pair);
                }
            }
        }
        prop_assert_eq!(found, expected);
    }

    /// Resolving any references between filters ends.
    #[test]
    fn resolving_references_ends(edges in prop::collection::vec((0usize..6, 0usize..7), 0..30)) {
        let names = ["n0", "n1", "n2", "n3", "n4", "n5", "n6"];
        let mut inside = vec![String::from(DROP); 6];
        for (from, to) in &edges {
            inside[*from].push_str(&format!("<filterref filter='{}'/>", names[*to]));
        }
        let all: Filters = inside.iter().zip(names).map(|(inside, name)| (name.parse().unwrap(), filter(name, inside))).collect();
        for filter in all.values() {
            let looped = reachable(&filter.name, &all).iter().any(|name| find_loop(&all[name], &all).is_some());
            match flatten(filter, &all, &Variables::default()) {
                Ok(flat) => prop_assert!(!looped && !flat.is_empty()),
                Err(TreeError::Loop(_)) => prop_assert!(looped),
                Err(_) => {}
            }
        }
    }
}
