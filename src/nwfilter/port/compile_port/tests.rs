use super::*;
use crate::nwfilter::learn::learning_rules;
use crate::nwfilter::{FilterName, Filters, stock, stock_names};

fn stock_filters() -> Filters {
    let filter = |name: FilterName| Some((name.clone(), stock(&name)?.unwrap()));
    stock_names().filter_map(filter).collect()
}

fn binding(filter: &str, parameters: &[(&str, &str)]) -> Binding {
    let parameter =
        |(name, value): &(&str, &str)| format!("<parameter name='{name}' value='{value}'/>");
    let parameters: String = parameters.iter().map(parameter).collect();
    let xml = format!(
        "<filterbinding><portdev name='tap0'/><mac address='52:54:00:00:00:01'/>\
         <filterref filter='{filter}'>{parameters}</filterref></filterbinding>"
    );
    Binding::parse(xml.as_bytes()).unwrap()
}

fn of_v4(v4: AddressState) -> LearnedAddresses {
    LearnedAddresses { v4, v6: None }
}

fn compiled(parameters: &[(&str, &str)], known: AddressState) -> Result<CompiledPort, String> {
    let filters = stock_filters();
    compile_port(&binding("clean-traffic", parameters), &mut Compiler::new(&filters), &of_v4(known))
        .map_err(|error| error.to_string())
}

#[test]
fn an_address_in_the_binding_is_not_learned() {
    for known in [AddressState::NotLearned, AddressState::Pending] {
        let made = compiled(&[("IP", "10.0.0.2"), ("CTRL_IP_LEARNING", "dhcp")], known).unwrap();
        assert!(made.method.is_none() && made.pending_rules.is_none());
    }
}

#[test]
fn a_learned_address_gives_the_rules_of_one_in_the_binding() {
    let in_binding = compiled(&[("IP", "10.0.0.2")], AddressState::NotLearned).unwrap();
    let learned = compiled(&[], AddressState::Known(Ipv4Addr::new(10, 0, 0, 2))).unwrap();
    assert_eq!(in_binding.rules, learned.rules);
    assert!(learned.pending_rules.is_none());
    let pending = compiled(&[], AddressState::Pending).unwrap();
    let mac = "52:54:00:00:00:01".parse().unwrap();
    assert_eq!(*pending.rules, learning_rules(&Method::any(Vec::new()), mac));
    let sample = compiled(&[("IP", "192.0.2.1")], AddressState::NotLearned).unwrap();
    assert_eq!(pending.pending_rules, Some(sample.rules));
}

#[test]
fn the_parameters_select_the_method() {
    let two = [("DHCPSERVER", "10.0.0.1"), ("DHCPSERVER", "10.0.0.9")];
    let named = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 9)];
    for (learning, mode) in [
        (vec![], Method::any as fn(Vec<Ipv4Addr>) -> Method),
        (vec![("CTRL_IP_LEARNING", "any")], Method::any),
        (vec![("CTRL_IP_LEARNING", "DHCP")], Method::dhcp),
    ] {
        for (servers, named) in [(&[][..], &[][..]), (&two, &named)] {
            let parameters = [&learning, servers].concat();
            let made = compiled(&parameters, AddressState::Pending).unwrap();
            assert_eq!(made.method, Some(mode(named.to_vec())), "{parameters:?}");
            let variables = binding("clean-traffic", &parameters).variables();
            assert_eq!(method(&variables).unwrap(), made.method, "{parameters:?}");
        }
    }
}

#[test]
fn errors_other_than_a_missing_address_are_refused() {
    let missing =
        "the port tap0: the filter clean-traffic needs values for IP: add a parameter for each";
    for (parameters, known, expected) in [
        (vec![], AddressState::NotLearned, missing),
        (vec![("CTRL_IP_LEARNING", "none")], AddressState::Pending, missing),
        (
            vec![("CTRL_IP_LEARNING", "arp")],
            AddressState::Pending,
            "CTRL_IP_LEARNING cannot be \"arp\": use any, dhcp or none",
        ),
        (
            vec![("CTRL_IP_LEARNING", "any"), ("CTRL_IP_LEARNING", "none")],
            AddressState::Pending,
            "CTRL_IP_LEARNING cannot be \"any, none\": use any, dhcp or none",
        ),
        (
            vec![("CTRL_IP_LEARNING", "dhcp"), ("DHCPSERVER", "fe80::1")],
            AddressState::Pending,
            "DHCPSERVER cannot be \"fe80::1\": write the IPv4 address of a DHCP server",
        ),
        (
            vec![("DHCPSERVER", "10.0.0.1"), ("DHCPSERVER", "router")],
            AddressState::Pending,
            "DHCPSERVER cannot be \"router\": write the IPv4 address of a DHCP server",
        ),
    ] {
        assert_eq!(compiled(&parameters, known).unwrap_err(), expected, "{parameters:?}");
    }
    // Without learning, DHCPSERVER is an ordinary variable.
    let parameters = [("IP", "10.0.0.2"), ("DHCPSERVER", "fe80::1")];
    assert!(compiled(&parameters, AddressState::Pending).is_ok());
    // More than the address is missing, a second address is missing, or the rule cannot hold
    // it.
    for (rule, missing) in [
        ("<udp dstipaddr='$IP' srcportstart='$PORT'/>", "needs values for IP, PORT"),
        ("<udp dstipaddr='$IP[1]'/>", "needs values for IP[1]"),
        ("<udp-ipv6 dstipaddr='$IP'/>", "its value \"192.0.2.1\""),
    ] {
        let xml =
            format!("<filter name='f'><rule action='drop' direction='out'>{rule}</rule></filter>");
        let filter = crate::nwfilter::parse(
            xml.as_bytes(),
            Some(crate::types::Uuid::random(&mut rand::rng())),
        )
        .unwrap();
        let filters = Filters::from([(filter.name.clone(), filter)]);
        let mut compiler = Compiler::new(&filters);
        let error = compile_port(&binding("f", &[]), &mut compiler, &of_v4(AddressState::Pending))
            .unwrap_err();
        assert!(error.to_string().contains(missing), "{error}");
    }
}

fn dual(v4: AddressState, v6: &[Ipv6Addr], parameters: &[(&str, &str)]) -> CompiledPort {
    let filters = stock_filters();
    let addresses = LearnedAddresses { v4, v6: Some(v6.to_vec()) };
    let binding = binding("clean-traffic-dual", parameters);
    compile_port(&binding, &mut Compiler::new(&filters), &addresses).unwrap()
}

#[test]
fn each_version_of_ip_is_pending_until_its_own_address_is_known() {
    const V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    let known4 = AddressState::Known(V4);
    let addresses = [SAMPLE6, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2)];
    let texts = addresses.map(|address| address.to_string());
    let in_binding = dual(
        AddressState::NotLearned,
        &[],
        &[("IP", "10.0.0.2"), ("IPV6", &texts[0]), ("IPV6", &texts[1])],
    );
    assert!(!in_binding.learns4 && !in_binding.learns6 && in_binding.method.is_none());
    let learned = dual(known4, &addresses, &[]);
    assert_eq!(learned.rules, in_binding.rules);
    assert!(learned.learns4 && learned.learns6 && learned.pending_rules.is_none());

    let mac = "52:54:00:00:00:01".parse().unwrap();
    let both = Pending { v4: Some(Method::any(Vec::new())), v6: true };
    assert_eq!(*dual(AddressState::Pending, &[], &[]).rules, both.rules(mac, None));
    // While one is pending, no rule has the sample of an address.
    for (v4, v6, waits) in [(known4, &[][..], true), (AddressState::Pending, &addresses, false)] {
        let made = dual(v4, v6, &[]);
        assert!(made.pending_rules.is_some());
        let text = format!("{:?}", made.rules);
        assert!(!text.contains(&SAMPLE.to_string()));
        assert_eq!(text.contains(&NO_HOST6.to_string()), waits, "{text}");
        assert_eq!(text.contains(&NO_HOST.to_string()), !waits, "{text}");
    }
    // An address in the binding is not learned.
    let only6 = dual(AddressState::Pending, &[], &[("IP", "10.0.0.2")]);
    assert!(!only6.learns4 && only6.learns6);
    let only4 = dual(AddressState::Pending, &[], &[("IPV6", "2001:db8::7")]);
    assert!(only4.learns4 && !only4.learns6);
}

#[test]
fn a_port_that_does_not_learn_ipv6_refuses_a_filter_that_needs_it() {
    let filters = stock_filters();
    let mut compiler = Compiler::new(&filters);
    for (v4, v6, missing) in [
        (AddressState::Pending, None, "needs values for IP, IPV6"),
        (AddressState::NotLearned, Some(Vec::new()), "needs values for IP, IPV6"),
    ] {
        let binding = binding("clean-traffic-dual", &[]);
        let error = compile_port(&binding, &mut compiler, &LearnedAddresses { v4, v6 });
        let error = error.unwrap_err().to_string();
        assert!(error.contains(missing), "{error}");
    }
}
