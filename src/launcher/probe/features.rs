//! Asks QEMU which option makes its stream netdev reconnect, and whether shared memory has a file.
//!
//! QEMU's help does not list the options of a netdev. The schema that the control protocol returns
//! for `query-qmp-schema` lists them.
//!
//! A QEMU that gives no schema, because of a busy host or a filter of system calls, gets no option
//! that it may not have. The plan has a note about it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::qmp::{execute, returns};
use crate::types::facts::Reconnect;

/// The commands for QEMU's control protocol.
const COMMANDS: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-qmp-schema\"}\n\
    {\"execute\":\"qom-list-properties\",\"arguments\":{\"typename\":\"none-machine\"}}\n\
    {\"execute\":\"quit\"}\n";
/// The machine property that the same version of QEMU introduced as files for all shared memory.
const SHARED_RAM: &str = "aux-ram-share";

/// Asks for the option that makes the stream netdev reconnect, and whether shared memory has a
/// file; `None` if QEMU does not answer.
pub(super) async fn ask_features(path: &Path) -> Option<(Reconnect, bool)> {
    let none = ["-M", "none"].map(OsString::from);
    let features = execute(path, &none, COMMANDS).await.and_then(|output| {
        read(&output).ok_or_else(|| io::Error::other("its output contains no schema"))
    });
    match features {
        Ok(features) => Some(features),
        Err(error) => {
            let qemu = path.display();
            tracing::debug!(%qemu, %error, "no QMP schema, so its stream netdev gets no option to reconnect");
            None
        }
    }
}

/// Reads both features from the output of the control protocol; `None` if it contains no schema.
pub(super) fn read(output: &[u8]) -> Option<(Reconnect, bool)> {
    let schema = schema(output)?;
    let shared_ram = returns(output).any(|value| value.get().contains(SHARED_RAM));
    Some((reconnect(&schema), shared_ram))
}

/// The needed fields of an entity of the schema.
///
/// Members and variants stay unparsed text until they are needed: the whole schema has a quarter of
/// a megabyte, and a supervisor that parses all of it would keep that memory allocated.
#[derive(Deserialize)]
struct Entity<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default, rename = "arg-type")]
    arg_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    members: Option<&'a RawValue>,
    #[serde(borrow, default)]
    variants: Option<&'a RawValue>,
}

/// One case of a union.
#[derive(Deserialize)]
struct Variant {
    case: String,
    r#type: String,
}

/// One member of an object.
#[derive(Deserialize)]
struct Member {
    name: String,
}

/// Returns the schema, which is the first returned value that is a list.
fn schema(output: &[u8]) -> Option<Vec<Entity<'_>>> {
    returns(output).find_map(|value| serde_json::from_str(value.get()).ok())
}

/// Returns the option that makes the stream netdev of this schema reconnect.
fn reconnect(schema: &[Entity]) -> Reconnect {
    let entity = |name: &str| schema.iter().find(|entity| entity.name == name);
    let stream = || {
        let arguments = entity(entity("netdev_add")?.arg_type.as_deref()?)?;
        let variants: Vec<Variant> = serde_json::from_str(arguments.variants?.get()).ok()?;
        entity(&variants.iter().find(|variant| variant.case == "stream")?.r#type)
    };
    let Some(stream) = stream() else { return Reconnect::No };
    let members: Vec<Member> =
        stream.members.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let has = |name: &str| members.iter().any(|member| member.name == name);
    // If both options exist, the one in seconds is deprecated.
    if has("reconnect-ms") {
        Reconnect::Milliseconds
    } else if has("reconnect") {
        Reconnect::Seconds
    } else {
        Reconnect::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A part of QEMU 10.0.2's output, with needed entities and others.
    const QMP: &str = include_str!("../../../tests/fixtures/probe/qemu-10.0-qmp.txt");

    #[test]
    fn milliseconds_are_preferred_to_seconds_and_other_netdevs_are_ignored() {
        let entities = schema(QMP.as_bytes()).unwrap();
        assert_eq!(reconnect(&entities), Reconnect::Milliseconds);
        for (members, expected) in [
            (
                r#"{"name":"addr"},{"name":"reconnect"},{"name":"reconnect-ms"}"#,
                Reconnect::Milliseconds,
            ),
            (r#"{"name":"addr"},{"name":"reconnect-ms"}"#, Reconnect::Milliseconds),
            (r#"{"name":"addr"},{"name":"reconnect"}"#, Reconnect::Seconds),
            (r#"{"name":"addr"}"#, Reconnect::No),
        ] {
            let line = format!(
                r#"{{"return":[
                    {{"name":"netdev_add","arg-type":"1"}},
                    {{"name":"1","variants":[{{"case":"user","type":"3"}},{{"case":"stream","type":"2"}}]}},
                    {{"name":"2","members":[{members}]}},
                    {{"name":"3","members":[{{"name":"reconnect-ms"}}]}}]}}"#
            );
            let line = line.replace('\n', "");
            let entities = schema(line.as_bytes()).unwrap();
            assert_eq!(reconnect(&entities), expected, "{members}");
        }
    }

    #[test]
    fn output_without_a_schema_or_a_stream_netdev_means_no_reconnect() {
        for text in [
            "",
            "{}\n",
            "{\"return\": {}}\n",
            "text\n[1]\n",
            "{\"return\": [\n",
            "{\"return\": [1, null]}\n",
        ] {
            assert!(schema(text.as_bytes()).is_none(), "{text}");
        }
        for text in [
            r#"[]"#,
            r#"[{"name":"netdev_add"}]"#,
            r#"[{"name":"netdev_add","arg-type":"9"}]"#,
            r#"[{"name":"netdev_add","arg-type":"1"},{"name":"1","variants":[{"case":"stream","type":"7"}]}]"#,
        ] {
            let entities: Vec<Entity> = serde_json::from_str(text).unwrap();
            assert_eq!(reconnect(&entities), Reconnect::No, "{text}");
        }
    }
}
