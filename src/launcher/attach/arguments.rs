//! Turns QEMU's command-line arguments for a NIC into the arguments of QMP commands.
//!
//! A plan has one form of each NIC, the command line's. QMP takes JSON with types instead, and
//! QEMU 10 refuses a string in place of a boolean or a number. Descriptors have names there.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;

use serde_json::{Map, Value, json};

use crate::launcher::plan::parts;

/// The properties of a netdev whose values are lists of strings.
const LISTS: [&str; 2] = ["dnssearch", "hostfwd"];
/// The properties whose values are numbers.
const NUMBERS: [&str; 4] = ["reconnect", "reconnect-ms", "host_mtu", "vectors"];

/// Why arguments cannot become those of QMP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArgumentsError {
    /// The path of a socket is not UTF-8, and JSON has text only.
    #[error("QMP takes no path that is not UTF-8, and {0:?} is one; use another state directory")]
    NotUtf8(OsString),
    /// The arguments have no card.
    #[error("a guest that runs can only get a network with a card; name a device")]
    NoCard,
}

/// Returns the name under which QEMU gets the descriptor that has this number in a plan.
pub(super) fn fd_name(number: RawFd) -> String {
    format!("netlaunch-{number}")
}

/// Returns the value of an option such as `-netdev`.
pub(super) fn value<'a>(words: &'a [OsString], option: &str) -> Result<&'a OsStr, ArgumentsError> {
    let at = words.iter().position(|word| word == option);
    let value = at.and_then(|at| words.get(at + 1));
    value.map(OsString::as_os_str).ok_or(ArgumentsError::NoCard)
}

/// Returns the arguments of `netdev_add` for a value of `-netdev`.
pub(super) fn netdev(value: &OsStr) -> Result<Value, ArgumentsError> {
    object(value, "type")
}

/// Returns the arguments of `device_add` for a value of `-device`.
pub(super) fn device(value: &OsStr, id: &str) -> Result<Value, ArgumentsError> {
    let mut device = object(value, "driver")?;
    device["id"] = id.into();
    Ok(device)
}

/// Returns the properties as an object. The first one has no name, and gets `first`.
fn object(value: &OsStr, first: &str) -> Result<Value, ArgumentsError> {
    let text = value.to_str().ok_or_else(|| ArgumentsError::NotUtf8(value.to_owned()))?;
    let mut object = Map::new();
    for (place, part) in parts(text).into_iter().enumerate() {
        let (name, text) = match part.split_once('=') {
            _ if place == 0 => (first, part.as_str()),
            Some((name, text)) => (name, text),
            None => (part.as_str(), "on"),
        };
        set(&mut object, name, text);
    }
    // The descriptor of a socket address is a string, its number or its name.
    if let Some(addr) = object.get_mut("addr").filter(|addr| addr["type"] == "fd") {
        let number = addr["str"].as_str().and_then(|number| number.parse().ok());
        addr["str"] = number.map(fd_name).into();
    }
    Ok(object.into())
}

fn set(object: &mut Map<String, Value>, name: &str, text: &str) {
    if let Some((outer, inner)) = name.split_once('.') {
        let outer = object.entry(outer).or_insert_with(|| json!({}));
        outer[inner] = text.into();
        return;
    }
    let number = text.parse::<u64>().ok().filter(|_| NUMBERS.contains(&name));
    let value = match (name, text) {
        _ if LISTS.contains(&name) => {
            let list = object.entry(name).or_insert_with(|| json!([]));
            list.as_array_mut().into_iter().for_each(|list| list.push(json!({ "str": text })));
            return;
        }
        ("fd" | "fds" | "vhostfd" | "vhostfds", _) => {
            let numbers = text.split(':').filter_map(|number| number.parse().ok());
            numbers.map(fd_name).collect::<Vec<_>>().join(":").into()
        }
        (_, "on") => true.into(),
        (_, "off") => false.into(),
        _ => number.map_or_else(|| text.into(), Value::from),
    };
    object.insert(name.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn each_netdev_has_the_types_of_qmp() {
        for (text, expected) in [
            (
                "stream,id=net1,server=off,addr.type=unix,addr.path=/a,,b/s,reconnect-ms=200",
                json!({ "type": "stream", "id": "net1", "server": false, "reconnect-ms": 200,
                        "addr": { "type": "unix", "path": "/a,b/s" } }),
            ),
            (
                "stream,id=net1,server=off,addr.type=fd,addr.str=7",
                json!({ "type": "stream", "id": "net1", "server": false,
                        "addr": { "type": "fd", "str": "netlaunch-7" } }),
            ),
            (
                "user,id=net1,net=10.0.3.0/24,dns=10.0.3.3,ipv6=off,hostfwd=tcp:127.0.0.1:1-:2,\
                 hostfwd=udp:127.0.0.1:3-:4,dnssearch=on,hostname=7",
                json!({ "type": "user", "id": "net1", "net": "10.0.3.0/24", "dns": "10.0.3.3",
                        "ipv6": false, "hostname": "7", "dnssearch": [{ "str": "on" }],
                        "hostfwd": [{ "str": "tcp:127.0.0.1:1-:2" },
                                    { "str": "udp:127.0.0.1:3-:4" }] }),
            ),
            ("tap,id=net1,fd=3", json!({ "type": "tap", "id": "net1", "fd": "netlaunch-3" })),
            (
                "tap,id=net1,fds=3:4,vhost=on,vhostfds=5:6",
                json!({ "type": "tap", "id": "net1", "fds": "netlaunch-3:netlaunch-4",
                        "vhost": true, "vhostfds": "netlaunch-5:netlaunch-6" }),
            ),
        ] {
            assert_eq!(netdev(OsStr::new(text)).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_card_has_the_types_of_qmp() {
        let text = "virtio-net-pci,netdev=net1,mac=52:54:00:00:00:01,host_mtu=9000,mq=on,vectors=6";
        assert_eq!(
            device(OsStr::new(text), "net1-card").unwrap(),
            json!({ "driver": "virtio-net-pci", "netdev": "net1", "mac": "52:54:00:00:00:01",
                    "host_mtu": 9000, "mq": true, "vectors": 6, "id": "net1-card" })
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let error = netdev(OsStr::from_bytes(b"stream,addr.path=/\xff")).unwrap_err();
        assert!(matches!(error, ArgumentsError::NotUtf8(_)), "{error}");
        assert_eq!(value(&["-netdev".into()], "-device"), Err(ArgumentsError::NoCard));
    }
}
