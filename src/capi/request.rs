//! A request as JSON.
//!
//! The names and values are those of netlaunch.conf and of the long options. `version` is required,
//! and a member that is not known is refused by its name: one that is silently ignored can open a
//! port or close one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::error::CallError;
use super::members::{Member, Members, OsText, by_serde, members_by_serde, wrong};
use crate::launcher::plan::{Backend, Family, Transport};
use crate::launcher::{LaunchError, Launcher, LauncherBuilder};

/// The version of the JSON form.
const REQUEST_VERSION: u32 = 1;

/// A request. An absent member, as one that is null, leaves the choice to netlaunch.
#[derive(Debug)]
struct RequestJson {
    _version: Version,
    // QEMU and passt.
    qemu: Option<QemuJson>,
    emulator: Option<OsText>,
    passt: Option<OsText>,
    backend: Option<BackendJson>,
    transport: Option<Transport>,
    // The guest's card and network.
    id: Option<String>,
    mac: Option<String>,
    device: Option<String>,
    publish: Option<Vec<String>>,
    address: Option<String>,
    gateway: Option<Ipv4Addr>,
    dns: Option<IpAddr>,
    search: Option<Vec<String>>,
    hostname: Option<String>,
    mtu: Option<u16>,
    interface: Option<String>,
    family: Option<FamilyJson>,
    host_loopback: Option<bool>,
    pcap: Option<OsText>,
    // Further NICs.
    nics: Option<Vec<String>>,
    keep_nics: Option<bool>,
    // The launch.
    name: Option<String>,
    user: Option<String>,
    stop_timeout: Option<u32>,
    from_env: Option<bool>,
    env: Option<BTreeMap<String, OsText>>,
    state_dir: Option<OsText>,
    cache_dir: Option<OsText>,
}

/// The version of the request's form.
#[derive(Debug)]
struct Version;

impl Member for Version {
    const ACCEPTED: &'static str = "1, the version that this library reads";

    fn read(value: Value, path: &str) -> Result<Self, CallError> {
        if value == REQUEST_VERSION {
            Ok(Version)
        } else {
            Err(wrong(path, &value, Self::ACCEPTED))
        }
    }
}

#[derive(Debug)]
struct QemuJson {
    program: OsText,
    args: Option<Vec<OsText>>,
}

impl Member for QemuJson {
    const ACCEPTED: &'static str = "an object with the members program and args";

    fn read(value: Value, path: &str) -> Result<Self, CallError> {
        let mut members = Members::read(value, path)?;
        let qemu = QemuJson { program: members.require("program")?, args: members.take("args")? };
        members.end().map(|()| qemu)
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BackendJson {
    Auto,
    Passt,
    Slirp,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FamilyJson {
    Both,
    Ipv4,
    Ipv6,
}

members_by_serde! {
    BackendJson: "\"auto\", \"passt\" or \"slirp\"";
    FamilyJson: "\"both\", \"ipv4\" or \"ipv6\"";
    Transport: "\"unix\", \"fd\" or \"vhost-user\"";
}

/// Reads a request.
///
/// # Errors
/// The text is not such JSON, or a value cannot be used.
pub(super) fn launcher(text: &str) -> Result<Launcher, CallError> {
    let mut members = Members::of_text(text)?;
    // First, since a later version may have other members.
    let version = members.require("version")?;
    let request = RequestJson::take(version, &mut members)?;
    members.end()?;
    request.builder().build().map_err(|error| request.at_path(error))
}

/// Makes a request of the members with the names of its fields.
macro_rules! take {
    ($members:ident, $version:ident; $($member:ident),*) => {
        RequestJson { _version: $version, $($member: $members.take(stringify!($member))?),* }
    };
}

/// Calls the builder's method of each member that is present, with the value as `$as`.
macro_rules! set {
    ($builder:ident, $self:ident, $value:ident => $as:expr; $($member:ident),*) => {
        $(if let Some($value) = &$self.$member {
            $builder = $builder.$member($as);
        })*
    };
}

impl RequestJson {
    fn take(version: Version, members: &mut Members) -> Result<Self, CallError> {
        Ok(take!(members, version;
            qemu, emulator, passt, backend, transport,
            id, mac, device, publish, address, gateway, dns, search, hostname, mtu, interface,
            family, host_loopback, pcap, nics, keep_nics,
            name, user, stop_timeout, from_env, env, state_dir, cache_dir))
    }

    /// Adds the path of the member to the error of a value that the launcher refuses.
    fn at_path(&self, error: LaunchError) -> CallError {
        let LaunchError::Value { what, .. } = &error else { return error.into() };
        // The first one of a list that is refused alone.
        type Set = fn(LauncherBuilder, &str) -> LauncherBuilder;
        let item = |member: &str, texts: &Option<Vec<String>>, set: Set| {
            let refused = |text: &String| set(Launcher::builder(), text).build().is_err();
            let number = texts.iter().flatten().position(refused);
            number.map_or(member.to_owned(), |number| format!("{member}[{number}]"))
        };
        let path = match *what {
            "published port" => item("publish", &self.publish, |b, text| b.publish(text)),
            "search domain" => item("search", &self.search, |b, text| b.search(text)),
            "NIC" => item("nics", &self.nics, |b, text| b.nic(text)),
            "address" => "address".to_owned(),
            "host name" => "hostname".to_owned(),
            "MAC address" => "mac".to_owned(),
            "card" => "device".to_owned(),
            "netdev id" => "id".to_owned(),
            "interface" => "interface".to_owned(),
            "launch name" => "name".to_owned(),
            "user" => "user".to_owned(),
            "environment variable" => "env".to_owned(),
            "QEMU program" => "qemu.program".to_owned(),
            "QEMU argument" => self.argument_with_nul(),
            "state directory" => "state_dir".to_owned(),
            "cache directory" => "cache_dir".to_owned(),
            _ => return error.into(),
        };
        let CallError { kind, message } = error.into();
        CallError { kind, message: format!("{path}: {message}") }
    }

    /// Returns the path of the first of QEMU's arguments that has a NUL byte.
    fn argument_with_nul(&self) -> String {
        let args = self.qemu.iter().flat_map(|qemu| qemu.args.iter().flatten());
        let number = args.into_iter().position(|arg| arg.0.as_os_str().as_bytes().contains(&0));
        format!("qemu.args[{}]", number.unwrap_or_default())
    }

    fn builder(&self) -> LauncherBuilder {
        let mut builder = Launcher::builder();
        if self.from_env == Some(true) {
            builder = builder.from_env();
        }
        for (name, value) in self.env.iter().flatten() {
            builder = builder.env(name, &value.0);
        }
        if let Some(qemu) = &self.qemu {
            builder = builder.qemu(&qemu.program.0, qemu.args.iter().flatten().map(|arg| &arg.0));
        }
        builder = match self.backend {
            None | Some(BackendJson::Auto) => builder,
            Some(BackendJson::Passt) => builder.backend(Backend::Passt),
            Some(BackendJson::Slirp) => builder.backend(Backend::Slirp),
        };
        builder = match self.family {
            None | Some(FamilyJson::Both) => builder,
            Some(FamilyJson::Ipv4) => builder.family(Family::V4),
            Some(FamilyJson::Ipv6) => builder.family(Family::V6),
        };
        for ports in self.publish.iter().flatten() {
            builder = builder.publish(ports.as_str());
        }
        for domain in self.search.iter().flatten() {
            builder = builder.search(domain.as_str());
        }
        for nic in self.nics.iter().flatten() {
            builder = builder.nic(nic.as_str());
        }
        set!(builder, self, value => *value; transport, gateway, dns, mtu, host_loopback);
        set!(builder, self, value => *value; keep_nics);
        let seconds = |number: u32| Duration::from_secs(number.into());
        set!(builder, self, number => seconds(*number); stop_timeout);
        set!(builder, self, text => text.as_str(); id, mac, device, address, hostname, interface);
        set!(builder, self, text => text.as_str(); name, user);
        set!(builder, self, path => &path.0; emulator, passt, pcap, state_dir, cache_dir);
        builder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let error = launcher(text).unwrap_err();
        assert_eq!(error.kind, "invalid-request", "{error:?}");
        error.message
    }

    /// Returns whether the schema of a request accepts the text.
    fn schema_accepts(text: &str) -> bool {
        let schema = include_str!("../../conf/schema/capi-request.schema.json");
        let schema = serde_json::from_str(schema).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        validator.is_valid(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn the_schema_has_exactly_the_members_of_a_request() {
        let schema = include_str!("../../conf/schema/capi-request.schema.json");
        let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        let described: std::collections::BTreeSet<_> =
            properties.keys().map(String::as_str).collect();
        let members = include_str!("request.rs").split_once("struct RequestJson {").unwrap().1;
        let members = members.split_once("\n}").unwrap().0.lines().filter_map(|line| {
            let name = line.split_once(": ")?.0.trim();
            Some(name.strip_prefix('_').unwrap_or(name)).filter(|name| !name.contains(' '))
        });
        assert_eq!(described, members.collect());
    }

    #[test]
    fn every_member_reaches_the_launcher() {
        let text = r#"{
            "version": 1, "qemu": {"program": "q", "args": ["-m", {"not-utf-8": [255]}]},
            "emulator": "e", "passt": "p", "backend": "passt", "transport": "fd", "id": "n1",
            "mac": "52:54:00:12:34:56", "device": "e1000", "publish": ["2222:22", "53:53/udp"],
            "address": "192.168.7.2/24", "gateway": "192.168.7.1", "dns": "192.168.7.3",
            "search": ["example.org"], "hostname": "h", "mtu": 1400, "interface": "eth7",
            "family": "ipv4", "host_loopback": false, "pcap": "/f", "name": "n", "user": "u",
            "stop_timeout": 30, "from_env": false, "env": {"A": "b"}, "state_dir": "/s", "cache_dir": "/c"
        }"#;
        assert!(schema_accepts(text));
        let launcher = format!("{:?}", launcher(text).unwrap());
        for shown in [
            r#"program: "q""#,
            r#"args: ["-m", "\xFF"]"#,
            r#"emulator: Some("e")"#,
            r#"passt: Some("p")"#,
            "backend: Some(Passt)",
            "transport: Some(Fd)",
            r#""n1""#,
            "e1000",
            "device_named: true",
            "2222",
            "Udp",
            "192.168.7.2",
            "gateway: Some(192.168.7.1)",
            "dns: Some(192.168.7.3)",
            "example.org",
            r#"hostname: Some(DomainName("h"))"#,
            "mtu: Some(1400)",
            "eth7",
            "family: V4",
            "host_loopback: false",
            r#"pcap: Some("/f")"#,
            r#"name: Some(LaunchName("n"))"#,
            r#"user: Some(UserName("u"))"#,
            "stop_timeout: Some(30s)",
            r#"env: [("A", "b")]"#,
            r#"state_dir: Some("/s")"#,
            r#"cache_dir: Some("/c")"#,
        ] {
            assert!(launcher.contains(shown), "{shown} is not in {launcher}");
        }
    }

    #[test]
    fn null_and_the_names_of_the_defaults_are_the_defaults() {
        let text = r#"{"version": 1, "backend": "auto", "family": "both", "mac": null,
            "host_loopback": true, "publish": [], "from_env": false}"#;
        assert!(schema_accepts(text));
        let default = launcher(r#"{"version": 1}"#).unwrap();
        assert_eq!(format!("{:?}", launcher(text).unwrap()), format!("{default:?}"));
    }

    #[test]
    fn an_unknown_member_and_a_bad_value_are_refused_by_name() {
        let unknown = refused(r#"{"version": 1, "pubish": []}"#);
        assert!(unknown.starts_with("pubish is no member of a request: use one of version, qemu,"));
        let qemu = r#"{"version": 1, "qemu": {"program": "q", "argv": []}}"#;
        assert!(refused(qemu).starts_with("qemu.argv is no member"), "{}", refused(qemu));
        let ports = refused(r#"{"version": 1, "publish": ["80", "ssh"]}"#);
        assert!(ports.starts_with("publish[1]: the published port is not valid: "), "{ports}");
        for text in [
            r#"{"version": 1, "pubish": []}"#,
            qemu,
            r#"{"version": 1, "backend": "bridge"}"#,
            r#"{"version": 1, "mtu": 70000}"#,
            r#"{"version": 1, "gateway": "10.0.2.256"}"#,
            r#"{"version": 1, "pcap": {"not-utf-8": [256]}}"#,
            r#"{"version": 2}"#,
            "{}",
        ] {
            assert!(!schema_accepts(text), "{text}");
            refused(text);
        }
    }

    #[test]
    fn an_error_has_the_path_the_value_and_the_accepted_values() {
        for (members, expected) in [
            (r#""backend": "bridge""#, r#"backend is "bridge": write "auto", "passt" or "slirp""#),
            (r#""mtu": 70000"#, "mtu is 70000: write a whole number from 0 to 65535"),
            (r#""qemu": ["q", []]"#, "qemu is an array: write an object"),
            (r#""qemu": {"args": []}"#, "qemu.program is missing: write a string, or {"),
            (
                r#""qemu": {"program": "q", "args": ["-S", 7]}"#,
                "qemu.args[1] is 7: write a string,",
            ),
            (r#""env": {"A": true}"#, "env.A is true: write a string,"),
            (r#""publish": "80""#, r#"publish is "80": write an array"#),
            (r#""gateway": "host""#, r#"gateway is "host": write a string with an IPv4 address"#),
            (r#""transport": {}"#, r#"transport is an object: write "unix""#),
            (r#""mac": "no""#, "mac: the MAC address is not valid: "),
            (
                r#""qemu": {"program": "q", "args": ["-S", "a\u0000b"]}"#,
                "qemu.args[1]: the QEMU argument is not valid: it holds a NUL byte",
            ),
            (
                r#""nics": ["passt", "bridge=br0"]"#,
                "nics[1]: the NIC is not valid: this library makes no port of a bridge",
            ),
            (r#""cache_dir": "c""#, "cache_dir: the cache directory is not valid: "),
            (r#""env": {"A=B": "c"}"#, "env: the environment variable is not valid: "),
            (r#""mac": null, "mac": null"#, "the request is not JSON: \"mac\" occurs twice"),
        ] {
            let said = refused(&format!("{{\"version\": 1, {members}}}"));
            assert!(said.starts_with(expected), "{members}: {said}");
            for word in ["struct", "enum", "tuple", "expected", "variant", "RequestJson"] {
                assert!(!said.contains(word), "{members}: {said}");
            }
        }
    }

    #[test]
    fn a_request_without_version_1_is_refused() {
        assert!(refused("{}").starts_with("version is missing: write 1, the version"));
        assert!(refused(r#"{"version": 2, "new": 1}"#).starts_with("version is 2: write 1"));
        assert!(refused(r#"{"version": "1"}"#).starts_with(r#"version is "1": write 1"#));
        for text in ["", "{\"version\": 1"] {
            assert!(refused(text).starts_with("the request is not JSON: "), "{text}");
        }
        assert_eq!(refused("[]"), "the request is an array: write an object");
        assert_eq!(refused("null"), "the request is null: write an object");
    }
}
