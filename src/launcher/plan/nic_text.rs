//! Reads a NIC from one text: `KIND[,key=value...]`.
//!
//! KIND is `passt`, `slirp`, `network=NAME[:GROUP]` or `bridge=IFNAME`. The keys are `mac`, `id`,
//! `device`,
//! `address`, `publish`, `filter`, `filter-param` and `bandwidth`; `publish` and `filter-param` may
//! come several times. `,,` is a comma in a value, as in QEMU's options.

use std::error::Error;
use std::str::FromStr;

use super::request::{Attachment, Backend, GuestFilter, NicRequest};
use crate::types::{FilterName, NetworkChoice, Parameter, VariableName, VariableValue};

/// Why a text describes no NIC.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NicTextError {
    /// The text does not begin with a kind.
    #[error("{0:?} is no kind of network: begin with passt, slirp, network=NAME or bridge=IFNAME")]
    Kind(String),
    /// The key is not known.
    #[error(
        "a NIC has no {0:?}: use mac, id, device, address, publish, filter, filter-param or bandwidth, and write ,, for a comma in a value"
    )]
    Key(String),
    /// The key has no value.
    #[error("{0} has no value: write {0}=VALUE")]
    NoValue(String),
    /// The key comes twice.
    #[error("{0} is given twice: keep one of the two")]
    Twice(&'static str),
    /// The value is not valid.
    #[error("the value of {key} cannot be used")]
    Value {
        /// The key.
        key: &'static str,
        /// The mistake in the value.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A variable of a filter has no name or no value.
    #[error("{0:?} gives no variable a value: write filter-param=NAME=VALUE")]
    Parameter(String),
    /// There are variables without a filter.
    #[error("filter-param needs a filter: add filter=NAME")]
    NoFilter,
}

impl FromStr for NicRequest {
    type Err = NicTextError;

    fn from_str(text: &str) -> Result<Self, NicTextError> {
        let mut parts = parts(text).into_iter();
        let mut nic = kind(&parts.next().unwrap_or_default())?;
        let mut filter = None;
        let mut parameters: Vec<Parameter> = Vec::new();
        let mut seen: Vec<&'static str> = Vec::new();
        for part in parts {
            let (name, text) = match part.split_once('=') {
                Some((name, text)) => (name, Some(text)),
                None => (part.as_str(), None),
            };
            let Some(key) = KEYS.iter().copied().find(|key| *key == name) else {
                return Err(NicTextError::Key(name.to_owned()));
            };
            let Some(text) = text else { return Err(NicTextError::NoValue(name.to_owned())) };
            if !REPEATABLE.contains(&key) {
                if seen.contains(&key) {
                    return Err(NicTextError::Twice(key));
                }
                seen.push(key);
            }
            match key {
                "mac" => nic.mac = Some(value(key, text)?),
                "id" => (nic.id, nic.id_named) = (value(key, text)?, true),
                "device" => (nic.device, nic.device_named) = (value(key, text)?, true),
                "address" => nic.address = value(key, text)?,
                "bandwidth" => nic.bandwidth = Some(value(key, text)?),
                "publish" => nic.publish(value(key, text)?),
                "filter" => filter = Some(value::<FilterName>(key, text)?),
                _ => parameters.push(parameter(key, text)?),
            }
        }
        match filter {
            Some(name) => nic.filter = Some(GuestFilter { name, parameters }),
            None if parameters.is_empty() => {}
            None => return Err(NicTextError::NoFilter),
        }
        Ok(nic)
    }
}

/// The keys behind the kind.
const KEYS: [&str; 8] =
    ["mac", "id", "device", "address", "publish", "filter", "filter-param", "bandwidth"];
/// The keys that may come several times.
const REPEATABLE: [&str; 2] = ["publish", "filter-param"];

/// Splits a text at its single commas, and makes one comma of two.
pub(in crate::launcher) fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let is_separator = c == ',' && rest.next_if_eq(&',').is_none();
        match parts.last_mut() {
            Some(part) if !is_separator => part.push(c),
            _ => parts.push(String::new()),
        }
    }
    parts
}

/// Returns the NIC of a kind.
fn kind(text: &str) -> Result<NicRequest, NicTextError> {
    let mut port_group = None;
    let (backend, attachment) = match text.split_once('=') {
        None if text == "passt" => (Backend::Passt, None),
        None if text == "slirp" => (Backend::Slirp, None),
        Some(("network", name)) => {
            let NetworkChoice { name, group } = value("network", name)?;
            port_group = group;
            (Backend::Bridge, Some(Attachment::Network(name)))
        }
        Some(("bridge", name)) => {
            (Backend::Bridge, Some(Attachment::Bridge(value("bridge", name)?)))
        }
        _ => return Err(NicTextError::Kind(text.to_owned())),
    };
    Ok(NicRequest { backend: Some(backend), attachment, port_group, ..NicRequest::default() })
}

fn value<T>(key: &'static str, text: &str) -> Result<T, NicTextError>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    text.parse().map_err(|error| NicTextError::Value { key, source: Box::new(error) })
}

fn parameter(key: &'static str, text: &str) -> Result<Parameter, NicTextError> {
    let Some((name, text)) = text.split_once('=') else {
        return Err(NicTextError::Parameter(text.to_owned()));
    };
    Ok((value::<VariableName>(key, name)?, value::<VariableValue>(key, text)?))
}
