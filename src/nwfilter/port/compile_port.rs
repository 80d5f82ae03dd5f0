//! Compiles the filter of a binding to the rules of its port. If only the guest's address is
//! missing, the rules are those that let netlaunch learn the address.
//!
//! | `IP` | `CTRL_IP_LEARNING` | Result |
//! |---|---|---|
//! | has a value, or no rule uses it | any value | the filter's rules |
//! | is the only variable without a value | `any`, or not set | learned from DHCP, ARP and IPv4 |
//! | is the only variable without a value | `dhcp` | learned from DHCP |
//! | is the only variable without a value | `none` | an error |
//!
//! If the address is learned, `DHCPSERVER` may name the servers whose answers count. Otherwise
//! `DHCPSERVER` is a variable like any other, and may hold an IPv6 address.
//!
//! While the address is unknown, the filter's rules are compiled as well, with a sample address. So
//! a filter that fails with every address is refused at once, and not when the address is learned.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::BindingError;
use crate::firewall::rules::port::PortRules;
use crate::nwfilter::learn::{Method, learning_rules};
use crate::nwfilter::{
    Binding, Compiler, RulesError, StoreError, TreeError, VariableName, VariableValue, Variables,
    Warning,
};

/// The sample for an address that is not known yet (RFC 5737).
const SAMPLE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Whether the address of a port's guest is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressState {
    /// The address is unknown, and the port does not learn.
    NotLearned,
    /// The port learns, and the address is not known yet.
    Pending,
    /// The address was learned.
    Known(Ipv4Addr),
}

impl AddressState {
    /// Returns the learned address.
    pub(super) fn known(self) -> Option<Ipv4Addr> {
        match self {
            AddressState::Known(address) => Some(address),
            AddressState::NotLearned | AddressState::Pending => None,
        }
    }
}

/// The rules for a port.
#[derive(Debug, Clone)]
pub(super) struct CompiledPort {
    /// The rules to set now.
    pub(super) rules: Arc<PortRules>,
    /// The rules that follow when the address is known, compiled with the sample address.
    pub(super) pending_rules: Option<Arc<PortRules>>,
    /// Warnings of the compiler for the user.
    pub(super) warnings: Vec<Warning>,
    /// How the address is learned, if the filter needs it and the binding does not set it.
    pub(super) method: Option<Method>,
}

/// Compiles the filter of `binding` with the filters that `compiler` has.
///
/// # Errors
/// The filter does not compile, or a learning parameter is not valid.
pub(super) fn compile_port(
    binding: &Binding,
    compiler: &mut Compiler<'_>,
    address: AddressState,
) -> Result<CompiledPort, BindingError> {
    let port = || binding.port.clone();
    let Some(filter) = compiler.filter(&binding.filter) else {
        return Err(StoreError::Unknown(binding.filter.clone()).into());
    };
    let mut compile = |variables: &Variables| {
        compiler.rules(filter, variables).map_err(|error| match error {
            RulesError::Tree(error) => BindingError::Tree { port: port(), error },
            RulesError::Compile(error) => BindingError::Compile { port: port(), error },
        })
    };
    let mut variables = binding.variables();
    let mode = mode(&variables)?;
    let (error, mode) = match (compile(&variables), mode) {
        (Ok((rules, warnings)), _) => {
            return Ok(CompiledPort { rules, pending_rules: None, warnings, method: None });
        }
        (Err(error), Some(mode)) if lacks_only_address(&error) => (error, mode),
        (Err(error), _) => return Err(error),
    };
    let value = match address {
        AddressState::NotLearned => return Err(error),
        AddressState::Pending => SAMPLE,
        AddressState::Known(address) => address,
    };
    let method = mode(servers(&variables)?);
    // Neither parse can fail: the text of an address is a valid value, and `IP` a valid name.
    if let (Ok(name), Ok(value)) = (ADDRESS.parse(), value.to_string().parse()) {
        variables.set_default(name, value);
    }
    let (rules, warnings) = compile(&variables)?;
    let (rules, pending_rules) = match address {
        AddressState::Known(_) => (rules, None),
        AddressState::NotLearned | AddressState::Pending => {
            let mut learning = learning_rules(&method, binding.mac);
            learning.from_guest.packets = rules.from_guest.dhcp_clients();
            (Arc::new(learning), Some(rules))
        }
    };
    Ok(CompiledPort { rules, pending_rules, warnings, method: Some(method) })
}

/// The variable that can be learned.
const ADDRESS: &str = "IP";

/// Returns whether the error is that only the guest's address has no value.
fn lacks_only_address(error: &BindingError) -> bool {
    let BindingError::Tree { error, .. } = error else { return false };
    let TreeError::Variables { missing, .. } = error.as_ref() else { return false };
    missing.iter().all(|used| used.name.as_str() == ADDRESS)
}

/// Returns how the parameters say that the address is learned; `None` if learning is off.
///
/// # Errors
/// `CTRL_IP_LEARNING` or `DHCPSERVER` has a value that is not valid.
pub(super) fn method(variables: &Variables) -> Result<Option<Method>, BindingError> {
    mode(variables)?.map(|mode| Ok(mode(servers(variables)?))).transpose()
}

/// Builds a [`Method`] from the DHCP servers that count.
type MethodOf = fn(Vec<Ipv4Addr>) -> Method;

/// Returns how `CTRL_IP_LEARNING` says that the address is learned; `None` if learning is off.
fn mode(variables: &Variables) -> Result<Option<MethodOf>, BindingError> {
    match values(variables, "CTRL_IP_LEARNING") {
        [] => Ok(Some(Method::any)),
        [value] if value.as_str().eq_ignore_ascii_case("any") => Ok(Some(Method::any)),
        [value] if value.as_str().eq_ignore_ascii_case("dhcp") => Ok(Some(Method::dhcp)),
        [value] if value.as_str().eq_ignore_ascii_case("none") => Ok(None),
        values => {
            let values: Vec<&str> = values.iter().map(VariableValue::as_str).collect();
            Err(BindingError::LearningParameter(values.join(", ")))
        }
    }
}

fn servers(variables: &Variables) -> Result<Vec<Ipv4Addr>, BindingError> {
    let server = |value: &VariableValue| {
        let address: Result<Ipv4Addr, _> = value.as_str().parse();
        address.map_err(|_| BindingError::ServerParameter(value.to_string()))
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

    fn compiled(parameters: &[(&str, &str)], known: AddressState) -> Result<CompiledPort, String> {
        let filters = stock_filters();
        compile_port(&binding("clean-traffic", parameters), &mut Compiler::new(&filters), known)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_in_the_binding_is_not_learned() {
        for known in [AddressState::NotLearned, AddressState::Pending] {
            let made =
                compiled(&[("IP", "10.0.0.2"), ("CTRL_IP_LEARNING", "dhcp")], known).unwrap();
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
            (vec![], Method::any as MethodOf),
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
            let error =
                compile_port(&binding("f", &[]), &mut compiler, AddressState::Pending).unwrap_err();
            assert!(error.to_string().contains(missing), "{error}");
        }
    }
}
