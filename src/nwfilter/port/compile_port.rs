//! What a binding's filter means for its port: its rules, or, while the guest's address is what they
//! lack, the rules to learn it by.
//!
//! | `IP` | `CTRL_IP_LEARNING` | |
//! |---|---|---|
//! | has a value, or no rule asks for it | | the filter's rules |
//! | alone has no value | `any`, or nothing | learnt from DHCP, ARP and IPv4 |
//! | alone has no value | `dhcp` | learnt from DHCP |
//! | alone has no value | `none` | an error |
//!
//! Where it is learnt, `DHCPSERVER` may name the servers whose answers count. Elsewhere it is a
//! variable like others, such as one for an IPv6 address.
//!
//! While the address is unknown, the filter's rules are made all the same, with one that stands for
//! all: a filter that makes no rules with any address is refused at once.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::BindingError;
use crate::learn::{Method, learning_rules};
use crate::nwfilter::{
    Binding, Compiler, RulesError, StoreError, TreeError, VariableName, VariableValue, Variables,
    Warning,
};
use crate::rules::port::PortRules;

/// Stands for the address that is not known yet (RFC 5737).
const SAMPLE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// What is known about the address of a port's guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing, and nobody learns it.
    Unlearnt,
    /// Nothing yet.
    NotYet,
    /// It was learnt.
    Is(Ipv4Addr),
}

/// The rules for a port.
#[derive(Debug, Clone)]
pub(super) struct Meaning {
    /// Those to put in force.
    pub(super) rules: Arc<PortRules>,
    /// Those that follow once the address is known, with an address that stands for it.
    pub(super) to_come: Option<Arc<PortRules>>,
    /// What the caller should know.
    pub(super) warnings: Vec<Warning>,
    /// How the address is learnt, where the filter's rules need it and nobody said it.
    pub(super) method: Option<Method>,
}

/// What the filter of `binding` means, of the filters that `compiler` has.
///
/// # Errors
/// It makes no rules.
pub(super) fn meaning(
    binding: &Binding,
    compiler: &mut Compiler<'_>,
    known: Known,
) -> Result<Meaning, BindingError> {
    let port = || binding.port.clone();
    let Some(filter) = compiler.filter(&binding.filter) else {
        return Err(StoreError::Unknown(binding.filter.clone()).into());
    };
    let mut made = |variables: &Variables| {
        compiler.rules(filter, variables).map_err(|error| match error {
            RulesError::Tree(error) => BindingError::Tree { port: port(), error },
            RulesError::Compile(error) => BindingError::Compile { port: port(), error },
        })
    };
    let mut variables = binding.variables();
    let way = way(&variables)?;
    let (error, way) = match (made(&variables), way) {
        (Ok((rules, warnings)), _) => {
            return Ok(Meaning { rules, to_come: None, warnings, method: None });
        }
        (Err(error), Some(way)) if lacks_address_alone(&error) => (error, way),
        (Err(error), _) => return Err(error),
    };
    let address = match known {
        Known::Unlearnt => return Err(error),
        Known::NotYet => SAMPLE,
        Known::Is(address) => address,
    };
    let method = way(servers(&variables)?);
    // The text of an address is a value, and `IP` is a name.
    if let (Ok(name), Ok(value)) = (ADDRESS.parse(), address.to_string().parse()) {
        variables.set_default(name, value);
    }
    let (rules, warnings) = made(&variables)?;
    let (rules, to_come) = match known {
        Known::Is(_) => (rules, None),
        _ => {
            let mut learning = learning_rules(&method, binding.mac);
            learning.from_guest.packets = rules.from_guest.dhcp_clients();
            (Arc::new(learning), Some(rules))
        }
    };
    Ok(Meaning { rules, to_come, warnings, method: Some(method) })
}

/// The variable that can be learnt.
const ADDRESS: &str = "IP";

/// Whether it is that only the guest's address has no value.
fn lacks_address_alone(error: &BindingError) -> bool {
    let BindingError::Tree { error, .. } = error else { return false };
    let TreeError::Variables { missing, .. } = error.as_ref() else { return false };
    missing.iter().all(|used| used.name.as_str() == ADDRESS)
}

/// How the variables want the address to be learnt; `None` is not at all.
///
/// # Errors
/// `CTRL_IP_LEARNING` or `DHCPSERVER` has a value that is none.
pub(super) fn method(variables: &Variables) -> Result<Option<Method>, BindingError> {
    way(variables)?.map(|way| Ok(way(servers(variables)?))).transpose()
}

/// A [`Method`] of some servers.
type Way = fn(Vec<Ipv4Addr>) -> Method;

fn way(variables: &Variables) -> Result<Option<Way>, BindingError> {
    match values(variables, "CTRL_IP_LEARNING") {
        [] => Ok(Some(Method::any)),
        [value] if value.as_str().eq_ignore_ascii_case("any") => Ok(Some(Method::any)),
        [value] if value.as_str().eq_ignore_ascii_case("dhcp") => Ok(Some(Method::dhcp)),
        [value] if value.as_str().eq_ignore_ascii_case("none") => Ok(None),
        values => {
            let values: Vec<&str> = values.iter().map(VariableValue::as_str).collect();
            Err(BindingError::Learning(values.join(", ")))
        }
    }
}

fn servers(variables: &Variables) -> Result<Vec<Ipv4Addr>, BindingError> {
    let server = |value: &VariableValue| {
        let address: Result<Ipv4Addr, _> = value.as_str().parse();
        address.map_err(|_| BindingError::Server(value.to_string()))
    };
    values(variables, "DHCPSERVER").iter().map(server).collect()
}

fn values<'a>(variables: &'a Variables, name: &str) -> &'a [VariableValue] {
    let name: Option<VariableName> = name.parse().ok();
    name.and_then(|name| variables.get(&name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn learnt(parameters: &[(&str, &str)], known: Known) -> Result<Meaning, String> {
        let filters = stock_filters();
        meaning(&binding("clean-traffic", parameters), &mut Compiler::new(&filters), known)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_that_is_said_is_not_learnt() {
        for known in [Known::Unlearnt, Known::NotYet] {
            let made = learnt(&[("IP", "10.0.0.2"), ("CTRL_IP_LEARNING", "dhcp")], known).unwrap();
            assert!(made.method.is_none() && made.to_come.is_none());
        }
    }

    #[test]
    fn a_learnt_address_makes_the_rules_of_one_that_was_said() {
        let said = learnt(&[("IP", "10.0.0.2")], Known::Unlearnt).unwrap();
        let is = learnt(&[], Known::Is(Ipv4Addr::new(10, 0, 0, 2))).unwrap();
        assert_eq!(said.rules, is.rules);
        assert!(is.to_come.is_none());
        let not_yet = learnt(&[], Known::NotYet).unwrap();
        let mac = "52:54:00:00:00:01".parse().unwrap();
        assert_eq!(*not_yet.rules, learning_rules(&Method::any(Vec::new()), mac));
        let sample = learnt(&[("IP", "192.0.2.1")], Known::Unlearnt).unwrap();
        assert_eq!(not_yet.to_come, Some(sample.rules));
    }

    #[test]
    fn the_method_is_what_the_parameters_say() {
        let two = [("DHCPSERVER", "10.0.0.1"), ("DHCPSERVER", "10.0.0.9")];
        let named = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 9)];
        for (learning, way) in [
            (vec![], Method::any as Way),
            (vec![("CTRL_IP_LEARNING", "any")], Method::any),
            (vec![("CTRL_IP_LEARNING", "DHCP")], Method::dhcp),
        ] {
            for (servers, named) in [(&[][..], &[][..]), (&two, &named)] {
                let parameters = [&learning, servers].concat();
                let made = learnt(&parameters, Known::NotYet).unwrap();
                assert_eq!(made.method, Some(way(named.to_vec())), "{parameters:?}");
                let variables = binding("clean-traffic", &parameters).variables();
                assert_eq!(method(&variables).unwrap(), made.method, "{parameters:?}");
            }
        }
    }

    #[test]
    fn what_learning_does_not_mend_is_refused() {
        let missing =
            "the port tap0: the filter clean-traffic needs values for IP: add a parameter for each";
        for (parameters, known, expected) in [
            (vec![], Known::Unlearnt, missing),
            (vec![("CTRL_IP_LEARNING", "none")], Known::NotYet, missing),
            (
                vec![("CTRL_IP_LEARNING", "arp")],
                Known::NotYet,
                "CTRL_IP_LEARNING cannot be \"arp\": use any, dhcp or none",
            ),
            (
                vec![("CTRL_IP_LEARNING", "any"), ("CTRL_IP_LEARNING", "none")],
                Known::NotYet,
                "CTRL_IP_LEARNING cannot be \"any, none\": use any, dhcp or none",
            ),
            (
                vec![("CTRL_IP_LEARNING", "dhcp"), ("DHCPSERVER", "fe80::1")],
                Known::NotYet,
                "DHCPSERVER cannot be \"fe80::1\": write the IPv4 address of a DHCP server",
            ),
            (
                vec![("DHCPSERVER", "10.0.0.1"), ("DHCPSERVER", "router")],
                Known::NotYet,
                "DHCPSERVER cannot be \"router\": write the IPv4 address of a DHCP server",
            ),
        ] {
            assert_eq!(learnt(&parameters, known).unwrap_err(), expected, "{parameters:?}");
        }
        // Where none is learnt it is another's.
        let parameters = [("IP", "10.0.0.2"), ("DHCPSERVER", "fe80::1")];
        assert!(learnt(&parameters, Known::NotYet).is_ok());
        // More than the address is missing, or a second one, or it has no place in the rules.
        for (rule, missing) in [
            ("<udp dstipaddr='$IP' srcportstart='$PORT'/>", "needs values for IP, PORT"),
            ("<udp dstipaddr='$IP[1]'/>", "needs values for IP[1]"),
            ("<udp-ipv6 dstipaddr='$IP'/>", "its value \"192.0.2.1\""),
        ] {
            let xml = format!(
                "<filter name='f'><rule action='drop' direction='out'>{rule}</rule></filter>"
            );
            let filter = crate::nwfilter::parse(
                xml.as_bytes(),
                Some(crate::types::Uuid::random(&mut rand::rng())),
            )
            .unwrap();
            let filters = Filters::from([(filter.name.clone(), filter)]);
            let mut compiler = Compiler::new(&filters);
            let error = meaning(&binding("f", &[]), &mut compiler, Known::NotYet).unwrap_err();
            assert!(error.to_string().contains(missing), "{error}");
        }
    }
}
